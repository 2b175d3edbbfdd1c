// SPDX-License-Identifier: Apache-2.0
//
// Up to where the store may have been compacted at a time: by compactions that were not refused.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "tests/sim/history/types.h"

namespace keyway::sim {

class MaybeCompacted {
 public:
  explicit MaybeCompacted(const History& history) {
    for (const Operation& operation : history.operations) {
      if (operation.request.kind != Kind::kCompact || operation.outcome == Outcome::kError) continue;
      steps_.emplace_back(operation.call_ns, operation.request.revision);
    }
    std::sort(steps_.begin(), steps_.end());
    for (size_t i = 1; i < steps_.size(); ++i) {
      steps_[i].second = std::max(steps_[i].second, steps_[i - 1].second);
    }
  }
  // 0: for certain not at all.
  int64_t At(int64_t time_ns) const {
    auto after = std::upper_bound(steps_.begin(), steps_.end(), std::pair(time_ns, INT64_MAX));
    return after == steps_.begin() ? 0 : std::prev(after)->second;
  }

 private:
  std::vector<std::pair<int64_t, int64_t>> steps_;  // Call, and the greatest revision up to it.
};

}  // namespace keyway::sim
