// SPDX-License-Identifier: Apache-2.0
//
// For mutations*.cc: a random place in a history that fits.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/sim/history/mutations.h"

namespace keyway::sim {

// A random index below `count` for which `is_good`; SIZE_MAX if there is none.
template <typename IsGood>
inline size_t Pick(size_t count, HistoryRandom* random, IsGood is_good) {
  std::vector<size_t> good;
  for (size_t i = 0; i < count; ++i) {
    if (is_good(i)) good.push_back(i);
  }
  return good.empty() ? SIZE_MAX : good[random->Below(good.size())];
}

template <typename IsGood>
inline Operation* PickOperation(History* history, HistoryRandom* random, IsGood is_good) {
  const size_t index = Pick(history->operations.size(), random, [&](size_t i) {
    return history->operations[i].outcome == Outcome::kOk && is_good(history->operations[i]);
  });
  return index == SIZE_MAX ? nullptr : &history->operations[index];
}

// The parts of AllMutations() of the other files.
std::vector<Mutation> WatchAndLeaseMutations();

}  // namespace keyway::sim
