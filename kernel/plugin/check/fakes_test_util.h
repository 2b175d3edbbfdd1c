// SPDX-License-Identifier: Apache-2.0
//
// A store and a log in memory that keep the contract, with hooks where a test breaks it.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kernel/base/bytes.h"
#include "keyway/crc32c.h"
#include "keyway/kv_store.h"
#include "keyway/log_store.h"

namespace keyway::check {

inline void FailWith(kw_error* error, int32_t code, const char* text) {
  error->code = code;
  std::strncpy(error->text, text, sizeof error->text - 1);
}

class MemoryStore {
 public:
  using Pairs = std::map<std::pair<uint32_t, std::string>, std::string>;
  MemoryStore() { plugin.self = this; }

  // What a call does instead, if set. `next` gets the pairs before they are given.
  std::function<int32_t(const kw_kv_op*, size_t, kw_error*)> write;
  std::function<int32_t(kw_error*)> sync;
  std::function<void(kw_kv_pair*, size_t*)> next;
  std::function<void(kw_slice*)> value;

  int32_t Apply(const kw_kv_op* ops, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const kw_kv_op& op = ops[i];
      std::pair<uint32_t, std::string> key(op.table, ToView(op.key));
      if (op.kind == KW_KV_PUT) pairs[key] = ToView(op.value);
      if (op.kind == KW_KV_DELETE) pairs.erase(key);
      if (op.kind == KW_KV_DELETE_RANGE) {
        std::erase_if(pairs, [&](const auto& each) {
          return each.first.first == op.table && each.first.second >= key.second &&
                 (op.value.len == 0 || each.first.second < ToView(op.value));
        });
      }
    }
    return KW_OK;
  }
  kw_kv_store Table() const;

  kw_plugin plugin{};
  Pairs pairs;
};

struct MemoryView {
  MemoryStore::Pairs pairs;
};
struct MemoryCursor {
  MemoryView* view;
  uint32_t table;
  std::string at, end;
};

inline kw_kv_store MemoryStore::Table() const {
  static auto self = [](kw_plugin* p) -> MemoryStore& { return *static_cast<MemoryStore*>(p->self); };
  kw_kv_store table{};
  table.size = sizeof table;
  table.caps = KW_KV_CAP_PINNED_CURSOR;
  table.key_bytes_max = 511;
  table.value_bytes_max = 8u << 20;
  table.write = [](kw_plugin* p, const kw_kv_op* ops, size_t count, kw_error* error) {
    return self(p).write ? self(p).write(ops, count, error) : self(p).Apply(ops, count);
  };
  table.sync = [](kw_plugin* p, kw_error* error) { return self(p).sync ? self(p).sync(error) : KW_OK + 0; };
  table.view_open = [](kw_plugin* p, kw_kv_view** out, kw_error*) {
    *out = reinterpret_cast<kw_kv_view*>(new MemoryView{self(p).pairs});
    return KW_OK + 0;
  };
  table.view_close = [](kw_plugin*, kw_kv_view* view) { delete reinterpret_cast<MemoryView*>(view); };
  table.get = [](kw_plugin* p, kw_kv_view* view, uint32_t number, const kw_slice* keys, size_t count,
                 kw_slice* values, kw_error*) {
    for (size_t i = 0; i < count; ++i) {
      const auto& pairs = reinterpret_cast<MemoryView*>(view)->pairs;
      const auto found = pairs.find({number, std::string(ToView(keys[i]))});
      values[i] = found == pairs.end() ? kw_slice{} : ToSlice(found->second);
      if (self(p).value) self(p).value(&values[i]);
    }
    return KW_OK + 0;
  };
  table.cursor_open = [](kw_plugin*, kw_kv_view* view, uint32_t number, kw_slice begin, kw_slice end,
                         uint32_t, kw_kv_cursor** out, kw_error*) {
    *out = reinterpret_cast<kw_kv_cursor*>(new MemoryCursor{
        reinterpret_cast<MemoryView*>(view), number, std::string(ToView(begin)), std::string(ToView(end))});
    return KW_OK + 0;
  };
  table.cursor_next = [](kw_plugin* p, kw_kv_cursor* given, kw_kv_pair* pairs, size_t capacity, size_t* count,
                         kw_error*) {
    auto* cursor = reinterpret_cast<MemoryCursor*>(given);
    auto at = cursor->view->pairs.lower_bound({cursor->table, cursor->at});
    for (*count = 0; *count < capacity && at != cursor->view->pairs.end(); ++at) {
      if (at->first.first != cursor->table || (!cursor->end.empty() && at->first.second >= cursor->end))
        break;
      pairs[(*count)++] = {ToSlice(at->first.second), ToSlice(at->second)};
      cursor->at = at->first.second + '\0';
    }
    if (self(p).next) self(p).next(pairs, count);
    return KW_OK + 0;
  };
  table.cursor_close = [](kw_plugin*, kw_kv_cursor* cursor) {
    delete reinterpret_cast<MemoryCursor*>(cursor);
  };
  table.stats = [](kw_plugin*, kw_kv_stats*, kw_error*) { return KW_OK + 0; };
  table.checkpoint = [](kw_plugin*, const char*, kw_completion*) { return KW_UNIMPLEMENTED + 0; };
  table.reclaim = [](kw_plugin*, kw_completion*) { return KW_UNIMPLEMENTED + 0; };
  return table;
}

// Completes when Complete() is called; `durable` is what read() answers for.
class MemoryLog {
 public:
  MemoryLog() { plugin.self = this; }

  kw_plugin plugin{};
  kw_log_bounds bounds{1, 0, 0};
  std::map<uint64_t, std::pair<kw_log_entry, std::string>> entries;
  std::vector<kw_completion*> pending;
  int32_t refusal = KW_OK;  // What append answers instead.
  std::function<void(std::vector<kw_log_entry>*)> reading;
  bool drops = false;  // Loses what it is given.

  void Complete(size_t which = 0, int32_t code = KW_OK) {
    kw_completion* completion = pending.at(which);
    pending.erase(pending.begin() + static_cast<ptrdiff_t>(which));
    completion->done(completion, code, nullptr);
  }
  kw_log_store Table() const;
};

struct MemoryBatch {
  kw_log_batch batch{};
  std::vector<kw_log_entry> entries;
};

inline kw_log_store MemoryLog::Table() const {
  static auto self = [](kw_plugin* p) -> MemoryLog& { return *static_cast<MemoryLog*>(p->self); };
  kw_log_store table{};
  table.size = sizeof table;
  table.recover = [](kw_plugin* p, kw_hard_state* state, kw_log_bounds* bounds, kw_error*) {
    *state = {};
    *bounds = self(p).bounds;
    return KW_OK + 0;
  };
  table.append = [](kw_plugin* p, const kw_log_entry* given, size_t count, const kw_hard_state*,
                    kw_completion* completion) {
    MemoryLog& log = self(p);
    if (log.refusal != KW_OK) return log.refusal;
    if (count != 0) log.entries.erase(log.entries.lower_bound(given[0].index), log.entries.end());
    for (size_t i = 0; i < count && !log.drops; ++i) {
      auto& stored = log.entries[given[i].index];
      stored = {given[i], std::string(ToView(given[i].data))};
      stored.first.data = ToSlice(stored.second);
    }
    log.pending.push_back(completion);
    return KW_PENDING + 0;
  };
  table.try_append = table.append;
  table.read = [](kw_plugin* p, uint64_t begin, uint64_t end, uint64_t, kw_log_batch** out, kw_error* error) {
    auto* batch = new MemoryBatch;
    for (uint64_t i = begin; i < end && self(p).entries.contains(i); ++i) {
      batch->entries.push_back(self(p).entries[i].first);
    }
    if (self(p).reading) self(p).reading(&batch->entries);
    if (batch->entries.empty()) {
      delete batch;
      FailWith(error, KW_OUT_OF_RANGE, "no such entry");
      return KW_OUT_OF_RANGE + 0;
    }
    batch->batch = {sizeof(kw_log_batch), 0, batch->entries.data(), batch->entries.size(),
                    [](kw_log_batch* given) { delete reinterpret_cast<MemoryBatch*>(given); }};
    *out = &batch->batch;
    return KW_OK + 0;
  };
  table.truncate_prefix = [](kw_plugin* p, uint64_t, kw_completion* completion) {
    self(p).pending.push_back(completion);
    return KW_PENDING + 0;
  };
  table.reset = [](kw_plugin* p, uint64_t, uint64_t, kw_completion* completion) {
    self(p).pending.push_back(completion);
    return KW_PENDING + 0;
  };
  return table;
}

inline kw_log_entry EntryOf(uint64_t index, uint64_t term, std::string_view data) {
  return {index, term, 1, kw_crc32c(0, data.data(), data.size()), ToSlice(data)};
}

}  // namespace keyway::check
