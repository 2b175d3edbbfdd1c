// SPDX-License-Identifier: Apache-2.0
//
// CheckLeases(): for each lease the promises of time it was given (grants, renewals, what is left of its
// TTL), and the signs that it is gone or still there. A renewal counts from its call at the earliest and
// from its answer at the latest, since nobody outside knows when the leader handled it.
#include <algorithm>
#include <map>
#include <utility>

#include "keyway/detail.h"
#include "keyway/kernel.h"
#include "tests/sim/history/checkers.h"
#include "tests/sim/history/describe.h"

namespace keyway::sim {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
// What got no answer may be on its way this long.
constexpr int64_t kUnansweredNs = 60 * kSecondNs;
// Expiries are kept in milliseconds, rounded down.
constexpr int64_t kGranularityNs = 1'000'000;

struct LeaseStory {
  std::vector<size_t> grants, renewals, revokes, queries, puts;  // Operations, by call.
  int64_t end_revision = 0;                                      // That deleted its keys; 0: none.
  bool expired = false;                                          // By itself.
};

class LeaseChecker {
 public:
  LeaseChecker(const History& history, const Order& order, const LeaseBounds& bounds)
      : history_(history), order_(order), bounds_(bounds) {}

  Findings Run() {
    Collect();
    FindLastCalls();
    for (const auto& [lease, story] : stories_) {
      if (report_.full()) break;
      CheckIds(lease, story);
      CheckGone(lease, story);
      CheckLate(lease, story);
    }
    return report_.Take();
  }

 private:
  // Something that shows, at `time_ns`, that a lease is gone or is there.
  struct Sign {
    int64_t time_ns = 0;
    int64_t call_ns = 0;  // The question's; the lease was gone at some time in between.
    std::string what;
    bool for_good = true;  // Else a new leader may revive it.
  };

  struct Asked {
    int64_t call_ns = -1, return_ns = -1;
  };

  const Operation& at(size_t index) const { return history_.operations[index]; }

  void Collect() {
    for (size_t i = 0; i < history_.operations.size(); ++i) {
      const Request& request = at(i).request;
      switch (request.kind) {
        case Kind::kLeaseGrant:
          stories_[request.lease].grants.push_back(i);
          break;
        case Kind::kLeaseKeepAlive:
          stories_[request.lease].renewals.push_back(i);
          break;
        case Kind::kLeaseRevoke:
          stories_[request.lease].revokes.push_back(i);
          break;
        case Kind::kLeaseTimeToLive:
          stories_[request.lease].queries.push_back(i);
          break;
        case Kind::kPut:
          if (request.txn.then_ops[0].lease != 0) stories_[request.txn.then_ops[0].lease].puts.push_back(i);
          break;
        default:
          break;
      }
    }
    for (int64_t revision = Order::kFirstRevision; revision <= order_.last(); ++revision) {
      const Revision& made = order_.at(revision);
      if (made.lease != 0 && made.lease_is_certain) {
        stories_[made.lease].end_revision = revision;
        stories_[made.lease].expired = made.writer == Writer::kLeaseExpiry;
      }
      for (const WatchEvent& change : made.changes) CheckAttached(revision, change);
    }
  }

  void CheckAttached(int64_t revision, const WatchEvent& change) {
    if (change.pair.lease == 0) return;
    auto story = stories_.find(change.pair.lease);
    // A put that keeps the lease of its key may do so, but never after the end.
    if (story == stories_.end() || story->second.grants.empty()) {
      return report_.Add("the " + Describe(change) + " has a lease that nobody asked for");
    }
    if (story->second.end_revision != 0 && story->second.end_revision < revision) {
      report_.Add("the " + Describe(change) + " has a lease that ended at revision " +
                  std::to_string(story->second.end_revision));
    }
  }

  // The latest call of a linearizable operation that was answered with this revision or an earlier one:
  // then the next revision was not there yet.
  void FindLastCalls() {
    last_calls_.assign(order_.revisions.size() + 2, Asked());
    for (const Operation& operation : history_.operations) {
      const int64_t revision = operation.response.revision;
      if (operation.outcome != Outcome::kOk || operation.request.serializable || revision < 1 ||
          revision > order_.last() || operation.request.kind == Kind::kLeaseKeepAlive ||
          operation.request.kind == Kind::kLeaseTimeToLive) {
        continue;
      }
      Asked& last = last_calls_[static_cast<size_t>(revision - 1)];
      if (operation.call_ns > last.call_ns) last = {operation.call_ns, operation.return_ns};
    }
    for (size_t i = 1; i < last_calls_.size(); ++i) {
      if (last_calls_[i - 1].call_ns > last_calls_[i].call_ns) last_calls_[i] = last_calls_[i - 1];
    }
  }

  // An id is granted once; a grant that is refused because it exists has been applied twice.
  void CheckIds(int64_t lease, const LeaseStory& story) {
    for (size_t index : story.grants) {
      if (at(index).outcome != Outcome::kError || at(index).detail != KW_DETAIL_LEASE_EXISTS) continue;
      const bool other = std::any_of(story.grants.begin(), story.grants.end(), [&](size_t i) {
        return i != index && at(i).outcome != Outcome::kError && at(i).call_ns < at(index).return_ns;
      });
      if (!other)
        report_.Add(Describe(at(index)) + ": nobody else has asked for lease " + std::to_string(lease));
    }
  }

  // Nanoseconds of what is alive at least this long after the operation's call; 0 if it promises nothing.
  int64_t PromiseNs(const Operation& operation) const {
    if (operation.outcome != Outcome::kOk) return 0;
    return operation.response.lease_ttl_s > 0 ? operation.response.lease_ttl_s * kSecondNs : 0;
  }

  std::vector<Sign> SignsOfEnd(const LeaseStory& story) const {
    std::vector<Sign> signs;
    auto add = [&](size_t index, const char* what, bool for_good) {
      signs.push_back({at(index).return_ns, at(index).call_ns, what + Describe(at(index)), for_good});
    };
    auto missing = [&](size_t index) {
      return at(index).outcome == Outcome::kError && at(index).detail == KW_DETAIL_LEASE_NOT_FOUND;
    };
    if (story.end_revision != 0 && story.expired) {
      const int64_t seen_ns =
          order_.not_after_ns[static_cast<size_t>(story.end_revision - Order::kFirstRevision)];
      signs.push_back({seen_ns, seen_ns,
                       "its keys were deleted at revision " + std::to_string(story.end_revision), true});
    }
    for (size_t index : story.renewals) {
      if (at(index).outcome == Outcome::kOk && at(index).response.lease_ttl_s <= 0) {
        add(index, "no renewal any more: ", false);
      }
    }
    for (size_t index : story.queries) {
      if (at(index).outcome == Outcome::kOk && at(index).response.lease_ttl_s < 0)
        add(index, "unknown: ", true);
    }
    for (size_t index : story.puts) {
      if (missing(index)) add(index, "refused: ", true);
    }
    for (size_t index : story.revokes) {
      if (missing(index)) add(index, "refused: ", true);
      if (at(index).outcome == Outcome::kOk) add(index, "revoked: ", true);
    }
    return signs;
  }

  void CheckGone(int64_t lease, const LeaseStory& story) {
    int64_t granted_ns = kNever;  // From here on it was there for certain, until its end.
    for (size_t index : story.grants) {
      if (at(index).outcome == Outcome::kOk) granted_ns = std::min(granted_ns, at(index).return_ns);
    }
    int64_t revoke_ns = kNever;  // From here on somebody may have ended it.
    for (size_t index : story.revokes) {
      if (at(index).outcome != Outcome::kError) revoke_ns = std::min(revoke_ns, at(index).call_ns);
    }
    const std::vector<Sign> signs = SignsOfEnd(story);
    for (const Sign& sign : signs) {
      if (report_.full()) return;
      // Before the grant it is rightly unknown.
      if (granted_ns == kNever || sign.call_ns <= granted_ns) continue;
      if (sign.time_ns < revoke_ns) CheckEarly(lease, story, sign);
      if (sign.for_good) CheckUse(lease, story, sign);
    }
  }

  void CheckEarly(int64_t lease, const LeaseStory& story, const Sign& sign) {
    for (const std::vector<size_t>* list : {&story.grants, &story.renewals, &story.queries}) {
      for (size_t index : *list) {
        const int64_t until_ns = at(index).call_ns + PromiseNs(at(index)) - kGranularityNs - bounds_.early_ns;
        if (PromiseNs(at(index)) == 0 || sign.time_ns >= until_ns) continue;
        // What has run out on one leader may be given time anew by the next.
        if (!sign.for_good && at(index).return_ns > sign.call_ns) continue;
        return report_.Add("lease " + std::to_string(lease) + " was gone at " + std::to_string(sign.time_ns) +
                           " ns (" + sign.what + "), but until " + std::to_string(until_ns) +
                           " ns it was promised by " + Describe(at(index)));
      }
    }
  }

  // What is gone for good is not used any more.
  void CheckUse(int64_t lease, const LeaseStory& story, const Sign& sign) {
    auto check = [&](size_t index, bool used) {
      if (!used || at(index).outcome != Outcome::kOk || at(index).call_ns <= sign.time_ns) return;
      report_.Add("lease " + std::to_string(lease) + " was gone at " + std::to_string(sign.time_ns) +
                  " ns (" + sign.what + "), but then: " + Describe(at(index)));
    };
    for (size_t index : story.renewals) check(index, at(index).response.lease_ttl_s > 0);
    for (size_t index : story.queries) check(index, at(index).response.lease_ttl_s >= 0);
    for (size_t index : story.puts) check(index, true);
    for (size_t index : story.revokes) check(index, true);
  }

  // The last time before `time_ns` from which the lease may count its TTL. What disturbed the cluster before
  // `answered_ns` counts: there may have been nobody to end it until then.
  int64_t LastStartNs(const LeaseStory& story, int64_t time_ns, int64_t answered_ns) const {
    int64_t start_ns = 0;
    for (const std::vector<size_t>* list : {&story.grants, &story.renewals}) {
      for (size_t index : *list) {
        const Operation& operation = at(index);
        if (operation.call_ns >= time_ns || operation.outcome == Outcome::kError) continue;
        const bool refused = operation.outcome == Outcome::kOk && operation.response.lease_ttl_s <= 0;
        if (refused) continue;
        const bool answered = operation.outcome == Outcome::kOk;
        start_ns = std::max(start_ns, answered ? operation.return_ns : operation.call_ns + kUnansweredNs);
      }
    }
    const std::vector<int64_t>& times = bounds_.disturbances_ns;
    auto after = std::upper_bound(times.begin(), times.end(), answered_ns);
    if (after != times.begin()) start_ns = std::max(start_ns, *std::prev(after));
    return start_ns;
  }

  void CheckLate(int64_t lease, const LeaseStory& story) {
    int64_t ttl_s = 0;
    for (size_t index : story.grants) {
      if (at(index).outcome == Outcome::kOk) ttl_s = std::max(ttl_s, at(index).response.lease_ttl_s);
    }
    if (ttl_s == 0) return;
    auto check = [&](int64_t time_ns, int64_t answered_ns, const std::string& what) {
      const int64_t until_ns = LastStartNs(story, time_ns, answered_ns) + ttl_s * kSecondNs + bounds_.late_ns;
      if (time_ns <= until_ns || report_.full()) return;
      report_.Add("lease " + std::to_string(lease) + ", TTL " + std::to_string(ttl_s) +
                  " s, was still there at " + std::to_string(time_ns) + " ns (" + what +
                  "), but had to be gone at " + std::to_string(until_ns) + " ns");
    };
    for (size_t index : story.renewals) {
      if (PromiseNs(at(index)) > 0) check(at(index).call_ns, at(index).return_ns, Describe(at(index)));
    }
    for (size_t index : story.queries) {
      if (at(index).outcome == Outcome::kOk && at(index).response.lease_ttl_s >= 0) {
        check(at(index).call_ns, at(index).return_ns, Describe(at(index)));
      }
    }
    if (story.end_revision != 0) {
      if (!story.expired) return;
      const Asked& last = last_calls_[static_cast<size_t>(story.end_revision - 2)];
      check(last.call_ns, last.return_ns,
            "its keys, deleted at revision " + std::to_string(story.end_revision) + ", were not deleted yet");
    } else if (HoldsKeys(lease)) {
      check(last_calls_.back().call_ns, last_calls_.back().return_ns,
            "it still has keys at the last revision");
    }
  }

  bool HoldsKeys(int64_t lease) {
    if (!holders_known_) {
      holders_known_ = true;
      const std::string all(1, '\0');
      for (const KeyValue* pair : order_.map.Range(all, all, order_.last())) ++holders_[pair->lease];
    }
    return holders_.contains(lease);
  }

  const History& history_;
  const Order& order_;
  const LeaseBounds& bounds_;
  Report report_{"lease"};
  std::map<int64_t, LeaseStory> stories_;
  std::vector<Asked> last_calls_;  // Of revision r at r - 1.
  std::map<int64_t, size_t> holders_;
  bool holders_known_ = false;
};

}  // namespace

Findings CheckLeases(const History& history, const Order& order, const LeaseBounds& bounds) {
  return LeaseChecker(history, order, bounds).Run();
}

}  // namespace keyway::sim
