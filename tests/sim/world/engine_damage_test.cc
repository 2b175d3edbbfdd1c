// SPDX-License-Identifier: Apache-2.0
//
// Exhaustive: every bit of every value of a small engine flips, one at a time, while the node is down. It
// then starts with everything that was acknowledged, or refuses by name; it never aborts, and never gives
// out something else.
#include <gtest/gtest.h>

#include <string>

#include "tests/sim/world/script.h"

namespace keyway::sim {
namespace {

TEST(EngineDamage, EveryBitOfEveryValue) {
  Swarm swarm;
  swarm.voters = 1;
  swarm.spares = 0;
  Cluster cluster(1, swarm, false);
  Script script(&cluster);
  cluster.StartAll();
  ASSERT_TRUE(script.Put(0, "a", "1"));
  ASSERT_TRUE(script.Put(0, "b", "2"));
  ASSERT_TRUE(script.Put(0, "a", "3"));
  ASSERT_TRUE(script.Remove(0, "b"));
  ASSERT_TRUE(script.Compact(0, script.last_revision() - 1));
  cluster.RunUntil(cluster.scheduler().now_ns() + 2 * kSecond, nullptr);
  SimNode& node = cluster.node(0);
  node.Stop();
  ASSERT_FALSE(node.is_running());

  struct Place {
    uint32_t table;
    std::string key;
    size_t bits;
  };
  std::vector<Place> places;
  node.store().VisitValues([&](uint32_t table, const std::string& key, std::string* value) {
    places.push_back({table, key, value->size() * 8});
  });
  const auto flip = [&](const Place& place, size_t bit) {
    node.store().VisitValues([&](uint32_t table, const std::string& key, std::string* value) {
      if (table != place.table || key != place.key) return;
      (*value)[bit / 8] = static_cast<char>((*value)[bit / 8] ^ (1 << bit % 8));
    });
  };
  size_t bits = 0, refused = 0;
  for (const Place& place : places) {
    for (size_t bit = 0; bit < place.bits; ++bit, ++bits) {
      const std::string what = "table " + std::to_string(place.table) + ", bit " + std::to_string(bit) +
                               " of " + std::to_string(place.bits);
      flip(place, bit);
      if (cluster.StartAlone(0)) {
        ASSERT_TRUE(node.core()->member_id() != 0) << what;
        const auto found = script.ReadAll(0);
        if (found.has_value()) {
          EXPECT_EQ(script.Missing(*found), "") << what;
        }
        if (node.is_running()) node.Kill(false);
      } else {
        EXPECT_NE(node.failure(), "") << what;
        ++refused;
        node.Kill(false);
      }
      flip(place, bit);
      // What a damaged start has written would speak about the next one.
      ASSERT_EQ(cluster.failure(), "") << what;
    }
  }
  std::printf("%zu values, %zu bits, %zu refused\n", places.size(), bits, refused);
  EXPECT_GT(refused, bits / 2);
  ASSERT_TRUE(cluster.StartAlone(0)) << node.failure();
  const auto found = script.ReadAll(0);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(script.Missing(*found), "");
}

}  // namespace
}  // namespace keyway::sim
