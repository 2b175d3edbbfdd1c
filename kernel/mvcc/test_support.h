// SPDX-License-Identifier: Apache-2.0
//
// What the tests of mvcc share: requests built from strings, a lease table, and a plain map in the
// place of the engine.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/mvcc/mvcc.h"

namespace keyway::mvcc {

inline std::string AllKeys() { return std::string(1, '\0'); }

// Owns what a kw_txn points to. Branches are filled, then txn() is taken.
class TxnBuilder {
 public:
  struct Branch {
    std::vector<kw_op> ops;
  };

  TxnBuilder& If(std::string_view key, uint32_t target, uint32_t relation, int64_t number,
                 std::string_view end = {}) {
    kw_cmp cmp{};
    cmp.key = Keep(key);
    cmp.end = Keep(end);
    cmp.target = target;
    cmp.relation = relation;
    cmp.number = number;
    cmps_.push_back(cmp);
    return *this;
  }
  TxnBuilder& IfValue(std::string_view key, uint32_t relation, std::string_view value,
                      std::string_view end = {}) {
    If(key, KW_CMP_VALUE, relation, 0, end);
    cmps_.back().value = Keep(value);
    return *this;
  }
  TxnBuilder& Then() {
    into_ = &then_;
    return *this;
  }
  TxnBuilder& Else() {
    into_ = &else_;
    return *this;
  }
  TxnBuilder& Put(std::string_view key, std::string_view value, uint32_t flags = 0, int64_t lease = 0) {
    kw_op op{};
    op.kind = KW_OP_PUT;
    op.flags = flags;
    op.key = Keep(key);
    op.value = Keep(value);
    op.lease = lease;
    into_->ops.push_back(op);
    return *this;
  }
  TxnBuilder& Delete(std::string_view key, std::string_view end = {}, uint32_t flags = 0) {
    kw_op op{};
    op.kind = KW_OP_DELETE;
    op.flags = flags;
    op.key = Keep(key);
    op.end = Keep(end);
    into_->ops.push_back(op);
    return *this;
  }
  TxnBuilder& Range(std::string_view key, std::string_view end = {}, kw_range range = {}) {
    range.key = Keep(key);
    range.end = Keep(end);
    ranges_.push_back(range);
    kw_op op{};
    op.kind = KW_OP_RANGE;
    op.range = &ranges_.back();
    into_->ops.push_back(op);
    return *this;
  }
  // Takes `nested` over.
  TxnBuilder& Nested(TxnBuilder&& nested) {
    nested_.push_back(std::move(nested));
    nested_txns_.push_back(nested_.back().txn());
    kw_op op{};
    op.kind = KW_OP_TXN;
    op.txn = &nested_txns_.back();
    into_->ops.push_back(op);
    return *this;
  }
  TxnBuilder& Nested(TxnBuilder& nested) { return Nested(std::move(nested)); }
  TxnBuilder& Unset() {
    into_->ops.push_back(kw_op{});
    return *this;
  }

  kw_txn txn() const {
    return {cmps_.data(), then_.ops.data(), else_.ops.data(),
            cmps_.size(), then_.ops.size(), else_.ops.size()};
  }

  TxnBuilder() = default;
  TxnBuilder(TxnBuilder&& other) noexcept { *this = std::move(other); }
  TxnBuilder& operator=(TxnBuilder&& other) noexcept {
    bool into_else = other.into_ == &other.else_;
    strings_ = std::move(other.strings_);
    ranges_ = std::move(other.ranges_);
    nested_ = std::move(other.nested_);
    nested_txns_ = std::move(other.nested_txns_);
    cmps_ = std::move(other.cmps_);
    then_ = std::move(other.then_);
    else_ = std::move(other.else_);
    into_ = into_else ? &else_ : &then_;
    return *this;
  }

 private:
  kw_slice Keep(std::string_view bytes) {
    strings_.emplace_back(bytes);
    return ToSlice(strings_.back());
  }

  // Deques: their elements stay where they are.
  std::deque<std::string> strings_;
  std::deque<kw_range> ranges_;
  std::deque<TxnBuilder> nested_;
  std::deque<kw_txn> nested_txns_;
  std::vector<kw_cmp> cmps_;
  Branch then_, else_;
  Branch* into_ = &then_;
};

class FakeLeases : public LeaseKeys {
 public:
  bool Exists(int64_t lease) const override { return leases.contains(lease); }
  void Attach(int64_t lease, std::string_view key) override {
    if (!leases.contains(lease)) ++errors;
    attached[std::string(key)] = lease;
  }
  void Detach(int64_t lease, std::string_view key) override {
    auto at = attached.find(std::string(key));
    if (at == attached.end() || at->second != lease) {
      ++errors;
    } else {
      attached.erase(at);
    }
  }

  std::set<int64_t> leases;
  std::map<std::string, int64_t> attached;
  int errors = 0;
};

// A record as a test compares it.
struct Pair {
  std::string key, value;
  int64_t create = 0, mod = 0, version = 0, lease = 0;
  friend bool operator==(const Pair&, const Pair&) = default;
};

inline Pair ToPair(std::string_view record) {
  RecordFields fields;
  if (!DecodeRecord(record, &fields)) return {.key = "(malformed)"};
  return {std::string(fields.key), std::string(fields.value),
          fields.create_revision,  fields.mod_revision,
          fields.version,          fields.lease};
}

inline std::ostream& operator<<(std::ostream& out, const Pair& pair) {
  return out << '{' << pair.key << '=' << pair.value << " create " << pair.create << " mod " << pair.mod
             << " version " << pair.version << " lease " << pair.lease << '}';
}

inline std::vector<Pair> ToPairs(const kw_op_result& result) {
  std::vector<Pair> pairs;
  for (size_t i = 0; i < result.record_count; ++i) pairs.push_back(ToPair(ToView(result.records[i])));
  return pairs;
}

inline std::vector<std::string> KeysOf(const kw_op_result& result) {
  std::vector<std::string> keys;
  for (const Pair& pair : ToPairs(result)) keys.push_back(pair.key);
  return keys;
}

// The engine: what was written, in revision order.
struct FakeEngine {
  std::map<Revision, std::string> records;

  SharedBytes Read(Revision revision) const {
    auto at = records.find(revision);
    return at == records.end() ? SharedBytes() : SharedBytes::Copy(at->second);
  }
};

}  // namespace keyway::mvcc
