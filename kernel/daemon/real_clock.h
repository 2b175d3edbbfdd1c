// SPDX-License-Identifier: Apache-2.0
//
// RealClock: the clock of the machine, and one thread that fires timers.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <set>
#include <thread>
#include <tuple>
#include <unordered_map>

#include "kernel/plugin/clock.h"

namespace keyway {

class RealClock : public Clock {
 public:
  RealClock();
  // Fires what is left with KW_CANCELLED, then joins the thread.
  ~RealClock() override;

  uint64_t MonoNs() override;
  uint64_t WallNs() override;
  void After(uint64_t delay_ns, kw_completion* completion) override;
  void Cancel(kw_completion* completion) override;

 private:
  using Timer = std::tuple<uint64_t, uint64_t, kw_completion*>;  // Due, sequence, completion.
  void Run();

  // A standard mutex: absl::CondVar waits for wall-clock times, which can jump.
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<Timer> timers_;  // Guarded by mutex_, like all below.
  std::unordered_map<kw_completion*, Timer> by_completion_;
  std::deque<kw_completion*> cancelled_;
  uint64_t next_sequence_ = 0;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace keyway
