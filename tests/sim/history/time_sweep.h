// SPDX-License-Identifier: Apache-2.0
//
// The part of strict serializability that is about real time, once the order of revisions is known.
// Internal to CheckStrict().
#pragma once

#include <cstdint>
#include <vector>

#include "tests/sim/history/describe.h"
#include "tests/sim/history/order.h"
#include "tests/sim/history/types.h"

namespace keyway::sim {

// For each revision up to `last` the earliest time at which an answer or a watch showed it or a later one.
std::vector<int64_t> LatestTimes(const History& history, int64_t last);

// No operation comes before one that had returned when it was called, whatever node served which; no
// revision is seen before its writer was called; compactions, and errors that name revisions, fit.
// Fills order->not_before_ns. `complete`: the order explains every revision of the history.
void SweepTime(const History& history, bool complete, Order* order, Report* report);

}  // namespace keyway::sim
