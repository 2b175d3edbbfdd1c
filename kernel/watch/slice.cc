// SPDX-License-Identifier: Apache-2.0
#include "kernel/watch/slice.h"

#include <algorithm>

#include "kernel/base/check.h"

namespace keyway::watch {
namespace {

// A live record has a create_revision (field 2, a varint) right after its key.
bool IsTombstone(std::string_view record) {
  constexpr char kCreateRevisionTag = 0x10;
  std::string_view key = mvcc::RecordKey(record);
  const char* end = key.data() + key.size();
  return end == record.data() + record.size() || *end != kCreateRevisionTag;
}

}  // namespace

uint64_t EventCost(const kw_event& event) { return event.record.len + event.prev.len + kEventOverheadBytes; }

void SliceItem::SetPrev(SharedBytes record) {
  bool is_present = record.has_value() && !IsTombstone(record.view());
  prev_state = is_present ? Prev::kPresent : Prev::kAbsent;
  prev = is_present ? std::move(record) : SharedBytes();
}

void Slice::SetItems(const std::vector<mvcc::Change>& changes) {
  items.clear();
  items.resize(changes.size());
  for (size_t i = 0; i < changes.size(); ++i) {
    const mvcc::Change& change = changes[i];
    KW_CHECK(change.record.has_value());
    KW_CHECK(change.revision.main >= from && change.revision.main <= reached);
    KW_CHECK(i == 0 || changes[i - 1].revision < change.revision);
    items[i].change = &change;
    items[i].kind = IsTombstone(change.record.view()) ? KW_EVENT_DELETE : KW_EVENT_PUT;
  }
}

void SliceMatcher::Start(Slice* slice) {
  KW_CHECK(slice_ == nullptr);
  slice_ = slice;
  for (size_t i = 0; i < slice->items.size(); ++i) {
    std::string_view key = mvcc::RecordKey(slice->items[i].change->record.view());
    registry_->Match(key, [this, i](Group* group) {
      if (group->matched.empty()) groups_.push_back(group);
      group->matched.push_back(static_cast<uint32_t>(i));
    });
  }
}

void SliceMatcher::Finish() {
  for (Group* group : groups_) group->matched.clear();
  groups_.clear();
  group_ = nullptr;
  slice_ = nullptr;
}

void SliceMatcher::StartGroup(Group* group) {
  group_ = group;
  built_ = 0;
}

void SliceMatcher::ResolvePrev(SliceItem* item) {
  using Prev = SliceItem::Prev;
  if (item->prev_state != Prev::kUnknown) return;
  const mvcc::Change& change = *item->change;
  SharedBytes prev = change.prev;
  if (!prev.has_value()) {
    std::string_view key = mvcc::RecordKey(change.record.view());
    mvcc::Revision at =
        slice_->is_history ? source_->PreviousVersion(key, change.revision) : change.prev_revision;
    if (at.main == 0) {
      item->prev_state = Prev::kAbsent;
      return;
    }
    prev = source_->FindRecord(key, at);
    if (!prev.has_value()) {
      item->prev_state = Prev::kMissing;
      item->prev_revision = at;
      return;
    }
  }
  item->SetPrev(std::move(prev));
}

const kw_event* SliceMatcher::EventOf(SliceItem* item, bool with_prev) {
  with_prev = with_prev && item->prev_state == SliceItem::Prev::kPresent;
  const kw_event*& event = with_prev ? item->maybe_with_prev : item->maybe_plain;
  if (event == nullptr) {
    event = outbox_->events()->Add(item->kind, item->main(), item->change->record,
                                   with_prev ? item->prev : SharedBytes());
  }
  return event;
}

void SliceMatcher::Build(uint32_t flags) {
  EventList& list = lists_[flags];
  list = {};
  bool with_prev = (flags & KW_WATCH_PREV_KV) != 0;
  scratch_.clear();
  for (uint32_t index : group_->matched) {
    SliceItem* item = &slice_->items[index];
    if (!Passes(*item, flags)) continue;
    if (with_prev) {
      ResolvePrev(item);
      if (item->prev_state == SliceItem::Prev::kMissing) {
        list.stop_revision = item->main();
        break;
      }
    }
    scratch_.push_back(EventOf(item, with_prev));
  }
  while (!scratch_.empty() && scratch_.back()->mod_revision == list.stop_revision) {
    scratch_.pop_back();  // A revision is delivered whole or not at all.
  }
  if (!scratch_.empty()) {
    const kw_event** events = outbox_->events()->NewList(scratch_.size());
    std::copy(scratch_.begin(), scratch_.end(), events);
    for (const kw_event* event : scratch_) list.cost += EventCost(*event);
    list.events = events;
    list.count = scratch_.size();
  }
  built_ |= 1u << flags;
}

void SliceMatcher::CollectMissing(const Group& group, uint32_t flags, int64_t from,
                                  std::vector<uint32_t>* missing) {
  for (uint32_t index : group.matched) {
    SliceItem* item = &slice_->items[index];
    if (item->asked || item->main() < from || !Passes(*item, flags)) continue;
    ResolvePrev(item);
    if (item->prev_state != SliceItem::Prev::kMissing) continue;
    item->asked = true;
    missing->push_back(index);
  }
}

}  // namespace keyway::watch
