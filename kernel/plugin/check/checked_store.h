// SPDX-License-Identifier: Apache-2.0
//
// keyway.kv-store/1 under check. Beside the rules of every table:
//
//   count-within-capacity   cursor_next gives at most the pairs that were asked for
//   pairs-in-order          strictly ascending (or descending) over all calls, within the bounds
//   sound-slices            what is given is a slice, and no longer than the engine's own maximum
//   closed-before-stop      views and cursors (the kernel's duty)
//   results-keep            full: values and pairs do not change before the end of their lifetime
//   reads-see-writes        full: what a view shows of lately written keys is what was written
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "kernel/plugin/check/pending.h"
#include "kernel/plugin/check/store_shadow.h"
#include "kernel/plugin/check/verdict.h"
#include "keyway/kv_store.h"

namespace keyway::check {

class CheckedStore {
 public:
  CheckedStore(const Subject* subject, kw_plugin* inner, const kw_kv_store& table);

  kw_plugin* plugin() { return &facade_; }
  const kw_kv_store& table() const { return outer_; }
  const PendingCalls& pending() const { return pending_; }
  // After the plugin's stop().
  void CheckStopped() const;

 private:
  // A result that must stay as it is for a while.
  struct Kept {
    kw_slice bytes;
    uint64_t hash;
  };
  struct View {
    kw_kv_view* inner;
    uint64_t batch;  // The last committed one when it was opened.
    std::atomic<uint32_t> cursors{0};
    std::vector<Kept> kept;
  };
  struct Cursor {
    kw_kv_cursor* inner;
    View* view;
    uint32_t table;
    bool is_descending;
    bool has_last = false;
    std::string begin, end, last;  // `last`: the key given last.
    std::vector<Kept> kept;
  };
  friend struct StoreThunks;

  static CheckedStore& Self(kw_plugin* plugin) { return *static_cast<CheckedStore*>(plugin->self); }
  void Keep(kw_slice bytes, std::vector<Kept>* out) const;
  void CheckKept(const std::vector<Kept>& kept, const Function& function) const;
  void CheckPair(Cursor* cursor, const kw_kv_pair& pair) const;
  void CheckSeen(const View& view, uint32_t table, kw_slice key, kw_slice value,
                 const Function& function) const;
  void CheckNoGap(const Cursor& cursor, const std::string& before) const;
  void VerifyLastBatch();

  int32_t Write(const kw_kv_op* ops, size_t op_count, kw_error* error);
  int32_t Get(View* view, uint32_t table, const kw_slice* keys, size_t key_count, kw_slice* values,
              kw_error* error);
  int32_t CursorNext(Cursor* cursor, kw_kv_pair* pairs, size_t capacity, size_t* count, kw_error* error);

  const Subject& subject_;
  kw_plugin* const inner_;
  const kw_kv_store table_;
  kw_kv_store outer_;
  kw_plugin facade_{};
  PendingCalls pending_;
  SerialLane store_lane_;
  StoreShadow shadow_;
  std::atomic<int64_t> views_open_{0};
};

}  // namespace keyway::check
