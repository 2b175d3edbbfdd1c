// SPDX-License-Identifier: Apache-2.0
//
// Leader election (Raft paper, 5.2 and 5.4.1), PreVote (dissertation 9.6), CheckQuorum (6.2), and
// the receiving side of leadership transfer (3.10).
//
// A candidate asks for votes only when its own vote is durable, and counts its own only then.
// Unanswered requests are sent again with every heartbeat interval.
#include <algorithm>
#include <utility>

#include "kernel/base/check.h"
#include "kernel/base/mutant.h"
#include "kernel/raft/raft_impl.h"

namespace keyway::raft {

void Raft::Impl::Campaign() {
  if (role_ == Role::kLeader || !MayCampaign()) return;
  BecomePreCandidate();
}

void Raft::Impl::BecomePreCandidate() {
  KW_CHECK(role_ != Role::kLeader);
  BecomeFollower(term_, 0);
  role_ = Role::kPreCandidate;
  heartbeat_elapsed_ = 0;
  votes_.Record(options_.id, true);
  RequestVotes();
  CheckVotes();
}

void Raft::Impl::BecomeCandidate(bool forced) {
  KW_CHECK(role_ != Role::kLeader);
  BecomeFollower(term_ + 1, 0);
  vote_ = options_.id;
  role_ = Role::kCandidate;
  heartbeat_elapsed_ = 0;
  forced_ = forced;
  own_vote_pending_ = !mutant::Is(mutant::kOwnVoteEarly);
  own_vote_seq_ = 0;
  if (!own_vote_pending_) votes_.Record(options_.id, true);
  RequestVotes();
  if (!own_vote_pending_) CheckVotes();
}

void Raft::Impl::BecomeLeader() {
  KW_CHECK(role_ == Role::kCandidate);
  KW_CHECK(vote_ == options_.id);
  role_ = Role::kLeader;
  SetLeader(options_.id);
  election_elapsed_ = 0;
  heartbeat_elapsed_ = 0;
  transferee_ = 0;
  peers_.clear();
  UpdatePeers();
  for (Progress& peer : peers_) peer.recently_active = peer.was_active = false;
  // Whether an unapplied change is among the entries up to here is not worth a search.
  pending_configuration_index_ = log_.last_index();
  term_start_index_ = log_.last_index() + 1;
  const uint64_t index = Propose(EntryKind::kNormal, SharedBytes());
  KW_CHECK(index == term_start_index_);
}

// Asks the voters that have not answered yet.
void Raft::Impl::RequestVotes() {
  const bool is_pre_vote = role_ == Role::kPreCandidate;
  for (NodeId voter : configuration_.voters) {
    if (voter == options_.id || votes_.Answered(voter)) continue;
    Message request = NewMessage(is_pre_vote ? MessageKind::kPreVote : MessageKind::kVote, voter);
    request.index = log_.last_index();
    request.log_term = log_.last_term();
    if (is_pre_vote) {
      request.term = term_ + 1;
      Send(std::move(request));
    } else if (mutant::Is(mutant::kOwnVoteEarly)) {
      Send(std::move(request));
    } else {
      request.forced = forced_;
      SendDurable(std::move(request), true);
    }
  }
}

void Raft::Impl::CheckVotes() {
  switch (votes_.Result(configuration_.voters)) {
    case VoteResult::kPending:
      return;
    case VoteResult::kLost:
      return BecomeFollower(term_, 0);
    case VoteResult::kWon:
      if (role_ == Role::kPreCandidate) return BecomeCandidate(false);
      if (!own_vote_pending_) BecomeLeader();
      return;
  }
}

// Two nodes that lost their leader at the same moment would split the votes. Of two with equal logs the
// one with the higher id goes first: while its own request is fresh it lets the other ask again, and
// the other gives up its own request, once until a leader is known, and stands back for a short time.
// Both are bounded, so that a node without a quorum delays one with a quorum but never stops it.
// Returns whether to answer.
bool Raft::Impl::SettleRivalry(const Message& message) {
  if (role_ != Role::kPreCandidate) return true;
  if (message.index != log_.last_index() || message.log_term != log_.last_term()) return true;
  if (message.from < options_.id) return election_elapsed_ >= options_.heartbeat_ticks;
  if (yielded_) return true;
  yielded_ = true;
  BecomeFollower(term_, 0);
  election_timeout_ = 2 * options_.heartbeat_ticks + 1;
  return true;
}

void Raft::Impl::HandleVoteRequest(const Message& message) {
  const bool is_pre_vote = message.kind == MessageKind::kPreVote;
  // A PreVote for a later term binds nobody. Else: one vote for each term, and none beside a leader.
  const bool is_free = (is_pre_vote && message.term > term_) || vote_ == message.from ||
                       ((vote_ == 0 || mutant::Is(mutant::kTwoVotes)) && leader_ == 0);
  const bool is_up_to_date =
      MayVoteFor(message.index, message.log_term) || mutant::Is(mutant::kVoteForStaleLog);
  const bool grant = is_free && is_up_to_date;
  if (is_pre_vote && grant && !SettleRivalry(message)) return;
  Message response =
      NewMessage(is_pre_vote ? MessageKind::kPreVoteResponse : MessageKind::kVoteResponse, message.from);
  response.reject = !grant;
  if (is_pre_vote) {
    if (grant) {
      response.term = message.term;
      return Send(std::move(response));
    }
    return SendDurable(std::move(response), false);
  }
  if (grant) {
    vote_ = message.from;
    ResetElectionTimer();
  }
  if (mutant::Is(mutant::kVoteBeforeDurable)) return Send(std::move(response));
  SendDurable(std::move(response), false);
}

void Raft::Impl::HandleVoteResponse(const Message& message) {
  const bool is_pre_vote = message.kind == MessageKind::kPreVoteResponse;
  if (role_ != (is_pre_vote ? Role::kPreCandidate : Role::kCandidate)) return;
  // A granted PreVote carries the term it was asked for, everything else the term we are in.
  const uint64_t term = is_pre_vote && !message.reject ? term_ + 1 : term_;
  if (message.term != term || !IsVoter(message.from)) return;
  votes_.Record(message.from, !message.reject);
  CheckVotes();
}

// The leader wants us to take over (dissertation 3.10): no PreVote, and voters ignore their lease.
void Raft::Impl::HandleTimeoutNow(const Message& message) {
  if (!HearLeader(message.from) || !MayCampaign()) return;
  BecomeCandidate(true);
}

void Raft::Impl::OnPeerDown(NodeId peer) {
  if (role_ == Role::kLeader) {
    Progress* progress = FindPeer(peer);
    if (progress == nullptr || progress->state == ProgressState::kSnapshot) return;
    if (progress->state == ProgressState::kReplicate) progress->BecomeProbe();
    progress->paused = true;  // Until it answers a heartbeat.
    return;
  }
  if (peer != 0 && peer == leader_) ForgetLeader();
}

// Ends the lease at once and stands for election after a short random delay.
void Raft::Impl::ForgetLeader() {
  SetLeader(0);
  acknowledge_pending_ = false;
  const uint32_t delay = static_cast<uint32_t>(Random(uint64_t{options_.heartbeat_ticks} + 2));
  if (delay == 0 && MayCampaign()) return BecomePreCandidate();
  election_timeout_ = election_elapsed_ + std::max<uint32_t>(delay, 1);
}

void Raft::Impl::TickFollower() {
  if (election_elapsed_ >= election_timeout_) {
    if (MayCampaign()) return BecomePreCandidate();
    if (role_ != Role::kFollower) return BecomeFollower(term_, 0);
    SetLeader(0);
    acknowledge_pending_ = false;
    return ResetElectionTimer();
  }
  if (role_ == Role::kFollower || heartbeat_elapsed_ < options_.heartbeat_ticks) return;
  heartbeat_elapsed_ = 0;
  if (role_ == Role::kCandidate && own_vote_pending_) return;  // The first requests still wait.
  RequestVotes();
}

void Raft::Impl::TickLeader() {
  if (election_elapsed_ >= options_.election_ticks) {
    election_elapsed_ = 0;
    if (!QuorumActive() && !mutant::Is(mutant::kQuorumNotChecked)) return BecomeFollower(term_, 0);
  }
  if (transferee_ != 0 && ++transfer_elapsed_ >= options_.election_ticks) transferee_ = 0;
  if (heartbeat_elapsed_ >= options_.heartbeat_ticks) {
    heartbeat_elapsed_ = 0;
    BroadcastHeartbeat();
  }
}

// Whether a majority was heard since the last check (CheckQuorum, dissertation 6.2).
bool Raft::Impl::QuorumActive() {
  size_t active = IsVoter() ? 1 : 0;
  for (Progress& peer : peers_) {
    if (peer.recently_active && !peer.is_learner) ++active;
    peer.was_active = std::exchange(peer.recently_active, false);
  }
  return active >= QuorumSize(configuration_.voters.size());
}

}  // namespace keyway::raft
