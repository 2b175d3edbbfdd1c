// SPDX-License-Identifier: Apache-2.0
//
// The options of the plugin, as its schema names them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "keyway/plugin.hpp"

namespace keyway::api_etcd {

struct Options {
  std::vector<std::string> listen;
  uint32_t io_threads = 1;
  size_t max_request_bytes = 1572864;
  uint32_t max_concurrent_streams = 100000;
  uint32_t max_connections = 20000;
  uint32_t handshake_slots = 256;
  uint64_t handshake_timeout_ns = 5'000'000'000;
  uint64_t watch_progress_notify_interval_ns = 600'000'000'000;
  size_t watch_buffer_bytes = 4 << 20;
  uint64_t shutdown_grace_ns = 300'000'000;
  std::string etcd_version;

  // The largest message that is read at all; above max_request_bytes a write is refused by name.
  size_t receive_bytes_max() const { return max_request_bytes + (512 << 10); }
};

extern const kw_config_field kOptionFields[];
extern const size_t kOptionFieldCount;

Options ReadOptions(const ConfigReader& config);

// Bounds that are not worth an option.
inline constexpr size_t kHeaderListBytesMax = 64 << 10;
inline constexpr uint32_t kContinuationsMax = 16;
inline constexpr uint32_t kStreamWindowBytes = 1 << 20;
inline constexpr uint32_t kConnectionWindowBytes = 16 << 20;
inline constexpr size_t kConnectionReceiveBytesMax = 256 << 20;
inline constexpr size_t kConnectionUnsentBytesMax = 1 << 30;
inline constexpr size_t kOutputBytesSoft = 256 << 10;
inline constexpr uint64_t kHttp1DeadlineNs = 10'000'000'000;
inline constexpr uint64_t kIdleHttp1DeadlineNs = 300'000'000'000;
inline constexpr uint64_t kAbuseWindowNs = 10'000'000'000;
inline constexpr uint64_t kResetsMax = 1000;
inline constexpr uint64_t kControlFramesMax = 10000;
inline constexpr uint64_t kLeaderLostNs = 3'000'000'000;
inline constexpr size_t kWatchesPerStreamMax = 1 << 20;
inline constexpr size_t kWatchBufferBytesMin = 256 << 10;
inline constexpr size_t kWatchBufferBytesPerStream = 256 << 20;
inline constexpr size_t kKeepAlivesInFlightMax = 1024;
inline constexpr uint32_t kTxnDepthMax = 256;
inline constexpr uint32_t kTxnElementsMax = 1 << 16;
inline constexpr size_t kFlatResponseBytesMax = 32 << 10;
inline constexpr size_t kBufferKeepBytes = 16 << 10;

}  // namespace keyway::api_etcd
