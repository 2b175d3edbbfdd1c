// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/sim_store.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernel/core/store_format.h"
#include "keyway/error.hpp"

namespace keyway::sim {
namespace {

std::string_view Text(kw_slice slice) { return {reinterpret_cast<const char*>(slice.ptr), slice.len}; }
kw_slice Slice(std::string_view text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

// Makes what may not be used any more unusable.
void Poison(std::string* text) { std::fill(text->begin(), text->end(), '\xdb'); }

}  // namespace

int32_t SimStore::Enter(Call call, kw_error* error) {
  const int32_t code = boundary_->Cross(call);
  return code == KW_OK ? KW_OK : Fail(error, code, NameOf(call), ": injected failure");
}

// ---- writing -------------------------------------------------------------------------------------------

void SimStore::SetValue(uint32_t table, std::string_view key, std::optional<std::string_view> value,
                        std::vector<Undo>* undo) {
  Table& pairs = (*tables_)[table];
  auto at = pairs.lower_bound(key);
  const bool exists = at != pairs.end() && at->first == key;
  if (undo != nullptr && (exists || value.has_value())) {
    undo->push_back({table, std::string(key), exists ? std::optional(at->second) : std::nullopt});
  }
  if (!value.has_value()) {
    if (exists) pairs.erase(at);
  } else if (exists) {
    at->second = *value;
  } else {
    pairs.emplace_hint(at, key, *value);
  }
}

int32_t SimStore::Write(const kw_kv_op* ops, size_t count, kw_error* error) {
  if (const int32_t code = Enter(Call::kStoreWrite, error); code != KW_OK) return code;
  for (size_t i = 0; i < count; ++i) {
    if (ops[i].table >= KW_KV_TABLE_COUNT || ops[i].key.len == 0 || ops[i].key.len > 511) {
      return Fail(error, KW_INVALID_ARGUMENT, "write: op ", i, " has an impossible table or key");
    }
  }
  if (tables_.use_count() > 1) tables_ = std::make_shared<Tables>(*tables_);
  std::vector<Undo>& undo = unsynced_.emplace_back();
  for (size_t i = 0; i < count; ++i) {
    const kw_kv_op& op = ops[i];
    switch (op.kind) {
      case KW_KV_PUT:
        SetValue(op.table, Text(op.key), Text(op.value), &undo);
        break;
      case KW_KV_DELETE:
        SetValue(op.table, Text(op.key), std::nullopt, &undo);
        break;
      default: {
        Table& pairs = (*tables_)[op.table];
        auto at = pairs.lower_bound(Text(op.key));
        const auto end = op.value.len == 0 ? pairs.end() : pairs.lower_bound(Text(op.value));
        while (at != end) {
          undo.push_back({op.table, at->first, std::move(at->second)});
          at = pairs.erase(at);
        }
      }
    }
  }
  for (size_t i = 0; i < count && on_applied; ++i) {
    const bool is_applied = ops[i].table == core::kTableMeta && Text(ops[i].key) == core::kMetaApplied;
    if (!is_applied || ops[i].kind != KW_KV_PUT) continue;
    on_applied(Text(ops[i].value), (*tables_)[core::kTableMeta].count(core::kMetaLogReset) != 0);
  }
  return KW_OK;
}

void SimStore::Crash() {
  const size_t kept = random_.Below(unsynced_.size() + 1);
  if (kept < unsynced_.size() && tables_.use_count() > 1) tables_ = std::make_shared<Tables>(*tables_);
  while (unsynced_.size() > kept) {
    std::vector<Undo>& undo = unsynced_.back();
    for (auto at = undo.rbegin(); at != undo.rend(); ++at) SetValue(at->table, at->key, at->value, nullptr);
    unsynced_.pop_back();
  }
  unsynced_.clear();
}

void SimStore::Wipe() {
  tables_ = std::make_shared<Tables>();
  unsynced_.clear();
  lie_in_ = 0;
}

bool SimStore::Lies(Call call, const std::string& value) {
  return call == lie_call_ && lie_in_ != 0 && !value.empty() && --lie_in_ == 0;
}

void SimStore::Flip(std::string* value) {
  char& byte = (*value)[random_.Below(value->size())];
  byte = static_cast<char>(byte ^ (1 << random_.Below(8)));
}

std::string SimStore::Corrupt() {
  const uint32_t table = static_cast<uint32_t>(random_.Between(1, 3));
  if ((*tables_)[table].empty() || !unsynced_.empty()) return "";
  if (tables_.use_count() > 1) return "";
  auto at = (*tables_)[table].begin();
  std::advance(at, static_cast<ptrdiff_t>(random_.Below((*tables_)[table].size())));
  if (at->second.empty()) return "";
  const size_t byte = random_.Below(at->second.size());
  at->second[byte] = static_cast<char>(at->second[byte] ^ (1 << random_.Below(8)));
  return "table " + std::to_string(table) + ": a bit of byte " + std::to_string(byte) + " of a value flipped";
}

void SimStore::VisitValues(
    const std::function<void(uint32_t table, const std::string& key, std::string* value)>& visit) {
  for (uint32_t table = 0; table < KW_KV_TABLE_COUNT; ++table) {
    for (auto& [key, value] : (*tables_)[table]) visit(table, key, &value);
  }
}

size_t SimStore::pairs() const {
  size_t count = 0;
  for (const Table& table : *tables_) count += table.size();
  return count;
}

// ---- reading -------------------------------------------------------------------------------------------

int32_t SimStore::CursorNext(Cursor* cursor, kw_kv_pair* pairs, size_t capacity, size_t* count) {
  const bool pinned = engine_ == Engine::kPinned;
  for (std::string& copy : cursor->copies) Poison(&copy);
  cursor->copies.clear();
  cursor->copies.reserve(2 * capacity);
  const auto give = [&](const std::string& key, const std::string& value) {
    if (cursor->is_replicated && Lies(Call::kStoreCursorNext, value)) {
      Flip(&cursor->lies.emplace_back(value));
      pairs[(*count)++] = {Slice(cursor->lies.emplace_back(key)),
                           Slice(cursor->lies[cursor->lies.size() - 2])};
      return;
    }
    if (pinned) {
      pairs[(*count)++] = {Slice(key), Slice(value)};  // The view keeps them as they are.
      return;
    }
    cursor->copies.push_back(key);
    cursor->copies.push_back(value);
    pairs[(*count)++] = {Slice(cursor->copies[cursor->copies.size() - 2]), Slice(cursor->copies.back())};
  };
  *count = 0;
  if (cursor->at_end) return KW_OK;
  if (cursor->descending) {
    auto at = cursor->has_end ? cursor->table->lower_bound(cursor->end) : cursor->table->end();
    while (*count < capacity && at != cursor->table->begin()) {
      --at;
      if (cursor->has_next && at->first < cursor->next) break;
      give(at->first, at->second);
      cursor->end = at->first;
      cursor->has_end = true;
    }
  } else {
    auto at = cursor->table->lower_bound(cursor->next);
    while (*count < capacity && at != cursor->table->end() &&
           !(cursor->has_end && at->first >= cursor->end)) {
      give(at->first, at->second);
      ++at;
    }
    if (*count == capacity && at != cursor->table->end()) cursor->next = at->first;
    if (at == cursor->table->end()) cursor->at_end = true;
  }
  if (*count < capacity) cursor->at_end = true;
  return KW_OK;
}

const kw_kv_store* SimStore::table() const {
  using ViewType = SimStore::View;
  static constexpr auto kWrite = [](kw_plugin* plugin, const kw_kv_op* ops, size_t count,
                                    kw_error* error) -> int32_t {
    return Self(plugin).Write(ops, count, error);
  };
  static constexpr auto kSync = [](kw_plugin* plugin, kw_error* error) -> int32_t {
    SimStore& self = Self(plugin);
    if (const int32_t code = self.Enter(Call::kStoreSync, error); code != KW_OK) return code;
    self.unsynced_.clear();
    return KW_OK;
  };
  static constexpr auto kViewOpen = [](kw_plugin* plugin, kw_kv_view** out, kw_error* error) -> int32_t {
    SimStore& self = Self(plugin);
    if (const int32_t code = self.Enter(Call::kStoreViewOpen, error); code != KW_OK) return code;
    auto view = std::make_unique<ViewType>();
    view->tables = self.tables_;
    ++self.views_open_;
    *out = reinterpret_cast<kw_kv_view*>(view.release());
    return KW_OK;
  };
  static constexpr auto kViewClose = [](kw_plugin* plugin, kw_kv_view* view) {
    --Self(plugin).views_open_;
    auto* own = reinterpret_cast<ViewType*>(view);
    for (std::string& copy : own->copies) Poison(&copy);
    delete own;
  };
  static constexpr auto kGet = [](kw_plugin* plugin, kw_kv_view* view, uint32_t table, const kw_slice* keys,
                                  size_t count, kw_slice* values, kw_error* error) -> int32_t {
    SimStore& self = Self(plugin);
    if (const int32_t code = self.Enter(Call::kStoreGet, error); code != KW_OK) return code;
    auto* own = reinterpret_cast<ViewType*>(view);
    for (size_t i = 0; i < count; ++i) {
      const Table& pairs = (*own->tables)[table];
      const auto at = pairs.find(Text(keys[i]));
      values[i] = kw_slice{};
      if (at != pairs.end()) {
        std::string& copy = own->copies.emplace_back(at->second);
        if (table >= 1 && table <= 3 && self.Lies(Call::kStoreGet, copy)) self.Flip(&copy);
        values[i] = Slice(copy);
      }
      static const uint8_t kEmpty = 0;
      if (at != pairs.end() && values[i].len == 0) values[i].ptr = &kEmpty;
    }
    return KW_OK;
  };
  static constexpr auto kCursorOpen = [](kw_plugin* plugin, kw_kv_view* view, uint32_t table, kw_slice begin,
                                         kw_slice end, uint32_t descending, kw_kv_cursor** out,
                                         kw_error* error) -> int32_t {
    if (const int32_t code = Self(plugin).Enter(Call::kStoreCursorOpen, error); code != KW_OK) return code;
    auto cursor = std::make_unique<Cursor>();
    cursor->is_replicated = table >= 1 && table <= 3;
    cursor->table = &(*reinterpret_cast<ViewType*>(view)->tables)[table];
    cursor->next = Text(begin);
    cursor->has_next = begin.len != 0;
    cursor->end = Text(end);
    cursor->has_end = end.len != 0;
    cursor->descending = descending != 0;
    *out = reinterpret_cast<kw_kv_cursor*>(cursor.release());
    return KW_OK;
  };
  static constexpr auto kCursorNext = [](kw_plugin* plugin, kw_kv_cursor* cursor, kw_kv_pair* pairs,
                                         size_t capacity, size_t* count, kw_error* error) -> int32_t {
    SimStore& self = Self(plugin);
    if (const int32_t code = self.Enter(Call::kStoreCursorNext, error); code != KW_OK) return code;
    return self.CursorNext(reinterpret_cast<Cursor*>(cursor), pairs, capacity, count);
  };
  static constexpr auto kCursorClose = [](kw_plugin*, kw_kv_cursor* cursor) {
    auto* own = reinterpret_cast<Cursor*>(cursor);
    for (std::string& copy : own->copies) Poison(&copy);
    delete own;
  };
  static constexpr auto kStats = [](kw_plugin* plugin, kw_kv_stats* out, kw_error* error) -> int32_t {
    SimStore& self = Self(plugin);
    if (const int32_t code = self.Enter(Call::kStoreStats, error); code != KW_OK) return code;
    out->disk_bytes = out->live_bytes = self.pairs() * 100;
    out->views_open = self.views_open_;
    return KW_OK;
  };
  static constexpr kw_kv_store kPinned = {sizeof(kw_kv_store),
                                          KW_KV_CAP_PINNED_CURSOR,
                                          1024,
                                          0,
                                          64u << 20,
                                          kWrite,
                                          kSync,
                                          kViewOpen,
                                          kViewClose,
                                          kGet,
                                          kCursorOpen,
                                          kCursorNext,
                                          kCursorClose,
                                          kStats,
                                          nullptr,
                                          nullptr};
  static constexpr kw_kv_store kFleeting = {
      sizeof(kw_kv_store), 0,    511,         0,           16u << 20,    kWrite, kSync,   kViewOpen,
      kViewClose,          kGet, kCursorOpen, kCursorNext, kCursorClose, kStats, nullptr, nullptr};
  return engine_ == Engine::kPinned ? &kPinned : &kFleeting;
}

}  // namespace keyway::sim
