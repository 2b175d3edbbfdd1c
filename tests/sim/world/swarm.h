// SPDX-License-Identifier: Apache-2.0
//
// What one seed decides before anything runs: the size of the cluster, its settings, the network, and which
// faults come how often. Every seed leaves some kinds out, since faults hide each other.
#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/world/sim_network.h"
#include "tests/sim/world/sim_node.h"

namespace keyway::sim {

struct Swarm {
  size_t voters = 3;
  size_t spares = 2;  // Machines for members that are added.
  uint64_t chaos_ns = 40 * kSecond;
  uint64_t settle_ns = 180 * kSecond;  // Liveness: by then the cluster must have come together.

  // Of the kernel.
  uint32_t tick_ms = 100, election_ticks = 10;
  uint64_t segment_bytes = 64 << 10;
  uint64_t log_entries_kept = 1000;
  size_t cache_bytes = 64u << 20;
  uint64_t digest_interval_ms = 5000;
  size_t snapshot_chunk_bytes = 512u << 10;
  uint64_t log_entries_per_truncation = 256;
  size_t compact_keys_per_turn = 2000;
  size_t inflight_messages_max = 256;
  size_t watch_changes_per_slice = 1000;
  size_t history_revisions_per_read = 1000;
  size_t recent_bytes = 16u << 20;
  bool mixed_engines = true;

  LinkFaults links;
  NodeTiming timing;

  // Mean time between two faults of a kind; 0: none.
  uint64_t crash_ns = 0;          // A process dies between turns, or the machine loses its power.
  uint64_t crash_at_call_ns = 0;  // It dies at a call of a plugin.
  uint64_t crash_all_ns = 0;
  uint64_t stop_ns = 0;  // An orderly restart.
  uint64_t pause_ns = 0;
  uint64_t partition_ns = 0;
  uint64_t reset_ns = 0;
  uint64_t slow_link_ns = 0;
  uint64_t clock_ns = 0;
  uint64_t disk_error_ns = 0;  // EIO, ENOSPC, an engine's call that fails.
  uint64_t slow_disk_ns = 0;   // Slow, or hung.
  uint64_t damage_ns = 0;      // At rest.
  uint64_t member_ns = 0;      // A member is removed, added, promoted; leadership is moved.
  bool moves_leader = false;   // There and back; to who has just installed a snapshot.
  uint64_t hash_ns = 0;        // The members' hashes of a revision are compared.
  bool keeps_learner = false;  // Beside the voters, once members change.
  uint32_t crash_in_recovery_ppm = 0;
  uint32_t power_loss_ppm = 500'000;
  bool heal_links_late = false;   // First only those within a quorum.
  bool hangs_leader_log = false;  // When all is well again: somebody else must lead soon.
  bool heal_all = true;           // In the end all come back; else a quorum only.

  // The default mix of a seed.
  static Swarm Draw(uint64_t seed);
  static Swarm Quiet() { return {}; }
  std::string Text() const;
};

}  // namespace keyway::sim
