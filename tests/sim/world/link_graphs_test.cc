// SPDX-License-Identifier: Apache-2.0
//
// Liveness: for each of the 64 graphs of directed links between three nodes. If some node has links both
// ways with a quorum, then somebody leads and writes are acknowledged within bounded virtual time, whoever
// led before; and when all links are back, all come together.
#include <gtest/gtest.h>

#include <string>

#include "tests/sim/world/script.h"

namespace keyway::sim {
namespace {

constexpr uint64_t kElection = 1 * kSecond;  // 10 ticks of 100 ms.
constexpr uint64_t kBound = 20 * kElection;
constexpr std::pair<size_t, size_t> kLinks[6] = {{0, 1}, {1, 0}, {0, 2}, {2, 0}, {1, 2}, {2, 1}};

// A node that has links both ways with a quorum, or 3.
size_t Centre(const Cluster& cluster, SimNetwork& network) {
  (void)cluster;
  for (size_t node = 0; node < 3; ++node) {
    for (size_t other = 0; other < 3; ++other) {
      if (other != node && !network.IsBlocked(node, other) && !network.IsBlocked(other, node)) return node;
    }
  }
  return 3;
}

TEST(LinkGraphs, AQuorumThatCanTalkGoesOn) {
  for (uint32_t graph = 0; graph < 64; ++graph) {
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      SCOPED_TRACE("graph " + std::to_string(graph) + ", seed " + std::to_string(seed));
      Swarm swarm;
      swarm.spares = 0;
      Cluster cluster(seed, swarm, false);
      Script script(&cluster);
      cluster.StartAll();
      cluster.RunUntil(cluster.scheduler().now_ns() + 4 * kElection, nullptr);
      ASSERT_TRUE(script.Put(0, "before", "1"));
      for (uint32_t link = 0; link < 6; ++link) {
        if ((graph >> link & 1) == 0) cluster.network().Block(kLinks[link].first, kLinks[link].second, true);
      }
      const size_t centre = Centre(cluster, cluster.network());
      if (centre < 3) {
        // Every node that is in such a pair must get its writes through, by any of the pairs.
        const uint64_t deadline = cluster.scheduler().now_ns() + kBound;
        bool done = false;
        while (!done && cluster.scheduler().now_ns() < deadline) {
          for (size_t node = 0; node < 3 && !done; ++node) {
            done = script.Put(node, "during", std::to_string(node), 2 * kElection);
          }
        }
        EXPECT_TRUE(done) << "no write within " << kBound / kSecond << " s";
      } else {
        cluster.RunUntil(cluster.scheduler().now_ns() + 5 * kElection, nullptr);
      }
      cluster.network().HealAll();
      std::string why;
      const bool together =
          cluster.RunUntil(cluster.scheduler().now_ns() + kBound, [&] { return cluster.IsTogether(&why); });
      EXPECT_TRUE(together) << why;
      EXPECT_TRUE(script.Put(1, "after", "1"));
      ASSERT_EQ(cluster.failure(), "");
    }
  }
}

}  // namespace
}  // namespace keyway::sim
