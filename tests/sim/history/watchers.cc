// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history/watchers.h"

#include <algorithm>
#include <utility>

#include "kernel/base/bytes.h"
#include "kernel/base/check.h"
#include "tests/sim/history/convert.h"

namespace keyway::sim {
namespace {

constexpr uint64_t kAmpleCredit = uint64_t{1} << 40;
constexpr int64_t kRetryNs = 50'000'000;
constexpr uint64_t kWindowPart = 8;  // Who is not slow gives credit back when this part of it is used.
constexpr size_t kGroupsMax = 4096;  // Asked and not answered; then none is asked any more.

}  // namespace

struct Watchers::NodeSink {
  Watchers* owner = nullptr;
  size_t node = 0;
  kw_watch_sink sink{};
};

struct Watchers::Watcher {
  uint64_t id = 0;  // As Watch::id.
  size_t slot = 0;
  size_t record = 0;  // Index in History::watches.
  size_t node = 0;
  uint64_t kernel_id = 0;
  bool slow = false;
  uint64_t window = 0, owed = 0;  // Its credit, and what of it is to be given back. As api-etcd does it.
  bool created = false;
  bool closing = false;
  bool ended = false;
  int64_t start = 0;    // The first revision it may get; 0: not known before it is created.
  int64_t reached = 0;  // Every event up to it has come.
};

struct Watchers::Group {
  std::vector<uint64_t> watcher_ids;
  size_t node = 0;
};

Watchers::Watchers(const WorkloadOptions& options, World* world, Generator* generator, History* history)
    : options_(options), world_(world), generator_(generator), history_(history) {
  slots_.resize(world->node_count() + options.watches);
  resume_.resize(slots_.size());
}

Watchers::~Watchers() = default;

void Watchers::Start() {
  for (size_t slot = 0; slot < slots_.size(); ++slot) OpenSlot(slot);
  ScheduleProgress();
}

// ---- opening and closing ----

void Watchers::OpenSlot(size_t slot) {
  const bool is_observer = slot < world_->node_count();
  size_t node = slot;
  if (!is_observer) node = generator_->random().Below(world_->node_count());
  if (!world_->IsUp(node)) {
    if (settling_ && !is_observer) return;
    world_->CallAt(world_->now_ns() + kRetryNs, [this, slot] {
      if (slots_[slot] == nullptr) OpenSlot(slot);
    });
    return;
  }
  Watch watch;
  if (resume_[slot].stream != 0) {
    watch = std::exchange(resume_[slot], Watch());
  } else {
    if (settling_ && !is_observer) return;
    watch.stream = next_stream_++;
    if (is_observer) {
      watch.key = watch.end = std::string(1, '\0');
      watch.start_revision = 1;
      watch.flags = KW_WATCH_PREV_KV;
    } else {
      generator_->DrawWatch(&watch);
    }
  }
  watch.client = 1'000'000 + slot;
  Open(slot, std::move(watch), node);
}

void Watchers::Open(size_t slot, Watch watch, size_t node) {
  while (sinks_.size() <= node) {
    auto sink = std::make_unique<NodeSink>();
    sink->owner = this;
    sink->node = sinks_.size();
    sink->sink.self = sink.get();
    sink->sink.deliver = &Watchers::Deliver;
    sinks_.push_back(std::move(sink));
  }
  auto watcher = std::make_unique<Watcher>();
  watcher->id = next_id_++;
  watcher->slot = slot;
  watcher->record = history_->watches.size();
  watcher->node = node;
  watcher->start = watch.start_revision;
  watcher->reached = watch.start_revision > 0 ? watch.start_revision - 1 : 0;
  const bool is_observer = slot < world_->node_count();
  watcher->slow = !settling_ && !is_observer && generator_->random().Percent(options_.slow_watch_percent);
  watch.id = watcher->id;
  watch.node = node;
  watch.open_ns = world_->now_ns();
  watch.end_ns = kNever;
  watch.batches.clear();

  kw_watch request{};
  request.size = sizeof request;
  request.flags = watch.flags;
  request.key = ToSlice(watch.key);
  request.end = ToSlice(watch.end);
  request.start_revision = watch.start_revision;
  watcher->window = is_observer || settling_ ? kAmpleCredit
                    : watcher->slow          ? 1 + generator_->random().Below(2000)
                                             : 4096 + generator_->random().Below(60'000);
  request.credit_bytes = watcher->window;
  request.sink = &sinks_[node]->sink;
  request.ctx = watcher.get();
  Watcher* opened = watcher.get();
  slots_[slot] = std::move(watcher);
  history_->watches.push_back(watch);
  opened->kernel_id = world_->WatchOpen(node, request);
  if (!is_observer) ScheduleClose(opened);
}

void Watchers::ScheduleClose(Watcher* watcher) {
  const int64_t life_ns = generator_->random().Between(1, options_.watch_life_ns_max);
  world_->CallAt(world_->now_ns() + life_ns, [this, id = watcher->id] {
    Watcher* open = Find(id);
    if (open == nullptr || open->closing || settling_ || !world_->IsUp(open->node)) return;
    open->closing = true;
    world_->WatchClose(open->node, open->kernel_id);
  });
}

Watchers::Watcher* Watchers::Find(uint64_t watcher_id) {
  for (const auto& watcher : slots_) {
    if (watcher != nullptr && watcher->id == watcher_id && !watcher->ended) return watcher.get();
  }
  return nullptr;
}

// The record is complete. What comes next in its slot: it resumes, or another one is drawn.
void Watchers::OnEnd(Watcher* watcher) {
  KW_CHECK(!watcher->ended);
  watcher->ended = true;
  Watch& record = history_->watches[watcher->record];
  record.end_ns = world_->now_ns();
  const size_t slot = watcher->slot;
  const bool is_observer = slot < world_->node_count();
  const bool compacted = !record.batches.empty() && record.batches.back().detail == KW_DETAIL_COMPACTED;
  Watch next;
  next.key = record.key;
  next.end = record.end;
  next.flags = record.flags;
  if (compacted && is_observer) {
    next.start_revision = record.batches.back().compact_revision;
    next.stream = next_stream_++;
  } else if (!compacted && (is_observer || generator_->random().Percent(70)) &&
             (watcher->reached > 0 || watcher->start > 0)) {
    next.start_revision = watcher->reached + 1;
    next.stream = record.stream;
  }
  resume_[slot] = std::move(next);
  ended_.push_back(std::move(slots_[slot]));
  world_->CallAt(world_->now_ns() + kRetryNs, [this, slot] {
    if (slots_[slot] == nullptr) OpenSlot(slot);
  });
}

void Watchers::OnNodeDown(size_t node) {
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot] != nullptr && slots_[slot]->node == node) OnEnd(slots_[slot].get());
  }
  std::erase_if(ended_, [node](const auto& watcher) { return watcher->node == node; });
  std::erase_if(groups_, [node](const auto& group) { return group->node == node; });
}

// ---- what comes in ----

void Watchers::Deliver(void* self, kw_delivery* delivery) {
  auto* sink = static_cast<NodeSink*>(self);
  for (size_t i = 0; i < delivery->batch_count; ++i) {
    sink->owner->OnBatch(sink->node, delivery->batches[i]);
  }
  delivery->release(delivery);
}

void Watchers::OnBatch(size_t node, const kw_watch_batch& batch) {
  if (batch.kind == KW_WATCH_GROUP_PROGRESS) {
    auto at = std::find_if(groups_.begin(), groups_.end(),
                           [&](const auto& group) { return group.get() == batch.watch_ctx; });
    KW_CHECK(at != groups_.end() && (*at)->node == node);
    for (uint64_t id : (*at)->watcher_ids) {
      Watcher* watcher = Find(id);
      if (watcher == nullptr) continue;
      watcher->reached = std::max(watcher->reached, batch.revision);
      history_->watches[watcher->record].batches.push_back(ToWatchBatch(batch, world_->now_ns()));
    }
    groups_.erase(at);
    return;
  }
  auto* watcher = static_cast<Watcher*>(batch.watch_ctx);
  // Also for one that has ended: the checker must see what comes after CANCELED.
  history_->watches[watcher->record].batches.push_back(ToWatchBatch(batch, world_->now_ns()));
  if (watcher->ended) return;
  switch (batch.kind) {
    case KW_WATCH_CREATED:
      watcher->created = true;
      if (watcher->start == 0) {
        watcher->start = batch.revision + 1;
        watcher->reached = batch.revision;
      }
      break;
    case KW_WATCH_EVENTS:
      OnEvents(watcher, batch);
      break;
    case KW_WATCH_PROGRESS:
      watcher->reached = std::max(watcher->reached, batch.revision);
      break;
    case KW_WATCH_CANCELED:
      OnEnd(watcher);
      return;
    default:
      return;  // The checker names an unknown kind.
  }
  if (watcher->slot < world_->node_count() && watcher->reached > 0) {
    generator_->OnCovered(watcher->reached);
  }
}

void Watchers::OnEvents(Watcher* watcher, const kw_watch_batch& batch) {
  if (batch.event_count > 0) {
    watcher->reached = std::max(watcher->reached, batch.events[batch.event_count - 1]->mod_revision);
  }
  watcher->owed += batch.credit_bytes;
  if (!watcher->slow && watcher->owed < watcher->window / kWindowPart) return;
  const int64_t delay_ns = watcher->slow && !settling_ ? generator_->random().Between(1, 1'000'000'000) : 1;
  world_->CallAt(
      world_->now_ns() + delay_ns,
      [this, id = watcher->id, bytes = std::exchange(watcher->owed, 0)] { GiveCredit(id, bytes); });
}

void Watchers::GiveCredit(uint64_t watcher_id, uint64_t bytes) {
  Watcher* watcher = Find(watcher_id);
  if (watcher != nullptr && world_->IsUp(watcher->node)) {
    world_->WatchCredit(watcher->node, watcher->kernel_id, bytes);
  }
}

// ---- progress ----

void Watchers::ScheduleProgress() {
  const int64_t most_ns = settling_ ? kRetryNs : options_.progress_ns_max;
  world_->CallAt(world_->now_ns() + generator_->random().Between(1, most_ns), [this] {
    RequestProgress();
    ScheduleProgress();
  });
}

// Of one watch, or of all on one node as a group.
void Watchers::RequestProgress() {
  if (settling_) {
    for (const auto& watcher : slots_) {
      if (watcher == nullptr || !watcher->created || !world_->IsUp(watcher->node)) continue;
      const uint64_t id = watcher->kernel_id;
      world_->WatchProgress(watcher->node, &sinks_[watcher->node]->sink, &id, 1, nullptr);
    }
    return;
  }
  const size_t node = generator_->random().Below(world_->node_count());
  if (!world_->IsUp(node) || node >= sinks_.size()) return;
  std::vector<uint64_t> kernel_ids;
  auto group = std::make_unique<Group>();
  group->node = node;
  for (const auto& watcher : slots_) {
    if (watcher == nullptr || watcher->node != node || !watcher->created || watcher->closing) continue;
    kernel_ids.push_back(watcher->kernel_id);
    group->watcher_ids.push_back(watcher->id);
  }
  if (kernel_ids.empty()) return;
  if (generator_->random().Percent(50) || groups_.size() >= kGroupsMax) {
    const uint64_t id = kernel_ids[generator_->random().Below(kernel_ids.size())];
    world_->WatchProgress(node, &sinks_[node]->sink, &id, 1, nullptr);
    return;
  }
  groups_.push_back(std::move(group));
  world_->WatchProgress(node, &sinks_[node]->sink, kernel_ids.data(), kernel_ids.size(),
                        groups_.back().get());
}

void Watchers::BeginSettle() {
  settling_ = true;
  for (const auto& watcher : slots_) {
    if (watcher == nullptr || !world_->IsUp(watcher->node)) continue;
    if (watcher->slow) world_->WatchCredit(watcher->node, watcher->kernel_id, kAmpleCredit);
    watcher->slow = false;
  }
}

bool Watchers::IsCompleteUpTo(int64_t revision, std::string* what) const {
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    const bool is_observer = slot < world_->node_count();
    const Watcher* watcher = slots_[slot].get();
    if (watcher == nullptr) {
      if (!is_observer || !world_->IsUp(slot)) continue;
      *what = "the observer of node " + std::to_string(slot) + " is not open";
      return false;
    }
    if (!world_->IsUp(watcher->node) || watcher->start > revision) continue;
    if (watcher->reached >= revision && !watcher->closing) continue;
    *what = "watch " + std::to_string(watcher->id) + " on node " + std::to_string(watcher->node) +
            (watcher->closing ? " was closed and is not canceled; it" : "") + " has reached revision " +
            std::to_string(watcher->reached) + " of " + std::to_string(revision);
    return false;
  }
  return true;
}

}  // namespace keyway::sim
