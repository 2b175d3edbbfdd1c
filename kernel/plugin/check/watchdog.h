// SPDX-License-Identifier: Apache-2.0
//
// Watchdog: names a plugin call, or a completion, that takes too long: first in the log, and after the
// last deadline with a verdict. It measures by looking: a call that is the same at two looks has lasted
// as long as lies between them. So nothing on the path of a call reads a clock, and time in which the
// whole process stood still (a paused machine) counts as one look.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "kernel/plugin/check/pending.h"
#include "kernel/plugin/clock.h"

namespace keyway::check {

struct Deadlines {
  uint64_t core_warn_ns = 50'000'000;          // [core] and [any] calls; their goal is 50 us.
  uint64_t warn_ns = 5'000'000'000;            // All others, and completions.
  uint64_t stop_ns = 60'000'000'000;           // All but [control].
  uint64_t control_stop_ns = 600'000'000'000;  // start(), stop(), recover(), and copies of the store.
};

class Watchdog {
 public:
  // Both outlive this. Without a clock each look counts as its period. Starts the thread.
  Watchdog(Clock* maybe_clock, Logger* logger, Deadlines deadlines);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // Completions to be watched until Remove(). [control]
  void Add(const PendingCalls* calls);
  void Remove(const PendingCalls* calls);

 private:
  // What is looked at: its sequence, how long it has been the same, and whether it was warned of.
  struct Watched {
    uint64_t sequence = 0;
    uint64_t since_ns = 0;  // On the watchdog's own count.
    bool is_warned = false;
    bool is_seen = false;  // At this look.
  };
  void Run();
  void Look();
  void LookAt(const void* key, uint64_t sequence, const Subject& subject, const Function& function,
              bool is_completion);

  Clock* const maybe_clock_;
  Logger* const logger_;
  const Deadlines deadlines_;
  uint64_t now_ns_ = 0;  // Sum of the times between looks, each bounded. Only of the thread.
  std::unordered_map<const void*, Watched> watched_;
  std::mutex mutex_;
  std::condition_variable stop_;
  bool is_stopping_ = false;                  // Guarded by mutex_.
  std::vector<const PendingCalls*> pending_;  // Guarded by mutex_.
  std::thread thread_;
};

}  // namespace keyway::check
