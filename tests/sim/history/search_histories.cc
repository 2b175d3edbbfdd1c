// SPDX-License-Identifier: Apache-2.0
//
// CheckBySearch(): what a history says about one key, or about one lease, as operations on a register,
// revisions left out. What several keys have in common is lost, so this finds less than CheckStrict(); but
// it rests on nothing that CheckStrict() rests on, except who ended a lease and when.
#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "keyway/detail.h"
#include "keyway/kernel.h"
#include "tests/sim/history/checkers.h"
#include "tests/sim/history/describe.h"
#include "tests/sim/history/search_checker.h"

namespace keyway::sim {
namespace {

using Steps = std::vector<SearchStep>;
constexpr uint64_t kAbsent = 0;
constexpr uint64_t kAlive = 1, kGone = 2;  // Of a lease; 0: not granted yet.

SearchStep Expect(uint64_t value) { return {SearchStep::Kind::kExpect, value}; }
SearchStep ExpectNot(uint64_t value) { return {SearchStep::Kind::kExpectNot, value}; }
SearchStep Set(uint64_t value) { return {SearchStep::Kind::kSet, value}; }

class BySearch {
 public:
  BySearch(const History& history, const Order& order, uint64_t steps_max)
      : history_(history), order_(order), steps_max_(steps_max) {}

  Findings Run() {
    for (size_t i = 0; i < history_.operations.size(); ++i) CollectKeys(history_.operations[i].request.txn);
    for (size_t i = 0; i < history_.operations.size(); ++i) Split(i);
    AddExpiries();
    for (auto& [key, found] : keys_) SearchOne("key " + Quote(key), found.operations);
    for (auto& [lease, operations] : leases_) SearchOne("lease " + std::to_string(lease), operations);
    return report_.Take();
  }

 private:
  // ---- keys ----

  struct Key {
    std::vector<SearchOperation> operations;
    Steps steps;  // Of the operation that is being split.
  };
  using Keys = std::map<std::string, Key, std::less<>>;

  void CollectKeys(const Txn& txn) {
    for (const std::vector<Op>* ops : {&txn.then_ops, &txn.else_ops}) {
      for (const Op& op : *ops) {
        if (op.kind == KW_OP_PUT) keys_[op.key];
        if (op.kind == KW_OP_TXN) CollectKeys(*op.txn);
      }
    }
  }

  uint64_t Number(const std::string& value) {
    return values_.emplace(value, values_.size() + 1).first->second;
  }

  void Split(size_t index) {
    const Operation& operation = history_.operations[index];
    const Request& request = operation.request;
    switch (request.kind) {
      case Kind::kPut:
      case Kind::kDelete:
      case Kind::kRange:
      case Kind::kTxn:
        if (operation.outcome == Outcome::kOk && !request.serializable) SplitAnswered(index);
        if (operation.outcome == Outcome::kUnknown && request.kind != Kind::kRange) SplitUnknown(index);
        if (request.kind == Kind::kPut && request.txn.then_ops[0].lease != 0) AddLeasePut(index);
        return;
      case Kind::kCompact:
        return;
      case Kind::kLeaseRevoke:
        AddRevoke(index);
        return AddLease(index);
      case Kind::kLeaseGrant:
      case Kind::kLeaseKeepAlive:
      case Kind::kLeaseTimeToLive:
        return AddLease(index);
    }
  }

  void SplitAnswered(size_t index) {
    const Operation& operation = history_.operations[index];
    const Request& request = operation.request;
    const bool then = request.kind != Kind::kTxn || operation.response.succeeded;
    touched_.clear();
    AddSteps(then ? request.txn.then_ops : request.txn.else_ops, operation.response.results);
    for (Key* key : touched_) {
      if (key->steps.empty()) continue;  // Was there twice.
      SearchOperation& added = key->operations.emplace_back();
      added.call_ns = operation.call_ns;
      added.return_ns = operation.return_ns;
      added.alternatives.push_back(std::exchange(key->steps, {}));
      added.tag = index;
    }
  }

  Steps& StepsOf(Key* key) {
    if (key->steps.empty()) touched_.push_back(key);
    return key->steps;
  }

  void AddSteps(const std::vector<Op>& ops, const std::vector<OpResult>& results) {
    for (size_t i = 0; i < ops.size() && i < results.size(); ++i) {
      const Op& op = ops[i];
      const OpResult& result = results[i];
      if (op.kind == KW_OP_TXN) {
        AddSteps(result.succeeded ? op.txn->then_ops : op.txn->else_ops, result.nested);
      } else if (op.kind == KW_OP_PUT) {
        Key* const key = &keys_.find(op.key)->second;  // CollectKeys() has made it.
        if ((op.flags & KW_PUT_PREV_KV) != 0) {
          StepsOf(key).push_back(Expect(result.pairs.empty() ? kAbsent : Number(result.pairs[0].value)));
        }
        Steps& list = StepsOf(key);
        if ((op.flags & KW_PUT_IGNORE_VALUE) == 0) {
          list.push_back(Set(Number(op.value)));
        } else if (!list.empty() && list.back().kind != SearchStep::Kind::kExpectNot &&
                   list.back().value == kAbsent) {
          list.push_back(Set(Number("")));  // This txn has deleted it before.
        }
      } else if (op.kind == KW_OP_DELETE) {
        if ((op.flags & KW_DELETE_PREV_KV) != 0) ExpectPairs(op, result);
        ForKeys(op, [&](Keys::value_type& key) { StepsOf(&key.second).push_back(Set(kAbsent)); });
      } else if (IsPlain(op)) {
        ExpectPairs(op, result);
      }
    }
  }

  static bool IsPlain(const Op& op) {
    if (op.range == nullptr) return true;
    const RangeOptions& range = *op.range;
    return range.revision <= 0 && range.limit == 0 && range.mod_min == 0 && range.mod_max == 0 &&
           range.create_min == 0 && range.create_max == 0 && range.flags == 0;
  }

  template <typename Visit>
  void ForKeys(const Op& op, Visit visit) {
    if (op.end.empty()) {
      if (auto at = keys_.find(op.key); at != keys_.end()) visit(*at);
      return;
    }
    for (auto at = keys_.lower_bound(op.key); at != keys_.end(); ++at) {
      if (!InRange(at->first, op.key, op.end)) return;  // The keys behind it are not, either.
      visit(*at);
    }
  }

  void ExpectPairs(const Op& op, const OpResult& result) {
    found_.clear();
    for (const KeyValue& pair : result.pairs) found_.push_back(&pair);
    const auto less = [](const KeyValue* a, const KeyValue* b) { return a->key < b->key; };
    if (!std::is_sorted(found_.begin(), found_.end(), less)) {
      std::stable_sort(found_.begin(), found_.end(), less);
    }
    auto next = found_.begin();
    ForKeys(op, [&](Keys::value_type& key) {
      while (next != found_.end() && (*next)->key < key.first) ++next;
      const bool exists = next != found_.end() && (*next)->key == key.first;
      StepsOf(&key.second).push_back(Expect(exists ? Number((*next)->value) : kAbsent));
    });
  }

  // It may have happened at any time from its call on, in one branch or the other: each of its writes by
  // itself, which allows more than it could have done.
  void SplitUnknown(size_t index) { AddUnknown(history_.operations[index].request.txn, index); }

  void AddUnknown(const Txn& txn, size_t index) {
    auto add = [&](Keys::value_type& key, uint64_t value) {
      key.second.operations.push_back({history_.operations[index].call_ns, kNever, {{Set(value)}}, index});
    };
    for (const std::vector<Op>* ops : {&txn.then_ops, &txn.else_ops}) {
      for (const Op& op : *ops) {
        if (op.kind == KW_OP_TXN) AddUnknown(*op.txn, index);
        if (op.kind == KW_OP_PUT) add(*keys_.find(op.key), Number(op.value));  // Or to keep it: AddSteps().
        if (op.kind == KW_OP_DELETE) ForKeys(op, [&](Keys::value_type& key) { add(key, kAbsent); });
      }
    }
  }

  // A revocation deletes the keys that are attached; which, the client does not know.
  void AddRevoke(size_t index) {
    const Operation& operation = history_.operations[index];
    if (operation.outcome == Outcome::kError) return;
    for (int64_t revision = Order::kFirstRevision; revision <= order_.last(); ++revision) {
      const Revision& made = order_.at(revision);
      if (made.writer == Writer::kOperation && made.operation == index) AddDeletes(made, operation.call_ns);
    }
  }
  void AddExpiries() {
    for (const Revision& made : order_.revisions) {
      if (made.writer != Writer::kLeaseExpiry) continue;
      AddDeletes(made, 0);
      leases_[made.lease].push_back({0, kNever, {{Expect(kAlive), Set(kGone)}}, SIZE_MAX});
    }
    // A lease without keys ends without a trace.
    for (auto& [lease, operations] : leases_) {
      operations.push_back({0, kNever, {{Expect(kAlive), Set(kGone)}}, SIZE_MAX});
    }
  }
  void AddDeletes(const Revision& made, int64_t call_ns) {
    for (const WatchEvent& change : made.changes) {
      auto at = keys_.find(change.pair.key);
      if (at != keys_.end()) at->second.operations.push_back({call_ns, kNever, {{Set(kAbsent)}}, SIZE_MAX});
    }
  }

  // ---- leases ----

  void AddLease(size_t index) {
    const Operation& operation = history_.operations[index];
    const bool ok = operation.outcome == Outcome::kOk;
    const int64_t ttl_s = operation.response.lease_ttl_s;
    const bool missing =
        operation.outcome == Outcome::kError && operation.detail == KW_DETAIL_LEASE_NOT_FOUND;
    Steps steps;
    switch (operation.request.kind) {
      case Kind::kLeaseGrant:
        if (operation.outcome == Outcome::kError) return;
        steps = {Expect(0), Set(kAlive)};
        break;
      case Kind::kLeaseRevoke:
        if (operation.outcome == Outcome::kError && !missing) return;
        steps = missing ? Steps{ExpectNot(kAlive)} : Steps{Expect(kAlive), Set(kGone)};
        break;
      case Kind::kLeaseKeepAlive:
        if (!ok || ttl_s <= 0) return;  // It may have run out on one leader only.
        steps = {Expect(kAlive)};
        break;
      default:
        if (!ok) return;
        steps = {ttl_s >= 0 ? Expect(kAlive) : ExpectNot(kAlive)};
    }
    const bool unknown = operation.outcome == Outcome::kUnknown;
    leases_[operation.request.lease].push_back(
        {operation.call_ns, unknown ? kNever : operation.return_ns, {std::move(steps)}, index});
  }

  void AddLeasePut(size_t index) {
    const Operation& operation = history_.operations[index];
    const bool ok = operation.outcome == Outcome::kOk;
    const bool missing =
        operation.outcome == Outcome::kError && operation.detail == KW_DETAIL_LEASE_NOT_FOUND;
    if (!ok && !missing) return;
    leases_[operation.request.txn.then_ops[0].lease].push_back(
        {operation.call_ns, operation.return_ns, {{ok ? Expect(kAlive) : ExpectNot(kAlive)}}, index});
  }

  // ---- the search ----

  void SearchOne(const std::string& what, std::vector<SearchOperation>& operations) {
    if (report_.full()) return;
    DropUnread(&operations);
    const SearchResult result = SearchLinearization(operations, steps_max_);
    if (result.verdict != SearchVerdict::kNotLinearizable) return;
    const size_t tag = operations[result.stuck_at].tag;
    report_.Add(what + ": no order of its " + std::to_string(operations.size()) +
                " operations explains the answers; stuck at " +
                (tag == SIZE_MAX ? std::string("the end of a lease") : Describe(history_.operations[tag])));
  }

  // An unknown write of a value that nobody has read is as good as one that never happened, and would only
  // make the search longer. No step asks whether a key exists without its value, so this is sound.
  static void DropUnread(std::vector<SearchOperation>* operations) {
    std::set<uint64_t> read;
    for (const SearchOperation& operation : *operations) {
      for (const Steps& steps : operation.alternatives) {
        for (const SearchStep& step : steps) {
          if (step.kind == SearchStep::Kind::kExpect) read.insert(step.value);
        }
      }
    }
    std::erase_if(*operations, [&](const SearchOperation& operation) {
      if (operation.return_ns != kNever) return false;
      const SearchStep& last = operation.alternatives[0].back();
      return last.kind == SearchStep::Kind::kSet && last.value > kGone && !read.contains(last.value);
    });
  }

  const History& history_;
  const Order& order_;
  const uint64_t steps_max_;
  Report report_{"search"};
  Keys keys_;
  std::vector<Key*> touched_;  // With steps.
  std::vector<const KeyValue*> found_;
  std::map<int64_t, std::vector<SearchOperation>> leases_;
  std::unordered_map<std::string, uint64_t> values_;
};

}  // namespace

Findings CheckBySearch(const History& history, const Order& order, uint64_t steps_max) {
  return BySearch(history, order, steps_max).Run();
}

Findings CheckAll(const History& history, const CheckOptions& options) {
  Order order;
  Findings findings = CheckStrict(history, &order);
  if (!findings.empty()) return findings;
  findings = CheckWatches(history, order);
  Findings more = CheckLeases(history, order, options.leases);
  findings.insert(findings.end(), more.begin(), more.end());
  if (options.search_steps_max > 0) {
    more = CheckBySearch(history, order, options.search_steps_max);
    findings.insert(findings.end(), more.begin(), more.end());
  }
  return findings;
}

}  // namespace keyway::sim
