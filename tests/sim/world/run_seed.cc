// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/run_seed.h"

#include <cstdio>

#include "tests/sim/history/checkers.h"
#include "tests/sim/history/client.h"
#include "tests/sim/history/json_lines.h"
#include "tests/sim/world/cluster.h"

namespace keyway::sim {
namespace {

class WorkloadClients final : public Clients {
 public:
  explicit WorkloadClients(Workload* workload) : workload_(workload) {}
  void OnNodeDown(size_t slot) override { workload_->OnNodeDown(slot); }
  void BeginSettle() override { workload_->BeginSettle(); }
  bool IsSettled() const override { return workload_->IsSettled(); }
  std::string Unsettled() const override { return workload_->Unsettled(); }

 private:
  Workload* const workload_;
};

const Scheduler* running = nullptr;

struct Running {
  explicit Running(const Scheduler* scheduler) { running = scheduler; }
  ~Running() { running = nullptr; }
};

}  // namespace

uint64_t RunningVirtualNs() { return running == nullptr ? 0 : running->now_ns(); }

RunResult RunSeed(const RunOptions& options, const Swarm& swarm) {
  RunResult result;
  Cluster cluster(options.seed, swarm, options.trace);
  const Running guard(&cluster.scheduler());
  Workload workload(WorkloadOptions::Draw(options.seed), &cluster);
  WorkloadClients clients(&workload);
  cluster.StartAll();
  workload.Start();
  const uint64_t begin_ns = cluster.scheduler().now_ns();
  result.failure = cluster.Run(&clients);
  result.virtual_ns = cluster.scheduler().now_ns() - begin_ns;
  result.trace_hash = cluster.trace_hash();
  result.operations = workload.operations_started();
  result.operations_ok = workload.operations_ok();
  result.faults = cluster.faults();
  result.entries = cluster.raft_checker().committed();
  result.terms = cluster.raft_checker().terms();
  result.events = cluster.scheduler().events_run();
  const History history = workload.TakeHistory(result.failure.empty());
  cluster.StopDelivering();
  if (!options.history_file.empty()) {
    const std::string lines = ToJsonLines(history, nullptr, {{"seed", std::to_string(options.seed)}});
    std::FILE* file = std::fopen(options.history_file.c_str(), "w");
    if (file == nullptr || std::fwrite(lines.data(), 1, lines.size(), file) != lines.size()) {
      result.failure = options.history_file + " cannot be written";
    }
    if (file != nullptr) std::fclose(file);
  }
  if (!result.failure.empty()) return result;
  CheckOptions check;
  check.leases.disturbances_ns = cluster.disturbances_ns();
  // Clocks that jump or run fast end leases early.
  if (swarm.clock_ns != 0) check.leases.early_ns = 1'000'000'000'000;
  for (const Finding& finding : CheckAll(history, check)) {
    result.failure += (result.failure.empty() ? "" : "\n") + finding.checker + ": " + finding.text;
  }
  return result;
}

}  // namespace keyway::sim
