// SPDX-License-Identifier: Apache-2.0
//
// The watches of one member: matches changes to watches and hands events to the sinks of API plugins.
// Owned by [core]; no I/O. Guarantees, per watch: every matching event after its start, once, in
// order of revision, a revision never split; and no progress ahead of an event that is undelivered.
//
// A watch is *synced* if it was given every matching event up to revision(), or *lagging*: it starts in
// the past, or had no credit when an event came. A lagging watch with credit catches up, from the
// store's recent changes in memory (Step()) or, further back, from the engine (NextHistoryRead()).
//
// A core turn: apply; Publish(TakeChanges()); Open/Credit/Close/Progress as they come in; OnCompacted()
// after an applied compaction; Step(); start the reads that NextHistoryRead() and NextPrevReads() ask
// for; Flush(). Each read is answered once, by On...() or OnReadFailed().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernel/base/outcome.h"
#include "kernel/mvcc/mvcc.h"
#include "kernel/watch/change_source.h"
#include "kernel/watch/event_store.h"
#include "keyway/kernel.h"

namespace keyway::watch {

inline constexpr size_t kHistoryReadBytes = 1u << 20;
inline constexpr size_t kHistoryReadRevisions = 1000;

// Read the records of the revisions [from, to), in order, tombstones included: whole revisions, at
// least one if there is any, no more than needed to reach one of the bounds.
struct HistoryRead {
  int64_t from = 0, to = 0;
  size_t bytes_max = kHistoryReadBytes;
  size_t revisions_max = kHistoryReadRevisions;
};

struct Stats {
  size_t watches = 0, lagging = 0, ranges = 0;
  uint64_t events = 0;     // Delivered, each watch counts.
  uint64_t catch_ups = 0;  // Slices of old changes that were delivered.
  uint64_t history_reads = 0;
};

class WatchHub {
 public:
  // `source` outlives this. `revision` is the store's current one.
  WatchHub(const ChangeSource* source, int64_t revision);
  ~WatchHub();
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // ---- requests ----
  // `id` is new and not 0. Copies what it keeps. CREATED, or CANCELED (empty range, negative start), or
  // both (start compacted) go to the sink with the next Flush().
  void Open(uint64_t id, const kw_watch& watch);
  void Credit(uint64_t id, uint64_t bytes);
  void Close(uint64_t id);
  // Ends every watch for this reason (the member stops, or left the cluster).
  void CancelAll(Outcome outcome);
  // As kw_kernel.watch_progress; unknown ids are skipped.
  void Progress(const kw_watch_sink* sink, const uint64_t* ids, size_t count, void* ctx);

  // ---- the store ----
  // The changes of this turn in order, whole revisions, the first after revision(). Those of which
  // NeedsPrev() was true when they were applied have their previous record.
  void Publish(const std::vector<mvcc::Change>& changes);
  // A compaction was applied (ChangeSource::compact_revision() says so already).
  void OnCompacted(int64_t compact_revision);
  // The store was replaced by a snapshot at `revision`. Reads under way are forgotten: their answers
  // must not come any more.
  void OnRestored(int64_t revision);
  // Whether previous records are wanted in Change.prev.
  bool NeedsPrev() const;
  // Every change up to it was published.
  int64_t revision() const;

  // ---- catching up ----
  // Delivers one slice of at most `changes_max` recent changes (or one revision) to lagging watches.
  // Returns whether there is more to do now.
  bool Step(size_t changes_max);
  // The read to start, if there is one; then none until it is answered.
  std::optional<HistoryRead> NextHistoryRead();
  // Of each change only `revision` and `record` need be set. `reached`: the last revision that was
  // looked at, from <= reached < to.
  void OnHistory(std::vector<mvcc::Change> changes, int64_t reached);
  // Previous records to read for prev_kv; empty if there is nothing to read now.
  std::vector<mvcc::Revision> NextPrevReads();
  // One record for each of NextPrevReads(), in its order (without a value: compacted). May be fewer,
  // at least one, to bound the bytes: the rest is asked for again.
  void OnPrevRecords(std::vector<SharedBytes> records);
  // The read that was under way failed; it is asked for again.
  void OnReadFailed();

  // Hands over what the turn has collected, at most one delivery for each sink.
  void Flush(uint64_t cluster_id, uint64_t member_id, uint64_t raft_term);

  Stats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace keyway::watch
