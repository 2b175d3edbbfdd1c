// SPDX-License-Identifier: Apache-2.0
#include "kernel/watch/watch_registry.h"

#include <algorithm>

#include "kernel/base/check.h"

namespace keyway::watch {
namespace {

void PutInto(std::vector<Watch*>* list, Watch* watch, uint32_t Watch::*index) {
  KW_DCHECK(watch->*index == kNotListed);
  watch->*index = static_cast<uint32_t>(list->size());
  list->push_back(watch);
}

void TakeOut(std::vector<Watch*>* list, Watch* watch, uint32_t Watch::*index) {
  uint32_t at = watch->*index;
  KW_CHECK(at < list->size() && (*list)[at] == watch);
  (*list)[at] = list->back();
  (*list)[at]->*index = at;
  list->pop_back();
  watch->*index = kNotListed;
}

}  // namespace

WatchRegistry::~WatchRegistry() {
  for (Watch* watch : All()) Remove(watch);
}

Watch* WatchRegistry::Add(uint64_t id, std::string_view start, std::string_view end, uint32_t flags) {
  auto [at, inserted] = watches_.try_emplace(id, nullptr);
  KW_CHECK(inserted);
  at->second = std::make_unique<Watch>();
  Watch* watch = at->second.get();
  watch->id = id;
  watch->flags = flags & kWatchFlags;
  watch->group = GroupOf(start, end);
  PutInto(&watch->group->synced, watch, &Watch::group_index);
  if ((flags & KW_WATCH_PREV_KV) != 0) ++prev_count_;
  return watch;
}

void WatchRegistry::Remove(Watch* watch) {
  SetLagging(watch, false);
  Group* group = watch->group;
  TakeOut(&group->synced, watch, &Watch::group_index);
  if ((watch->flags & KW_WATCH_PREV_KV) != 0) --prev_count_;
  if (group->synced.empty() && group->lagging.empty()) DropGroup(group);
  watches_.erase(watch->id);
}

Watch* WatchRegistry::Find(uint64_t id) const {
  auto at = watches_.find(id);
  return at == watches_.end() ? nullptr : at->second.get();
}

std::vector<Watch*> WatchRegistry::All() const {
  std::vector<Watch*> all;
  all.reserve(watches_.size());
  for (const auto& [id, watch] : watches_) all.push_back(watch.get());
  std::sort(all.begin(), all.end(), [](const Watch* a, const Watch* b) { return a->id < b->id; });
  return all;
}

void WatchRegistry::SetLagging(Watch* watch, bool lagging) {
  if (watch->lagging == lagging) return;
  Group* group = watch->group;
  TakeOut(lagging ? &group->synced : &group->lagging, watch, &Watch::group_index);
  PutInto(lagging ? &group->lagging : &group->synced, watch, &Watch::group_index);
  watch->lagging = lagging;
  if (lagging) {
    PutInto(&lagging_, watch, &Watch::lagging_index);
  } else {
    TakeOut(&lagging_, watch, &Watch::lagging_index);
  }
  UpdateReady(watch);
}

void WatchRegistry::UpdateReady(Watch* watch) {
  bool ready = watch->lagging && watch->credit > 0;
  if (ready == (watch->ready_index != kNotListed)) return;
  if (ready) {
    PutInto(&ready_, watch, &Watch::ready_index);
  } else {
    TakeOut(&ready_, watch, &Watch::ready_index);
    watch->blocked = false;
  }
}

Group* WatchRegistry::GroupOf(std::string_view start, std::string_view end) {
  if (end.empty()) {
    auto at = keys_.find(start);
    if (at != keys_.end()) return at->second.get();
    auto group = std::make_unique<Group>(start, end, false, true);
    Group* result = group.get();
    keys_.emplace(std::string_view(result->start()), std::move(group));
    return result;
  }
  bool unbounded = end == std::string_view("\0", 1);
  KW_CHECK(unbounded || start < end);
  if (IntervalNode* known = ranges_.Find(start, end, unbounded)) {
    return static_cast<Group*>(known);
  }
  auto* group = new Group(start, end, unbounded, false);
  ranges_.Insert(group);
  return group;
}

void WatchRegistry::DropGroup(Group* group) {
  KW_DCHECK(group->matched.empty());
  if (!group->single) {
    ranges_.Erase(group);
    delete group;
    return;
  }
  auto at = keys_.find(group->start());
  KW_CHECK(at != keys_.end());
  std::unique_ptr<Group> owned = std::move(at->second);  // Outlives the key in the map.
  keys_.erase(at);
}

}  // namespace keyway::watch
