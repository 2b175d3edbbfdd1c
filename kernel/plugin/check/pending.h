// SPDX-License-Identifier: Apache-2.0
//
// The completions of one wrapped table. A plugin gets a completion of the host's, which lives longer
// than any call and so still knows a done() that comes twice, late, or although a final code was
// returned. Slots are used again in turn, at least kSlotsIdleMin others first.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "kernel/plugin/check/poison.h"
#include "kernel/plugin/check/verdict.h"

namespace keyway::check {

class PendingCalls;

struct PendingCall {
  kw_completion facade{};  // First: a pointer to it is one to the call.
  PendingCalls* owner = nullptr;
  const Function* function = nullptr;
  kw_completion* original = nullptr;
  // Runs before the caller's done(), with its code.
  void (*on_done)(PendingCall* call, int32_t code) = nullptr;
  void* context = nullptr;  // Of on_done, like these:
  uint64_t sequence = 0;
  uint64_t numbers[4] = {};
  PoisonedCopy copy;  // [done] arguments at level full.

  std::atomic<uint32_t> state{0};       // kState bits.
  std::atomic<uint64_t> generation{0};  // For the watchdog: another number, another call.
  PendingCall* next_idle = nullptr;
};

class PendingCalls {
 public:
  explicit PendingCalls(const Subject* subject) : subject_(*subject) {}

  // Before the call. Its facade goes to the plugin.
  PendingCall* Begin(const Function& function, kw_completion* original);
  // After a final code: condemns if done() was called as well.
  void CheckNotFired(const PendingCall& call, int32_t code) const;
  // After the call; checks and returns its code, which fits a function that takes a completion.
  int32_t Returned(PendingCall* call, int32_t code);

  // At stop(): condemns if a completion has not fired.
  void CheckNoneIsPending() const;

  // Calls visit(call) for each that waits for its done(). For the watchdog.
  template <typename Visit>
  void ForEachPending(Visit&& visit) const {
    std::lock_guard lock(mutex_);
    for (const auto& chunk : chunks_) {
      for (size_t i = 0; i < kChunk; ++i) {
        const uint32_t state = chunk[i].state.load(std::memory_order_acquire);
        if ((state & (kIdle | kFired)) == 0 && (state & kReturned) != 0) visit(chunk[i]);
      }
    }
  }
  const Subject& subject() const { return subject_; }

 private:
  static constexpr size_t kChunk = 64;
  static constexpr size_t kSlotsIdleMin = 32;
  static constexpr uint32_t kReturned = 1;   // The function has returned KW_PENDING.
  static constexpr uint32_t kFired = 2;      // done() was called.
  static constexpr uint32_t kForwarded = 4;  // The caller's done() has returned.
  static constexpr uint32_t kFinal = 8;      // It ended with a final code instead.
  static constexpr uint32_t kIdle = 16;

  static void Done(kw_completion* completion, int32_t code, const kw_error* error);
  void Release(PendingCall* call);

  const Subject& subject_;
  mutable std::mutex mutex_;  // Guards what follows.
  std::vector<std::unique_ptr<PendingCall[]>> chunks_;
  PendingCall* idle_first_ = nullptr;
  PendingCall* idle_last_ = nullptr;
  size_t idle_count_ = 0;
};

}  // namespace keyway::check
