// SPDX-License-Identifier: Apache-2.0
//
// Draws the operations of the clients. Each put writes a value that no other put writes, so that a value
// tells who wrote it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <string>

#include "tests/sim/history/client.h"
#include "tests/sim/history/random.h"
#include "tests/sim/history/types.h"

namespace keyway::sim {

class Generator {
 public:
  explicit Generator(const WorkloadOptions& options) : options_(options), random_(options.seed) {}

  Request Next(uint64_t client, uint64_t operation_id);
  // A range over every key, linearizable: what a client reads last.
  static Request ReadAll();
  // Fills key, end, start_revision and flags of a watch.
  void DrawWatch(Watch* watch);
  // What clients have learned.
  void OnRevision(int64_t revision) { last_revision_ = std::max(last_revision_, revision); }
  void OnCovered(int64_t revision) { covered_revision_ = std::max(covered_revision_, revision); }
  void OnOperation(const Operation& operation);

  HistoryRandom& random() { return random_; }
  int64_t last_revision() const { return last_revision_; }

 private:
  Kind DrawKind();
  std::string Key();
  std::string End();
  std::string Value(uint64_t client, uint64_t operation_id);
  int64_t OldRevision();
  int64_t Bound();
  int64_t Lease();
  Op Put(uint64_t client, uint64_t operation_id);
  Op Delete();
  Op Range();
  Compare DrawCompare();
  Txn DrawTxn(uint64_t client, uint64_t operation_id, int depth);
  void DrawBranch(uint64_t client, uint64_t operation_id, int depth, std::vector<Op>* ops);

  const WorkloadOptions options_;
  HistoryRandom random_;
  int64_t last_revision_ = 1;
  int64_t covered_revision_ = 1;    // Compactions go no further: an observer has seen all before.
  int64_t compacted_revision_ = 0;  // Of the last compaction that was acknowledged.
  uint64_t values_ = 0;             // Of the operation that is being drawn.
  int64_t next_lease_ = 1000;
  std::deque<int64_t> leases_;  // The last few that were granted, some of them gone by now.
};

}  // namespace keyway::sim
