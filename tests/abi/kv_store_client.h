// SPDX-License-Identifier: Apache-2.0
//
// A store of any engine, driven over the C ABI as the kernel does, with C++ values. Statically linked.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "keyway/error.hpp"
#include "keyway/kv_store.h"
#include "keyway/slice.hpp"

extern "C" const kw_entry* kw_plugin_entry_storage_lmdb(void);
extern "C" const kw_entry* kw_plugin_entry_storage_rocksdb(void);

namespace keyway::test {

using Settings = std::vector<std::pair<std::string, std::string>>;  // Option, value in base units.
using Pairs = std::vector<std::pair<std::string, std::string>>;
using Table = std::map<std::string, std::string>;
using Model = std::map<uint32_t, Table>;

inline const kw_descriptor* FindEngine(std::string_view id) {
  for (const kw_entry* entry : {kw_plugin_entry_storage_lmdb(), kw_plugin_entry_storage_rocksdb()}) {
    for (size_t i = 0; i < entry->plugin_count; ++i) {
      if (entry->plugins[i]->id == id) return entry->plugins[i];
    }
  }
  return nullptr;
}

// A batch in the making; owns its bytes.
class Batch {
 public:
  Batch& Put(uint32_t table, std::string key, std::string value) {
    return Add(KW_KV_PUT, table, std::move(key), std::move(value));
  }
  Batch& Delete(uint32_t table, std::string key) { return Add(KW_KV_DELETE, table, std::move(key), ""); }
  Batch& DeleteRange(uint32_t table, std::string begin, std::string end) {
    return Add(KW_KV_DELETE_RANGE, table, std::move(begin), std::move(end));
  }
  std::vector<kw_kv_op> Ops() const {
    std::vector<kw_kv_op> ops;
    for (const Item& item : items_) {
      ops.push_back({item.kind, item.table, Slice(item.key), Slice(item.value)});
    }
    return ops;
  }
  void ApplyTo(Model* model) const {
    for (const Item& item : items_) {
      Table& table = (*model)[item.table];
      if (item.kind == KW_KV_PUT) table[item.key] = item.value;
      if (item.kind == KW_KV_DELETE) table.erase(item.key);
      if (item.kind == KW_KV_DELETE_RANGE) {
        table.erase(table.lower_bound(item.key),
                    item.value.empty() ? table.end() : table.lower_bound(std::max(item.key, item.value)));
      }
    }
  }

 private:
  struct Item {
    uint32_t kind, table;
    std::string key, value;
  };
  Batch& Add(uint32_t kind, uint32_t table, std::string key, std::string value) {
    items_.push_back({kind, table, std::move(key), std::move(value)});
    return *this;
  }
  std::vector<Item> items_;
};

// A completion that can be waited for.
class Waiter {
 public:
  Waiter() {
    completion_.ctx = this;
    completion_.done = [](kw_completion* self, int32_t code, const kw_error*) {
      auto* waiter = static_cast<Waiter*>(self->ctx);
      std::lock_guard lock(waiter->mutex_);
      waiter->code_ = code;
      waiter->changed_.notify_all();
    };
  }
  kw_completion* completion() { return &completion_; }
  // The code of the call: what it returned at once, or what it ended with.
  int32_t Wait(int32_t returned) {
    if (returned != KW_PENDING) return returned;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return code_ != KW_PENDING; });
    return code_;
  }

 private:
  kw_completion completion_ = {};
  std::mutex mutex_;
  std::condition_variable changed_;
  int32_t code_ = KW_PENDING;
};

class Store {
 public:
  Store() = default;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  ~Store() { Stop(); }

  int32_t Open(const kw_descriptor* engine, const Settings& settings, const kw_host* host = nullptr) {
    Stop();
    std::vector<kw_config_item> items;
    for (const auto& [key, value] : settings) items.push_back({key.c_str(), Slice(value), 1, 0});
    int32_t code = engine->create(host, items.data(), items.size(), &plugin_, &error);
    if (code != KW_OK) return code;
    code = plugin_->start(plugin_, &error);
    if (code != KW_OK) {
      plugin_->destroy(plugin_);
      plugin_ = nullptr;
      return code;
    }
    table = static_cast<const kw_kv_store*>(plugin_->get(plugin_, KW_KV_STORE));
    return KW_OK;
  }
  void Stop() {
    if (plugin_ == nullptr) return;
    plugin_->stop(plugin_);
    plugin_->destroy(plugin_);
    plugin_ = nullptr;
  }

  int32_t Write(const Batch& batch) {
    const std::vector<kw_kv_op> ops = batch.Ops();
    return table->write(plugin_, ops.data(), ops.size(), &error);
  }
  int32_t Sync() { return table->sync(plugin_, &error); }
  kw_kv_view* OpenView() {
    kw_kv_view* view = nullptr;
    return table->view_open(plugin_, &view, &error) == KW_OK ? view : nullptr;
  }
  void CloseView(kw_kv_view* view) { table->view_close(plugin_, view); }
  // One optional value a key. Nothing at all after an error.
  std::vector<std::optional<std::string>> Get(kw_kv_view* view, uint32_t of,
                                              const std::vector<std::string>& keys) {
    std::vector<kw_slice> slices, values(keys.size());
    for (const std::string& key : keys) slices.push_back(Slice(key));
    code = table->get(plugin_, view, of, slices.data(), slices.size(), values.data(), &error);
    std::vector<std::optional<std::string>> out;
    for (size_t i = 0; code == KW_OK && i < keys.size(); ++i) {
      out.emplace_back(values[i].ptr == nullptr ? std::nullopt : std::optional<std::string>(View(values[i])));
    }
    return out;
  }
  // Reads `capacity` pairs a call; with a pinned cursor looks at them only at the end. `code` is set.
  Pairs Scan(kw_kv_view* view, uint32_t of, std::string_view begin = {}, std::string_view end = {},
             bool descending = false, size_t capacity = 7) {
    Pairs all;
    kw_kv_cursor* cursor = nullptr;
    code = table->cursor_open(plugin_, view, of, Slice(begin), Slice(end), descending, &cursor, &error);
    if (code != KW_OK) return all;
    std::vector<kw_kv_pair> pairs(capacity), pinned;
    const auto take = [&](const kw_kv_pair& pair) { all.emplace_back(View(pair.key), View(pair.value)); };
    size_t count = 0;
    do {
      code = table->cursor_next(plugin_, cursor, pairs.data(), capacity, &count, &error);
      if (code != KW_OK) break;
      largest_count = std::max(largest_count, count);
      for (size_t i = 0; i < count; ++i) {
        if ((table->caps & KW_KV_CAP_PINNED_CURSOR) != 0) {
          pinned.push_back(pairs[i]);
        } else {
          take(pairs[i]);
        }
      }
    } while (count != 0);
    for (const kw_kv_pair& pair : pinned) take(pair);
    table->cursor_close(plugin_, cursor);
    return all;
  }
  kw_kv_stats Stats() {
    kw_kv_stats stats = {};
    stats.size = sizeof stats;
    code = table->stats(plugin_, &stats, &error);
    return stats;
  }
  int32_t Checkpoint(const std::string& directory) {
    Waiter waiter;
    return waiter.Wait(table->checkpoint(plugin_, directory.c_str(), waiter.completion()));
  }
  int32_t Reclaim() {
    Waiter waiter;
    return waiter.Wait(table->reclaim(plugin_, waiter.completion()));
  }
  kw_plugin* plugin() { return plugin_; }

  const kw_kv_store* table = nullptr;
  kw_error error = NoError();
  int32_t code = KW_OK;      // Of the last call that returns something else.
  size_t largest_count = 0;  // Of all calls of cursor_next.

 private:
  kw_plugin* plugin_ = nullptr;
};

}  // namespace keyway::test
