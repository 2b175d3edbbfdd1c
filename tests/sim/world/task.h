// SPDX-License-Identifier: Apache-2.0
//
// Task: a function to be run once, kept where it stands, without memory of its own: the scheduler runs
// some million of them in a second. It neither moves nor copies.
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace keyway::sim {

class Task {
 public:
  static constexpr size_t kBytesMax = 112;

  Task() = default;
  ~Task() { Clear(); }
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;

  // Presumes that it is empty.
  template <typename Function>
  void Set(Function function) {
    static_assert(sizeof(Function) <= kBytesMax && alignof(Function) <= alignof(std::max_align_t));
    new (storage_) Function(std::move(function));
    call_ = [](void* storage, bool run) {
      auto* own = std::launder(reinterpret_cast<Function*>(storage));
      if (run) (*own)();
      own->~Function();
    };
  }
  // Runs it; then it is empty.
  void Run() { std::exchange(call_, nullptr)(storage_, true); }
  void Clear() {
    if (call_ != nullptr) std::exchange(call_, nullptr)(storage_, false);
  }

 private:
  void (*call_)(void* storage, bool run) = nullptr;
  alignas(std::max_align_t) std::byte storage_[kBytesMax];
};

}  // namespace keyway::sim
