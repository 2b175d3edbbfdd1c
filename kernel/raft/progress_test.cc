// SPDX-License-Identifier: Apache-2.0
#include "kernel/raft/progress.h"

#include "gtest/gtest.h"
#include "kernel/raft/quorum.h"

namespace keyway::raft {
namespace {

TEST(Inflights, AreFullByCount) {
  Inflights inflights(3, 1000);
  for (uint64_t i = 1; i <= 3; ++i) {
    EXPECT_FALSE(inflights.Full());
    inflights.Add(i, 1);
  }

  EXPECT_TRUE(inflights.Full());
  inflights.FreeTo(2);
  EXPECT_FALSE(inflights.Full());
  EXPECT_EQ(inflights.count(), 1u);
  EXPECT_EQ(inflights.bytes(), 1u);
}

TEST(Inflights, AreFullByBytesButTakeOneOversizedMessage) {
  Inflights inflights(100, 50);

  EXPECT_FALSE(inflights.Full());
  inflights.Add(1, 500);
  EXPECT_TRUE(inflights.Full());
  inflights.FreeTo(0);
  EXPECT_TRUE(inflights.Full());
  inflights.FreeTo(1);
  EXPECT_FALSE(inflights.Full());
  EXPECT_EQ(inflights.bytes(), 0u);
}

TEST(Inflights, GrowAndWrap) {
  Inflights inflights(200, 1 << 20);
  uint64_t sent = 0;
  uint64_t freed = 0;
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 7 && !inflights.Full(); ++i) inflights.Add(++sent, 2);
    inflights.FreeTo(freed += 5);
    ASSERT_EQ(inflights.count(), sent - freed);
    ASSERT_EQ(inflights.bytes(), 2 * (sent - freed));
  }
  inflights.Clear();
  EXPECT_EQ(inflights.count(), 0u);
}

TEST(Progress, ProbeIsDecreasedByRejectOfTheLastProbeOnly) {
  Progress peer(2, 10, 8, 1000);

  EXPECT_FALSE(peer.OnReject(5, 3));
  EXPECT_EQ(peer.next, 10u);
  EXPECT_TRUE(peer.OnReject(9, 3));
  EXPECT_EQ(peer.next, 4u);
  EXPECT_TRUE(peer.OnReject(3, 3));  // No hint that helps: one step.
  EXPECT_EQ(peer.next, 3u);
}

TEST(Progress, ProbeNeverGoesBelowMatch) {
  Progress peer(2, 10, 8, 1000);
  peer.OnMatch(6);

  EXPECT_TRUE(peer.OnReject(9, 2));

  EXPECT_EQ(peer.next, 7u);
}

TEST(Progress, RejectWhileReplicatingGoesBackToProbing) {
  Progress peer(2, 10, 8, 1000);
  peer.OnMatch(9);
  peer.BecomeReplicate();
  peer.next = 20;
  peer.inflights.Add(19, 10);

  EXPECT_FALSE(peer.OnReject(9, 9));  // Below match: it came late.
  EXPECT_EQ(peer.state, ProgressState::kReplicate);
  EXPECT_TRUE(peer.OnReject(15, 12));
  EXPECT_EQ(peer.state, ProgressState::kProbe);
  EXPECT_EQ(peer.next, 13u);
  EXPECT_EQ(peer.inflights.count(), 0u);
}

TEST(Progress, MatchNeverFalls) {
  Progress peer(2, 10, 8, 1000);

  EXPECT_TRUE(peer.OnMatch(12));
  EXPECT_EQ(peer.next, 13u);
  EXPECT_FALSE(peer.OnMatch(4));
  EXPECT_EQ(peer.match, 12u);
  EXPECT_EQ(peer.next, 13u);
}

TEST(Progress, SnapshotStateIgnoresRejects) {
  Progress peer(2, 10, 8, 1000);
  peer.BecomeSnapshot();

  EXPECT_FALSE(peer.OnReject(0, 0));
  EXPECT_EQ(peer.state, ProgressState::kSnapshot);
}

// All assignments of values 0..3 to up to 5 voters: the result is reached by a majority, the next
// larger value is not.
TEST(Quorum, ValueIsTheLargestThatAMajorityReached) {
  EXPECT_EQ(QuorumValue({}), 0u);
  for (size_t voters = 1; voters <= 5; ++voters) {
    for (unsigned code = 0; code < 1u << (2 * voters); ++code) {
      VoterValues values;
      for (size_t i = 0; i < voters; ++i) values.push_back((code >> (2 * i)) & 3);
      auto reached = [&](uint64_t least) {
        size_t count = 0;
        for (uint64_t value : values) count += value >= least ? 1 : 0;
        return count > voters / 2;
      };
      const uint64_t value = QuorumValue(values);
      ASSERT_TRUE(reached(value));
      ASSERT_FALSE(reached(value + 1));
    }
  }
}

// All ways in which up to 5 voters can have granted, refused or not answered.
TEST(Quorum, TallyIsWonByAMajorityAndLostWhenNoneIsLeft) {
  for (size_t count = 1; count <= 5; ++count) {
    std::vector<NodeId> voters;
    unsigned codes = 1;
    for (NodeId id = 1; id <= count; ++id, codes *= 3) voters.push_back(id);
    for (unsigned code = 0; code < codes; ++code) {
      VoteTally tally;
      tally.Record(99, true);  // Not a voter.
      size_t granted = 0;
      size_t refused = 0;
      unsigned rest = code;
      for (NodeId id : voters) {
        if (rest % 3 == 1) ++granted;
        if (rest % 3 == 2) ++refused;
        if (rest % 3 != 0) tally.Record(id, rest % 3 == 1);
        rest /= 3;
      }
      VoteResult expected = VoteResult::kPending;
      if (granted > count / 2) expected = VoteResult::kWon;
      if (count - refused <= count / 2) expected = VoteResult::kLost;
      ASSERT_EQ(tally.Result(voters), expected);
    }
  }
}

}  // namespace
}  // namespace keyway::raft
