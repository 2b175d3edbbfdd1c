// SPDX-License-Identifier: Apache-2.0
//
// Log replication (Raft paper, 5.3), commitment (5.4.2), flow control, snapshots (7), membership
// (dissertation, chapter 4).
#include <algorithm>

#include "gtest/gtest.h"
#include "kernel/raft/cluster_harness.h"

namespace keyway::raft {
namespace {

void ExpectAllApplied(Cluster& cluster, uint64_t index) {
  for (NodeId id = 1; id <= cluster.node_count(); ++id) {
    EXPECT_EQ(cluster.engine(id).applied, index) << "node " << id;
  }
}

// Raft paper, 5.3.
TEST(RaftReplication, CommitsWithAMajorityAndAppliesEverywhere) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();

  const uint64_t index = cluster.Propose(leader, "a");
  cluster.Settle();

  EXPECT_EQ(index, 2u);
  ExpectAllApplied(cluster, 2);  // The commit index travels without a tick.
  EXPECT_EQ(cluster.DataAt(2), "0:a");
}

TEST(RaftReplication, ProposalsOfOneOutputTravelInOneAppend) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Run(2);
  size_t appends = 0;
  cluster.on_send = [&](const Message& message) {
    if (message.kind == MessageKind::kAppend && !message.entries.empty()) {
      ++appends;
      EXPECT_EQ(message.entries.size(), 10u);
    }
  };

  cluster.Do(leader, [](Raft& raft) {
    for (int i = 0; i < 10; ++i) raft.Propose(SharedBytes::Copy("x"));
  });

  EXPECT_EQ(appends, 2u);
}

// The leader's own disk is not needed, and its memory does not count.
TEST(RaftReplication, LeaderCountsItselfOnlyWhenDurable) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  const NodeId second = leader % 3 + 1;
  const NodeId third = second % 3 + 1;
  cluster.Crash(third);
  cluster.held_disks = {leader};
  const uint64_t index = cluster.Propose(leader, "a");
  cluster.Settle();
  EXPECT_LT(cluster.raft(leader).commit_index(), index);

  cluster.Restart(third);
  cluster.Run(5);

  EXPECT_EQ(cluster.raft(leader).commit_index(), index);
  EXPECT_LT(cluster.raft(leader).durable_index(), index);
}

// Raft paper, 5.4.2 and figure 8: a leader never commits an entry of an older term by counting copies.
TEST(RaftCommit, IgnoresQuorumOnEntryOfOlderTerm) {
  Options options;
  options.id = 1;
  InitialState state;
  state.hard_state.term = 2;
  state.configuration.voters = {1, 2, 3, 4, 5};
  for (uint64_t term : {1, 2}) {
    Entry& entry = state.entries.emplace_back();
    entry.index = state.entries.size();
    entry.term = term;
  }
  Raft raft(options, std::move(state));
  auto settle = [&] {
    while (raft.HasOutput()) {
      Output output = raft.TakeOutput();
      if (output.append.has_value()) raft.OnDurable(output.append->seq);
    }
  };
  auto answer = [&](MessageKind kind, NodeId from, uint64_t index) {
    Message message;
    message.kind = kind;
    message.from = from;
    message.to = 1;
    message.term = 3;
    message.index = index;
    raft.Step(message);
    settle();
  };
  raft.Campaign();
  answer(MessageKind::kPreVoteResponse, 2, 0);
  answer(MessageKind::kPreVoteResponse, 3, 0);
  answer(MessageKind::kVoteResponse, 2, 0);
  answer(MessageKind::kVoteResponse, 3, 0);
  ASSERT_EQ(raft.role(), Role::kLeader);
  ASSERT_EQ(raft.term(), 3u);

  for (NodeId from : {2, 3, 4, 5}) answer(MessageKind::kAppendResponse, from, 2);
  EXPECT_EQ(raft.commit_index(), 0u);
  answer(MessageKind::kAppendResponse, 2, 3);
  EXPECT_EQ(raft.commit_index(), 0u);
  answer(MessageKind::kAppendResponse, 3, 3);
  EXPECT_EQ(raft.commit_index(), 3u);  // With the entry of its own term all before it.
}

// Raft paper, figure 7: logs that differ in every way are repaired by the leader.
TEST(RaftReplication, RepairsDivergentLogs) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Cluster cluster({.seed = seed, .voters = 5});
    for (int round = 0; round < 4; ++round) {
      const NodeId leader = cluster.RunUntilLeader();
      ASSERT_NE(leader, 0u);
      cluster.Isolate(leader);
      for (int i = 0; i < 5; ++i) cluster.Propose(leader, "lost" + std::to_string(round * 10 + i));
      cluster.Run(30);
      cluster.Reconnect(leader);
    }
    const NodeId leader = cluster.RunUntilLeader();
    const uint64_t index = cluster.Propose(leader, "last");
    cluster.Run(10);
    ASSERT_FALSE(cluster.failed());
    ExpectAllApplied(cluster, index);
  }
}

// A whole term is skipped by one probe (Raft paper, end of 5.3).
TEST(RaftReplication, FindsTheMatchInFewProbes) {
  Cluster cluster({.voters = 3});
  const NodeId first = cluster.RunUntilLeader();
  cluster.Isolate(first);
  for (int i = 0; i < 200; ++i) cluster.Propose(first, "lost");
  cluster.Run(40);
  const NodeId second = cluster.Leader();
  ASSERT_NE(second, first);
  for (int i = 0; i < 150; ++i) cluster.Propose(second, "kept");
  cluster.Run(40);
  size_t rejects = 0;
  cluster.on_send = [&](const Message& message) {
    if (message.kind == MessageKind::kAppendResponse && message.reject) ++rejects;
  };

  cluster.Reconnect(first);
  cluster.Run(5);

  EXPECT_EQ(cluster.raft(first).last_index(), cluster.raft(second).last_index());
  EXPECT_LE(rejects, 2u);
}

// Flow control: a follower that does not answer gets no more than its window.
TEST(RaftFlowControl, WindowBoundsWhatIsUnacknowledged) {
  Cluster cluster({.voters = 3, .append_bytes_max = 1, .inflight_messages_max = 4});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Run(3);
  const NodeId slow = leader % 3 + 1;
  size_t sent = 0;
  cluster.on_send = [&](const Message& message) {
    if (message.to == slow && message.kind == MessageKind::kAppend) sent += message.entries.size();
  };
  cluster.lose = [&](const Message& message) { return message.from == slow; };

  for (int i = 0; i < 50; ++i) {
    cluster.Propose(leader, "x");
    cluster.Settle();
  }
  EXPECT_EQ(sent, 4u);

  cluster.lose = nullptr;
  cluster.Run(3);
  ExpectAllApplied(cluster, cluster.raft(leader).last_index());
}

// Everything sent was lost; nobody tells. The next heartbeat finds it out (raft PR 10308).
TEST(RaftFlowControl, HeartbeatFindsLostAppends) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Run(2);
  const NodeId unlucky = leader % 3 + 1;
  cluster.lose = [&](const Message& message) {
    return message.to == unlucky && message.kind == MessageKind::kAppend;
  };
  for (int i = 0; i < 5; ++i) cluster.Propose(leader, "x");
  cluster.Settle();
  cluster.lose = nullptr;

  cluster.Run(2);

  ExpectAllApplied(cluster, 6);
}

TEST(RaftFlowControl, OldEntriesAreReadFromTheLogStore) {
  Cluster cluster({.voters = 3, .append_bytes_max = 40, .cache_bytes = 0});
  const NodeId leader = cluster.RunUntilLeader();
  const NodeId behind = leader % 3 + 1;
  cluster.Isolate(behind);
  for (int i = 0; i < 100; ++i) cluster.Propose(leader, "value");
  cluster.Settle();

  cluster.Reconnect(behind);
  cluster.Run(5);

  EXPECT_GT(cluster.log_reads(), 10u);
  ExpectAllApplied(cluster, 101);
}

// Raft paper, section 7.
TEST(RaftSnapshot, IsAskedForOnceWhenTheLogIsGone) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  const NodeId behind = leader % 3 + 1;
  cluster.Isolate(behind);
  for (int i = 0; i < 20; ++i) cluster.Propose(leader, "x");
  cluster.Run(30);
  cluster.Checkpoint(leader, 0);
  cluster.Settle();
  EXPECT_EQ(cluster.raft(leader).first_index(), 22u);

  cluster.Reconnect(behind);
  cluster.Run(5);

  EXPECT_EQ(cluster.snapshots_installed(), 1u);
  const uint64_t index = cluster.Propose(leader, "y");
  cluster.Settle();
  ExpectAllApplied(cluster, index);
}

TEST(RaftSnapshot, IsTriedAgainAfterAFailure) {
  Options options;
  options.id = 1;
  InitialState state;
  state.base_index = 10;
  state.base_term = 1;
  state.applied = 10;
  state.hard_state = {1, 0, 10};
  state.configuration.voters = {1};
  Raft raft(options, std::move(state));
  auto take = [&] {
    Output output = raft.TakeOutput();
    if (output.append.has_value()) raft.OnDurable(output.append->seq);
    return output;
  };
  auto answer = [&](MessageKind kind, bool reject, uint64_t index) {
    Message message;
    message.kind = kind;
    message.from = 2;
    message.to = 1;
    message.term = 2;
    message.index = index;
    message.reject = reject;
    raft.Step(message);
  };
  raft.Campaign();
  take();
  take();
  raft.ApplyConfiguration({{1}, {2}});
  take();
  answer(MessageKind::kAppendResponse, true, 11);
  EXPECT_EQ(take().snapshots, std::vector<NodeId>{2});
  answer(MessageKind::kHeartbeatResponse, false, 0);
  EXPECT_TRUE(take().snapshots.empty());
  EXPECT_TRUE(raft.progress()[0].in_snapshot);

  raft.OnSnapshotSent(2, 0);
  EXPECT_TRUE(take().snapshots.empty());  // Not at once.
  EXPECT_FALSE(raft.progress()[0].in_snapshot);
  answer(MessageKind::kHeartbeatResponse, false, 0);
  Output probe = take();
  ASSERT_EQ(probe.messages.size(), 1u);
  EXPECT_EQ(probe.messages[0].index, 11u);
  answer(MessageKind::kAppendResponse, true, 11);
  EXPECT_EQ(take().snapshots, std::vector<NodeId>{2});

  raft.OnSnapshotSent(2, 11);
  Output output = take();
  EXPECT_TRUE(output.snapshots.empty());
  EXPECT_EQ(raft.progress()[0].match_index, 11u);
}

// A new leader that has not heard of the peer yet knows no match. A lost connection then must not make
// it ask for a snapshot: the peer has all, and refuses a snapshot older than its state for ever.
TEST(RaftSnapshot, LostConnectionBeforeTheFirstAnswerAsksForNone) {
  Cluster cluster({.voters = 2});
  const NodeId old_leader = cluster.RunUntilLeader();
  const NodeId next = 3 - old_leader;
  for (int i = 0; i < 10; ++i) cluster.Propose(old_leader, "x");
  cluster.Run(2);
  cluster.Checkpoint(next, 0);
  cluster.lose = [&](const Message& message) {
    return message.from == old_leader && message.kind == MessageKind::kAppendResponse;
  };
  cluster.Do(old_leader, [&](Raft& raft) { raft.TransferLeadership(next); });
  cluster.Settle();
  ASSERT_EQ(cluster.Leader(), next);
  EXPECT_EQ(cluster.raft(next).progress()[0].match_index, 0u);
  cluster.Do(next, [&](Raft& raft) { raft.OnPeerDown(old_leader); });
  cluster.lose = nullptr;

  cluster.Run(3);

  EXPECT_EQ(cluster.snapshots_installed(), 0u);
  EXPECT_FALSE(cluster.raft(next).progress()[0].in_snapshot);
  EXPECT_TRUE(cluster.raft(next).committed_in_term());
}

TEST(RaftSnapshot, FollowerWithoutStateAsksForOne) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  const NodeId broken = leader % 3 + 1;
  cluster.Do(broken, [](Raft& raft) { raft.SetNeedsSnapshot(true); });
  for (int i = 0; i < 5; ++i) cluster.Propose(leader, "x");

  cluster.Run(3);

  EXPECT_EQ(cluster.snapshots_installed(), 1u);
  ExpectAllApplied(cluster, 6);
}

// ---- membership ----

TEST(RaftMembership, LearnerReplicatesAndDoesNotCount) {
  Cluster cluster({.voters = 1, .nodes = 2});
  ASSERT_EQ(cluster.RunUntilLeader(), 1u);
  EXPECT_NE(cluster.ProposeConfiguration(1, {{1}, {2}}), 0u);
  cluster.Run(3);
  ASSERT_EQ(cluster.raft(1).configuration().learners, std::vector<NodeId>{2});
  EXPECT_EQ(cluster.engine(2).applied, 2u);
  EXPECT_FALSE(cluster.raft(2).IsVoter());

  cluster.Crash(2);
  const uint64_t index = cluster.Propose(1, "a");
  cluster.Settle();
  EXPECT_EQ(cluster.raft(1).commit_index(), index);

  cluster.Restart(2);
  cluster.Campaign(2);
  EXPECT_EQ(cluster.raft(2).role(), Role::kFollower);
  cluster.Crash(1);
  cluster.Run(100);
  EXPECT_EQ(cluster.raft(2).role(), Role::kFollower);
}

TEST(RaftMembership, PromotionKeepsProgress) {
  Cluster cluster({.voters = 1, .nodes = 2});
  cluster.RunUntilLeader();
  cluster.ProposeConfiguration(1, {{1}, {2}});
  cluster.Run(3);
  const uint64_t match = cluster.raft(1).progress()[0].match_index;
  EXPECT_EQ(match, 2u);

  cluster.Do(1, [&](Raft& raft) {
    raft.ApplyConfiguration({{1, 2}, {}});
    EXPECT_EQ(raft.progress()[0].match_index, match);
    EXPECT_FALSE(raft.progress()[0].is_learner);
  });
}

// The correction of dissertation 4.1: no change before an entry of the leader's term is committed.
TEST(RaftMembership, ChangeWaitsForACommitInTheTerm) {
  Cluster cluster({.voters = 3});
  cluster.hold_writes = true;
  cluster.Campaign(1);
  cluster.Settle();
  cluster.CompleteWrite(1);
  cluster.Settle();
  for (NodeId id : {2, 3}) cluster.CompleteWrite(id);
  cluster.Settle();
  ASSERT_EQ(cluster.raft(1).role(), Role::kLeader);
  EXPECT_FALSE(cluster.raft(1).committed_in_term());
  EXPECT_EQ(cluster.ProposeConfiguration(1, {{1, 2}, {}}), 0u);

  cluster.hold_writes = false;
  cluster.Settle();

  EXPECT_TRUE(cluster.raft(1).committed_in_term());
  EXPECT_NE(cluster.ProposeConfiguration(1, {{1, 2}, {}}), 0u);
}

TEST(RaftMembership, OneChangeAtATime) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.hold_applies = true;
  EXPECT_NE(cluster.ProposeConfiguration(leader, {{1, 2, 3}, {4}}), 0u);
  EXPECT_EQ(cluster.ProposeConfiguration(leader, {{1, 2, 3}, {5}}), 0u);
  cluster.Settle();
  EXPECT_EQ(cluster.raft(leader).commit_index(), 2u);
  EXPECT_EQ(cluster.ProposeConfiguration(leader, {{1, 2, 3}, {5}}), 0u);  // Committed, not applied.

  cluster.Apply(leader);

  EXPECT_NE(cluster.ProposeConfiguration(leader, {{1, 2, 3}, {}}), 0u);
}

// etcd/raft #456: the guard that a campaign needs.
TEST(RaftMembership, NoCampaignWhileAChangeIsUnapplied) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.hold_applies = true;
  cluster.ProposeConfiguration(leader, {{1, 2, 3}, {4}});
  cluster.Run(3);
  const NodeId other = leader % 3 + 1;
  ASSERT_EQ(cluster.raft(other).commit_index(), 2u);

  cluster.Campaign(other);
  EXPECT_EQ(cluster.raft(other).role(), Role::kFollower);
  cluster.Apply(other);
  cluster.Campaign(other);
  EXPECT_EQ(cluster.raft(other).role(), Role::kPreCandidate);
}

// Dissertation 4.2.2.
TEST(RaftMembership, LeaderThatRemovedItselfStepsDown) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  Configuration rest{{1, 2, 3}, {}};
  rest.voters.erase(std::find(rest.voters.begin(), rest.voters.end(), leader));

  cluster.ProposeConfiguration(leader, rest);
  cluster.Settle();

  EXPECT_EQ(cluster.raft(leader).role(), Role::kFollower);
  cluster.Run(25);
  ASSERT_NE(cluster.Leader(), 0u);
  EXPECT_NE(cluster.Leader(), leader);
  for (NodeId id : rest.voters) EXPECT_EQ(cluster.raft(id).configuration(), rest);
  EXPECT_EQ(cluster.raft(leader).role(), Role::kFollower);
  EXPECT_FALSE(cluster.raft(leader).IsVoter());
}

// The other one of two has the entry, does not know that it is committed, and needs a vote to find out.
TEST(RaftMembership, RemovedLeaderOfTwoVotesForTheOther) {
  Cluster cluster({.voters = 2});
  const NodeId leader = cluster.RunUntilLeader();
  const NodeId other = leader % 2 + 1;
  cluster.lose = [&](const Message& message) { return message.from == leader && message.commit >= 2; };
  cluster.ProposeConfiguration(leader, {{other}, {}});
  cluster.Settle();
  ASSERT_EQ(cluster.raft(leader).applied_index(), 2u);
  ASSERT_FALSE(cluster.raft(leader).IsVoter());
  ASSERT_LT(cluster.raft(other).applied_index(), 2u);
  cluster.lose = nullptr;

  cluster.Run(40);
  EXPECT_EQ(cluster.raft(other).role(), Role::kLeader);
  EXPECT_EQ(cluster.raft(other).configuration(), (Configuration{{other}, {}}));
  // From now on it can do without.
  cluster.Crash(leader);
  cluster.Crash(other);
  cluster.Restart(other);
  cluster.Run(40);
  EXPECT_EQ(cluster.raft(other).role(), Role::kLeader);
}

TEST(RaftMembership, SmallerMajorityCommitsWhatWaits) {
  Cluster cluster({.voters = 4});
  const NodeId leader = cluster.RunUntilLeader();
  const NodeId second = leader % 4 + 1;
  const NodeId third = second % 4 + 1;
  const NodeId fourth = third % 4 + 1;
  cluster.Crash(fourth);
  Configuration rest{{leader, second, third}, {}};
  std::sort(rest.voters.begin(), rest.voters.end());
  cluster.hold_applies = true;
  cluster.ProposeConfiguration(leader, rest);
  cluster.Settle();
  cluster.Crash(third);
  const uint64_t index = cluster.Propose(leader, "x");
  cluster.Settle();
  EXPECT_LT(cluster.raft(leader).commit_index(), index);  // Two of four.

  cluster.Apply(leader);

  EXPECT_EQ(cluster.raft(leader).commit_index(), index);  // Two of three.
}

}  // namespace
}  // namespace keyway::raft
