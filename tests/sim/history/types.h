// SPDX-License-Identifier: Apache-2.0
//
// The data of a history: what clients asked, when, and what they were told. Values only; times are
// nanoseconds of the simulation's own clock, the same for all clients. Every checker reads these types,
// and json_lines.h writes them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace keyway::sim {

inline constexpr int64_t kNever = INT64_MAX;

// One version of a key. A deleted key has `key` and `mod_revision` only.
struct KeyValue {
  std::string key, value;
  int64_t create_revision = 0, mod_revision = 0, version = 0, lease = 0;
  friend bool operator==(const KeyValue&, const KeyValue&) = default;
};

// ---- requests: as in keyway/kernel.h, with strings instead of slices -------------------------------

// What a range may ask beyond key and end; none of it for most.
struct RangeOptions {
  int64_t revision = 0, limit = 0;
  int64_t mod_min = 0, mod_max = 0, create_min = 0, create_max = 0;
  uint8_t sort_target = 0, sort_order = 0;  // KW_SORT_, KW_ORDER_
  uint8_t flags = 0;                        // KW_RANGE_
};

struct Txn;
struct Op {
  uint32_t kind = 0;   // KW_OP_
  uint32_t flags = 0;  // KW_PUT_, KW_DELETE_
  std::string key, end, value;
  int64_t lease = 0;
  std::shared_ptr<const RangeOptions> range;  // KW_OP_RANGE; null: all at default.
  std::shared_ptr<const Txn> txn;             // KW_OP_TXN
};
struct Compare {
  std::string key, end, value;
  int64_t number = 0;
  uint32_t target = 0, relation = 0;  // KW_CMP_
};
struct Txn {
  std::vector<Compare> compares;
  std::vector<Op> then_ops, else_ops;
};

enum class Kind : uint8_t {
  kPut,     // txn.then_ops[0]
  kDelete,  // txn.then_ops[0]
  kRange,   // txn.then_ops[0]
  kTxn,     // txn
  kCompact,
  kLeaseGrant,
  kLeaseRevoke,
  kLeaseKeepAlive,
  kLeaseTimeToLive,
};

struct Request {
  Kind kind = Kind::kRange;
  bool serializable = false;  // kRange, kTxn of ranges
  bool physical = false;      // kCompact
  Txn txn;
  int64_t revision = 0;  // kCompact
  int64_t lease = 0;     // Leases; the workload chooses the id itself, each only once.
  int64_t ttl_s = 0;     // kLeaseGrant
};

// ---- replies -------------------------------------------------------------------------------------

struct OpResult {
  uint32_t kind = 0;  // KW_OP_
  bool more = false, succeeded = false;
  int64_t count = 0;
  std::vector<KeyValue> pairs;   // RANGE: the pairs; PUT, DELETE: the previous ones
  std::vector<OpResult> nested;  // TXN
  friend bool operator==(const OpResult&, const OpResult&) = default;
};

struct Response {
  int64_t revision = 0;  // Of the header.
  uint64_t member_id = 0, raft_term = 0;
  bool succeeded = false;  // kTxn
  std::vector<OpResult> results;
  int64_t lease_ttl_s = 0, lease_granted_s = 0;
  std::vector<std::string> lease_keys;
};

enum class Outcome : uint8_t {
  kOk,       // `response` is valid.
  kError,    // For certain without effect: refused, for `detail`.
  kUnknown,  // It may have had its effect at any time from `call_ns` on, or never.
};

struct Operation {
  uint64_t client = 0;
  uint64_t id = 0;  // Unique over the history, ascending with call_ns.
  uint64_t node = 0;
  int64_t call_ns = 0;
  int64_t return_ns = -1;  // -1: there was no answer.
  Outcome outcome = Outcome::kUnknown;
  int32_t code = 0;     // KW_; of kError and of an answered kUnknown
  uint32_t detail = 0;  // KW_DETAIL_
  Request request;
  Response response;
};

// ---- watches --------------------------------------------------------------------------------------

struct WatchEvent {
  bool is_delete = false;
  KeyValue pair;
  std::optional<KeyValue> prev;
  friend bool operator==(const WatchEvent&, const WatchEvent&) = default;
};

// One batch of a delivery.
struct WatchBatch {
  int64_t time_ns = 0;
  uint32_t kind = 0;  // KW_WATCH_; a group's progress is recorded with each watch of the group.
  int32_t code = 0;
  uint32_t detail = 0;
  int64_t revision = 0, compact_revision = 0;
  std::vector<WatchEvent> events;
};

// A watch from its opening to its end on one node.
struct Watch {
  uint64_t client = 0;
  uint64_t id = 0;      // Unique over the history.
  uint64_t stream = 0;  // Watches that resume each other have the same.
  uint64_t node = 0;
  std::string key, end;
  int64_t start_revision = 0;
  uint32_t flags = 0;  // KW_WATCH_
  int64_t open_ns = 0;
  int64_t end_ns = kNever;  // When it was closed, canceled, or lost with its node.
  std::vector<WatchBatch> batches;
};

struct History {
  std::vector<Operation> operations;  // In the order of call_ns.
  std::vector<Watch> watches;
  int64_t end_ns = 0;  // When the last thing was recorded.
  // Whether all faults had ended and everything was given time to arrive: then open watches must be
  // complete up to the last revision.
  bool settled = false;
};

// ---- what a checker says ----------------------------------------------------------------------------

// One fault, in a sentence that names operations, revisions and times.
struct Finding {
  std::string checker;  // "strict", "watch", "lease", "search"
  std::string text;
};
using Findings = std::vector<Finding>;
inline constexpr size_t kFindingsMax = 20;  // A checker stops there.

}  // namespace keyway::sim
