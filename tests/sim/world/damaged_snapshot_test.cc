// SPDX-License-Identifier: Apache-2.0
//
// A member that needs a snapshot, and the leader's engine is damaged: each transfer is refused when its
// digest differs, and the member has no state meanwhile. Its watches wait; they lose no event.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernel/core/store_format.h"
#include "keyway/kernel.h"
#include "tests/sim/world/script.h"

namespace keyway::sim {
namespace {

// What a watch of all keys was told.
struct Told {
  std::vector<int64_t> events;  // Their revisions.
  int64_t progress = 0;
  kw_watch_sink sink{};

  Told() {
    sink.self = this;
    sink.deliver = [](void* self, kw_delivery* delivery) {
      Told& told = *static_cast<Told*>(self);
      for (size_t i = 0; i < delivery->batch_count; ++i) {
        const kw_watch_batch& batch = delivery->batches[i];
        if (batch.kind == KW_WATCH_PROGRESS || batch.kind == KW_WATCH_GROUP_PROGRESS) {
          told.progress = std::max(told.progress, batch.revision);
        }
        for (size_t j = 0; j < batch.event_count; ++j) told.events.push_back(batch.events[j]->mod_revision);
      }
      delivery->release(delivery);
    };
  }
};

TEST(DamagedSnapshot, WatchesLoseNothingWhileItIsRefused) {
  Swarm swarm;
  swarm.spares = 0;
  swarm.log_entries_kept = 10;
  swarm.digest_interval_ms = 0;  // Else the leader would find out first.
  Cluster cluster(1, swarm, false);
  Script script(&cluster);
  cluster.StartAll();
  ASSERT_TRUE(script.Put(0, "a", "0"));
  size_t leader = 0;
  while (cluster.node(leader).core()->raft()->role() != raft::Role::kLeader) ++leader;
  const size_t behind = (leader + 1) % 3, other = (leader + 2) % 3;
  for (int i = 1; i <= 20; ++i) ASSERT_TRUE(script.Put(leader, "a", std::to_string(i)));
  const auto pass = [&](uint64_t ns) { cluster.RunUntil(cluster.scheduler().now_ns() + ns, nullptr); };
  pass(2 * kSecond);

  const int64_t reached = script.last_revision();
  // One falls behind, by more than the log keeps.
  const auto cut = [&](bool is_cut) {
    for (size_t node : {leader, other}) {
      cluster.network().Block(node, behind, is_cut);
      cluster.network().Block(behind, node, is_cut);
    }
  };
  cut(true);
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(script.Put(leader, "b" + std::to_string(i), "x"));
  pass(5 * kSecond);
  bool is_damaged = false;
  cluster.node(leader).store().VisitValues([&](uint32_t table, const std::string&, std::string* value) {
    if (table != core::kTableMembers || is_damaged) return;  // Nobody reads it but a snapshot.
    value->back() = static_cast<char>(value->back() ^ 1);
    is_damaged = true;
  });
  ASSERT_TRUE(is_damaged);
  ASSERT_TRUE(cluster.node(behind).core()->digest_is_final());
  cut(false);
  bool was_without = false;
  uint64_t id = 0;
  Told told;
  kw_watch watch{};
  watch.size = sizeof watch;
  const char all = '\0';
  watch.key = watch.end = {reinterpret_cast<const uint8_t*>(&all), 1};
  watch.start_revision = reached - 3;
  watch.credit_bytes = 1 << 20;
  watch.sink = &told.sink;
  for (int i = 0; i < 500 && told.progress == 0; ++i) {
    pass(20 * kMillisecond);
    const core::Core* core = cluster.node(behind).core();
    ASSERT_NE(core, nullptr);
    if (!was_without && !core->digest_is_final()) {
      was_without = true;
      id = cluster.WatchOpen(behind, watch);
    }
    if (was_without) cluster.WatchProgress(behind, &told.sink, &id, 1, nullptr);
  }
  ASSERT_TRUE(was_without);
  // It has not been told that there is nothing behind what it has seen.
  EXPECT_TRUE(told.events.empty());
  EXPECT_EQ(told.progress, 0);
  EXPECT_FALSE(cluster.node(behind).core()->digest_is_final());
}

}  // namespace
}  // namespace keyway::sim
