// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/swarm.h"

#include "tests/sim/world/random.h"

namespace keyway::sim {

Swarm Swarm::Draw(uint64_t seed) {
  Random random(seed ^ 0x5eed5eed5eed5eedull);
  Swarm swarm;
  const uint64_t size = random.Below(100);
  swarm.voters = size < 8 ? 1 : size < 80 ? 3 : 5;
  swarm.chaos_ns = random.Between(20, 60) * kSecond;
  swarm.segment_bytes = uint64_t{16384} << random.Below(4);
  swarm.log_entries_kept = random.Coin() ? random.Between(0, 200) : random.Between(200, 3000);
  if (random.Chance(250'000)) swarm.log_entries_kept = random.Between(0, 20);
  swarm.cache_bytes = random.Coin()   ? 64u << 20
                      : random.Coin() ? random.Between(4, 64) << 10
                                      : random.Below(4096);
  swarm.digest_interval_ms = random.Between(1, 10) * 1000;
  swarm.mixed_engines = random.Coin();
  // Small steps: a state of some dozen keys takes many of them, as a large one does of the usual ones.
  if (random.Coin()) swarm.snapshot_chunk_bytes = random.Between(100, 4000);
  if (random.Coin()) swarm.log_entries_per_truncation = random.Between(1, 50);
  if (random.Coin()) swarm.compact_keys_per_turn = random.Between(1, 20);
  if (random.Coin()) swarm.inflight_messages_max = random.Between(1, 20);
  if (random.Coin()) swarm.watch_changes_per_slice = random.Between(1, 20);
  if (random.Coin()) swarm.history_revisions_per_read = random.Between(1, 20);
  if (random.Coin()) swarm.recent_bytes = random.Between(0, 20'000);

  swarm.links.delay_min_ns = random.Between(50, 2000) * kMicrosecond;
  swarm.links.delay_max_ns = swarm.links.delay_min_ns + random.Between(0, 30) * kMillisecond;
  if (random.Chance(400'000)) swarm.links.loss_ppm = static_cast<uint32_t>(random.Below(100'000));
  if (random.Chance(300'000)) swarm.links.duplicate_ppm = static_cast<uint32_t>(random.Below(100'000));
  if (random.Chance(300'000)) swarm.links.reorder_ppm = static_cast<uint32_t>(random.Below(200'000));
  if (random.Chance(200'000)) swarm.links.stall_ppm = static_cast<uint32_t>(random.Below(3'000));
  swarm.timing.flush_max_ns = swarm.timing.flush_min_ns + random.Between(0, 10) * kMillisecond;
  swarm.timing.store_max_ns = swarm.timing.store_min_ns + random.Between(0, 50) * kMillisecond;

  if (random.Coin())
    swarm.timing.read_max_ns = swarm.timing.read_min_ns + random.Between(0, 30) * kMillisecond;

  const uint64_t storm = random.Chance(250'000) ? 3 : 1;  // Faults come upon faults.
  const auto draw = [&](uint32_t ppm, uint64_t low_ms, uint64_t high_ms) -> uint64_t {
    const uint64_t mean = random.Between(low_ms, high_ms) * kMillisecond / storm;
    return random.Chance(ppm) ? mean : 0;
  };
  swarm.crash_ns = draw(600'000, 1500, 15000);
  swarm.crash_at_call_ns = draw(500'000, 1500, 15000);
  swarm.crash_all_ns = draw(200'000, 8000, 30000);
  swarm.stop_ns = draw(250'000, 5000, 30000);
  swarm.pause_ns = draw(300'000, 2000, 15000);
  swarm.partition_ns = draw(600'000, 1500, 15000);
  swarm.reset_ns = draw(400'000, 300, 8000);
  swarm.slow_link_ns = draw(250'000, 2000, 15000);
  swarm.clock_ns = draw(250'000, 2000, 15000);
  swarm.disk_error_ns = draw(300'000, 3000, 20000);
  swarm.slow_disk_ns = draw(250'000, 3000, 20000);
  swarm.damage_ns = draw(250'000, 3000, 20000);
  swarm.member_ns = draw(350'000, 1500, 10000);
  swarm.crash_in_recovery_ppm = random.Coin() ? 0 : static_cast<uint32_t>(random.Below(500'000));
  swarm.power_loss_ppm = static_cast<uint32_t>(random.Below(1'000'001));
  swarm.heal_all = random.Chance(700'000);
  // A busy machine takes several inputs in one turn.
  if (random.Coin()) swarm.timing.turn_max_ns = random.Between(50, 2000) * kMicrosecond;
  swarm.keeps_learner = swarm.member_ns != 0 && random.Chance(400'000);
  swarm.heal_links_late = swarm.voters > 1 && random.Chance(300'000);
  // One that is overloaded: whole batches wait for each turn.
  if (random.Chance(150'000)) swarm.timing.turn_max_ns = random.Between(2, 30) * kMillisecond;
  if (random.Chance(300'000)) {
    swarm.timing.read_stall_ppm = static_cast<uint32_t>(random.Below(50'000));
    if (random.Coin()) swarm.cache_bytes = random.Below(4096);  // Else there are few reads of the engine.
  }
  swarm.moves_leader = swarm.voters > 1 && random.Coin();
  if (swarm.moves_leader && swarm.member_ns != 0 && random.Coin()) swarm.cache_bytes = random.Below(4096);
  swarm.hash_ns = draw(300'000, 300, 5000);
  swarm.hangs_leader_log = swarm.voters > 1 && random.Chance(150'000);
  return swarm;
}

std::string Swarm::Text() const {
  std::string text = std::to_string(voters) + " voters, " + std::to_string(chaos_ns / kSecond) + " s";
  const auto add = [&](const char* name, uint64_t mean_ns) {
    if (mean_ns != 0)
      text += std::string(", ") + name + " each " + std::to_string(mean_ns / kMillisecond) + " ms";
  };
  add("crash", crash_ns);
  add("crash at a call", crash_at_call_ns);
  add("crash of all", crash_all_ns);
  add("stop", stop_ns);
  add("pause", pause_ns);
  add("partition", partition_ns);
  add("reset", reset_ns);
  add("slow link", slow_link_ns);
  add("clock", clock_ns);
  add("disk error", disk_error_ns);
  add("slow disk", slow_disk_ns);
  add("damage", damage_ns);
  add("member change", member_ns);
  add("hash", hash_ns);
  if (moves_leader) text += ", leadership moves";
  if (keeps_learner) text += ", a learner";
  return text;
}

}  // namespace keyway::sim
