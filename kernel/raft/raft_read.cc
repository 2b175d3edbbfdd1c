// SPDX-License-Identifier: Apache-2.0
//
// Linearizable reads without a log write (dissertation 6.4).
//
// The leader gives a read the commit index at the start of a round, which is after the read was asked
// for; answers of a majority to heartbeats of that round, or a later one, prove that no newer leader
// had committed anything by then. No clock is trusted. Reads that come while kRoundsInflightMax rounds
// are unconfirmed join the next one; every heartbeat carries the latest round, so none gets lost.
// A follower sends one request for all reads since its last output.
#include <utility>

#include "kernel/base/check.h"
#include "kernel/base/limits.h"
#include "kernel/base/mutant.h"
#include "kernel/raft/raft_impl.h"

namespace keyway::raft {
namespace {

constexpr uint64_t kRoundsInflightMax = 4;

}  // namespace

void Raft::Impl::ReadIndex(uint64_t context) {
  if (role_ == Role::kLeader && leader_reads_.size() < kRequestsWaitingMax) {
    leader_reads_.push_back({0, 0, context, options_.id});
    ++reads_not_started_;
  } else if (role_ == Role::kFollower && leader_ != 0 && forwarded_reads_.size() < kRequestsWaitingMax) {
    forwarded_reads_.push_back({0, context, tick_});
    ++reads_not_forwarded_;
  } else {
    reads_.push_back({context, 0, true});
  }
}

// ---- leader ----

void Raft::Impl::HandleReadIndex(const Message& message) {
  const LeaderRead read{0, 0, message.context, message.from};
  if (role_ != Role::kLeader || leader_reads_.size() >= kRequestsWaitingMax) {
    return FinishLeaderRead(read, true);
  }
  if (Progress* peer = FindPeer(message.from); peer != nullptr) peer->recently_active = true;
  leader_reads_.push_back(read);
  ++reads_not_started_;
}

// Before an entry of this term is committed the commit index may be behind (dissertation 6.4, step 1).
bool Raft::Impl::CanStartReadRound() const {
  const bool may_serve =
      committed_in_term() || (mutant::Is(mutant::kReadBeforeCommit) && role_ == Role::kLeader);
  return reads_not_started_ > 0 && may_serve && read_round_ - confirmed_round_ < kRoundsInflightMax;
}

void Raft::Impl::StartReadRound() {
  ++read_round_;
  for (size_t i = leader_reads_.size() - reads_not_started_; i < leader_reads_.size(); ++i) {
    leader_reads_[i].round = read_round_;
    leader_reads_[i].index = log_.commit_index();
  }
  reads_not_started_ = 0;
  if (QuorumSize(configuration_.voters.size()) > 1) BroadcastHeartbeat();
  ConfirmReads();
}

void Raft::Impl::ConfirmReads() {
  KW_CHECK(role_ == Role::kLeader);
  VoterValues rounds;
  if (mutant::Is(mutant::kStaleRead)) rounds.assign(configuration_.voters.size() + 1, read_round_);
  if (IsVoter()) rounds.push_back(read_round_);
  for (const Progress& peer : peers_) {
    if (!peer.is_learner) rounds.push_back(peer.read_round);
  }
  const uint64_t round = QuorumValue(std::move(rounds));
  if (round <= confirmed_round_) return;
  confirmed_round_ = round;
  while (!leader_reads_.empty()) {
    const LeaderRead& read = leader_reads_.front();
    if (read.round == 0 || read.round > round) break;
    FinishLeaderRead(read, false);
    leader_reads_.pop_front();
  }
}

void Raft::Impl::FinishLeaderRead(const LeaderRead& read, bool failed) {
  if (read.from == options_.id) {
    reads_.push_back({read.context, read.index, failed});
    return;
  }
  Message response = NewMessage(MessageKind::kReadIndexResponse, read.from);
  response.context = read.context;
  response.index = read.index;
  response.reject = failed;
  SendDurable(std::move(response), false);
}

void Raft::Impl::FailLeaderReads() {
  for (const LeaderRead& read : leader_reads_) FinishLeaderRead(read, true);
  leader_reads_.clear();
  reads_not_started_ = 0;
  confirmed_round_ = read_round_;
}

// ---- follower ----

void Raft::Impl::ForwardReads() {
  KW_CHECK(leader_ != 0);
  ++forward_round_;
  for (size_t i = forwarded_reads_.size() - reads_not_forwarded_; i < forwarded_reads_.size(); ++i) {
    forwarded_reads_[i].round = forward_round_;
  }
  reads_not_forwarded_ = 0;
  Message request = NewMessage(MessageKind::kReadIndex, leader_);
  request.context = forward_round_;
  SendDurable(std::move(request), false);
}

// The index holds for all reads that were sent up to this round.
void Raft::Impl::HandleReadIndexResponse(const Message& message) {
  if (role_ != Role::kFollower || message.from != leader_) return;
  if (forwarded_reads_.empty() || message.context < forwarded_reads_.front().round ||
      message.context > forward_round_) {
    return;
  }
  while (!forwarded_reads_.empty()) {
    const ForwardedRead& read = forwarded_reads_.front();
    if (read.round == 0 || read.round > message.context) break;
    reads_.push_back({read.context, message.reject ? 0 : message.index, message.reject});
    forwarded_reads_.pop_front();
  }
}

void Raft::Impl::FailForwardedReads() {
  for (const ForwardedRead& read : forwarded_reads_) reads_.push_back({read.context, 0, true});
  forwarded_reads_.clear();
  reads_not_forwarded_ = 0;
}

void Raft::Impl::ExpireForwardedReads() {
  while (!forwarded_reads_.empty()) {
    const ForwardedRead& read = forwarded_reads_.front();
    if (tick_ - read.since_tick < options_.election_ticks) break;
    if (read.round == 0) --reads_not_forwarded_;
    reads_.push_back({read.context, 0, true});
    forwarded_reads_.pop_front();
  }
}

}  // namespace keyway::raft
