// SPDX-License-Identifier: Apache-2.0
//
// What a node is told at start, and what it stands on.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernel/base/limits.h"
#include "kernel/core/executor.h"
#include "kernel/member/membership.h"
#include "kernel/plugin/log.h"
#include "kernel/plugin/metrics.h"
#include "keyway/kv_store.h"
#include "keyway/log_store.h"
#include "keyway/transport.h"

namespace keyway::core {

struct CoreConfig {
  std::string name;
  std::string cluster_token = "keyway-cluster";
  bool join_existing = false;                  // Wait for a running cluster to name us.
  std::vector<InitialMember> initial_members;  // With this node; peer URLs as configured.
  std::vector<std::string> advertise_client_urls;
  uint32_t tick_ms = 100;  // One heartbeat.
  uint32_t election_ticks = 10;
  size_t request_bytes_max = 1536u << 10;
  size_t txn_ops_max = 128;
  size_t cache_bytes = 64u << 20;
  uint64_t quota_bytes = 2ull << 30;     // Reported; 0: none.
  uint64_t log_entries_kept = 5000;      // For followers that lag, beyond what the engine has.
  uint64_t digest_interval_ms = 60'000;  // Between two comparisons of the members' state; 0: none.
  std::string store_name = "the store";  // Id of its plugin, for messages.
  uint64_t random_seed = 1;

  // How much one step does. A test makes these small, to see what happens between two steps.
  size_t snapshot_chunk_bytes = kSnapshotChunkBytes;
  uint64_t log_entries_per_truncation = 256;  // At least so many; fewer are not worth a call.
  size_t compact_keys_per_turn = 2000;
  size_t inflight_messages_max = kInflightMessagesMax;  // To one follower.
  size_t watch_changes_per_slice = 1000;
  size_t history_revisions_per_read = 1000;
  size_t recent_bytes = 16u << 20;  // Of changes that watches find in memory.
};

// Plugins and services; all outlive the core.
struct CoreDeps {
  kw_plugin* store_plugin = nullptr;
  const kw_kv_store* store = nullptr;
  kw_plugin* log_plugin = nullptr;
  const kw_log_store* log = nullptr;
  kw_plugin* transport_plugin = nullptr;
  const kw_transport* transport = nullptr;
  Executor* executor = nullptr;
  Logger* logger = nullptr;
  MetricsRegistry* metrics = nullptr;
  // For the simulator; may be empty. [core] An entry was applied in full.
  std::function<void(uint64_t index)> on_applied;
};

}  // namespace keyway::core
