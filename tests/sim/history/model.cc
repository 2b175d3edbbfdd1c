// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history/model.h"

#include <algorithm>
#include <map>
#include <utility>

#include "keyway/detail.h"
#include "keyway/kernel.h"

namespace keyway::sim {
namespace {

OpResult FinishRange(std::vector<KeyValue> pairs, const Op& op) {
  static const RangeOptions kNone;
  const RangeOptions& options = op.range == nullptr ? kNone : *op.range;
  OpResult result;
  result.kind = KW_OP_RANGE;
  result.count = static_cast<int64_t>(pairs.size());
  if ((options.flags & KW_RANGE_COUNT_ONLY) != 0) return result;
  const bool filters =
      options.mod_min != 0 || options.mod_max != 0 || options.create_min != 0 || options.create_max != 0;
  // etcd reads only one more than the limit, in key order, unless it has to look at all; so without an
  // order a target sorts what is left.
  if (options.limit > 0 && options.sort_order == KW_ORDER_NONE && !filters &&
      pairs.size() > static_cast<size_t>(options.limit) + 1) {
    pairs.resize(static_cast<size_t>(options.limit) + 1);
  }
  std::erase_if(pairs, [&](const KeyValue& pair) {
    return (options.mod_min != 0 && pair.mod_revision < options.mod_min) ||
           (options.mod_max != 0 && pair.mod_revision > options.mod_max) ||
           (options.create_min != 0 && pair.create_revision < options.create_min) ||
           (options.create_max != 0 && pair.create_revision > options.create_max);
  });
  // They are in key order. A target without an order means ascending, except for the key.
  auto sort_by = [&](auto field) {
    if (options.sort_order == KW_ORDER_DESCEND) {
      std::stable_sort(pairs.begin(), pairs.end(),
                       [&](const KeyValue& a, const KeyValue& b) { return field(b) < field(a); });
    } else {
      std::stable_sort(pairs.begin(), pairs.end(),
                       [&](const KeyValue& a, const KeyValue& b) { return field(a) < field(b); });
    }
  };
  switch (options.sort_target) {
    case KW_SORT_VERSION:
      sort_by([](const KeyValue& pair) { return pair.version; });
      break;
    case KW_SORT_CREATE:
      sort_by([](const KeyValue& pair) { return pair.create_revision; });
      break;
    case KW_SORT_MOD:
      sort_by([](const KeyValue& pair) { return pair.mod_revision; });
      break;
    case KW_SORT_VALUE:
      sort_by([](const KeyValue& pair) { return std::string_view(pair.value); });
      break;
    default:
      if (options.sort_order == KW_ORDER_DESCEND) std::reverse(pairs.begin(), pairs.end());
  }
  if (options.limit > 0 && pairs.size() > static_cast<size_t>(options.limit)) {
    pairs.resize(static_cast<size_t>(options.limit));
    result.more = true;
  }
  if ((options.flags & KW_RANGE_KEYS_ONLY) != 0) {
    for (KeyValue& pair : pairs) {
      pair.value.clear();
      // etcd leaves the lease out with the value, except where it has read the value to sort by it.
      if (options.sort_target != KW_SORT_VALUE) pair.lease = 0;
    }
  }
  result.pairs = std::move(pairs);
  return result;
}

class Run {
 public:
  Run(const VersionedMap& map, int64_t base) : map_(map), base_(base) {}

  Answer Do(const Txn& txn) {
    Answer answer;
    Decide(txn);
    size_t next = 0;
    answer.error = Check(txn, &next);
    if (answer.error != 0) return answer;
    next = 0;
    OpResult result = Execute(txn, &next);
    answer.succeeded = result.succeeded;
    answer.results = std::move(result.nested);
    answer.changes = std::move(changes_);
    return answer;
  }

 private:
  static int Order(int64_t a, int64_t b) { return a < b ? -1 : a > b ? 1 : 0; }

  static bool Holds(const Compare& compare, const KeyValue& pair) {
    int order = 0;
    switch (compare.target) {
      case KW_CMP_VERSION:
        order = Order(pair.version, compare.number);
        break;
      case KW_CMP_CREATE:
        order = Order(pair.create_revision, compare.number);
        break;
      case KW_CMP_MOD:
        order = Order(pair.mod_revision, compare.number);
        break;
      case KW_CMP_LEASE:
        order = Order(pair.lease, compare.number);
        break;
      case KW_CMP_VALUE:
        order = pair.value.compare(compare.value);
        break;
    }
    switch (compare.relation) {
      case KW_CMP_EQUAL:
        return order == 0;
      case KW_CMP_NOT_EQUAL:
        return order != 0;
      case KW_CMP_GREATER:
        return order > 0;
      default:
        return order < 0;
    }
  }

  bool Holds(const Compare& compare) const {
    const std::vector<const KeyValue*> pairs = map_.Range(compare.key, compare.end, base_);
    // What does not exist has zeros everywhere, and no value that could be compared.
    if (pairs.empty()) return compare.target != KW_CMP_VALUE && Holds(compare, KeyValue());
    return std::all_of(pairs.begin(), pairs.end(),
                       [&](const KeyValue* pair) { return Holds(compare, *pair); });
  }

  const std::vector<Op>& Branch(const Txn& txn, bool succeeded) const {
    return succeeded ? txn.then_ops : txn.else_ops;
  }

  // All compares are decided on the state before the txn.
  void Decide(const Txn& txn) {
    const bool succeeded = std::all_of(txn.compares.begin(), txn.compares.end(),
                                       [this](const Compare& compare) { return Holds(compare); });
    path_.push_back(succeeded);
    for (const Op& op : Branch(txn, succeeded)) {
      if (op.kind == KW_OP_TXN) Decide(*op.txn);
    }
  }

  // Leases and compactions are not of this model.
  uint32_t Check(const Txn& txn, size_t* next) const {
    const bool succeeded = path_[(*next)++];
    for (const Op& op : Branch(txn, succeeded)) {
      if (op.kind == KW_OP_RANGE && op.range != nullptr && op.range->revision > base_) {
        return KW_DETAIL_FUTURE_REVISION;
      }
      if (op.kind == KW_OP_PUT && (op.flags & (KW_PUT_IGNORE_VALUE | KW_PUT_IGNORE_LEASE)) != 0 &&
          map_.At(op.key, base_) == nullptr) {
        return KW_DETAIL_KEY_NOT_FOUND;
      }
      if (op.kind == KW_OP_TXN) {
        if (uint32_t error = Check(*op.txn, next)) return error;
      }
    }
    return 0;
  }

  OpResult Execute(const Txn& txn, size_t* next) {
    OpResult answer;
    answer.kind = KW_OP_TXN;
    answer.succeeded = path_[(*next)++];
    for (const Op& op : Branch(txn, answer.succeeded)) {
      switch (op.kind) {
        case KW_OP_RANGE: {
          const int64_t revision = op.range == nullptr ? 0 : op.range->revision;
          answer.nested.push_back(FinishRange(revision > 0 ? Old(op, revision) : Now(op.key, op.end), op));
          break;
        }
        case KW_OP_PUT:
          answer.nested.push_back(Put(op));
          break;
        case KW_OP_DELETE:
          answer.nested.push_back(Delete(op));
          break;
        default:
          answer.nested.push_back(Execute(*op.txn, next));
      }
    }
    return answer;
  }

  std::vector<KeyValue> Old(const Op& op, int64_t revision) const {
    std::vector<KeyValue> pairs;
    for (const KeyValue* pair : map_.Range(op.key, op.end, revision)) pairs.push_back(*pair);
    return pairs;
  }

  // The state with what this txn has done so far.
  std::vector<KeyValue> Now(std::string_view key, std::string_view end) const {
    std::vector<KeyValue> pairs;
    for (const KeyValue* pair : map_.Range(key, end, base_)) {
      if (!overlay_.contains(pair->key)) pairs.push_back(*pair);
    }
    const size_t of_map = pairs.size();
    for (const auto& [name, pair] : overlay_) {
      if (pair.version > 0 && InRange(name, key, end)) pairs.push_back(pair);
    }
    if (pairs.size() > of_map) {
      std::sort(pairs.begin(), pairs.end(),
                [](const KeyValue& a, const KeyValue& b) { return a.key < b.key; });
    }
    return pairs;
  }

  void Change(KeyValue pair, bool is_delete) {
    WatchEvent event;
    event.is_delete = is_delete;
    if (const KeyValue* before = map_.At(pair.key, base_)) event.prev = *before;
    overlay_[pair.key] = pair;
    event.pair = std::move(pair);
    changes_.push_back(std::move(event));
  }

  OpResult Put(const Op& op) {
    OpResult result;
    result.kind = KW_OP_PUT;
    const std::vector<KeyValue> before = Now(op.key, "");
    KeyValue pair{op.key, op.value, base_ + 1, base_ + 1, 1, op.lease};
    if (!before.empty()) {
      pair.create_revision = before[0].create_revision;
      pair.version = before[0].version + 1;
      if ((op.flags & KW_PUT_IGNORE_VALUE) != 0) pair.value = before[0].value;
      if ((op.flags & KW_PUT_IGNORE_LEASE) != 0) pair.lease = before[0].lease;
      if ((op.flags & KW_PUT_PREV_KV) != 0) result.pairs = before;
    }
    Change(std::move(pair), false);
    return result;
  }

  OpResult Delete(const Op& op) {
    OpResult result;
    result.kind = KW_OP_DELETE;
    std::vector<KeyValue> before = Now(op.key, op.end);
    result.count = static_cast<int64_t>(before.size());
    for (const KeyValue& pair : before) Change({.key = pair.key, .mod_revision = base_ + 1}, true);
    if ((op.flags & KW_DELETE_PREV_KV) != 0) result.pairs = std::move(before);
    return result;
  }

  const VersionedMap& map_;
  const int64_t base_;
  std::vector<bool> path_;  // The decision of each txn, in the order of running.
  std::map<std::string, KeyValue, std::less<>> overlay_;  // version 0: deleted.
  std::vector<WatchEvent> changes_;
};

bool HasWritten(const std::vector<OpResult>& results) {
  return std::any_of(results.begin(), results.end(), [](const OpResult& result) {
    return result.kind == KW_OP_PUT || (result.kind == KW_OP_DELETE && result.count > 0) ||
           HasWritten(result.nested);
  });
}

}  // namespace

Answer RunModel(const VersionedMap& map, const Txn& txn, int64_t base) { return Run(map, base).Do(txn); }

OpResult RunRange(const VersionedMap& map, const Op& op, int64_t revision) {
  std::vector<KeyValue> pairs;
  for (const KeyValue* pair : map.Range(op.key, op.end, revision)) pairs.push_back(*pair);
  return FinishRange(std::move(pairs), op);
}

std::vector<WatchEvent> DeleteKeys(const VersionedMap& map, const std::vector<std::string>& keys,
                                   int64_t base) {
  std::vector<WatchEvent> changes;
  for (const std::string& key : keys) {
    WatchEvent event;
    event.is_delete = true;
    event.pair = {.key = key, .mod_revision = base + 1};
    if (const KeyValue* before = map.At(key, base)) event.prev = *before;
    changes.push_back(std::move(event));
  }
  return changes;
}

bool HasWritten(const Request& request, const Response& response) {
  switch (request.kind) {
    case Kind::kPut:
      return true;
    case Kind::kDelete:
    case Kind::kTxn:
      return HasWritten(response.results);
    default:
      return false;
  }
}

void FindRangeRevisions(const Txn& txn, int64_t* least, int64_t* greatest) {
  for (const std::vector<Op>* ops : {&txn.then_ops, &txn.else_ops}) {
    for (const Op& op : *ops) {
      if (op.kind == KW_OP_TXN) FindRangeRevisions(*op.txn, least, greatest);
      if (op.kind != KW_OP_RANGE || op.range == nullptr || op.range->revision <= 0) continue;
      *least = *least == 0 ? op.range->revision : std::min(*least, op.range->revision);
      *greatest = std::max(*greatest, op.range->revision);
    }
  }
}

}  // namespace keyway::sim
