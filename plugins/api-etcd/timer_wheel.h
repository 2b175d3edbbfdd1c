// SPDX-License-Identifier: Apache-2.0
//
// Deadlines of one I/O thread: set and cleared in constant time, accurate to one tick.
#pragma once

#include <array>
#include <cstdint>

namespace keyway::api_etcd {

// A hashed wheel: a timer stands in the slot of its tick; later rounds just stay there. Expired
// timers fire from Advance(). Belongs to one thread.
class TimerWheel {
 public:
  struct Timer {
    Timer* next = nullptr;
    Timer* previous = nullptr;
    uint64_t at_ns = 0;
    void (*fire)(Timer* timer) = nullptr;
    bool is_set() const { return next != nullptr; }
  };

  static constexpr uint64_t kTickNs = 8'000'000;
  static constexpr size_t kSlotCount = 1024;

  TimerWheel() {
    for (Timer& slot : slots_) slot.next = slot.previous = &slot;
  }

  // Must be called once before the first Set().
  void Start(uint64_t now_ns) { tick_ = now_ns / kTickNs; }

  // `fire` runs once, at `at_ns` or up to two ticks later.
  void Set(Timer* timer, uint64_t at_ns) {
    Clear(timer);
    uint64_t tick = at_ns / kTickNs + 1;
    if (tick <= tick_) tick = tick_ + 1;
    timer->at_ns = at_ns;
    Timer* const slot = &slots_[tick % kSlotCount];
    timer->next = slot;
    timer->previous = slot->previous;
    slot->previous->next = timer;
    slot->previous = timer;
    used_[tick % kSlotCount / 64] |= uint64_t{1} << (tick % 64);
    ++count_;
  }
  void Clear(Timer* timer) {
    if (timer->next == nullptr) return;
    timer->previous->next = timer->next;
    timer->next->previous = timer->previous;
    timer->next = timer->previous = nullptr;
    --count_;
  }
  void Advance(uint64_t now_ns) {
    const uint64_t now_tick = now_ns / kTickNs;
    // After a long pause one whole round visits every slot.
    if (now_tick > tick_ + kSlotCount) tick_ = now_tick - kSlotCount;
    while (tick_ < now_tick) {
      ++tick_;
      FireSlot(tick_ % kSlotCount, now_ns);
    }
  }
  // Milliseconds until a slot with timers comes up; -1 with no timer.
  int NextMs(uint64_t now_ns) const {
    if (count_ == 0) return -1;
    for (uint64_t ahead = 1; ahead <= kSlotCount; ++ahead) {
      const uint64_t slot = (tick_ + ahead) % kSlotCount;
      if (slot % 64 == 0 && used_[slot / 64] == 0 && ahead + 63 <= kSlotCount) {
        ahead += 63;
        continue;
      }
      if ((used_[slot / 64] >> (slot % 64) & 1) == 0) continue;
      const uint64_t due_ns = (tick_ + ahead) * kTickNs;
      return due_ns <= now_ns ? 0 : static_cast<int>((due_ns - now_ns) / 1'000'000 + 1);
    }
    return static_cast<int>(kTickNs * kSlotCount / 1'000'000);
  }
  size_t count() const { return count_; }

 private:
  void FireSlot(size_t index, uint64_t now_ns) {
    if ((used_[index / 64] >> (index % 64) & 1) == 0) return;
    used_[index / 64] &= ~(uint64_t{1} << (index % 64));
    Timer* const slot = &slots_[index];
    if (slot->next == slot) return;
    // Moves the list aside first: a fired timer may set or clear any other one.
    Timer due;
    due.next = slot->next;
    due.previous = slot->previous;
    due.next->previous = &due;
    due.previous->next = &due;
    slot->next = slot->previous = slot;
    while (due.next != &due) {
      Timer* const timer = due.next;
      if (timer->at_ns > now_ns) {  // Of a later round.
        Set(timer, timer->at_ns);
        continue;
      }
      Clear(timer);
      timer->fire(timer);
    }
    due.next = nullptr;
  }

  std::array<Timer, kSlotCount> slots_;
  std::array<uint64_t, kSlotCount / 64> used_ = {};
  uint64_t tick_ = 0;
  size_t count_ = 0;
};

}  // namespace keyway::api_etcd
