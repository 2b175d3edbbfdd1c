// SPDX-License-Identifier: Apache-2.0
//
// The model of the random test: every version in a plain map, never compacted, and etcd's code followed
// step by step (server/etcdserver/txn), slow and plain.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/mvcc/test_support.h"

namespace keyway::mvcc {

inline bool InRange(std::string_view key, std::string_view begin, std::string_view end) {
  if (end.empty()) return key == begin;
  if (end == std::string_view("\0", 1)) return key >= begin;
  return key >= begin && key < end;
}

struct RangeAnswer {
  std::vector<Pair> pairs;
  int64_t count = 0;
  bool more = false;
  friend bool operator==(const RangeAnswer&, const RangeAnswer&) = default;
};

struct OpAnswer {
  uint32_t kind = 0;
  RangeAnswer range;
  std::vector<Pair> prev;
  int64_t deleted = 0;
  bool succeeded = false;
  std::vector<OpAnswer> nested;
  friend bool operator==(const OpAnswer&, const OpAnswer&) = default;
};

inline std::ostream& operator<<(std::ostream& out, const OpAnswer& answer) {
  out << "kind " << answer.kind << " count " << answer.range.count << " more " << answer.range.more
      << " deleted " << answer.deleted << " succeeded " << answer.succeeded << " [";
  for (const Pair& pair : answer.range.pairs) out << pair;
  out << "] prev [";
  for (const Pair& pair : answer.prev) out << pair;
  out << "] nested (";
  for (const OpAnswer& nested : answer.nested) out << nested;
  return out << ")";
}

// The whole history, never compacted.
class Model {
 public:
  struct Version {
    Revision revision;
    bool tombstone = false;
    Pair pair;
  };

  int64_t revision = 1;
  int64_t compacted = 0;
  std::map<std::string, std::vector<Version>> keys;
  std::map<std::string, int64_t> leases;

  std::optional<Pair> At(const std::string& key, int64_t main) const {
    auto at = keys.find(key);
    if (at == keys.end()) return std::nullopt;
    const Version* seen = nullptr;
    for (const Version& version : at->second) {
      if (version.revision.main <= main) seen = &version;
    }
    if (seen == nullptr || seen->tombstone) return std::nullopt;
    return seen->pair;
  }

  std::vector<Pair> All(std::string_view begin, std::string_view end, int64_t main) const {
    std::vector<Pair> pairs;
    for (const auto& [key, versions] : keys) {
      if (!InRange(key, begin, end)) continue;
      if (std::optional<Pair> pair = At(key, main)) pairs.push_back(*pair);
    }
    return pairs;
  }

  // executeRange() of etcd.
  RangeAnswer Range(const kw_range& r, int64_t main) const {
    RangeAnswer answer;
    std::vector<Pair> pairs = All(ToView(r.key), ToView(r.end), main);
    answer.count = static_cast<int64_t>(pairs.size());
    if (r.flags & KW_RANGE_COUNT_ONLY) return answer;
    bool filters = r.mod_min || r.mod_max || r.create_min || r.create_max;
    bool default_order =
        r.sort_order == KW_ORDER_NONE || (r.sort_target == KW_SORT_KEY && r.sort_order == KW_ORDER_ASCEND);
    if (r.limit > 0 && default_order && !filters && pairs.size() > static_cast<size_t>(r.limit) + 1) {
      pairs.resize(static_cast<size_t>(r.limit) + 1);
    }
    std::erase_if(pairs, [&](const Pair& p) {
      return (r.mod_max != 0 && p.mod > r.mod_max) || (r.mod_min != 0 && p.mod < r.mod_min) ||
             (r.create_max != 0 && p.create > r.create_max) || (r.create_min != 0 && p.create < r.create_min);
    });
    auto less = [&](const Pair& a, const Pair& b) {
      switch (r.sort_target) {
        case KW_SORT_VERSION:
          return a.version < b.version;
        case KW_SORT_CREATE:
          return a.create < b.create;
        case KW_SORT_MOD:
          return a.mod < b.mod;
        case KW_SORT_VALUE:
          return a.value < b.value;
        default:
          return a.key < b.key;
      }
    };
    if (r.sort_order == KW_ORDER_DESCEND) {
      std::stable_sort(pairs.begin(), pairs.end(), [&](const Pair& a, const Pair& b) { return less(b, a); });
    } else {
      std::stable_sort(pairs.begin(), pairs.end(), less);
    }
    if (r.limit > 0 && pairs.size() > static_cast<size_t>(r.limit)) {
      pairs.resize(static_cast<size_t>(r.limit));
      answer.more = true;
    }
    if (r.flags & KW_RANGE_KEYS_ONLY) {
      for (Pair& pair : pairs) {
        pair.value.clear();
        if (r.sort_target != KW_SORT_VALUE) pair.lease = 0;
      }
    }
    answer.pairs = std::move(pairs);
    return answer;
  }

  // Returns the detail of the failure, 0 if none.
  uint32_t Apply(const kw_txn& txn, const std::set<int64_t>& known_leases, OpAnswer* answer) {
    std::vector<bool> path;
    Decide(txn, &path);
    size_t next = 0;
    if (uint32_t detail = Check(txn, known_leases, path, &next)) return detail;
    next = 0;
    sub_ = 0;
    *answer = Run(txn, path, &next);
    if (sub_ > 0) ++revision;
    return 0;
  }

  void Delete(const std::string& key, bool detach) {
    keys[key].push_back({{revision + 1, sub_++}, true, {.key = key, .mod = revision + 1}});
    if (detach) leases.erase(key);
  }
  size_t DeleteKeys(const std::vector<std::string_view>& list) {
    sub_ = 0;
    for (std::string_view key : list) {
      if (At(std::string(key), revision + 1)) Delete(std::string(key), false);
    }
    if (sub_ > 0) ++revision;
    return static_cast<size_t>(sub_);
  }

  // What the engine holds after the compaction.
  std::map<Revision, Pair> Kept() const {
    std::map<Revision, Pair> kept;
    for (const auto& [key, versions] : keys) {
      for (size_t i = 0; i < versions.size(); ++i) {
        const Version& version = versions[i];
        bool newest = i + 1 == versions.size() || versions[i + 1].revision.main > compacted;
        if (version.revision.main <= compacted &&
            (!newest || (version.tombstone && version.revision.main < compacted))) {
          continue;
        }
        kept[version.revision] = version.pair;
      }
    }
    return kept;
  }

 private:
  int64_t Now() const { return revision + (sub_ > 0 ? 1 : 0); }

  static bool Compare(const kw_cmp& cmp, const Pair& pair) {
    int order = 0;
    auto by = [&](int64_t a) { return a < cmp.number ? -1 : a > cmp.number ? 1 : 0; };
    if (cmp.target == KW_CMP_VERSION) order = by(pair.version);
    if (cmp.target == KW_CMP_CREATE) order = by(pair.create);
    if (cmp.target == KW_CMP_MOD) order = by(pair.mod);
    if (cmp.target == KW_CMP_LEASE) order = by(pair.lease);
    if (cmp.target == KW_CMP_VALUE) order = pair.value.compare(ToView(cmp.value));
    if (cmp.relation == KW_CMP_EQUAL) return order == 0;
    if (cmp.relation == KW_CMP_NOT_EQUAL) return order != 0;
    return cmp.relation == KW_CMP_GREATER ? order > 0 : order < 0;
  }

  void Decide(const kw_txn& txn, std::vector<bool>* path) {
    bool yes = true;
    for (size_t i = 0; i < txn.cmp_count; ++i) {
      const kw_cmp& cmp = txn.cmps[i];
      std::vector<Pair> pairs = All(ToView(cmp.key), ToView(cmp.end), revision);
      if (pairs.empty()) {
        if (cmp.target == KW_CMP_VALUE || !Compare(cmp, Pair())) yes = false;
      }
      for (const Pair& pair : pairs) {
        if (!Compare(cmp, pair)) yes = false;
      }
    }
    path->push_back(yes);
    const kw_op* ops = yes ? txn.then_ops : txn.else_ops;
    for (size_t i = 0; i < (yes ? txn.then_count : txn.else_count); ++i) {
      if (ops[i].kind == KW_OP_TXN) Decide(*ops[i].txn, path);
    }
  }

  uint32_t Check(const kw_txn& txn, const std::set<int64_t>& known, const std::vector<bool>& path,
                 size_t* next) {
    bool yes = path[(*next)++];
    const kw_op* ops = yes ? txn.then_ops : txn.else_ops;
    for (size_t i = 0; i < (yes ? txn.then_count : txn.else_count); ++i) {
      const kw_op& op = ops[i];
      if (op.kind == KW_OP_RANGE && op.range->revision > revision) return KW_DETAIL_FUTURE_REVISION;
      if (op.kind == KW_OP_RANGE && op.range->revision != 0 &&
          op.range->revision < (compacted == 0 ? -1 : compacted)) {
        return KW_DETAIL_COMPACTED;
      }
      if (op.kind == KW_OP_PUT) {
        if (op.lease != 0 && !known.contains(op.lease)) return KW_DETAIL_LEASE_NOT_FOUND;
        if ((op.flags & (KW_PUT_IGNORE_VALUE | KW_PUT_IGNORE_LEASE)) &&
            !At(std::string(ToView(op.key)), revision)) {
          return KW_DETAIL_KEY_NOT_FOUND;
        }
      }
      if (op.kind == KW_OP_TXN) {
        if (uint32_t detail = Check(*op.txn, known, path, next)) return detail;
      }
    }
    return 0;
  }

  OpAnswer Run(const kw_txn& txn, const std::vector<bool>& path, size_t* next) {
    OpAnswer answer{.kind = KW_OP_TXN};
    answer.succeeded = path[(*next)++];
    const kw_op* ops = answer.succeeded ? txn.then_ops : txn.else_ops;
    for (size_t i = 0; i < (answer.succeeded ? txn.then_count : txn.else_count); ++i) {
      const kw_op& op = ops[i];
      OpAnswer one{.kind = op.kind};
      if (op.kind == KW_OP_RANGE) {
        one.range = Range(*op.range, op.range->revision > 0 ? op.range->revision : Now());
      } else if (op.kind == KW_OP_PUT) {
        Put(op, &one);
      } else if (op.kind == KW_OP_DELETE) {
        std::vector<Pair> pairs = All(ToView(op.key), ToView(op.end), Now());
        one.deleted = static_cast<int64_t>(pairs.size());
        for (const Pair& pair : pairs) Delete(pair.key, true);
        if (op.flags & KW_DELETE_PREV_KV) one.prev = pairs;
      } else {
        one = Run(*op.txn, path, next);
      }
      answer.nested.push_back(std::move(one));
    }
    return answer;
  }

  void Put(const kw_op& op, OpAnswer* answer) {
    std::string key(ToView(op.key)), value(ToView(op.value));
    int64_t lease = op.lease;
    std::optional<Pair> prev = At(key, Now());
    if (prev && (op.flags & KW_PUT_IGNORE_VALUE)) value = prev->value;
    if (prev && (op.flags & KW_PUT_IGNORE_LEASE)) lease = prev->lease;
    if (prev && (op.flags & KW_PUT_PREV_KV)) answer->prev.push_back(*prev);
    Pair pair{key,  value, prev ? prev->create : revision + 1, revision + 1, prev ? prev->version + 1 : 1,
              lease};
    keys[key].push_back({{revision + 1, sub_++}, false, pair});
    if (lease != 0) {
      leases[key] = lease;
    } else {
      leases.erase(key);
    }
  }

  int32_t sub_ = 0;
};

}  // namespace keyway::mvcc
