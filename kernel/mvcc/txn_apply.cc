// SPDX-License-Identifier: Apache-2.0
//
// A transaction runs in three passes over the ops of the branches that are taken: all decisions, nested
// ones included, on the state before it; then all checks, on the same state; then the changes and reads,
// each seeing the ones before it. Source: etcd 3.7 server/etcdserver/txn/txn.go.
#include "kernel/mvcc/txn_apply.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "kernel/base/check.h"
#include "kernel/base/mutant.h"
#include "kernel/mvcc/range_scan.h"

namespace keyway::mvcc {
namespace {

// The branches taken, by a txn before those nested in it, in the order of ops.
using Path = absl::InlinedVector<bool, 16>;

struct Branch {
  const kw_op* ops;
  size_t count;
};
Branch BranchOf(const kw_txn& txn, bool then_side) {
  return then_side ? Branch{txn.then_ops, txn.then_count} : Branch{txn.else_ops, txn.else_count};
}

// ---- decisions ----

bool Holds(const kw_cmp& cmp, int order) {
  switch (cmp.relation) {
    case KW_CMP_EQUAL:
      return order == 0;
    case KW_CMP_NOT_EQUAL:
      return order != 0;
    case KW_CMP_GREATER:
      return order > 0;
    case KW_CMP_LESS:
      return order < 0;
    default:
      return true;
  }
}

int Order(int64_t a, int64_t b) { return a < b ? -1 : a > b ? 1 : 0; }

// `maybe_item`: nullptr for a key that does not exist. Not for KW_CMP_VALUE.
bool NumberHolds(const kw_cmp& cmp, const Item* maybe_item) {
  int64_t number = 0;
  if (maybe_item != nullptr) {
    switch (cmp.target) {
      case KW_CMP_VERSION:
        number = maybe_item->version();
        break;
      case KW_CMP_CREATE:
        number = maybe_item->create_revision();
        break;
      case KW_CMP_MOD:
        number = maybe_item->revision().main;
        break;
      case KW_CMP_LEASE:
        number = maybe_item->lease();
        break;
      default:
        break;
    }
  }
  return Holds(cmp, cmp.target > KW_CMP_LEASE ? 0 : Order(number, cmp.number));
}

class Decider {
 public:
  // `maybe_missing`: gets the values that are not in memory; without it there must be none.
  Decider(const Store& store, std::vector<Revision>* maybe_missing)
      : store_(store), maybe_missing_(maybe_missing) {}

  void Decide(const kw_txn& txn, Path* path) const {
    bool then_side = true;
    for (size_t i = 0; i < txn.cmp_count && then_side; ++i) then_side = Compare(txn.cmps[i]);
    path->push_back(then_side);
    Branch branch = BranchOf(txn, then_side);
    for (size_t i = 0; i < branch.count; ++i) {
      if (branch.ops[i].kind == KW_OP_TXN) Decide(*branch.ops[i].txn, path);
    }
  }

 private:
  bool Compare(const kw_cmp& cmp) const {
    bool found = false, holds = true;
    store_.index().ForEach(ToView(cmp.key), ToView(cmp.end), [&](const Item* item) {
      if (item->tombstone()) return true;
      found = true;
      holds = cmp.target == KW_CMP_VALUE ? ValueHolds(cmp, *item) : NumberHolds(cmp, item);
      return holds;
    });
    if (found) return holds;
    // A value that does not exist compares with nothing.
    return cmp.target == KW_CMP_VALUE ? false : NumberHolds(cmp, nullptr);
  }

  bool ValueHolds(const kw_cmp& cmp, const Item& item) const {
    SharedBytes record = store_.FindRecord(item, item.revision());
    if (!record.has_value()) {
      KW_CHECK(maybe_missing_ != nullptr);
      maybe_missing_->push_back(item.revision());
      return true;  // Whatever: the decision is not used, and the rest of the range is needed as well.
    }
    RecordFields fields;
    KW_CHECK(DecodeRecord(record.view(), &fields));
    return Holds(cmp, fields.value.compare(ToView(cmp.value)));
  }

  const Store& store_;
  std::vector<Revision>* const maybe_missing_;
};

// ---- what is missing ----

// Also keeps what it finds in memory there until the txn has run, if it could be evicted before.
class MissingFinder {
 public:
  MissingFinder(Store* store, bool want_prev, std::vector<Revision>* missing)
      : store_(*store), want_prev_(want_prev), missing_(missing) {}

  void Run(const kw_txn& txn) {
    Path path;
    size_t before = missing_->size();
    Decider(store_, missing_).Decide(txn, &path);
    if (missing_->size() == before) {
      size_t next = 0;
      may_delete_ = MayDelete(txn, path, &next);
      next = 0;
      AddTaken(txn, path, &next);
    } else {
      // Which way it goes is not known yet.
      missing_->resize(before);
      may_delete_ = true;
      AddAll(txn);
    }
    // The first of several changes may evict what a later one needs, and so may whatever is done while
    // the caller reads.
    if (missing_->size() > before || op_count_ > 1 || may_delete_) {
      for (auto& [revision, record] : found_) store_.Keep(revision, std::move(record));
    }
  }

 private:
  static bool MayDelete(const kw_txn& txn, const Path& path, size_t* next) {
    Branch branch = BranchOf(txn, path[(*next)++]);
    bool may_delete = false;
    for (size_t i = 0; i < branch.count; ++i) {
      const kw_op& op = branch.ops[i];
      if (op.kind == KW_OP_DELETE) may_delete = true;
      if (op.kind == KW_OP_TXN && MayDelete(*op.txn, path, next)) may_delete = true;
    }
    return may_delete;
  }

  void AddTaken(const kw_txn& txn, const Path& path, size_t* next) {
    AddCompares(txn);
    Branch branch = BranchOf(txn, path[(*next)++]);
    for (size_t i = 0; i < branch.count; ++i) {
      if (branch.ops[i].kind == KW_OP_TXN) {
        AddTaken(*branch.ops[i].txn, path, next);
      } else {
        AddOp(branch.ops[i]);
      }
    }
  }

  void AddCompares(const kw_txn& txn) {
    for (size_t i = 0; i < txn.cmp_count; ++i) {
      if (txn.cmps[i].target == KW_CMP_VALUE) AddNewest(txn.cmps[i].key, txn.cmps[i].end);
    }
  }

  void AddAll(const kw_txn& txn) {
    AddCompares(txn);
    for (bool then_side : {true, false}) {
      Branch branch = BranchOf(txn, then_side);
      for (size_t i = 0; i < branch.count; ++i) {
        if (branch.ops[i].kind == KW_OP_TXN) {
          AddAll(*branch.ops[i].txn);
        } else {
          AddOp(branch.ops[i]);
        }
      }
    }
  }

  void AddOp(const kw_op& op) {
    ++op_count_;
    switch (op.kind) {
      case KW_OP_RANGE:
        AddRange(*op.range);
        break;
      case KW_OP_PUT:
        if (want_prev_ || (op.flags & (KW_PUT_PREV_KV | KW_PUT_IGNORE_VALUE))) AddNewest(op.key, {});
        break;
      case KW_OP_DELETE:
        if (want_prev_ || (op.flags & KW_DELETE_PREV_KV)) AddNewest(op.key, op.end);
        break;
      default:
        break;
    }
  }

  void AddNewest(kw_slice key, kw_slice end) {
    store_.index().ForEach(ToView(key), ToView(end), [this](const Item* item) {
      if (!item->tombstone()) Add(*item, item->revision());
      return true;
    });
  }

  void AddRange(const kw_range& range) {
    if (!NeedsRecords(range) || range.revision > store_.revision()) return;
    if (range.revision > 0 && range.revision < store_.compact_revision()) return;
    int64_t revision = range.revision > 0 ? range.revision : store_.revision();
    // Only without sorting is it known which keys the limit leaves; and then puts before it in the same
    // txn only push keys out, but deletes, and filters on what was put, let others in.
    bool cut = range.limit > 0 && !may_delete_ && !HasFilters(range) &&
               range.sort_order != KW_ORDER_DESCEND && range.sort_target == KW_SORT_KEY;
    uint64_t left = cut ? static_cast<uint64_t>(range.limit) : std::numeric_limits<uint64_t>::max();
    store_.index().ForEach(ToView(range.key), ToView(range.end), [&](const Item* item) {
      VersionInfo info;
      if (item->At(revision, &info) && MatchesFilters(range, info)) {
        Add(*item, info.revision);
        --left;
      }
      return left > 0;
    });
  }

  void Add(const Item& item, Revision revision) {
    SharedBytes record = store_.FindRecord(item, revision);
    if (record.has_value()) {
      found_.push_back({revision, std::move(record)});
    } else {
      missing_->push_back(revision);
    }
  }

  Store& store_;
  const bool want_prev_;
  std::vector<Revision>* const missing_;
  absl::InlinedVector<std::pair<Revision, SharedBytes>, 4> found_;
  size_t op_count_ = 0;
  bool may_delete_ = false;
};

// ---- checks and execution ----

class TxnRun {
 public:
  TxnRun(Store* store, bool want_prev, Reply* maybe_reply)
      : store_(*store), want_prev_(want_prev), reply_(maybe_reply) {}

  Outcome Run(const kw_txn& txn) {
    Decider(store_, nullptr).Decide(txn, &path_);
    next_ = 0;
    Outcome outcome = Check(txn);
    if (!outcome.ok()) {
      next_ = 0;
      if (kw_op_result ignored{}; mutant::Is(mutant::kPartialTxn)) Execute(txn, &ignored);
      store_.Commit();
      return outcome;
    }
    next_ = 0;
    kw_op_result root{};
    Execute(txn, &root);
    KW_CHECK(next_ == path_.size());
    store_.Commit();
    if (reply_ != nullptr) {
      reply_->succeeded = path_[0] ? 1 : 0;
      reply_->results = root.nested;
      reply_->result_count = root.nested_count;
      reply_->revision = store_.revision();
    }
    return {};
  }

 private:
  Outcome Check(const kw_txn& txn) {
    Branch branch = BranchOf(txn, path_[next_++]);
    for (size_t i = 0; i < branch.count; ++i) {
      Outcome outcome = CheckOp(branch.ops[i]);
      if (!outcome.ok()) return outcome;
    }
    return {};
  }

  Outcome CheckOp(const kw_op& op) {
    switch (op.kind) {
      case KW_OP_RANGE:
        return CheckRangeRevision(op.range->revision);
      case KW_OP_PUT:
        return CheckPut(op);
      case KW_OP_TXN:
        return Check(*op.txn);
      default:
        return {};
    }
  }

  // Inside a txn a negative revision counts as compacted, but for etcd's "never compacted", -1.
  Outcome CheckRangeRevision(int64_t revision) {
    if (revision == 0) return {};
    if (revision > store_.revision()) return Failure(KW_DETAIL_FUTURE_REVISION);
    int64_t first = store_.compact_revision() == 0 ? -1 : store_.compact_revision();
    if (mutant::Is(mutant::kTxnOfOwnState) && store_.compacting()) first = -1;
    return revision < first ? Failure(KW_DETAIL_COMPACTED) : Outcome();
  }

  Outcome CheckPut(const kw_op& op) {
    if (op.lease != 0 && !store_.leases()->Exists(op.lease)) return Failure(KW_DETAIL_LEASE_NOT_FOUND);
    if (op.flags & (KW_PUT_IGNORE_VALUE | KW_PUT_IGNORE_LEASE)) {
      const Item* item = store_.index().Find(ToView(op.key));
      if (item == nullptr || item->tombstone()) return Failure(KW_DETAIL_KEY_NOT_FOUND);
    }
    return {};
  }

  void Execute(const kw_txn& txn, kw_op_result* result) {
    bool then_side = path_[next_++];
    Branch branch = BranchOf(txn, then_side);
    kw_op_result* nested = nullptr;
    if (reply_ != nullptr) {
      nested = reply_->arena.NewArray<kw_op_result>(branch.count);
      result->kind = KW_OP_TXN;
      result->flags = then_side ? KW_RESULT_SUCCEEDED : 0;
      result->nested = nested;
      result->nested_count = branch.count;
    }
    kw_op_result ignored;
    for (size_t i = 0; i < branch.count; ++i) {
      const kw_op& op = branch.ops[i];
      kw_op_result* op_result = reply_ != nullptr ? &nested[i] : &ignored;
      op_result->kind = op.kind;
      if (mutant::Is(mutant::kPartialTxn) && op.kind != KW_OP_TXN && !CheckOp(op).ok()) return;
      switch (op.kind) {
        case KW_OP_RANGE:
          if (reply_ != nullptr) Range(*op.range, op_result);
          break;
        case KW_OP_PUT:
          Put(op, op_result);
          break;
        case KW_OP_DELETE:
          Delete(op, op_result);
          break;
        case KW_OP_TXN:
          Execute(*op.txn, op_result);
          break;
        default:
          break;  // Refused by CheckTxn(); in etcd an empty op does nothing.
      }
    }
  }

  void Range(const kw_range& range, kw_op_result* result) {
    int64_t revision = range.revision > 0 ? range.revision : store_.pending_revision();
    RangeScan scan(&store_, range, revision, reply_);
    for (;;) {
      RangeReader::Progress progress = scan.Step(std::numeric_limits<size_t>::max() / 8);
      KW_CHECK(progress != RangeReader::Progress::kBlocked);  // The caller provided all.
      if (progress == RangeReader::Progress::kDone) break;
    }
    scan.Finish(result);
  }

  void Put(const kw_op& op, kw_op_result* result) {
    std::string_view key = ToView(op.key), value = ToView(op.value);
    int64_t lease = op.lease;
    SharedBytes prev;
    if (op.flags & (KW_PUT_PREV_KV | KW_PUT_IGNORE_VALUE | KW_PUT_IGNORE_LEASE)) {
      const Item* item = store_.index().Find(key);
      bool exists = item != nullptr && !item->tombstone();
      if (exists && (op.flags & KW_PUT_IGNORE_LEASE)) lease = item->lease();
      if (exists && (op.flags & (KW_PUT_IGNORE_VALUE | KW_PUT_PREV_KV))) {
        prev = store_.FindRecord(*item, item->revision());
        KW_CHECK(prev.has_value());
      }
      if (prev.has_value() && (op.flags & KW_PUT_IGNORE_VALUE)) {
        RecordFields fields;
        KW_CHECK(DecodeRecord(prev.view(), &fields));
        value = fields.value;
      }
    }
    store_.Put(key, value, lease, want_prev_);
    if (reply_ == nullptr || !(op.flags & KW_PUT_PREV_KV) || !prev.has_value()) return;
    kw_slice* record = reply_->arena.New<kw_slice>();
    *record = prev.slice();
    reply_->held.push_back(std::move(prev));
    result->records = record;
    result->record_count = 1;
  }

  void Delete(const kw_op& op, kw_op_result* result) {
    std::vector<Item*> items;
    store_.index().ForEach(ToView(op.key), ToView(op.end), [&](Item* item) {
      if (!item->tombstone()) items.push_back(item);
      return true;
    });
    result->count = static_cast<int64_t>(items.size());
    if (items.empty()) return;
    if (reply_ != nullptr && (op.flags & KW_DELETE_PREV_KV)) {
      kw_slice* records = reply_->arena.NewArray<kw_slice>(items.size());
      for (size_t i = 0; i < items.size(); ++i) {
        SharedBytes record = store_.FindRecord(*items[i], items[i]->revision());
        KW_CHECK(record.has_value());
        records[i] = record.slice();
        reply_->held.push_back(std::move(record));
      }
      result->records = records;
      result->record_count = items.size();
    }
    for (Item* item : items) store_.Delete(item, want_prev_, /*detach=*/true);
  }

  Store& store_;
  const bool want_prev_;
  Reply* const reply_;
  Path path_;
  size_t next_ = 0;  // Of path_.
};

}  // namespace

void AppendMissing(Store* store, const kw_txn& txn, bool want_prev, std::vector<Revision>* missing) {
  MissingFinder(store, want_prev, missing).Run(txn);
}

Outcome RunTxn(Store* store, const kw_txn& txn, bool want_prev, Reply* maybe_reply) {
  return TxnRun(store, want_prev, maybe_reply).Run(txn);
}

}  // namespace keyway::mvcc
