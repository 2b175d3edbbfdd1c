// SPDX-License-Identifier: Apache-2.0
//
// For the tests of the hub: a store that keeps its whole history, can compact and can answer reads as the
// engine would; and a sink that copies what it receives.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernel/watch/watch_hub.h"

namespace keyway::watch {

struct Write {
  std::string key;
  std::optional<std::string> value;  // None: a delete.
};

class FakeStore final : public ChangeSource {
 public:
  struct Version {
    mvcc::Change change;
    bool dropped = false;  // By compaction.
  };

  int64_t revision = 1;
  int64_t compacted = 0;
  std::vector<Version> history;
  std::deque<mvcc::Change> recent_changes;
  int64_t kept_from = 2;  // recent_from(), while there are changes.
  std::function<bool(mvcc::Revision)> is_cached = [](mvcc::Revision) { return false; };

  int64_t compact_revision() const override { return compacted; }
  const std::deque<mvcc::Change>& recent() const override { return recent_changes; }
  int64_t recent_from() const override { return kept_from; }
  mvcc::Revision PreviousVersion(std::string_view key, mvcc::Revision at) const override {
    const Version* found = Previous(key, at);
    return found == nullptr || found->dropped ? mvcc::Revision{} : found->change.revision;
  }
  SharedBytes FindRecord(std::string_view, mvcc::Revision at) const override {
    return is_cached(at) ? RecordAt(at) : SharedBytes();
  }

  // One revision. Deletes of missing keys are left out; returns what changed.
  std::vector<mvcc::Change> Apply(const std::vector<Write>& writes, bool want_prev) {
    std::vector<mvcc::Change> changes;
    int64_t main = revision + 1;
    for (const Write& write : writes) {
      mvcc::Change change;
      change.revision = {main, static_cast<int32_t>(changes.size())};
      const Version* previous = Previous(write.key, {main, 0});
      bool is_alive = previous != nullptr && previous->change.kind == KW_EVENT_PUT;
      if (!write.value.has_value() && !is_alive) continue;
      mvcc::RecordFields fields;
      fields.key = write.key;
      fields.mod_revision = main;
      if (write.value.has_value()) {
        fields.value = *write.value;
        fields.create_revision = main;
        fields.version = 1;
      }
      change.kind = write.value.has_value() ? KW_EVENT_PUT : KW_EVENT_DELETE;
      change.record = mvcc::EncodeRecord(fields);
      if (is_alive) {
        change.prev_revision = previous->change.revision;
        if (want_prev) change.prev = previous->change.record;
      }
      changes.push_back(change);
    }
    if (changes.empty()) return changes;
    revision = main;
    for (const mvcc::Change& change : changes) {
      by_key_[std::string(mvcc::RecordKey(change.record.view()))].push_back(history.size());
      history.push_back({change});
      recent_changes.push_back(change);
    }
    return changes;
  }

  // Changes before `main` leave memory.
  void Forget(int64_t main) {
    while (!recent_changes.empty() && recent_changes.front().revision.main < main) {
      recent_changes.pop_front();
    }
    kept_from = std::max(kept_from, std::min(main, revision + 1));
  }

  void Compact(int64_t at) {
    compacted = at;
    std::set<std::string_view> seen;
    for (size_t i = history.size(); i-- > 0;) {
      Version& version = history[i];
      if (version.change.revision.main > at) continue;
      bool is_newest = seen.insert(mvcc::RecordKey(version.change.record.view())).second;
      bool is_old_tombstone = version.change.kind == KW_EVENT_DELETE && version.change.revision.main < at;
      if (!is_newest || is_old_tombstone) version.dropped = true;
    }
  }

  // As the core does it. Only what the contract promises is set.
  std::vector<mvcc::Change> ReadHistory(const HistoryRead& read, int64_t* reached) const {
    std::vector<mvcc::Change> changes;
    std::set<int64_t> revisions;
    size_t bytes = 0;
    *reached = read.to - 1;
    for (const Version& version : history) {
      int64_t main = version.change.revision.main;
      if (version.dropped || main < read.from || main >= read.to) continue;
      if (revisions.insert(main).second &&
          (revisions.size() > read.revisions_max || (bytes >= read.bytes_max && bytes > 0))) {
        *reached = changes.back().revision.main;
        break;
      }
      mvcc::Change change;
      change.revision = version.change.revision;
      change.record = version.change.record;
      bytes += change.record.size();
      changes.push_back(change);
    }
    return changes;
  }

  // Without a value: compacted.
  SharedBytes RecordAt(mvcc::Revision at) const {
    auto found = std::lower_bound(history.begin(), history.end(), at,
                                  [](const Version& version, const mvcc::Revision& revision) {
                                    return version.change.revision < revision;
                                  });
    bool is_there = found != history.end() && found->change.revision == at && !found->dropped;
    return is_there ? found->change.record : SharedBytes();
  }

  const Version* Previous(std::string_view key, mvcc::Revision at) const {
    auto found = by_key_.find(std::string(key));
    if (found == by_key_.end()) return nullptr;
    const Version* previous = nullptr;
    for (size_t index : found->second) {
      if (history[index].change.revision >= at) break;
      previous = &history[index];
    }
    return previous;
  }

 private:
  std::map<std::string, std::vector<size_t>> by_key_;
};

struct ReceivedEvent {
  uint32_t kind = 0;
  int64_t revision = 0;
  std::string key, record;
  std::optional<std::string> prev;
  const kw_event* identity = nullptr;  // Only to compare, the event may be gone.
};

struct ReceivedBatch {
  uint32_t kind = 0;
  int32_t code = 0;
  uint32_t detail = 0;
  uint64_t watch = 0;  // The context.
  int64_t revision = 0, compact_revision = 0;
  std::vector<ReceivedEvent> events;
  uint64_t credit_bytes = 0;
};

// Copies each delivery, then releases it.
class Receiver {
 public:
  Receiver() : sink_{this, &Receiver::Deliver} {}
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;

  const kw_watch_sink* sink() const { return &sink_; }
  std::vector<ReceivedBatch> batches;
  size_t deliveries = 0;
  uint64_t cluster_id = 0, member_id = 0, raft_term = 0;

 private:
  static void Deliver(void* self, kw_delivery* delivery) {
    auto* receiver = static_cast<Receiver*>(self);
    ++receiver->deliveries;
    receiver->cluster_id = delivery->cluster_id;
    receiver->member_id = delivery->member_id;
    receiver->raft_term = delivery->raft_term;
    for (size_t i = 0; i < delivery->batch_count; ++i) {
      const kw_watch_batch& batch = delivery->batches[i];
      ReceivedBatch& copy = receiver->batches.emplace_back();
      copy.kind = batch.kind;
      copy.code = batch.code;
      copy.detail = batch.detail;
      copy.watch = reinterpret_cast<uintptr_t>(batch.watch_ctx);
      copy.revision = batch.revision;
      copy.compact_revision = batch.compact_revision;
      copy.credit_bytes = batch.credit_bytes;
      for (size_t j = 0; j < batch.event_count; ++j) {
        const kw_event& event = *batch.events[j];
        ReceivedEvent& to = copy.events.emplace_back();
        to.kind = event.kind;
        to.revision = event.mod_revision;
        to.record = ToView(event.record);
        to.key = mvcc::RecordKey(ToView(event.record));
        if (event.prev.ptr != nullptr) to.prev = std::string(ToView(event.prev));
        to.identity = &event;
      }
    }
    delivery->release(delivery);
  }

  const kw_watch_sink sink_;
};

struct WatchSpec {
  std::string key, end;
  int64_t start = 0;
  uint32_t flags = 0;
  uint64_t credit = 1 << 20;
};

inline void OpenWatch(WatchHub* hub, uint64_t id, const WatchSpec& spec, const Receiver& receiver) {
  kw_watch watch = {};
  watch.size = sizeof(watch);
  watch.flags = spec.flags;
  watch.key = ToSlice(spec.key);
  watch.end = ToSlice(spec.end);
  watch.start_revision = spec.start;
  watch.credit_bytes = spec.credit;
  watch.sink = receiver.sink();
  watch.ctx = reinterpret_cast<void*>(static_cast<uintptr_t>(id));
  hub->Open(id, watch);
}

}  // namespace keyway::watch
