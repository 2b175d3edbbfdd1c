// SPDX-License-Identifier: Apache-2.0
//
// One node alone: durability of its outputs, the output's form, nonsense from outside.
#include "kernel/raft/raft.h"

#include <string>

#include "gtest/gtest.h"
#include "kernel/raft/cluster_harness.h"

namespace keyway::raft {
namespace {

Options MakeOptions(NodeId id) {
  Options options;
  options.id = id;
  return options;
}

InitialState MakeState(std::vector<NodeId> voters) {
  InitialState state;
  state.configuration.voters = std::move(voters);
  return state;
}

Message MakeMessage(MessageKind kind, NodeId from, NodeId to, uint64_t term) {
  Message message;
  message.kind = kind;
  message.from = from;
  message.to = to;
  message.term = term;
  return message;
}

Entry MakeEntry(uint64_t index, uint64_t term) {
  Entry entry;
  entry.index = index;
  entry.term = term;
  entry.data = SharedBytes::Copy("x");
  return entry;
}

// Raft paper, figure 2, persistent state: nothing is won or committed before it is on disk (etcd
// #14370 acknowledged writes of a single voter before the sync).
TEST(Raft, SingleVoterWaitsForItsOwnDisk) {
  Raft raft(MakeOptions(1), MakeState({1}));

  raft.Campaign();
  Output vote = raft.TakeOutput();
  ASSERT_TRUE(vote.append.has_value());
  EXPECT_EQ(vote.append->hard_state, (HardState{1, 1, 0}));
  EXPECT_EQ(raft.role(), Role::kCandidate);
  EXPECT_FALSE(raft.HasOutput());

  raft.OnDurable(vote.append->seq);
  EXPECT_EQ(raft.role(), Role::kLeader);
  EXPECT_EQ(raft.leader(), 1u);
  EXPECT_EQ(raft.Propose(SharedBytes::Copy("a")), 2u);
  Output first = raft.TakeOutput();
  ASSERT_EQ(first.append->entries.size(), 2u);
  EXPECT_FALSE(first.append->entries[0].data.has_value());
  EXPECT_EQ(first.append->entries[1].data.view(), "a");
  EXPECT_EQ(first.append->hard_state, std::nullopt);
  EXPECT_EQ(raft.commit_index(), 0u);
  EXPECT_FALSE(raft.committed_in_term());

  raft.OnDurable(first.append->seq);
  EXPECT_EQ(raft.commit_index(), 2u);
  EXPECT_EQ(raft.durable_index(), 2u);
  EXPECT_TRUE(raft.committed_in_term());
  EXPECT_EQ(raft.EntryAt(2).data.view(), "a");
  EXPECT_TRUE(first.messages.empty());

  // The commit index travels with the next append.
  raft.Propose(SharedBytes::Copy("b"));
  EXPECT_EQ(raft.TakeOutput().append->hard_state, (HardState{1, 1, 2}));
}

// Else a removed member would be gone, and after a restart nobody would know that it need not be asked.
TEST(Raft, ConfigurationIsAppliedOnceItsCommitIsDurable) {
  Raft raft(MakeOptions(1), MakeState({1}));
  raft.Campaign();
  raft.OnDurable(raft.TakeOutput().append->seq);
  raft.OnDurable(raft.TakeOutput().append->seq);
  raft.OnApplied(1);
  ASSERT_TRUE(raft.committed_in_term());

  ASSERT_EQ(raft.ProposeConfiguration(SharedBytes::Copy("c")), 2u);
  raft.OnDurable(raft.TakeOutput().append->seq);
  EXPECT_EQ(raft.commit_index(), 2u);
  EXPECT_EQ(raft.applicable_index(), 1u);
  ASSERT_TRUE(raft.HasOutput());
  const Output output = raft.TakeOutput();
  EXPECT_EQ(output.append->hard_state, (HardState{1, 1, 2}));
  EXPECT_TRUE(output.append->entries.empty());
  EXPECT_EQ(raft.applicable_index(), 1u);

  raft.OnDurable(output.append->seq);
  EXPECT_EQ(raft.applicable_index(), 2u);
  EXPECT_FALSE(raft.HasOutput());
}

TEST(Raft, ReportOfAnEarlierAppendIsNotThatOfTheVote) {
  Raft raft(MakeOptions(1), MakeState({1}));
  raft.Step(MakeMessage(MessageKind::kHeartbeat, 9, 1, 5));  // A term to store, from outside.
  const uint64_t first = raft.TakeOutput().append->seq;
  raft.Campaign();
  const uint64_t second = raft.TakeOutput().append->seq;

  raft.OnDurable(first);
  EXPECT_EQ(raft.role(), Role::kCandidate);
  raft.OnDurable(second);
  EXPECT_EQ(raft.role(), Role::kLeader);
  EXPECT_EQ(raft.term(), 6u);
}

TEST(Raft, SeveralAppendsMayBeUnderWay) {
  Raft raft(MakeOptions(1), MakeState({1}));
  raft.Campaign();
  raft.OnDurable(raft.TakeOutput().append->seq);
  uint64_t seq = raft.TakeOutput().append->seq;
  for (int i = 0; i < 3; ++i) {
    raft.Propose(SharedBytes::Copy("a"));
    Output output = raft.TakeOutput();
    EXPECT_EQ(output.append->seq, ++seq);
    EXPECT_EQ(output.append->entries.size(), 1u);
  }

  raft.OnDurable(seq - 1);
  EXPECT_EQ(raft.commit_index(), 3u);
  raft.OnDurable(seq - 2);  // Late and of no effect.
  EXPECT_EQ(raft.commit_index(), 3u);
  raft.OnDurable(seq);
  EXPECT_EQ(raft.commit_index(), 4u);
}

TEST(Raft, FollowerRefusesProposals) {
  Raft raft(MakeOptions(1), MakeState({1, 2, 3}));

  EXPECT_EQ(raft.Propose(SharedBytes::Copy("a")), 0u);
  EXPECT_EQ(raft.ProposeConfiguration(SharedBytes::Copy("a")), 0u);
  EXPECT_FALSE(raft.HasOutput());
}

// Raft paper, 5.2: the vote is stored before it is given.
TEST(Raft, VoteIsHeldUntilDurable) {
  Raft raft(MakeOptions(1), MakeState({1, 2, 3}));

  raft.Step(MakeMessage(MessageKind::kVote, 2, 1, 5));
  Output output = raft.TakeOutput();
  ASSERT_TRUE(output.append.has_value());
  EXPECT_EQ(output.append->hard_state, (HardState{5, 2, 0}));
  EXPECT_TRUE(output.messages.empty());

  raft.OnDurable(output.append->seq);
  ASSERT_TRUE(raft.HasOutput());
  output = raft.TakeOutput();
  ASSERT_EQ(output.messages.size(), 1u);
  EXPECT_EQ(output.messages[0].kind, MessageKind::kVoteResponse);
  EXPECT_FALSE(output.messages[0].reject);

  // Once for each term, also when asked again.
  raft.Step(MakeMessage(MessageKind::kVote, 3, 1, 5));
  output = raft.TakeOutput();
  ASSERT_EQ(output.messages.size(), 1u);
  EXPECT_TRUE(output.messages[0].reject);
  raft.Step(MakeMessage(MessageKind::kVote, 2, 1, 5));
  EXPECT_FALSE(raft.TakeOutput().messages[0].reject);
}

// A node that crashes before its own vote is stored must not have asked others in that term.
TEST(Raft, RequestsForVotesAreHeldUntilOwnVoteIsDurable) {
  Raft raft(MakeOptions(1), MakeState({1, 2, 3}));
  raft.Campaign();
  Output output = raft.TakeOutput();
  ASSERT_EQ(output.messages.size(), 2u);
  EXPECT_EQ(output.messages[0].kind, MessageKind::kPreVote);
  EXPECT_EQ(output.messages[0].term, 1u);
  EXPECT_FALSE(output.append.has_value());
  EXPECT_EQ(raft.term(), 0u);

  raft.Step(MakeMessage(MessageKind::kPreVoteResponse, 2, 1, 1));
  EXPECT_EQ(raft.role(), Role::kCandidate);
  output = raft.TakeOutput();
  EXPECT_TRUE(output.messages.empty());
  raft.OnDurable(output.append->seq);
  output = raft.TakeOutput();
  ASSERT_EQ(output.messages.size(), 2u);
  EXPECT_EQ(output.messages[0].kind, MessageKind::kVote);
}

TEST(Raft, AcknowledgementIsHeldUntilDurableAndCoalesced) {
  Raft raft(MakeOptions(1), MakeState({1, 2, 3}));
  Message append = MakeMessage(MessageKind::kAppend, 2, 1, 1);
  append.entries.push_back(MakeEntry(1, 1));
  raft.Step(append);
  append.index = 1;
  append.log_term = 1;
  append.entries[0].index = 2;
  raft.Step(append);

  Output output = raft.TakeOutput();
  EXPECT_EQ(output.append->entries.size(), 2u);
  EXPECT_TRUE(output.messages.empty());
  raft.OnDurable(output.append->seq);
  output = raft.TakeOutput();
  ASSERT_EQ(output.messages.size(), 1u);
  EXPECT_EQ(output.messages[0].kind, MessageKind::kAppendResponse);
  EXPECT_EQ(output.messages[0].index, 2u);

  // What is durable already is acknowledged at once.
  raft.Step(append);
  output = raft.TakeOutput();
  EXPECT_FALSE(output.append.has_value());
  ASSERT_EQ(output.messages.size(), 1u);
  EXPECT_EQ(output.messages[0].index, 2u);
}

// Raft paper, figure 2, AppendEntries step 3; the tail is given to the log store anew.
TEST(Raft, ConflictReplacesTheTail) {
  InitialState state = MakeState({1, 2, 3});
  state.hard_state = {2, 0, 1};
  for (uint64_t i = 1; i <= 4; ++i) state.entries.push_back(MakeEntry(i, i <= 2 ? 1 : 2));
  Raft raft(MakeOptions(1), std::move(state));
  EXPECT_EQ(raft.commit_index(), 1u);
  Message append = MakeMessage(MessageKind::kAppend, 3, 1, 3);
  append.index = 2;
  append.log_term = 1;
  append.commit = 9;
  append.entries.push_back(MakeEntry(3, 3));

  raft.Step(append);

  EXPECT_EQ(raft.last_index(), 3u);
  EXPECT_EQ(raft.durable_index(), 2u);
  EXPECT_EQ(raft.commit_index(), 3u);
  Output output = raft.TakeOutput();
  ASSERT_EQ(output.append->entries.size(), 1u);
  EXPECT_EQ(output.append->entries[0].index, 3u);
  EXPECT_EQ(output.append->entries[0].term, 3u);
}

// An older append of the same leader, delivered late, must not shorten the log (Raft paper, figure 2:
// only a conflict deletes).
TEST(Raft, LateAppendDoesNotShortenTheLog) {
  InitialState state = MakeState({1, 2, 3});
  state.hard_state = {1, 0, 0};
  for (uint64_t i = 1; i <= 4; ++i) state.entries.push_back(MakeEntry(i, 1));
  Raft raft(MakeOptions(1), std::move(state));
  Message append = MakeMessage(MessageKind::kAppend, 2, 1, 1);
  append.entries.push_back(MakeEntry(1, 1));

  raft.Step(append);

  EXPECT_EQ(raft.last_index(), 4u);
  EXPECT_EQ(raft.TakeOutput().messages[0].index, 1u);
}

// Raft paper, figure 2, AppendEntries step 5: only what this message has verified is committed.
TEST(Raft, CommitEndsWithTheLastNewEntry) {
  InitialState state = MakeState({1, 2, 3});
  state.hard_state = {1, 0, 0};
  for (uint64_t i = 1; i <= 4; ++i) state.entries.push_back(MakeEntry(i, 1));
  Raft raft(MakeOptions(1), std::move(state));
  Message append = MakeMessage(MessageKind::kAppend, 2, 1, 2);
  append.index = 1;
  append.log_term = 1;
  append.commit = 4;  // Of the leader's log, whose entries 2 to 4 are others.

  raft.Step(append);

  EXPECT_EQ(raft.commit_index(), 1u);
}

TEST(Raft, RejectsGiveTheTermToSkip) {
  InitialState state = MakeState({1, 2, 3});
  state.hard_state = {3, 0, 0};
  const uint64_t terms[] = {1, 1, 3, 3, 3};
  for (uint64_t i = 1; i <= 5; ++i) state.entries.push_back(MakeEntry(i, terms[i - 1]));
  Raft raft(MakeOptions(1), std::move(state));
  Message append = MakeMessage(MessageKind::kAppend, 2, 1, 4);
  append.index = 5;
  append.log_term = 2;

  raft.Step(append);
  Output output = raft.TakeOutput();
  raft.OnDurable(output.append->seq);
  output = raft.TakeOutput();

  ASSERT_EQ(output.messages.size(), 1u);
  EXPECT_TRUE(output.messages[0].reject);
  EXPECT_EQ(output.messages[0].index, 5u);
  EXPECT_EQ(output.messages[0].hint, 2u);
  EXPECT_EQ(output.messages[0].log_term, 1u);
}

// With PreVote nobody else would tell a leader of an older term (etcd/raft #7331).
TEST(Raft, OldLeaderLearnsOfTheTerm) {
  InitialState state = MakeState({1, 2, 3});
  state.hard_state = {7, 0, 0};
  Raft raft(MakeOptions(1), std::move(state));

  raft.Step(MakeMessage(MessageKind::kHeartbeat, 2, 1, 6));

  Output output = raft.TakeOutput();
  ASSERT_EQ(output.messages.size(), 1u);
  EXPECT_EQ(output.messages[0].term, 7u);
}

TEST(Raft, NeedsSnapshotRefusesAppendsAndDoesNotCampaign) {
  Raft raft(MakeOptions(1), MakeState({1, 2, 3}));
  raft.SetNeedsSnapshot(true);
  raft.Campaign();
  EXPECT_EQ(raft.role(), Role::kFollower);
  Message append = MakeMessage(MessageKind::kAppend, 2, 1, 1);
  append.entries.push_back(MakeEntry(1, 1));

  raft.Step(append);
  Output output = raft.TakeOutput();
  EXPECT_TRUE(output.append->entries.empty());
  raft.OnDurable(output.append->seq);
  output = raft.TakeOutput();
  ASSERT_EQ(output.messages.size(), 1u);
  EXPECT_TRUE(output.messages[0].reject);
  EXPECT_TRUE(output.messages[0].needs_snapshot);
  EXPECT_EQ(raft.last_index(), 0u);
}

TEST(Raft, InstallSnapshotReplacesALogThatLacksTheEntry) {
  InitialState state = MakeState({1, 2, 3});
  state.hard_state = {2, 0, 1};
  for (uint64_t i = 1; i <= 4; ++i) state.entries.push_back(MakeEntry(i, 1));
  Raft raft(MakeOptions(1), state);
  Raft other(MakeOptions(1), state);
  const Configuration configuration{{1, 2, 4}, {5}};

  EXPECT_FALSE(raft.OnSnapshotChunk(2, 1));
  EXPECT_TRUE(raft.OnSnapshotChunk(2, 2));
  EXPECT_EQ(raft.leader(), 2u);
  EXPECT_TRUE(raft.InstallSnapshot(3, 2, configuration));
  EXPECT_EQ(raft.first_index(), 4u);
  EXPECT_EQ(raft.last_index(), 3u);
  EXPECT_EQ(raft.commit_index(), 3u);
  EXPECT_EQ(raft.applied_index(), 3u);
  EXPECT_EQ(raft.TermAt(3), 2u);
  EXPECT_EQ(raft.configuration(), configuration);

  EXPECT_FALSE(other.InstallSnapshot(3, 1, configuration));
  EXPECT_EQ(other.first_index(), 1u);
  EXPECT_EQ(other.last_index(), 4u);
  EXPECT_EQ(other.applied_index(), 3u);
}

// Any message at all, in any role: no crash, and the log stays well-formed.
TEST(Raft, SurvivesNonsense) {
  uint64_t random = 1;
  auto next = [&](uint64_t bound) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return (random >> 33) % bound;
  };
  auto number = [&]() -> uint64_t {
    switch (next(12)) {
      case 0:
        return UINT64_MAX;
      case 1:
        return UINT64_MAX - 1;
      case 2:
        return uint64_t{1} << 62;
      default:
        return next(8);
    }
  };
  for (int round = 0; round < 400; ++round) {
    Options options = MakeOptions(1);
    options.random_seed = random;
    InitialState state = MakeState(next(4) == 0 ? std::vector<NodeId>{1} : std::vector<NodeId>{1, 2, 3});
    state.hard_state = {2, 0, 1};
    for (uint64_t i = 1; i <= 4; ++i) state.entries.push_back(MakeEntry(i, i <= 2 ? 1 : 2));
    Raft raft(options, std::move(state));
    for (int step = 0; step < 200; ++step) {
      Message message;
      message.kind = static_cast<MessageKind>(next(13));
      message.from = next(5);
      message.to = next(20) == 0 ? number() : 1;
      message.term = next(3) == 0 ? number() : raft.term() + next(2);
      message.index = number();
      message.log_term = number();
      message.commit = next(2) == 0 ? 0 : number();
      message.hint = number();
      message.context = next(3) == 0 ? number() : 0;
      message.reject = next(3) == 0;
      message.needs_snapshot = next(8) == 0;
      message.forced = next(3) == 0;
      for (uint64_t i = 0, count = next(4); i < count; ++i) {
        message.entries.push_back(MakeEntry(next(10) == 0 ? number() : message.index + 1 + i, number()));
      }
      if (message.kind != MessageKind::kAppend && next(4) != 0) message.entries.clear();
      raft.Step(std::move(message));
      if (next(3) == 0) raft.Tick();
      if (next(9) == 0) raft.Campaign();
      if (next(9) == 0) raft.Propose(SharedBytes::Copy("p"));
      if (next(9) == 0) raft.TransferLeadership(number());
      if (next(9) == 0) raft.OnPeerDown(number());
      if (next(9) == 0) raft.ReadIndex(number());
      if (next(9) == 0) raft.OnSnapshotSent(number(), number());
      if (next(9) == 0) raft.OnSnapshotChunk(number(), next(3));
      if (next(9) == 0) raft.OnLogRead(number(), number(), {});
      if (next(3) == 0) {
        Output output = raft.TakeOutput();
        if (output.append.has_value()) raft.OnDurable(output.append->seq);
      }
      ASSERT_LE(raft.commit_index(), raft.last_index());
      for (uint64_t i = raft.first_index(); i <= raft.last_index(); ++i) {
        ASSERT_GE(*raft.TermAt(i), *raft.TermAt(i - 1));
        ASSERT_LE(*raft.TermAt(i), raft.term());
      }
    }
  }
}

}  // namespace
}  // namespace keyway::raft
