// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history/time_sweep.h"

#include <algorithm>
#include <utility>

#include "keyway/detail.h"
#include "keyway/kernel.h"
#include "tests/sim/history/model.h"

namespace keyway::sim {
namespace {

// Somebody knew at this time that the store had reached this revision (or, of compactions, was compacted
// up to it).
struct Sighting {
  int64_t time_ns = 0;
  int64_t revision = 0;
};

std::vector<Sighting> SightingsOf(const History& history) {
  std::vector<Sighting> sightings;
  for (const Operation& operation : history.operations) {
    if (operation.outcome != Outcome::kOk) continue;
    sightings.push_back({operation.return_ns, operation.response.revision});
  }
  for (const Watch& watch : history.watches) {
    for (const WatchBatch& batch : watch.batches) {
      int64_t revision = batch.revision;
      for (const WatchEvent& event : batch.events) revision = std::max(revision, event.pair.mod_revision);
      sightings.push_back({batch.time_ns, revision});
    }
  }
  return sightings;
}

void SortByTime(std::vector<Sighting>* sightings) {
  std::sort(sightings->begin(), sightings->end(),
            [](const Sighting& a, const Sighting& b) { return a.time_ns < b.time_ns; });
}

// The greatest revision of what had been sighted before a time; asked for ascending times.
class Floor {
 public:
  explicit Floor(std::vector<Sighting> sightings) : sightings_(std::move(sightings)) {
    SortByTime(&sightings_);
  }
  int64_t Before(int64_t time_ns) {
    while (next_ < sightings_.size() && sightings_[next_].time_ns < time_ns) {
      floor_ = std::max(floor_, sightings_[next_++].revision);
    }
    return floor_;
  }

 private:
  std::vector<Sighting> sightings_;
  size_t next_ = 0;
  int64_t floor_ = 0;
};

// Whether the header's revision is of the operation's place in the order. The others answer from the
// state of the member that took them, which may be behind.
bool IsLinearizable(const Operation& operation) {
  switch (operation.request.kind) {
    case Kind::kPut:
    case Kind::kDelete:
    case Kind::kCompact:
    case Kind::kLeaseGrant:
    case Kind::kLeaseRevoke:
      return true;
    case Kind::kRange:
    case Kind::kTxn:
      return !operation.request.serializable;
    case Kind::kLeaseKeepAlive:
    case Kind::kLeaseTimeToLive:
      return false;
  }
  return false;
}

bool MayHaveCompacted(const Operation& operation) {
  return operation.request.kind == Kind::kCompact && operation.outcome != Outcome::kError;
}

class Sweep {
 public:
  Sweep(const History& history, bool complete, Order* order, Report* report)
      : history_(history), complete_(complete), order_(order), report_(report) {}

  void Run() {
    FindWritten();
    SortCalls();
    CheckOrder();
    if (report_->empty()) CheckCompactions();
  }

 private:
  // The revision that each operation has made, 0 for none.
  void FindWritten() {
    written_.assign(history_.operations.size(), 0);
    order_->not_before_ns.clear();
    int64_t not_before = 0;
    for (int64_t revision = Order::kFirstRevision; revision <= order_->last(); ++revision) {
      const Revision& made = order_->at(revision);
      if (made.writer == Writer::kOperation) {
        written_[made.operation] = revision;
        not_before = std::max(not_before, history_.operations[made.operation].call_ns);
      }
      order_->not_before_ns.push_back(not_before);
    }
  }

  void SortCalls() {
    by_call_.resize(history_.operations.size());
    for (size_t i = 0; i < by_call_.size(); ++i) by_call_[i] = i;
    std::stable_sort(by_call_.begin(), by_call_.end(), [this](size_t a, size_t b) {
      return history_.operations[a].call_ns < history_.operations[b].call_ns;
    });
  }

  void CheckOrder() {
    Floor floor(SightingsOf(history_));
    for (size_t index : by_call_) {
      if (report_->full()) return;
      const Operation& operation = history_.operations[index];
      const int64_t before = floor.Before(operation.call_ns);
      if (operation.outcome == Outcome::kError) {
        CheckError(operation, before);
        continue;
      }
      const int64_t made = written_[index];
      if (made != 0 && made <= before) {
        report_->Add(Describe(operation) + " made revision " + std::to_string(made) +
                     ", but somebody had seen revision " + std::to_string(before) + " before it was called");
      } else if (made == 0 && operation.outcome == Outcome::kOk && IsLinearizable(operation) &&
                 operation.response.revision < before) {
        report_->Add(Describe(operation) + " is stale: somebody had seen revision " + std::to_string(before) +
                     " before it was called");
      }
    }
  }

  void CheckError(const Operation& operation, int64_t seen_before) {
    const Request& request = operation.request;
    if (operation.detail == KW_DETAIL_FUTURE_REVISION) {
      int64_t least = 0, greatest = request.revision;
      FindRangeRevisions(request.txn, &least, &greatest);
      if (greatest > seen_before || request.serializable) return;
      report_->Add(Describe(operation) + ": revision " + std::to_string(greatest) +
                   " is not in the future, somebody had seen revision " + std::to_string(seen_before) +
                   " before the call");
    }
    if (operation.detail == KW_DETAIL_KEY_NOT_FOUND && request.kind == Kind::kPut) {
      CheckMissing(operation, seen_before);
    }
  }

  // The key of a put that keeps its value or lease has to be missing at some revision that the put can
  // have met: not one that was past when it was called, not one that began after its answer.
  void CheckMissing(const Operation& operation, int64_t seen_before) {
    const std::string& key = operation.request.txn.then_ops[0].key;
    if (!complete_) return;
    for (int64_t revision = std::max<int64_t>(1, seen_before); revision <= order_->last(); ++revision) {
      if (revision >= Order::kFirstRevision &&
          order_->not_before_ns[static_cast<size_t>(revision - Order::kFirstRevision)] >
              operation.return_ns) {
        break;
      }
      if (order_->map.At(key, revision) == nullptr) return;
    }
    report_->Add(Describe(operation) + ": the key was there all the time");
  }

  // ---- compactions: what is compacted stays so, and nothing else is ----

  void CheckCompactions() {
    std::vector<Sighting> done, begun;
    for (const Operation& operation : history_.operations) {
      if (!MayHaveCompacted(operation)) continue;
      begun.push_back({operation.call_ns, operation.request.revision});
      if (operation.outcome == Outcome::kOk)
        done.push_back({operation.return_ns, operation.request.revision});
    }
    Floor compacted(done);
    for (size_t index : by_call_) {
      const Operation& operation = history_.operations[index];
      if (operation.outcome == Outcome::kOk) CheckRead(operation, compacted.Before(operation.call_ns));
    }
    std::vector<size_t> by_return;
    for (size_t index : by_call_) {
      const Operation& operation = history_.operations[index];
      if (operation.outcome == Outcome::kError && operation.detail == KW_DETAIL_COMPACTED) {
        by_return.push_back(index);
      }
    }
    std::stable_sort(by_return.begin(), by_return.end(), [this](size_t a, size_t b) {
      return history_.operations[a].return_ns < history_.operations[b].return_ns;
    });
    Floor maybe_compacted(begun);
    for (size_t index : by_return) {
      const Operation& operation = history_.operations[index];
      CheckRefusal(operation, maybe_compacted.Before(operation.return_ns));
    }
  }

  void CheckRead(const Operation& operation, int64_t compacted) {
    const Request& request = operation.request;
    if (request.kind == Kind::kCompact) {
      if (request.revision > operation.response.revision) {
        report_->Add(Describe(operation) + " compacted the future");
      } else if (request.revision <= compacted) {
        report_->Add(Describe(operation) + " succeeded, but revision " + std::to_string(compacted) +
                     " was compacted before the call");
      }
      return;
    }
    if (request.kind != Kind::kRange || request.serializable) return;
    int64_t least = 0, greatest = 0;
    FindRangeRevisions(request.txn, &least, &greatest);
    if (least != 0 && least < compacted) {
      report_->Add(Describe(operation) + " read a revision below " + std::to_string(compacted) +
                   ", which was compacted before the call");
    }
  }

  void CheckRefusal(const Operation& operation, int64_t maybe_compacted) {
    const Request& request = operation.request;
    if (request.kind == Kind::kCompact) {
      if (request.revision <= maybe_compacted) return;
    } else {
      int64_t least = 0, greatest = 0;
      FindRangeRevisions(request.txn, &least, &greatest);
      // A negative revision within a txn counts as compacted; it has no least.
      if (request.kind == Kind::kTxn || (least != 0 && least < maybe_compacted)) return;
    }
    report_->Add(Describe(operation) + " was refused as compacted, but nobody had asked for more than " +
                 std::to_string(maybe_compacted));
  }

  const History& history_;
  const bool complete_;
  Order* const order_;
  Report* const report_;
  std::vector<int64_t> written_;
  std::vector<size_t> by_call_;
};

}  // namespace

std::vector<int64_t> LatestTimes(const History& history, int64_t last) {
  std::vector<int64_t> times(static_cast<size_t>(std::max<int64_t>(0, last - Order::kFirstRevision + 1)),
                             kNever);
  for (const Sighting& sighting : SightingsOf(history)) {
    const int64_t revision = std::min(sighting.revision, last);
    if (revision < Order::kFirstRevision) continue;
    int64_t& time = times[static_cast<size_t>(revision - Order::kFirstRevision)];
    time = std::min(time, sighting.time_ns);
  }
  for (size_t i = times.size(); i-- > 1;) times[i - 1] = std::min(times[i - 1], times[i]);
  return times;
}

void SweepTime(const History& history, bool complete, Order* order, Report* report) {
  Sweep(history, complete, order, report).Run();
  // Watches may show a revision that no reply names; a progress beyond the last one is of nothing.
  if (!complete || !report->empty()) return;
  for (const Watch& watch : history.watches) {
    for (const WatchBatch& batch : watch.batches) {
      if (batch.revision <= order->last()) continue;
      return report->Add(Describe(watch) + " was told of revision " + std::to_string(batch.revision) +
                         ", but the last one is " + std::to_string(order->last()));
    }
  }
}

}  // namespace keyway::sim
