// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/cluster.h"

#include <algorithm>

#include "kernel/core/peer_wire.h"
#include "kernel/raft/wire.h"
#include "tests/sim/world/cluster_internal.h"

namespace keyway::sim {

Cluster::Cluster(uint64_t seed, const Swarm& swarm, bool trace_text)
    : seed_(seed),
      swarm_(swarm),
      trace_(trace_text),
      random_(seed),
      network_(&scheduler_, &trace_, random_.Next(), swarm.voters + swarm.spares),
      raft_checker_(swarm.voters + swarm.spares),
      deliveries_(swarm.voters + swarm.spares) {
  const size_t slots = swarm.voters + swarm.spares;
  SimNode::Services services;
  services.scheduler = &scheduler_;
  services.trace = &trace_;
  services.network = &network_;
  SimNode::Hooks hooks;
  hooks.turned = [this](size_t slot) { OnTurned(slot); };
  hooks.applied = [this](size_t slot, uint64_t index) {
    if (nodes_[slot]->core() != nullptr) raft_checker_.OnApplied(slot, *nodes_[slot]->core(), index);
  };
  hooks.entry = [this](size_t slot, uint64_t index, uint64_t term, uint64_t before, uint32_t crc) {
    raft_checker_.OnEntry(slot, index, term, before, crc);
  };
  hooks.configuration = [this](size_t slot, uint64_t index, uint64_t term) {
    if (nodes_[slot]->core() != nullptr)
      raft_checker_.OnConfiguration(slot, *nodes_[slot]->core(), index, term);
  };
  network_.on_send = [this](size_t slot, const kw_frame& frame) { OnSend(slot, frame); };
  network_.on_stall = [this](uint64_t stall_ns) { Disturb(stall_ns); };
  if (swarm.damage_ns != 0) {
    network_.change_bulk = [this](size_t slot, std::string* frame) { DamageSnapshot(slot, frame); };
  }
  network_.paused_until_ns = [this](size_t slot) { return nodes_[slot]->paused_until_ns(); };
  hooks.loss = [this](size_t slot, uint64_t base_index) {
    Fail("node " + std::to_string(slot + 1) + " drops acknowledged entries behind " +
         std::to_string(base_index) + ", which it has");
  };
  hooks.stalled = [this] { Disturb(); };
  hooks.died = [this](size_t slot) { OnDied(slot); };
  log_of_ = [this](uint64_t member) { return LogOf(member); };
  machines_.resize(slots);
  stalls_.resize(slots);
  outdated_.resize(slots);
  for (size_t slot = 0; slot < slots; ++slot) {
    const bool fleeting = swarm.mixed_engines && slot % 2 == 1;
    nodes_.push_back(std::make_unique<SimNode>(
        slot, services, hooks, fleeting ? SimStore::Engine::kFleeting : SimStore::Engine::kPinned,
        swarm.segment_bytes, random_.Next()));
    nodes_.back()->timing = swarm.timing;
    nodes_.back()->store().on_applied = [this, slot](std::string_view bytes, bool is_log_old) {
      const std::optional<core::Applied> applied = core::DecodeApplied(bytes);
      if (!applied.has_value()) return;
      raft_checker_.OnStored(slot, *applied, is_log_old ? nullptr : &nodes_[slot]->log_record().acknowledged);
    };
  }
  network_.faults = swarm.links;
  for (size_t slot = 0; slot < swarm.voters; ++slot) {
    machines_[slot].role = Role::kMember;
    machines_[slot].is_founder = true;
  }
}

Cluster::~Cluster() {
  for (size_t slot = 0; slot < nodes_.size(); ++slot) {
    DropDeliveries(slot);
    nodes_[slot]->Kill(false);
  }
}

void Cluster::Fail(std::string why) {
  if (!failure_.empty()) return;
  failure_ = std::move(why);
  trace_.Note(scheduler_.now_ns(), 0, "FAILED: " + failure_);
}

// ---- life of a machine -----------------------------------------------------------------------------------

void Cluster::StartMachine(size_t slot) {
  Machine& machine = machines_[slot];
  SimNode& node = *nodes_[slot];
  if (machine.role == Role::kSpare || machine.role == Role::kGone || machine.stays_down) return;
  if (node.is_running() || !failure_.empty()) return;
  if (!StartAlone(slot)) OnDied(slot);
}

bool Cluster::StartAlone(size_t slot) {
  Machine& machine = machines_[slot];
  SimNode& node = *nodes_[slot];
  core::CoreConfig config;
  config.name = "n" + std::to_string(slot + 1);
  config.cluster_token = "sim";
  config.join_existing = !machine.is_founder;
  for (size_t other = 0; other < nodes_.size(); ++other) {
    if (other == slot || (machine.is_founder && other < swarm_.voters)) {
      config.initial_members.push_back({"n" + std::to_string(other + 1), {SimNetwork::UrlOf(other)}});
    }
  }
  config.advertise_client_urls = {"http://n" + std::to_string(slot + 1) + ":2379"};
  config.tick_ms = swarm_.tick_ms;
  config.election_ticks = swarm_.election_ticks;
  config.cache_bytes = swarm_.cache_bytes;
  config.log_entries_kept = swarm_.log_entries_kept;
  config.digest_interval_ms = swarm_.digest_interval_ms;
  config.log_entries_per_truncation = swarm_.log_entries_per_truncation;
  config.snapshot_chunk_bytes = swarm_.snapshot_chunk_bytes;
  config.inflight_messages_max = swarm_.inflight_messages_max;
  config.compact_keys_per_turn = swarm_.compact_keys_per_turn;
  config.watch_changes_per_slice = swarm_.watch_changes_per_slice;
  config.history_revisions_per_read = swarm_.history_revisions_per_read;
  config.recent_bytes = swarm_.recent_bytes;
  config.store_name = "the sim store";
  if (chaos_ && random_.Chance(swarm_.crash_in_recovery_ppm)) node.DieAtCall(random_.Between(1, 40));
  raft_checker_.OnStart(slot);
  const bool up = node.Start(std::move(config));
  if (const std::string violation = node.log_violation(); !violation.empty()) {
    Fail("node " + std::to_string(slot + 1) + ": " + violation);
  }
  if (up && node.core()->member_id() != 0) machine.member_id = node.core()->member_id();
  return up;
}

void Cluster::KillMachine(size_t slot, bool power_loss) {
  DropDeliveries(slot);
  nodes_[slot]->Kill(power_loss);
  if (clients_ != nullptr) clients_->OnNodeDown(slot);
  Disturb();
}

void Cluster::PlanRestart(size_t slot, uint64_t delay_ns) {
  if (machines_[slot].restart_planned) return;
  machines_[slot].restart_planned = true;
  scheduler_.After(delay_ns, [this, slot] {
    machines_[slot].restart_planned = false;
    StartMachine(slot);
  });
}

void Cluster::OnTurned(size_t slot) {
  const core::Core* core = nodes_[slot]->core();
  Machine& machine = machines_[slot];
  if (core->member_id() != 0) machine.member_id = core->member_id();
  if (machine.role == Role::kJoining && core->raft() != nullptr && core->raft()->applied_index() > 0) {
    machine.role = Role::kMember;
  }
  // Beyond the first entry, which every founder has by itself, nothing comes but from the others.
  if (machine.emptied_log != nullptr && core->raft() != nullptr && core->raft()->applied_index() > 1) {
    Fail("node " + std::to_string(slot + 1) + " takes part again after its directory was emptied");
  }
  const uint64_t terms = raft_checker_.terms();
  raft_checker_.OnTurn(slot, *core, nodes_[slot]->log_record().acknowledged, log_of_);
  if (raft_checker_.terms() != terms) Disturb();  // A new leader.
  if (!raft_checker_.violation().empty()) Fail(raft_checker_.violation());
  CheckStall(slot);
  CheckTerm(slot);
}

// What Raft promises to others must be durable by then. And faults that belong to a message.
void Cluster::OnSend(size_t slot, const kw_frame& frame) {
  if (frame.lane != KW_LANE_CONTROL || nodes_[slot]->core() == nullptr) return;
  Reader reader(ToView(frame.head));
  core::FrameHeader header;
  if (!core::DecodeFrameHeader(&reader, &header)) return;
  if (header.kind == core::FrameKind::kSnapshotAck && chaos_ && swarm_.moves_leader && random_.Coin()) {
    const uint64_t index = reader.Fixed64(), chunk = reader.Fixed64();
    if (index == 0 || chunk != UINT64_MAX) return;
    // Whoever maintains the members one after the other waits for that.
    return MoveLeaderTo(slot, random_.Between(1, 1500) * kMillisecond);
  }
  if (header.kind != core::FrameKind::kRaft) return;
  const std::string_view rest = reader.Raw(reader.remaining());
  const auto kind = rest.empty() ? raft::MessageKind::kHeartbeat : static_cast<raft::MessageKind>(rest[0]);
  if (kind == raft::MessageKind::kTimeoutNow && chaos_ && swarm_.partition_ns != 0 &&
      random_.Chance(400'000)) {
    // Who is to lead begins a term that nobody hears of.
    for (size_t to = 0; to < nodes_.size(); ++to) {
      if (machines_[to].member_id == header.to && machines_[to].role == Role::kMember) {
        Mute(to, random_.Between(200, 6000) * kMillisecond);
      }
    }
  }
  if (kind != raft::MessageKind::kVoteResponse && kind != raft::MessageKind::kAppendResponse) return;
  const std::optional<raft::Message> message = raft::DecodeMessage(rest);
  if (!message.has_value()) return;
  raft_checker_.OnMessage(slot, *nodes_[slot]->core(), *message, nodes_[slot]->log_record().acknowledged);
}

// A leader whose disk hangs must hand over, if the others are well (reliability R7).
void Cluster::CheckStall(size_t slot) {
  Stall& stall = stalls_[slot];
  const raft::Raft* raft = nodes_[slot]->core()->raft();
  const bool is_stalled = raft != nullptr && raft->role() == raft::Role::kLeader &&
                          raft->durable_index() < raft->last_index() &&
                          raft->configuration().voters.size() > 1;
  const uint64_t now = scheduler_.now_ns();
  const uint64_t durable = is_stalled ? raft->durable_index() : 0;
  const int64_t disturbed_ns = disturbances_ns_.empty() ? 0 : disturbances_ns_.back();
  if (!is_stalled || durable != stall.durable || disturbed_ns > static_cast<int64_t>(stall.since_ns) ||
      !IsCalmBut(slot)) {
    stall = {durable, now};
    return;
  }
  const uint64_t election_ns = swarm_.election_ticks * swarm_.tick_ms * kMillisecond;
  if (now < stall.since_ns + 5 * election_ns) return;
  Fail("node " + std::to_string(slot + 1) + " leads although its disk hangs since " +
       std::to_string((now - stall.since_ns) / kMillisecond) + " ms");
}

// A leader must hear soon of a member whose term is newer: that one does not listen to it any more
// (reliability R6).
void Cluster::CheckTerm(size_t slot) {
  const raft::Raft* raft = nodes_[slot]->core()->raft();
  if (raft == nullptr || raft->role() != raft::Role::kLeader) return;
  Outdated& outdated = outdated_[slot];
  const uint64_t now = scheduler_.now_ns();
  bool is_over = false;
  for (size_t other = 0; other < nodes_.size() && !is_over; ++other) {
    const core::Core* core = nodes_[other]->core();
    if (core == nullptr || core->raft() == nullptr || machines_[other].role != Role::kMember) continue;
    is_over = core->raft()->term() > raft->term();
  }
  const int64_t disturbed_ns = disturbances_ns_.empty() ? 0 : disturbances_ns_.back();
  if (!is_over || outdated.term != raft->term() || disturbed_ns > static_cast<int64_t>(outdated.since_ns) ||
      !IsCalmBut(slot)) {
    outdated = {raft->term(), now};
    return;
  }
  const uint64_t election_ns = swarm_.election_ticks * swarm_.tick_ms * kMillisecond;
  // Frames may stall for seconds, there and back.
  const uint64_t bound_ns = (network_.faults.stall_ppm != 0 ? 10 : 4) * election_ns;
  if (now < outdated.since_ns + bound_ns) return;
  Fail("node " + std::to_string(slot + 1) + " leads in term " + std::to_string(raft->term()) +
       ", although a member has known a newer one since " +
       std::to_string((now - outdated.since_ns) / kMillisecond) + " ms");
}

// Whether nothing is wrong with the network and the other members.
bool Cluster::IsCalmBut(size_t slot) const {
  if (!network_.IsWhole()) return false;
  for (size_t other = 0; other < nodes_.size(); ++other) {
    const SimNode& node = *nodes_[other];
    if (node.clock_rate_ppm() != 1'000'000 || node.is_paused()) return false;
    if (other == slot || machines_[other].role == Role::kSpare) continue;
    if (machines_[other].role != Role::kMember || !IsUp(other)) return false;
    if (node.slow_factor != 1 ||
        std::max(node.disks_hang_until_ns, node.log_hangs_until_ns) > scheduler_.now_ns())
      return false;
  }
  return true;
}

const LogShadow* Cluster::LogOf(uint64_t member) const {
  for (size_t slot = 0; slot < nodes_.size(); ++slot) {
    if (machines_[slot].member_id == member && machines_[slot].role != Role::kSpare) {
      // What was acknowledged before counts: others may rely on it.
      if (machines_[slot].emptied_log != nullptr) return machines_[slot].emptied_log.get();
      return &nodes_[slot]->log_record().acknowledged;
    }
  }
  const auto retired = retired_.find(member);
  return retired == retired_.end() ? nullptr : &retired->second;
}

// A process died at a call, has failed, or did not start.
void Cluster::OnDied(size_t slot) {
  SimNode& node = *nodes_[slot];
  const bool at_call = node.dying();
  const std::string why = node.failure();
  const bool had_fault = node.had_fault();
  KillMachine(slot, random_.Chance(swarm_.power_loss_ppm));
  if (!at_call && !had_fault) {
    Explain(slot);
  } else if (!at_call) {
    trace_.Note(scheduler_.now_ns(), slot + 1, "stopped cleanly: " + why);
  }
  const uint64_t delay = random_.Between(50, chaos_ ? 4000 : 500) * kMillisecond;
  if (machines_[slot].role == Role::kMember || machines_[slot].role == Role::kJoining)
    PlanRestart(slot, delay);
}

// It stopped by itself, and no fault of this life explains it.
void Cluster::Explain(size_t slot) {
  Machine& machine = machines_[slot];
  const std::string& why = nodes_[slot]->failure();
  const auto says = [&](const char* text) { return why.find(text) != std::string::npos; };
  if (says("was removed from the cluster") && machine.may_be_removed) return Retire(slot);
  // Who joins may hear of the machine's earlier life from a member that lags: it tries again, from empty.
  if (machine.role == Role::kJoining && ++machine.joining_tries < 50) return nodes_[slot]->Wipe();
  if (machine.is_damaged) {
    // What it says must name what is wrong; then it is for the operator to replace it.
    const bool named = says("damage") || says("corrupt") || says("digest") || says("not what was written") ||
                       says("is missing") || says("checksum") || says("under another name") ||
                       says("cannot be decoded") || says("impossible") || says("another data directory");
    if (named) {
      machine.role = Role::kGone;
      return;
    }
  }
  Fail("node " + std::to_string(slot + 1) + " stopped: " + why);
}

// No longer a member: the machine is emptied, for another one.
void Cluster::Retire(size_t slot) {
  if (const LogShadow* log = LogOf(machines_[slot].member_id)) retired_[machines_[slot].member_id] = *log;
  nodes_[slot]->Wipe();
  const bool planned = machines_[slot].restart_planned;
  machines_[slot] = {};
  machines_[slot].restart_planned = planned;
}

void Cluster::Disturb(uint64_t for_ns) {
  disturbances_ns_.push_back(now_ns());
  if (for_ns == 0) return;
  const uint64_t step_ns = std::min(for_ns, kSecond);
  scheduler_.After(step_ns, [this, rest_ns = for_ns - step_ns] { Disturb(rest_ns); });
}

// ---- the whole life --------------------------------------------------------------------------------------

void Cluster::StartAll() {
  for (size_t slot = 0; slot < nodes_.size(); ++slot) StartMachine(slot);
}

bool Cluster::RunUntil(uint64_t until_ns, const std::function<bool()>& done) {
  while (failure_.empty()) {
    if (done && done()) return true;
    if (!scheduler_.RunOne(until_ns)) break;
  }
  return failure_.empty() && done && done();
}

std::string Cluster::Run(Clients* clients) {
  clients_ = clients;
  chaos_ = true;
  PlanFaults();
  RunUntil(scheduler_.now_ns() + swarm_.chaos_ns, nullptr);
  if (failure_.empty()) Settle();
  return failure_;
}

void Cluster::Settle() {
  chaos_ = false;
  settling_ = true;
  EndFaults();
  // Members that are replaced meanwhile would change what a quorum is.
  const bool is_steady = swarm_.member_ns == 0 && swarm_.damage_ns == 0;
  if (swarm_.heal_links_late && is_steady && failure_.empty()) CutAllButAQuorum();
  if (swarm_.hangs_leader_log && is_steady && failure_.empty()) HangLeaderLog();
  if (!failure_.empty()) return;
  clients_->BeginSettle();
  const uint64_t deadline = scheduler_.now_ns() + swarm_.settle_ns;
  bool done = false;
  while (failure_.empty() && scheduler_.now_ns() < deadline && !done) {
    RunUntil(scheduler_.now_ns() + 500 * kMillisecond, nullptr);
    std::string why;
    done = IsTogether(&why) && clients_->IsSettled();
  }
  if (done || !failure_.empty()) return;
  std::string why;
  IsTogether(&why);
  Fail("liveness: " + std::to_string(swarm_.settle_ns / kSecond) + " s after the last fault: " + why +
       (clients_->IsSettled() ? "" : "; clients: " + clients_->Unsettled()));
}

bool Cluster::IsTogether(std::string* why) const {
  uint64_t commit = 0;
  size_t leaders = 0;
  uint64_t uncommitted = 0;
  for (size_t slot = 0; slot < nodes_.size(); ++slot) {
    if (!nodes_[slot]->is_running() || nodes_[slot]->core()->raft() == nullptr) continue;
    commit = std::max(commit, nodes_[slot]->core()->raft()->commit_index());
    if (nodes_[slot]->core()->raft()->role() != raft::Role::kLeader) continue;
    ++leaders;
    uncommitted = nodes_[slot]->core()->raft()->last_index() - nodes_[slot]->core()->raft()->commit_index();
  }
  if (leaders != 1) {
    *why = std::to_string(leaders) + " leaders";
    return false;
  }
  if (uncommitted != 0) {
    *why = std::to_string(uncommitted) + " entries are not committed";
    return false;
  }
  for (size_t slot = 0; slot < nodes_.size(); ++slot) {
    const Machine& machine = machines_[slot];
    if (machine.role != Role::kMember || machine.stays_down || machine.is_leaving) continue;
    const std::string name = "node " + std::to_string(slot + 1);
    if (!nodes_[slot]->is_running()) {
      *why = name + " is down: " + nodes_[slot]->failure();
      return false;
    }
    const core::Core& core = *nodes_[slot]->core();
    if (core.raft() == nullptr || core.raft()->applied_index() < commit) {
      *why = name + " has applied " +
             std::to_string(core.raft() == nullptr ? 0 : core.raft()->applied_index()) + " of " +
             std::to_string(commit);
      return false;
    }
    if (!core.digest_is_final()) {
      *why = name + " compacts";
      return false;
    }
  }
  return true;
}

}  // namespace keyway::sim
