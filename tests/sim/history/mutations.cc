// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history/mutations.h"

#include <algorithm>
#include <utility>

#include "keyway/detail.h"
#include "keyway/kernel.h"
#include "tests/sim/history/compactions.h"
#include "tests/sim/history/model.h"

namespace keyway::sim {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;

// A random index below `count` for which `is_good`; SIZE_MAX if there is none.
template <typename IsGood>
size_t Pick(size_t count, HistoryRandom* random, IsGood is_good) {
  std::vector<size_t> good;
  for (size_t i = 0; i < count; ++i) {
    if (is_good(i)) good.push_back(i);
  }
  return good.empty() ? SIZE_MAX : good[random->Below(good.size())];
}

template <typename IsGood>
Operation* PickOperation(History* history, HistoryRandom* random, IsGood is_good) {
  const size_t index = Pick(history->operations.size(), random, [&](size_t i) {
    return history->operations[i].outcome == Outcome::kOk && is_good(history->operations[i]);
  });
  return index == SIZE_MAX ? nullptr : &history->operations[index];
}

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

// ---- watches ----

bool HasEvents(const WatchBatch& batch) { return batch.kind == KW_WATCH_EVENTS && !batch.events.empty(); }

// A batch that `is_good`, of any watch.
template <typename IsGood>
bool PickBatch(History* history, HistoryRandom* random, IsGood is_good, Watch** watch, size_t* batch) {
  std::vector<std::pair<size_t, size_t>> good;
  for (size_t i = 0; i < history->watches.size(); ++i) {
    const Watch& candidate = history->watches[i];
    for (size_t j = 0; j < candidate.batches.size(); ++j) {
      if (is_good(candidate, j)) good.emplace_back(i, j);
    }
  }
  if (good.empty()) return false;
  const auto [i, j] = good[random->Below(good.size())];
  *watch = &history->watches[i];
  *batch = j;
  return true;
}

bool LostEvent(History* history, const Order&, HistoryRandom* random) {
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [](const Watch& candidate, size_t j) {
    return HasEvents(candidate.batches[j]) && j + 1 < candidate.batches.size() &&
           HasEvents(candidate.batches.back());
  };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  std::vector<WatchEvent>& events = watch->batches[at].events;
  events.erase(events.begin() + static_cast<ptrdiff_t>(random->Below(events.size())));
  if (events.empty()) watch->batches.erase(watch->batches.begin() + static_cast<ptrdiff_t>(at));
  return true;
}

bool LostEnd(History* history, const Order&, HistoryRandom* random) {
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [&](const Watch& candidate, size_t j) {
    return HasEvents(candidate.batches[j]) && candidate.end_ns == kNever;
  };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  watch->batches.resize(at);
  return true;
}

bool RepeatedBatch(History* history, const Order&, HistoryRandom* random) {
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [](const Watch& candidate, size_t j) { return HasEvents(candidate.batches[j]); };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  const WatchBatch copy = watch->batches[at];
  watch->batches.insert(watch->batches.begin() + static_cast<ptrdiff_t>(at), copy);
  return true;
}

bool SwappedBatches(History* history, const Order&, HistoryRandom* random) {
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [](const Watch& candidate, size_t j) {
    return j > 0 && HasEvents(candidate.batches[j]) && HasEvents(candidate.batches[j - 1]);
  };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  std::swap(watch->batches[at].events, watch->batches[at - 1].events);
  std::swap(watch->batches[at].revision, watch->batches[at - 1].revision);
  return true;
}

bool SplitRevision(History* history, const Order&, HistoryRandom* random) {
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [](const Watch& candidate, size_t j) {
    const std::vector<WatchEvent>& events = candidate.batches[j].events;
    return events.size() > 1 &&
           events[events.size() - 2].pair.mod_revision == events.back().pair.mod_revision;
  };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  WatchBatch rest = watch->batches[at];
  rest.events = {rest.events.back()};
  watch->batches[at].events.pop_back();
  watch->batches.insert(watch->batches.begin() + static_cast<ptrdiff_t>(at) + 1, rest);
  return true;
}

bool EarlyProgress(History* history, const Order&, HistoryRandom* random) {
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [](const Watch& candidate, size_t j) { return HasEvents(candidate.batches[j]); };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  WatchBatch progress;
  progress.kind = KW_WATCH_PROGRESS;
  progress.time_ns = watch->batches[at].time_ns;
  progress.revision = watch->batches[at].events[0].pair.mod_revision;
  watch->batches.insert(watch->batches.begin() + static_cast<ptrdiff_t>(at), progress);
  return true;
}

bool PickPrevious(History* history, HistoryRandom* random, WatchEvent** event) {
  const MaybeCompacted compacted(*history);
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [&](const Watch& candidate, size_t j) {
    const WatchBatch& batch = candidate.batches[j];
    return HasEvents(batch) && batch.events.back().prev.has_value() &&
           batch.events.back().pair.mod_revision > compacted.At(batch.time_ns);
  };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  *event = &watch->batches[at].events.back();
  return true;
}
bool WrongPreviousOfEvent(History* history, const Order&, HistoryRandom* random) {
  WatchEvent* event = nullptr;
  if (!PickPrevious(history, random, &event)) return false;
  event->prev->value += "!";
  return true;
}
bool MissingPreviousOfEvent(History* history, const Order&, HistoryRandom* random) {
  WatchEvent* event = nullptr;
  if (!PickPrevious(history, random, &event)) return false;
  event->prev.reset();
  return true;
}

bool UnfilteredEvent(History* history, const Order&, HistoryRandom* random) {
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [](const Watch& candidate, size_t j) { return HasEvents(candidate.batches[j]); };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  watch->flags |= watch->batches[at].events[0].is_delete ? KW_WATCH_NO_DELETE : KW_WATCH_NO_PUT;
  return true;
}

bool CreateIsModify(History* history, const Order&, HistoryRandom* random) {
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [](const Watch& candidate, size_t j) {
    return HasEvents(candidate.batches[j]) && candidate.batches[j].events[0].pair.version == 1;
  };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  KeyValue& pair = watch->batches[at].events[0].pair;
  pair.version = 2;
  pair.create_revision -= 1;
  return true;
}

bool EventOfThePast(History* history, const Order&, HistoryRandom* random) {
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [](const Watch& candidate, size_t j) { return HasEvents(candidate.batches[j]); };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  watch->start_revision = watch->batches[at].events[0].pair.mod_revision + 1;
  return true;
}

bool WordAfterCancel(History* history, const Order&, HistoryRandom* random) {
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [](const Watch& candidate, size_t j) {
    return candidate.batches[j].kind == KW_WATCH_CANCELED;
  };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  WatchBatch progress = watch->batches[at];
  progress.kind = KW_WATCH_PROGRESS;
  watch->batches.push_back(progress);
  return true;
}

bool HeaderBelowEvent(History* history, const Order&, HistoryRandom* random) {
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [](const Watch& candidate, size_t j) { return HasEvents(candidate.batches[j]); };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  watch->batches[at].revision = watch->batches[at].events.back().pair.mod_revision - 1;
  return true;
}

bool CanceledForNothing(History* history, const Order&, HistoryRandom* random) {
  Watch* watch = nullptr;
  size_t at = 0;
  auto is_good = [](const Watch& candidate, size_t j) {
    return candidate.batches[j].kind == KW_WATCH_CANCELED && candidate.batches[j].code == KW_OK;
  };
  if (!PickBatch(history, random, is_good, &watch, &at)) return false;
  watch->batches[at].code = KW_OUT_OF_RANGE;
  watch->batches[at].detail = KW_DETAIL_COMPACTED;
  watch->batches[at].compact_revision = 1;
  return true;
}

// ---- leases ----

// An operation that asks for this lease, of one that ran out by itself.
template <typename IsGood>
Operation* PickOfExpired(History* history, const Order& order, HistoryRandom* random, IsGood is_good) {
  return PickOperation(history, random, [&](const Operation& candidate) {
    if (!is_good(candidate)) return false;
    bool granted = false, revoked = false;
    for (const Operation& other : history->operations) {
      if (other.request.lease != candidate.request.lease) continue;
      granted |= other.request.kind == Kind::kLeaseGrant && other.outcome == Outcome::kOk;
      revoked |= other.request.kind == Kind::kLeaseRevoke;
    }
    if (!granted || revoked) return false;
    return std::any_of(order.revisions.begin(), order.revisions.end(), [&](const Revision& revision) {
      return revision.writer == Writer::kLeaseExpiry && revision.lease_is_certain &&
             revision.lease == candidate.request.lease;
    });
  });
}

bool EarlyExpiry(History* history, const Order& order, HistoryRandom* random) {
  Operation* operation = PickOfExpired(history, order, random, [](const Operation& candidate) {
    return candidate.response.lease_ttl_s > 0 &&
           (candidate.request.kind == Kind::kLeaseGrant || candidate.request.kind == Kind::kLeaseKeepAlive);
  });
  if (operation == nullptr) return false;
  operation->response.lease_ttl_s += 1000;
  return true;
}

bool LateExpiry(History* history, const Order& order, HistoryRandom* random) {
  Operation* operation = PickOfExpired(history, order, random, [&](const Operation& candidate) {
    // Long enough, and the history goes on meanwhile.
    return candidate.request.kind == Kind::kLeaseGrant && candidate.response.lease_ttl_s >= 12;
  });
  if (operation == nullptr) return false;
  for (Operation& other : history->operations) {
    if (other.request.lease == operation->request.lease && other.response.lease_ttl_s > 0) {
      other.response.lease_ttl_s = 1;
    }
  }
  return true;
}

bool RenewAfterRevoke(History* history, const Order&, HistoryRandom* random) {
  const Operation* revoke = PickOperation(history, random, [](const Operation& candidate) {
    return candidate.request.kind == Kind::kLeaseRevoke;
  });
  if (revoke == nullptr) return false;
  Operation renewal = *revoke;
  renewal.id = history->operations.back().id + 1;
  renewal.request.kind = Kind::kLeaseKeepAlive;
  renewal.call_ns = revoke->return_ns + 1;
  renewal.return_ns = revoke->return_ns + kSecondNs;
  renewal.response.lease_ttl_s = 5;
  history->operations.push_back(renewal);
  return true;
}

bool GrantedTwice(History* history, const Order&, HistoryRandom* random) {
  Operation* grant = PickOperation(history, random, [](const Operation& candidate) {
    return candidate.request.kind == Kind::kLeaseGrant;
  });
  if (grant == nullptr) return false;
  grant->outcome = Outcome::kError;
  grant->detail = KW_DETAIL_LEASE_EXISTS;
  grant->response = Response();
  return true;
}

}  // namespace

const std::vector<Mutation>& AllMutations() {
  static const std::vector<Mutation> kAll = {
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
      {"lost_event", "watch", false, &LostEvent},
      {"lost_end", "watch", false, &LostEnd},
      {"repeated_batch", "watch", false, &RepeatedBatch},
      {"swapped_batches", "watch", false, &SwappedBatches},
      {"split_revision", "watch", false, &SplitRevision},
      {"early_progress", "watch", false, &EarlyProgress},
      {"wrong_previous_of_event", "watch", false, &WrongPreviousOfEvent},
      {"missing_previous_of_event", "watch", false, &MissingPreviousOfEvent},
      {"unfiltered_event", "watch", false, &UnfilteredEvent},
      {"create_is_modify", "watch", false, &CreateIsModify},
      {"event_of_the_past", "watch", false, &EventOfThePast},
      {"word_after_cancel", "watch", false, &WordAfterCancel},
      {"header_below_event", "watch", false, &HeaderBelowEvent},
      {"canceled_for_nothing", "watch", false, &CanceledForNothing},
      {"early_expiry", "lease", false, &EarlyExpiry},
      {"late_expiry", "lease", false, &LateExpiry},
      {"renew_after_revoke", "lease", false, &RenewAfterRevoke},
      {"granted_twice", "lease", false, &GrantedTwice},
  };
  return kAll;
}

}  // namespace keyway::sim
