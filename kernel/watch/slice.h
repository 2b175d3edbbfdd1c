// SPDX-License-Identifier: Apache-2.0
//
// A slice: the changes of consecutive whole revisions, on their way to the watches that match them.
// SliceMatcher finds the groups that match, and builds for each way of watching (prev_kv, filters) the
// list of events once, whatever the number of watches.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kernel/mvcc/mvcc.h"
#include "kernel/watch/change_source.h"
#include "kernel/watch/event_store.h"
#include "kernel/watch/watch_registry.h"

namespace keyway::watch {

struct SliceItem {
  enum class Prev : uint8_t { kUnknown, kAbsent, kPresent, kMissing };

  const mvcc::Change* change = nullptr;  // Lives as long as the slice.
  uint32_t kind = KW_EVENT_PUT;
  Prev prev_state = Prev::kUnknown;  // kMissing: must be read from the engine.
  bool asked = false;                // Is in the list of previous records to read.
  mvcc::Revision prev_revision;      // If kMissing.
  SharedBytes prev;                  // If kPresent.
  // Once created, in the EventStore of this turn.
  const kw_event* maybe_plain = nullptr;
  const kw_event* maybe_with_prev = nullptr;

  int64_t main() const { return change->revision.main; }
  // Absent if there is no record (compacted), or a tombstone.
  void SetPrev(SharedBytes record);
};

struct Slice {
  int64_t from = 0, reached = 0;  // Inclusive: every change of these revisions is in it.
  // Changes came from the engine: what their previous versions are must be looked up.
  bool is_history = false;
  std::vector<mvcc::Change> owned;  // What the items point to, unless the caller keeps it.
  std::vector<SliceItem> items;

  // `changes` outlives the slice; it may be `owned`.
  void SetItems(const std::vector<mvcc::Change>& changes);
};

// The events for one group and one way of watching. The list is in the EventStore.
struct EventList {
  const kw_event* const* events = nullptr;
  size_t count = 0;
  uint64_t cost = 0;  // Of credit.
  // Events at and after it are left out, as a previous record is missing; 0: all are here.
  int64_t stop_revision = 0;
};

uint64_t EventCost(const kw_event& event);

class SliceMatcher {
 public:
  SliceMatcher(const ChangeSource* source, const WatchRegistry* registry, Outbox* outbox)
      : source_(source), registry_(registry), outbox_(outbox) {}

  // Finds the groups of `slice`, which must stay until Finish().
  void Start(Slice* slice);
  const std::vector<Group*>& groups() const { return groups_; }
  // Before the lists of a group.
  void StartGroup(Group* group);
  // For the current group; `flags` of the watch.
  const EventList& ListFor(uint32_t flags) {
    if ((built_ & (1u << flags)) == 0) Build(flags);
    return lists_[flags];
  }
  // Marks as asked what `group` needs and is not marked yet, for watches with these flags that want
  // revisions >= from, and appends the items' indexes.
  void CollectMissing(const Group& group, uint32_t flags, int64_t from, std::vector<uint32_t>* missing);
  void Finish();

 private:
  static bool Passes(const SliceItem& item, uint32_t flags) {
    return (flags & (item.kind == KW_EVENT_PUT ? KW_WATCH_NO_PUT : KW_WATCH_NO_DELETE)) == 0;
  }
  void ResolvePrev(SliceItem* item);
  const kw_event* EventOf(SliceItem* item, bool with_prev);
  void Build(uint32_t flags);

  const ChangeSource* const source_;
  const WatchRegistry* const registry_;
  Outbox* const outbox_;
  Slice* slice_ = nullptr;
  std::vector<Group*> groups_;  // Those that match, in the order of their first change.
  Group* group_ = nullptr;
  uint32_t built_ = 0;  // Bit i: lists_[i] is there for group_.
  EventList lists_[kWatchFlags + 1];
  std::vector<const kw_event*> scratch_;
};

}  // namespace keyway::watch
