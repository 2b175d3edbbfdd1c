// SPDX-License-Identifier: Apache-2.0
//
// CheckStrict(): the replay. Revision after revision, its writer is found, run on the model, and its reply
// compared. The writer is who got this revision in the reply; else the revision is explained by what a
// watch saw of it: an operation whose outcome is unknown and that changes exactly this, or the end of a
// lease. Where several could have, a matching decides whether all such revisions can be explained at once.
// Then every read is compared with the state of its revision; time_sweep.cc checks real time.
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "keyway/detail.h"
#include "keyway/kernel.h"
#include "tests/sim/history/checkers.h"
#include "tests/sim/history/describe.h"
#include "tests/sim/history/matching.h"
#include "tests/sim/history/model.h"
#include "tests/sim/history/time_sweep.h"

namespace keyway::sim {
namespace {

constexpr size_t kNone = SIZE_MAX;

// What one watch saw of one revision.
struct Seen {
  const WatchEvent* events = nullptr;
  size_t count = 0;
};

bool SeesAll(const Watch& watch) {
  return watch.key == std::string_view("\0", 1) && watch.end == watch.key &&
         (watch.flags & (KW_WATCH_NO_PUT | KW_WATCH_NO_DELETE)) == 0;
}

bool SameChanges(const std::vector<WatchEvent>& changes, const Seen& seen) {
  if (changes.size() != seen.count) return false;
  for (size_t i = 0; i < seen.count; ++i) {
    if (changes[i].is_delete != seen.events[i].is_delete || changes[i].pair != seen.events[i].pair) {
      return false;
    }
  }
  return true;
}

class StrictChecker {
 public:
  StrictChecker(const History& history, Order* order) : history_(history), order_(order) {}

  Findings Run() {
    *order_ = Order();
    Collect();
    Replay();
    if (report_.empty()) Match();
    if (report_.empty()) CheckReads();
    if (report_.empty()) SweepTime(history_, complete_, order_, &report_);
    return report_.Take();
  }

 private:
  struct Gap {
    int64_t revision = 0;
    std::vector<size_t> candidates;  // Indexes in subjects_.
  };
  // Who may have made a revision that nobody was told of.
  struct Subject {
    Writer writer = Writer::kOperation;
    size_t operation = 0;
    int64_t lease = 0;
  };

  // ---- what the history says about each revision ----

  void Collect() {
    for (const Operation& operation : history_.operations) {
      if (operation.outcome == Outcome::kOk) last_ = std::max(last_, operation.response.revision);
    }
    for (const Watch& watch : history_.watches) {
      for (const WatchBatch& batch : watch.batches) {
        for (const WatchEvent& event : batch.events) last_ = std::max(last_, event.pair.mod_revision);
      }
    }
    const size_t count = static_cast<size_t>(std::max<int64_t>(0, last_ - Order::kFirstRevision + 1));
    if (count > 4 * history_.operations.size() + 1'000'000) {
      report_.Add("a reply or an event names revision " + std::to_string(last_) + ", but there were only " +
                  std::to_string(history_.operations.size()) + " operations");
      last_ = 1;
      return;
    }
    order_->not_after_ns = LatestTimes(history_, last_);
    writers_.assign(count, kNone);
    seen_.assign(count, Seen());
    for (size_t i = 0; i < history_.operations.size(); ++i) CollectOperation(i);
    for (const Watch& watch : history_.watches) {
      if (!SeesAll(watch)) continue;
      for (const WatchBatch& batch : watch.batches) CollectEvents(batch);
    }
  }

  void CollectOperation(size_t index) {
    const Operation& operation = history_.operations[index];
    if (operation.outcome != Outcome::kOk) {
      IndexCandidate(index);
      return;
    }
    const int64_t revision = operation.response.revision;
    if (operation.request.kind == Kind::kLeaseRevoke) revokes_.emplace(revision, index);
    if (!HasWritten(operation.request, operation.response)) return;
    if (revision < Order::kFirstRevision) {
      return report_.Add(Describe(operation) + ": a change cannot have this revision");
    }
    size_t& writer = writers_[static_cast<size_t>(revision - Order::kFirstRevision)];
    if (writer != kNone) {
      report_.Add("revision " + std::to_string(revision) + " was given to two changes: " +
                  Describe(history_.operations[writer]) + "; " + Describe(operation));
    }
    writer = index;
  }

  // By the values that it writes, and by the keys that it may change in another way.
  void IndexCandidate(size_t index) {
    const Request& request = history_.operations[index].request;
    if (request.kind == Kind::kPut || request.kind == Kind::kDelete || request.kind == Kind::kTxn) {
      IndexOps(request.txn, index);
    }
    if (request.kind == Kind::kLeaseRevoke) by_lease_.emplace(request.lease, index);
  }
  void IndexOps(const Txn& txn, size_t index) {
    for (const std::vector<Op>* ops : {&txn.then_ops, &txn.else_ops}) {
      for (const Op& op : *ops) {
        if (op.kind == KW_OP_TXN) IndexOps(*op.txn, index);
        if (op.kind == KW_OP_PUT && (op.flags & KW_PUT_IGNORE_VALUE) == 0) by_value_[op.value].insert(index);
        if (op.kind == KW_OP_PUT && (op.flags & KW_PUT_IGNORE_VALUE) != 0) by_key_[op.key].insert(index);
        if (op.kind == KW_OP_DELETE && op.end.empty()) by_key_[op.key].insert(index);
        if (op.kind == KW_OP_DELETE && !op.end.empty()) ranges_.insert(index);
      }
    }
  }

  void CollectEvents(const WatchBatch& batch) {
    const std::vector<WatchEvent>& events = batch.events;
    for (size_t i = 0; i < events.size();) {
      const int64_t revision = events[i].pair.mod_revision;
      size_t end = i;
      while (end < events.size() && events[end].pair.mod_revision == revision) ++end;
      if (revision >= Order::kFirstRevision) {
        Seen& seen = seen_[static_cast<size_t>(revision - Order::kFirstRevision)];
        if (seen.count == 0) seen = {&events[i], end - i};
      }
      i = end;
    }
  }

  // ---- the replay ----

  void Replay() {
    for (int64_t revision = Order::kFirstRevision; revision <= last_ && !report_.full(); ++revision) {
      const size_t at = static_cast<size_t>(revision - Order::kFirstRevision);
      if (writers_[at] != kNone) {
        ReplayOperation(writers_[at], revision);
      } else if (!ReplayRevoke(revision) && !ReplaySeen(revision)) {
        return;
      }
      if (order_->last() != revision) return;  // A finding: what follows would only repeat it.
    }
    complete_ = order_->last() == last_;
  }

  void Commit(Subject subject, std::vector<WatchEvent> changes) {
    Revision revision;
    revision.writer = subject.writer;
    revision.operation = subject.operation;
    revision.lease = subject.lease;
    for (const WatchEvent& change : changes) {
      if (const KeyValue* before = order_->map.At(change.pair.key, INT64_MAX); before && before->lease != 0) {
        attached_[before->lease].erase(change.pair.key);
      }
      if (change.pair.lease != 0) attached_[change.pair.lease].insert(change.pair.key);
      order_->map.Add(change.pair, change.is_delete);
    }
    revision.changes = std::move(changes);
    order_->revisions.push_back(std::move(revision));
  }

  void ReplayOperation(size_t index, int64_t revision) {
    const Operation& operation = history_.operations[index];
    Answer answer = RunModel(order_->map, operation.request.txn, revision - 1);
    CompareReply(operation, answer, revision - 1);
    if (answer.changes.empty()) {
      return report_.Add(Describe(operation) + " has changed something, but on the state of revision " +
                         std::to_string(revision - 1) + " it changes nothing");
    }
    Commit({.operation = index}, std::move(answer.changes));
  }

  void CompareReply(const Operation& operation, const Answer& answer, int64_t base) {
    if (answer.error != 0) {
      return report_.Add(Describe(operation) + " succeeded, but must fail with detail " +
                         std::to_string(answer.error) + " on the state of revision " + std::to_string(base));
    }
    if (operation.request.kind == Kind::kTxn && operation.response.succeeded != answer.succeeded) {
      return report_.Add(Describe(operation) + ": the compares " +
                         (answer.succeeded ? "hold" : "do not hold") + " on the state of revision " +
                         std::to_string(base) + ", but the other branch ran");
    }
    if (operation.response.results != answer.results) {
      report_.Add(Describe(operation) + " got " + Describe(operation.response.results) +
                  ", but the state of revision " + std::to_string(base) + " gives " +
                  Describe(answer.results));
    }
  }

  std::vector<std::string> Attached(int64_t lease) const {
    auto at = attached_.find(lease);
    if (at == attached_.end()) return {};
    return {at->second.begin(), at->second.end()};
  }

  // Whether a revocation that got this revision in its reply has made it. It has not if a watch saw another
  // change: then that one took the keys from the lease, and the revocation came after.
  bool ReplayRevoke(int64_t revision) {
    const Seen& seen = seen_[static_cast<size_t>(revision - Order::kFirstRevision)];
    auto [at, end] = revokes_.equal_range(revision);
    for (; at != end; ++at) {
      const int64_t lease = history_.operations[at->second].request.lease;
      std::vector<WatchEvent> deletes = DeleteKeys(order_->map, Attached(lease), revision - 1);
      if (deletes.empty() || (seen.count > 0 && !SameChanges(deletes, seen))) continue;
      attached_.erase(lease);
      Commit({.operation = at->second, .lease = lease}, std::move(deletes));
      return true;
    }
    return false;
  }

  // A revision that no reply names. False if the replay has to end here.
  bool ReplaySeen(int64_t revision) {
    const Seen& seen = seen_[static_cast<size_t>(revision - Order::kFirstRevision)];
    if (seen.count == 0) {
      // The last revisions may not have been seen by anybody yet.
      if (history_.settled) {
        report_.Add("revision " + std::to_string(revision) + " is in no reply and no watch saw it");
      }
      return false;
    }
    Gap gap;
    gap.revision = revision;
    std::vector<WatchEvent> changes;
    std::string refused;
    FindLease(seen, revision, &gap, &changes);
    for (size_t index : CandidatesOf(seen)) TryOperation(index, seen, revision, &gap, &changes, &refused);
    if (gap.candidates.empty()) {
      report_.Add("revision " + std::to_string(revision) + ", seen by a watch as " +
                  Describe(std::vector<WatchEvent>(seen.events, seen.events + seen.count)) +
                  ", was made by nobody" + refused);
      return false;
    }
    Commit(subjects_[gap.candidates[0]], std::move(changes));
    gaps_.push_back(std::move(gap));
    return true;
  }

  // A lease that ended: exactly its keys are deleted, in key order.
  void FindLease(const Seen& seen, int64_t revision, Gap* gap, std::vector<WatchEvent>* changes) {
    const KeyValue* first = order_->map.At(seen.events[0].pair.key, revision - 1);
    if (first == nullptr || first->lease == 0) return;
    const int64_t lease = first->lease;
    std::vector<WatchEvent> deletes = DeleteKeys(order_->map, Attached(lease), revision - 1);
    if (!SameChanges(deletes, seen)) return;
    // One that was revoked, maybe, counts as such: then it says when that was called.
    auto [at, end] = by_lease_.equal_range(lease);
    for (; at != end; ++at) {
      const Operation& operation = history_.operations[at->second];
      if (operation.outcome == Outcome::kUnknown && WasCalledFor(operation, revision)) {
        AddCandidate({.operation = at->second, .lease = lease}, gap);
      }
    }
    AddCandidate({.writer = Writer::kLeaseExpiry, .lease = lease}, gap);
    *changes = std::move(deletes);
  }

  // Not after somebody had seen this revision, or a later one.
  bool WasCalledFor(const Operation& operation, int64_t revision) const {
    return operation.call_ns <= order_->not_after_ns[static_cast<size_t>(revision - Order::kFirstRevision)];
  }

  std::set<size_t> CandidatesOf(const Seen& seen) const {
    std::set<size_t> candidates;
    bool is_told_by_value = false;
    for (size_t i = 0; i < seen.count; ++i) {
      const WatchEvent& event = seen.events[i];
      if (auto at = by_value_.find(event.pair.value); !event.is_delete && at != by_value_.end()) {
        candidates.insert(at->second.begin(), at->second.end());
        is_told_by_value = true;
      }
      // Or it is a put that keeps the value of an earlier one.
      auto at = by_key_.find(event.pair.key);
      if (at != by_key_.end()) candidates.insert(at->second.begin(), at->second.end());
    }
    if (!is_told_by_value) candidates.insert(ranges_.begin(), ranges_.end());
    return candidates;
  }

  void TryOperation(size_t index, const Seen& seen, int64_t revision, Gap* gap,
                    std::vector<WatchEvent>* changes, std::string* refused) {
    const Operation& operation = history_.operations[index];
    if (!WasCalledFor(operation, revision)) return;
    Answer answer = RunModel(order_->map, operation.request.txn, revision - 1);
    if (answer.error != 0 || !SameChanges(answer.changes, seen)) return;
    if (operation.outcome == Outcome::kError) {
      *refused = "; it is what " + Describe(operation) + " asked for, which was refused";
      return;
    }
    AddCandidate({.operation = index}, gap);
    *changes = std::move(answer.changes);
  }

  void AddCandidate(Subject subject, Gap* gap) {
    const std::pair<bool, uint64_t> key = {
        subject.writer == Writer::kLeaseExpiry,
        subject.writer == Writer::kLeaseExpiry ? static_cast<uint64_t>(subject.lease) : subject.operation};
    auto [at, inserted] = subject_ids_.emplace(key, subjects_.size());
    if (inserted) subjects_.push_back(subject);
    gap->candidates.push_back(at->second);
  }

  // Each of the gaps needs a subject of its own.
  void Match() {
    std::vector<std::vector<size_t>> choices;
    for (const Gap& gap : gaps_) choices.push_back(gap.candidates);
    std::vector<size_t> chosen;
    if (std::optional<size_t> unmatched = MatchAll(choices, subjects_.size(), &chosen)) {
      const Gap& gap = gaps_[*unmatched];
      std::string text = "revision " + std::to_string(gap.revision) + " repeats an effect: ";
      for (size_t candidate : gap.candidates) {
        const Subject& subject = subjects_[candidate];
        text += subject.writer == Writer::kLeaseExpiry
                    ? "the end of lease " + std::to_string(subject.lease) + "; "
                    : Describe(history_.operations[subject.operation]) + "; ";
      }
      return report_.Add(text + "each has made another revision already");
    }
    for (size_t i = 0; i < gaps_.size(); ++i) {
      const Subject& subject = subjects_[chosen[i]];
      Revision& revision = order_->revisions[static_cast<size_t>(gaps_[i].revision - Order::kFirstRevision)];
      revision.writer = subject.writer;
      revision.operation = subject.operation;
      revision.lease = subject.lease;
      for (size_t candidate : gaps_[i].candidates) {
        revision.lease_is_certain &= subjects_[candidate].lease == subject.lease;
      }
    }
  }

  // ---- reads ----

  void CheckReads() {
    for (const Operation& operation : history_.operations) {
      if (operation.outcome != Outcome::kOk || report_.full()) continue;
      const int64_t revision = operation.response.revision;
      if (revision > order_->last()) continue;  // The replay ended before: nothing is known there.
      if (revision < 1) {
        report_.Add(Describe(operation) + ": no store has this revision");
        continue;
      }
      if (HasWritten(operation.request, operation.response)) continue;
      switch (operation.request.kind) {
        case Kind::kRange:
          CheckRange(operation);
          break;
        case Kind::kPut:
        case Kind::kDelete:
        case Kind::kTxn: {
          Answer answer = RunModel(order_->map, operation.request.txn, revision);
          CompareReply(operation, answer, revision);
          break;
        }
        case Kind::kLeaseRevoke:
          CheckRevoked(operation);
          break;
        case Kind::kLeaseTimeToLive:
          CheckLeaseKeys(operation);
          break;
        case Kind::kCompact:
        case Kind::kLeaseGrant:
        case Kind::kLeaseKeepAlive:
          break;
      }
    }
  }

  void CheckRange(const Operation& operation) {
    const Op& op = operation.request.txn.then_ops[0];
    const int64_t header = operation.response.revision;
    const int64_t asked = op.range == nullptr ? 0 : op.range->revision;
    if (asked > header) {
      return report_.Add(Describe(operation) + " read the future revision " + std::to_string(asked));
    }
    const int64_t at = asked > 0 ? asked : header;
    const OpResult expected = RunRange(order_->map, op, at);
    if (operation.response.results.size() == 1 && operation.response.results[0] == expected) return;
    report_.Add(Describe(operation) + " got " + Describe(operation.response.results) +
                ", but the state of revision " + std::to_string(at) + " gives " + Describe(expected));
  }

  std::vector<std::string> KeysOfLease(int64_t lease, int64_t revision) const {
    std::vector<std::string> keys;
    const std::string all(1, '\0');
    for (const KeyValue* pair : order_->map.Range(all, all, revision)) {
      if (pair->lease == lease) keys.push_back(pair->key);
    }
    return keys;
  }

  void CheckRevoked(const Operation& operation) {
    const int64_t lease = operation.request.lease;
    const int64_t revision = operation.response.revision;
    const std::vector<std::string> keys = KeysOfLease(lease, revision);
    if (keys.empty()) return;
    report_.Add(Describe(operation) + ": key " + Quote(keys[0]) +
                " of the lease is still there at revision " + std::to_string(revision));
  }

  void CheckLeaseKeys(const Operation& operation) {
    if (operation.response.lease_ttl_s < 0) return;
    const std::vector<std::string> expected =
        KeysOfLease(operation.request.lease, operation.response.revision);
    if (expected == operation.response.lease_keys) return;
    report_.Add(Describe(operation) + " lists " + std::to_string(operation.response.lease_keys.size()) +
                " keys, but at its revision " + std::to_string(expected.size()) +
                " keys, or other ones, are attached");
  }

  const History& history_;
  Order* const order_;
  Report report_{"strict"};
  int64_t last_ = 1;
  bool complete_ = false;        // Every revision is explained.
  std::vector<size_t> writers_;  // Of each revision, by replies; kNone: none.
  std::vector<Seen> seen_;
  std::multimap<int64_t, size_t> revokes_;   // Acknowledged, by revision.
  std::multimap<int64_t, size_t> by_lease_;  // Not acknowledged, by lease.
  std::unordered_map<std::string, std::set<size_t>> by_value_, by_key_;
  std::set<size_t> ranges_;
  std::map<int64_t, std::set<std::string>> attached_;  // At the end of the replay so far.
  std::vector<Subject> subjects_;
  std::map<std::pair<bool, uint64_t>, size_t> subject_ids_;
  std::vector<Gap> gaps_;
};

}  // namespace

Findings CheckStrict(const History& history, Order* order) { return StrictChecker(history, order).Run(); }

}  // namespace keyway::sim
