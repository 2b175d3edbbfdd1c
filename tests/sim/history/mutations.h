// SPDX-License-Identifier: Apache-2.0
//
// Defects, put into histories that are right: each must be found. For the tests of the checkers, and for
// the outside check by porcupine.
#pragma once

#include <vector>

#include "tests/sim/history/order.h"
#include "tests/sim/history/random.h"
#include "tests/sim/history/types.h"

namespace keyway::sim {

struct Mutation {
  const char* name;
  const char* checker;  // That must find it.
  bool in_replies;      // Visible in replies of linearizable requests: porcupine must find it, too.
  // Breaks the history at one place; `order` is that of the good one. False if there is no such place.
  bool (*apply)(History* history, const Order& order, HistoryRandom* random);
};
const std::vector<Mutation>& AllMutations();

}  // namespace keyway::sim
