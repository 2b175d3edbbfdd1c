// SPDX-License-Identifier: Apache-2.0
//
// The state behind raft.h. Private to kernel/raft; the methods are in raft.cc (roles, terms, output),
// raft_election.cc, raft_replication.cc, raft_membership.cc and raft_read.cc.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kernel/raft/progress.h"
#include "kernel/raft/quorum.h"
#include "kernel/raft/raft.h"
#include "kernel/raft/raft_log.h"
#include "kernel/raft/types.h"

namespace keyway::raft {

class Raft::Impl {
 public:
  Impl(const Options& options, InitialState state);

  void Tick();
  void Step(Message message);
  uint64_t Propose(EntryKind kind, SharedBytes data);
  void ReadIndex(uint64_t context);
  void TransferLeadership(NodeId to);
  void Campaign();
  void OnPeerDown(NodeId peer);
  void OnDurable(uint64_t append_seq);
  void OnApplied(uint64_t index);
  void OnLogRead(NodeId peer, uint64_t begin, std::vector<Entry> entries);
  void OnLogDamaged(NodeId peer, uint64_t begin);
  void OnSnapshotSent(NodeId peer, uint64_t index);
  void ApplyConfiguration(const Configuration& configuration);
  bool OnSnapshotChunk(NodeId from, uint64_t term);
  bool InstallSnapshot(uint64_t index, uint64_t term, const Configuration& configuration);
  void TruncatePrefix(uint64_t index);
  void SetNeedsSnapshot(bool needs_snapshot) { needs_snapshot_ = needs_snapshot; }

  bool IsBehindPromise() const;

  bool HasOutput() const;
  Output TakeOutput();

  NodeId id() const { return options_.id; }
  Role role() const { return role_; }
  uint64_t term() const { return term_; }
  NodeId leader() const { return leader_; }
  const RaftLog& log() const { return log_; }
  uint64_t applicable_index() const;
  const Configuration& configuration() const { return configuration_; }
  bool IsVoter() const { return IsVoter(options_.id); }
  bool transferring() const { return transferee_ != 0; }
  bool committed_in_term() const {
    return role_ == Role::kLeader && log_.commit_index() >= term_start_index_;
  }
  std::vector<PeerProgress> progress() const;

 private:
  // A message that waits until the append `seq` is durable.
  struct Held {
    uint64_t seq;
    Message message;
  };
  // A read that waits for its round; round 0: not started. Of a remote member: `from` is not us.
  struct LeaderRead {
    uint64_t round;
    uint64_t index;
    uint64_t context;
    NodeId from;
  };
  // A read that was, or (round 0) will be, sent to the leader.
  struct ForwardedRead {
    uint64_t round;
    uint64_t context;
    uint64_t since_tick;
  };

  // ---- raft.cc: roles, terms, output ----
  bool IsVoter(NodeId id) const;
  bool IsPlausible(const Message& message) const;
  bool InLease() const;
  bool MayCampaign() const;
  void CheckPromise();
  bool MayVoteFor(uint64_t last_index, uint64_t last_term) const;
  void StepOldTerm(const Message& message);
  void StepCurrentTerm(Message message);
  // Follows `leader` (0: none known) in `term` >= term().
  void BecomeFollower(uint64_t term, NodeId leader);
  void SetLeader(NodeId leader);
  // For a message that only the leader of this term sends. Returns false if it is to be dropped.
  bool HearLeader(NodeId from);
  void ResetElectionTimer();
  uint64_t Random(uint64_t bound);
  Message NewMessage(MessageKind kind, NodeId to) const;
  void Send(Message message) { messages_.push_back(std::move(message)); }
  // Sends once the term, the vote and, `with_entries`, the log as they are now are durable.
  void SendDurable(Message message, bool with_entries);
  bool HardStateChanged() const;
  bool CommitIsToBeSaved() const;
  bool ReleaseReady() const { return !held_.empty() && held_.front().seq <= durable_seq_; }

  // ---- raft_election.cc ----
  void BecomePreCandidate();
  void BecomeCandidate(bool forced);
  void BecomeLeader();
  void RequestVotes();
  void CheckVotes();
  void ForgetLeader();
  void TickLeader();
  void TickFollower();
  bool QuorumActive();
  bool SettleRivalry(const Message& message);
  void HandleVoteRequest(const Message& message);
  void HandleVoteResponse(const Message& message);
  void HandleTimeoutNow(const Message& message);

  // ---- raft_replication.cc ----
  Progress* FindPeer(NodeId id);
  void HandleAppend(Message message);
  void Acknowledge(uint64_t index);
  void HandleHeartbeat(const Message& message);
  void HandleAppendResponse(const Message& message);
  void HandleAppendReject(Progress& peer, const Message& message);
  void HandleHeartbeatResponse(const Message& message);
  void MaybeCommit();
  void MaybeTimeoutNow(Progress& peer);
  void BroadcastHeartbeat();
  void SendAppends();
  void SendAppendsTo(Progress& peer);
  void SendAppend(Progress& peer, std::vector<Entry> entries);
  void RequestLogRead(Progress& peer);

  // ---- raft_membership.cc ----
  void UpdatePeers();

  // ---- raft_read.cc ----
  void HandleReadIndex(const Message& message);
  void HandleReadIndexResponse(const Message& message);
  bool CanStartReadRound() const;
  void StartReadRound();
  void ConfirmReads();
  void FinishLeaderRead(const LeaderRead& read, bool failed);
  void FailLeaderReads();
  void FailForwardedReads();
  void ExpireForwardedReads();
  void ForwardReads();

  Options options_;  // Constant after construction, with the defaults filled in.
  uint64_t random_state_;

  // Raft paper, figure 2.
  uint64_t term_;
  NodeId vote_;
  Role role_ = Role::kFollower;
  NodeId leader_ = 0;
  RaftLog log_;
  Configuration configuration_;
  bool needs_snapshot_ = false;
  uint64_t promised_index_ = 0, promised_term_ = 0;  // 0, 0: nothing is missing.

  // Time, in ticks.
  uint64_t tick_ = 0;
  uint32_t election_elapsed_ = 0;  // Since the leader was heard; leader: since the quorum was checked.
  uint32_t election_timeout_ = 0;
  uint32_t heartbeat_elapsed_ = 0;

  // Candidates.
  VoteTally votes_;
  bool yielded_ = false;           // To a rival, since a leader was known.
  bool forced_ = false;            // This election is a leadership transfer.
  bool own_vote_pending_ = false;  // Our vote for ourselves is not durable yet, ...
  uint64_t own_vote_seq_ = 0;      // ... it is with this append. 0: not handed out yet.

  // Leader.
  std::vector<Progress> peers_;               // By id.
  uint64_t term_start_index_ = 0;             // Of the empty entry of our term.
  uint64_t pending_configuration_index_ = 0;  // No other change before this one is applied.
  NodeId transferee_ = 0;
  uint32_t transfer_elapsed_ = 0;
  bool send_pending_ = false;  // Some peer may be sent something.

  // Follower: the acknowledgement that the next output carries.
  bool acknowledge_pending_ = false;
  uint64_t acknowledge_index_ = 0;

  // Reads.
  std::deque<LeaderRead> leader_reads_;  // Rounds grow; those not started are at the end.
  size_t reads_not_started_ = 0;
  uint64_t read_round_ = 0;
  uint64_t confirmed_round_ = 0;
  std::deque<ForwardedRead> forwarded_reads_;
  size_t reads_not_forwarded_ = 0;
  uint64_t forward_round_;  // Begins at random: answers to an earlier incarnation never match.

  // Durability and output.
  HardState issued_;           // What the last append with a hard state carried.
  uint64_t issued_seq_ = 0;    // Of the last append.
  uint64_t saved_commit_ = 0;  // For the sake of a configuration entry, by this append.
  uint64_t saved_commit_seq_ = 0;
  uint64_t hard_state_seq_ = 0;  // Of the append that carried the current term and vote.
  uint64_t durable_seq_ = 0;
  std::deque<Held> held_;  // seq never falls.
  std::vector<Message> messages_;
  std::vector<ReadState> reads_;
  std::vector<LogRead> log_reads_;
  std::vector<NodeId> snapshots_;
};

}  // namespace keyway::raft
