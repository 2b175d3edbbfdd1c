// SPDX-License-Identifier: Apache-2.0
//
// The checkers over a History, and CheckAll(), which runs them. None changes the history; all are
// deterministic. An empty result means that nothing was found.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/sim/history/order.h"
#include "tests/sim/history/types.h"

namespace keyway::sim {

// Strict serializability (strict_checker.cc): replays the writes in the order of their revisions on a
// model of etcd's semantics, compares every reply with the state of its revision, and sweeps once over
// time: no operation may come before one that had returned when it was called. O(n log n). `order`
// receives the changes of each revision and who made them, for the other checkers.
Findings CheckStrict(const History& history, Order* order);

// Watch guarantees (watch_checker.cc), on the order that CheckStrict() has found: ordered, unique,
// reliable, atomic, resumable, bookmarkable, prev_kv, is-create, filters.
Findings CheckWatches(const History& history, const Order& order);

struct LeaseBounds {
  // How much earlier than its TTL a lease may end: what clocks of nodes may run fast or jump ahead.
  int64_t early_ns = 0;
  // How much later than its TTL, when nothing disturbs the cluster.
  int64_t late_ns = 3'000'000'000;
  // Times, ascending, from which every lease may count its TTL anew: elections, crashes, heals, ...
  std::vector<int64_t> disturbances_ns;
};
// Lease bounds (lease_checker.cc): no lease ends before the TTL after its last renewal that was
// acknowledged, none lives on beyond its TTL and the bound, and none is used after its end.
Findings CheckLeases(const History& history, const Order& order, const LeaseBounds& bounds);

// A search for a linearization of each key without looking at revisions (search_checker.h). Slower; it
// checks the checkers, and what carries no revision. Gives up (no finding) after `steps_max` steps of a key.
Findings CheckBySearch(const History& history, const Order& order, uint64_t steps_max);

struct CheckOptions {
  LeaseBounds leases;
  uint64_t search_steps_max = 200'000;  // 0: no search.
};
// All of them; later ones only if CheckStrict() found nothing, since they rest on its order.
Findings CheckAll(const History& history, const CheckOptions& options);

}  // namespace keyway::sim
