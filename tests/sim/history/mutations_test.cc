// SPDX-License-Identifier: Apache-2.0
//
// No checker is blind: each defect, put into a good history, is found by the checker whose matter it is.
#include "tests/sim/history/mutations.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "tests/sim/history/checkers.h"
#include "tests/sim/history/test_world.h"

namespace keyway::sim {
namespace {

Findings CheckBy(const std::string& checker, const History& history, const Order& good_order) {
  if (checker == "watch") return CheckWatches(history, good_order);
  if (checker == "lease") return CheckLeases(history, good_order, {});
  Order order;
  return CheckStrict(history, &order);
}

TEST(Mutations, AreAllFound) {
  std::map<std::string, int> applied;
  for (uint64_t seed = 101; seed <= 112; ++seed) {
    TestWorldOptions world_options;
    world_options.seed = seed;
    world_options.loss_permille = seed % 2 == 0 ? 15 : 2;
    TestWorld world(world_options);
    WorkloadOptions options = WorkloadOptions::Draw(seed);
    options.watches = std::max(options.watches, 4u);
    options.lease_grant = std::max(options.lease_grant, 4u);
    options.lease_keep_alive = std::min(options.lease_keep_alive, 2u);
    options.lease_put_percent = std::max(options.lease_put_percent, 30u);
    options.lease_ttl_s_max = 14;
    options.lease_revoke = 1;
    options.clients = std::max(options.clients, 5u);
    const History good = world.Run(options, 25'000'000'000);
    Order order;
    ASSERT_TRUE(CheckStrict(good, &order).empty()) << "seed " << seed;
    HistoryRandom random(seed);
    for (const Mutation& mutation : AllMutations()) {
      History bad = good;
      if (!mutation.apply(&bad, order, &random)) continue;
      ++applied[mutation.name];
      EXPECT_FALSE(CheckBy(mutation.checker, bad, order).empty())
          << "seed " << seed << ", mutation " << mutation.name << " is not found";
    }
  }
  for (const Mutation& mutation : AllMutations()) EXPECT_GT(applied[mutation.name], 0) << mutation.name;
}

// The search looks at no revisions, so a value that was never written, or one that was overwritten long
// ago, must be enough.
TEST(Search, FindsWrongValuesAndStaleReads) {
  int found_stale = 0, applied = 0;
  for (uint64_t seed = 201; seed <= 206; ++seed) {
    TestWorldOptions world_options;
    world_options.seed = seed;
    world_options.loss_permille = 3;
    TestWorld world(world_options);
    WorkloadOptions options;
    options.seed = seed;
    options.keys = 3;
    const History good = world.Run(options, 10'000'000'000);
    Order order;
    ASSERT_TRUE(CheckStrict(good, &order).empty());
    ASSERT_TRUE(CheckBySearch(good, order, 1'000'000).empty());
    HistoryRandom random(seed);
    for (const Mutation& mutation : AllMutations()) {
      const bool stale = std::string(mutation.name) == "stale_read";
      if (!stale && std::string(mutation.name) != "wrong_value") continue;
      History bad = good;
      if (!mutation.apply(&bad, order, &random)) continue;
      const bool found = !CheckBySearch(bad, order, 1'000'000).empty();
      if (stale) {
        ++applied;
        found_stale += found ? 1 : 0;  // The revision before may have changed another key.
      } else {
        EXPECT_TRUE(found) << "seed " << seed << ", " << mutation.name;
      }
    }
  }
  EXPECT_GT(applied, 3);
  EXPECT_GT(found_stale, 0);
}

}  // namespace
}  // namespace keyway::sim
