// SPDX-License-Identifier: Apache-2.0
//
// The epoll set of the I/O thread, with its timers.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "keyway/host.h"

namespace keyway::transport_tcp {

// What an epoll registration points to.
class Pollable {
 public:
  virtual ~Pollable() = default;
  virtual void OnEvents(uint32_t events) = 0;
};

// All but Wake() is [io]; Open() comes before the thread.
class Loop {
 public:
  static constexpr uint64_t kNever = UINT64_MAX;

  Loop(const kw_host* host, const kw_clock* clock) : host_(host), clock_(clock) {}
  ~Loop();

  bool Open();
  // Any thread. Makes Poll() return.
  void Wake();

  int epoll_fd() const { return epoll_fd_; }
  // The clock as of the last Poll(), and now.
  uint64_t now_ns() const { return now_ns_; }
  uint64_t ReadClock() const { return clock_->mono_ns(host_); }

  bool Add(int fd, uint32_t events, Pollable* target);
  void Change(int fd, uint32_t events, Pollable* target);
  void Remove(int fd);
  // Frees the object after the events of this Poll(), none of which reaches it any more.
  void Retire(std::unique_ptr<Pollable> object);

  // The next Poll() returns by then. Deadlines are kept by their owners; this is only their minimum.
  void NoteDeadline(uint64_t at_ns) {
    if (at_ns < due_ns_) due_ns_ = at_ns;
  }
  // Waits for events and handles them. True: a noted deadline has passed and the owners must look
  // (and note what is left).
  bool Poll();

 private:
  const kw_host* const host_;
  const kw_clock* const clock_;
  int epoll_fd_ = -1;
  int wake_fd_ = -1;
  uint64_t now_ns_ = 0;
  uint64_t due_ns_ = kNever;
  std::vector<std::unique_ptr<Pollable>> retired_;
};

}  // namespace keyway::transport_tcp
