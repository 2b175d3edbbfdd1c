// SPDX-License-Identifier: Apache-2.0
//
// Log lines through keyway.log/1, and the muffling of those that a stranger can cause at will.
#pragma once

#include <cinttypes>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <string_view>

#include "keyway/host.h"

namespace keyway::transport_tcp {

class Log {
 public:
  struct Field {
    const char* key;
    std::string_view value;
  };

  Log(const kw_host* host, const kw_log* maybe_log) : host_(host), maybe_log_(maybe_log) {}

  void Write(uint32_t level, const char* event, std::initializer_list<Field> fields) const {
    if (maybe_log_ == nullptr || level < maybe_log_->level_min) return;
    kw_field raw[8];
    size_t count = 0;
    for (const Field& field : fields) {
      if (count == 8) break;
      raw[count++] = {field.key, {reinterpret_cast<const uint8_t*>(field.value.data()), field.value.size()}};
    }
    maybe_log_->write(host_, level, event, raw, count);
  }

 private:
  const kw_host* const host_;
  const kw_log* const maybe_log_;
};

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
  uint64_t TakeSuppressed() {
    const uint64_t count = suppressed_;
    suppressed_ = 0;
    return count;
  }

 private:
  uint64_t next_ns_ = 0;
  uint64_t suppressed_ = 0;
};

// A member id as etcd writes it.
inline std::string Hex(uint64_t id) {
  char text[20];
  std::snprintf(text, sizeof(text), "%" PRIx64, id);
  return text;
}

}  // namespace keyway::transport_tcp
