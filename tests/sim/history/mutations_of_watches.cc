// SPDX-License-Identifier: Apache-2.0
//
// Defects of watches and of leases.
#include <algorithm>
#include <utility>

#include "keyway/detail.h"
#include "keyway/kernel.h"
#include "tests/sim/history/compactions.h"
#include "tests/sim/history/mutation_places.h"

namespace keyway::sim {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;

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
      // Nor one of which it is not known when it was renewed.
      revoked |= other.request.kind == Kind::kLeaseRevoke || other.outcome == Outcome::kUnknown;
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

// Whether somebody was told, in the last two seconds before the lease ended, of an earlier revision.
bool IsWitnessed(const History& history, const Order& order, int64_t lease) {
  for (int64_t revision = Order::kFirstRevision; revision <= order.last(); ++revision) {
    if (order.at(revision).lease != lease) continue;
    const int64_t end_ns = order.not_after_ns[static_cast<size_t>(revision - Order::kFirstRevision)];
    return std::any_of(history.operations.begin(), history.operations.end(), [&](const Operation& other) {
      return other.outcome == Outcome::kOk && other.request.kind == Kind::kPut &&
             other.response.revision < revision && other.call_ns > end_ns - 2 * kSecondNs;
    });
  }
  return false;
}

bool LateExpiry(History* history, const Order& order, HistoryRandom* random) {
  Operation* operation = PickOfExpired(history, order, random, [&](const Operation& candidate) {
    return candidate.request.kind == Kind::kLeaseGrant && candidate.response.lease_ttl_s >= 8 &&
           IsWitnessed(*history, order, candidate.request.lease);
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

std::vector<Mutation> WatchAndLeaseMutations() {
  return {
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
}

}  // namespace keyway::sim
