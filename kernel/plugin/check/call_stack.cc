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
thread_local Ticket ticket;

CallStack* Take() {
  for (CallStack& stack : AllCallStacks()) {
    if (!stack.is_taken.load(std::memory_order_relaxed) &&
        !stack.is_taken.exchange(true, std::memory_order_acquire)) {
      return &stack;
    }
  }
  return nullptr;
}

}  // namespace

std::array<CallStack, kStacksMax>& AllCallStacks() {
  static auto* stacks = new std::array<CallStack, kStacksMax>;
  return *stacks;
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
