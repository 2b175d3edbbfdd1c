// SPDX-License-Identifier: Apache-2.0
//
// No false alarm: histories of a store that is right pass all checkers, whatever their mix.
#include "tests/sim/history/checkers.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/sim/history/test_world.h"

namespace keyway::sim {
namespace {

class GoodHistory : public testing::TestWithParam<uint64_t> {};

TEST_P(GoodHistory, PassesEveryChecker) {
  TestWorldOptions world_options;
  world_options.seed = GetParam();
  TestWorld world(world_options);

  const History history = world.Run(WorkloadOptions::Draw(GetParam()), 60'000'000'000);

  EXPECT_GT(history.operations.size(), 300u) << "seed " << GetParam();
  for (const Finding& finding : CheckAll(history, {})) {
    ADD_FAILURE() << "seed " << GetParam() << ": " << finding.checker << ": " << finding.text;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, GoodHistory, testing::Range<uint64_t>(1, 41));

// The histories above are worth their name only if everything occurs in them.
TEST(GoodHistories, ContainEverything) {
  std::map<Kind, int> ok;
  std::map<uint32_t, int> details;
  int unknown = 0, unknown_made = 0, expiries = 0, watches = 0, slow_batches = 0, prev_missing = 0;
  std::map<uint32_t, int> batches;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    TestWorldOptions world_options;
    world_options.seed = seed;
    TestWorld world(world_options);
    const History history = world.Run(WorkloadOptions::Draw(seed), 30'000'000'000);
    Order order;
    ASSERT_TRUE(CheckStrict(history, &order).empty());
    for (const Operation& operation : history.operations) {
      if (operation.outcome == Outcome::kOk) ++ok[operation.request.kind];
      if (operation.outcome == Outcome::kError) ++details[operation.detail];
      if (operation.outcome == Outcome::kUnknown) ++unknown;
    }
    for (const Revision& revision : order.revisions) {
      if (revision.writer == Writer::kLeaseExpiry) {
        ++expiries;
      } else if (history.operations[revision.operation].outcome == Outcome::kUnknown) {
        ++unknown_made;
      }
    }
    for (const Watch& watch : history.watches) {
      ++watches;
      for (const WatchBatch& batch : watch.batches) {
        ++batches[batch.kind];
        if (batch.events.size() > 1) ++slow_batches;
        for (const WatchEvent& event : batch.events) {
          if (!event.prev.has_value()) ++prev_missing;
        }
      }
    }
  }

  for (Kind kind : {Kind::kPut, Kind::kDelete, Kind::kRange, Kind::kTxn, Kind::kCompact, Kind::kLeaseGrant,
                    Kind::kLeaseRevoke, Kind::kLeaseKeepAlive, Kind::kLeaseTimeToLive}) {
    EXPECT_GT(ok[kind], 10) << static_cast<int>(kind);
  }
  for (uint32_t detail : {KW_DETAIL_COMPACTED, KW_DETAIL_FUTURE_REVISION, KW_DETAIL_LEASE_NOT_FOUND,
                          KW_DETAIL_KEY_NOT_FOUND, KW_DETAIL_DUPLICATE_KEY}) {
    EXPECT_GT(details[detail], 0) << detail;
  }
  for (uint32_t kind :
       {KW_WATCH_CREATED, KW_WATCH_EVENTS, KW_WATCH_PROGRESS, KW_WATCH_CANCELED, KW_WATCH_GROUP_PROGRESS}) {
    EXPECT_GT(batches[kind], 10) << kind;
  }
  EXPECT_GT(unknown, 20);
  EXPECT_GT(unknown_made, 10);
  EXPECT_GT(expiries, 10);
  EXPECT_GT(watches, 100);
  EXPECT_GT(slow_batches, 10);
  EXPECT_GT(prev_missing, 10);
}

}  // namespace
}  // namespace keyway::sim
