// SPDX-License-Identifier: Apache-2.0
#include "kernel/watch/event_store.h"

#include <utility>

#include "kernel/base/check.h"

namespace keyway::watch {
namespace {

// One delivery owns its batches and a reference to the events of its turn.
struct Delivery : kw_delivery {
  std::vector<kw_watch_batch> owned;
  EventStore* maybe_events = nullptr;

  static void Release(kw_delivery* delivery) {
    auto* self = static_cast<Delivery*>(delivery);
    if (self->maybe_events != nullptr) self->maybe_events->Unref();
    delete self;
  }
};

}  // namespace

const kw_event* EventStore::Add(uint32_t kind, int64_t mod_revision, const SharedBytes& record,
                                const SharedBytes& prev) {
  kw_event* event = arena_.New<kw_event>();
  event->kind = kind;
  event->mod_revision = mod_revision;
  event->record = record.slice();
  held_.push_back(record);
  if (prev.has_value()) {
    event->prev = prev.slice();
    held_.push_back(prev);
  }
  return event;
}

Outbox::~Outbox() {
  if (maybe_events_ != nullptr) maybe_events_->Unref();
}

Sink* Outbox::SinkOf(const kw_watch_sink* target) {
  std::unique_ptr<Sink>& sink = sinks_[target];
  if (sink == nullptr) {
    sink = std::make_unique<Sink>();
    sink->target = target;
  }
  return sink.get();
}

kw_watch_batch* Outbox::Add(Sink* sink, uint32_t kind, void* watch_ctx, int64_t revision) {
  if (sink->batches.empty()) dirty_.push_back(sink);
  kw_watch_batch* batch = &sink->batches.emplace_back();
  batch->kind = kind;
  batch->watch_ctx = watch_ctx;
  batch->revision = revision;
  if (kind == KW_WATCH_EVENTS) sink->has_events = true;
  return batch;
}

EventStore* Outbox::events() {
  if (maybe_events_ == nullptr) maybe_events_ = EventStore::New();
  return maybe_events_;
}

void Outbox::Flush(uint64_t cluster_id, uint64_t member_id, uint64_t raft_term) {
  for (Sink* sink : dirty_) {
    auto* delivery = new Delivery;
    delivery->size = sizeof(kw_delivery);
    delivery->cluster_id = cluster_id;
    delivery->member_id = member_id;
    delivery->raft_term = raft_term;
    delivery->owned = std::exchange(sink->batches, {});
    delivery->batches = delivery->owned.data();
    delivery->batch_count = delivery->owned.size();
    delivery->release = &Delivery::Release;
    if (std::exchange(sink->has_events, false)) {
      KW_CHECK(maybe_events_ != nullptr);
      maybe_events_->Ref();
      delivery->maybe_events = maybe_events_;
    }
    const kw_watch_sink* target = sink->target;
    // A watch can only go together with a batch, its CANCELED; so no idle sink is missed here.
    if (sink->watches == 0) sinks_.erase(target);
    target->deliver(target->self, delivery);
  }
  dirty_.clear();
  if (maybe_events_ != nullptr) std::exchange(maybe_events_, nullptr)->Unref();
}

}  // namespace keyway::watch
