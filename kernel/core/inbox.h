// SPDX-License-Identifier: Apache-2.0
//
// Inbox: a queue from many threads to one. Push is lock-free and makes a system call only when the
// receiver sleeps; the receiver takes everything at once, in order of arrival (per sender).
#pragma once

#include <atomic>
#include <cstdint>

#include "kernel/base/check.h"
#include "kernel/base/futex.h"

namespace keyway::core {

// Embedded in whatever is queued. The queue owns nothing.
struct InboxNode {
  InboxNode* next = nullptr;
  uint64_t kind = 0;  // The receiver's business.
};

class Inbox {
 public:
  // [any]
  void Push(InboxNode* node) {
    InboxNode* head = head_.load(std::memory_order_relaxed);
    do {
      node->next = head;
    } while (!head_.compare_exchange_weak(head, node, std::memory_order_seq_cst, std::memory_order_relaxed));
    if (head == nullptr) Wake();
  }

  // Receiver: everything that has arrived, first come first, or nullptr.
  InboxNode* Take() {
    if (head_.load(std::memory_order_relaxed) == nullptr) return nullptr;
    InboxNode* reversed = head_.exchange(nullptr, std::memory_order_acquire);
    InboxNode* list = nullptr;
    while (reversed != nullptr) {
      InboxNode* next = reversed->next;
      reversed->next = list;
      list = reversed;
      reversed = next;
    }
    return list;
  }

  bool Empty() const { return head_.load(std::memory_order_relaxed) == nullptr; }

  // Receiver: returns when something has arrived.
  void Wait() {
    while (true) {
      sleeping_.store(1, std::memory_order_seq_cst);
      if (head_.load(std::memory_order_seq_cst) != nullptr) {
        sleeping_.store(0, std::memory_order_relaxed);
        return;
      }
      FutexWait(&sleeping_, 1);
    }
  }

 private:
  void Wake() {
    if (sleeping_.load(std::memory_order_seq_cst) != 0 &&
        sleeping_.exchange(0, std::memory_order_seq_cst) != 0) {
      FutexWakeOne(&sleeping_);
    }
  }

  std::atomic<InboxNode*> head_{nullptr};
  std::atomic<int32_t> sleeping_{0};
};

}  // namespace keyway::core
