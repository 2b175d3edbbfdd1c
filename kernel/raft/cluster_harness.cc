// SPDX-License-Identifier: Apache-2.0
#include "kernel/raft/cluster_harness.h"

#include <algorithm>

#include "gtest/gtest.h"
#include "kernel/raft/quorum.h"
#include "kernel/raft/wire.h"

namespace keyway::raft {
namespace {

Configuration Decode(std::string_view text) {
  Configuration configuration;
  std::vector<NodeId>* ids = &configuration.voters;
  for (char c : text.substr(1)) {
    if (c == '/') {
      ids = &configuration.learners;
    } else {
      ids->push_back(static_cast<NodeId>(c - '0'));
    }
  }
  return configuration;
}

std::string Describe(const Entry& entry) {
  return std::to_string(static_cast<uint32_t>(entry.kind)) + ":" + std::string(entry.data.view());
}

}  // namespace

std::string Cluster::Encode(const Configuration& configuration) {
  std::string text = "C";
  for (NodeId id : configuration.voters) text.push_back(static_cast<char>('0' + id));
  text.push_back('/');
  for (NodeId id : configuration.learners) text.push_back(static_cast<char>('0' + id));
  return text;
}

bool Cluster::Disk::Has(uint64_t index, uint64_t term) const {
  if (index == base_index) return base_term == term;
  if (index < base_index) return true;  // Gone from the log: it was applied.
  return index <= last_index() && entries[index - base_index - 1].term == term;
}

Cluster::Cluster(const ClusterOptions& options) : options_(options), random_state_(options.seed) {
  const size_t count = std::max(options.nodes, options.voters);
  Configuration first;
  for (NodeId id = 1; id <= options.voters; ++id) first.voters.push_back(id);
  for (NodeId id = 1; id <= count; ++id) {
    Node& node = nodes_.emplace_back();
    node.id = id;
    if (id <= options.voters) node.durable.configuration = first;
    Boot(node);
  }
}

void Cluster::Fail(const std::string& what) {
  if (failed_) return;
  failed_ = true;
  ADD_FAILURE() << what << " (seed " << options_.seed << ")";
}

uint64_t Cluster::Random(uint64_t bound) {
  random_state_ = random_state_ * 6364136223846793005u + 1442695040888963407u;
  uint64_t z = random_state_ ^ (random_state_ >> 29);
  z *= 0xBF58476D1CE4E5B9u;
  return (z ^ (z >> 32)) % bound;
}

void Cluster::Boot(Node& node) {
  // The engine may be ahead of the log: a snapshot was installed, the reset of the log got lost.
  const Engine& engine = node.durable;
  if (!node.disk.Has(engine.applied, engine.term)) {
    node.disk.base_index = engine.applied;
    node.disk.base_term = engine.term;
    node.disk.entries.clear();
  }
  node.memory = node.durable;
  ++node.boots;
  Options options;
  options.id = node.id;
  options.election_ticks = options_.election_ticks;
  options.heartbeat_ticks = options_.heartbeat_ticks;
  options.random_seed = options_.seed * 1000 + node.boots;
  options.append_bytes_max = options_.append_bytes_max;
  options.inflight_messages_max = options_.inflight_messages_max;
  options.cache_bytes = options_.cache_bytes;
  InitialState state;
  state.hard_state = node.disk.hard_state;
  state.base_index = node.disk.base_index;
  state.base_term = node.disk.base_term;
  state.entries = node.disk.entries;
  state.configuration = engine.configuration;
  state.applied = engine.applied;
  if (node.lost.last_index() > 0) {
    state.promised_index = node.lost.last_index();
    state.promised_term = node.lost.entries.empty() ? node.lost.base_term : node.lost.entries.back().term;
  }
  node.raft = std::make_unique<Raft>(options, std::move(state));
}

// ---- output ----

void Cluster::Do(NodeId id, const std::function<void(Raft&)>& action) {
  Node& at = node(id);
  if (at.raft == nullptr || failed_) return;
  const uint64_t before = at.raft->commit_index();
  action(*at.raft);
  CheckCommit(at, before);
  Pump(at);
  if (!at.raft->IsBehindPromise()) at.lost = {};
  CheckInvariants();
}

void Cluster::Pump(Node& node) {
  for (int i = 0; node.raft->HasOutput(); ++i) {
    if (i > 100) return Fail("output without end");
    const uint64_t before = node.raft->commit_index();
    Output output = node.raft->TakeOutput();
    CheckCommit(node, before);
    if (output.append.has_value()) {
      node.writes.push_back({Write::Kind::kAppend, std::move(*output.append), 0, 0});
    }
    for (Message& message : output.messages) Emit(node, std::move(message));
    for (const ReadState& read : output.reads) {
      auto at = node.reads.find(read.context);
      if (at == node.reads.end()) return Fail("a read was answered twice");
      if (!read.failed && read.index < at->second) return Fail("stale read");
      ++(read.failed ? reads_failed_ : reads_confirmed_);
      node.reads.erase(at);
    }
    for (const LogRead& read : output.log_reads) ServeLogRead(node, read);
    for (NodeId peer : output.snapshots) {
      network_.push_back({node.id, peer, "", node.memory, node.raft->term(), node.boots});
    }
  }
}

void Cluster::Emit(Node& node, Message message) {
  CheckPromise(node, message);
  if (on_send) on_send(message);
  if (lose && lose(message)) return;
  Packet packet;
  packet.from = message.from;
  packet.to = message.to;
  EncodeMessage(message, &packet.message);
  network_.push_back(std::move(packet));
}

void Cluster::CheckPromise(Node& node, const Message& message) {
  const HardState& stored = node.disk.hard_state;
  const bool grants = message.kind == MessageKind::kVoteResponse && !message.reject;
  if (grants || message.kind == MessageKind::kVote) {
    const NodeId candidate = grants ? message.to : message.from;
    auto [at, is_new] = grants_.try_emplace({node.id, message.term}, candidate);
    if (at->second != candidate) Fail("two votes in one term");
    if (stored.term < message.term) Fail("vote before its term is durable");
    if (stored.term == message.term && stored.vote != candidate) Fail("vote is not durable");
  }
  if (message.kind == MessageKind::kAppendResponse && !message.reject && message.term == node.raft->term()) {
    if (stored.term < message.term) Fail("acknowledgement before its term is durable");
    const uint64_t durable = std::max(node.disk.last_index(), node.durable.applied);
    if (message.index > durable) Fail("acknowledgement of what is not durable");
    const std::optional<uint64_t> term = node.raft->TermAt(message.index);
    if (term.has_value() && message.index > node.durable.applied && !node.disk.Has(message.index, *term)) {
      Fail("acknowledgement of another entry than is durable");
    }
  }
}

// What the leader has committed since `before` is on the disks of a majority.
void Cluster::CheckCommit(Node& leader, uint64_t before) {
  Raft& raft = *leader.raft;
  committed_ = std::max(committed_, raft.commit_index());
  if (raft.role() != Role::kLeader) return;
  const std::vector<NodeId>& voters = raft.configuration().voters;
  for (uint64_t index = before + 1; index <= raft.commit_index(); ++index) {
    size_t copies = 0;
    for (NodeId voter : voters) {
      const Node& other = node(voter);
      const uint64_t term = *raft.TermAt(index);
      // What was acknowledged and is lost binds the node as if it were there.
      const bool is_lost = index <= other.lost.last_index() && other.lost.Has(index, term);
      if (other.durable.applied >= index || other.disk.Has(index, term) || is_lost) ++copies;
    }
    if (copies < QuorumSize(voters.size())) return Fail("committed without a durable majority");
  }
}

void Cluster::CheckInvariants() {
  std::vector<const Raft*> running;
  for (Node& node : nodes_) {
    if (node.raft != nullptr) running.push_back(node.raft.get());
  }
  const std::string error = invariants_.Check(running);
  if (!error.empty()) Fail(error);
}

void Cluster::ServeLogRead(Node& node, const LogRead& read) {
  ++log_reads_;
  std::vector<Entry> entries;
  size_t bytes = 0;
  for (uint64_t index = read.begin; index < read.end; ++index) {
    if (index <= node.disk.base_index || index > node.disk.last_index()) break;
    const Entry& entry = node.disk.entries[index - node.disk.base_index - 1];
    bytes += entry.data.size();
    if (bytes > read.bytes_max && !entries.empty()) break;
    entries.push_back(entry);
  }
  node.raft->OnLogRead(read.peer, read.begin, std::move(entries));
}

// ---- inputs ----

void Cluster::Tick(NodeId id, int ticks) {
  for (int i = 0; i < ticks; ++i) {
    Do(id, [](Raft& raft) { raft.Tick(); });
  }
}

uint64_t Cluster::Propose(NodeId id, const std::string& data) {
  uint64_t index = 0;
  Do(id, [&](Raft& raft) { index = raft.Propose(SharedBytes::Copy(data)); });
  return index;
}

uint64_t Cluster::ProposeConfiguration(NodeId id, const Configuration& configuration) {
  uint64_t index = 0;
  Do(id, [&](Raft& raft) { index = raft.ProposeConfiguration(SharedBytes::Copy(Encode(configuration))); });
  return index;
}

void Cluster::Read(NodeId id) {
  Do(id, [&](Raft& raft) {
    const uint64_t context = ++node(id).read_context;
    node(id).reads[context] = committed_;
    raft.ReadIndex(context);
  });
}

void Cluster::Campaign(NodeId id) {
  Do(id, [](Raft& raft) { raft.Campaign(); });
}

void Cluster::Inject(Message message) {
  Do(message.to, [&](Raft& raft) { raft.Step(std::move(message)); });
}

void Cluster::LosePacket(size_t at) {
  const Packet packet = std::move(network_[at]);
  network_.erase(network_.begin() + static_cast<ptrdiff_t>(at));
  if (packet.message.empty()) SnapshotResult(packet, 0);
}

bool Cluster::DeliverOne(size_t at) {
  if (at >= network_.size()) return false;
  Packet packet = std::move(network_[at]);
  network_.erase(network_.begin() + static_cast<ptrdiff_t>(at));
  const bool lost = blocked_.count({packet.from, packet.to}) > 0 || !IsUp(packet.to);
  if (packet.message.empty()) {
    if (lost) {
      SnapshotResult(packet, 0);
    } else {
      InstallSnapshot(node(packet.to), packet);
    }
    return true;
  }
  if (lost) return true;
  std::optional<Message> message = DecodeMessage(packet.message);
  if (!message.has_value()) {
    Fail("a message does not decode");
    return true;
  }
  Do(packet.to, [&](Raft& raft) { raft.Step(std::move(*message)); });
  return true;
}

void Cluster::InstallSnapshot(Node& node, const Packet& packet) {
  uint64_t installed = 0;
  Do(node.id, [&](Raft& raft) {
    if (!raft.OnSnapshotChunk(packet.from, packet.term)) return;
    if (packet.snapshot.applied <= raft.applied_index()) return;
    node.memory = packet.snapshot;
    node.durable = packet.snapshot;
    installed = packet.snapshot.applied;
    ++snapshots_installed_;
    raft.SetNeedsSnapshot(false);
    if (raft.InstallSnapshot(packet.snapshot.applied, packet.snapshot.term, packet.snapshot.configuration)) {
      Write reset;
      reset.kind = Write::Kind::kReset;
      reset.index = packet.snapshot.applied;
      reset.term = packet.snapshot.term;
      node.writes.push_back(std::move(reset));
    }
  });
  SnapshotResult(packet, installed);
}

void Cluster::SnapshotResult(const Packet& packet, uint64_t index) {
  if (node(packet.from).boots != packet.sender_boots) return;
  Do(packet.from, [&](Raft& raft) { raft.OnSnapshotSent(packet.to, index); });
}

void Cluster::FinishWrite(Node& node) {
  Write write = std::move(node.writes.front());
  node.writes.pop_front();
  Disk& disk = node.disk;
  switch (write.kind) {
    case Write::Kind::kAppend:
      if (write.append.hard_state.has_value()) disk.hard_state = *write.append.hard_state;
      if (!write.append.entries.empty()) {
        const uint64_t first = write.append.entries.front().index;
        if (first <= disk.base_index || first > disk.last_index() + 1) return Fail("append: a gap");
        disk.entries.resize(first - disk.base_index - 1);
        for (Entry& entry : write.append.entries) disk.entries.push_back(std::move(entry));
      }
      break;
    case Write::Kind::kReset:
      disk.entries.clear();
      disk.base_index = write.index;
      disk.base_term = write.term;
      break;
    case Write::Kind::kTruncatePrefix:
      if (write.index <= disk.base_index) break;
      if (write.index > disk.last_index()) return Fail("truncated beyond the log");
      disk.base_term = disk.entries[write.index - disk.base_index - 1].term;
      disk.entries.erase(disk.entries.begin(),
                         disk.entries.begin() + static_cast<ptrdiff_t>(write.index - disk.base_index));
      disk.base_index = write.index;
      break;
  }
}

bool Cluster::CompleteWrite(NodeId id) {
  Node& at = node(id);
  if (at.raft == nullptr || at.writes.empty()) return false;
  const uint64_t seq = at.writes.front().kind == Write::Kind::kAppend ? at.writes.front().append.seq : 0;
  FinishWrite(at);
  Do(id, [&](Raft& raft) {
    if (seq != 0) raft.OnDurable(seq);
  });
  return true;
}

bool Cluster::Apply(NodeId id, uint64_t count_max) {
  Node& at = node(id);
  if (at.raft == nullptr || failed_) return false;
  bool any = false;
  for (; count_max > 0 && at.memory.applied < at.raft->applicable_index(); --count_max) {
    any = true;
    const uint64_t index = at.memory.applied + 1;
    const Entry entry = at.raft->EntryAt(index);
    auto [data, is_new] = applied_data_.try_emplace(index, Describe(entry));
    if (data->second != Describe(entry)) Fail("another entry was applied");
    at.memory.applied = index;
    at.memory.term = entry.term;
    Do(id, [&](Raft& raft) {
      if (entry.kind == EntryKind::kConfiguration) {
        at.memory.configuration = Decode(entry.data.view());
        raft.ApplyConfiguration(at.memory.configuration);
      }
      raft.OnApplied(index);
    });
  }
  return any;
}

void Cluster::Checkpoint(NodeId id, uint64_t keep) {
  Node& at = node(id);
  if (at.raft == nullptr || at.memory.applied > at.raft->durable_index()) return;
  at.durable = at.memory;
  if (at.durable.applied <= keep) return;
  const uint64_t index = at.durable.applied - keep;
  Do(id, [&](Raft& raft) { raft.TruncatePrefix(index); });
  Write write;
  write.kind = Write::Kind::kTruncatePrefix;
  write.index = index;
  at.writes.push_back(std::move(write));
}

// Loses all memory, and all but some of the writes that were under way.
void Cluster::Crash(NodeId id) {
  Node& at = node(id);
  if (at.raft == nullptr) return;
  for (uint64_t kept = Random(at.writes.size() + 1); kept > 0; --kept) FinishWrite(at);
  at.writes.clear();
  at.raft = nullptr;
  at.reads.clear();
  invariants_.OnRestart(id);
}

bool Cluster::LoseLog(NodeId id) {
  size_t behind = 0;
  for (const Node& other : nodes_) {
    if (other.id != id && other.lost.last_index() > 0) ++behind;
  }
  if (behind >= (options_.voters - 1) / 2) return false;
  Crash(id);
  Node& at = node(id);
  const bool is_behind = at.lost.last_index() > 0;  // The first promise still counts.
  if (!is_behind && at.disk.last_index() > at.durable.applied) at.lost = at.disk;
  at.disk.base_index = at.durable.applied;
  at.disk.base_term = at.durable.term;
  at.disk.entries.clear();
  at.disk.hard_state.commit = at.durable.applied;
  return true;
}
void Cluster::Restart(NodeId id) {
  Crash(id);
  Boot(node(id));
}

// ---- many steps ----

void Cluster::Settle() {
  for (bool busy = true; busy && !failed_;) {
    busy = false;
    while (DeliverOne(0)) busy = true;
    for (Node& node : nodes_) {
      if (!hold_writes && held_disks.count(node.id) == 0) {
        while (CompleteWrite(node.id)) busy = true;
      }
      if (!hold_applies && Apply(node.id)) busy = true;
    }
  }
}

void Cluster::Run(int rounds) {
  for (int i = 0; i < rounds && !failed_; ++i) {
    for (Node& node : nodes_) Tick(node.id);
    Settle();
  }
}

NodeId Cluster::RunUntilLeader(int rounds) {
  for (int i = 0; i < rounds && !failed_; ++i) {
    const NodeId leader = Leader();
    if (leader != 0 && raft(leader).committed_in_term()) return leader;
    Run(1);
  }
  return 0;
}

NodeId Cluster::Leader() {
  NodeId leader = 0;
  for (Node& node : nodes_) {
    if (node.raft == nullptr || node.raft->role() != Role::kLeader) continue;
    if (leader == 0 || node.raft->term() > raft(leader).term()) leader = node.id;
  }
  return leader;
}

void Cluster::Isolate(NodeId id) {
  for (const Node& other : nodes_) {
    if (other.id == id) continue;
    Block(id, other.id);
    Block(other.id, id);
  }
}

void Cluster::Reconnect(NodeId id) {
  for (const Node& other : nodes_) {
    Unblock(id, other.id);
    Unblock(other.id, id);
  }
}

size_t Cluster::reads_waiting() const {
  size_t count = 0;
  for (const Node& node : nodes_) count += node.reads.size();
  return count;
}

void Cluster::Heal() {
  blocked_.clear();
  lose = nullptr;
  held_disks.clear();
  hold_writes = false;
  hold_applies = false;
  for (Node& node : nodes_) {
    if (node.raft == nullptr) Boot(node);
  }
}

void Cluster::RandomStep() {
  const NodeId id = 1 + Random(nodes_.size());
  if (Random(1000) < options_.fault_permille) return RandomFault();
  const uint64_t choice = Random(960);
  if (choice < 480) {
    if (!network_.empty()) DeliverOne(Random(4) == 0 ? Random(network_.size()) : 0);
  } else if (choice < 660) {
    if (held_disks.count(id) == 0) CompleteWrite(id);
  } else if (choice < 760) {
    Tick(id);
  } else if (choice < 850) {
    Apply(id, 1 + Random(4));
  } else if (choice < 930) {
    const NodeId leader = Leader();
    const NodeId to = leader != 0 && Random(8) != 0 ? leader : id;
    for (uint64_t i = Random(3) + 1; i > 0; --i) {
      if (IsUp(to)) Propose(to, "v" + std::to_string(++proposed_));
    }
  } else if (choice < 955) {
    // Rather where a leader may be deposed and not know it.
    for (Node& node : nodes_) {
      if (node.raft != nullptr && (node.id == id || node.raft->role() == Role::kLeader)) Read(node.id);
    }
  } else {
    Checkpoint(id, Random(20));
  }
  if (network_.size() > 400) LosePacket(0);
}

void Cluster::RandomFault() {
  const NodeId id = 1 + Random(nodes_.size());
  const NodeId other = 1 + Random(nodes_.size());
  switch (Random(options_.loses_logs ? 17 : 15)) {
    case 0:
    case 1:
      for (uint64_t i = Random(4) + 1; i > 0 && !network_.empty(); --i) {
        LosePacket(Random(network_.size()));
      }
      return;
    case 2:
    case 3:
      for (uint64_t i = Random(4) + 1; i > 0 && !network_.empty(); --i) {
        const Packet copy = network_[Random(network_.size())];
        if (!copy.message.empty()) network_.push_back(copy);
      }
      return;
    case 4:
      return Isolate(Leader() != 0 && Random(2) == 0 ? Leader() : id);
    case 5:
    case 6:
      blocked_.clear();
      held_disks.clear();
      for (Node& down : nodes_) {
        if (down.raft == nullptr) Boot(down);
      }
      return;
    case 7:
      return Block(id, other);
    case 8:
      return Restart(id);
    case 9:
      if (IsUp(id)) return Crash(id);
      return Boot(node(id));
    case 10:
      return Do(id, [&](Raft& raft) { raft.TransferLeadership(other); });
    case 11:
      return Do(id, [&](Raft& raft) { raft.OnPeerDown(Random(2) == 0 ? raft.leader() : other); });
    case 12:
      return Checkpoint(id, Random(20));
    case 13:
      held_disks.insert(id);
      return;
    case 14:
      return RandomConfigurationChange();
    case 15:
    case 16:
      if (LoseLog(id)) Boot(node(id));
      return;
  }
}

void Cluster::RandomConfigurationChange() {
  const NodeId leader = Leader();
  const NodeId id = 1 + Random(nodes_.size());
  if (leader == 0 || nodes_.size() == options_.voters) return;
  Configuration next = node(leader).memory.configuration;
  const bool is_voter = std::binary_search(next.voters.begin(), next.voters.end(), id);
  const bool is_learner = std::binary_search(next.learners.begin(), next.learners.end(), id);
  if (is_voter) {
    if (next.voters.size() <= 2) return;
    next.voters.erase(std::find(next.voters.begin(), next.voters.end(), id));
  } else if (is_learner) {
    next.learners.erase(std::find(next.learners.begin(), next.learners.end(), id));
    if (Random(4) != 0) next.voters.push_back(id);
  } else {
    next.learners.push_back(id);
  }
  std::sort(next.voters.begin(), next.voters.end());
  std::sort(next.learners.begin(), next.learners.end());
  ProposeConfiguration(leader, next);
}

}  // namespace keyway::raft
