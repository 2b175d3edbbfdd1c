// SPDX-License-Identifier: Apache-2.0
//
// The metrics of this process that every Prometheus client library offers, from /proc.
#pragma once

#include <array>
#include <cstddef>

#include "keyway/observer.h"

namespace keyway::metrics_prometheus {

struct ProcessSamples {
  std::array<kw_sample, 8> samples;
  size_t count = 0;
};

// Reads them now. What /proc does not tell is left out.
ProcessSamples ReadProcess();

}  // namespace keyway::metrics_prometheus
