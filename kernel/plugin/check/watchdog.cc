// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/watchdog.h"

#include <pthread.h>

#include <algorithm>

namespace keyway::check {
namespace {

constexpr uint64_t kLookNs = 25'000'000;

}  // namespace

Watchdog::Watchdog(Clock* maybe_clock, Logger* logger, Deadlines deadlines)
    : maybe_clock_(maybe_clock), logger_(logger), deadlines_(deadlines), thread_([this] { Run(); }) {}

Watchdog::~Watchdog() {
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  stop_.notify_one();
  thread_.join();
}

void Watchdog::Add(const PendingCalls* calls) {
  std::lock_guard lock(mutex_);
  pending_.push_back(calls);
}

void Watchdog::Remove(const PendingCalls* calls) {
  std::lock_guard lock(mutex_);
  std::erase(pending_, calls);
}

void Watchdog::Run() {
  pthread_setname_np(pthread_self(), "kw-watchdog");
  uint64_t last_ns = maybe_clock_ == nullptr ? 0 : maybe_clock_->MonoNs();
  while (true) {
    {
      std::unique_lock lock(mutex_);
      if (stop_.wait_for(lock, std::chrono::nanoseconds(kLookNs), [this] { return is_stopping_; })) return;
    }
    const uint64_t time_ns = maybe_clock_ == nullptr ? last_ns + kLookNs : maybe_clock_->MonoNs();
    now_ns_ += std::min(time_ns - last_ns, 2 * kLookNs);
    last_ns = time_ns;
    Look();
  }
}

void Watchdog::Look() {
  for (auto& [key, watched] : watched_) watched.is_seen = false;
  for (const CallStack& stack : AllCallStacks()) {
    const uint32_t depth = std::min<uint32_t>(stack.depth.load(std::memory_order_acquire), kFramesMax);
    for (uint32_t i = 0; i < depth; ++i) {
      const CallFrame& frame = stack.frames[i];
      const uint64_t sequence = frame.sequence.load(std::memory_order_relaxed);
      const Subject* subject = frame.subject.load(std::memory_order_relaxed);
      const Function* function = frame.function.load(std::memory_order_relaxed);
      // Left, or entered anew, while it was read.
      if (stack.depth.load(std::memory_order_acquire) <= i ||
          frame.sequence.load(std::memory_order_relaxed) != sequence) {
        continue;
      }
      LookAt(&frame, sequence, *subject, *function, false);
    }
  }
  {
    std::lock_guard lock(mutex_);
    for (const PendingCalls* calls : pending_) {
      calls->ForEachPending([&](const PendingCall& call) {
        LookAt(&call, call.generation.load(std::memory_order_relaxed), calls->subject(), *call.function,
               true);
      });
    }
  }
  std::erase_if(watched_, [](const auto& entry) { return !entry.second.is_seen; });
}

void Watchdog::LookAt(const void* key, uint64_t sequence, const Subject& subject, const Function& function,
                      bool is_completion) {
  Watched& watched = watched_[key];
  if (watched.since_ns == 0 || watched.sequence != sequence) {
    watched = {sequence, std::max<uint64_t>(now_ns_, 1), false, true};
    return;
  }
  watched.is_seen = true;
  const uint64_t lasted_ns = now_ns_ - watched.since_ns;
  const bool is_control = function.tag == ThreadTag::kControl || (is_completion && function.is_long);
  const bool is_quick =
      !is_completion && (function.tag == ThreadTag::kCore || function.tag == ThreadTag::kAny);
  const uint64_t warn_ns = is_quick ? deadlines_.core_warn_ns : deadlines_.warn_ns;
  const uint64_t stop_ns = is_control ? deadlines_.control_stop_ns : deadlines_.stop_ns;
  if (lasted_ns >= stop_ns) {
    subject.Condemn(function.name, "within-the-deadline",
                    absl::StrCat(is_completion ? "has not called done() for " : "has not returned for ",
                                 lasted_ns / 1'000'000, " ms"));
  }
  if (watched.is_warned || lasted_ns < warn_ns) return;
  watched.is_warned = true;
  Log(logger_, KW_LOG_WARN, "plugin_call_slow",
      {{"plugin", subject.plugin()},
       {"function", function.name},
       {"waits_for", is_completion ? "completion" : "return"},
       {"ms", lasted_ns / 1'000'000}});
}

}  // namespace keyway::check
