// SPDX-License-Identifier: Apache-2.0
#include "loop.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

namespace keyway::transport_tcp {

Loop::~Loop() {
  if (wake_fd_ >= 0) close(wake_fd_);
  if (epoll_fd_ >= 0) close(epoll_fd_);
}

bool Loop::Open() {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  wake_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  now_ns_ = ReadClock();
  return epoll_fd_ >= 0 && wake_fd_ >= 0 && Add(wake_fd_, EPOLLIN, nullptr);
}

void Loop::Wake() {
  const uint64_t one = 1;
  // Fails only when the counter is full: then the thread is about to wake anyway.
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
}

bool Loop::Add(int fd, uint32_t events, Pollable* target) {
  epoll_event event = {};
  event.events = events;
  event.data.ptr = target;
  return epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0;
}

void Loop::Change(int fd, uint32_t events, Pollable* target) {
  epoll_event event = {};
  event.events = events;
  event.data.ptr = target;
  epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event);
}

void Loop::Remove(int fd) { epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr); }

void Loop::Retire(std::unique_ptr<Pollable> object) { retired_.push_back(std::move(object)); }

bool Loop::Poll() {
  retired_.clear();  // Those of other calls than events: their descriptors close now.
  int timeout_ms = -1;
  if (due_ns_ != kNever) {
    const uint64_t now = ReadClock();
    // Rounded up: a wait that ends before its deadline would spin.
    const uint64_t wait_ns = due_ns_ > now ? due_ns_ - now : 0;
    timeout_ms = static_cast<int>(std::min<uint64_t>((wait_ns + 999'999) / 1'000'000, 60'000));
  }
  std::array<epoll_event, 64> events;
  const int count = epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), timeout_ms);
  now_ns_ = ReadClock();
  for (int i = 0; i < count; ++i) {
    auto* target = static_cast<Pollable*>(events[static_cast<size_t>(i)].data.ptr);
    if (target == nullptr) {
      uint64_t counter;
      [[maybe_unused]] const ssize_t got = read(wake_fd_, &counter, sizeof(counter));
      continue;
    }
    bool is_retired = false;
    for (const auto& object : retired_) is_retired |= object.get() == target;
    if (!is_retired) target->OnEvents(events[static_cast<size_t>(i)].events);
  }
  retired_.clear();
  if (now_ns_ < due_ns_) return false;
  due_ns_ = kNever;
  return true;
}

}  // namespace keyway::transport_tcp
