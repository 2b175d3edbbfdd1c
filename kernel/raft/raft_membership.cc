// SPDX-License-Identifier: Apache-2.0
//
// The configuration in effect (dissertation, chapter 4) and snapshots (Raft paper, section 7).
#include <algorithm>
#include <utility>

#include "kernel/base/check.h"
#include "kernel/base/mutant.h"
#include "kernel/raft/raft_impl.h"

namespace keyway::raft {
namespace {

bool Contains(const Configuration& configuration, NodeId id) {
  return std::binary_search(configuration.voters.begin(), configuration.voters.end(), id) ||
         std::binary_search(configuration.learners.begin(), configuration.learners.end(), id);
}

}  // namespace

// Makes peers_ the other members of the configuration; who stays keeps its progress.
void Raft::Impl::UpdatePeers() {
  std::vector<Progress> updated;
  updated.reserve(configuration_.voters.size() + configuration_.learners.size());
  auto add = [&](NodeId id, bool is_learner) {
    if (id == options_.id) return;
    if (Progress* known = FindPeer(id); known != nullptr) {
      updated.push_back(std::move(*known));
    } else {
      updated.emplace_back(id, log_.last_index() + 1, options_.inflight_messages_max,
                           options_.inflight_bytes_max);
      updated.back().recently_active = true;  // It gets the time of one check of the quorum.
    }
    updated.back().is_learner = is_learner;
  };
  for (NodeId id : configuration_.voters) add(id, false);
  for (NodeId id : configuration_.learners) {
    if (!IsVoter(id)) add(id, true);
  }
  std::sort(updated.begin(), updated.end(), [](const Progress& a, const Progress& b) { return a.id < b.id; });
  peers_ = std::move(updated);
}

void Raft::Impl::ApplyConfiguration(const Configuration& configuration) {
  const bool leader_was_member = leader_ != 0 && Contains(configuration_, leader_);
  if (role_ != Role::kLeader) {
    configuration_ = configuration;
    if (role_ != Role::kFollower) {
      if (!IsVoter()) return BecomeFollower(term_, 0);
      return CheckVotes();
    }
    if (leader_was_member && !Contains(configuration_, leader_)) ForgetLeader();
    return;
  }
  if (!std::binary_search(configuration.voters.begin(), configuration.voters.end(), options_.id)) {
    // Removed, or a learner from now on: the change is committed, tell the others and step down
    // (dissertation 4.2.2).
    SendAppends();
    configuration_ = configuration;
    return BecomeFollower(term_, 0);
  }
  configuration_ = configuration;
  UpdatePeers();
  const Progress* transferee = FindPeer(transferee_);
  if (transferee == nullptr || transferee->is_learner) transferee_ = 0;
  send_pending_ = true;
  // A smaller majority may have been reached already.
  MaybeCommit();
  ConfirmReads();
}

bool Raft::Impl::OnSnapshotChunk(NodeId from, uint64_t term) {
  if (from == 0 || from == options_.id || term < term_ || term == 0) return false;
  if (term > term_) BecomeFollower(term, from);
  return HearLeader(from);
}

bool Raft::Impl::InstallSnapshot(uint64_t index, uint64_t term, const Configuration& configuration) {
  KW_CHECK(role_ != Role::kLeader);
  KW_CHECK(index >= log_.applied_index());
  // Entries that follow stay only if they are in memory: they still have to be applied.
  const bool keep = log_.Matches(index, term) && index + 1 >= log_.cached_first();
  if (keep) {
    log_.CommitTo(index);
    log_.ApplyTo(index);
  } else {
    log_.Reset(index, term);
    acknowledge_pending_ = false;
  }
  CheckPromise();
  if (!mutant::Is(mutant::kSnapshotKeepsMembers)) ApplyConfiguration(configuration);
  return !keep;
}

void Raft::Impl::OnSnapshotSent(NodeId peer_id, uint64_t index) {
  if (role_ != Role::kLeader) return;
  Progress* peer = FindPeer(peer_id);
  if (peer == nullptr) return;
  if (index > log_.commit_index()) index = 0;  // Not a snapshot of ours.
  if (index > 0) peer->OnMatch(index);
  const bool is_forgotten = index == 0 && mutant::Is(mutant::kSnapshotFailureForgotten);
  if (peer->state == ProgressState::kSnapshot && !is_forgotten) {
    peer->BecomeProbe();
    if (index == 0) {
      // After the next answer to a heartbeat, ask anew where the peer is: it may have more than a
      // snapshot of ours, and refuse it, or what it needs may be in the log.
      peer->paused = true;
      peer->next = log_.last_index() + 1;
    }
  }
  send_pending_ = true;
  if (index > 0) MaybeCommit();
}

void Raft::Impl::TruncatePrefix(uint64_t index) {
  log_.TruncatePrefix(std::min({index, log_.applied_index(), log_.durable_index()}));
}

std::vector<PeerProgress> Raft::Impl::progress() const {
  std::vector<PeerProgress> result;
  result.reserve(peers_.size());
  for (const Progress& peer : peers_) {
    result.push_back({peer.id, peer.match, peer.is_learner, peer.recently_active || peer.was_active,
                      peer.state == ProgressState::kSnapshot});
  }
  return result;
}

}  // namespace keyway::raft
