// SPDX-License-Identifier: Apache-2.0
//
// The safety properties of Raft (paper, figure 3), online and at the cost of what changed:
//
//   election safety        at most one leader for a term
//   log matching           the same index and term means the same entry after the same entry: checked for
//                          each entry when it is given to a log; by induction, logs that agree at an index
//                          agree before it
//   leader completeness    a new leader has the last entry that was committed in an earlier term
//   state machine safety   what is committed at an index never differs; equal digests at equal applied indexes
//   committed is durable   when an index is first committed, a majority of the voters has acknowledged it
//   durable is durable     what Raft takes for durable is in the log, as the same entry: also after entries
//                          that were under way to the disk have been replaced by others
//   promises are durable   a vote, and an acknowledgement, is told only when the log has it; so has a leader its
//                          own vote
//   one change at a time   a leader adds a membership change only after it has committed an entry of its term
//                          and applied the change before (dissertation 4.1); nobody is elected who has one
//                          that is committed and not applied; the members are those that the log says
//   the engine             never ahead of the node's own log, and with the digest that others have at its index
//   monotonic              within a life, a node's term, commit index and applied index do not fall
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kernel/core/core.h"
#include "tests/sim/world/sim_log.h"

namespace keyway::sim {

class RaftChecker {
 public:
  explicit RaftChecker(size_t slots) : seen_(slots) {}

  // An entry is given to the log of `slot`.
  void OnEntry(size_t slot, uint64_t index, uint64_t term, uint64_t term_before, uint32_t crc32c);
  // A membership change is given to the log of `slot`, whose core is this.
  void OnConfiguration(size_t slot, const core::Core& core, uint64_t index, uint64_t term);
  // An entry was applied.
  void OnApplied(size_t slot, const core::Core& core, uint64_t index);
  // What `slot` has applied goes to its engine; `log` is what its log has acknowledged, null if it is to be reset.
  void OnStored(size_t slot, const core::Applied& applied, const LogShadow* log);
  // A message of `slot` goes out; `log` is what its log has acknowledged.
  void OnMessage(size_t slot, const core::Core& core, const raft::Message& message, const LogShadow& log);
  // A new life of a process.
  void OnStart(size_t slot) { seen_[slot] = {}; }
  // After each turn. `log` is what its log has acknowledged, `log_of` gives that of a member, null for an
  // unknown one.
  void OnTurn(size_t slot, const core::Core& core, const LogShadow& log,
              const std::function<const LogShadow*(uint64_t member)>& log_of);

  // "", or what was violated first.
  const std::string& violation() const { return violation_; }
  uint64_t committed() const { return committed_.size(); }
  uint64_t terms() const { return leaders_.size(); }

 private:
  struct Committed {
    uint64_t term = 0, seen_in_term = 0;
  };
  struct State {
    uint64_t digest = 0;
    int64_t revision = 0;
    bool is_known = false;
  };
  struct Seen {
    uint64_t term = 0, commit = 0, applied = 0, leader_term = 0;
    std::vector<raft::NodeId> voters;  // After the last turn.
    uint64_t configuration_index = 0;  // Of the last membership change that its log was given.
    bool digest_due = false;
  };
  struct Content {
    uint64_t term_before;
    uint32_t crc32c;
  };
  void Violate(const char* what, size_t slot, uint64_t term, uint64_t index);
  void CheckState(const char* what, size_t slot, uint64_t term, uint64_t index, uint64_t digest,
                  int64_t revision);
  void CheckDurable(size_t slot, const raft::Raft& raft, const LogShadow& log);
  void CheckLeader(size_t slot, const raft::Raft& raft,
                   const std::function<const LogShadow*(uint64_t)>& log_of);
  void CheckCommit(size_t slot, const raft::Raft& raft, const std::vector<raft::NodeId>& before,
                   const std::function<const LogShadow*(uint64_t)>& log_of);

  std::vector<Seen> seen_;
  std::vector<Committed> committed_;  // [index - 1]
  std::vector<State> states_;         // [index - 1], once applied.
  absl::flat_hash_map<uint64_t, size_t> leaders_;
  absl::flat_hash_map<std::pair<uint64_t, uint64_t>, Content> entries_;  // (index, term)
  std::string violation_;
};

}  // namespace keyway::sim
