// SPDX-License-Identifier: Apache-2.0
//
// SimStore: keyway.kv-store/1 in memory, with exactly the promises of the contract and not one more: after
// a crash it is as of some whole batch at or after the last sync; pairs and values are overwritten as soon
// as the contract lets them go. It outlives the processes that use it.
//
// Two engines, since plugins differ: one pins the pairs of a cursor until it is closed, the other until the
// next call only.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "keyway/kv_store.h"
#include "tests/sim/world/boundary.h"
#include "tests/sim/world/random.h"

namespace keyway::sim {

class SimStore {
 public:
  enum class Engine : uint8_t { kPinned, kFleeting };

  SimStore(Engine engine, uint64_t seed)
      : engine_(engine), random_(seed), tables_(std::make_shared<Tables>()) {
    plugin_.size = sizeof plugin_;
    plugin_.self = this;
  }

  kw_plugin* plugin() { return &plugin_; }
  const kw_kv_store* table() const;
  // Of the process that uses it now.
  void SetBoundary(Boundary* boundary) { boundary_ = boundary; }

  // The process is gone, all its views closed. Batches that were not synced survive up to one of them.
  void Crash();
  void Wipe();
  // Changes a bit of a value of a replicated table. Says what, or "" if there is none.
  std::string Corrupt();
  // The value that is the next but `nth` - 1 to be given by get() or cursor_next() comes with a bit changed; what
  // is stored stays as it is. 0: none.
  void LieAt(Call call, uint64_t nth) {
    lie_call_ = call;
    lie_in_ = nth;
  }
  // Each applied point that is written, encoded; `is_log_old` if the engine says that the log is yet to be reset.
  std::function<void(std::string_view applied, bool is_log_old)> on_applied;
  // For tests: calls `visit` with each value, which it may change: damage at rest.
  void VisitValues(
      const std::function<void(uint32_t table, const std::string& key, std::string* value)>& visit);
  size_t views_open() const { return views_open_; }
  size_t pairs() const;

 private:
  using Table = std::map<std::string, std::string, std::less<>>;
  using Tables = std::array<Table, KW_KV_TABLE_COUNT>;
  struct Undo {
    uint32_t table;
    std::string key;
    std::optional<std::string> value;
  };
  struct View {
    std::shared_ptr<const Tables> tables;
    std::deque<std::string> copies;  // What get() has handed out.
  };
  struct Cursor {
    const Table* table = nullptr;
    std::string next, end;  // Ascending: from next on. Descending: below next.
    bool has_next = false, has_end = false, descending = false, at_end = false;
    std::vector<std::string> copies;  // Of the last call.
    bool is_replicated = false;
    std::deque<std::string> lies;
  };

  static SimStore& Self(kw_plugin* plugin) { return *static_cast<SimStore*>(plugin->self); }
  // Whether this value is to be a lie; then makes it one.
  bool Lies(Call call, const std::string& value);
  void Flip(std::string* value);
  int32_t Enter(Call call, kw_error* error);
  int32_t Write(const kw_kv_op* ops, size_t count, kw_error* error);
  int32_t CursorNext(Cursor* cursor, kw_kv_pair* pairs, size_t capacity, size_t* count);
  void SetValue(uint32_t table, std::string_view key, std::optional<std::string_view> value,
                std::vector<Undo>* undo);

  const Engine engine_;
  Random random_;
  kw_plugin plugin_{};
  Boundary* boundary_ = nullptr;
  std::shared_ptr<Tables> tables_;          // Shared with views: copied before a change if there are any.
  std::deque<std::vector<Undo>> unsynced_;  // Of each batch since the last sync, how to take it back.
  size_t views_open_ = 0;
  Call lie_call_ = Call::kStoreGet;
  uint64_t lie_in_ = 0;
};

}  // namespace keyway::sim
