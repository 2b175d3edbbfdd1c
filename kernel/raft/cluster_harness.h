// SPDX-License-Identifier: Apache-2.0
//
// A cluster of Raft nodes in memory, for tests: a network that loses, repeats and reorders, disks that
// complete later and lose what was not synced in a crash, a state machine with checkpoints and
// snapshots. One seed decides everything. After each action the invariants are checked, and:
//
// - what a node promises (vote, request for votes, acknowledgement) is on its disk by then;
// - what a leader commits is on the disks of a majority;
// - the same entry is applied at an index everywhere;
// - the index of a confirmed read covers everything that was committed when it was asked for.
//
// A violation is a failure that names the seed; failed() then stops the run.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernel/raft/raft.h"
#include "kernel/raft/raft_invariants.h"

namespace keyway::raft {

struct ClusterOptions {
  uint64_t seed = 1;
  size_t voters = 3;
  size_t nodes = 0;  // With those outside of the first configuration; 0: as voters.
  uint32_t election_ticks = 10;
  uint32_t heartbeat_ticks = 1;
  size_t append_bytes_max = 0;
  size_t inflight_messages_max = 0;
  size_t cache_bytes = 1 << 20;
  uint64_t fault_permille = 25;  // Of random steps.
  bool loses_logs = false;       // Among the faults: LoseLog().
};

class Cluster {
 public:
  // The state machine: the log applied up to an index.
  struct Engine {
    uint64_t applied = 0;
    uint64_t term = 0;
    Configuration configuration;
  };
  struct Disk {
    HardState hard_state;
    uint64_t base_index = 0;
    uint64_t base_term = 0;
    std::vector<Entry> entries;

    uint64_t last_index() const { return base_index + entries.size(); }
    bool Has(uint64_t index, uint64_t term) const;
  };

  explicit Cluster(const ClusterOptions& options);

  // ---- one step of one node ----
  Raft& raft(NodeId id) { return *node(id).raft; }
  bool IsUp(NodeId id) { return node(id).raft != nullptr; }
  const Engine& engine(NodeId id) { return node(id).memory; }
  const Disk& disk(NodeId id) { return node(id).disk; }
  void Tick(NodeId id, int ticks = 1);
  uint64_t Propose(NodeId id, const std::string& data);
  uint64_t ProposeConfiguration(NodeId id, const Configuration& configuration);
  void Read(NodeId id);
  void Campaign(NodeId id);
  void Inject(Message message);  // Steps it at its receiver, past the network.
  // Runs `action` on the node, then takes its output.
  void Do(NodeId id, const std::function<void(Raft&)>& action);
  bool DeliverOne(size_t at);
  bool CompleteWrite(NodeId id);  // The oldest one.
  bool Apply(NodeId id, uint64_t count_max = UINT64_MAX);
  // Makes the state machine durable as far as it may be, and drops the log up to `keep` before that.
  void Checkpoint(NodeId id, uint64_t keep);
  void Crash(NodeId id);
  void Restart(NodeId id);
  // Crashes the node; its log is damaged then, and nothing behind the state machine is left of it. It starts
  // with its promise. Not more than a minority at a time: returns whether it was done.
  bool LoseLog(NodeId id);

  // ---- many steps ----
  // Delivers, completes writes and applies until nothing is left. No ticks.
  void Settle();
  // Each node ticks once, then Settle(); `rounds` times.
  void Run(int rounds);
  // Run() until there is a leader that has committed in its term; 0 if there is none after `rounds`.
  NodeId RunUntilLeader(int rounds = 200);
  // One random action, faults included.
  void RandomStep();
  // Ends all faults.
  void Heal();

  // ---- faults and observation ----
  void Block(NodeId from, NodeId to) { blocked_.insert({from, to}); }
  void Unblock(NodeId from, NodeId to) { blocked_.erase({from, to}); }
  void Isolate(NodeId id);
  void Reconnect(NodeId id);
  bool hold_writes = false;     // Settle() completes no writes ...
  std::set<NodeId> held_disks;  // ... or none of these nodes.
  bool hold_applies = false;
  // Messages for which this is true are lost.
  std::function<bool(const Message&)> lose;
  std::function<void(const Message&)> on_send;

  NodeId Leader();  // The running leader of the highest term; 0: none.
  bool failed() const { return failed_; }
  uint64_t reads_confirmed() const { return reads_confirmed_; }
  uint64_t reads_failed() const { return reads_failed_; }
  size_t reads_waiting() const;
  size_t snapshots_installed() const { return snapshots_installed_; }
  size_t log_reads() const { return log_reads_; }
  uint64_t committed() const { return committed_; }
  size_t packets() const { return network_.size(); }
  const std::string& DataAt(uint64_t index) { return applied_data_[index]; }
  size_t node_count() const { return nodes_.size(); }
  static std::string Encode(const Configuration& configuration);

 private:
  struct Write {
    enum class Kind { kAppend, kReset, kTruncatePrefix };
    Kind kind = Kind::kAppend;
    Append append;
    uint64_t index = 0;
    uint64_t term = 0;
  };
  struct Node {
    NodeId id = 0;
    std::unique_ptr<Raft> raft;
    Disk disk;
    Disk lost;  // What LoseLog() took, until it is there again.
    std::deque<Write> writes;
    Engine memory;
    Engine durable;
    uint64_t boots = 0;
    uint64_t read_context = 0;
    std::map<uint64_t, uint64_t> reads;  // Context: the least index that it must give.
  };
  struct Packet {
    NodeId from = 0;
    NodeId to = 0;
    std::string message;  // Encoded; empty: a snapshot, ...
    Engine snapshot;
    uint64_t term = 0;
    uint64_t sender_boots = 0;
  };

  Node& node(NodeId id) { return nodes_.at(id - 1); }
  uint64_t Random(uint64_t bound);
  void Boot(Node& node);
  void Pump(Node& node);
  void Emit(Node& node, Message message);
  void CheckPromise(Node& node, const Message& message);
  void CheckCommit(Node& node, uint64_t before);
  void CheckInvariants();
  void ServeLogRead(Node& node, const LogRead& read);
  void LosePacket(size_t at);  // Who sends a snapshot learns that it failed.
  void InstallSnapshot(Node& node, const Packet& packet);
  void SnapshotResult(const Packet& packet, uint64_t index);
  void FinishWrite(Node& node);
  void RandomFault();
  void RandomConfigurationChange();
  void Fail(const std::string& what);

  const ClusterOptions options_;
  uint64_t random_state_;
  std::deque<Node> nodes_;
  std::vector<Packet> network_;
  std::set<std::pair<NodeId, NodeId>> blocked_;
  RaftInvariants invariants_;
  std::map<std::pair<NodeId, uint64_t>, NodeId> grants_;  // (voter, term): candidate.
  std::map<uint64_t, std::string> applied_data_;
  uint64_t committed_ = 0;
  uint64_t reads_confirmed_ = 0;
  uint64_t reads_failed_ = 0;
  size_t snapshots_installed_ = 0;
  size_t log_reads_ = 0;
  uint64_t proposed_ = 0;
  bool failed_ = false;
};

}  // namespace keyway::raft
