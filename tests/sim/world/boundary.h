// SPDX-License-Identifier: Apache-2.0
//
// Where a simulated process crosses the plugin ABI. Each call of a plugin goes through Cross() first: there
// the process may be made to die, or the call to fail.
#pragma once

#include <cstddef>
#include <cstdint>

namespace keyway::sim {

enum class Call : uint8_t {
  kStoreWrite,
  kStoreSync,
  kStoreViewOpen,
  kStoreGet,
  kStoreCursorOpen,
  kStoreCursorNext,
  kStoreStats,
  kLogRecover,
  kLogAppend,
  kLogTryAppend,
  kLogRead,
  kLogTruncatePrefix,
  kLogReset,
  kTransportListen,
  kTransportSetPeers,
  kTransportSend,
  kLogSalvage,
  kLogRebuild,
};
inline constexpr size_t kCallCount = 18;

inline const char* NameOf(Call call) {
  static constexpr const char* kNames[kCallCount] = {
      "store.write",    "store.sync",        "store.view_open",
      "store.get",      "store.cursor_open", "store.cursor_next",
      "store.stats",    "log.recover",       "log.append",
      "log.try_append", "log.read",          "log.truncate_prefix",
      "log.reset",      "transport.listen",  "transport.set_peers",
      "transport.send", "log.salvage",       "log.rebuild"};
  return kNames[static_cast<size_t>(call)];
}

class Boundary {
 public:
  virtual ~Boundary() = default;
  // KW_OK: the call takes place. Another code: it has no effect and gives this.
  virtual int32_t Cross(Call call) = 0;
  // The process has died in this turn: nothing that it does has an effect any more.
  virtual bool dying() const = 0;
};

}  // namespace keyway::sim
