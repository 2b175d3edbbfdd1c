// SPDX-License-Identifier: Apache-2.0
//
// The muffling of log lines that a stranger can cause at will.
#pragma once

#include <cstdint>
#include <utility>

namespace keyway::transport_grpc {

// Lets one line an interval pass, and counts the others.
class Muffler {
 public:
  static constexpr uint64_t kIntervalNs = 10'000'000'000;

  bool Allow(uint64_t now_ns) {
    if (next_ns_ != 0 && now_ns < next_ns_) {
      ++suppressed_;
      return false;
    }
    next_ns_ = now_ns + kIntervalNs;
    return true;
  }
  uint64_t TakeSuppressed() { return std::exchange(suppressed_, 0); }

 private:
  uint64_t next_ns_ = 0;
  uint64_t suppressed_ = 0;
};

}  // namespace keyway::transport_grpc
