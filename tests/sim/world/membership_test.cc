// SPDX-License-Identifier: Apache-2.0
//
// Members that come and go at bad moments: defects that seeds have found, in few steps.
#include <gtest/gtest.h>

#include <string>

#include "tests/sim/world/script.h"

namespace keyway::sim {
namespace {

// It may have voted for somebody. Who has heard of it before must know it again, also after a restart, and also
// before the member has published itself.
TEST(Membership, AnEmptiedFounderIsRefusedByOneThatHasRestarted) {
  Swarm swarm;
  swarm.spares = 0;
  Cluster cluster(1, swarm, false);
  Script script(&cluster);
  cluster.StartAll();
  const auto remembers = [&](size_t node, size_t other) {
    const core::Core* core = cluster.node(node).core();
    return core->remembers(cluster.node(other).core()->member_id());
  };
  ASSERT_TRUE(cluster.RunUntil(10 * kSecond, [&] { return remembers(0, 1) && remembers(1, 0); }));
  ASSERT_EQ(cluster.node(0).core()->raft()->leader(), 0u);  // Nothing is published.

  cluster.node(0).Kill(false);
  cluster.node(1).Kill(false);
  cluster.node(1).Wipe();
  for (const auto& [from, to] : {std::pair(1, 2), std::pair(2, 1)}) cluster.network().Block(from, to, true);
  ASSERT_TRUE(cluster.StartAlone(0));
  ASSERT_TRUE(cluster.StartAlone(1));
  cluster.RunUntil(cluster.scheduler().now_ns() + 10 * kSecond, nullptr);
  EXPECT_NE(cluster.failure().find("node 2 stopped: refused by member"), std::string::npos)
      << cluster.failure();
  EXPECT_NE(cluster.failure().find("another data directory"), std::string::npos) << cluster.failure();
}

// Who joins knows nobody, and can only wait for it.
TEST(Membership, OneThatJoinsIsNamedAlthoughTheFirstHelloWasLost) {
  Swarm swarm;
  swarm.spares = 1;
  Cluster cluster(1, swarm, false);
  Script script(&cluster);
  cluster.StartAll();
  ASSERT_TRUE(script.Put(0, "a", "0"));
  ASSERT_TRUE(script.AddLearner(0, SimNetwork::UrlOf(3)));
  cluster.network().faults.loss_ppm = 1'000'000;
  ASSERT_TRUE(cluster.StartAlone(3));
  cluster.RunUntil(cluster.scheduler().now_ns() + 500 * kMillisecond, nullptr);
  ASSERT_EQ(cluster.node(3).core()->raft(), nullptr);

  cluster.network().faults.loss_ppm = 0;
  EXPECT_TRUE(cluster.RunUntil(cluster.scheduler().now_ns() + 10 * kSecond, [&] {
    const raft::Raft* raft = cluster.node(3).core()->raft();
    return raft != nullptr && raft->applied_index() > 1;
  }));
  EXPECT_EQ(cluster.failure(), "");
}

}  // namespace
}  // namespace keyway::sim
