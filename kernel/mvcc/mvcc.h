// SPDX-License-Identifier: Apache-2.0
//
// The multi-version store of one member: the key index in memory, the cache of records, and the exact
// semantics of etcd's put, range, delete, txn and compaction. Owned by [core]; deterministic: the same
// applied requests give the same state on every member, whatever is in its cache.
//
// It does no I/O. A record is in memory (cached, or recent and not stored yet), or it must be read from
// the engine: MissingForTxn() and RangeReader name the revisions to read, the caller reads them and
// hands them back. What apply changes is collected in TakeChanges(); the caller writes it to the engine
// and reports OnStored(), and until then it stays in memory.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string_view>
#include <vector>

#include "kernel/base/bytes.h"
#include "kernel/base/outcome.h"
#include "kernel/base/reply.h"
#include "kernel/mvcc/record.h"
#include "keyway/kernel.h"

namespace keyway::mvcc {

struct Options {
  size_t cache_bytes = 64u << 20;   // Latest records kept for reads.
  size_t recent_bytes = 16u << 20;  // Recent changes kept for watches beyond what is not stored yet.
};

// One changed key. `prev` is the record that the key had before the whole revision, if there was one and
// it was in memory; so two changes of a key in one txn have the same one, as etcd's events do.
struct Change {
  Revision revision;
  uint32_t kind = KW_EVENT_PUT;
  SharedBytes record;
  SharedBytes prev;
  Revision prev_revision;  // main 0: the key did not exist before.
};

// The leases as apply sees them; kernel/lease implements it.
class LeaseKeys {
 public:
  virtual ~LeaseKeys() = default;
  virtual bool Exists(int64_t lease) const = 0;
  virtual void Attach(int64_t lease, std::string_view key) = 0;
  virtual void Detach(int64_t lease, std::string_view key) = 0;
};

class Mvcc {
 public:
  Mvcc(const Options& options, LeaseKeys* leases);
  ~Mvcc();

  // ---- restore: before anything else; records in revision order, as the engine has them ----
  // Returns the revision with the checksum of its record.
  Revision RestoreRecord(Revision revision, std::string_view record);
  // `revision`: the current one (>= the last record's, since the last change may be compacted away).
  // `compact_revision`: the last compaction scheduled; `compacted`: whether it had finished. A
  // compaction that had not goes on with CompactStep(). Attaches each live key to its lease if that
  // exists, so leases are restored before.
  void FinishRestore(int64_t revision, int64_t compact_revision, bool compacted);
  // Forgets everything (a snapshot is about to be installed).
  void Clear();

  // ---- state ----
  int64_t revision() const;          // 1 for an empty store.
  int64_t compact_revision() const;  // 0: never. The last one scheduled; its own revision is readable.
  bool compacting() const;           // CompactStep() has more to do.
  size_t key_count() const;          // Live keys.
  size_t memory_bytes() const;       // Estimate: index plus cache plus recent changes.

  // ---- checks that need no state: before a request is proposed, on the member that took it ----
  // etcd's v3rpc checks: empty keys, op counts (nested budget), duplicate keys, value/lease provided,
  // sort options, unset ops.
  static Outcome CheckRange(const kw_range& range);
  static Outcome CheckTxn(const kw_txn& txn, bool plain, size_t max_txn_ops);

  // ---- apply ----
  // Revisions of records that ApplyTxn of this txn may need and that are not in memory: values of
  // compares and ranges, previous pairs (all of them if want_prev: there are watches with prev_kv).
  // May be more than needed. Appends to `missing`, which stays empty on the fast path. What is in
  // memory stays there: until ApplyTxn() if that is the next call, or, when something is missing, until
  // the next Apply*() returns, whatever is read meanwhile. Call it on the state that ApplyTxn() sees.
  void MissingForTxn(const kw_txn& txn, bool want_prev, std::vector<Revision>* missing) const;
  void MissingForDelete(const std::vector<std::string_view>& keys, bool want_prev,
                        std::vector<Revision>* missing) const;
  // A record read from the engine; kept at least until the next Apply*() returns.
  void Provide(Revision revision, SharedBytes record);
  // Runs the txn at the next revision. All checks come first: a failed one changes nothing. With a
  // reply: fills succeeded, results (one per op of the branch that ran) and revision.
  // Precondition: nothing is missing.
  Outcome ApplyTxn(const kw_txn& txn, bool want_prev, Reply* maybe_reply);
  // Deletes the keys that exist, in the given (sorted) order, in one revision. For lease expiry: does
  // not Detach. Returns how many.
  size_t ApplyDelete(const std::vector<std::string_view>& keys, bool want_prev);
  // Schedules a compaction. Errors: COMPACTED, FUTURE_REVISION.
  Outcome ApplyCompact(int64_t revision);
  // Visits up to `keys_max` keys (and about 4 x as many versions); appends revisions whose records are
  // to be deleted from the engine. Those of one key come oldest first, and are to be deleted so.
  // Keeps for each key the newest version <= compact_revision unless it is a tombstone older than
  // compact_revision (a tombstone at it stays, so that a watch from it sees the delete).
  void CompactStep(size_t keys_max, std::vector<Revision>* deleted);
  // Changes since the last call, in order. They also stay in recent().
  std::vector<Change> TakeChanges();
  // Everything up to this revision is in the engine and may leave memory.
  void OnStored(int64_t main);

  // ---- for watches ----
  // Recent changes in order; those with main > the last OnStored() are always here.
  const std::deque<Change>& recent() const;
  // The first revision whose changes, and all after it, are in recent(); revision() + 1 if none.
  int64_t recent_from() const;
  // The version of `key` before the main revision of `revision` (see Change.prev): its revision, main 0
  // if none or compacted.
  Revision PreviousVersion(std::string_view key, Revision revision) const;
  // In memory, or no value.
  SharedBytes FindRecord(std::string_view key, Revision revision) const;
  // Whether an engine's record is the one that was written at this revision. A revision that a
  // compaction has removed from the index is taken on trust: nobody is given it any more.
  bool IsIntact(Revision revision, std::string_view record) const;

 private:
  friend class RangeReader;
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// One range, read in slices. Pins its revision at the first step; if that is compacted meanwhile, a
// range of revision 0 starts anew and any other fails with COMPACTED.
class RangeReader {
 public:
  enum class Progress {
    kDone,     // outcome() says how it ended; the reply has results[0], revision.
    kMore,     // Call Step() again, after other work.
    kBlocked,  // Read missing() from the engine, then call Resume().
  };
  // `mvcc`, the slices of `range` and `reply` outlive this.
  RangeReader(Mvcc* mvcc, const kw_range& range, Reply* reply);
  ~RangeReader();
  Progress Step(size_t keys_max);
  const std::vector<Revision>& missing() const;
  // One record for each of missing(), in its order. An empty one: the engine has lost it (DATA_LOSS).
  void Resume(std::vector<SharedBytes> records);
  Outcome outcome() const { return outcome_; }

 private:
  class Impl;
  bool ReadCachedKey();

  Mvcc* const mvcc_;
  const kw_range range_;
  Reply* const reply_;
  Outcome outcome_;
  std::unique_ptr<Impl> impl_;  // None as long as one look at the cache is enough.
};

}  // namespace keyway::mvcc
