// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history/mutations.h"

#include <algorithm>
#include <utility>

#include "keyway/detail.h"
#include "keyway/kernel.h"
#include "tests/sim/history/model.h"
#include "tests/sim/history/mutation_places.h"

namespace keyway::sim {
namespace {

bool IsPlainRange(const Operation& operation) {
  return operation.request.kind == Kind::kRange && !operation.request.serializable &&
         operation.request.txn.then_ops[0].range == nullptr;
}
bool HasPairs(const Operation& operation) {
  return IsPlainRange(operation) && !operation.response.results[0].pairs.empty();
}

// The greatest revision that an operation had told of when this one was called.
int64_t SeenBefore(const History& history, const Operation& operation) {
  int64_t seen = 1;
  for (const Operation& other : history.operations) {
    if (other.outcome == Outcome::kOk && other.return_ns < operation.call_ns &&
        other.request.kind != Kind::kLeaseKeepAlive && other.request.kind != Kind::kLeaseTimeToLive) {
      seen = std::max(seen, other.response.revision);
    }
  }
  return seen;
}

void AnswerAt(Operation* operation, const Order& order, int64_t revision) {
  operation->response.revision = revision;
  operation->response.results = {RunRange(order.map, operation->request.txn.then_ops[0], revision)};
}

// ---- replies ----

bool StaleRead(History* history, const Order& order, HistoryRandom* random) {
  Operation* operation = PickOperation(history, random, [&](const Operation& candidate) {
    return IsPlainRange(candidate) && SeenBefore(*history, candidate) > 5;
  });
  if (operation == nullptr) return false;
  AnswerAt(operation, order, SeenBefore(*history, *operation) - random->Between(1, 3));
  return true;
}

bool FutureRead(History* history, const Order& order, HistoryRandom* random) {
  Operation* operation = PickOperation(history, random, [&](const Operation& candidate) {
    return IsPlainRange(candidate) && candidate.return_ns < order.not_before_ns.back();
  });
  if (operation == nullptr) return false;
  auto after = std::upper_bound(order.not_before_ns.begin(), order.not_before_ns.end(), operation->return_ns);
  AnswerAt(operation, order, Order::kFirstRevision + (after - order.not_before_ns.begin()));
  return true;
}

bool DuplicateRevision(History* history, const Order&, HistoryRandom* random) {
  auto is_put = [](const Operation& operation) { return operation.request.kind == Kind::kPut; };
  Operation* a = PickOperation(history, random, is_put);
  Operation* b = PickOperation(history, random, is_put);
  if (a == nullptr || a == b) return false;
  a->response.revision = b->response.revision;
  return true;
}

bool RefusedButDone(History* history, const Order&, HistoryRandom* random) {
  Operation* operation = PickOperation(history, random, [](const Operation& candidate) {
    return candidate.request.kind == Kind::kPut &&
           (candidate.request.txn.then_ops[0].flags & KW_PUT_IGNORE_VALUE) == 0;
  });
  if (operation == nullptr) return false;
  operation->outcome = Outcome::kError;
  operation->code = KW_RESOURCE_EXHAUSTED;
  operation->detail = KW_DETAIL_TOO_MANY_REQUESTS;
  operation->response = Response();
  return true;
}

KeyValue* PickPair(History* history, HistoryRandom* random) {
  Operation* operation = PickOperation(history, random, HasPairs);
  if (operation == nullptr) return nullptr;
  std::vector<KeyValue>& pairs = operation->response.results[0].pairs;
  return &pairs[random->Below(pairs.size())];
}

bool WrongValue(History* history, const Order&, HistoryRandom* random) {
  KeyValue* pair = PickPair(history, random);
  if (pair == nullptr) return false;
  pair->value += "!";
  return true;
}
bool WrongVersion(History* history, const Order&, HistoryRandom* random) {
  KeyValue* pair = PickPair(history, random);
  if (pair == nullptr) return false;
  ++pair->version;
  return true;
}
bool WrongCreateRevision(History* history, const Order&, HistoryRandom* random) {
  KeyValue* pair = PickPair(history, random);
  if (pair == nullptr) return false;
  --pair->create_revision;
  return true;
}
bool WrongLease(History* history, const Order&, HistoryRandom* random) {
  KeyValue* pair = PickPair(history, random);
  if (pair == nullptr) return false;
  pair->lease += 1;
  return true;
}

bool MissingPair(History* history, const Order&, HistoryRandom* random) {
  Operation* operation = PickOperation(history, random, HasPairs);
  if (operation == nullptr) return false;
  operation->response.results[0].pairs.pop_back();
  --operation->response.results[0].count;
  return true;
}

bool WrongCount(History* history, const Order&, HistoryRandom* random) {
  Operation* operation = PickOperation(history, random, [](const Operation& candidate) {
    return candidate.request.kind == Kind::kDelete && candidate.response.results[0].count > 0;
  });
  if (operation == nullptr) return false;
  ++operation->response.results[0].count;
  return true;
}

bool WrongPrevious(History* history, const Order&, HistoryRandom* random) {
  Operation* operation = PickOperation(history, random, [](const Operation& candidate) {
    return candidate.request.kind == Kind::kPut && !candidate.response.results[0].pairs.empty();
  });
  if (operation == nullptr) return false;
  operation->response.results[0].pairs[0].mod_revision -= 1;
  return true;
}

bool WrongBranch(History* history, const Order&, HistoryRandom* random) {
  Operation* operation = PickOperation(
      history, random, [](const Operation& candidate) { return candidate.request.kind == Kind::kTxn; });
  if (operation == nullptr) return false;
  operation->response.succeeded = !operation->response.succeeded;
  return true;
}

bool SwappedReplies(History* history, const Order&, HistoryRandom* random) {
  Operation* a = PickOperation(history, random, HasPairs);
  if (a == nullptr) return false;
  Operation* b = PickOperation(history, random, [&](const Operation& candidate) {
    return HasPairs(candidate) &&
           candidate.response.results[0].pairs[0].key != a->response.results[0].pairs[0].key;
  });
  if (b == nullptr) return false;
  std::swap(a->response.results, b->response.results);
  return true;
}

// A write that was called only after others had seen what came of it.
bool LateWrite(History* history, const Order&, HistoryRandom* random) {
  Operation* operation = PickOperation(history, random, [&](const Operation& candidate) {
    if (candidate.request.kind != Kind::kPut) return false;
    return std::any_of(history->operations.begin(), history->operations.end(), [&](const Operation& other) {
      return IsPlainRange(other) && other.outcome == Outcome::kOk &&
             other.response.revision >= candidate.response.revision && other.call_ns > candidate.return_ns;
    });
  });
  if (operation == nullptr) return false;
  const int64_t shift_ns = history->end_ns - operation->return_ns;
  operation->call_ns += shift_ns;
  operation->return_ns += shift_ns;
  return true;
}

bool CompactedRead(History* history, const Order& order, HistoryRandom* random) {
  int64_t return_ns = 0, compacted = 0;
  for (const Operation& operation : history->operations) {
    if (operation.request.kind != Kind::kCompact || operation.outcome != Outcome::kOk) continue;
    if (operation.request.revision < 3 || return_ns != 0) continue;
    return_ns = operation.return_ns;
    compacted = operation.request.revision;
  }
  if (return_ns == 0) return false;
  Operation* operation = PickOperation(history, random, [&](const Operation& candidate) {
    return IsPlainRange(candidate) && candidate.call_ns > return_ns;
  });
  if (operation == nullptr) return false;
  RangeOptions options;
  options.revision = compacted - 1;
  operation->request.txn.then_ops[0].range = std::make_shared<const RangeOptions>(options);
  operation->response.results = {RunRange(order.map, operation->request.txn.then_ops[0], compacted - 1)};
  return true;
}

bool CompactedForNothing(History* history, const Order&, HistoryRandom* random) {
  Operation* operation = PickOperation(
      history, random, [&](const Operation& candidate) { return candidate.request.kind == Kind::kCompact; });
  if (operation == nullptr) return false;
  operation->request.revision += 1'000'000;
  operation->outcome = Outcome::kError;
  operation->detail = KW_DETAIL_COMPACTED;
  // Its own compaction counts no more, but others do, and are less.
  return true;
}

}  // namespace

const std::vector<Mutation>& AllMutations() {
  static const std::vector<Mutation> kAll = [] {
    std::vector<Mutation> all = {
        {"stale_read", "strict", true, &StaleRead},
        {"future_read", "strict", true, &FutureRead},
        {"duplicate_revision", "strict", true, &DuplicateRevision},
        {"refused_but_done", "strict", true, &RefusedButDone},
        {"wrong_value", "strict", true, &WrongValue},
        {"wrong_version", "strict", true, &WrongVersion},
        {"wrong_create_revision", "strict", true, &WrongCreateRevision},
        {"wrong_lease", "strict", true, &WrongLease},
        {"missing_pair", "strict", true, &MissingPair},
        {"wrong_count", "strict", true, &WrongCount},
        {"wrong_previous", "strict", true, &WrongPrevious},
        {"wrong_branch", "strict", true, &WrongBranch},
        {"swapped_replies", "strict", true, &SwappedReplies},
        {"late_write", "strict", true, &LateWrite},
        {"compacted_read", "strict", false, &CompactedRead},
        {"compacted_for_nothing", "strict", false, &CompactedForNothing},
    };
    for (const Mutation& mutation : WatchAndLeaseMutations()) all.push_back(mutation);
    return all;
  }();
  return kAll;
}

}  // namespace keyway::sim
