// SPDX-License-Identifier: Apache-2.0
//
// Elections (Raft paper, 5.2, 5.4.1), PreVote (dissertation 9.6), CheckQuorum (6.2), leadership
// transfer (3.10).
#include <set>

#include "gtest/gtest.h"
#include "kernel/raft/cluster_harness.h"

namespace keyway::raft {
namespace {

// Raft paper, 5.2.
TEST(RaftElection, OneLeaderIsElectedAndAppendsAnEmptyEntry) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  ASSERT_NE(leader, 0u);
  cluster.Run(2);

  for (NodeId id = 1; id <= 3; ++id) {
    EXPECT_EQ(cluster.raft(id).leader(), leader);
    EXPECT_EQ(cluster.raft(id).role() == Role::kLeader, id == leader);
    EXPECT_EQ(cluster.raft(id).commit_index(), 1u);
  }
  EXPECT_EQ(cluster.DataAt(1), "0:");
}

TEST(RaftElection, NewLeaderReplacesACrashedOne) {
  Cluster cluster({.voters = 3});
  const NodeId first = cluster.RunUntilLeader();
  const uint64_t term = cluster.raft(first).term();
  cluster.Crash(first);

  cluster.Run(21);

  const NodeId second = cluster.Leader();
  ASSERT_NE(second, 0u);
  EXPECT_NE(second, first);
  EXPECT_GT(cluster.raft(second).term(), term);
}

TEST(RaftElection, MinorityElectsNobody) {
  Cluster cluster({.voters = 5});
  for (NodeId id : {3, 4, 5}) cluster.Crash(id);

  cluster.Run(100);

  EXPECT_EQ(cluster.Leader(), 0u);
  EXPECT_EQ(cluster.raft(1).term(), 0u);  // PreVote: the term does not grow.
}

// A log that ended with (3, term 2) was damaged: nothing behind entry 1 is left.
Raft MakeWithPromise() {
  Options options;
  options.id = 1;
  InitialState state;
  state.hard_state = {.term = 2, .vote = 0, .commit = 1};
  state.base_index = state.applied = 1;
  state.base_term = 1;
  state.configuration.voters = {1, 2, 3};
  state.promised_index = 3;
  state.promised_term = 2;
  return Raft(options, std::move(state));
}

// Gives the log store what it is to write, and says that it is durable.
Output TakeDurable(Raft& raft) {
  Output output = raft.TakeOutput();
  if (output.append.has_value()) raft.OnDurable(output.append->seq);
  Output more = raft.TakeOutput();
  for (Message& message : more.messages) output.messages.push_back(std::move(message));
  return output;
}

TEST(RaftElection, VoterWithALostLogVotesAsIfItHadIt) {
  struct Case {
    uint64_t index, term;
    bool grants;
  };
  for (const Case& candidate : {Case{1, 1, false}, Case{9, 1, false}, Case{2, 2, false}, Case{3, 2, true},
                                Case{4, 2, true}, Case{1, 3, true}}) {
    Raft raft = MakeWithPromise();
    Message request;
    request.kind = MessageKind::kVote;
    request.from = 2;
    request.to = 1;
    request.term = 4;
    request.index = candidate.index;
    request.log_term = candidate.term;
    raft.Step(request);
    const Output output = TakeDurable(raft);
    ASSERT_EQ(output.messages.size(), 1u);
    EXPECT_EQ(!output.messages[0].reject, candidate.grants) << candidate.index << ", " << candidate.term;
  }
}

TEST(RaftElection, NodeWithALostLogCampaignsOnlyWhenItHasItAgain) {
  Raft raft = MakeWithPromise();
  for (int i = 0; i < 100; ++i) raft.Tick();
  EXPECT_EQ(raft.role(), Role::kFollower);
  Message append;
  append.kind = MessageKind::kAppend;
  append.from = 2;
  append.to = 1;
  append.term = 2;
  append.index = 3;
  append.log_term = 2;
  raft.Step(append);
  Output refused = TakeDurable(raft);
  ASSERT_EQ(refused.messages.size(), 1u);
  EXPECT_TRUE(refused.messages[0].reject);
  EXPECT_TRUE(refused.messages[0].lost_log);
  EXPECT_EQ(refused.messages[0].hint, 1u);

  append.index = 1;
  append.log_term = 1;
  for (uint64_t index : {2, 3}) {
    Entry& entry = append.entries.emplace_back();
    entry.index = index;
    entry.term = 2;
  }
  raft.Step(append);
  EXPECT_TRUE(raft.IsBehindPromise());  // Not durable yet.
  TakeDurable(raft);
  EXPECT_FALSE(raft.IsBehindPromise());
  for (int i = 0; i < 100; ++i) raft.Tick();
  EXPECT_EQ(raft.role(), Role::kPreCandidate);
}

// The leader believes that the follower has everything, and has nothing new to send.
TEST(RaftElection, FollowerWithALostLogIsSentItAgain) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Cluster cluster({.seed = seed, .voters = 3});
    const NodeId leader = cluster.RunUntilLeader();
    ASSERT_NE(leader, 0u);
    for (int i = 0; i < 5; ++i) cluster.Propose(leader, "x");
    cluster.Run(3);
    const uint64_t last = cluster.raft(leader).last_index();
    const NodeId follower = leader % 3 + 1;
    ASSERT_TRUE(cluster.LoseLog(follower));
    cluster.Restart(follower);
    EXPECT_EQ(cluster.raft(follower).IsBehindPromise(), cluster.engine(follower).applied < last);
    cluster.Run(5);
    EXPECT_EQ(cluster.Leader(), leader);
    EXPECT_EQ(cluster.raft(follower).last_index(), last);
    EXPECT_FALSE(cluster.raft(follower).IsBehindPromise());
    ASSERT_FALSE(cluster.failed());
  }
}

// Raft paper, 5.4.1: every pair of logs up to two entries; the voter grants only to one as up to date.
TEST(RaftElection, VoterRefusesLessUpToDateLogs) {
  const std::vector<std::vector<uint64_t>> logs = {{}, {1}, {2}, {1, 1}, {1, 2}, {2, 2}};
  for (const auto& mine : logs) {
    for (const auto& theirs : logs) {
      for (MessageKind kind : {MessageKind::kVote, MessageKind::kPreVote}) {
        Options options;
        options.id = 1;
        InitialState state;
        state.hard_state.term = 2;
        state.configuration.voters = {1, 2, 3};
        for (uint64_t term : mine) {
          Entry& entry = state.entries.emplace_back();
          entry.index = state.entries.size();
          entry.term = term;
        }
        Raft raft(options, std::move(state));
        Message request;
        request.kind = kind;
        request.from = 2;
        request.to = 1;
        request.term = 3;
        request.index = theirs.size();
        request.log_term = theirs.empty() ? 0 : theirs.back();

        raft.Step(request);
        Output output = raft.TakeOutput();
        if (output.append.has_value()) {
          raft.OnDurable(output.append->seq);
          output = raft.TakeOutput();
        }

        const uint64_t my_term = mine.empty() ? 0 : mine.back();
        const bool up_to_date =
            request.log_term > my_term || (request.log_term == my_term && theirs.size() >= mine.size());
        ASSERT_EQ(output.messages.size(), 1u);
        EXPECT_EQ(output.messages[0].reject, !up_to_date);
      }
    }
  }
}

TEST(RaftElection, TimeoutsAreBetweenOneAndTwoIntervals) {
  std::set<int> seen;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    Options options;
    options.id = 1;
    options.random_seed = seed;
    InitialState state;
    state.configuration.voters = {1, 2};
    Raft raft(options, std::move(state));
    int ticks = 0;
    while (raft.role() == Role::kFollower) {
      raft.Tick();
      ASSERT_LE(++ticks, 20);
    }
    seen.insert(ticks);
  }
  EXPECT_EQ(seen.size(), 10u);
  EXPECT_EQ(*seen.begin(), 10);
  EXPECT_EQ(*seen.rbegin(), 19);
}

// Dissertation 9.6: a node that was cut off does not disturb the others when it comes back.
TEST(RaftPreVote, ReturningNodeDoesNotDisturb) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  const uint64_t term = cluster.raft(leader).term();
  const NodeId other = leader % 3 + 1;
  cluster.Isolate(other);
  cluster.Run(100);
  EXPECT_EQ(cluster.raft(other).role(), Role::kPreCandidate);
  EXPECT_EQ(cluster.raft(other).term(), term);

  cluster.Reconnect(other);
  cluster.Run(5);

  EXPECT_EQ(cluster.Leader(), leader);
  EXPECT_EQ(cluster.raft(leader).term(), term);
  EXPECT_EQ(cluster.raft(other).leader(), leader);
}

// Dissertation 4.2.3: votes are refused while a leader is heard, whatever their term.
TEST(RaftPreVote, VotesAreIgnoredWhileTheLeaderIsHeard) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  const uint64_t term = cluster.raft(leader).term();
  for (MessageKind kind : {MessageKind::kVote, MessageKind::kPreVote}) {
    for (NodeId id = 1; id <= 3; ++id) {
      Message request;
      request.kind = kind;
      request.from = id % 3 + 1;
      request.to = id;
      request.term = term + 10;
      request.index = 100;
      request.log_term = term;
      cluster.Inject(request);
      EXPECT_EQ(cluster.raft(id).term(), term);
    }
  }
  EXPECT_EQ(cluster.Leader(), leader);
}

// Two nodes lose the leader at the same moment: they must not split the vote.
TEST(RaftPreVote, FastFailoverWhenTheConnectionIsLost) {
  int ticks_total = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Cluster cluster({.seed = seed, .voters = 3});
    const NodeId first = cluster.RunUntilLeader();
    cluster.Run(3);
    cluster.Crash(first);
    for (NodeId id = 1; id <= 3; ++id) {
      if (id != first) cluster.Do(id, [&](Raft& raft) { raft.OnPeerDown(first); });
    }
    cluster.Settle();
    int ticks = 0;
    while (cluster.Leader() == 0 && ticks < 50) {
      cluster.Run(1);
      ++ticks;
    }
    ASSERT_LE(ticks, 4) << "seed " << seed;
    ticks_total += ticks;
  }
  EXPECT_LE(ticks_total, 200 * 2);
}

// One of the two notices later: the PreVote, refused at first, is asked again.
TEST(RaftPreVote, FastFailoverWhenOneNoticesLater) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Cluster cluster({.seed = seed, .voters = 3});
    const NodeId first = cluster.RunUntilLeader();
    cluster.Run(3);
    cluster.Crash(first);
    const NodeId second = first % 3 + 1;
    const NodeId third = second % 3 + 1;
    cluster.Do(second, [&](Raft& raft) { raft.OnPeerDown(first); });
    cluster.Run(2);
    EXPECT_EQ(cluster.Leader(), 0u);
    cluster.Do(third, [&](Raft& raft) { raft.OnPeerDown(first); });
    cluster.Settle();
    cluster.Run(4);
    ASSERT_NE(cluster.Leader(), 0u) << "seed " << seed;
  }
}

// Only the connection was lost, the leader is alive: the others' lease keeps it.
TEST(RaftPreVote, LostConnectionAloneDoesNotDepose) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  const uint64_t term = cluster.raft(leader).term();
  cluster.Run(2);

  cluster.Do(leader % 3 + 1, [&](Raft& raft) { raft.OnPeerDown(leader); });
  cluster.Run(20);

  EXPECT_EQ(cluster.Leader(), leader);
  EXPECT_EQ(cluster.raft(leader).term(), term);
}

// Dissertation 6.2.
TEST(RaftCheckQuorum, LeaderWithoutQuorumStepsDown) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Isolate(leader);

  cluster.Run(10);  // In the interval that has begun, the others may have been heard.
  cluster.Run(10);

  EXPECT_NE(cluster.raft(leader).role(), Role::kLeader);
  EXPECT_EQ(cluster.Propose(leader, "x"), 0u);
}

TEST(RaftCheckQuorum, LeaderWithQuorumStays) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Crash(leader % 3 + 1);

  cluster.Run(100);

  EXPECT_EQ(cluster.Leader(), leader);
}

// A leader that looked just after its check of the quorum found nobody to hand over to.
TEST(RaftCheckQuorum, PeersThatAnswerAreActiveAtEachTick) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Run(2);
  for (int tick = 0; tick < 25; ++tick) {
    cluster.Do(leader, [](Raft& raft) {
      raft.Tick();
      for (const PeerProgress& peer : raft.progress()) EXPECT_TRUE(peer.recently_active);
    });
    cluster.Settle();
  }
  ASSERT_EQ(cluster.Leader(), leader);

  const NodeId gone = leader % 3 + 1;
  cluster.Crash(gone);
  cluster.Run(20);
  for (const PeerProgress& peer : cluster.raft(leader).progress()) {
    EXPECT_EQ(peer.recently_active, peer.id != gone);
  }
}

// Dissertation 3.10.
TEST(RaftTransfer, HandsOverWithoutAnElectionTimeout) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  const NodeId target = leader % 3 + 1;

  cluster.Do(leader, [&](Raft& raft) { raft.TransferLeadership(target); });
  cluster.Settle();

  EXPECT_EQ(cluster.Leader(), target);
  EXPECT_EQ(cluster.raft(leader).role(), Role::kFollower);
}

TEST(RaftTransfer, WaitsUntilTheTargetHasTheLog) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  const NodeId target = leader % 3 + 1;
  cluster.Isolate(target);
  cluster.Propose(leader, "x");
  cluster.Settle();
  cluster.Do(leader, [&](Raft& raft) { raft.TransferLeadership(target); });
  cluster.Settle();
  EXPECT_TRUE(cluster.raft(leader).transferring());
  EXPECT_EQ(cluster.Propose(leader, "y"), 0u);  // No proposals meanwhile.

  cluster.Reconnect(target);
  cluster.Run(3);

  EXPECT_EQ(cluster.Leader(), target);
  EXPECT_EQ(cluster.raft(target).TermAt(2), cluster.raft(leader).TermAt(2));
}

TEST(RaftTransfer, IsGivenUpAfterAnElectionTimeout) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  const NodeId target = leader % 3 + 1;
  cluster.Crash(target);
  cluster.Do(leader, [&](Raft& raft) { raft.TransferLeadership(target); });
  cluster.Run(9);
  EXPECT_TRUE(cluster.raft(leader).transferring());

  cluster.Run(1);

  EXPECT_FALSE(cluster.raft(leader).transferring());
  EXPECT_EQ(cluster.Leader(), leader);
  EXPECT_NE(cluster.Propose(leader, "y"), 0u);
}

TEST(RaftTransfer, OnlyToVoters) {
  Cluster cluster({.voters = 3});
  const NodeId leader = cluster.RunUntilLeader();
  cluster.Do(leader, [&](Raft& raft) {
    raft.TransferLeadership(leader);
    EXPECT_FALSE(raft.transferring());
    raft.TransferLeadership(9);
    EXPECT_FALSE(raft.transferring());
  });
}

}  // namespace
}  // namespace keyway::raft
