// SPDX-License-Identifier: Apache-2.0
//
// Clusters under random faults: safety after each step (cluster_harness.h), and, once the faults have
// ended, one leader, equal logs and progress. KEYWAY_RAFT_SEEDS=n runs n seeds of each kind,
// from KEYWAY_RAFT_FIRST_SEED on.
#include <algorithm>
#include <cstdlib>

#include "gtest/gtest.h"
#include "kernel/raft/cluster_harness.h"

namespace keyway::raft {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t standard) {
  const char* text = std::getenv(name);
  return text == nullptr ? standard : std::strtoull(text, nullptr, 10);
}

uint64_t SeedCount(uint64_t standard) { return FromEnvironment("KEYWAY_RAFT_SEEDS", standard); }

void ExpectConvergence(Cluster& cluster) {
  cluster.Heal();
  cluster.Run(60);  // What was under way, transfers and changes of membership, comes to its end.
  ASSERT_FALSE(cluster.failed());
  const NodeId leader = cluster.RunUntilLeader(300);
  ASSERT_NE(leader, 0u);
  const uint64_t index = cluster.Propose(leader, "after");
  ASSERT_NE(index, 0u);
  for (NodeId id = 1; id <= cluster.node_count(); ++id) cluster.Read(id);
  cluster.Run(60);
  ASSERT_FALSE(cluster.failed());
  ASSERT_EQ(cluster.Leader(), leader);
  const Configuration members = cluster.raft(leader).configuration();
  for (const std::vector<NodeId>& ids : {members.voters, members.learners}) {
    for (NodeId id : ids) {
      EXPECT_EQ(cluster.raft(id).commit_index(), index) << "node " << id;
      EXPECT_EQ(cluster.engine(id).applied, index) << "node " << id;
      EXPECT_EQ(cluster.raft(id).leader(), leader) << "node " << id;
      EXPECT_EQ(cluster.raft(id).configuration(), members) << "node " << id;
    }
  }
  EXPECT_EQ(cluster.reads_waiting(), 0u);
}

struct Totals {
  uint64_t committed = 0, reads = 0, snapshots = 0, log_reads = 0;
};

void RunSeeds(ClusterOptions options, uint64_t seeds, int steps, Totals* totals) {
  const uint64_t first = FromEnvironment("KEYWAY_RAFT_FIRST_SEED", 1);
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    options.seed = seed;
    Cluster cluster(options);
    for (int i = 0; i < steps && !cluster.failed(); ++i) cluster.RandomStep();
    ExpectConvergence(cluster);
    if (::testing::Test::HasFailure()) return;
    totals->committed += cluster.committed();
    totals->reads += cluster.reads_confirmed();
    totals->snapshots += cluster.snapshots_installed();
    totals->log_reads += cluster.log_reads();
  }
  std::printf("committed %lu, reads %lu, snapshots %lu, log reads %lu\n", totals->committed, totals->reads,
              totals->snapshots, totals->log_reads);
  EXPECT_GT(totals->committed, seeds * 10);
  EXPECT_GT(totals->reads, seeds);
}

TEST(RaftCluster, StaysSafeWithThreeNodes) {
  Totals totals;
  RunSeeds({.voters = 3}, SeedCount(100), 4000, &totals);
  EXPECT_GT(totals.snapshots, 0u);
}

TEST(RaftCluster, StaysSafeWithFiveNodes) {
  Totals totals;
  RunSeeds({.voters = 5}, SeedCount(50), 4000, &totals);
}

TEST(RaftCluster, StaysSafeWithSmallWindowsAndNoCache) {
  Totals totals;
  RunSeeds({.voters = 3, .append_bytes_max = 100, .inflight_messages_max = 2, .cache_bytes = 0},
           SeedCount(60), 4000, &totals);
  EXPECT_GT(totals.log_reads, 0u);
}

// Damaged logs, on a minority at a time: what they had acknowledged stays committed.
TEST(RaftCluster, StaysSafeWhileLogsAreLost) {
  Totals totals;
  RunSeeds({.voters = 3, .loses_logs = true}, SeedCount(150), 4000, &totals);
  RunSeeds({.voters = 5, .loses_logs = true}, SeedCount(60), 4000, &totals);
}

TEST(RaftCluster, StaysSafeWhileMembershipChanges) {
  Totals totals;
  RunSeeds({.voters = 3, .nodes = 6}, SeedCount(80), 5000, &totals);
  EXPECT_GT(totals.snapshots, 0u);
}

TEST(RaftCluster, StaysSafeWithOneVoter) {
  Totals totals;
  RunSeeds({.voters = 1, .nodes = 3}, SeedCount(20), 3000, &totals);
}

// A quorum that is connected both ways to one node is enough (reliability goal R6): all 64 graphs of
// directed links between three nodes.
TEST(RaftCluster, CommitsUnderEveryLinkGraphWithAConnectedQuorum) {
  const std::pair<NodeId, NodeId> links[] = {{1, 2}, {2, 1}, {1, 3}, {3, 1}, {2, 3}, {3, 2}};
  for (unsigned graph = 0; graph < 64; ++graph) {
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      SCOPED_TRACE("graph " + std::to_string(graph) + ", seed " + std::to_string(seed));
      auto up = [&](NodeId a, NodeId b) {
        for (unsigned i = 0; i < 6; ++i) {
          if (links[i] == std::pair(a, b)) return ((graph >> i) & 1) != 0;
        }
        return false;
      };
      const bool connected = (up(1, 2) && up(2, 1)) || (up(1, 3) && up(3, 1)) || (up(2, 3) && up(3, 2));
      Cluster cluster({.seed = seed * 64 + graph, .voters = 3});
      const NodeId first = cluster.RunUntilLeader();
      ASSERT_NE(first, 0u);
      for (auto [from, to] : links) {
        if (!up(from, to)) cluster.Block(from, to);
      }
      const uint64_t before = cluster.committed();
      cluster.Run(100);
      uint64_t committed = before;
      // Someone leads and commits new proposals. Links in one direction may move the leadership.
      for (int i = 0; i < 100 && committed == before; ++i) {
        if (NodeId leader = cluster.Leader(); leader != 0) cluster.Propose(leader, "x");
        cluster.Run(1);
        committed = cluster.committed();
      }
      ASSERT_FALSE(cluster.failed());
      if (connected) {
        EXPECT_GT(committed, before);
      } else {
        EXPECT_EQ(cluster.Leader(), 0u);
      }
    }
  }
}

}  // namespace
}  // namespace keyway::raft
