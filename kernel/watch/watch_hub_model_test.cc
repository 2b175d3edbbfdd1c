// SPDX-License-Identifier: Apache-2.0
//
// Random histories against the guarantees that etcd documents for watches: ordered, unique, reliable,
// atomic, resumable, bookmarkable; and previous records, filters, credit and compaction. The reads that
// the hub asks for are answered late, in part, or not at all.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "kernel/watch/watch_test_util.h"

namespace keyway::watch {
namespace {

struct ModelWatch {
  WatchSpec spec;
  int64_t start = 0;  // The first revision it wants.
  size_t next = 0;    // Index in history of the first change not looked at yet.
  int64_t credit = 0;
  bool is_created = false, is_canceled = false;
  int64_t progress = 0;
  size_t events = 0;
};

class Model {
 public:
  explicit Model(uint32_t seed) : random_(seed), hub_(&store_, 1) {
    store_.is_cached = [this](mvcc::Revision) { return Chance(3); };
  }

  void Run(int turns) {
    for (int turn = 0; turn < turns && !testing::Test::HasFailure(); ++turn) Turn();
    // Reliable: with credit, everything arrives.
    for (auto& [id, watch] : watches_) Credit(id, &watch, 1 << 30);
    for (int i = 0; i < 3000 && !testing::Test::HasFailure(); ++i) {
      Reads(true);
      Flush();
    }
    EXPECT_EQ(hub_.stats().lagging, 0u);
    for (auto& [id, watch] : watches_) {
      if (watch.is_canceled) continue;
      SkipTo(id, &watch, store_.revision + 1);
      int64_t before = watch.progress;
      hub_.Progress(receiver_.sink(), &id, 1, nullptr);
      Flush();
      // It is synced, so it answers; with a future start it must not.
      EXPECT_EQ(watch.progress, watch.start > store_.revision + 1 ? before : store_.revision) << id;
    }
  }

  size_t events = 0, compaction_cancels = 0, progresses = 0, history_reads = 0;

 private:
  uint32_t Random(uint32_t below) { return random_() % below; }
  bool Chance(uint32_t one_in) { return Random(one_in) == 0; }
  std::string Key() { return std::string(1, static_cast<char>('a' + Random(6))); }

  void Turn() {
    // Apply: several revisions a turn, published together.
    std::vector<mvcc::Change> changes;
    for (uint32_t count = Random(4); count > 0; --count) {
      std::map<std::string, Write> writes;
      for (uint32_t keys = 1 + Random(3); keys > 0; --keys) {
        std::string key = Key();
        writes[key] = {key,
                       Chance(3) ? std::nullopt : std::optional<std::string>(std::string(Random(60), 'v'))};
      }
      std::vector<Write> list;
      for (auto& [key, write] : writes) list.push_back(write);
      for (mvcc::Change& change : store_.Apply(list, hub_.NeedsPrev())) changes.push_back(change);
    }
    hub_.Publish(changes);
    if (Chance(2)) store_.Forget(store_.revision - Random(12));
    for (uint32_t count = Random(3); count > 0; --count) Request();
    if (Chance(25) && store_.revision > store_.compacted + 1) {
      store_.Compact(store_.compacted + 1 + Random(store_.revision - store_.compacted));
      hub_.OnCompacted(store_.compacted);
    }
    if (Chance(60)) Restore();
    Reads(false);
    if (!Chance(3)) Flush();
  }

  void Request() {
    switch (Random(6)) {
      case 0:
      case 1:
        if (watches_.size() < 40 || Chance(10)) Open();
        return;
      case 2: {
        auto* entry = Any();
        if (entry != nullptr) Credit(entry->first, &entry->second, Random(600));
        return;
      }
      case 3: {
        auto* entry = Any();
        if (entry != nullptr && Chance(4)) hub_.Close(entry->first);
        return;
      }
      case 4: {
        auto* entry = Any();
        if (entry != nullptr) hub_.Progress(receiver_.sink(), &entry->first, 1, nullptr);
        return;
      }
      case 5: {
        std::vector<uint64_t> ids;
        for (uint32_t count = 1 + Random(3); count > 0; --count) {
          if (auto* entry = Any()) ids.push_back(entry->first);
        }
        uint64_t group = kGroupContext + groups_.size();
        groups_.push_back(ids);
        hub_.Progress(receiver_.sink(), ids.data(), ids.size(), reinterpret_cast<void*>(group));
        return;
      }
    }
  }

  void Open() {
    uint64_t id = ++last_id_;
    ModelWatch& watch = watches_[id];
    watch.spec.key = Key();
    switch (Random(4)) {
      case 0:
        break;
      case 1:
        watch.spec.end = std::string("\0", 1);
        break;
      default:
        watch.spec.end = std::string(1, static_cast<char>(watch.spec.key[0] + 1 + Random(3)));
    }
    watch.spec.flags = Chance(3) ? Random(8) : uint32_t{KW_WATCH_PREV_KV};
    if (Chance(3)) watch.spec.flags = 0;
    watch.spec.credit = Chance(3) ? 1 << 20 : Random(400);
    watch.credit = static_cast<int64_t>(watch.spec.credit);
    if (!Chance(3)) {
      watch.spec.start = std::max<int64_t>(1, store_.revision + 5 - Random(40));
    }
    watch.start = watch.spec.start == 0 ? store_.revision + 1 : watch.spec.start;
    OpenWatch(&hub_, id, watch.spec, receiver_);
  }

  void Credit(uint64_t id, ModelWatch* watch, uint64_t bytes) {
    watch->credit += static_cast<int64_t>(bytes);
    hub_.Credit(id, bytes);
  }

  void Restore() {
    for (int i = 0; i < 3; ++i) store_.Apply({{Key(), "restored"}}, false);
    store_.Forget(store_.revision + 1);
    read_.reset();
    prev_reads_.clear();
    hub_.OnRestored(store_.revision);
  }

  // Goes on with catching up; some of it, unless `eager`.
  void Reads(bool eager) {
    if (eager || Chance(2)) hub_.Step(1 + Random(10));
    if (!read_.has_value()) {
      read_ = hub_.NextHistoryRead();
      if (read_.has_value()) ++history_reads;
    }
    if (read_.has_value() && (eager || Chance(2))) {
      HistoryRead read = *std::exchange(read_, std::nullopt);
      read.bytes_max = 1 + Random(600);
      read.revisions_max = 1 + Random(8);
      if (Chance(10)) {
        hub_.OnReadFailed();
      } else {
        int64_t reached = 0;
        std::vector<mvcc::Change> changes = store_.ReadHistory(read, &reached);
        hub_.OnHistory(std::move(changes), reached);
      }
    }
    if (prev_reads_.empty()) prev_reads_ = hub_.NextPrevReads();
    if (!prev_reads_.empty() && (eager || Chance(2))) {
      if (Chance(10)) {
        hub_.OnReadFailed();
      } else {
        std::vector<SharedBytes> records;
        size_t count = Chance(3) ? 1 + Random(prev_reads_.size()) : prev_reads_.size();
        for (size_t i = 0; i < count; ++i) records.push_back(store_.RecordAt(prev_reads_[i]));
        hub_.OnPrevRecords(std::move(records));
      }
      prev_reads_.clear();
    }
  }

  void Flush() {
    hub_.Flush(1, 1, 1);
    for (const ReceivedBatch& batch : receiver_.batches) Check(batch);
    receiver_.batches.clear();
  }

  std::pair<const uint64_t, ModelWatch>* Any() {
    if (watches_.empty()) return nullptr;
    auto at = watches_.lower_bound(1 + Random(static_cast<uint32_t>(last_id_)));
    return at == watches_.end() ? nullptr : &*at;
  }

  bool Wants(const ModelWatch& watch, const mvcc::Change& change) const {
    if (change.revision.main < watch.start) return false;
    if ((watch.spec.flags & KW_WATCH_NO_PUT) != 0 && change.kind == KW_EVENT_PUT) return false;
    if ((watch.spec.flags & KW_WATCH_NO_DELETE) != 0 && change.kind == KW_EVENT_DELETE) return false;
    std::string_view key = mvcc::RecordKey(change.record.view());
    if (watch.spec.end.empty()) return key == watch.spec.key;
    if (key < watch.spec.key) return false;
    return watch.spec.end == std::string("\0", 1) || key < watch.spec.end;
  }

  // No change that the watch wants is left before `main`.
  void SkipTo(uint64_t id, ModelWatch* watch, int64_t main) {
    for (; watch->next < store_.history.size(); ++watch->next) {
      const mvcc::Change& change = store_.history[watch->next].change;
      if (change.revision.main >= main) return;
      if (Wants(*watch, change)) {
        ADD_FAILURE() << "watch " << id << " lost revision " << change.revision.main;
        return;
      }
    }
  }

  void Check(const ReceivedBatch& batch) {
    if (batch.kind == KW_WATCH_GROUP_PROGRESS) {
      ++progresses;
      for (uint64_t id : groups_[batch.watch - kGroupContext]) {
        ModelWatch& watch = watches_[id];
        if (!watch.is_canceled) SkipTo(id, &watch, batch.revision + 1);
      }
      return;
    }
    auto at = watches_.find(batch.watch);
    ASSERT_NE(at, watches_.end());
    ModelWatch& watch = at->second;
    ASSERT_FALSE(watch.is_canceled) << batch.watch;
    ASSERT_EQ(batch.kind == KW_WATCH_CREATED, !watch.is_created) << batch.watch;
    switch (batch.kind) {
      case KW_WATCH_CREATED:
        watch.is_created = true;
        return;
      case KW_WATCH_EVENTS:
        return CheckEvents(batch, &watch);
      case KW_WATCH_PROGRESS:
        // Bookmarkable: every event up to it came before.
        ++progresses;
        ASSERT_GE(batch.revision + 1, watch.start);
        SkipTo(batch.watch, &watch, batch.revision + 1);
        watch.progress = batch.revision;
        return;
      case KW_WATCH_CANCELED:
        watch.is_canceled = true;
        if (batch.code == KW_OK) return;
        ASSERT_EQ(batch.detail, uint32_t{KW_DETAIL_COMPACTED});
        ASSERT_GT(batch.compact_revision, 0);
        ASSERT_LE(batch.compact_revision, store_.compacted);
        ASSERT_LT(watch.start, batch.compact_revision);
        ++compaction_cancels;
        return;
    }
    FAIL() << "kind " << batch.kind;
  }

  void CheckEvents(const ReceivedBatch& batch, ModelWatch* watch) {
    ASSERT_FALSE(batch.events.empty());
    ASSERT_GE(batch.revision, batch.events.back().revision);
    ASSERT_GT(watch->credit, 0);
    uint64_t cost = 0, cost_but_last = 0;
    int64_t last_main = batch.events.back().revision;
    for (const ReceivedEvent& event : batch.events) {
      ++events;
      ++watch->events;
      // Ordered, unique, reliable: it is the next one that is wanted.
      SkipTo(batch.watch, watch, event.revision);
      while (watch->next < store_.history.size() && !Wants(*watch, store_.history[watch->next].change)) {
        ++watch->next;
      }
      ASSERT_LT(watch->next, store_.history.size());
      const mvcc::Change& change = store_.history[watch->next++].change;
      ASSERT_EQ(event.revision, change.revision.main) << batch.watch;
      ASSERT_EQ(event.kind, change.kind);
      ASSERT_EQ(event.record, change.record.view());
      CheckPrevious(event, change, *watch);
      uint64_t event_cost = event.record.size() + (event.prev.has_value() ? event.prev->size() : 0) + 64;
      cost += event_cost;
      if (event.revision != last_main) cost_but_last += event_cost;
    }
    ASSERT_EQ(batch.credit_bytes, cost);
    ASSERT_LT(static_cast<int64_t>(cost_but_last), watch->credit);  // Overshoots by one revision.
    watch->credit -= static_cast<int64_t>(cost);
    // Atomic: nothing of that revision is left.
    SkipTo(batch.watch, watch, last_main + 1);
  }

  void CheckPrevious(const ReceivedEvent& event, const mvcc::Change& change, const ModelWatch& watch) {
    const FakeStore::Version* previous =
        store_.Previous(mvcc::RecordKey(change.record.view()), change.revision);
    bool is_wanted = (watch.spec.flags & KW_WATCH_PREV_KV) != 0;
    bool is_there = previous != nullptr && previous->change.kind == KW_EVENT_PUT;
    if (event.prev.has_value()) {
      ASSERT_TRUE(is_wanted && is_there);
      ASSERT_EQ(*event.prev, previous->change.record.view());
    } else if (is_wanted && is_there) {
      ASSERT_TRUE(previous->dropped) << "revision " << event.revision;
    }
  }

  static constexpr uint64_t kGroupContext = 1'000'000;

  std::mt19937 random_;
  FakeStore store_;
  WatchHub hub_;
  Receiver receiver_;
  std::map<uint64_t, ModelWatch> watches_;
  uint64_t last_id_ = 0;
  std::vector<std::vector<uint64_t>> groups_;
  std::optional<HistoryRead> read_;
  std::vector<mvcc::Revision> prev_reads_;
};

TEST(WatchHubModel, KeepsEtcdsGuarantees) {
  size_t events = 0, cancels = 0, progresses = 0, history_reads = 0;
  for (uint32_t seed = 1; seed <= 300 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Model model(seed);
    model.Run(400);
    events += model.events;
    cancels += model.compaction_cancels;
    progresses += model.progresses;
    history_reads += model.history_reads;
  }
  // The runs did meet what they are for.
  EXPECT_GT(events, 100'000u);
  EXPECT_GT(cancels, 500u);
  EXPECT_GT(progresses, 2'000u);
  EXPECT_GT(history_reads, 2'000u);
}

}  // namespace
}  // namespace keyway::watch
