// SPDX-License-Identifier: Apache-2.0
//
// The bank of historic bugs: each mutant puts one defect back, so that the simulator can show that it finds
// it. Only tests/mutants/kernel compiles with KEYWAY_MUTANTS; else Is() is false at compile time and nothing
// of it is left.
//
//   if (!mutant::Is(mutant::kAckBeforeSync)) WaitForTheDisk();
//
// The names are those of `keyway-sim-mutants --mutant`; D1, R8, ... stand for the kind of defect: D durability,
// R Raft and reads, W watches, L leases. `#1234` is an issue of etcd.
#pragma once

#include <string_view>

namespace keyway::mutant {

#define KW_MUTANTS(X)                                                                                       \
  X(kAppliedBeforeData, "applied-before-data", "D1 #13766: the applied index is durable before its data")   \
  X(kMidEntryWrite, "mid-entry-write", "D1: the engine is written while an entry is half applied")          \
  X(kAckBeforeSync, "ack-before-sync", "D2 #14370: what the log has taken counts as durable")               \
  X(kCompactionUnderRead, "compaction-under-read",                                                          \
    "D3 #20650: a compaction deletes what a read still needs")                                              \
  X(kCompactionForgotten, "compaction-forgotten", "D4 #17780: a compaction counts as done when it begins")  \
  X(kCompactionTooFar, "compaction-too-far", "D4: a compaction takes the version that is current at it")    \
  X(kSnapshotUnmarked, "snapshot-unmarked", "D5: a snapshot that is being installed leaves no mark")        \
  X(kLogResetUnmarked, "log-reset-unmarked",                                                                \
    "D5 #10219: an installed snapshot does not say that the log is old")                                    \
  X(kSnapshotTorn, "snapshot-torn",                                                                         \
    "D5 #13933: a snapshot names another applied point than that of its data")                              \
  X(kLogReleasedEarly, "log-released-early", "D5: the log is released before the engine is durable")        \
  X(kEngineAheadOfLog, "engine-ahead-of-log", "D5: the engine is written beyond the node's own log")        \
  X(kLogErrorIgnored, "log-error-ignored", "D9: an error of the log does not stop the node")                \
  X(kPartialTxn, "partial-txn", "D11 #18799: a txn that fails leaves its first changes")                    \
  X(kTxnOfOwnState, "txn-of-own-state", "D11 #18667: a txn asks how far the node's own compaction is")      \
  X(kLeaseUnsaved, "lease-unsaved", "D13: a grant does not reach the engine")                               \
  X(kRecordUnchecked, "record-unchecked", "D14: what the engine gives back is believed")                    \
  X(kVoteUnsaved, "vote-unsaved", "D15: the term is saved without the vote")                                \
  X(kDurableNotCut, "durable-not-cut", "D15: a cut log keeps its durable index")                            \
  X(kStaleWriteCounts, "stale-write-counts",                                                                \
    "D15: a write of replaced entries vouches for those after them")                                        \
  X(kSnapshotUnchecked, "snapshot-unchecked", "D16: the digest of a snapshot is not compared")              \
  X(kChangeBeforeCommit, "change-before-commit", "R1: a new leader changes members before it commits")      \
  X(kTwoChanges, "two-changes", "R1: two member changes under way at once")                                 \
  X(kCampaignUnapplied, "campaign-unapplied", "R2 raft#456: a campaign with a committed, unapplied change") \
  X(kLearnerPromoted, "learner-promoted", "R3 #21736: an update of a learner makes it a voter")             \
  X(kPromotionUnsaved, "promotion-unsaved", "R3 #19557: a promotion does not reach the engine")             \
  X(kSnapshotKeepsMembers, "snapshot-keeps-members", "R3 #20967: a snapshot does not bring its members")    \
  X(kIncarnationIgnored, "incarnation-ignored", "R4: a member with an emptied directory may go on")         \
  X(kOldLeaderNotTold, "old-leader-not-told", "R6 raft#7331: nobody tells a leader that its term is over")  \
  X(kQuorumNotChecked, "quorum-not-checked", "R6: a leader without a quorum stays one")                     \
  X(kStalledLeaderStays, "stalled-leader-stays", "R7 #17425: a leader whose disk hangs goes on")            \
  X(kStaleRead, "stale-read", "R8 #20418: a leader serves reads without asking a quorum")                   \
  X(kReadBeforeCommit, "read-before-commit", "R8: a new leader serves reads before it commits")             \
  X(kReadNotWaited, "read-not-waited", "R8 #3879: a read does not wait until its index is applied")         \
  X(kAnyAnswerConfirms, "any-answer-confirms", "R8: a late answer confirms the latest round of reads")      \
  X(kVoteBeforeDurable, "vote-before-durable", "R9: a vote is told before it is durable")                   \
  X(kOwnVoteEarly, "own-vote-early", "R9: a candidate counts its own vote before it is durable")            \
  X(kAppendAckedEarly, "append-acked-early", "R9: a follower acknowledges before its disk")                 \
  X(kTwoVotes, "two-votes", "R9: two votes in one term")                                                    \
  X(kVoteForStaleLog, "vote-for-stale-log", "R9: a vote for a log that lacks entries (paper 5.4.1)")        \
  X(kOldTermCommitted, "old-term-committed",                                                                \
    "R9: entries of an older term are committed by counting (5.4.2)")                                       \
  X(kAppendCutsTail, "append-cuts-tail", "R10: an append that comes late cuts what follows it (5.3)")       \
  X(kHeartbeatCommits, "heartbeat-commits", "R10: a heartbeat commits what may not match")                  \
  X(kSnapshotFailureForgotten, "snapshot-failure-forgotten", "R10: a failed snapshot is never tried again") \
  X(kProbeStaysPaused, "probe-stays-paused", "R10 raft#10308: a lost probe is never repeated")              \
  X(kWindowNeverFreed, "window-never-freed", "R10: the window of a follower is never freed")                \
  X(kRetriedAtOnce, "retried-at-once", "R11: a proposal is sent again when the leader changes")             \
  X(kGivenUpTaken, "given-up-taken", "R11: a proposal that was given up is taken when it comes")            \
  X(kForwardedLate, "forwarded-late", "R11: a proposal of an older term is taken")                          \
  X(kIdsOfAnotherLife, "ids-of-another-life", "R11: ids of proposals begin anew with each start")           \
  X(kRetriedAfterSnapshot, "retried-after-snapshot", "R11: what a snapshot may hold is proposed again")     \
  X(kProgressAhead, "progress-ahead", "W1 #15220: progress is told ahead of events")                        \
  X(kReplayAfterSnapshot, "replay-after-snapshot", "W2 #15271: a snapshot makes watches go back in time")   \
  X(kSkipInSnapshot, "skip-in-snapshot", "W2: watches skip what came in a snapshot")                        \
  X(kSlowWatchLoses, "slow-watch-loses", "W3 #17529: a slow watch loses what it had no credit for")         \
  X(kCreditForgotten, "credit-forgotten", "W3 #17529: a slow watch starves")                                \
  X(kSliceSplitsRevision, "slice-splits-revision", "W3 #17247: a slice of changes ends within a revision")  \
  X(kTombstoneCompacted, "tombstone-compacted", "W4 #18089: a compaction takes the delete at its revision") \
  X(kHistoryBoundary, "history-boundary", "W4 #19179: a read of old changes loses the one at its bound")    \
  X(kCompactedWatchStays, "compacted-watch-stays", "W4: a watch behind a compaction is not canceled")       \
  X(kFutureWatchGetsOld, "future-watch-gets-old",                                                           \
    "W5 #20221: a watch at a future revision gets older events")                                            \
  X(kFutureProgress, "future-progress", "W5 #20221: a watch at a future revision is told of progress")      \
  X(kRenewAfterExpiry, "renew-after-expiry",                                                                \
    "L1 #20615: a lease is renewed while its revocation is under way")                                      \
  X(kLeaseEndsWithLeader, "lease-ends-with-leader", "L1 #13508: a new leader counts from the grant")        \
  X(kLeaseNeverEnds, "lease-never-ends", "L1: a new leader forgets when leases end")                        \
  X(kLeaseKeysForgotten, "lease-keys-forgotten", "L1 #13205: after a restart a lease has no keys")          \
  X(kOldLeaseKeepsKey, "old-lease-keeps-key", "L1 #14087: a key under a new lease ends with its old one")   \
  X(kFollowerAnswersLease, "follower-answers-lease", "L1 #17704: a follower answers for a lease")

enum Id {
  kNone,
#define KW_MUTANT_ID(id, name, what) id,
  KW_MUTANTS(KW_MUTANT_ID)
#undef KW_MUTANT_ID
};

#ifdef KEYWAY_MUTANTS
// What no shipped file may contain; a test looks for it.
[[gnu::used]] inline constexpr char kMark[] = "keyway: mutants are built in";
inline Id active = kNone;
inline bool Is(Id id) { return __builtin_expect(active == id, 0); }

struct Entry {
  Id id;
  std::string_view name, what;
};
inline constexpr Entry kAll[] = {
#define KW_MUTANT_ENTRY(id, name, what) {id, name, what},
    KW_MUTANTS(KW_MUTANT_ENTRY)
#undef KW_MUTANT_ENTRY
};
#else
constexpr bool Is(Id) { return false; }
#endif

}  // namespace keyway::mutant
