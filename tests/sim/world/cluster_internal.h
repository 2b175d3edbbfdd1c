// SPDX-License-Identifier: Apache-2.0
//
// What the parts of Cluster share.
#pragma once

#include <string>
#include <vector>

#include "tests/sim/world/cluster.h"

namespace keyway::sim {

inline bool Leads(const SimNode& node) {
  const core::Core* core = node.core();
  return core != nullptr && core->raft() != nullptr && core->raft()->role() == raft::Role::kLeader;
}

// Where a node's deliveries go, on their way to the clients' sink of the same node.
struct Cluster::Sink {
  Cluster* cluster = nullptr;
  size_t slot = 0;
  const kw_watch_sink* target = nullptr;
  kw_watch_sink sink{};
  uint64_t last_arrival_ns = 0;
};

// A request of the operator.
struct Cluster::MemberCall {
  kw_member_request request{};
  std::string url;
  kw_slice url_slice{};
  Cluster* cluster = nullptr;
  uint64_t id = 0;
  std::function<void(int32_t code, uint64_t new_id)> done;
};

// A question for the hash of a revision.
struct Cluster::HashCall {
  kw_compact_request request{};
  Cluster* cluster = nullptr;
  uint64_t id = 0;
  size_t slot = 0;
};

}  // namespace keyway::sim
