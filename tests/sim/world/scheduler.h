// SPDX-License-Identifier: Apache-2.0
//
// Virtual time: what is to happen, in order of time and then of being asked for. Time stands still while
// something runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "tests/sim/world/task.h"

namespace keyway::sim {

inline constexpr uint64_t kMicrosecond = 1'000;
inline constexpr uint64_t kMillisecond = 1'000'000;
inline constexpr uint64_t kSecond = 1'000'000'000;

class Scheduler {
 public:
  uint64_t now_ns() const { return now_ns_; }
  uint64_t events_run() const { return events_run_; }

  template <typename Function>
  void After(uint64_t delay_ns, Function run) {
    uint32_t slot = 0;
    if (free_.empty()) {
      slot = static_cast<uint32_t>(slots_.size());
      slots_.emplace_back();
    } else {
      slot = free_.back();
      free_.pop_back();
    }
    slots_[slot].Set(std::move(run));
    heap_.push_back({now_ns_ + delay_ns, next_seq_++, slot});
    SiftUp(heap_.size() - 1);
  }

  // Runs the next event if it is due by `until_ns`; else the time is then `until_ns`, and false.
  bool RunOne(uint64_t until_ns) {
    if (heap_.empty() || heap_.front().at_ns > until_ns) {
      now_ns_ = std::max(now_ns_, until_ns);
      return false;
    }
    const Entry entry = heap_.front();
    TakeFirst();
    now_ns_ = entry.at_ns;
    ++events_run_;
    slots_[entry.slot].Run();
    free_.push_back(entry.slot);
    return true;
  }

 private:
  struct Entry {
    uint64_t at_ns, seq;
    uint32_t slot;
    bool IsBefore(const Entry& other) const {
      return at_ns != other.at_ns ? at_ns < other.at_ns : seq < other.seq;
    }
  };
  // A heap of four children each: half as deep as one of two.
  static constexpr size_t kChildren = 4;

  void SiftUp(size_t at) {
    const Entry entry = heap_[at];
    while (at > 0) {
      const size_t parent = (at - 1) / kChildren;
      if (!entry.IsBefore(heap_[parent])) break;
      heap_[at] = heap_[parent];
      at = parent;
    }
    heap_[at] = entry;
  }

  void TakeFirst() {
    const Entry entry = heap_.back();
    heap_.pop_back();
    if (heap_.empty()) return;
    size_t at = 0;
    while (true) {
      const size_t first = at * kChildren + 1;
      if (first >= heap_.size()) break;
      size_t least = first;
      for (size_t child = first + 1; child < std::min(first + kChildren, heap_.size()); ++child) {
        if (heap_[child].IsBefore(heap_[least])) least = child;
      }
      if (!heap_[least].IsBefore(entry)) break;
      heap_[at] = heap_[least];
      at = least;
    }
    heap_[at] = entry;
  }

  uint64_t now_ns_ = kSecond;  // Zero means "never" in places.
  uint64_t next_seq_ = 0;
  uint64_t events_run_ = 0;
  std::vector<Entry> heap_;
  std::deque<Task> slots_;  // A deque: they stay where they are.
  std::vector<uint32_t> free_;
};

}  // namespace keyway::sim
