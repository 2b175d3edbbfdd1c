// SPDX-License-Identifier: Apache-2.0
//
// Exhaustive: every call that a node makes to its plugins fails, one after another, with every error code;
// and the process dies at every call. Then the node stops cleanly or goes on, it starts again, and nothing
// that was acknowledged is lost.
#include <gtest/gtest.h>

#include <string>

#include "tests/sim/world/script.h"

namespace keyway::sim {
namespace {

Swarm SmallCluster(size_t voters) {
  Swarm swarm;
  swarm.voters = voters;
  swarm.spares = 0;
  swarm.segment_bytes = 16 << 10;
  swarm.cache_bytes = 1024;  // So that records are read from the engine.
  swarm.digest_interval_ms = 500;
  return swarm;
}

// What is done to node 0 before it starts.
using Harm = std::function<void(SimNode&)>;

// A life with a start, writes, a compaction, reads and an orderly restart, so that every call is made.
// `calls` receives how many there were of each kind.
void Live(Cluster* cluster, const Harm& harm, const std::string& what,
          std::array<uint64_t, kCallCount>* calls = nullptr) {
  Script script(cluster);
  if (harm) harm(cluster->node(0));
  cluster->StartAll();
  // OnDied() plans a restart, so that a node that fails comes back by itself.
  for (int i = 0; i < 6; ++i) {
    const std::string key = "k" + std::to_string(i % 3);
    script.Put(0, key, std::string(300, 'v') + std::to_string(i), 3 * kSecond);
  }
  script.Remove(0, "k2");
  script.Compact(0, script.last_revision() - 2);
  cluster->RunUntil(cluster->scheduler().now_ns() + 1500 * kMillisecond, nullptr);
  (void)script.ReadAll(0, 3 * kSecond);
  if (cluster->IsUp(0)) cluster->StopMachine(0, 10 * kMillisecond);
  cluster->RunUntil(cluster->scheduler().now_ns() + 8 * kSecond, nullptr);
  if (calls != nullptr) {
    for (size_t i = 0; i < kCallCount; ++i) (*calls)[i] = cluster->node(0).calls(static_cast<Call>(i));
  }
  // What has not happened by now will not: it would only hit the check.
  cluster->node(0).DieAtCall(0);
  cluster->node(0).FailCall(Call::kStoreWrite, 0, KW_OK);
  cluster->RunUntil(cluster->scheduler().now_ns() + 10 * kSecond, [&] {
    std::string why;
    return cluster->IsUp(0) && cluster->IsTogether(&why);
  });
  ASSERT_EQ(cluster->failure(), "") << what;
  ASSERT_TRUE(cluster->IsUp(0)) << what << ": " << cluster->node(0).failure();
  const auto found = script.ReadAll(0);
  ASSERT_TRUE(found.has_value()) << what;
  EXPECT_EQ(script.Missing(*found), "") << what;
}

TEST(AbiFailure, EveryCallWithEveryCode) {
  std::array<uint64_t, kCallCount> calls{};
  {
    Cluster cluster(1, SmallCluster(1), false);
    ASSERT_NO_FATAL_FAILURE(Live(&cluster, nullptr, "without a failure", &calls));
  }
  size_t lives = 0;
  for (size_t kind = 0; kind < kCallCount; ++kind) {
    const Call call = static_cast<Call>(kind);
    for (uint64_t nth = 1; nth <= calls[kind]; ++nth) {
      for (int32_t code = KW_CANCELLED; code <= KW_UNAUTHENTICATED; ++code) {
        Cluster cluster(1, SmallCluster(1), false);
        const std::string what =
            std::string(NameOf(call)) + " " + std::to_string(nth) + " fails with " + std::to_string(code);
        ASSERT_NO_FATAL_FAILURE(Live(
            &cluster, [&](SimNode& node) { node.FailCall(call, nth, code); }, what));
        ++lives;
      }
    }
  }
  RecordProperty("lives", static_cast<int>(lives));
  std::printf("%zu lives\n", lives);
}

TEST(AbiFailure, DeathAtEveryCall) {
  uint64_t calls = 0;
  {
    Cluster cluster(1, SmallCluster(1), false);
    ASSERT_NO_FATAL_FAILURE(Live(&cluster, nullptr, "without a death"));
    calls = cluster.node(0).calls();
  }
  for (uint64_t nth = 1; nth <= calls; ++nth) {
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      Cluster cluster(seed, SmallCluster(1), false);
      const std::string what = "death at call " + std::to_string(nth) + ", seed " + std::to_string(seed);
      ASSERT_NO_FATAL_FAILURE(Live(
          &cluster, [&](SimNode& node) { node.DieAtCall(nth); }, what));
    }
  }
  std::printf("%llu calls\n", static_cast<unsigned long long>(calls));
}

TEST(AbiFailure, DeathAtEveryCallOfOneOfThree) {
  uint64_t calls = 0;
  {
    Cluster cluster(1, SmallCluster(3), false);
    ASSERT_NO_FATAL_FAILURE(Live(&cluster, nullptr, "without a death"));
    calls = cluster.node(0).calls();
  }
  for (uint64_t nth = 1; nth <= calls; nth += nth < 50 ? 1 : 3) {
    Cluster cluster(nth, SmallCluster(3), false);
    const std::string what = "death at call " + std::to_string(nth) + " of one of three";
    ASSERT_NO_FATAL_FAILURE(Live(
        &cluster, [&](SimNode& node) { node.DieAtCall(nth); }, what));
  }
}

}  // namespace
}  // namespace keyway::sim
