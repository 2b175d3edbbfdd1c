// SPDX-License-Identifier: Apache-2.0
//
// The log of one node as Raft sees it.
//
//      base   first_index            cached_first                                last_index
//        |    |                      |                                           |
//   -----+----+----------------------+----------+----------+---------+-----------+
//    gone|    only in the log store  |  applied |  committed | durable | being written | new
//
// Terms are kept as runs for [base, last], so TermAt() also answers for entries that are no longer in
// memory. Entries that are durable and applied leave memory when they exceed the cache's bytes.
//
// Durability. TakeUnstable(seq) hands out what the log store has not been given; OnDurable(seq) says
// that it is on disk. A later truncation at index i makes every report still to come count for
// entries below i only, so that an old write of (i, term) never vouches for a newer one.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "kernel/raft/types.h"

namespace keyway::raft {

class RaftLog {
 public:
  // `entries` begin at base_index + 1 and are durable. base_index <= applied <= commit <= last.
  // By reference, so that an argument beside it may still look at the entries.
  RaftLog(uint64_t base_index, uint64_t base_term, std::vector<Entry>&& entries, uint64_t commit,
          uint64_t applied, size_t cache_bytes_max);

  uint64_t base_index() const { return base_index_; }
  uint64_t first_index() const { return base_index_ + 1; }
  uint64_t last_index() const { return cached_first_ + entries_.size() - 1; }
  uint64_t last_term() const { return runs_.empty() ? base_term_ : runs_.back().term; }
  uint64_t cached_first() const { return cached_first_; }
  uint64_t commit_index() const { return commit_; }
  uint64_t applied_index() const { return applied_; }
  uint64_t durable_index() const { return durable_; }

  // Of [base_index(), last_index()]; nullopt outside.
  std::optional<uint64_t> TermAt(uint64_t index) const;
  bool Matches(uint64_t index, uint64_t term) const { return TermAt(index) == term; }
  // Whether a log that ends in (index, term) is at least as up to date (Raft paper, 5.4.1).
  bool IsUpToDate(uint64_t index, uint64_t term) const {
    return term > last_term() || (term == last_term() && index >= last_index());
  }
  // The largest index <= `index` whose term is <= `term`, with that term; below the base: the term is
  // 0. Skips a whole term in one probe (Raft paper, end of 5.3).
  std::pair<uint64_t, uint64_t> FindConflictByTerm(uint64_t index, uint64_t term) const;
  // In memory: cached_first() <= index <= last_index().
  const Entry& At(uint64_t index) const;
  // Entries from `begin` (in memory, or last_index() + 1) up to about `bytes_max`; at least one if any.
  std::vector<Entry> Copy(uint64_t begin, size_t bytes_max) const;
  // The first configuration entry that is committed and not applied; 0 if there is none.
  uint64_t UnappliedConfiguration() const {
    return configurations_.empty() || configurations_.front() > commit_ ? 0 : configurations_.front();
  }

  // entry.index == last_index() + 1.
  void Append(Entry entry);
  // Drops entries from `index` on, which is above the commit index.
  void TruncateFrom(uint64_t index);
  // Returns whether the commit index grew. index <= last_index().
  bool CommitTo(uint64_t index);
  // applied_index() <= index <= commit_index().
  void ApplyTo(uint64_t index);
  // Drops entries up to `index`, which are applied and durable.
  void TruncatePrefix(uint64_t index);
  // Empties the log: a snapshot up to `index` has replaced it. index >= commit_index().
  void Reset(uint64_t index, uint64_t term);

  bool HasUnstable() const { return untaken_ <= last_index(); }
  std::vector<Entry> TakeUnstable(uint64_t seq);
  void OnDurable(uint64_t seq);

  // What an entry costs against a limit in bytes.
  static size_t Cost(const Entry& entry) { return entry.data.size() + sizeof(Entry); }
  static size_t Cost(const std::vector<Entry>& entries);

 private:
  struct TermRun {
    uint64_t first;
    uint64_t term;
  };
  struct Write {
    uint64_t seq;
    uint64_t last;  // Entries up to here are on disk, and still these, once seq is durable.
  };
  void Index(const Entry& entry);
  void Evict();

  const size_t cache_bytes_max_;
  uint64_t base_index_;
  uint64_t base_term_;
  uint64_t cached_first_;
  std::deque<Entry> entries_;            // [cached_first_, last]
  std::deque<TermRun> runs_;             // Cover [base_index_ + 1, last].
  std::deque<uint64_t> configurations_;  // Indexes of configuration entries above applied_.
  uint64_t commit_;
  uint64_t applied_;
  uint64_t durable_;
  uint64_t untaken_;  // First entry that the log store has not been given.
  std::deque<Write> writes_;
  uint64_t evictable_;          // Up to here applied and durable; counted in evictable_bytes_.
  size_t evictable_bytes_ = 0;  // Of [cached_first_, evictable_].
};

}  // namespace keyway::raft
