// SPDX-License-Identifier: Apache-2.0
//
// The operator: replaces members that are of no use any more, and changes the membership under load. One
// step at a time; a step that fails is tried again, or given up.
#include <algorithm>

#include "kernel/base/bytes.h"
#include "tests/sim/world/cluster_internal.h"

namespace keyway::sim {

bool Cluster::AllHealthy() const {
  return std::all_of(machines_.begin(), machines_.end(), [](const Machine& m) {
    return m.role == Role::kSpare || (m.role == Role::kMember && !m.is_damaged && !m.is_leaving);
  });
}

void Cluster::Ask(uint16_t kind, uint64_t id, size_t slot, bool is_learner,
                  std::function<void(int32_t code, uint64_t new_id)> done) {
  std::vector<size_t> up;
  for (size_t other = 0; other < nodes_.size(); ++other) {
    if (IsUp(other) && machines_[other].role == Role::kMember && !machines_[other].is_leaving)
      up.push_back(other);
  }
  if (up.empty()) return;
  auto call = std::make_unique<MemberCall>();
  call->cluster = this;
  call->id = next_member_call_++;
  call->request.req.size = sizeof call->request;
  call->request.req.kind = kind;
  call->request.id = id;
  call->url = SimNetwork::UrlOf(slot);
  call->url_slice = ToSlice(call->url);
  call->request.peer_urls = &call->url_slice;
  call->request.peer_url_count = kind == KW_REQ_MEMBER_ADD || kind == KW_REQ_MEMBER_UPDATE ? 1 : 0;
  call->request.is_learner = is_learner ? 1 : 0;
  call->done = std::move(done);
  call->request.req.ctx = call.get();
  call->request.req.done = [](kw_request* self, int32_t code, const kw_error*, kw_reply* reply) {
    auto* own = static_cast<MemberCall*>(self->ctx);
    Cluster& cluster = *own->cluster;
    const uint64_t new_id = reply == nullptr ? 0 : reply->new_member_id;
    if (reply != nullptr) reply->release(reply);
    const std::function<void(int32_t, uint64_t)> done = std::move(own->done);
    cluster.member_calls_.erase(own->id);
    done(code, new_id);
  };
  if (kind != KW_REQ_MOVE_LEADER && chaos_ && swarm_.moves_leader && random_.Coin()) MoveLeaderToSlow();
  size_t via = up[random_.Below(up.size())];
  if (kind == KW_REQ_MOVE_LEADER && random_.Chance(900'000)) {  // Nobody else does it.
    for (size_t other : up) {
      if (Leads(*nodes_[other])) via = other;
    }
  }
  kw_request* request = &call->request.req;
  member_calls_.emplace(call->id, std::move(call));
  Submit(via, request);
}

void Cluster::MoveLeader(size_t slot) {
  if (machines_[slot].role != Role::kMember) return;
  ++faults_;
  Ask(KW_REQ_MOVE_LEADER, machines_[slot].member_id, slot, false, [](int32_t, uint64_t) {});
}

void Cluster::MoveLeaderTo(size_t slot, uint64_t delay_ns) {
  scheduler_.After(delay_ns, [this, slot] {
    if (chaos_) MoveLeader(slot);
  });
}

// To another member, and again to who leads now. What a third one sends it meanwhile comes so late that it
// finds a leader of another term.
void Cluster::MoveLeaderAndBack() {
  size_t leader = nodes_.size();
  std::vector<size_t> others;
  for (size_t slot = 0; slot < nodes_.size(); ++slot) {
    if (Leads(*nodes_[slot])) {
      leader = slot;
    } else if (machines_[slot].role == Role::kMember && IsUp(slot)) {
      others.push_back(slot);
    }
  }
  if (leader == nodes_.size() || others.size() < 2) return;
  const size_t at = random_.Below(others.size());
  const size_t to = others[at], third = others[(at + 1) % others.size()];
  const uint64_t there_ns = random_.Between(50, 500) * kMillisecond;
  const uint64_t back_ns = there_ns + random_.Between(50, 1500) * kMillisecond;
  network_.SetSlow(third, leader, back_ns + random_.Between(50, 1000) * kMillisecond);
  Disturb();
  MoveLeaderTo(to, there_ns);
  MoveLeaderTo(leader, back_ns);
  scheduler_.After(back_ns, [this, third, leader] {
    network_.SetSlow(third, leader, 0);
    Disturb();
  });
}

// One whose engine is slow to read is to lead before it has applied what is being decided.
void Cluster::MoveLeaderToSlow() {
  std::vector<size_t> others;
  for (size_t slot = 0; slot < nodes_.size(); ++slot) {
    if (machines_[slot].role == Role::kMember && IsUp(slot) && !Leads(*nodes_[slot])) others.push_back(slot);
  }
  if (others.empty()) return;
  const size_t slot = others[random_.Below(others.size())];
  const uint64_t end_ns = random_.Between(500, 4000) * kMillisecond;
  nodes_[slot]->reads_hang_until_ns = scheduler_.now_ns() + end_ns;
  Disturb();
  scheduler_.After(end_ns, [this] { Disturb(); });
  MoveLeaderTo(slot, random_.Below(end_ns));
}

// All members have the same hash of the same revision, if they have compacted up to the same one.
void Cluster::CompareHashes() {
  size_t newest = 0;
  if (!RandomRunning(&newest) || nodes_[newest]->core()->raft() == nullptr) return;
  const int64_t revision = nodes_[newest]->core()->mvcc().revision();
  for (size_t slot = 0; slot < nodes_.size(); ++slot) {
    if (!IsUp(slot) || machines_[slot].role != Role::kMember) continue;
    auto call = std::make_unique<HashCall>();
    call->cluster = this;
    call->id = next_member_call_++;
    call->slot = slot;
    call->request.req.size = sizeof call->request;
    call->request.req.kind = KW_REQ_HASH_KV;
    call->request.revision = revision;
    call->request.req.ctx = call.get();
    call->request.req.done = [](kw_request* self, int32_t, const kw_error*, kw_reply* reply) {
      const auto* own = static_cast<const HashCall*>(self->ctx);
      Cluster& cluster = *own->cluster;
      if (reply != nullptr && !cluster.machines_[own->slot].is_damaged) {
        const kw_hash& hash = *reply->hash;
        const auto [at, is_new] =
            cluster.hashes_.try_emplace({hash.hash_revision, hash.compact_revision}, hash.hash);
        if (!is_new && at->second != hash.hash) {
          cluster.Fail("hash: node " + std::to_string(own->slot + 1) + " has another one of revision " +
                       std::to_string(hash.hash_revision) + " after the compaction of " +
                       std::to_string(hash.compact_revision));
        }
      }
      if (reply != nullptr) reply->release(reply);
      cluster.hash_calls_.erase(own->id);
    };
    kw_request* request = &call->request.req;
    hash_calls_.emplace(call->id, std::move(call));
    Submit(slot, request);
  }
}

// The membership that the most advanced running member knows; null if none runs. One that was removed itself
// answers nobody.
const Membership* Cluster::KnownMembership() const {
  const Membership* best = nullptr;
  uint64_t best_applied = 0;
  for (size_t slot = 0; slot < nodes_.size(); ++slot) {
    const core::Core* core = nodes_[slot]->core();
    if (core == nullptr || core->raft() == nullptr || core->failed()) continue;
    if (core->raft()->applied_index() <= best_applied) continue;
    if (core->membership().IsRemoved(core->member_id())) continue;
    best_applied = core->raft()->applied_index();
    best = &core->membership();
  }
  return best;
}

// Starts machines for members that were added, and empties those of members that were removed.
void Cluster::FollowMembership(const Membership& membership) {
  for (size_t slot = 0; slot < machines_.size(); ++slot) {
    Machine& machine = machines_[slot];
    if (machine.role == Role::kSpare && !machine.restart_planned) {
      const Member* member = membership.FindByPeerUrls({SimNetwork::UrlOf(slot)});
      if (member == nullptr || member->incarnation != 0 || retired_.count(member->id) != 0) continue;
      machine.role = Role::kJoining;
      machine.member_id = member->id;
      PlanRestart(slot, random_.Between(10, 500) * kMillisecond);
    } else if (machine.role != Role::kSpare && membership.IsRemoved(machine.member_id)) {
      if (!machine.may_be_removed) Fail("node " + std::to_string(slot + 1) + " was removed, by nobody");
      if (nodes_[slot]->is_running()) KillMachine(slot, false);
      Retire(slot);
    }
  }
}

// Looks at the members once a while and takes the next step.
void Cluster::Operate() {
  const Membership* membership = KnownMembership();
  if (membership == nullptr || !failure_.empty()) return;
  FollowMembership(*membership);
  TakeStep(*membership);
  // Two operators who do not know of each other.
  if (chaos_ && random_.Chance(300'000)) TakeStep(*membership);
}

void Cluster::TakeStep(const Membership& membership) {
  for (size_t slot = 0; slot < machines_.size(); ++slot) {
    Machine& machine = machines_[slot];
    if (machine.role != Role::kGone && !machine.is_leaving) continue;
    machine.may_be_removed = true;
    if (--machine.removal_tries == 0) machine.is_leaving = false;  // Refused for long.
    return Ask(KW_REQ_MEMBER_REMOVE, machine.member_id, slot, false, [](int32_t, uint64_t) {});
  }
  size_t learners = 0;
  for (const auto& [id, member] : membership.members()) learners += member.is_learner ? 1 : 0;
  const size_t voters = membership.members().size() - learners;
  const bool wants_learner = swarm_.keeps_learner && chaos_ && voters == swarm_.voters && learners == 0;
  if (membership.members().size() < swarm_.voters || wants_learner) {
    std::vector<size_t> spares;
    for (size_t slot = 0; slot < machines_.size(); ++slot) {
      if (machines_[slot].role == Role::kSpare && !machines_[slot].restart_planned) spares.push_back(slot);
    }
    if (spares.empty()) return;
    const size_t slot = spares[random_.Below(spares.size())];
    return Ask(KW_REQ_MEMBER_ADD, 0, slot, wants_learner || random_.Coin(), [](int32_t, uint64_t) {});
  }
  // Learners become voters as soon as they may and are needed.
  for (const auto& [id, member] : membership.members()) {
    if (!member.is_learner || voters >= swarm_.voters) continue;
    return Ask(KW_REQ_MEMBER_PROMOTE, id, 0, false, [](int32_t, uint64_t) {});
  }
  if (!chaos_ || swarm_.member_ns == 0 || swarm_.voters == 1 || !AllHealthy()) return;
  const size_t slot = random_.Below(machines_.size());
  if (machines_[slot].role != Role::kMember) return;
  switch (random_.Below(5)) {
    case 0:
    case 1:
      return random_.Coin() ? MoveLeader(slot) : MoveLeaderAndBack();
    case 2:  // To the URL that it has: a change of the configuration all the same.
      ++faults_;
      return Ask(KW_REQ_MEMBER_UPDATE, machines_[slot].member_id, slot, false, [](int32_t, uint64_t) {});
    default:
      ++faults_;
      machines_[slot].is_leaving = true;
      machines_[slot].removal_tries = 20;
      Disturb();
  }
}

}  // namespace keyway::sim
