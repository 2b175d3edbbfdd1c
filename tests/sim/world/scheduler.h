// SPDX-License-Identifier: Apache-2.0
//
// Virtual time: what is to happen, in order of time and then of being asked for. Time stands still while
// something runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace keyway::sim {

inline constexpr uint64_t kMicrosecond = 1'000;
inline constexpr uint64_t kMillisecond = 1'000'000;
inline constexpr uint64_t kSecond = 1'000'000'000;

class Scheduler {
 public:
  uint64_t now_ns() const { return now_ns_; }
  uint64_t events_run() const { return events_run_; }

  void After(uint64_t delay_ns, std::function<void()> run) {
    uint32_t slot = 0;
    if (free_.empty()) {
      slot = static_cast<uint32_t>(slots_.size());
      slots_.push_back(std::move(run));
    } else {
      slot = free_.back();
      free_.pop_back();
      slots_[slot] = std::move(run);
    }
    heap_.push_back({now_ns_ + delay_ns, next_seq_++, slot});
    std::push_heap(heap_.begin(), heap_.end(), Later);
  }

  // Runs the next event if it is due by `until_ns`; else the time is then `until_ns`, and false.
  bool RunOne(uint64_t until_ns) {
    if (heap_.empty() || heap_.front().at_ns > until_ns) {
      now_ns_ = std::max(now_ns_, until_ns);
      return false;
    }
    std::pop_heap(heap_.begin(), heap_.end(), Later);
    const Entry entry = heap_.back();
    heap_.pop_back();
    now_ns_ = entry.at_ns;
    ++events_run_;
    const std::function<void()> run = std::move(slots_[entry.slot]);
    slots_[entry.slot] = nullptr;
    free_.push_back(entry.slot);
    run();
    return true;
  }

 private:
  struct Entry {
    uint64_t at_ns, seq;
    uint32_t slot;
  };
  static bool Later(const Entry& a, const Entry& b) {
    return a.at_ns != b.at_ns ? a.at_ns > b.at_ns : a.seq > b.seq;
  }

  uint64_t now_ns_ = kSecond;  // Zero means "never" in places.
  uint64_t next_seq_ = 0;
  uint64_t events_run_ = 0;
  std::vector<Entry> heap_;
  std::vector<std::function<void()>> slots_;
  std::vector<uint32_t> free_;
};

}  // namespace keyway::sim
