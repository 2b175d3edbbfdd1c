// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history/generator.h"

#include <algorithm>
#include <utility>

#include "kernel/base/check.h"

namespace keyway::sim {
namespace {

constexpr size_t kLeasesKept = 12;

std::string AllKeys() { return std::string(1, '\0'); }

}  // namespace

WorkloadOptions WorkloadOptions::Draw(uint64_t seed) {
  HistoryRandom random(seed ^ 0x5eed5eed5eed5eedu);
  WorkloadOptions options;
  options.seed = seed;
  options.clients = static_cast<uint32_t>(random.Between(2, 12));
  options.keys = static_cast<uint32_t>(random.Percent(30) ? random.Between(2, 6) : random.Between(8, 60));
  options.value_bytes_max =
      static_cast<uint32_t>(random.Percent(20) ? random.Between(500, 4000) : random.Between(0, 100));
  options.think_ns_max =
      random.Percent(10) ? random.Between(1'000'000, 20'000'000) : random.Between(20'000'000, 250'000'000);
  if (random.Percent(25)) options.beat_ns = random.Between(5'000'000, 100'000'000);
  auto weight = [&](uint32_t usual) {
    if (random.Percent(15)) return 0u;
    return std::max(1u, static_cast<uint32_t>(random.Between(usual / 3, usual * 2)));
  };
  options.put = std::max(5u, weight(30));
  options.remove = weight(10);
  options.range = std::max(3u, weight(25));
  options.txn = weight(15);
  options.compact = weight(2);
  options.lease_grant = weight(3);
  options.lease_revoke = weight(1);
  options.lease_keep_alive = weight(6);
  options.lease_time_to_live = weight(2);
  options.lease_put_percent = static_cast<uint32_t>(random.Between(0, 50));
  options.reader_percent = static_cast<uint32_t>(random.Percent(50) ? 0 : random.Between(10, 60));
  options.serializable_percent = static_cast<uint32_t>(random.Between(0, 40));
  options.deadline_percent = static_cast<uint32_t>(random.Between(0, 10));
  options.retry_elsewhere_percent = static_cast<uint32_t>(random.Between(10, 100));
  options.lease_ttl_s_max = random.Percent(40) ? random.Between(1, 4) : random.Between(2, 60);
  options.watches = static_cast<uint32_t>(random.Between(0, 12));
  options.slow_watch_percent = static_cast<uint32_t>(random.Between(0, 60));
  options.watch_life_ns_max = random.Between(200'000'000, 10'000'000'000);
  options.progress_ns_max = random.Between(20'000'000, 1'000'000'000);
  return options;
}

Request Generator::ReadAll() {
  Request request;
  request.kind = Kind::kRange;
  Op op;
  op.kind = KW_OP_RANGE;
  op.key = AllKeys();
  op.end = AllKeys();
  request.txn.then_ops.push_back(std::move(op));
  return request;
}

Kind Generator::DrawKind() {
  const std::pair<Kind, uint32_t> weights[] = {
      {Kind::kPut, options_.put},
      {Kind::kDelete, options_.remove},
      {Kind::kRange, options_.range},
      {Kind::kTxn, options_.txn},
      {Kind::kCompact, options_.compact},
      {Kind::kLeaseGrant, options_.lease_grant},
      {Kind::kLeaseRevoke, options_.lease_revoke},
      {Kind::kLeaseKeepAlive, options_.lease_keep_alive},
      {Kind::kLeaseTimeToLive, options_.lease_time_to_live},
  };
  uint64_t total = 0;
  for (const auto& [kind, weight] : weights) total += weight;
  KW_CHECK(total > 0);
  uint64_t at = random_.Below(total);
  for (const auto& [kind, weight] : weights) {
    if (at < weight) return kind;
    at -= weight;
  }
  KW_UNREACHABLE();
}

Request Generator::Next(uint64_t client, uint64_t operation_id) {
  values_ = 0;
  Request request;
  const bool is_reader = (client - 1) * 100 < uint64_t{options_.reader_percent} * options_.clients;
  request.kind = is_reader ? Kind::kRange : DrawKind();
  switch (request.kind) {
    case Kind::kPut:
      request.txn.then_ops.push_back(Put(client, operation_id));
      break;
    case Kind::kDelete:
      request.txn.then_ops.push_back(Delete());
      break;
    case Kind::kRange:
      request.txn.then_ops.push_back(Range());
      request.serializable = random_.Percent(options_.serializable_percent);
      break;
    case Kind::kTxn:
      request.txn = DrawTxn(client, operation_id, 2);
      break;
    case Kind::kCompact:
      request.revision = std::max<int64_t>(1, covered_revision_ - random_.Between(0, 40));
      if (random_.Percent(5)) request.revision = last_revision_ + random_.Between(20, 2000);
      request.physical = random_.Percent(20);
      break;
    case Kind::kLeaseGrant:
      request.lease = next_lease_++;
      request.ttl_s = random_.Between(1, options_.lease_ttl_s_max);
      break;
    case Kind::kLeaseRevoke:
    case Kind::kLeaseKeepAlive:
    case Kind::kLeaseTimeToLive:
      request.lease = Lease();
      break;
  }
  return request;
}

std::string Generator::Key() {
  const uint64_t index = random_.Below(options_.keys);
  std::string key = "k00";
  key[1] = static_cast<char>('0' + index / 10 % 10);
  key[2] = static_cast<char>('0' + index % 10);
  return key;
}

std::string Generator::End() {
  switch (random_.Below(8)) {
    case 0:
      return AllKeys();
    case 1:
    case 2:
      return Key();  // Maybe below the key: an empty range.
    default:
      return "";
  }
}

std::string Generator::Value(uint64_t client, uint64_t operation_id) {
  std::string value = std::to_string(client) + "." + std::to_string(operation_id);
  value += "." + std::to_string(values_++);
  if (random_.Percent(30)) value.append(random_.Below(options_.value_bytes_max + 1), 'x');
  return value;
}

// 0 for the latest, else mostly a recent one; sometimes compacted, future or negative.
int64_t Generator::OldRevision() {
  if (random_.Percent(70)) return 0;
  if (random_.Percent(5)) return last_revision_ + random_.Between(1, 50);
  if (random_.Percent(3)) return -random_.Between(1, 3);
  return std::max<int64_t>(1, last_revision_ - static_cast<int64_t>(random_.Below(80)));
}

int64_t Generator::Bound() {
  return random_.Percent(8) ? std::max<int64_t>(1, last_revision_ - random_.Between(0, 100)) : 0;
}

int64_t Generator::Lease() {
  if (leases_.empty() || random_.Percent(5)) return random_.Between(1, next_lease_);
  // One that may be about to end, since few renew it any more.
  if (random_.Percent(15)) return next_lease_ - random_.Between(1, 40);
  return leases_[random_.Below(leases_.size())];
}

Op Generator::Put(uint64_t client, uint64_t operation_id) {
  Op op;
  op.kind = KW_OP_PUT;
  op.key = Key();
  if (random_.Percent(20)) op.flags |= KW_PUT_PREV_KV;
  if (random_.Percent(4)) {
    op.flags |= KW_PUT_IGNORE_VALUE;
  } else {
    op.value = Value(client, operation_id);
  }
  if (random_.Percent(4)) {
    op.flags |= KW_PUT_IGNORE_LEASE;
  } else if (random_.Percent(options_.lease_put_percent)) {
    op.lease = leases_.empty() ? 0 : Lease();
    // Half of them on keys that few others write, so that a lease still has keys when it ends.
    if (op.lease != 0 && random_.Percent(50)) {
      op.key = "l0";
      op.key[1] = static_cast<char>('0' + op.lease % 20);
    }
  }
  return op;
}

Op Generator::Delete() {
  Op op;
  op.kind = KW_OP_DELETE;
  op.key = Key();
  op.end = End();
  if (random_.Percent(30)) op.flags |= KW_DELETE_PREV_KV;
  return op;
}

Op Generator::Range() {
  Op op;
  op.kind = KW_OP_RANGE;
  op.key = Key();
  op.end = random_.Percent(60) ? "" : End();
  if (random_.Percent(50)) return op;
  RangeOptions range;
  range.revision = OldRevision();
  if (random_.Percent(30)) range.limit = random_.Between(1, 6);
  range.mod_min = Bound();
  range.mod_max = Bound();
  range.create_min = Bound();
  range.create_max = Bound();
  if (random_.Percent(30)) {
    range.sort_target = static_cast<uint8_t>(random_.Below(5));
    range.sort_order = static_cast<uint8_t>(random_.Below(3));
  }
  if (random_.Percent(10)) range.flags |= KW_RANGE_KEYS_ONLY;
  if (random_.Percent(8)) range.flags |= KW_RANGE_COUNT_ONLY;
  op.range = std::make_shared<const RangeOptions>(range);
  return op;
}

Compare Generator::DrawCompare() {
  Compare compare;
  compare.key = Key();
  if (random_.Percent(15)) compare.end = End();
  compare.relation = static_cast<uint32_t>(random_.Below(4));
  compare.target = static_cast<uint32_t>(random_.Below(5));
  if (compare.target == KW_CMP_VALUE) {
    compare.value = std::to_string(random_.Below(options_.clients)) + ".";
  } else if (compare.target == KW_CMP_VERSION) {
    compare.number = static_cast<int64_t>(random_.Below(3));
  } else if (compare.target == KW_CMP_LEASE) {
    compare.number = random_.Percent(50) || leases_.empty() ? 0 : leases_.back();
  } else {
    compare.number = random_.Percent(30) ? 0 : last_revision_ - static_cast<int64_t>(random_.Below(30));
  }
  return compare;
}

Txn Generator::DrawTxn(uint64_t client, uint64_t operation_id, int depth) {
  Txn txn;
  for (uint64_t count = random_.Below(3); count > 0; --count) txn.compares.push_back(DrawCompare());
  DrawBranch(client, operation_id, depth, &txn.then_ops);
  if (!random_.Percent(40)) DrawBranch(client, operation_id, depth, &txn.else_ops);
  return txn;
}

// A key that is put twice makes the txn an error, which is wanted only sometimes.
void Generator::DrawBranch(uint64_t client, uint64_t operation_id, int depth, std::vector<Op>* ops) {
  for (uint64_t count = random_.Below(4); count > 0; --count) {
    const uint64_t draw = random_.Below(10);
    if (draw < 4) {
      ops->push_back(Put(client, operation_id));
    } else if (draw < 6) {
      ops->push_back(Delete());
    } else if (draw < 9 || depth == 0) {
      ops->push_back(Range());
    } else {
      Op op;
      op.kind = KW_OP_TXN;
      op.txn = std::make_shared<const Txn>(DrawTxn(client, operation_id, depth - 1));
      ops->push_back(std::move(op));
    }
  }
}

void Generator::DrawWatch(Watch* watch) {
  watch->key = Key();
  switch (random_.Below(4)) {
    case 0:
      break;
    case 1:
      watch->end = AllKeys();
      break;
    case 2:
      watch->end = "k" + std::string(1, static_cast<char>('0' + random_.Below(10)));
      if (random_.Percent(70) && watch->end <= watch->key) watch->end = "l";
      break;
    default:
      watch->key = AllKeys();
      watch->end = AllKeys();
  }
  watch->flags = 0;
  if (random_.Percent(50)) watch->flags |= KW_WATCH_PREV_KV;
  if (random_.Percent(15)) watch->flags |= KW_WATCH_NO_PUT;
  if (random_.Percent(15)) watch->flags |= KW_WATCH_NO_DELETE;
  switch (random_.Below(8)) {
    case 0:
    case 1:
      watch->start_revision = 0;
      break;
    case 2:
      watch->start_revision = last_revision_ + random_.Between(1, 60);
      break;
    case 3:
      watch->start_revision = random_.Percent(20) ? -1 : 1;
      break;
    case 4:  // The first one that may still be watched.
      watch->start_revision = std::max<int64_t>(1, compacted_revision_);
      break;
    default:
      watch->start_revision = std::max<int64_t>(1, last_revision_ - random_.Between(0, 100));
  }
}

void Generator::OnOperation(const Operation& operation) {
  const int64_t lease = operation.request.lease;
  if (operation.outcome == Outcome::kOk) OnRevision(operation.response.revision);
  switch (operation.request.kind) {
    case Kind::kCompact:
      if (operation.outcome != Outcome::kOk) return;
      compacted_revision_ = std::max(compacted_revision_, operation.request.revision);
      return;
    case Kind::kLeaseGrant:
      if (operation.outcome != Outcome::kOk) return;
      leases_.push_back(lease);
      if (leases_.size() > kLeasesKept) leases_.pop_front();
      return;
    case Kind::kLeaseRevoke:
      // Mostly forgotten; what is kept shows that it is gone.
      if (random_.Percent(20)) return;
      std::erase(leases_, lease);
      return;
    default:
      return;
  }
}

}  // namespace keyway::sim
