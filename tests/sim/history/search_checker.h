// SPDX-License-Identifier: Apache-2.0
//
// A search for a linearization, in the manner of Wing and Gong with Lowe's memoization, as porcupine does
// it: for histories of which nothing is known but calls, answers and a sequential model. The model here is
// one register with a number: 0 is its first state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/history/types.h"

namespace keyway::sim {

struct SearchStep {
  enum class Kind : uint8_t { kExpect, kExpectNot, kSet };
  Kind kind = Kind::kSet;
  uint64_t value = 0;
};

// One operation on the register: one of the alternatives happened, as a whole, between call and return.
struct SearchOperation {
  int64_t call_ns = 0;
  int64_t return_ns = kNever;  // kNever: it may also not have happened at all.
  std::vector<std::vector<SearchStep>> alternatives;
  size_t tag = 0;  // For the caller.
};

enum class SearchVerdict : uint8_t { kLinearizable, kNotLinearizable, kGaveUp };

struct SearchResult {
  SearchVerdict verdict = SearchVerdict::kLinearizable;
  // kNotLinearizable: the operation that no order got past, by its place in the input.
  size_t stuck_at = 0;
  uint64_t steps = 0;
};

SearchResult SearchLinearization(const std::vector<SearchOperation>& operations, uint64_t steps_max);

}  // namespace keyway::sim
