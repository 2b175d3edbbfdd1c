// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/checked_host.h"

#include <algorithm>
#include <vector>

#include "kernel/plugin/check/reply_copy.h"

namespace keyway::check {
namespace {

constexpr const char* kSubmit = "kernel.submit";
constexpr const char* kWatchOpen = "kernel.watch_open";
constexpr const char* kWatchProgress = "kernel.watch_progress";
constexpr Function kDone{"request.done", ThreadTag::kCore};
constexpr Function kDeliver{"watch-sink.deliver", ThreadTag::kCore};
constexpr Function kReplyUse{"reply.release", ThreadTag::kAny};
constexpr const char* kDeliveryRelease = "delivery.release";
constexpr const char* kTlsRelease = "tls.release";

constexpr size_t kGraveyardMax = 256;

}  // namespace

// ---- what is handed out and comes back by release() ----------------------------------------------

// The reply that the plugin sees lives in the pages of its copy.
struct HostCheck::Reply {
  kw_reply* outer = nullptr;
  kw_reply* inner = nullptr;
  HostCheck* owner = nullptr;
  PoisonedCopy copy;
};
struct HostCheck::Delivery {
  kw_delivery outer{};  // First.
  kw_delivery* inner = nullptr;
  HostCheck* owner = nullptr;
  std::atomic<bool> is_released{false};
  std::shared_ptr<Delivery> self;

  static void Release(kw_delivery* given) {
    auto* delivery = reinterpret_cast<Delivery*>(given);
    HostCheck* owner = delivery->owner;
    if (delivery->is_released.exchange(true)) {
      owner->subject_.Condemn(kDeliveryRelease, "released-once", "was called twice");
    }
    delivery->inner->release(delivery->inner);
    owner->deliveries_.fetch_sub(1);
    owner->Bury(std::move(delivery->self));
  }
};
struct HostCheck::Tls {
  kw_tls outer{};  // First.
  kw_tls* inner = nullptr;
  HostCheck* owner = nullptr;
  const Subject* authenticator = nullptr;
  uint64_t hash = 0;
  std::atomic<bool> is_released{false};
  std::shared_ptr<Tls> self;

  static uint64_t Hash(const kw_tls& tls) {
    uint64_t hash = 0;
    for (kw_slice each : {tls.chain, tls.key, tls.roots, tls.crl, tls.min_version, tls.ciphers}) {
      hash = HashOf(each.ptr, each.len, hash);
    }
    return hash;
  }
  static void Release(kw_tls* given) {
    auto* tls = reinterpret_cast<Tls*>(given);
    HostCheck* owner = tls->owner;
    if (tls->is_released.exchange(true)) {
      owner->subject_.Condemn(kTlsRelease, "released-once", "was called twice");
    }
    if (tls->authenticator != nullptr && tls->authenticator->is_full() && Hash(*tls->inner) != tls->hash) {
      tls->authenticator->Condemn("authenticator.tls", "results-keep", "changed material before its release");
    }
    tls->inner->release(tls->inner);
    owner->materials_.fetch_sub(1);
    owner->Bury(std::move(tls->self));
  }
};

HostCheck::~HostCheck() = default;

void HostCheck::Bury(std::shared_ptr<void> object) {
  std::shared_ptr<void> freed;  // Outside of the lock.
  std::lock_guard lock(mutex_);
  graveyard_.push_back(std::move(object));
  if (graveyard_.size() > kGraveyardMax) {
    freed = std::move(graveyard_.front());
    graveyard_.pop_front();
  }
}

kw_tls* HostCheck::Track(kw_tls* given, const Subject* maybe_authenticator) {
  auto tls = std::make_shared<Tls>();
  tls->outer = *given;
  tls->outer.size = sizeof(kw_tls);
  tls->outer.release = &Tls::Release;
  tls->inner = given;
  tls->owner = this;
  tls->authenticator = maybe_authenticator;
  if (maybe_authenticator != nullptr && maybe_authenticator->is_full()) tls->hash = Tls::Hash(*given);
  tls->self = tls;
  materials_.fetch_add(1);
  return &tls->outer;
}

void HostCheck::CheckControl(const char* function) const {
  CheckNotStopped(subject_, function);
  if (thread_role == ThreadRole::kControl) return;
  subject_.Condemn(function, "called-on-its-thread", "was called on a thread that is not the control thread");
}

void HostCheck::CheckStopped() const {
  if (requests_.load() != 0) {
    subject_.Condemn("kw_plugin.stop", "done-before-stop",
                     absl::StrCat("returned with ", requests_.load(), " requests that were not done"));
  }
  const auto check = [&](const std::atomic<int64_t>& count, const char* what) {
    if (count.load() == 0) return;
    subject_.Condemn("kw_plugin.stop", "released-before-stop",
                     absl::StrCat("returned with ", count.load(), " ", what, " that were not released"));
  };
  check(replies_, "replies");
  check(deliveries_, "deliveries");
  check(materials_, "kw_tls");
}

// ---- requests ------------------------------------------------------------------------------------

namespace {

// Requests that are in the kernel, of all plugins: OnDone() gets nothing but the request.
struct InKernelMap {
  struct Entry {
    void (*done)(kw_request*, int32_t, const kw_error*, kw_reply*);
    HostCheck* owner;
  };
  std::mutex mutex;
  std::unordered_map<kw_request*, Entry> requests;
};
InKernelMap& InKernelRequests() {
  static auto* map = new InKernelMap;
  return *map;
}
// Replies that were handed out, by the address that the plugin has.
struct ReplyMap {
  std::mutex mutex;
  std::unordered_map<kw_reply*, std::shared_ptr<void>> replies;
};
ReplyMap& Replies() {
  static auto* map = new ReplyMap;
  return *map;
}

}  // namespace

void HostCheck::Submit(const kw_kernel& real, const kw_host* host, kw_request* const* requests,
                       size_t request_count) {
  CheckCall(kSubmit);
  for (size_t i = 0; i < request_count; ++i) {
    const kw_request* request = requests[i];
    if (request == nullptr || request->size < sizeof(kw_request) || request->done == nullptr ||
        request->kind < KW_REQ_RANGE || request->kind > KW_REQ_MOVE_LEADER) [[unlikely]] {
      subject_.Condemn(kSubmit, "sound-request",
                       request == nullptr ? "was given no request"
                                          : absl::StrCat("was given a request of kind ", request->kind,
                                                         " and ", request->size, " bytes"));
    }
  }
  if (subject_.is_full()) {
    InKernelMap& map = InKernelRequests();
    std::lock_guard lock(map.mutex);
    for (size_t i = 0; i < request_count; ++i) {
      if (!map.requests.try_emplace(requests[i], InKernelMap::Entry{requests[i]->done, this}).second) {
        subject_.Condemn(kSubmit, "request-owned-by-kernel", "was given a request that is not done yet");
      }
      requests[i]->done = &HostCheck::OnDone;
      requests_.fetch_add(1);
    }
  }
  real.submit(host, requests, request_count);
}

void HostCheck::OnDone(kw_request* request, int32_t code, const kw_error* error, kw_reply* reply) {
  InKernelMap::Entry entry{};
  {
    InKernelMap& map = InKernelRequests();
    std::lock_guard lock(map.mutex);
    const auto found = map.requests.find(request);
    if (found == map.requests.end()) return;  // Of a request that was never given: nobody to tell.
    entry = found->second;
    map.requests.erase(found);
  }
  HostCheck& self = *entry.owner;
  kw_reply* outer = nullptr;
  if (reply != nullptr) {
    auto object = std::make_shared<Reply>();
    object->inner = reply;
    object->owner = &self;
    object->copy = CopyReply(self.subject_, kReplyUse, *reply, &object->outer);
    outer = object->outer;
    outer->release = [](kw_reply* given) {
      std::shared_ptr<void> holder;
      {
        std::lock_guard lock(Replies().mutex);
        const auto found = Replies().replies.find(given);
        if (found == Replies().replies.end()) return;  // Cannot be: its pages would have faulted.
        holder = std::move(found->second);
        Replies().replies.erase(found);
      }
      auto* released = static_cast<Reply*>(holder.get());
      released->copy.Seal();
      released->owner->replies_.fetch_sub(1);
      released->inner->release(released->inner);
    };
    self.replies_.fetch_add(1);
    std::lock_guard lock(Replies().mutex);
    Replies().replies.emplace(outer, std::move(object));
  }
  request->done = entry.done;
  self.requests_.fetch_sub(1);
  Guarded(self.subject_, kDone, [&] { entry.done(request, code, error, outer); });
}

// ---- watches -------------------------------------------------------------------------------------

const kw_watch_sink* HostCheck::Wrap(const kw_watch_sink* sink) {
  std::lock_guard lock(mutex_);
  std::unique_ptr<Sink>& wrapped = sinks_[sink];
  if (wrapped == nullptr) {
    wrapped = std::make_unique<Sink>();
    wrapped->outer.self = wrapped.get();
    wrapped->outer.deliver = &HostCheck::OnDeliver;
    wrapped->inner = sink;
    wrapped->owner = this;
  }
  return &wrapped->outer;
}

uint64_t HostCheck::WatchOpen(const kw_kernel& real, const kw_host* host, const kw_watch* watch) {
  CheckCall(kWatchOpen);
  if (watch == nullptr || watch->size < sizeof(kw_watch) || watch->sink == nullptr ||
      watch->sink->deliver == nullptr) {
    subject_.Condemn(kWatchOpen, "sound-request", "was given a watch without a sink");
  }
  if (!subject_.is_full()) return real.watch_open(host, watch);
  kw_watch copy = *watch;
  copy.sink = Wrap(watch->sink);
  return real.watch_open(host, &copy);
}

void HostCheck::WatchProgress(const kw_kernel& real, const kw_host* host, const kw_watch_sink* sink,
                              const uint64_t* watch_ids, size_t watch_count, void* ctx) {
  CheckCall(kWatchProgress);
  if (subject_.is_full() && sink != nullptr) sink = Wrap(sink);
  real.watch_progress(host, sink, watch_ids, watch_count, ctx);
}

void HostCheck::OnDeliver(void* context, kw_delivery* given) {
  auto* sink = static_cast<Sink*>(context);
  HostCheck& self = *sink->owner;
  auto delivery = std::make_shared<Delivery>();
  delivery->outer = *given;
  delivery->outer.size = sizeof(kw_delivery);
  delivery->outer.release = &Delivery::Release;
  delivery->inner = given;
  delivery->owner = &self;
  delivery->self = delivery;
  self.deliveries_.fetch_add(1);
  Guarded(self.subject_, kDeliver, [&] { sink->inner->deliver(sink->inner->self, &delivery->outer); });
}

}  // namespace keyway::check
