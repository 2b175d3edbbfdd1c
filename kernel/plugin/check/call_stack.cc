// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/call_stack.h"

namespace keyway::check {
namespace {

struct Ticket {
  CallStack* stack = nullptr;
  bool is_asked = false;

  ~Ticket() {
    if (stack == nullptr) return;
    stack->depth.store(0, std::memory_order_relaxed);
    stack->is_taken.store(false, std::memory_order_release);
    stack = nullptr;
  }
};
constinit thread_local Ticket ticket;

std::array<CallStack, kStacksMax> stacks;
std::atomic<size_t> taken_count{0};  // Stacks behind it were never used.

CallStack* Take() {
  for (size_t i = 0; i < kStacksMax; ++i) {
    if (stacks[i].is_taken.load(std::memory_order_relaxed) ||
        stacks[i].is_taken.exchange(true, std::memory_order_acquire)) {
      continue;
    }
    size_t count = taken_count.load(std::memory_order_relaxed);
    while (count < i + 1 && !taken_count.compare_exchange_weak(count, i + 1)) {
    }
    return &stacks[i];
  }
  return nullptr;
}

}  // namespace

std::span<CallStack> AllCallStacks() {
  return std::span(stacks).first(taken_count.load(std::memory_order_acquire));
}

CallStack* OwnCallStack() {
  if (!ticket.is_asked) [[unlikely]] {
    ticket.is_asked = true;
    ticket.stack = Take();
  }
  return ticket.stack;
}

const CallStack* OwnCallStackIfAny() { return ticket.stack; }

}  // namespace keyway::check
