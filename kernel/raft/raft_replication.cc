// SPDX-License-Identifier: Apache-2.0
//
// Log replication (Raft paper, 5.3), commitment (5.4.2), heartbeats, and the sending side of
// leadership transfer (dissertation 3.10).
//
// A leader sends ahead of the acknowledgements (dissertation 10.2.1). What got lost is found by an
// empty append after the next answer to a heartbeat: the follower refuses it, and the leader probes.
#include <algorithm>
#include <utility>

#include "kernel/base/check.h"
#include "kernel/base/mutant.h"
#include "kernel/raft/raft_impl.h"

namespace keyway::raft {

Progress* Raft::Impl::FindPeer(NodeId id) {
  for (Progress& peer : peers_) {
    if (peer.id == id) return &peer;
  }
  return nullptr;
}

// ---- follower ----

void Raft::Impl::Acknowledge(uint64_t index) {
  acknowledge_index_ = acknowledge_pending_ ? std::max(acknowledge_index_, index) : index;
  acknowledge_pending_ = true;
}

// Raft paper, figure 2, AppendEntries. Everything up to our commit index is known to be equal.
void Raft::Impl::HandleAppend(Message message) {
  if (!HearLeader(message.from)) return;
  if (needs_snapshot_) {
    Message response = NewMessage(MessageKind::kAppendResponse, message.from);
    response.reject = true;
    response.needs_snapshot = true;
    response.index = message.index;
    response.hint = std::min(message.index, log_.last_index());
    return SendDurable(std::move(response), false);
  }
  const uint64_t last_new = message.index + message.entries.size();
  if (last_new <= log_.commit_index()) return Acknowledge(log_.commit_index());
  size_t at = 0;
  if (message.index < log_.commit_index()) {
    at = log_.commit_index() - message.index;
    // Not of this log: no leader can differ below what is committed.
    if (!log_.Matches(log_.commit_index(), message.entries[at - 1].term)) return;
  } else if (!log_.Matches(message.index, message.log_term)) {
    auto [hint, hint_term] = log_.FindConflictByTerm(message.index, message.log_term);
    Message response = NewMessage(MessageKind::kAppendResponse, message.from);
    response.reject = true;
    response.lost_log = IsBehindPromise();
    response.index = message.index;
    response.hint = hint;
    response.log_term = hint_term;
    return SendDurable(std::move(response), false);
  }
  if (mutant::Is(mutant::kAppendCutsTail)) log_.TruncateFrom(last_new + 1);
  for (; at < message.entries.size(); ++at) {
    Entry& entry = message.entries[at];
    if (log_.Matches(entry.index, entry.term)) continue;
    log_.TruncateFrom(entry.index);
    log_.Append(std::move(entry));
  }
  log_.CommitTo(std::min(message.commit, last_new));
  Acknowledge(last_new);
}

void Raft::Impl::HandleHeartbeat(const Message& message) {
  if (!HearLeader(message.from)) return;
  // At most what we have acknowledged to this leader; more is not from a correct one.
  if (message.commit <= log_.last_index()) log_.CommitTo(message.commit);
  Message response = NewMessage(MessageKind::kHeartbeatResponse, message.from);
  response.context = message.context;
  SendDurable(std::move(response), false);
  if (!IsBehindPromise() || message.commit <= log_.last_index()) return;
  // The leader believes that we have what is lost, and may have nothing to send that we could refuse.
  Message lost = NewMessage(MessageKind::kAppendResponse, message.from);
  lost.reject = true;
  lost.lost_log = true;
  lost.index = message.commit;
  lost.hint = log_.last_index();
  lost.log_term = log_.last_term();
  SendDurable(std::move(lost), false);
}

// ---- leader: answers ----

void Raft::Impl::HandleAppendResponse(const Message& message) {
  if (role_ != Role::kLeader) return;
  Progress* peer = FindPeer(message.from);
  if (peer == nullptr) return;
  peer->recently_active = true;
  if (message.reject) return HandleAppendReject(*peer, message);
  if (message.index > log_.last_index()) return;
  const bool grew = peer->OnMatch(message.index);
  switch (peer->state) {
    case ProgressState::kProbe:
      if (grew || message.index == peer->match) peer->BecomeReplicate();
      break;
    case ProgressState::kSnapshot:
      // It has caught up without the snapshot, or was heard before we were told of its success.
      if (grew && peer->match + 1 >= log_.first_index()) peer->BecomeReplicate();
      break;
    case ProgressState::kReplicate:
      if (!mutant::Is(mutant::kWindowNeverFreed)) peer->inflights.FreeTo(message.index);
      break;
  }
  send_pending_ = true;
  if (grew) MaybeCommit();
  MaybeTimeoutNow(*peer);
}

void Raft::Impl::HandleAppendReject(Progress& peer, const Message& message) {
  if (message.needs_snapshot) {
    if (peer.state == ProgressState::kSnapshot) return;
    peer.BecomeSnapshot();
    snapshots_.push_back(peer.id);
    return;
  }
  uint64_t hint = std::min(message.hint, log_.last_index());
  if (message.log_term > 0) hint = log_.FindConflictByTerm(hint, message.log_term).first;
  if (message.lost_log && peer.state != ProgressState::kSnapshot) {
    peer.OnLostLog(hint);
    send_pending_ = true;
    return;
  }
  if (peer.OnReject(message.index, hint)) send_pending_ = true;
}

void Raft::Impl::HandleHeartbeatResponse(const Message& message) {
  if (role_ != Role::kLeader) return;
  Progress* peer = FindPeer(message.from);
  if (peer == nullptr) return;
  peer->recently_active = true;
  peer->paused = peer->paused && mutant::Is(mutant::kProbeStaysPaused);
  if (peer->match < log_.last_index()) peer->probe_now = true;
  send_pending_ = true;
  if (message.context > peer->read_round && message.context <= read_round_) {
    peer->read_round = mutant::Is(mutant::kAnyAnswerConfirms) ? read_round_ : message.context;
    ConfirmReads();
  }
  MaybeTimeoutNow(*peer);
}

// Only entries of our own term are committed by counting (5.4.2), and only what is durable counts.
void Raft::Impl::MaybeCommit() {
  KW_CHECK(role_ == Role::kLeader);
  VoterValues matches;
  if (IsVoter()) matches.push_back(log_.durable_index());
  for (const Progress& peer : peers_) {
    if (!peer.is_learner) matches.push_back(peer.match);
  }
  KW_CHECK(matches.size() == configuration_.voters.size());
  const uint64_t index = QuorumValue(std::move(matches));
  if (index < term_start_index_ && !mutant::Is(mutant::kOldTermCommitted)) return;
  if (log_.CommitTo(index)) send_pending_ = true;
}

// ---- leader: sending ----

void Raft::Impl::BroadcastHeartbeat() {
  for (Progress& peer : peers_) {
    Message heartbeat = NewMessage(MessageKind::kHeartbeat, peer.id);
    heartbeat.commit = std::min(peer.match, log_.commit_index());
    if (mutant::Is(mutant::kHeartbeatCommits)) heartbeat.commit = log_.commit_index();
    heartbeat.context = read_round_;
    Send(std::move(heartbeat));
  }
}

void Raft::Impl::SendAppends() {
  send_pending_ = false;
  for (Progress& peer : peers_) SendAppendsTo(peer);
}

void Raft::Impl::SendAppendsTo(Progress& peer) {
  if (peer.state == ProgressState::kSnapshot) return;
  if (peer.next < log_.first_index()) {
    // Not before it is known to be there, nor at once after a transfer that failed.
    if (!peer.recently_active || peer.paused) return;
    peer.BecomeSnapshot();
    snapshots_.push_back(peer.id);
    return;
  }
  if (peer.state == ProgressState::kProbe) {
    if (peer.paused) return;
    if (peer.next < log_.cached_first()) return RequestLogRead(peer);
    return SendAppend(peer, log_.Copy(peer.next, options_.append_bytes_max));
  }
  while (peer.next <= log_.last_index() && !peer.inflights.Full()) {
    if (peer.next < log_.cached_first()) {
      RequestLogRead(peer);
      break;
    }
    SendAppend(peer, log_.Copy(peer.next, options_.append_bytes_max));
  }
  if (peer.probe_now || peer.sent_commit < log_.commit_index()) SendAppend(peer, {});
}

// `entries` begin at peer.next; none: asks whether the peer has what was sent, and tells the commit.
void Raft::Impl::SendAppend(Progress& peer, std::vector<Entry> entries) {
  Message append = NewMessage(MessageKind::kAppend, peer.id);
  append.index = peer.next - 1;
  const std::optional<uint64_t> log_term = log_.TermAt(append.index);
  KW_CHECK(log_term.has_value());
  append.log_term = *log_term;
  append.commit = log_.commit_index();
  peer.sent_commit = append.commit;
  peer.probe_now = false;
  if (peer.state == ProgressState::kProbe) {
    peer.paused = true;
  } else if (!entries.empty()) {
    KW_CHECK(entries.front().index == peer.next);
    peer.next = entries.back().index + 1;
    peer.inflights.Add(entries.back().index, RaftLog::Cost(entries));
  }
  append.entries = std::move(entries);
  Send(std::move(append));
}

void Raft::Impl::RequestLogRead(Progress& peer) {
  if (peer.log_read_pending) return;
  peer.log_read_pending = true;
  peer.log_read_begin = peer.next;
  log_reads_.push_back({peer.id, peer.next, log_.cached_first(), options_.append_bytes_max});
}

void Raft::Impl::OnLogRead(NodeId peer_id, uint64_t begin, std::vector<Entry> entries) {
  if (role_ != Role::kLeader) return;
  Progress* peer = FindPeer(peer_id);
  if (peer == nullptr || !peer->log_read_pending || peer->log_read_begin != begin) return;
  peer->log_read_pending = false;
  send_pending_ = true;
  size_t valid = 0;
  while (valid < entries.size() && entries[valid].index == begin + valid &&
         log_.Matches(entries[valid].index, entries[valid].term)) {
    ++valid;
  }
  entries.resize(valid);
  if (peer->state == ProgressState::kSnapshot || peer->next != begin) return;
  if (begin < log_.first_index()) return;  // Truncated meanwhile: it will need a snapshot.
  if (entries.empty()) {
    if (peer->state == ProgressState::kReplicate) peer->BecomeProbe();
    peer->paused = true;  // Read again after the next answer to a heartbeat.
    return;
  }
  const bool blocked = peer->state == ProgressState::kProbe ? peer->paused : peer->inflights.Full();
  if (!blocked) SendAppend(*peer, std::move(entries));
}

void Raft::Impl::OnLogDamaged(NodeId peer_id, uint64_t begin) {
  if (role_ != Role::kLeader) return;
  Progress* peer = FindPeer(peer_id);
  if (peer == nullptr || !peer->log_read_pending || peer->log_read_begin != begin) return;
  peer->log_read_pending = false;
  if (peer->state == ProgressState::kSnapshot || peer->next != begin) return;
  peer->BecomeSnapshot();
  snapshots_.push_back(peer->id);
}

// ---- leadership transfer ----

void Raft::Impl::TransferLeadership(NodeId to) {
  if (role_ != Role::kLeader || to == options_.id || to == transferee_) return;
  Progress* peer = FindPeer(to);
  if (peer == nullptr || peer->is_learner) return;
  transferee_ = to;
  transfer_elapsed_ = 0;
  send_pending_ = true;
  MaybeTimeoutNow(*peer);
}

// Hands over as soon as the target has our whole log. Sent again with each answer, if it got lost.
void Raft::Impl::MaybeTimeoutNow(Progress& peer) {
  if (peer.id != transferee_ || peer.match != log_.last_index()) return;
  Send(NewMessage(MessageKind::kTimeoutNow, peer.id));
}

}  // namespace keyway::raft
