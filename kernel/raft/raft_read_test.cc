// SPDX-License-Identifier: Apache-2.0
//
// ReadIndex (dissertation 6.4). The harness checks that no confirmed read is stale.
#include "gtest/gtest.h"
#include "kernel/raft/cluster_harness.h"

namespace keyway::raft {
namespace {

TEST(RaftRead, SingleVoterAnswersAtOnce) {
  Cluster cluster({.voters = 1});
  ASSERT_EQ(cluster.RunUntilLeader(), 1u);

  cluster.Read(1);

  EXPECT_EQ(cluster.reads_confirmed(), 1u);
}

TEST(RaftRead, LeaderAsksAMajority) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Propose(leader, "x");
  cluster.Settle();

  cluster.Read(leader);
  EXPECT_EQ(cluster.reads_confirmed(), 0u);
  cluster.Settle();
  EXPECT_EQ(cluster.reads_confirmed(), 1u);
}

TEST(RaftRead, LeaderWithoutQuorumConfirmsNothing) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Isolate(leader);
  cluster.Read(leader);
  cluster.Run(3);
  EXPECT_EQ(cluster.reads_confirmed(), 0u);

  cluster.Run(20);  // It steps down: the read has failed.

  EXPECT_EQ(cluster.reads_confirmed(), 0u);
  EXPECT_EQ(cluster.reads_failed(), 1u);
}

// Dissertation 6.4, step 1.
TEST(RaftRead, WaitsForACommitInTheTerm) {
  Cluster cluster({.voters = 3});
  cluster.hold_writes = true;
  cluster.Campaign(1);
  cluster.Settle();
  cluster.CompleteWrite(1);
  cluster.Settle();
  for (NodeId id : {2, 3}) cluster.CompleteWrite(id);
  cluster.Settle();
  ASSERT_EQ(cluster.raft(1).role(), Role::kLeader);
  cluster.Read(1);
  cluster.Settle();
  EXPECT_EQ(cluster.reads_waiting(), 1u);

  cluster.hold_writes = false;
  cluster.Settle();

  EXPECT_EQ(cluster.reads_confirmed(), 1u);
}

TEST(RaftRead, ReadsOfOneOutputShareARound) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Run(1);
  size_t heartbeats = 0;
  size_t requests = 0;
  cluster.on_send = [&](const Message& message) {
    if (message.kind == MessageKind::kHeartbeat) ++heartbeats;
    if (message.kind == MessageKind::kReadIndex) ++requests;
  };
  size_t answers = 0;
  for (NodeId id : {leader, leader % 3 + 1}) {
    std::vector<ReadState> reads;
    Raft& raft = cluster.raft(id);
    for (uint64_t context = 1000; context < 1100; ++context) raft.ReadIndex(context);
    Output output = raft.TakeOutput();
    size_t sent = 0;
    for (const Message& message : output.messages) {
      if (message.kind == MessageKind::kHeartbeat || message.kind == MessageKind::kReadIndex) ++sent;
    }
    EXPECT_EQ(sent, id == leader ? 2u : 1u);
    answers += output.reads.size();
  }
  EXPECT_EQ(answers, 0u);
}

// Many rounds cannot pile up: what comes while some are under way joins the next.
TEST(RaftRead, RoundsUnderWayAreBounded) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  size_t heartbeats = 0;
  cluster.on_send = [&](const Message& message) {
    if (message.kind == MessageKind::kHeartbeat) ++heartbeats;
  };
  for (int i = 0; i < 100; ++i) cluster.Read(leader);
  EXPECT_LE(heartbeats, 8u);

  cluster.Settle();

  EXPECT_EQ(cluster.reads_confirmed(), 100u);
}

TEST(RaftRead, FollowerAsksItsLeader) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Run(1);
  const NodeId follower = leader % 3 + 1;

  for (int i = 0; i < 3; ++i) cluster.Read(follower);
  cluster.Settle();

  EXPECT_EQ(cluster.reads_confirmed(), 3u);
}

TEST(RaftRead, FailsWithoutALeader) {
  Cluster cluster({.voters = 3});

  cluster.Read(1);

  EXPECT_EQ(cluster.reads_failed(), 1u);
}

TEST(RaftRead, FailsWhenTheLeaderDoesNotAnswer) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Run(1);
  cluster.lose = [](const Message& message) { return message.kind == MessageKind::kReadIndexResponse; };
  cluster.Read(leader % 3 + 1);
  cluster.Run(9);
  EXPECT_EQ(cluster.reads_failed(), 0u);

  cluster.Run(1);

  EXPECT_EQ(cluster.reads_failed(), 1u);
}

TEST(RaftRead, FailsWhenTheLeaderChanges) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Run(1);
  const NodeId follower = leader % 3 + 1;
  cluster.lose = [](const Message& message) { return message.kind == MessageKind::kReadIndexResponse; };
  cluster.Read(follower);
  cluster.Do(leader, [&](Raft& raft) { raft.TransferLeadership(follower % 3 + 1); });
  cluster.Settle();

  EXPECT_EQ(cluster.reads_failed(), 1u);
  EXPECT_EQ(cluster.reads_waiting(), 0u);
}

// An answer for an earlier incarnation of the follower must not confirm a read of this one.
TEST(RaftRead, RestartedFollowerIgnoresOldAnswers) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Run(1);
  const NodeId follower = leader % 3 + 1;
  std::vector<Message> answers;
  cluster.on_send = [&](const Message& message) {
    if (message.kind == MessageKind::kReadIndexResponse) answers.push_back(message);
  };
  cluster.lose = [](const Message& message) { return message.kind == MessageKind::kReadIndexResponse; };
  cluster.Read(follower);
  cluster.Settle();
  ASSERT_EQ(answers.size(), 1u);
  cluster.Restart(follower);
  cluster.Run(1);
  cluster.Propose(leader, "newer");
  cluster.Settle();

  cluster.Read(follower);
  cluster.Inject(answers[0]);

  EXPECT_EQ(cluster.reads_confirmed(), 0u);
  EXPECT_FALSE(cluster.failed());
}

// Answers of learners prove nothing.
TEST(RaftRead, LearnersDoNotConfirm) {
  Cluster cluster({.voters = 2, .nodes = 3});
  const NodeId leader = cluster.RunUntilLeader();
  const NodeId other = 3 - leader;
  cluster.ProposeConfiguration(leader, {{1, 2}, {3}});
  cluster.Run(3);
  cluster.Crash(other);

  cluster.Read(leader);
  cluster.Run(3);
  EXPECT_EQ(cluster.reads_confirmed(), 0u);
  cluster.Restart(other);
  cluster.Run(3);
  EXPECT_EQ(cluster.reads_confirmed(), 1u);
}

}  // namespace
}  // namespace keyway::raft
