// SPDX-License-Identifier: Apache-2.0
#include "kernel/daemon/real_clock.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <chrono>

#include "kernel/base/check.h"

namespace keyway {
namespace {

uint64_t ReadNs(clockid_t clock) {
  timespec now;
  KW_CHECK(clock_gettime(clock, &now) == 0);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Later than any clock will say, and still in range of std::chrono.
constexpr uint64_t kDelayNsMax = uint64_t{100} * 365 * 86400 * 1'000'000'000;

}  // namespace

RealClock::RealClock() {
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), "clock");
}

RealClock::~RealClock() {
  {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
    for (const Timer& timer : timers_) cancelled_.push_back(std::get<2>(timer));
    timers_.clear();
    by_completion_.clear();
  }
  changed_.notify_one();
  thread_.join();
}

uint64_t RealClock::MonoNs() { return ReadNs(CLOCK_MONOTONIC); }
uint64_t RealClock::WallNs() { return ReadNs(CLOCK_REALTIME); }

void RealClock::After(uint64_t delay_ns, kw_completion* completion) {
  const uint64_t due = MonoNs() + std::min(delay_ns, kDelayNsMax);
  bool is_first = false;
  {
    std::lock_guard lock(mutex_);
    KW_CHECK(!by_completion_.contains(completion));
    const Timer timer{due, next_sequence_++, completion};
    timers_.insert(timer);
    is_first = *timers_.begin() == timer;
    by_completion_.emplace(completion, timer);
  }
  if (is_first) changed_.notify_one();
}

void RealClock::Cancel(kw_completion* completion) {
  {
    std::lock_guard lock(mutex_);
    const auto found = by_completion_.find(completion);
    if (found == by_completion_.end()) return;
    timers_.erase(found->second);
    by_completion_.erase(found);
    cancelled_.push_back(completion);
  }
  changed_.notify_one();
}

void RealClock::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    kw_completion* completion = nullptr;
    int32_t code = KW_OK;
    if (!cancelled_.empty()) {
      completion = cancelled_.front();
      cancelled_.pop_front();
      code = KW_CANCELLED;
    } else if (is_stopping_) {
      return;
    } else if (timers_.empty()) {
      changed_.wait(lock);
      continue;
    } else if (const uint64_t due = std::get<0>(*timers_.begin()); due <= MonoNs()) {
      completion = std::get<2>(*timers_.begin());
      timers_.erase(timers_.begin());
      by_completion_.erase(completion);
    } else {
      // std::chrono::steady_clock is CLOCK_MONOTONIC.
      changed_.wait_until(lock, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(due)));
      continue;
    }
    lock.unlock();
    completion->done(completion, code, nullptr);
    lock.lock();
  }
}

}  // namespace keyway
