// SPDX-License-Identifier: Apache-2.0
#include "kernel/core/forwarded_ids.h"

#include <gtest/gtest.h>

#include <random>

namespace keyway::core {
namespace {

TEST(ForwardedIds, KnowsWhatCameInAnyOrder) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    ForwardedIds ids;
    std::set<uint64_t> model;
    for (int i = 0; i < 100; ++i) {
      const uint64_t id = 1 + random() % 60;
      ids.Take(id);
      model.insert(id);
      size_t runs = 0;
      for (uint64_t probe = 1; probe <= 61; ++probe) {
        EXPECT_EQ(ids.Came(probe), model.contains(probe));
        runs += model.contains(probe) && !model.contains(probe - 1) ? 1 : 0;
      }
      EXPECT_EQ(ids.run_count(), runs);
    }
  }
}

TEST(ForwardedIds, WhatWasGivenUpIsRefusedAndSaidAgainToBeLost) {
  ForwardedIds ids;
  ids.Take(1);
  ids.Take(3);
  EXPECT_TRUE(ids.CameOrGiveUp(1));
  EXPECT_FALSE(ids.Knows(2));
  EXPECT_FALSE(ids.CameOrGiveUp(2));
  EXPECT_TRUE(ids.Knows(2));
  EXPECT_FALSE(ids.CameOrGiveUp(2));  // The first answer may have been lost.
  EXPECT_FALSE(ids.Knows(4));
}

}  // namespace
}  // namespace keyway::core
