// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history/json_lines.h"

#include <string_view>

#include "tests/sim/history/describe.h"

namespace keyway::sim {
namespace {

class JsonWriter {
 public:
  explicit JsonWriter(std::string* out) : out_(out) {}

  void Open(char bracket) {
    Separate();
    out_->push_back(bracket);
    first_ = true;
  }
  void Close(char bracket) {
    out_->push_back(bracket);
    first_ = false;
  }
  void Name(std::string_view name) {
    Separate();
    Quoted(name);
    out_->push_back(':');
    first_ = true;
  }
  void Text(std::string_view text) {
    Separate();
    Quoted(text);
  }
  void Field(std::string_view name, int64_t value) {
    if (value == 0) return;
    Name(name);
    out_->append(std::to_string(value));
    first_ = false;
  }
  void Field(std::string_view name, std::string_view value) {
    if (value.empty()) return;
    Name(name);
    Text(value);
  }
  void Flag(std::string_view name, bool value) {
    if (!value) return;
    Name(name);
    out_->append("true");
    first_ = false;
  }
  // A list of objects; each(element) writes the fields of one.
  template <typename T, typename Each>
  void List(std::string_view name, const std::vector<T>& elements, Each each) {
    if (elements.empty()) return;
    Name(name);
    Open('[');
    for (const T& element : elements) {
      Open('{');
      each(element);
      Close('}');
    }
    Close(']');
  }
  void Texts(std::string_view name, const std::vector<std::string>& texts) {
    if (texts.empty()) return;
    Name(name);
    Open('[');
    for (const std::string& text : texts) Text(text);
    Close(']');
  }

 private:
  void Separate() {
    if (!first_) out_->push_back(',');
    first_ = false;
  }
  void Quoted(std::string_view bytes) {
    out_->push_back('"');
    for (char c : bytes) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte >= 0x20 && byte < 0x7f && c != '"' && c != '\\') {
        out_->push_back(c);
        continue;
      }
      constexpr char kHex[] = "0123456789abcdef";
      out_->append("\\u00");
      out_->push_back(kHex[byte >> 4]);
      out_->push_back(kHex[byte & 15]);
    }
    out_->push_back('"');
  }

  std::string* const out_;
  bool first_ = true;
};

class Lines {
 public:
  void Head(const History& history, const std::map<std::string, std::string>& notes) {
    Line("history", [&](JsonWriter& json) {
      json.Flag("settled", history.settled);
      json.Field("end_ns", history.end_ns);
      for (const auto& [name, value] : notes) json.Field(name, std::string_view(value));
    });
  }

  void Add(const Operation& operation) {
    Line("operation", [&](JsonWriter& json) {
      json.Field("client", static_cast<int64_t>(operation.client));
      json.Field("id", static_cast<int64_t>(operation.id));
      json.Field("node", static_cast<int64_t>(operation.node));
      json.Field("call_ns", operation.call_ns);
      json.Field("return_ns", operation.return_ns);
      json.Field("kind", std::string_view(NameOf(operation.request.kind)));
      json.Field("outcome", std::string_view(operation.outcome == Outcome::kOk      ? "ok"
                                             : operation.outcome == Outcome::kError ? "error"
                                                                                    : "unknown"));
      json.Field("code", operation.code);
      json.Field("detail", operation.detail);
      json.Name("request");
      json.Open('{');
      Fields(json, operation.request);
      json.Close('}');
      if (operation.outcome != Outcome::kOk) return;
      json.Name("response");
      json.Open('{');
      Fields(json, operation.response);
      json.Close('}');
    });
  }

  void Add(const Watch& watch) {
    Line("watch", [&](JsonWriter& json) {
      json.Field("client", static_cast<int64_t>(watch.client));
      json.Field("id", static_cast<int64_t>(watch.id));
      json.Field("stream", static_cast<int64_t>(watch.stream));
      json.Field("node", static_cast<int64_t>(watch.node));
      json.Field("key", std::string_view(watch.key));
      json.Field("end", std::string_view(watch.end));
      json.Field("start_revision", watch.start_revision);
      json.Field("flags", watch.flags);
      json.Field("open_ns", watch.open_ns);
      if (watch.end_ns != kNever) json.Field("end_ns", watch.end_ns);
      json.List("batches", watch.batches, [&](const WatchBatch& batch) { Fields(json, batch); });
    });
  }

  void Add(int64_t revision, const Revision& made, int64_t not_after_ns) {
    Line("expiry", [&](JsonWriter& json) {
      json.Field("lease", made.lease);
      json.Field("revision", revision);
      if (not_after_ns != kNever) json.Field("not_after_ns", not_after_ns);
    });
  }

  std::string Take() { return std::move(out_); }

 private:
  template <typename Fill>
  void Line(std::string_view type, Fill fill) {
    JsonWriter json(&out_);
    json.Open('{');
    json.Field("type", type);
    fill(json);
    json.Close('}');
    out_.push_back('\n');
  }

  static void Fields(JsonWriter& json, const KeyValue& pair) {
    json.Field("key", std::string_view(pair.key));
    json.Field("value", std::string_view(pair.value));
    json.Field("create_revision", pair.create_revision);
    json.Field("mod_revision", pair.mod_revision);
    json.Field("version", pair.version);
    json.Field("lease", pair.lease);
  }

  static void Fields(JsonWriter& json, const Txn& txn) {
    json.List("compares", txn.compares, [&](const Compare& compare) {
      json.Field("key", std::string_view(compare.key));
      json.Field("end", std::string_view(compare.end));
      json.Field("value", std::string_view(compare.value));
      json.Field("number", compare.number);
      json.Field("target", compare.target);
      json.Field("relation", compare.relation);
    });
    json.List("then", txn.then_ops, [&](const Op& op) { Fields(json, op); });
    json.List("else", txn.else_ops, [&](const Op& op) { Fields(json, op); });
  }

  static void Fields(JsonWriter& json, const Op& op) {
    json.Field("kind", op.kind);
    json.Field("flags", op.flags);
    json.Field("key", std::string_view(op.key));
    json.Field("end", std::string_view(op.end));
    json.Field("value", std::string_view(op.value));
    json.Field("lease", op.lease);
    if (op.range != nullptr) {
      json.Field("revision", op.range->revision);
      json.Field("limit", op.range->limit);
      json.Field("mod_min", op.range->mod_min);
      json.Field("mod_max", op.range->mod_max);
      json.Field("create_min", op.range->create_min);
      json.Field("create_max", op.range->create_max);
      json.Field("sort_target", op.range->sort_target);
      json.Field("sort_order", op.range->sort_order);
      json.Field("range_flags", op.range->flags);
    }
    if (op.txn != nullptr) {
      json.Name("txn");
      json.Open('{');
      Fields(json, *op.txn);
      json.Close('}');
    }
  }

  static void Fields(JsonWriter& json, const Request& request) {
    json.Flag("serializable", request.serializable);
    json.Flag("physical", request.physical);
    json.Field("revision", request.revision);
    json.Field("lease", request.lease);
    json.Field("ttl_s", request.ttl_s);
    Fields(json, request.txn);
  }

  static void Fields(JsonWriter& json, const OpResult& result) {
    json.Field("kind", result.kind);
    json.Flag("more", result.more);
    json.Flag("succeeded", result.succeeded);
    json.Field("count", result.count);
    json.List("pairs", result.pairs, [&](const KeyValue& pair) { Fields(json, pair); });
    json.List("nested", result.nested, [&](const OpResult& nested) { Fields(json, nested); });
  }

  static void Fields(JsonWriter& json, const Response& response) {
    json.Field("revision", response.revision);
    json.Field("member_id", static_cast<int64_t>(response.member_id));
    json.Field("raft_term", static_cast<int64_t>(response.raft_term));
    json.Flag("succeeded", response.succeeded);
    json.List("results", response.results, [&](const OpResult& result) { Fields(json, result); });
    json.Field("lease_ttl_s", response.lease_ttl_s);
    json.Field("lease_granted_s", response.lease_granted_s);
    json.Texts("lease_keys", response.lease_keys);
  }

  static void Fields(JsonWriter& json, const WatchBatch& batch) {
    json.Field("time_ns", batch.time_ns);
    json.Field("kind", batch.kind);
    json.Field("code", batch.code);
    json.Field("detail", batch.detail);
    json.Field("revision", batch.revision);
    json.Field("compact_revision", batch.compact_revision);
    json.List("events", batch.events, [&](const WatchEvent& event) {
      json.Flag("is_delete", event.is_delete);
      Fields(json, event.pair);
      if (!event.prev.has_value()) return;
      json.Name("prev");
      json.Open('{');
      Fields(json, *event.prev);
      json.Close('}');
    });
  }

  std::string out_;
};

}  // namespace

std::string ToJsonLines(const History& history, const Order* maybe_order,
                        const std::map<std::string, std::string>& notes) {
  Lines lines;
  lines.Head(history, notes);
  for (const Operation& operation : history.operations) lines.Add(operation);
  for (const Watch& watch : history.watches) lines.Add(watch);
  if (maybe_order == nullptr) return lines.Take();
  for (int64_t revision = Order::kFirstRevision; revision <= maybe_order->last(); ++revision) {
    const Revision& made = maybe_order->at(revision);
    if (made.writer != Writer::kLeaseExpiry) continue;
    const size_t at = static_cast<size_t>(revision - Order::kFirstRevision);
    lines.Add(revision, made, maybe_order->not_after_ns[at]);
  }
  return lines.Take();
}

}  // namespace keyway::sim
