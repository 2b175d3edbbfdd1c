// SPDX-License-Identifier: Apache-2.0
#include "kernel/watch/watch_hub.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernel/base/check.h"
#include "kernel/base/mutant.h"
#include "kernel/base/outcome.h"
#include "kernel/watch/slice.h"

namespace keyway::watch {
namespace {

constexpr int64_t kCreditMax = std::numeric_limits<int64_t>::max() / 4;

int64_t AddCredit(int64_t credit, uint64_t bytes) {
  return bytes > kCreditMax ? kCreditMax : std::min(credit + static_cast<int64_t>(bytes), kCreditMax);
}

}  // namespace

class WatchHub::Impl {
 public:
  Impl(const ChangeSource* source, int64_t revision)
      : source_(source), revision_(revision), matcher_(source, &registry_, &outbox_) {}

  void Open(uint64_t id, const kw_watch& watch);
  void Credit(uint64_t id, uint64_t bytes);
  void Close(uint64_t id);
  void CancelAll(Outcome outcome) {
    for (Watch* watch : registry_.All()) Cancel(watch, outcome, 0);
  }
  void Progress(const kw_watch_sink* sink, const uint64_t* ids, size_t count, void* ctx);

  void Publish(const std::vector<mvcc::Change>& changes);
  void OnCompacted(int64_t compact_revision);
  void OnRestored(int64_t revision);
  bool NeedsPrev() const { return registry_.prev_count() > 0; }
  int64_t revision() const { return revision_; }

  bool Step(size_t changes_max);
  std::optional<HistoryRead> NextHistoryRead();
  void OnHistory(std::vector<mvcc::Change> changes, int64_t reached);
  std::vector<mvcc::Revision> NextPrevReads();
  void OnPrevRecords(std::vector<SharedBytes> records);
  void OnReadFailed();
  void Flush(uint64_t cluster_id, uint64_t member_id, uint64_t raft_term) {
    outbox_.Flush(cluster_id, member_id, raft_term);
  }
  Stats stats() const;

 private:
  // What the one read slot does. A read is under way in kHistory and kPrev.
  enum class Slot { kIdle, kHistory, kPrevWanted, kPrev };

  // The watch whose next revision the next slice should start from: mostly the one furthest behind,
  // which brings all others with it; sometimes the one served least recently, so that none starves.
  // Null if no ready watch is `in_memory` (or, else, beyond it).
  Watch* Pick(bool in_memory);
  bool TakesPart(const Watch& watch, const Slice& slice) const {
    return watch.next_revision >= slice.from && watch.next_revision <= slice.reached;
  }
  // Delivers to `watch` what it can take of `list`. Returns the first revision it could not, 0 if none.
  int64_t Emit(Watch* watch, const EventList& list);
  void Cancel(Watch* watch, Outcome outcome, int64_t compact_revision);
  // Cancels lagging watches that want revisions that may be gone.
  void CancelCompacted(int64_t compact_revision);
  // `may_read`: whether the slot is free for what turns out to be missing still.
  void CatchUp(Slice* slice, bool may_read);
  // Items of `slice` whose previous records must be read for watches that take part in it.
  std::vector<uint32_t> MissingOf(Slice* slice);
  Slice RecentSlice(int64_t from, size_t changes_max) const;
  void WantPrev(Slice slice, std::vector<uint32_t> missing);
  bool HistoryIsWanted(int64_t recent_from) const;
  void FreeSlot();

  const ChangeSource* const source_;
  int64_t revision_;
  Outbox outbox_;
  WatchRegistry registry_;
  SliceMatcher matcher_;
  Slice published_;  // Kept for its memory.

  Slot slot_ = Slot::kIdle;
  HistoryRead read_;              // kHistory
  Slice slice_;                   // kPrevWanted, kPrev
  std::vector<uint32_t> asked_;   // Its items whose previous record is to be read.
  size_t asked_done_ = 0;         // So many of them have it.
  bool recent_had_slot_ = false;  // The last to take it was a slice of recent changes.

  uint64_t picks_ = 0;
  uint64_t slices_ = 0;
  uint64_t events_ = 0, history_reads_ = 0;
  std::vector<Watch*> participants_;
};

// ---- requests ----

void WatchHub::Impl::Open(uint64_t id, const kw_watch& watch) {
  KW_CHECK(id != 0 && registry_.Find(id) == nullptr);
  std::string_view key = ToView(watch.key), end = ToView(watch.end);
  constexpr std::string_view kZero("\0", 1);
  if (key.empty()) key = kZero;
  Sink* sink = outbox_.SinkOf(watch.sink);
  uint32_t detail = KW_DETAIL_NONE;
  if (watch.start_revision < 0) {
    detail = KW_DETAIL_COMPACTED;
  } else if (!end.empty() && end != kZero && end <= key) {
    detail = KW_DETAIL_WATCH_EMPTY_RANGE;
  }
  if (detail != KW_DETAIL_NONE) {
    kw_watch_batch* batch = outbox_.Add(sink, KW_WATCH_CANCELED, watch.ctx, revision_);
    batch->code = Failure(detail).code;
    batch->detail = detail;
    return;
  }
  outbox_.Add(sink, KW_WATCH_CREATED, watch.ctx, revision_);
  Watch* added = registry_.Add(id, key, end, watch.flags);
  added->ctx = watch.ctx;
  added->sink = sink;
  ++sink->watches;
  added->credit = AddCredit(0, watch.credit_bytes);
  added->next_revision = watch.start_revision == 0 ? revision_ + 1 : watch.start_revision;
  if (added->next_revision > revision_) return;
  if (added->next_revision < source_->compact_revision()) {
    Cancel(added, Failure(KW_DETAIL_COMPACTED), source_->compact_revision());
    return;
  }
  registry_.SetLagging(added, true);
}

void WatchHub::Impl::Credit(uint64_t id, uint64_t bytes) {
  Watch* watch = registry_.Find(id);
  if (watch == nullptr) return;
  watch->credit = AddCredit(watch->credit, bytes);
  if (!mutant::Is(mutant::kCreditForgotten)) registry_.UpdateReady(watch);
}

void WatchHub::Impl::Close(uint64_t id) {
  Watch* watch = registry_.Find(id);
  if (watch != nullptr) Cancel(watch, {}, 0);
}

void WatchHub::Impl::Cancel(Watch* watch, Outcome outcome, int64_t compact_revision) {
  kw_watch_batch* batch = outbox_.Add(watch->sink, KW_WATCH_CANCELED, watch->ctx, revision_);
  batch->code = outcome.code;
  batch->detail = outcome.detail;
  batch->compact_revision = compact_revision;
  if (compact_revision != 0) batch->revision = 0;  // As etcd: no revision in this header.
  KW_CHECK(watch->sink->watches > 0);
  --watch->sink->watches;
  registry_.Remove(watch);
}

void WatchHub::Impl::Progress(const kw_watch_sink* sink, const uint64_t* ids, size_t count, void* ctx) {
  Watch* known = nullptr;
  for (size_t i = 0; i < count; ++i) {
    Watch* watch = registry_.Find(ids[i]);
    if (watch == nullptr) continue;
    // A future start: nothing may be said about revisions before it.
    if (watch->lagging && !mutant::Is(mutant::kProgressAhead)) return;
    if (watch->next_revision > revision_ + 1 && !mutant::Is(mutant::kFutureProgress)) return;
    known = watch;
  }
  if (known == nullptr) return;
  if (count == 1 && ctx == nullptr) {
    outbox_.Add(known->sink, KW_WATCH_PROGRESS, known->ctx, revision_);
  } else {
    outbox_.Add(outbox_.SinkOf(sink), KW_WATCH_GROUP_PROGRESS, ctx, revision_);
  }
}

// ---- the store ----

void WatchHub::Impl::Publish(const std::vector<mvcc::Change>& changes) {
  if (changes.empty()) return;
  KW_CHECK(changes.front().revision.main > revision_);
  int64_t from = std::exchange(revision_, changes.back().revision.main) + 1;
  if (registry_.size() == registry_.lagging().size()) return;  // They read it later.
  Slice& slice = published_;
  slice.from = from;
  slice.reached = revision_;
  slice.SetItems(changes);
  matcher_.Start(&slice);
  for (Group* group : matcher_.groups()) {
    matcher_.StartGroup(group);
    for (size_t i = 0; i < group->synced.size();) {
      Watch* watch = group->synced[i];
      const bool is_future = watch->next_revision > revision_ && !mutant::Is(mutant::kFutureWatchGetsOld);
      int64_t stop = is_future ? 0 : Emit(watch, matcher_.ListFor(watch->flags));
      if (stop == 0) {
        ++i;
        continue;
      }
      watch->next_revision = stop;
      registry_.SetLagging(watch, true);  // Takes it out of the list; another one is at i now.
    }
  }
  matcher_.Finish();
  slice.items.clear();
}

int64_t WatchHub::Impl::Emit(Watch* watch, const EventList& list) {
  const kw_event* const* begin = list.events;
  const kw_event* const* end = list.events + list.count;
  const kw_event* const* stop = end;
  uint64_t cost = list.cost;
  const bool is_old = begin != end && (*begin)->mod_revision < watch->next_revision;
  if (is_old && !mutant::Is(mutant::kFutureWatchGetsOld)) {
    begin = std::partition_point(
        begin, end, [watch](const kw_event* event) { return event->mod_revision < watch->next_revision; });
    cost = 0;
    for (auto at = begin; at != end; ++at) cost += EventCost(**at);
  }
  int64_t stop_revision = list.stop_revision == 0 ? 0 : std::max(list.stop_revision, watch->next_revision);
  if (begin == end) return stop_revision;
  if (watch->credit <= 0) return (*begin)->mod_revision;
  uint64_t credit = static_cast<uint64_t>(watch->credit);
  if (cost > credit) {
    cost = 0;
    for (stop = begin; stop != end && cost < credit;) {
      int64_t main = (*stop)->mod_revision;
      for (; stop != end && (*stop)->mod_revision == main; ++stop) cost += EventCost(**stop);
    }
  }
  kw_watch_batch* batch = outbox_.Add(watch->sink, KW_WATCH_EVENTS, watch->ctx, revision_);
  batch->events = begin;
  batch->event_count = static_cast<size_t>(stop - begin);
  batch->credit_bytes = cost;
  watch->credit -= static_cast<int64_t>(cost);
  events_ += batch->event_count;
  if (mutant::Is(mutant::kSlowWatchLoses)) return stop_revision;
  return stop == end ? stop_revision : (*stop)->mod_revision;
}

void WatchHub::Impl::OnCompacted(int64_t compact_revision) { CancelCompacted(compact_revision); }

void WatchHub::Impl::CancelCompacted(int64_t compact_revision) {
  if (mutant::Is(mutant::kCompactedWatchStays)) return;
  std::vector<Watch*> gone;
  // What is still in memory can be delivered although it was compacted in the engine.
  int64_t lost_before = std::min(compact_revision, source_->recent_from());
  for (Watch* watch : registry_.lagging()) {
    if (watch->next_revision < lost_before) gone.push_back(watch);
  }
  for (Watch* watch : gone) Cancel(watch, Failure(KW_DETAIL_COMPACTED), compact_revision);
}

void WatchHub::Impl::OnRestored(int64_t revision) {
  KW_CHECK(revision >= revision_);
  FreeSlot();
  int64_t before = std::exchange(revision_, revision);
  for (Watch* watch : registry_.All()) {
    if (watch->lagging) continue;
    if (mutant::Is(mutant::kSkipInSnapshot)) continue;
    if (mutant::Is(mutant::kReplayAfterSnapshot)) before = watch->next_revision - 1;
    watch->next_revision = std::max(watch->next_revision, before + 1);
    if (watch->next_revision <= revision_) registry_.SetLagging(watch, true);
  }
  CancelCompacted(source_->compact_revision());
}

// ---- catching up ----

Watch* WatchHub::Impl::Pick(bool in_memory) {
  bool by_age = ++picks_ % 4 == 0;
  int64_t recent_from = source_->recent_from();
  Watch* picked = nullptr;
  for (Watch* watch : registry_.ready()) {
    if ((watch->next_revision >= recent_from) != in_memory) continue;
    if (in_memory && watch->blocked) continue;
    if (picked == nullptr ||
        (by_age ? watch->served < picked->served : watch->next_revision < picked->next_revision)) {
      picked = watch;
    }
  }
  return picked;
}

bool WatchHub::Impl::Step(size_t changes_max) {
  Watch* first = Pick(true);
  if (first == nullptr) return false;
  Slice slice = RecentSlice(first->next_revision, changes_max);
  std::vector<uint32_t> missing = MissingOf(&slice);
  int64_t recent_from = source_->recent_from();
  // By turns with the history: neither may keep the other from reading.
  bool history_is_next = recent_had_slot_ && HistoryIsWanted(recent_from);
  if (!missing.empty() && slot_ == Slot::kIdle && !history_is_next) {
    WantPrev(std::move(slice), std::move(missing));
    recent_had_slot_ = true;
    return true;  // The next Step() delivers what needs no read.
  }
  CatchUp(&slice, /*may_read=*/false);
  for (const Watch* watch : registry_.ready()) {
    if (!watch->blocked && watch->next_revision >= recent_from) return true;
  }
  return false;
}

Slice WatchHub::Impl::RecentSlice(int64_t from, size_t changes_max) const {
  const std::deque<mvcc::Change>& recent = source_->recent();
  auto at = std::partition_point(recent.begin(), recent.end(),
                                 [from](const mvcc::Change& change) { return change.revision.main < from; });
  Slice slice;
  slice.from = from;
  slice.reached = revision_;
  for (; at != recent.end() && at->revision.main <= revision_; ++at) {
    bool is_new_revision = !slice.owned.empty() && slice.owned.back().revision.main != at->revision.main;
    const bool is_cut = is_new_revision || mutant::Is(mutant::kSliceSplitsRevision);
    if (is_cut && slice.owned.size() >= changes_max) {
      slice.reached = slice.owned.back().revision.main;
      break;
    }
    slice.owned.push_back(*at);
  }
  slice.SetItems(slice.owned);
  return slice;
}

std::vector<uint32_t> WatchHub::Impl::MissingOf(Slice* slice) {
  std::vector<uint32_t> missing;
  if (!NeedsPrev()) return missing;
  matcher_.Start(slice);
  for (Group* group : matcher_.groups()) {
    // For each way of watching, the first revision that is wanted.
    int64_t from[kWatchFlags + 1];
    std::fill(std::begin(from), std::end(from), std::numeric_limits<int64_t>::max());
    for (const Watch* watch : group->lagging) {
      if (watch->credit <= 0 || !TakesPart(*watch, *slice)) continue;
      from[watch->flags] = std::min(from[watch->flags], watch->next_revision);
    }
    for (uint32_t flags = 0; flags <= kWatchFlags; ++flags) {
      if ((flags & KW_WATCH_PREV_KV) == 0 || from[flags] > slice->reached) continue;
      matcher_.CollectMissing(*group, flags, from[flags], &missing);
    }
  }
  matcher_.Finish();
  std::sort(missing.begin(), missing.end());
  return missing;
}

void WatchHub::Impl::CatchUp(Slice* slice, bool may_read) {
  ++slices_;
  participants_.clear();
  for (Watch* watch : registry_.ready()) {
    if (!TakesPart(*watch, *slice)) continue;
    watch->served = slices_;
    watch->stop_revision = 0;
    participants_.push_back(watch);
  }
  if (participants_.empty()) return;
  matcher_.Start(slice);
  for (Group* group : matcher_.groups()) {
    matcher_.StartGroup(group);
    for (Watch* watch : group->lagging) {
      if (watch->served != slices_) continue;
      const EventList& list = matcher_.ListFor(watch->flags);
      watch->stop_revision = Emit(watch, list);
      bool waits_for_prev = watch->credit > 0 && watch->stop_revision != 0;
      watch->blocked = waits_for_prev && !may_read;
    }
  }
  matcher_.Finish();
  for (Watch* watch : participants_) {
    watch->next_revision = watch->stop_revision != 0 ? watch->stop_revision : slice->reached + 1;
    if (watch->next_revision > revision_) {
      registry_.SetLagging(watch, false);
    } else {
      registry_.UpdateReady(watch);
    }
  }
}

std::optional<HistoryRead> WatchHub::Impl::NextHistoryRead() {
  if (slot_ != Slot::kIdle || registry_.ready().empty()) return std::nullopt;
  Watch* first = nullptr;
  if (HistoryIsWanted(source_->recent_from())) {
    CancelCompacted(source_->compact_revision());
    first = Pick(false);
  }
  recent_had_slot_ = false;
  if (first == nullptr) {
    FreeSlot();  // Whoever made way for the history need not any more.
    return std::nullopt;
  }
  read_ = HistoryRead();
  read_.from = first->next_revision;
  read_.to = std::min(source_->recent_from(), revision_ + 1);
  KW_CHECK(read_.from < read_.to);
  slot_ = Slot::kHistory;
  ++history_reads_;
  return read_;
}

void WatchHub::Impl::OnHistory(std::vector<mvcc::Change> changes, int64_t reached) {
  KW_CHECK(slot_ == Slot::kHistory);
  KW_CHECK(reached >= read_.from && reached < read_.to);
  Slice slice;
  slice.from = read_.from;
  slice.reached = reached;
  slice.is_history = true;
  slice.owned = std::move(changes);
  slice.SetItems(slice.owned);
  std::vector<uint32_t> missing = MissingOf(&slice);
  FreeSlot();
  if (missing.empty()) {
    CatchUp(&slice, /*may_read=*/true);
  } else {
    WantPrev(std::move(slice), std::move(missing));
  }
}

void WatchHub::Impl::WantPrev(Slice slice, std::vector<uint32_t> missing) {
  slot_ = Slot::kPrevWanted;
  slice_ = std::move(slice);
  asked_ = std::move(missing);
  asked_done_ = 0;
}

bool WatchHub::Impl::HistoryIsWanted(int64_t recent_from) const {
  for (const Watch* watch : registry_.ready()) {
    if (watch->next_revision < recent_from) return true;
  }
  return false;
}

std::vector<mvcc::Revision> WatchHub::Impl::NextPrevReads() {
  std::vector<mvcc::Revision> reads;
  if (slot_ != Slot::kPrevWanted) return reads;
  slot_ = Slot::kPrev;
  for (size_t i = asked_done_; i < asked_.size(); ++i) {
    reads.push_back(slice_.items[asked_[i]].prev_revision);
  }
  return reads;
}

void WatchHub::Impl::OnPrevRecords(std::vector<SharedBytes> records) {
  KW_CHECK(slot_ == Slot::kPrev);
  KW_CHECK(!records.empty() && records.size() <= asked_.size() - asked_done_);
  for (SharedBytes& record : records) {
    SliceItem& item = slice_.items[asked_[asked_done_++]];
    item.SetPrev(std::move(record));
  }
  bool is_done = asked_done_ == asked_.size();
  // Some revision must be complete, or else nobody would get further.
  if (!is_done && slice_.items[asked_[asked_done_]].main() == slice_.items[asked_[0]].main()) {
    slot_ = Slot::kPrevWanted;
    return;
  }
  Slice slice = std::move(slice_);
  FreeSlot();
  CatchUp(&slice, /*may_read=*/true);
}

void WatchHub::Impl::OnReadFailed() {
  KW_CHECK(slot_ == Slot::kHistory || slot_ == Slot::kPrev);
  FreeSlot();
}

void WatchHub::Impl::FreeSlot() {
  slot_ = Slot::kIdle;
  slice_ = Slice();
  asked_.clear();
  for (Watch* watch : registry_.ready()) watch->blocked = false;
}

Stats WatchHub::Impl::stats() const {
  Stats stats;
  stats.watches = registry_.size();
  stats.lagging = registry_.lagging().size();
  stats.ranges = registry_.range_count();
  stats.events = events_;
  stats.catch_ups = slices_;
  stats.history_reads = history_reads_;
  return stats;
}

// ---- WatchHub ----

WatchHub::WatchHub(const ChangeSource* source, int64_t revision)
    : impl_(std::make_unique<Impl>(source, revision)) {}
WatchHub::~WatchHub() = default;
void WatchHub::Open(uint64_t id, const kw_watch& watch) { impl_->Open(id, watch); }
void WatchHub::Credit(uint64_t id, uint64_t bytes) { impl_->Credit(id, bytes); }
void WatchHub::Close(uint64_t id) { impl_->Close(id); }
void WatchHub::CancelAll(Outcome outcome) { impl_->CancelAll(outcome); }
void WatchHub::Progress(const kw_watch_sink* sink, const uint64_t* ids, size_t count, void* ctx) {
  impl_->Progress(sink, ids, count, ctx);
}
void WatchHub::Publish(const std::vector<mvcc::Change>& changes) { impl_->Publish(changes); }
void WatchHub::OnCompacted(int64_t compact_revision) { impl_->OnCompacted(compact_revision); }
void WatchHub::OnRestored(int64_t revision) { impl_->OnRestored(revision); }
bool WatchHub::NeedsPrev() const { return impl_->NeedsPrev(); }
int64_t WatchHub::revision() const { return impl_->revision(); }
bool WatchHub::Step(size_t changes_max) { return impl_->Step(changes_max); }
std::optional<HistoryRead> WatchHub::NextHistoryRead() { return impl_->NextHistoryRead(); }
void WatchHub::OnHistory(std::vector<mvcc::Change> changes, int64_t reached) {
  impl_->OnHistory(std::move(changes), reached);
}
std::vector<mvcc::Revision> WatchHub::NextPrevReads() { return impl_->NextPrevReads(); }
void WatchHub::OnPrevRecords(std::vector<SharedBytes> records) { impl_->OnPrevRecords(std::move(records)); }
void WatchHub::OnReadFailed() { impl_->OnReadFailed(); }
void WatchHub::Flush(uint64_t cluster_id, uint64_t member_id, uint64_t raft_term) {
  impl_->Flush(cluster_id, member_id, raft_term);
}
Stats WatchHub::stats() const { return impl_->stats(); }

}  // namespace keyway::watch
