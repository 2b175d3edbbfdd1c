// SPDX-License-Identifier: Apache-2.0
//
// What all parts of one plugin instance share. Constant once started.
#pragma once

#include <atomic>
#include <vector>

#include "keyway/kernel.h"
#include "options.h"
#include "server_metrics.h"

namespace keyway::api_etcd {

class IoThread;
class TlsProvider;

struct Server {
  const kw_host* host = nullptr;
  Options options;
  const kw_kernel* kernel = nullptr;
  const kw_node_state* state = nullptr;
  const kw_exposition* exposition = nullptr;
  const kw_identity* identity = nullptr;
  Clock clock;
  Logger log;
  ServerMetrics metrics;
  TlsProvider* tls = nullptr;         // NULL without an https listener.
  std::vector<IoThread*> io_threads;  // Those that serve; not the one of the handshakes.
  std::atomic<uint32_t> connection_count = 0;

  uint64_t leader_id() const { return __atomic_load_n(&state->leader_id, __ATOMIC_RELAXED); }
  uint64_t leader_lost_ns() const { return __atomic_load_n(&state->leader_lost_ns, __ATOMIC_RELAXED); }
  bool is_learner() const { return __atomic_load_n(&state->is_learner, __ATOMIC_RELAXED) != 0; }
  int64_t revision() const { return __atomic_load_n(&state->revision, __ATOMIC_RELAXED); }
  uint64_t cluster_id() const { return __atomic_load_n(&state->cluster_id, __ATOMIC_RELAXED); }
  uint64_t member_id() const { return __atomic_load_n(&state->member_id, __ATOMIC_RELAXED); }
  uint64_t raft_term() const { return __atomic_load_n(&state->raft_term, __ATOMIC_RELAXED); }
};

}  // namespace keyway::api_etcd
