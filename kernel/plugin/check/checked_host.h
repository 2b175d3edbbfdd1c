// SPDX-License-Identifier: Apache-2.0
//
// What a plugin calls of its host, under check: keyway.kernel/1 for API plugins, keyway.identity/1,
// keyway.metrics/1 and the timers of keyway.clock/1. Rules:
//
//   no-call-after-stop      of any service
//   called-on-its-thread    histogram() on the control thread
//   sound-request           a kind of the enum, a size that fits, a done()
//   request-owned-by-kernel full: a request is not submitted again before its done()
//   done-before-stop        full: stop() returns after the last done()
//   released-before-stop    kw_tls; full: replies and deliveries as well
//   released-once           the same three
//   argument-lifetime       full: a reply that is read after its release faults (poison.h)
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "kernel/plugin/check/verdict.h"
#include "keyway/authenticator.h"
#include "keyway/host.h"
#include "keyway/kernel.h"

namespace keyway::check {

class HostCheck {
 public:
  explicit HostCheck(const Subject* subject) : subject_(*subject) {}
  ~HostCheck();

  // Around the calls of a plugin. `real` is what the host would have called.
  void Submit(const kw_kernel& real, const kw_host* host, kw_request* const* requests, size_t request_count);
  uint64_t WatchOpen(const kw_kernel& real, const kw_host* host, const kw_watch* watch);
  void WatchProgress(const kw_kernel& real, const kw_host* host, const kw_watch_sink* sink,
                     const uint64_t* watch_ids, size_t watch_count, void* ctx);
  // To be called before any other service with the function's name.
  void CheckCall(const char* function) const { CheckNotStopped(subject_, function); }
  void CheckControl(const char* function) const;
  // The material that the plugin gets for what the authenticator gave.
  kw_tls* Track(kw_tls* given, const Subject* maybe_authenticator);

  // After the plugin's stop().
  void CheckStopped() const;
  const Subject& subject() const { return subject_; }

 private:
  struct Reply;
  struct Delivery;
  struct Tls;
  // A watch sink of the plugin, as the kernel sees it.
  struct Sink {
    kw_watch_sink outer{};
    const kw_watch_sink* inner = nullptr;
    HostCheck* owner = nullptr;
  };
  static void OnDone(kw_request* request, int32_t code, const kw_error* error, kw_reply* reply);
  static void OnDeliver(void* self, kw_delivery* delivery);
  const kw_watch_sink* Wrap(const kw_watch_sink* sink);
  // A released object is kept a while, so that a second release is known.
  void Bury(std::shared_ptr<void> object);

  const Subject& subject_;
  std::atomic<int64_t> requests_{0}, replies_{0}, deliveries_{0}, materials_{0};
  std::mutex mutex_;  // Guards what follows.
  std::unordered_map<const kw_watch_sink*, std::unique_ptr<Sink>> sinks_;
  std::deque<std::shared_ptr<void>> graveyard_;
};

}  // namespace keyway::check
