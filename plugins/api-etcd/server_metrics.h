// SPDX-License-Identifier: Apache-2.0
//
// The counters of the plugin, under the names that etcd's dashboards and alerts use.
#pragma once

#include <array>

#include "keyway/plugin.hpp"
#include "methods.h"

namespace keyway::api_etcd {

struct ServerMetrics {
  ServerMetrics() = default;
  // [control] All cells, so that a series exists before its first event.
  explicit ServerMetrics(const kw_host* host);

  void Started(Rpc rpc) const { started[static_cast<size_t>(rpc)].Add(); }
  void Handled(Rpc rpc, int32_t code) const {
    handled[static_cast<size_t>(rpc)][static_cast<size_t>(code)].Add();
  }

  std::array<Counter, kRpcCount> started;
  std::array<std::array<Counter, 17>, kRpcCount> handled;
  Counter received_bytes;
  Counter sent_bytes;
  Gauge connections;
  Gauge watch_streams;
  Counter connections_refused;
  Counter connections_abusive;
};

}  // namespace keyway::api_etcd
