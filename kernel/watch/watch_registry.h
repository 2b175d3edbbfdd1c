// SPDX-License-Identifier: Apache-2.0
//
// The watches by id, and the groups of those that watch exactly the same keys, found by key: single keys
// in a hash map, ranges in an interval index. Every watch is in one list of its group, and lagging ones
// are in the lists of those that lag and that can catch up, too; all are O(1) to change.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"
#include "kernel/watch/event_store.h"
#include "kernel/watch/interval_index.h"
#include "keyway/kernel.h"

namespace keyway::watch {

inline constexpr uint32_t kNotListed = UINT32_MAX;
inline constexpr uint32_t kWatchFlags = KW_WATCH_PREV_KV | KW_WATCH_NO_PUT | KW_WATCH_NO_DELETE;

struct Group;

struct Watch {
  uint64_t id = 0;
  void* ctx = nullptr;
  Sink* sink = nullptr;
  Group* group = nullptr;
  // Lagging: everything before it was delivered. Synced: no event before it is wanted.
  int64_t next_revision = 0;
  int64_t credit = 0;         // Events may be delivered while it is above 0.
  uint64_t served = 0;        // The number of the last slice of old changes that it took part in.
  int64_t stop_revision = 0;  // During a slice: where this watch could not go on; 0: nowhere.
  uint32_t flags = 0;         // kWatchFlags
  bool lagging = false;
  bool blocked = false;  // Waits for a read that it cannot start; not to be picked meanwhile.
  uint32_t group_index = kNotListed, lagging_index = kNotListed, ready_index = kNotListed;
};

// All watches of the same keys.
struct Group : IntervalNode {
  Group(std::string_view start, std::string_view end, bool unbounded, bool is_single)
      : IntervalNode(start, end, unbounded), single(is_single) {}
  const bool single;
  std::vector<Watch*> synced, lagging;
  std::vector<uint32_t> matched;  // During a slice: the changes that match, ascending.
};

class WatchRegistry {
 public:
  // Synced at first. `end`: as in kw_range, and not an empty range.
  Watch* Add(uint64_t id, std::string_view start, std::string_view end, uint32_t flags);
  void Remove(Watch* watch);
  Watch* Find(uint64_t id) const;
  std::vector<Watch*> All() const;  // By id.

  void SetLagging(Watch* watch, bool lagging);
  // Call after a change of `lagging` or `credit`.
  void UpdateReady(Watch* watch);

  // Calls visit(Group*) for each group whose keys contain `key`.
  template <typename Visit>
  void Match(std::string_view key, Visit&& visit) const {
    if (!keys_.empty()) {
      auto at = keys_.find(key);
      if (at != keys_.end()) visit(at->second.get());
    }
    ranges_.Stab(key, [&visit](IntervalNode* node) { visit(static_cast<Group*>(node)); });
  }

  size_t size() const { return watches_.size(); }
  size_t prev_count() const { return prev_count_; }
  size_t range_count() const { return ranges_.size() + keys_.size(); }
  const std::vector<Watch*>& lagging() const { return lagging_; }
  const std::vector<Watch*>& ready() const { return ready_; }  // Lagging, with credit.

 private:
  struct KeyHash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const {
      return absl::Hash<absl::string_view>()(absl::string_view(key.data(), key.size()));
    }
  };
  struct KeyEqual {
    using is_transparent = void;
    bool operator()(std::string_view a, std::string_view b) const { return a == b; }
  };

  Group* GroupOf(std::string_view start, std::string_view end);
  void DropGroup(Group* group);

  absl::flat_hash_map<uint64_t, std::unique_ptr<Watch>> watches_;
  // Each key is the start() of its group.
  absl::flat_hash_map<std::string_view, std::unique_ptr<Group>, KeyHash, KeyEqual> keys_;
  IntervalIndex ranges_;  // Owns its groups.
  std::vector<Watch*> lagging_, ready_;
  size_t prev_count_ = 0;

 public:
  WatchRegistry() = default;
  ~WatchRegistry();
  WatchRegistry(const WatchRegistry&) = delete;
  WatchRegistry& operator=(const WatchRegistry&) = delete;
};

}  // namespace keyway::watch
