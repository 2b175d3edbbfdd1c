// SPDX-License-Identifier: Apache-2.0
//
// Which plugin call each thread is in: what the watchdog measures and what a crash is attributed to.
// Entering and leaving are a few stores to memory of the own thread; no clock is read.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace keyway::check {

class Subject;

// The tags of keyway/abi.h.
enum class ThreadTag : uint8_t { kControl, kCore, kLog, kStore, kRead, kAny };

struct Function {    // [static]
  const char* name;  // "kv-store.write"
  ThreadTag tag = ThreadTag::kAny;
  bool is_long = false;  // Its completion may take as long as [control] functions.
};

struct CallFrame {
  std::atomic<const Subject*> subject{nullptr};
  std::atomic<const Function*> function{nullptr};
  std::atomic<uint64_t> sequence{0};  // Another number: another call.
};

// Calls nest when a plugin calls the host, which calls another plugin. Deeper ones go unseen.
inline constexpr size_t kFramesMax = 4;
inline constexpr size_t kStacksMax = 512;  // Threads; later ones go unseen.

struct CallStack {
  std::array<CallFrame, kFramesMax> frames;
  std::atomic<uint32_t> depth{0};
  std::atomic<bool> is_taken{false};
};

// All stacks that were ever taken, for the watchdog. [any]
std::span<CallStack> AllCallStacks();
// Of this thread; taken at the first call and given back at the thread's end. NULL: there are too many.
CallStack* OwnCallStack();
// The same without taking one: for signal handlers.
const CallStack* OwnCallStackIfAny();

class CallScope {
 public:
  CallScope(const Subject& subject, const Function& function) : stack_(OwnCallStack()) {
    if (stack_ == nullptr) return;
    const uint32_t depth = stack_->depth.load(std::memory_order_relaxed);
    if (depth < kFramesMax) {
      CallFrame& frame = stack_->frames[depth];
      frame.subject.store(&subject, std::memory_order_relaxed);
      frame.function.store(&function, std::memory_order_relaxed);
      frame.sequence.store(frame.sequence.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    stack_->depth.store(depth + 1, std::memory_order_release);
  }
  ~CallScope() {
    if (stack_ == nullptr) return;
    stack_->depth.store(stack_->depth.load(std::memory_order_relaxed) - 1, std::memory_order_release);
  }
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;

 private:
  CallStack* const stack_;
};

}  // namespace keyway::check
