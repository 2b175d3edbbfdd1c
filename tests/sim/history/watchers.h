// SPDX-License-Identifier: Apache-2.0
//
// The watches of a workload: an observer of every key for each node, and a changing set of random ones.
// Records what each is told. A watch that its node loses is resumed elsewhere behind its last event.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/history/client.h"
#include "tests/sim/history/generator.h"

namespace keyway::sim {

class Watchers {
 public:
  // All outlive this. `history` receives a record for each watch.
  Watchers(const WorkloadOptions& options, World* world, Generator* generator, History* history);
  ~Watchers();

  void Start();
  void OnNodeDown(size_t node);
  void BeginSettle();
  // Whether each watch that is open on an up node is complete up to `revision`; else says which is not.
  bool IsCompleteUpTo(int64_t revision, std::string* what) const;

 private:
  struct NodeSink;
  struct Watcher;
  struct Group;

  static void Deliver(void* self, kw_delivery* delivery);
  void OnBatch(size_t node, const kw_watch_batch& batch);
  void OnEvents(Watcher* watcher, const kw_watch_batch& batch);
  void OnEnd(Watcher* watcher);
  // Opens the watch of `slot` anew, or later if no node is up.
  void OpenSlot(size_t slot);
  void Open(size_t slot, Watch watch, size_t node);
  void ScheduleClose(Watcher* watcher);
  void ScheduleProgress();
  void RequestProgress();
  void GiveCredit(uint64_t watcher_id, uint64_t bytes);
  Watcher* Find(uint64_t watcher_id);

  const WorkloadOptions options_;
  World* const world_;
  Generator* const generator_;
  History* const history_;
  std::vector<std::unique_ptr<NodeSink>> sinks_;
  // One slot for each watch that is kept open: the first ones are the observers of the nodes.
  std::vector<std::unique_ptr<Watcher>> slots_;
  std::vector<std::unique_ptr<Watcher>> ended_;  // Until the kernel has let go of them.
  std::vector<std::unique_ptr<Group>> groups_;
  std::vector<Watch> resume_;  // For each slot; stream 0: nothing to resume.
  uint64_t next_id_ = 1;
  uint64_t next_stream_ = 1;
  bool settling_ = false;
};

}  // namespace keyway::sim
