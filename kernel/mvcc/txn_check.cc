// SPDX-License-Identifier: Apache-2.0
//
// The checks of a request that need no state, in etcd's order. Source: etcd 3.7
// server/etcdserver/api/v3rpc/key.go (checkTxnRequest, checkIntervals).
#include <algorithm>
#include <compare>
#include <iterator>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "kernel/mvcc/mvcc.h"

namespace keyway::mvcc {
namespace {

Outcome CheckPut(const kw_op& op) {
  if (op.key.len == 0) return Failure(KW_DETAIL_EMPTY_KEY);
  if ((op.flags & KW_PUT_IGNORE_VALUE) && op.value.len != 0) {
    return Failure(KW_DETAIL_VALUE_PROVIDED);
  }
  if ((op.flags & KW_PUT_IGNORE_LEASE) && op.lease != 0) return Failure(KW_DETAIL_LEASE_PROVIDED);
  return {};
}

Outcome CheckOps(const kw_txn& txn, size_t ops_max);

Outcome CheckOp(const kw_op& op, size_t ops_max) {
  switch (op.kind) {
    case KW_OP_RANGE:
      return Mvcc::CheckRange(*op.range);
    case KW_OP_PUT:
      return CheckPut(op);
    case KW_OP_DELETE:
      return op.key.len == 0 ? Failure(KW_DETAIL_EMPTY_KEY) : Outcome();
    case KW_OP_TXN:
      return CheckOps(*op.txn, ops_max);
    default:
      return Failure(KW_DETAIL_KEY_NOT_FOUND);
  }
}

Outcome CheckOps(const kw_txn& txn, size_t ops_max) {
  size_t count = std::max(txn.cmp_count, std::max(txn.then_count, txn.else_count));
  if (count > ops_max) return Failure(KW_DETAIL_TOO_MANY_OPS);
  for (size_t i = 0; i < txn.cmp_count; ++i) {
    if (txn.cmps[i].key.len == 0) return Failure(KW_DETAIL_EMPTY_KEY);
  }
  // A nested txn has what this level leaves, so the depth of the recursion is at most ops_max.
  for (size_t i = 0; i < txn.then_count; ++i) {
    if (Outcome o = CheckOp(txn.then_ops[i], ops_max - count); !o.ok()) return o;
  }
  for (size_t i = 0; i < txn.else_count; ++i) {
    if (Outcome o = CheckOp(txn.else_ops[i], ops_max - count); !o.ok()) return o;
  }
  return {};
}

// The end of an interval: before `key`, or just after it.
struct End {
  std::string_view key;
  bool after;
  friend auto operator<=>(const End&, const End&) = default;
};

// A set of keys as disjoint intervals.
class Intervals {
 public:
  // As etcd has it, an end of one byte 0 is no end here but a key, so that such a delete overlaps
  // nothing, like one whose end is below its begin.
  void AddDelete(const kw_op& op) {
    std::string_view begin = ToView(op.key), end = ToView(op.end);
    Add(begin, end.empty() ? End{begin, true} : End{end, false});
  }
  void Add(std::string_view begin, End end) {
    if (end <= End{begin, false}) return;
    auto at = intervals_.upper_bound(begin);
    if (at != intervals_.begin()) {
      auto before = std::prev(at);
      if (End{begin, false} <= before->second) {
        begin = before->first;
        end = std::max(end, before->second);
        at = intervals_.erase(before);
      }
    }
    while (at != intervals_.end() && End{at->first, false} <= end) {
      end = std::max(end, at->second);
      at = intervals_.erase(at);
    }
    intervals_.emplace(begin, end);
  }
  bool Contains(std::string_view key) const {
    auto at = intervals_.upper_bound(key);
    return at != intervals_.begin() && End{key, false} < std::prev(at)->second;
  }
  void Merge(Intervals other) {
    if (other.intervals_.size() > intervals_.size()) std::swap(intervals_, other.intervals_);
    for (const auto& [begin, end] : other.intervals_) Add(begin, end);
  }

 private:
  absl::btree_map<std::string_view, End> intervals_;
};

struct Written {
  absl::btree_set<std::string_view> puts;
  Intervals deletes;
};

void MergePuts(absl::btree_set<std::string_view> from, absl::btree_set<std::string_view>* to) {
  if (from.size() > to->size()) std::swap(from, *to);
  to->insert(from.begin(), from.end());
}

Outcome CheckOverlaps(const kw_op* ops, size_t count, Written* written);

// The branches of one nested txn against what the level of `written` has so far.
Outcome CheckNested(const kw_txn& txn, Written* written) {
  Written then_side, else_side;
  if (Outcome o = CheckOverlaps(txn.then_ops, txn.then_count, &then_side); !o.ok()) return o;
  if (Outcome o = CheckOverlaps(txn.else_ops, txn.else_count, &else_side); !o.ok()) return o;
  for (const Written* side : {&then_side, &else_side}) {
    for (std::string_view key : side->puts) {
      if (written->puts.contains(key) || written->deletes.Contains(key)) {
        return Failure(KW_DETAIL_DUPLICATE_KEY);
      }
    }
  }
  MergePuts(std::move(then_side.puts), &written->puts);
  MergePuts(std::move(else_side.puts), &written->puts);
  written->deletes.Merge(std::move(then_side.deletes));
  written->deletes.Merge(std::move(else_side.deletes));
  return {};
}

// No key may be put twice, or put and deleted, by one run of these ops. `written` gets their keys.
Outcome CheckOverlaps(const kw_op* ops, size_t count, Written* written) {
  for (size_t i = 0; i < count; ++i) {
    if (ops[i].kind == KW_OP_DELETE) written->deletes.AddDelete(ops[i]);
  }
  for (size_t i = 0; i < count; ++i) {
    if (ops[i].kind != KW_OP_TXN) continue;
    if (Outcome o = CheckNested(*ops[i].txn, written); !o.ok()) return o;
  }
  for (size_t i = 0; i < count; ++i) {
    if (ops[i].kind != KW_OP_PUT) continue;
    std::string_view key = ToView(ops[i].key);
    if (written->deletes.Contains(key) || !written->puts.insert(key).second) {
      return Failure(KW_DETAIL_DUPLICATE_KEY);
    }
  }
  return {};
}

// Without building sets: at most one writing op, and no nested one.
bool CannotOverlap(const kw_op* ops, size_t count) {
  size_t writing = 0;
  for (size_t i = 0; i < count; ++i) {
    if (ops[i].kind == KW_OP_TXN) return false;
    if (ops[i].kind != KW_OP_RANGE) ++writing;
  }
  return writing <= 1;
}

Outcome CheckBranch(const kw_op* ops, size_t count) {
  if (CannotOverlap(ops, count)) return {};
  Written written;
  return CheckOverlaps(ops, count, &written);
}

}  // namespace

Outcome Mvcc::CheckRange(const kw_range& range) {
  if (range.key.len == 0) return Failure(KW_DETAIL_EMPTY_KEY);
  if (range.sort_order > KW_ORDER_DESCEND || range.sort_target > KW_SORT_VALUE) {
    return Failure(KW_DETAIL_INVALID_SORT_OPTION);
  }
  return {};
}

Outcome Mvcc::CheckTxn(const kw_txn& txn, bool plain, size_t max_txn_ops) {
  if (plain && txn.cmp_count == 0 && txn.then_count == 1 && txn.else_count == 0) {
    return CheckOp(txn.then_ops[0], max_txn_ops);
  }
  if (Outcome o = CheckOps(txn, max_txn_ops); !o.ok()) return o;
  if (Outcome o = CheckBranch(txn.then_ops, txn.then_count); !o.ok()) return o;
  return CheckBranch(txn.else_ops, txn.else_count);
}

}  // namespace keyway::mvcc
