// SPDX-License-Identifier: Apache-2.0
//
// Cluster: the simulated world of one seed. Machines, network, clients' way to them, the faults of its
// swarm, an operator who replaces members, and the checkers that run online. Run() is a life of it: chaos,
// then all faults end and the cluster must come together within bounded virtual time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "keyway/kernel.h"
#include "tests/sim/history/client.h"
#include "tests/sim/world/raft_checker.h"
#include "tests/sim/world/scheduler.h"
#include "tests/sim/world/sim_network.h"
#include "tests/sim/world/sim_node.h"
#include "tests/sim/world/swarm.h"
#include "tests/sim/world/trace.h"

namespace keyway::sim {

// The clients, as far as the cluster needs them.
class Clients {
 public:
  virtual ~Clients() = default;
  virtual void OnNodeDown(size_t slot) = 0;
  virtual void BeginSettle() = 0;
  virtual bool IsSettled() const = 0;
  virtual std::string Unsettled() const = 0;
};

class Cluster final : public World {
 public:
  Cluster(uint64_t seed, const Swarm& swarm, bool trace_text);
  ~Cluster() override;

  // The whole life. Returns "" or what is wrong. `clients` may come later than the cluster; must not be null.
  std::string Run(Clients* clients);

  // ---- for tests that drive it themselves ----
  void StartAll();
  // Starts one process; false if it does not come up. It is not started again then.
  bool StartAlone(size_t slot);
  // An orderly end of the process, and a new start after a while.
  void StopMachine(size_t slot, uint64_t restart_ns);
  // Runs until `until_ns`, or `done` holds, or something is wrong. Returns whether `done` holds.
  bool RunUntil(uint64_t until_ns, const std::function<bool()>& done);
  SimNode& node(size_t slot) { return *nodes_[slot]; }
  SimNetwork& network() { return network_; }
  Scheduler& scheduler() { return scheduler_; }
  void SetClients(Clients* clients) { clients_ = clients; }
  // Whether all members are up, equal, and have applied everything.
  bool IsTogether(std::string* why) const;

  // The clients are gone: what is under way to them is dropped.
  void StopDelivering();

  const std::string& failure() const { return failure_; }
  void Fail(std::string why);
  uint64_t trace_hash() const { return trace_.hash(); }
  uint64_t faults() const { return faults_; }
  const RaftChecker& raft_checker() const { return raft_checker_; }
  // When something happened that may make a lease live longer.
  const std::vector<int64_t>& disturbances_ns() const { return disturbances_ns_; }

  // ---- World ----
  int64_t now_ns() const override { return static_cast<int64_t>(scheduler_.now_ns()); }
  void CallAt(int64_t time_ns, std::function<void()> call) override;
  size_t node_count() const override { return nodes_.size(); }
  bool IsUp(size_t node) const override;
  void Submit(size_t node, kw_request* request) override;
  uint64_t WatchOpen(size_t node, const kw_watch& watch) override;
  void WatchCredit(size_t node, uint64_t watch_id, uint64_t bytes) override;
  void WatchProgress(size_t node, const kw_watch_sink* sink, const uint64_t* ids, size_t count,
                     void* ctx) override;
  void WatchClose(size_t node, uint64_t watch_id) override;

 private:
  // A machine's part in the cluster.
  enum class Role : uint8_t {
    kSpare,    // Empty.
    kMember,   // Has data; runs, or will again.
    kJoining,  // Was added; waits to be named. Its data may be lost without harm.
    kGone,     // Its data is of no use; to be removed by the operator.
  };
  struct Machine {
    Role role = Role::kSpare;
    uint64_t member_id = 0;
    bool is_founder = false;                       // Of the first configuration, with its first data.
    bool is_damaged = false;                       // At rest, by us.
    std::shared_ptr<const LogShadow> emptied_log;  // What it had acknowledged when we emptied its directory.
    bool is_leaving = false;                       // The operator wants it out.
    bool may_be_removed = false;                   // It has asked for that.
    int removal_tries = 0;
    int joining_tries = 0;
    bool stays_down = false;  // In the end.
    bool restart_planned = false;
  };
  // Since when a leader's log has not become durable any further.
  struct Stall {
    uint64_t durable = 0, since_ns = 0;
  };
  // Since when a leader leads in a term that is over.
  struct Outdated {
    uint64_t term = 0, since_ns = 0;
  };
  struct ClientCall;
  struct Sink;

  // ---- cluster.cc ----
  void StartMachine(size_t slot);
  void KillMachine(size_t slot, bool power_loss);
  void PlanRestart(size_t slot, uint64_t delay_ns);
  void OnTurned(size_t slot);
  void OnDied(size_t slot);
  void Explain(size_t slot);
  void Retire(size_t slot);
  // Something that may make a lease live longer happens now, and lasts.
  void Disturb(uint64_t for_ns = 0);
  void Settle();
  void OnSend(size_t slot, const kw_frame& frame);
  void CheckStall(size_t slot);
  void CheckTerm(size_t slot);
  bool IsCalmBut(size_t slot) const;
  const LogShadow* LogOf(uint64_t member) const;
  // ---- cluster_clients.cc ----
  void DropDeliveries(size_t slot);
  // ---- cluster_faults.cc ----
  void PlanFaults();
  void Every(uint64_t mean_ns, std::function<void()> fault);
  bool RandomRunning(size_t* slot);
  void Partition();
  void SlowLink();
  void ChangeClock();
  void DiskError();
  void Mute(size_t slot, uint64_t duration_ns);
  void DamageSnapshot(size_t slot, std::string* frame);
  void HangLeaderLog();
  void SlowDisk();
  void Damage();
  bool IsRememberedByAll(size_t slot) const;
  std::string EmptyDirectory(size_t slot);
  void EndFaults();
  void CutAllButAQuorum();
  // ---- cluster_operator.cc ----
  struct MemberCall;
  struct HashCall;
  void Operate();
  void MoveLeader(size_t slot);
  void MoveLeaderAndBack();
  void MoveLeaderToSlow();
  void MoveLeaderTo(size_t slot, uint64_t delay_ns);
  void CompareHashes();
  void TakeStep(const Membership& membership);
  void Ask(uint16_t kind, uint64_t id, size_t slot, bool is_learner,
           std::function<void(int32_t code, uint64_t new_id)> done);
  const Membership* KnownMembership() const;
  void FollowMembership(const Membership& membership);
  bool AllHealthy() const;

  const uint64_t seed_;
  const Swarm swarm_;
  Trace trace_;
  Scheduler scheduler_;
  Random random_;
  SimNetwork network_;
  RaftChecker raft_checker_;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  std::vector<Machine> machines_;
  std::vector<Stall> stalls_;
  std::vector<Outdated> outdated_;
  std::function<const LogShadow*(uint64_t)> log_of_;
  Clients* clients_ = nullptr;
  bool chaos_ = false;  // Faults may happen.
  bool settling_ = false;
  std::string failure_;
  uint64_t faults_ = 0;
  std::vector<int64_t> disturbances_ns_;

  // Clients.
  uint64_t next_delivery_ = 1, next_watch_ = 1;
  std::vector<std::map<uint64_t, std::function<void(bool)>>> deliveries_;  // By slot; true: hand over.
  std::vector<std::unique_ptr<Sink>> sinks_;

  // Operator.
  std::map<uint64_t, std::unique_ptr<MemberCall>> member_calls_;
  uint64_t next_member_call_ = 1;
  std::map<uint64_t, std::unique_ptr<HashCall>> hash_calls_;
  std::map<std::pair<int64_t, int64_t>, uint32_t> hashes_;  // Of a revision, after a compaction.
  std::map<uint64_t, LogShadow> retired_;  // Members whose data is gone, and what they had acknowledged.
};

}  // namespace keyway::sim
