// SPDX-License-Identifier: Apache-2.0
//
// The safety properties of Raft (paper, figure 3), checked over the nodes of a cluster by what they
// show through raft.h. Tests and the simulator call Check() after each step.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "kernel/raft/raft.h"

namespace keyway::raft {

class RaftInvariants {
 public:
  // Checks the running nodes. Returns "" or what is violated; the state is then of no more use.
  //
  // - Election safety: at most one leader for a term.
  // - Log matching: logs that agree at an index agree before it.
  // - Leader completeness: a leader has every entry that was committed in an earlier term.
  // - State machine safety: what is committed at an index never differs.
  // - A node's term and commit index never fall, unless it was restarted.
  std::string Check(const std::vector<const Raft*>& nodes);

  // The node lost its memory: its commit index, and a term it never made durable, may fall.
  void OnRestart(NodeId node) { seen_.erase(node); }

 private:
  struct Committed {
    uint64_t entry_term;
    uint64_t seen_in_term;  // Committed in this term or an earlier one.
  };
  struct Seen {
    uint64_t term = 0;
    uint64_t commit = 0;
    uint64_t leader_checked_term = 0;
  };
  using LogEnd = std::tuple<uint64_t, uint64_t, std::optional<uint64_t>, uint64_t>;
  bool LogChanged(const Raft& node);
  std::string CheckNode(const Raft& node);
  std::string CheckLeader(const Raft& node);
  static std::string CheckLogMatching(const Raft& a, const Raft& b);

  std::map<uint64_t, NodeId> leaders_;       // By term.
  std::map<uint64_t, Committed> committed_;  // By index.
  std::map<NodeId, Seen> seen_;
  std::map<NodeId, LogEnd> log_ends_;
};

}  // namespace keyway::raft
