// SPDX-License-Identifier: Apache-2.0
//
// HashKV while apply waits for the engine in the middle of an entry: the hash must be that of the revision it
// names, with all that the entry has changed up to there.
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>

#include "keyway/kernel.h"
#include "tests/sim/world/script.h"

namespace keyway::sim {
namespace {

struct Hash {
  kw_compact_request request{};
  std::optional<kw_hash> answer;

  void Ask(Cluster* cluster, size_t node, int64_t revision) {
    request.req.size = sizeof request;
    request.req.kind = KW_REQ_HASH_KV;
    request.revision = revision;
    request.req.ctx = this;
    request.req.done = [](kw_request* self, int32_t, const kw_error*, kw_reply* reply) {
      if (reply == nullptr) return;
      static_cast<Hash*>(self->ctx)->answer = *reply->hash;
      reply->release(reply);
    };
    cluster->Submit(node, &request.req);
  }
};

// A write whose answer nobody waits for.
struct Write {
  RequestHolder holder;
  bool is_done = false;

  explicit Write(Request request) : holder(std::move(request)) {
    holder.get()->ctx = this;
    holder.get()->done = [](kw_request* self, int32_t, const kw_error*, kw_reply* reply) {
      static_cast<Write*>(self->ctx)->is_done = true;
      if (reply != nullptr) reply->release(reply);
    };
  }
};

TEST(Hash, HoldsAllOfAnEntryThatWaitsForTheEngine) {
  Swarm swarm;
  swarm.spares = 0;
  swarm.cache_bytes = 0;
  swarm.recent_bytes = 0;
  Cluster cluster(1, swarm, false);
  Script script(&cluster);
  cluster.StartAll();
  ASSERT_TRUE(script.Put(0, "k", std::string(100, 'v')));
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(script.Put(0, "other" + std::to_string(i), std::string(100, 'v')));
  const auto pass = [&](uint64_t ns) { cluster.RunUntil(cluster.scheduler().now_ns() + ns, nullptr); };
  pass(3 * kSecond);  // The engines have it.
  size_t leader = 0;
  while (cluster.node(leader).core()->raft()->role() != raft::Role::kLeader) ++leader;

  // Two proposals of one entry. The second one needs a record that is not in memory.
  Request put, remove;
  put.kind = Kind::kPut;
  put.txn.then_ops.push_back({KW_OP_PUT, 0, "a", "", "1"});
  remove.kind = Kind::kDelete;
  remove.txn.then_ops.push_back({KW_OP_DELETE, KW_DELETE_PREV_KV, "k"});
  Write first(std::move(put)), second(std::move(remove));
  const int64_t before = cluster.node(leader).core()->mvcc().revision();
  cluster.node(leader).reads_hang_until_ns = cluster.scheduler().now_ns() + 2 * kSecond;
  cluster.Submit(leader, first.holder.get());
  cluster.Submit(leader, second.holder.get());
  ASSERT_TRUE(cluster.RunUntil(cluster.scheduler().now_ns() + kSecond,
                               [&] { return cluster.node(leader).core()->mvcc().revision() == before + 1; }));
  ASSERT_FALSE(second.is_done);
  Hash hash;
  hash.Ask(&cluster, leader, 0);
  ASSERT_TRUE(cluster.RunUntil(cluster.scheduler().now_ns() + 10 * kSecond,
                               [&] { return second.is_done && hash.answer.has_value(); }));

  Hash other;
  other.Ask(&cluster, (leader + 1) % 3, hash.answer->hash_revision);
  ASSERT_TRUE(cluster.RunUntil(cluster.scheduler().now_ns() + 10 * kSecond,
                               [&] { return other.answer.has_value(); }));
  EXPECT_EQ(other.answer->hash_revision, hash.answer->hash_revision);
  EXPECT_EQ(other.answer->hash, hash.answer->hash);
}

}  // namespace
}  // namespace keyway::sim
