// SPDX-License-Identifier: Apache-2.0
//
// Everything that a plugin in C++ needs beside its interface's header.
#pragma once

#include "keyway/abi.h"
#include "keyway/config.hpp"
#include "keyway/detail.h"
#include "keyway/error.hpp"
#include "keyway/host.h"
#include "keyway/lifecycle.hpp"
#include "keyway/log.hpp"
#include "keyway/metrics.hpp"
#include "keyway/slice.hpp"

namespace keyway {

// Ends an asynchronous call: `completion` may be freed when this returns.
inline void Complete(kw_completion* completion, int32_t code, const kw_error* maybe_error = nullptr) {
  completion->done(completion, code, code == KW_OK ? nullptr : maybe_error);
}

// keyway.clock/1 of the host; without the service in `needs` every reading is 0.
class Clock {
 public:
  Clock() = default;
  explicit Clock(const kw_host* host) : host_(host), table_(HostService<kw_clock>(host, KW_CLOCK)) {}
  uint64_t MonoNs() const { return table_ == nullptr ? 0 : table_->mono_ns(host_); }
  uint64_t WallNs() const { return table_ == nullptr ? 0 : table_->wall_ns(host_); }

 private:
  const kw_host* host_ = nullptr;
  const kw_clock* table_ = nullptr;
};

}  // namespace keyway
