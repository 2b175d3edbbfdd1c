// SPDX-License-Identifier: Apache-2.0
//
// CheckWatches(): walks each watch along the order of changes. At any moment the watch has a position,
// the next revision that it may be told of; what the changes say must come, comes next, whole and once.
#include <algorithm>
#include <utility>

#include "keyway/detail.h"
#include "keyway/kernel.h"
#include "tests/sim/history/checkers.h"
#include "tests/sim/history/compactions.h"
#include "tests/sim/history/describe.h"

namespace keyway::sim {
namespace {

class WatchWalk {
 public:
  WatchWalk(const History& history, const Order& order, const MaybeCompacted& compacted, const Watch& watch,
            Report* report)
      : history_(history), order_(order), compacted_(compacted), watch_(watch), report_(report) {}

  void Run() {
    next_ = watch_.start_revision;
    for (const WatchBatch& batch : watch_.batches) {
      if (report_->full() || stopped_) return;
      OnBatch(batch);
    }
    // At rest, who is still watching has been told of everything.
    if (!history_.settled || watch_.end_ns != kNever || !created_) return;
    if (next_ < Order::kFirstRevision) next_ = Order::kFirstRevision;
    SkipTo(order_.last() + 1, [] { return std::string("at the end"); });
  }

 private:
  void Fault(const WatchBatch& batch, const std::string& what) {
    report_->Add(Describe(watch_) + ", at " + std::to_string(batch.time_ns) + " ns: " + what);
    stopped_ = true;
  }

  void OnBatch(const WatchBatch& batch) {
    if (canceled_) return Fault(batch, "something came after its cancellation");
    switch (batch.kind) {
      case KW_WATCH_CREATED:
        if (created_) return Fault(batch, "it was created twice");
        created_ = true;
        if (watch_.start_revision == 0) next_ = batch.revision + 1;
        return;
      case KW_WATCH_EVENTS:
        return OnEvents(batch);
      case KW_WATCH_PROGRESS:
      case KW_WATCH_GROUP_PROGRESS:
        return OnProgress(batch);
      case KW_WATCH_CANCELED:
        canceled_ = true;
        return OnCanceled(batch);
      default:
        return Fault(batch, "a batch of unknown kind " + std::to_string(batch.kind));
    }
  }

  bool Matches(const WatchEvent& change) const {
    if ((watch_.flags & KW_WATCH_NO_PUT) != 0 && !change.is_delete) return false;
    if ((watch_.flags & KW_WATCH_NO_DELETE) != 0 && change.is_delete) return false;
    const std::string_view key =
        watch_.key.empty() ? std::string_view("\0", 1) : std::string_view(watch_.key);
    return InRange(change.pair.key, key, watch_.end);
  }

  std::vector<const WatchEvent*> ExpectedAt(int64_t revision) const {
    std::vector<const WatchEvent*> events;
    for (const WatchEvent& change : order_.at(revision).changes) {
      if (Matches(change)) events.push_back(&change);
    }
    return events;
  }

  // No event is due before `revision`; else the watch has lost it.
  // `when` tells when that was, if it is asked.
  template <typename When>
  bool SkipTo(int64_t revision, When when) {
    for (int64_t at = std::max<int64_t>(next_, Order::kFirstRevision); at < revision && at <= order_.last();
         ++at) {
      const std::vector<const WatchEvent*> lost = ExpectedAt(at);
      if (lost.empty()) continue;
      report_->Add(Describe(watch_) + ", " + when() + ": it was not told of the " + Describe(*lost[0]) +
                   " (reliable)");
      stopped_ = true;
      return false;
    }
    next_ = std::max(next_, revision);
    return true;
  }

  void OnEvents(const WatchBatch& batch) {
    if (!created_) return Fault(batch, "events came before it was created");
    if (batch.events.empty()) return Fault(batch, "a batch of events is empty");
    for (size_t i = 0; i < batch.events.size() && !stopped_;) {
      const int64_t revision = batch.events[i].pair.mod_revision;
      size_t end = i;
      while (end < batch.events.size() && batch.events[end].pair.mod_revision == revision) ++end;
      OnRevision(batch, i, end);
      i = end;
    }
  }

  void OnRevision(const WatchBatch& batch, size_t begin, size_t end) {
    const int64_t revision = batch.events[begin].pair.mod_revision;
    const auto first = [&] { return Describe(batch.events[begin]); };
    if (revision > batch.revision) {
      return Fault(batch,
                   "the header's revision " + std::to_string(batch.revision) + " is below the " + first());
    }
    if (revision < watch_.start_revision) return Fault(batch, "it was told of the past: " + first());
    if (revision <= progress_) {
      return Fault(batch, "after a progress up to " + std::to_string(progress_) + " it was told of the " +
                              first() + " (bookmarkable)");
    }
    if (revision < next_) {
      return Fault(batch, "after revision " + std::to_string(next_ - 1) + " it was told of the " + first() +
                              " (ordered, unique, atomic)");
    }
    if (revision > order_.last()) {
      stopped_ = true;  // Beyond what is known: the history ends before.
      return;
    }
    if (!SkipTo(revision, [&] { return "before the " + first(); })) return;
    const std::vector<const WatchEvent*> expected = ExpectedAt(revision);
    const size_t count = end - begin;
    for (size_t i = 0; i < count; ++i) {
      const WatchEvent& event = batch.events[begin + i];
      if (i >= expected.size()) return Fault(batch, "it was told of a " + Describe(event) + " too many");
      if (event.is_delete != expected[i]->is_delete || event.pair != expected[i]->pair) {
        return Fault(batch,
                     "it was told of the " + Describe(event) + ", but it was the " + Describe(*expected[i]));
      }
      if (!CheckPrevious(batch, event, *expected[i])) return;
    }
    if (count < expected.size()) {
      return Fault(batch, "revision " + std::to_string(revision) + " was split: " + std::to_string(count) +
                              " of " + std::to_string(expected.size()) + " events came (atomic)");
    }
    next_ = revision + 1;
  }

  bool CheckPrevious(const WatchBatch& batch, const WatchEvent& event, const WatchEvent& expected) {
    const bool wanted = (watch_.flags & KW_WATCH_PREV_KV) != 0;
    if (!wanted || !expected.prev.has_value()) {
      if (!event.prev.has_value()) return true;
      Fault(batch, "the " + Describe(event) + " comes with a previous pair that " +
                       (wanted ? "did not exist: " : "was not asked for: ") + Describe(*event.prev));
      return false;
    }
    if (event.prev == expected.prev) return true;
    // Compacted away.
    if (!event.prev.has_value() && compacted_.At(batch.time_ns) >= event.pair.mod_revision) return true;
    Fault(batch, "the previous pair of the " + Describe(event) + " is " +
                     (event.prev.has_value() ? Describe(*event.prev) : "missing") + ", but it was " +
                     Describe(*expected.prev) + " (prev_kv)");
    return false;
  }

  void OnProgress(const WatchBatch& batch) {
    if (!created_) return Fault(batch, "a progress came before it was created");
    if (batch.revision < next_ - 1) {
      return Fault(batch, "a progress up to " + std::to_string(batch.revision) +
                              ", although its next revision is " + std::to_string(next_));
    }
    const auto when = [&] { return "before a progress up to " + std::to_string(batch.revision); };
    if (!SkipTo(batch.revision + 1, when)) return;
    progress_ = std::max(progress_, batch.revision);
  }

  void OnCanceled(const WatchBatch& batch) {
    if (batch.code == KW_OK) return;
    if (batch.detail == KW_DETAIL_WATCH_EMPTY_RANGE) {
      const bool all = watch_.end == std::string_view("\0", 1);
      if (watch_.end.empty() || all || watch_.end > watch_.key) Fault(batch, "its range is not empty");
      return;
    }
    if (batch.detail != KW_DETAIL_COMPACTED || watch_.start_revision < 0) return;
    const int64_t compacted = compacted_.At(batch.time_ns);
    if (batch.compact_revision > compacted || batch.compact_revision <= 0) {
      return Fault(batch, "canceled as compacted up to " + std::to_string(batch.compact_revision) +
                              ", but nobody had asked for more than " + std::to_string(compacted));
    }
    if (next_ >= batch.compact_revision) {
      Fault(batch, "canceled as compacted up to " + std::to_string(batch.compact_revision) +
                       ", but its next revision was " + std::to_string(next_));
    }
  }

  const History& history_;
  const Order& order_;
  const MaybeCompacted& compacted_;
  const Watch& watch_;
  Report* const report_;
  int64_t next_ = 0;  // Everything before it has come.
  int64_t progress_ = 0;
  bool created_ = false;
  bool canceled_ = false;
  bool stopped_ = false;
};

}  // namespace

Findings CheckWatches(const History& history, const Order& order) {
  Report report("watch");
  const MaybeCompacted compacted(history);
  for (const Watch& watch : history.watches) {
    if (!report.full()) WatchWalk(history, order, compacted, watch, &report).Run();
  }
  return report.Take();
}

}  // namespace keyway::sim
