// SPDX-License-Identifier: Apache-2.0
//
// The toy kernel's watches: a walk over the history for each watch and turn.
#include "fake_kernel.h"
#include "keyway/slice.hpp"

namespace keyway::api_etcd::testing {

void FakeKernel::AddEvent(uint32_t kind, const std::string& key, const Version& now, const Version* before) {
  Event& event = history_.emplace_back();
  event.key = key;
  event.bytes = now.bytes;
  event.event.kind = kind;
  event.event.mod_revision = now.revision;
  event.event.record = Slice(*event.bytes);
  if (before == nullptr) return;
  event.prev = before->bytes;
  event.event.prev = Slice(*event.prev);
}

FakeKernel::Delivery* FakeKernel::DeliveryTo(const kw_watch_sink* sink) {
  auto& delivery = deliveries_[sink];
  if (delivery == nullptr) {
    delivery = std::make_unique<Delivery>();
    static_cast<kw_delivery&>(*delivery) = {};
    delivery->size = sizeof(kw_delivery);
    delivery->cluster_id = 7;
    delivery->member_id = 8;
    delivery->raft_term = 2;
    delivery->release = [](kw_delivery* self) { delete static_cast<Delivery*>(self); };
  }
  return delivery.get();
}

void FakeKernel::OpenWatch(Watch watch) {
  kw_watch_batch batch = {};
  batch.kind = KW_WATCH_CREATED;
  batch.watch_ctx = watch.ctx;
  batch.revision = revision_;
  if (watch.key == "forbidden") {
    watches_[watch.id] = watch;
    Cancel(watch.id, KW_PERMISSION_DENIED, 0, 0);
    return;
  }
  DeliveryTo(watch.sink)->list.push_back(batch);
  if (watch.next_revision == 0) watch.next_revision = revision_ + 1;
  watch.history_index = 0;
  watches_[watch.id] = watch;
  if (watch.next_revision <= compacted_) Cancel(watch.id, KW_OUT_OF_RANGE, KW_DETAIL_COMPACTED, compacted_);
}

void FakeKernel::Cancel(uint64_t id, int32_t code, uint32_t detail, int64_t compact_revision) {
  const auto found = watches_.find(id);
  if (found == watches_.end()) return;
  kw_watch_batch batch = {};
  batch.kind = KW_WATCH_CANCELED;
  batch.code = code;
  batch.detail = detail;
  batch.watch_ctx = found->second.ctx;
  batch.revision = revision_;
  batch.compact_revision = compact_revision;
  DeliveryTo(found->second.sink)->list.push_back(batch);
  watches_.erase(found);
  const std::lock_guard<std::mutex> lock(mutex_);
  --open_watches_;
}

void FakeKernel::PumpWatches() {
  for (auto& [id, watch] : watches_) {
    std::vector<const kw_event*> events;
    uint64_t bytes = 0;
    while (watch.history_index < history_.size() && watch.credit > 0) {
      const Event& event = history_[watch.history_index];
      // Whole revisions only.
      const bool is_new_revision =
          watch.history_index == 0 ||
          history_[watch.history_index - 1].event.mod_revision != event.event.mod_revision;
      if (is_new_revision && static_cast<int64_t>(bytes) >= watch.credit) break;
      ++watch.history_index;
      if (event.event.mod_revision < watch.next_revision) continue;
      if (!Contains(watch.key, watch.end, event.key)) continue;
      if (event.event.kind == KW_EVENT_PUT && (watch.flags & KW_WATCH_NO_PUT) != 0) continue;
      if (event.event.kind == KW_EVENT_DELETE && (watch.flags & KW_WATCH_NO_DELETE) != 0) continue;
      events.push_back(&event.event);
      bytes += event.event.record.len + event.event.prev.len + 16;
    }
    if (events.empty()) continue;
    watch.credit -= static_cast<int64_t>(bytes);
    Delivery* const delivery = DeliveryTo(watch.sink);
    kw_watch_batch batch = {};
    batch.kind = KW_WATCH_EVENTS;
    batch.watch_ctx = watch.ctx;
    batch.revision = events.back()->mod_revision;
    delivery->event_lists.push_back(std::move(events));
    batch.events = delivery->event_lists.back().data();
    batch.event_count = delivery->event_lists.back().size();
    batch.credit_bytes = bytes;
    delivery->list.push_back(batch);
  }
}

}  // namespace keyway::api_etcd::testing
