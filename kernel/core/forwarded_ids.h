// SPDX-License-Identifier: Apache-2.0
//
// What a leader remembers, within its term, of the proposals that one other member has forwarded: which
// came, and which it has given up because that member asked for them and they had not come.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>
#include <set>

namespace keyway::core {

class ForwardedIds {
 public:
  // Whether it came, or was given up.
  bool Knows(uint64_t id) const { return Came(id) || given_up_.contains(id); }
  bool Came(uint64_t id) const {
    auto after = runs_.upper_bound(id);
    return after != runs_.begin() && id <= std::prev(after)->second;
  }
  void Take(uint64_t id) {
    auto after = runs_.upper_bound(id);
    if (after != runs_.begin()) {
      auto before = std::prev(after);
      if (id <= before->second) return;
      if (before->second + 1 == id) {
        before->second = id;
        if (after != runs_.end() && after->first == id + 1) {
          before->second = after->second;
          runs_.erase(after);
        }
        return;
      }
    }
    uint64_t last = id;
    if (after != runs_.end() && after->first == id + 1) {
      last = after->second;
      runs_.erase(after);
    }
    runs_[id] = last;
  }
  // Whether it came; if not, it is refused should it still come.
  bool CameOrGiveUp(uint64_t id) {
    if (Came(id)) return true;
    given_up_.insert(id);
    return false;
  }
  size_t run_count() const { return runs_.size(); }

 private:
  std::map<uint64_t, uint64_t> runs_;  // First to last: ids ascend, so there are few.
  std::set<uint64_t> given_up_;
};

}  // namespace keyway::core
