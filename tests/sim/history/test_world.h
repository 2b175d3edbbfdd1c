// SPDX-License-Identifier: Apache-2.0
//
// A world for the tests of this folder: the kernel's store, leases and watch hubs behind a perfect
// consensus. Requests take time, get lost before or after they took effect, and nodes crash; so histories
// have unknown outcomes, but are right. Tests then break them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernel/lease/lease_table.h"
#include "kernel/mvcc/mvcc.h"
#include "kernel/mvcc/test_support.h"
#include "kernel/watch/watch_hub.h"
#include "tests/sim/history/client.h"
#include "tests/sim/history/random.h"

namespace keyway::sim {

struct TestWorldOptions {
  uint64_t seed = 1;
  size_t nodes = 3;
  uint32_t loss_permille = 15;  // Of requests, before they take effect; as many answers after.
  int64_t delay_ns_max = 5'000'000;
  int64_t crash_ns_max = 4'000'000'000;  // Between two crashes of a node; 0: none.
};

class TestWorld final : public World {
 public:
  explicit TestWorld(const TestWorldOptions& options);
  ~TestWorld() override;

  // Runs a workload for so long, then lets it settle, and takes its history.
  History Run(WorkloadOptions options, int64_t duration_ns);

  int64_t now_ns() const override { return now_ns_; }
  void CallAt(int64_t time_ns, std::function<void()> call) override;
  size_t node_count() const override { return nodes_.size(); }
  bool IsUp(size_t node) const override { return nodes_[node].up; }
  void Submit(size_t node, kw_request* request) override;
  uint64_t WatchOpen(size_t node, const kw_watch& watch) override;
  void WatchCredit(size_t node, uint64_t watch_id, uint64_t bytes) override;
  void WatchProgress(size_t node, const kw_watch_sink* sink, const uint64_t* ids, size_t count,
                     void* ctx) override;
  void WatchClose(size_t node, uint64_t watch_id) override;

 private:
  struct Node {
    bool up = true;
    uint64_t boots = 1;
    int64_t last_in_order_ns = 0;
    std::unique_ptr<watch::WatchHub> hub;
  };

  // At a random time later, if the node has not crashed by then.
  void Later(size_t node, std::function<void()> call);
  // The same, and after what was to be done there in order before: calls about watches.
  void InOrder(size_t node, std::function<void()> call);
  void LaterAt(int64_t time_ns, size_t node, std::function<void()> call);
  void RunUntil(int64_t time_ns, const std::function<bool()>& is_done);
  void Apply(size_t node, kw_request* request);
  keyway::Outcome ApplyKind(kw_request* request, Reply* reply);
  void Answer(size_t node, kw_request* request, keyway::Outcome outcome, ReplyPtr reply);
  void Range(const kw_range& range, Reply* reply, keyway::Outcome* outcome);
  void Revoke(int64_t lease);
  void Publish();
  void ExpireLeases();
  void ScheduleCrash(Workload* workload);
  int64_t now_ms() const { return now_ns_ / 1'000'000; }

  const TestWorldOptions options_;
  HistoryRandom random_;
  int64_t now_ns_ = 1'000'000'000;
  uint64_t events_ = 0;
  std::map<std::pair<int64_t, uint64_t>, std::function<void()>> queue_;
  LeaseTable leases_;
  std::unique_ptr<mvcc::Mvcc> mvcc_;
  std::unique_ptr<watch::MvccChangeSource> source_;
  mvcc::FakeEngine engine_;
  std::vector<Node> nodes_;
  uint64_t next_watch_ = 1;
  bool crashing_ = true;
};

}  // namespace keyway::sim
