// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history/convert.h"

#include <utility>

#include "kernel/base/bytes.h"
#include "kernel/base/check.h"
#include "kernel/mvcc/record.h"

namespace keyway::sim {
namespace {

OpResult ToResult(const kw_op_result& from) {
  OpResult result;
  result.kind = from.kind;
  result.more = (from.flags & KW_RESULT_MORE) != 0;
  result.succeeded = (from.flags & KW_RESULT_SUCCEEDED) != 0;
  result.count = from.count;
  for (size_t i = 0; i < from.record_count; ++i) result.pairs.push_back(ToKeyValue(from.records[i]));
  for (size_t i = 0; i < from.nested_count; ++i) result.nested.push_back(ToResult(from.nested[i]));
  return result;
}

}  // namespace

kw_range ToRange(const Op& op) {
  kw_range range{};
  range.key = ToSlice(op.key);
  range.end = ToSlice(op.end);
  if (op.range == nullptr) return range;
  range.revision = op.range->revision;
  range.limit = op.range->limit;
  range.mod_min = op.range->mod_min;
  range.mod_max = op.range->mod_max;
  range.create_min = op.range->create_min;
  range.create_max = op.range->create_max;
  range.sort_target = op.range->sort_target;
  range.sort_order = op.range->sort_order;
  range.flags = op.range->flags;
  return range;
}

RequestHolder::RequestHolder(Request request) : request_(std::move(request)) {
  kw_request* head = get();
  switch (request_.kind) {
    case Kind::kRange:
      KW_CHECK(request_.txn.then_ops.size() == 1);
      structs_.range.range = ToRange(request_.txn.then_ops[0]);
      head->kind = KW_REQ_RANGE;
      head->size = sizeof structs_.range;
      break;
    case Kind::kPut:
    case Kind::kDelete:
    case Kind::kTxn:
      structs_.txn.txn = Build(request_.txn);
      structs_.txn.txn_flags = request_.kind == Kind::kTxn ? 0 : KW_TXN_PLAIN;
      head->kind = KW_REQ_TXN;
      head->size = sizeof structs_.txn;
      break;
    case Kind::kCompact:
      structs_.compact.revision = request_.revision;
      head->kind = KW_REQ_COMPACT;
      head->size = sizeof structs_.compact;
      if (request_.physical) head->flags |= KW_REQ_PHYSICAL;
      break;
    case Kind::kLeaseGrant:
    case Kind::kLeaseRevoke:
    case Kind::kLeaseKeepAlive:
    case Kind::kLeaseTimeToLive: {
      structs_.lease.id = request_.lease;
      structs_.lease.ttl_s = request_.ttl_s;
      head->size = sizeof structs_.lease;
      head->kind = request_.kind == Kind::kLeaseGrant       ? KW_REQ_LEASE_GRANT
                   : request_.kind == Kind::kLeaseRevoke    ? KW_REQ_LEASE_REVOKE
                   : request_.kind == Kind::kLeaseKeepAlive ? KW_REQ_LEASE_KEEP_ALIVE
                                                            : KW_REQ_LEASE_TIME_TO_LIVE;
      if (request_.kind == Kind::kLeaseTimeToLive) structs_.lease.lease_flags = KW_LEASE_WITH_KEYS;
      break;
    }
  }
  if (request_.serializable) head->flags |= KW_REQ_SERIALIZABLE;
}

kw_txn RequestHolder::Build(const Txn& from) {
  kw_txn txn{};
  std::vector<kw_cmp>& cmps = cmps_.emplace_back();
  for (const Compare& compare : from.compares) {
    kw_cmp cmp{};
    cmp.key = ToSlice(compare.key);
    cmp.end = ToSlice(compare.end);
    cmp.value = ToSlice(compare.value);
    cmp.number = compare.number;
    cmp.target = compare.target;
    cmp.relation = compare.relation;
    cmps.push_back(cmp);
  }
  txn.cmps = cmps.data();
  txn.cmp_count = cmps.size();
  BuildOps(from.then_ops, &txn.then_ops, &txn.then_count);
  BuildOps(from.else_ops, &txn.else_ops, &txn.else_count);
  return txn;
}

void RequestHolder::BuildOps(const std::vector<Op>& from, const kw_op** out, size_t* count) {
  std::vector<kw_op>& ops = ops_.emplace_back();
  ops.reserve(from.size());
  for (const Op& one : from) {
    kw_op op{};
    op.kind = one.kind;
    op.flags = one.flags;
    op.key = ToSlice(one.key);
    op.end = ToSlice(one.end);
    op.value = ToSlice(one.value);
    op.lease = one.lease;
    if (one.kind == KW_OP_RANGE) op.range = &ranges_.emplace_back(ToRange(one));
    if (one.kind == KW_OP_TXN) op.txn = &txns_.emplace_back(Build(*one.txn));
    ops.push_back(op);
  }
  *out = ops.data();
  *count = ops.size();
}

KeyValue ToKeyValue(kw_slice record) {
  mvcc::RecordFields fields;
  if (!mvcc::DecodeRecord(ToView(record), &fields)) return {.key = "(malformed record)", .mod_revision = -1};
  return {std::string(fields.key), std::string(fields.value),
          fields.create_revision,  fields.mod_revision,
          fields.version,          fields.lease};
}

Response ToResponse(const kw_reply& reply) {
  Response response;
  response.revision = reply.revision;
  response.member_id = reply.member_id;
  response.raft_term = reply.raft_term;
  response.succeeded = reply.succeeded != 0;
  response.results.reserve(reply.result_count);
  for (size_t i = 0; i < reply.result_count; ++i) response.results.push_back(ToResult(reply.results[i]));
  if (reply.lease != nullptr) {
    response.lease_ttl_s = reply.lease->ttl_s;
    response.lease_granted_s = reply.lease->granted_ttl_s;
    for (size_t i = 0; i < reply.lease->key_count; ++i) {
      response.lease_keys.emplace_back(ToView(reply.lease->keys[i]));
    }
  }
  return response;
}

WatchBatch ToWatchBatch(const kw_watch_batch& from, int64_t time_ns) {
  WatchBatch batch;
  batch.time_ns = time_ns;
  batch.kind = from.kind;
  batch.code = from.code;
  batch.detail = from.detail;
  batch.revision = from.revision;
  batch.compact_revision = from.compact_revision;
  batch.events.reserve(from.event_count);
  for (size_t i = 0; i < from.event_count; ++i) {
    const kw_event& event = *from.events[i];
    WatchEvent copy;
    copy.is_delete = event.kind == KW_EVENT_DELETE;
    copy.pair = ToKeyValue(event.record);
    // The event names its revision twice; a difference must not get lost.
    if (copy.pair.mod_revision != event.mod_revision) copy.pair.mod_revision = -event.mod_revision;
    if (event.prev.len != 0) copy.prev = ToKeyValue(event.prev);
    batch.events.push_back(std::move(copy));
  }
  return batch;
}

Outcome OutcomeOf(int32_t code, uint32_t detail) {
  if (code == KW_OK) return Outcome::kOk;
  switch (detail) {
    case KW_DETAIL_EMPTY_KEY:
    case KW_DETAIL_KEY_NOT_FOUND:
    case KW_DETAIL_VALUE_PROVIDED:
    case KW_DETAIL_LEASE_PROVIDED:
    case KW_DETAIL_TOO_MANY_OPS:
    case KW_DETAIL_DUPLICATE_KEY:
    case KW_DETAIL_INVALID_SORT_OPTION:
    case KW_DETAIL_COMPACTED:
    case KW_DETAIL_FUTURE_REVISION:
    case KW_DETAIL_NO_SPACE:
    case KW_DETAIL_REQUEST_TOO_LARGE:
    case KW_DETAIL_TOO_MANY_REQUESTS:
    case KW_DETAIL_LEASE_NOT_FOUND:
    case KW_DETAIL_LEASE_EXISTS:
    case KW_DETAIL_LEASE_TTL_TOO_LARGE:
    case KW_DETAIL_NO_LEADER:
    case KW_DETAIL_NOT_SUPPORTED_FOR_LEARNER:
      return Outcome::kError;
    default:
      return Outcome::kUnknown;
  }
}

}  // namespace keyway::sim
