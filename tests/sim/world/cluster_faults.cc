// SPDX-License-Identifier: Apache-2.0
//
// The faults of a swarm. Each kind comes by a clock of its own while chaos lasts; what it starts it also
// ends, and EndFaults() ends everything that is left.
#include <algorithm>

#include "kernel/core/peer_wire.h"
#include "keyway/crc32c.h"
#include "tests/sim/world/cluster_internal.h"

namespace keyway::sim {

void Cluster::Every(uint64_t mean_ns, std::function<void()> fault) {
  if (mean_ns == 0) return;
  const uint64_t delay = random_.Between(1, 2 * mean_ns);
  scheduler_.After(delay, [this, mean_ns, fault = std::move(fault)] {
    if (!chaos_) return;
    fault();
    Every(mean_ns, fault);
  });
}

bool Cluster::RandomRunning(size_t* slot) {
  std::vector<size_t> running;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (IsUp(i)) running.push_back(i);
  }
  if (running.empty()) return false;
  *slot = running[random_.Below(running.size())];
  ++faults_;
  return true;
}

void Cluster::PlanFaults() {
  const auto restart_ns = [this] { return random_.Between(20, 5000) * kMillisecond; };
  const auto crash = [this, restart_ns](size_t slot) {
    KillMachine(slot, random_.Chance(swarm_.power_loss_ppm));
    PlanRestart(slot, restart_ns());
  };
  Every(swarm_.crash_ns, [this, crash] {
    size_t slot = 0;
    if (RandomRunning(&slot)) crash(slot);
  });
  Every(swarm_.crash_at_call_ns, [this] {
    size_t slot = 0;
    if (!RandomRunning(&slot)) return;
    if (random_.Coin()) {
      nodes_[slot]->DieAtCall(random_.Between(1, random_.Coin() ? 10 : 200));
    } else {
      // What is called rarely would else hardly ever be it. Not drawn as arguments: their order is the compiler's.
      const uint64_t nth = random_.Between(1, 3);
      nodes_[slot]->DieAtCallOf(static_cast<Call>(random_.Below(kCallCount)), nth);
    }
  });
  Every(swarm_.crash_all_ns, [this, crash] {
    ++faults_;
    for (size_t slot = 0; slot < nodes_.size(); ++slot) {
      if (IsUp(slot)) crash(slot);
    }
  });
  Every(swarm_.stop_ns, [this, restart_ns] {
    size_t slot = 0;
    if (!RandomRunning(&slot)) return;
    if (random_.Coin()) {
      nodes_[slot]->Post([](core::Core& core) { core.BeginShutdown(); });  // Hands leadership over first.
      scheduler_.After(100 * kMillisecond, [this, slot, life = nodes_[slot]->life(), restart_ns] {
        if (nodes_[slot]->life() == life && IsUp(slot)) StopMachine(slot, restart_ns());
      });
    } else {
      StopMachine(slot, restart_ns());
    }
  });
  Every(swarm_.pause_ns, [this] {
    size_t slot = 0;
    if (!RandomRunning(&slot)) return;
    const uint64_t pause_ns = random_.Between(10, random_.Coin() ? 500 : 8000) * kMillisecond;
    nodes_[slot]->Pause(scheduler_.now_ns() + pause_ns);
    Disturb(pause_ns);
  });
  Every(swarm_.partition_ns, [this] { Partition(); });
  Every(swarm_.reset_ns, [this] {
    ++faults_;
    const size_t a = random_.Below(nodes_.size());
    size_t b = random_.Below(nodes_.size());
    for (size_t slot = 0; slot < nodes_.size(); ++slot) {
      if (Leads(*nodes_[slot]) && random_.Coin()) b = slot;
    }
    network_.Reset(a, b, random_.Coin() ? 0 : random_.Below(6000) * kMillisecond);
  });
  Every(swarm_.slow_link_ns, [this] { SlowLink(); });
  Every(swarm_.clock_ns, [this] { ChangeClock(); });
  Every(swarm_.disk_error_ns, [this] { DiskError(); });
  Every(swarm_.slow_disk_ns, [this] { SlowDisk(); });
  Every(swarm_.damage_ns, [this] { Damage(); });
  Every(swarm_.hash_ns, [this] { CompareHashes(); });
  if (swarm_.member_ns != 0 || swarm_.damage_ns != 0) {
    struct Loop {
      static void Run(Cluster* cluster, uint64_t delay_ns) {
        cluster->scheduler_.After(delay_ns, [cluster] {
          cluster->Operate();
          const uint64_t mean =
              cluster->chaos_ ? std::max<uint64_t>(cluster->swarm_.member_ns, kSecond) : kSecond;
          Run(cluster, cluster->random_.Between(200 * kMillisecond, 2 * mean));
        });
      }
    };
    Loop::Run(this, kSecond);
  }
}

void Cluster::StopMachine(size_t slot, uint64_t restart_ns) {
  nodes_[slot]->Stop();
  if (nodes_[slot]->is_running()) {  // It died meanwhile.
    KillMachine(slot, false);
    return PlanRestart(slot, restart_ns);
  }
  DropDeliveries(slot);
  if (clients_ != nullptr) clients_->OnNodeDown(slot);
  Disturb();
  PlanRestart(slot, restart_ns);
}

// Cuts links: one node off, a split, or at random; both ways or one way.
void Cluster::Partition() {
  ++faults_;
  Disturb();
  const size_t count = nodes_.size();
  std::vector<std::pair<size_t, size_t>> cut;
  const bool one_way = random_.Chance(300'000);
  switch (random_.Below(4)) {
    case 0: {  // One alone; the leader, often.
      size_t alone = random_.Below(count);
      for (size_t slot = 0; slot < count; ++slot) {
        if (Leads(*nodes_[slot]) && random_.Coin()) alone = slot;
      }
      const bool in = !one_way || random_.Coin(), out = !one_way || !in;
      for (size_t other = 0; other < count; ++other) {
        if (other == alone) continue;
        if (in) cut.emplace_back(other, alone);
        if (out) cut.emplace_back(alone, other);
      }
      break;
    }
    case 1: {  // Two sides.
      std::vector<bool> side;
      for (size_t slot = 0; slot < count; ++slot) side.push_back(random_.Coin());
      for (size_t a = 0; a < count; ++a) {
        for (size_t b = 0; b < count; ++b) {
          if (side[a] != side[b] && (!one_way || side[a])) cut.emplace_back(a, b);
        }
      }
      break;
    }
    case 2: {  // One link.
      const size_t a = random_.Below(count), b = random_.Below(count);
      cut.emplace_back(a, b);
      if (!one_way) cut.emplace_back(b, a);
      break;
    }
    default:  // Any links.
      for (size_t a = 0; a < count; ++a) {
        for (size_t b = 0; b < count; ++b) {
          if (a != b && random_.Chance(350'000)) cut.emplace_back(a, b);
        }
      }
  }
  for (const auto& [a, b] : cut) network_.Block(a, b, true);
  scheduler_.After(random_.Between(50, random_.Coin() ? 1500 : 10000) * kMillisecond, [this, cut] {
    for (const auto& [a, b] : cut) network_.Block(a, b, false);
    Disturb();
  });
}

void Cluster::SlowLink() {
  ++faults_;
  Disturb();
  const size_t a = random_.Below(nodes_.size());
  size_t b = random_.Below(nodes_.size());
  for (size_t slot = 0; slot < nodes_.size(); ++slot) {
    if (Leads(*nodes_[slot]) && random_.Coin()) b = slot;
  }
  const uint64_t extra_ns = random_.Between(10, random_.Coin() ? 800 : 4000) * kMillisecond;
  network_.SetSlow(a, b, extra_ns);
  if (swarm_.moves_leader && random_.Coin()) MoveLeaderAndBack();
  // It is dialled anew: what is under way over the old connection comes all the same, behind what follows.
  const bool is_reset = random_.Coin();
  scheduler_.After(random_.Between(200, 8000) * kMillisecond, [this, a, b, is_reset] {
    network_.SetSlow(a, b, 0);
    if (is_reset) network_.Reset(a, b, 0);
    Disturb();
  });
}

// Nobody hears it for a while; it hears the others.
void Cluster::Mute(size_t slot, uint64_t duration_ns) {
  ++faults_;
  for (size_t other = 0; other < nodes_.size(); ++other) network_.Block(slot, other, true);
  Disturb();
  scheduler_.After(duration_ns, [this, slot] {
    for (size_t other = 0; other < nodes_.size(); ++other) network_.Block(slot, other, false);
    Disturb();
  });
}

// A jump ahead, a clock that is frozen for a while, one that runs fast or slow by up to a tenth.
void Cluster::ChangeClock() {
  const size_t slot = random_.Below(nodes_.size());
  ++faults_;
  const uint64_t end_ns = random_.Between(100, 8000) * kMillisecond;
  switch (random_.Below(3)) {
    case 0:
      nodes_[slot]->JumpClock(random_.Between(1, 10'000) * kMillisecond);
      return Disturb();
    case 1:
      nodes_[slot]->SetClockRate(0);
      break;
    default:
      nodes_[slot]->SetClockRate(random_.Between(900'000, 1'100'000));
  }
  Disturb(end_ns);
  scheduler_.After(end_ns, [this, slot] { nodes_[slot]->SetClockRate(1'000'000); });
}

void Cluster::DiskError() {
  const size_t slot = random_.Below(nodes_.size());
  SimNode& node = *nodes_[slot];
  ++faults_;
  Disturb();
  switch (random_.Below(4)) {
    case 0:
      node.disk().faults.full = true;
      node.FailCall(Call::kStoreWrite, random_.Between(1, 3), KW_RESOURCE_EXHAUSTED);
      break;
    case 1:
      node.disk().faults.sync_error_ppm = static_cast<uint32_t>(random_.Between(1'000, 300'000));
      break;
    case 2:
      node.disk().faults.write_error_ppm = static_cast<uint32_t>(random_.Between(1'000, 300'000));
      node.disk().faults.read_error_ppm = static_cast<uint32_t>(random_.Between(1'000, 300'000));
      break;
    default:
      node.store_error_ppm = static_cast<uint32_t>(random_.Between(1'000, 100'000));
  }
  scheduler_.After(random_.Between(100, 5000) * kMillisecond, [this, slot] {
    nodes_[slot]->disk().faults = {};
    nodes_[slot]->store_error_ppm = 0;
  });
}

void Cluster::SlowDisk() {
  size_t slot = random_.Below(nodes_.size());
  for (size_t other = 0; other < nodes_.size(); ++other) {
    if (Leads(*nodes_[other]) && random_.Coin()) slot = other;
  }
  ++faults_;
  const uint64_t end_ns = random_.Between(200, random_.Coin() ? 3000 : 12000) * kMillisecond;
  Disturb(end_ns);
  const char* what = "its disks hang";
  switch (random_.Below(4)) {
    case 0:
      nodes_[slot]->disks_hang_until_ns = scheduler_.now_ns() + end_ns;
      break;
    case 1:
      nodes_[slot]->log_hangs_until_ns = scheduler_.now_ns() + end_ns;
      what = "its log hangs";
      break;
    case 2:
      nodes_[slot]->reads_hang_until_ns = scheduler_.now_ns() + end_ns;
      what = "its reads hang";
      break;
    default:
      nodes_[slot]->slow_factor = random_.Between(5, 100);
      what = "its disks are slow";
  }
  trace_.Note(scheduler_.now_ns(), slot + 1,
              std::string(what) + " for " + std::to_string(end_ns / kMillisecond) + " ms");
  // A machine in such a state may not be heard either: what it writes is replaced before it is durable.
  if (swarm_.partition_ns != 0 && random_.Chance(400'000)) {
    Mute(slot, random_.Between(1, std::max<uint64_t>(end_ns / kMillisecond, 1)) * kMillisecond);
  }
  scheduler_.After(end_ns, [this, slot] { nodes_[slot]->slow_factor = 1; });
}

// At rest, never on all copies: only while all members are sound, and then on fewer than half of them.
void Cluster::Damage() {
  const Membership* membership = KnownMembership();
  if (swarm_.voters == 1 || membership == nullptr) return;
  if (membership->Configuration().voters.size() < swarm_.voters) return;
  // The one that is asked may not have heard yet that another was removed.
  const auto members = std::count_if(machines_.begin(), machines_.end(),
                                     [](const Machine& m) { return m.role == Role::kMember; });
  if (static_cast<size_t>(members) < swarm_.voters) return;
  const size_t damaged = static_cast<size_t>(
      std::count_if(machines_.begin(), machines_.end(), [](const Machine& m) { return m.is_damaged; }));
  const bool others_change = std::any_of(machines_.begin(), machines_.end(), [](const Machine& m) {
    return m.is_leaving || m.role == Role::kJoining;
  });
  const size_t slot = random_.Below(nodes_.size());
  if (others_change || machines_[slot].role != Role::kMember) return;
  if (!machines_[slot].is_damaged && damaged >= (swarm_.voters - 1) / 2) return;
  std::string what;
  if (random_.Chance(333'000) && IsRememberedByAll(slot)) {
    what = EmptyDirectory(slot);
  } else if (random_.Chance(400'000)) {
    const Call call = random_.Coin() ? Call::kStoreGet : Call::kStoreCursorNext;
    nodes_[slot]->store().LieAt(call, random_.Between(1, 30));
    what = "its engine will give back another value once";
  } else {
    what = random_.Coin() ? nodes_[slot]->disk().Corrupt() : nodes_[slot]->store().Corrupt();
  }
  if (what.empty()) return;
  machines_[slot].is_damaged = true;
  ++faults_;
  trace_.Add(scheduler_.now_ns(), "damage", slot + 1);
  trace_.Note(scheduler_.now_ns(), slot + 1, "damaged: " + what);
}

// Whether all other members would refuse this one with an empty directory. Before that, a lost directory beside
// a member that is down too may be more than a quorum can stand: docs/adr/0005.
bool Cluster::IsRememberedByAll(size_t slot) const {
  for (size_t other = 0; other < nodes_.size(); ++other) {
    if (other == slot || machines_[other].role != Role::kMember) continue;
    const core::Core* core = nodes_[other]->core();
    if (core == nullptr || !core->remembers(machines_[slot].member_id)) return false;
  }
  return true;
}

// Somebody empties a member's directory and starts it again: it may have voted and acknowledged what it does
// not know any more, so the others must not listen to it (reliability R4).
std::string Cluster::EmptyDirectory(size_t slot) {
  if (nodes_[slot]->is_running()) KillMachine(slot, false);
  if (machines_[slot].emptied_log == nullptr) {
    machines_[slot].emptied_log = std::make_shared<const LogShadow>(nodes_[slot]->log_record().acknowledged);
  }
  nodes_[slot]->Wipe();
  PlanRestart(slot, random_.Between(20, 5000) * kMillisecond);
  return "its directory was emptied";
}

// Links stay cut, one way or both, but the members of a quorum can all talk to each other: then the cluster
// must go on (reliability R6). The leader's marks, at least, are entries to commit.
void Cluster::CutAllButAQuorum() {
  const Membership* membership = KnownMembership();
  if (membership == nullptr) return;
  std::vector<size_t> voters;
  for (size_t slot = 0; slot < nodes_.size(); ++slot) {
    const Member* member = membership->Find(machines_[slot].member_id);
    if (member == nullptr || member->is_learner || machines_[slot].stays_down) continue;
    if (machines_[slot].role == Role::kMember && !machines_[slot].is_leaving) voters.push_back(slot);
  }
  const size_t quorum = membership->Configuration().voters.size() / 2 + 1;
  if (voters.size() < quorum) return;
  // The quorum is the first ones of a random order.
  for (size_t i = voters.size(); i > 1; --i) std::swap(voters[i - 1], voters[random_.Below(i)]);
  // Often the leader is outside of it, and is heard, but hears nobody.
  const auto leader =
      std::find_if(voters.begin(), voters.end(), [this](size_t slot) { return Leads(*nodes_[slot]); });
  if (leader != voters.end() && quorum < voters.size() && random_.Coin()) {
    std::swap(*leader, voters.back());
    for (size_t i = 0; i + 1 < voters.size(); ++i) network_.Block(voters[i], voters.back(), true);
    voters.pop_back();
  }
  const uint32_t cut_ppm = static_cast<uint32_t>(random_.Between(200'000, 1'000'000));
  for (size_t i = 0; i < voters.size(); ++i) {
    for (size_t j = 0; j < voters.size(); ++j) {
      const bool is_needed = i < quorum && j < quorum;
      if (i != j && !is_needed && random_.Chance(cut_ppm)) network_.Block(voters[i], voters[j], true);
    }
  }
  const auto commit = [this] {
    uint64_t index = 0;
    for (const auto& node : nodes_) {
      if (node->core() == nullptr || node->core()->raft() == nullptr) continue;
      index = std::max(index, node->core()->raft()->commit_index());
    }
    return index;
  };
  // Whoever led before may commit once more; what counts is that it goes on.
  RunUntil(scheduler_.now_ns() + 10 * kSecond, nullptr);
  const uint64_t before = commit();
  const uint64_t bound_ns = 60 * kSecond + 2 * swarm_.digest_interval_ms * kMillisecond;
  const bool goes_on = RunUntil(scheduler_.now_ns() + bound_ns, [&] { return commit() > before; });
  if (!goes_on) Fail("liveness: the members of a quorum can talk, and nothing is committed");
  network_.HealAll();
  Disturb();
}

// The engine of whoever sends a snapshot gives a value that is not the one that was written, and nothing on
// the way can tell.
void Cluster::DamageSnapshot(size_t slot, std::string* frame) {
  if (!chaos_ || frame->size() <= core::kPeerHeaderBytes) return;
  if (static_cast<core::FrameKind>((*frame)[1]) != core::FrameKind::kSnapshotChunk) return;
  if (!random_.Chance(200'000)) return;
  Reader reader(std::string_view(*frame).substr(core::kPeerHeaderBytes));
  reader.Fixed64();  // The term.
  reader.Fixed64();  // The number of the chunk.
  reader.Byte();
  reader.Bytes();
  const size_t crc_at = frame->size() - reader.remaining();
  reader.Fixed32();
  const size_t begin = frame->size() - reader.remaining();
  std::vector<std::pair<size_t, size_t>> values;
  while (reader.ok() && !reader.empty()) {
    reader.Byte();  // The table.
    reader.Bytes();
    const std::string_view value = reader.Bytes();
    if (!value.empty()) values.emplace_back(frame->size() - reader.remaining() - value.size(), value.size());
  }
  if (!reader.ok() || values.empty()) return;
  const auto [at, size] = values[random_.Below(values.size())];
  char& byte = (*frame)[at + random_.Below(size)];
  byte = static_cast<char>(byte ^ (1 << random_.Below(8)));
  std::string crc;
  PutFixed32(&crc, kw_crc32c(0, frame->data() + begin, frame->size() - begin));
  frame->replace(crc_at, crc.size(), crc);
  ++faults_;
  trace_.Add(scheduler_.now_ns(), "liesnap", slot + 1);
}

// The leader's log hangs and nothing else is wrong: somebody else must lead (reliability R7, CheckStall).
void Cluster::HangLeaderLog() {
  RunUntil(scheduler_.now_ns() + 3 * kSecond, nullptr);
  const auto leader =
      std::find_if(nodes_.begin(), nodes_.end(), [](const auto& node) { return Leads(*node); });
  if (leader == nodes_.end()) return;
  const uint64_t end_ns = scheduler_.now_ns() + 8 * kSecond;
  (*leader)->log_hangs_until_ns = end_ns;
  Disturb();
  RunUntil(end_ns, nullptr);
  Disturb();
}

// All faults end; all machines that are to come back do, or enough of them for a quorum.
void Cluster::EndFaults() {
  network_.HealAll();
  network_.faults.loss_ppm = network_.faults.duplicate_ppm = network_.faults.reorder_ppm = 0;
  network_.faults.stall_ppm = 0;
  const Membership* membership = KnownMembership();
  size_t may_stay_down = 0;
  if (!swarm_.heal_all && swarm_.member_ns == 0 && swarm_.damage_ns == 0 && membership != nullptr) {
    may_stay_down = random_.Below((swarm_.voters - 1) / 2 + 1);
  }
  for (size_t slot = 0; slot < nodes_.size(); ++slot) {
    SimNode& node = *nodes_[slot];
    node.disk().faults = {};
    node.store_error_ppm = 0;
    node.store().LieAt(Call::kStoreGet, 0);
    node.slow_factor = 1;
    node.timing.read_stall_ppm = 0;
    node.disks_hang_until_ns = node.log_hangs_until_ns = node.reads_hang_until_ns = 0;
    node.SetClockRate(1'000'000);
    node.DieAtCall(0);
    node.DieAtCallOf(Call::kStoreWrite, 0);
    node.FailCall(Call::kStoreWrite, 0, KW_OK);
    if (may_stay_down > 0 && machines_[slot].role == Role::kMember && random_.Coin()) {
      --may_stay_down;
      machines_[slot].stays_down = true;
      KillMachine(slot, true);
      continue;
    }
    if (!node.is_running()) PlanRestart(slot, random_.Between(10, 1000) * kMillisecond);
  }
  Disturb();
}

}  // namespace keyway::sim
