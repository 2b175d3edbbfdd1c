// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history/describe.h"

#include "keyway/kernel.h"

namespace keyway::sim {
namespace {

constexpr size_t kShownMax = 8;

template <typename T>
std::string List(const std::vector<T>& values) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) text += ", ";
    if (i == kShownMax) {
      text += "... " + std::to_string(values.size() - i) + " more";
      break;
    }
    text += Describe(values[i]);
  }
  return text + "]";
}

std::string RangeText(const std::string& key, const std::string& end) {
  return end.empty() ? Quote(key) : "[" + Quote(key) + ", " + Quote(end) + ")";
}

std::string DescribeOp(const Op& op) {
  switch (op.kind) {
    case KW_OP_PUT:
      return "put " + Quote(op.key) + " = " + Quote(op.value) +
             (op.lease == 0 ? "" : " with lease " + std::to_string(op.lease));
    case KW_OP_DELETE:
      return "delete " + RangeText(op.key, op.end);
    case KW_OP_RANGE:
      return "range " + RangeText(op.key, op.end) +
             (op.range == nullptr || op.range->revision == 0
                  ? ""
                  : " at revision " + std::to_string(op.range->revision));
    default:
      return "nested txn";
  }
}

}  // namespace

const char* NameOf(Kind kind) {
  switch (kind) {
    case Kind::kPut:
      return "put";
    case Kind::kDelete:
      return "delete";
    case Kind::kRange:
      return "range";
    case Kind::kTxn:
      return "txn";
    case Kind::kCompact:
      return "compact";
    case Kind::kLeaseGrant:
      return "lease_grant";
    case Kind::kLeaseRevoke:
      return "lease_revoke";
    case Kind::kLeaseKeepAlive:
      return "lease_keep_alive";
    case Kind::kLeaseTimeToLive:
      return "lease_time_to_live";
  }
  return "?";
}

std::string Quote(std::string_view bytes) {
  std::string text = "'";
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 48) {
      text += "...";
      break;
    }
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if (byte >= 0x20 && byte < 0x7f) {
      text += bytes[i];
    } else {
      constexpr char kHex[] = "0123456789abcdef";
      text += "\\x";
      text += kHex[byte >> 4];
      text += kHex[byte & 15];
    }
  }
  return text + "'";
}

std::string Describe(const KeyValue& pair) {
  return "{" + Quote(pair.key) + " = " + Quote(pair.value) + " create " +
         std::to_string(pair.create_revision) + " mod " + std::to_string(pair.mod_revision) + " version " +
         std::to_string(pair.version) + " lease " + std::to_string(pair.lease) + "}";
}

std::string Describe(const WatchEvent& event) {
  if (event.is_delete) {
    return "delete of " + Quote(event.pair.key) + " at " + std::to_string(event.pair.mod_revision);
  }
  return "put " + Describe(event.pair);
}

std::string Describe(const OpResult& result) {
  std::string text = result.kind == KW_OP_RANGE    ? "range"
                     : result.kind == KW_OP_PUT    ? "put"
                     : result.kind == KW_OP_DELETE ? "delete"
                                                   : "txn";
  if (result.kind == KW_OP_TXN) return text + (result.succeeded ? " then " : " else ") + List(result.nested);
  if (result.kind != KW_OP_PUT) text += " count " + std::to_string(result.count);
  if (result.more) text += " more";
  return text + " " + List(result.pairs);
}

std::string Describe(const std::vector<WatchEvent>& events) { return List(events); }
std::string Describe(const std::vector<OpResult>& results) { return List(results); }

std::string Describe(const Operation& operation) {
  std::string text = "operation " + std::to_string(operation.id) + " (" + NameOf(operation.request.kind);
  switch (operation.request.kind) {
    case Kind::kPut:
    case Kind::kDelete:
    case Kind::kRange:
      if (operation.request.serializable) text += ", serializable";
      if (!operation.request.txn.then_ops.empty())
        text += ": " + DescribeOp(operation.request.txn.then_ops[0]);
      break;
    case Kind::kTxn:
      break;
    case Kind::kCompact:
      text += " at " + std::to_string(operation.request.revision);
      break;
    case Kind::kLeaseGrant:
    case Kind::kLeaseRevoke:
    case Kind::kLeaseKeepAlive:
    case Kind::kLeaseTimeToLive:
      text += " " + std::to_string(operation.request.lease);
      break;
  }
  text += ") of client " + std::to_string(operation.client) + " on node " + std::to_string(operation.node) +
          ", called at " + std::to_string(operation.call_ns) + " ns";
  if (operation.return_ns >= 0) text += ", answered at " + std::to_string(operation.return_ns) + " ns";
  if (operation.outcome == Outcome::kOk)
    text += " at revision " + std::to_string(operation.response.revision);
  if (operation.outcome == Outcome::kError) text += " with error detail " + std::to_string(operation.detail);
  if (operation.outcome == Outcome::kUnknown) text += ", outcome unknown";
  return text;
}

std::string Describe(const Watch& watch) {
  return "watch " + std::to_string(watch.id) + " of " + RangeText(watch.key, watch.end) + " from revision " +
         std::to_string(watch.start_revision) + ", flags " + std::to_string(watch.flags) + ", on node " +
         std::to_string(watch.node);
}

}  // namespace keyway::sim
