// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/checked_store.h"

#include <algorithm>

#include "kernel/base/bytes.h"
#include "kernel/plugin/check/poison.h"

namespace keyway::check {
namespace {

constexpr Function kWrite{"kv-store.write", ThreadTag::kStore};
constexpr Function kSync{"kv-store.sync", ThreadTag::kStore};
constexpr Function kViewOpen{"kv-store.view_open", ThreadTag::kRead};
constexpr Function kViewClose{"kv-store.view_close", ThreadTag::kRead};  // [any], but it may wait.
constexpr Function kGet{"kv-store.get", ThreadTag::kRead};
constexpr Function kCursorOpen{"kv-store.cursor_open", ThreadTag::kRead};
constexpr Function kCursorNext{"kv-store.cursor_next", ThreadTag::kRead};
constexpr Function kCursorClose{"kv-store.cursor_close", ThreadTag::kAny};
constexpr Function kStats{"kv-store.stats", ThreadTag::kAny};
constexpr Function kCheckpoint{"kv-store.checkpoint", ThreadTag::kAny, true};
constexpr Function kReclaim{"kv-store.reclaim", ThreadTag::kAny, true};

constexpr size_t kKeptMax = 4096;         // Of one view or cursor.
constexpr size_t kVerifiedKeysMax = 128;  // Of one batch.

}  // namespace

// The functions of the table.
struct StoreThunks {
  static int32_t Write(kw_plugin* plugin, const kw_kv_op* ops, size_t op_count, kw_error* error) {
    return CheckedStore::Self(plugin).Write(ops, op_count, error);
  }
  static int32_t Sync(kw_plugin* plugin, kw_error* error) {
    CheckedStore& self = CheckedStore::Self(plugin);
    SerialLane::Scope serial(&self.store_lane_, self.subject_, kSync);
    return CheckedCall(self.subject_, kSync, error, [&] { return self.table_.sync(self.inner_, error); });
  }
  static int32_t ViewOpen(kw_plugin* plugin, kw_kv_view** out, kw_error* error) {
    CheckedStore& self = CheckedStore::Self(plugin);
    auto view = std::make_unique<CheckedStore::View>();
    view->inner = nullptr;
    view->batch = self.subject_.is_full() ? self.shadow_.batch() : 0;
    const int32_t code = CheckedCall(self.subject_, kViewOpen, error,
                                     [&] { return self.table_.view_open(self.inner_, &view->inner, error); });
    if (code != KW_OK) return code;
    if (view->inner == nullptr) {
      self.subject_.Condemn(kViewOpen.name, "result-given", "answered KW_OK without a view");
    }
    self.views_open_.fetch_add(1, std::memory_order_relaxed);
    *out = reinterpret_cast<kw_kv_view*>(view.release());
    return code;
  }
  static void ViewClose(kw_plugin* plugin, kw_kv_view* given) {
    CheckedStore& self = CheckedStore::Self(plugin);
    const std::unique_ptr<CheckedStore::View> view(reinterpret_cast<CheckedStore::View*>(given));
    if (view->cursors.load() != 0) {
      self.subject_.CondemnKernel(kViewClose.name, "closed-before-stop", "came before its cursors' close");
    }
    self.CheckKept(view->kept, kGet);
    Guarded(self.subject_, kViewClose, [&] { self.table_.view_close(self.inner_, view->inner); });
    self.views_open_.fetch_sub(1, std::memory_order_relaxed);
  }
  static int32_t Get(kw_plugin* plugin, kw_kv_view* view, uint32_t table, const kw_slice* keys,
                     size_t key_count, kw_slice* values, kw_error* error) {
    return CheckedStore::Self(plugin).Get(reinterpret_cast<CheckedStore::View*>(view), table, keys, key_count,
                                          values, error);
  }
  static int32_t CursorOpen(kw_plugin* plugin, kw_kv_view* given, uint32_t table, kw_slice begin,
                            kw_slice end, uint32_t descending, kw_kv_cursor** out, kw_error* error) {
    CheckedStore& self = CheckedStore::Self(plugin);
    auto cursor = std::make_unique<CheckedStore::Cursor>();
    cursor->inner = nullptr;
    cursor->view = reinterpret_cast<CheckedStore::View*>(given);
    cursor->table = table;
    cursor->is_descending = descending != 0;
    cursor->begin = ToView(begin);
    cursor->end = ToView(end);
    PoisonedCopy copy;
    kw_slice inner_begin = begin, inner_end = end;
    if (self.subject_.is_full()) {
      copy = PoisonedCopy(self.subject_, kCursorOpen,
                          PoisonedCopy::RoundUp(begin.len) + PoisonedCopy::RoundUp(end.len));
      inner_begin = copy.Slice(begin);
      inner_end = copy.Slice(end);
    }
    const int32_t code = CheckedCall(self.subject_, kCursorOpen, error, [&] {
      return self.table_.cursor_open(self.inner_, cursor->view->inner, table, inner_begin, inner_end,
                                     descending, &cursor->inner, error);
    });
    if (code != KW_OK) return code;
    if (cursor->inner == nullptr) {
      self.subject_.Condemn(kCursorOpen.name, "result-given", "answered KW_OK without a cursor");
    }
    cursor->view->cursors.fetch_add(1, std::memory_order_relaxed);
    *out = reinterpret_cast<kw_kv_cursor*>(cursor.release());
    return code;
  }
  static int32_t CursorNext(kw_plugin* plugin, kw_kv_cursor* cursor, kw_kv_pair* pairs, size_t capacity,
                            size_t* count, kw_error* error) {
    return CheckedStore::Self(plugin).CursorNext(reinterpret_cast<CheckedStore::Cursor*>(cursor), pairs,
                                                 capacity, count, error);
  }
  static void CursorClose(kw_plugin* plugin, kw_kv_cursor* given) {
    CheckedStore& self = CheckedStore::Self(plugin);
    const std::unique_ptr<CheckedStore::Cursor> cursor(reinterpret_cast<CheckedStore::Cursor*>(given));
    self.CheckKept(cursor->kept, kCursorNext);
    Guarded(self.subject_, kCursorClose, [&] { self.table_.cursor_close(self.inner_, cursor->inner); });
    cursor->view->cursors.fetch_sub(1, std::memory_order_relaxed);
  }
  static int32_t Stats(kw_plugin* plugin, kw_kv_stats* out, kw_error* error) {
    CheckedStore& self = CheckedStore::Self(plugin);
    return CheckedCall(self.subject_, kStats, error,
                       [&] { return self.table_.stats(self.inner_, out, error); });
  }
  static int32_t Checkpoint(kw_plugin* plugin, const char* dir, kw_completion* completion) {
    CheckedStore& self = CheckedStore::Self(plugin);
    PendingCall* call = self.pending_.Begin(kCheckpoint, completion);
    return self.pending_.Returned(call, Guarded(self.subject_, kCheckpoint, [&] {
                                    return self.table_.checkpoint(self.inner_, dir, &call->facade);
                                  }));
  }
  static int32_t Reclaim(kw_plugin* plugin, kw_completion* completion) {
    CheckedStore& self = CheckedStore::Self(plugin);
    PendingCall* call = self.pending_.Begin(kReclaim, completion);
    return self.pending_.Returned(call, Guarded(self.subject_, kReclaim, [&] {
                                    return self.table_.reclaim(self.inner_, &call->facade);
                                  }));
  }
};

CheckedStore::CheckedStore(const Subject* subject, kw_plugin* inner, const kw_kv_store& table)
    : subject_(*subject), inner_(inner), table_(table), outer_(table), pending_(subject) {
  facade_.size = sizeof facade_;
  facade_.self = this;
  outer_.write = &StoreThunks::Write;
  outer_.sync = &StoreThunks::Sync;
  outer_.view_open = &StoreThunks::ViewOpen;
  outer_.view_close = &StoreThunks::ViewClose;
  outer_.get = &StoreThunks::Get;
  outer_.cursor_open = &StoreThunks::CursorOpen;
  outer_.cursor_next = &StoreThunks::CursorNext;
  outer_.cursor_close = &StoreThunks::CursorClose;
  outer_.stats = &StoreThunks::Stats;
  outer_.checkpoint = &StoreThunks::Checkpoint;
  outer_.reclaim = &StoreThunks::Reclaim;
}

void CheckedStore::CheckStopped() const {
  pending_.CheckNoneIsPending();
  if (views_open_.load() != 0) {
    subject_.CondemnKernel("kw_plugin.stop", "closed-before-stop",
                           absl::StrCat("came with ", views_open_.load(), " views open"));
  }
}

// ---- writing -------------------------------------------------------------------------------------

int32_t CheckedStore::Write(const kw_kv_op* ops, size_t op_count, kw_error* error) {
  SerialLane::Scope serial(&store_lane_, subject_, kWrite);
  if (!subject_.is_full()) {
    return CheckedCall(subject_, kWrite, error, [&] { return table_.write(inner_, ops, op_count, error); });
  }
  size_t bytes = PoisonedCopy::RoundUp(op_count * sizeof(kw_kv_op));
  for (size_t i = 0; i < op_count; ++i) {
    bytes += PoisonedCopy::RoundUp(ops[i].key.len) + PoisonedCopy::RoundUp(ops[i].value.len);
  }
  PoisonedCopy copy(subject_, kWrite, bytes);
  kw_kv_op* copied = copy.Array(ops, op_count);
  for (size_t i = 0; i < op_count; ++i) {
    copied[i].key = copy.Slice(ops[i].key);
    copied[i].value = copy.Slice(ops[i].value);
  }
  shadow_.Begin(ops, op_count);
  const int32_t code =
      CheckedCall(subject_, kWrite, error, [&] { return table_.write(inner_, copied, op_count, error); });
  copy.Seal();
  if (code != KW_OK) {
    shadow_.Forget();
    return code;
  }
  shadow_.Commit();
  VerifyLastBatch();
  return code;
}

// Reads some keys of the batch back through a view: a part that is missing, old or damaged is found
// before anybody relies on it.
void CheckedStore::VerifyLastBatch() {
  kw_error error{};
  error.size = sizeof error;
  View view{};
  view.batch = shadow_.batch();
  if (Guarded(subject_, kViewOpen, [&] { return table_.view_open(inner_, &view.inner, &error); }) != KW_OK) {
    return;  // Out of readers, say: not a fault.
  }
  for (const StoreShadow::Key& each : shadow_.KeysOfLastBatch(kVerifiedKeysMax)) {
    const kw_slice key = ToSlice(each.second);
    kw_slice value{};
    if (Guarded(subject_, kGet, [&] {
          return table_.get(inner_, view.inner, each.first, &key, 1, &value, &error);
        }) == KW_OK) {
      CheckSeen(view, each.first, key, value, kWrite);
    }
  }
  Guarded(subject_, kViewClose, [&] { table_.view_close(inner_, view.inner); });
}

// ---- reading -------------------------------------------------------------------------------------

void CheckedStore::Keep(kw_slice bytes, std::vector<Kept>* out) const {
  if (bytes.len != 0 && out->size() < kKeptMax) out->push_back({bytes, HashOf(bytes)});
}

void CheckedStore::CheckKept(const std::vector<Kept>& kept, const Function& function) const {
  CallScope scope(subject_, function);  // A fault here is the plugin's: it has freed what it gave.
  for (const Kept& each : kept) {
    if (HashOf(each.bytes) != each.hash) {
      subject_.Condemn(function.name, "results-keep",
                       absl::StrCat("changed a result of ", each.bytes.len, " bytes within its lifetime"));
    }
  }
}

void CheckedStore::CheckSeen(const View& view, uint32_t table, kw_slice key, kw_slice value,
                             const Function& function) const {
  const auto known = shadow_.Find(table, key, view.batch);
  if (!known.has_value()) return;
  const bool is_there = value.ptr != nullptr;
  const char* fault = nullptr;
  if (known->is_there && !is_there) fault = "does not show a key that was written";
  if (!known->is_there && is_there) fault = "shows a key that was deleted";
  if (known->is_there && is_there && HashOf(value) != known->hash) {
    fault = "shows another value than the one that was written";
  }
  if (fault == nullptr) return;
  subject_.Condemn(function.name, "reads-see-writes",
                   absl::StrCat(fault, " in batch ", known->batch, " (a key of ", key.len, " bytes in table ",
                                table, "; a view opened after batch ", view.batch, ")"));
}

int32_t CheckedStore::Get(View* view, uint32_t table, const kw_slice* keys, size_t key_count,
                          kw_slice* values, kw_error* error) {
  // The lifetime of what the get before gave ends here.
  if (subject_.is_full()) CheckKept(view->kept, kGet);
  view->kept.clear();
  PoisonedCopy copy;
  const kw_slice* inner_keys = keys;
  if (subject_.is_full()) {
    size_t bytes = PoisonedCopy::RoundUp(key_count * sizeof(kw_slice));
    for (size_t i = 0; i < key_count; ++i) bytes += PoisonedCopy::RoundUp(keys[i].len);
    copy = PoisonedCopy(subject_, kGet, bytes);
    kw_slice* copied = copy.Array(keys, key_count);
    for (size_t i = 0; i < key_count; ++i) copied[i] = copy.Slice(keys[i]);
    inner_keys = copied;
  }
  const int32_t code = CheckedCall(subject_, kGet, error, [&] {
    return table_.get(inner_, view->inner, table, inner_keys, key_count, values, error);
  });
  if (code != KW_OK) return code;
  for (size_t i = 0; i < key_count; ++i) {
    if (!IsSound(values[i]) || values[i].len > table_.value_bytes_max) {
      subject_.Condemn(kGet.name, "sound-slices", absl::StrCat("gave a value of ", values[i].len, " bytes"));
    }
    if (!subject_.is_full()) continue;
    CallScope scope(subject_, kGet);  // A fault is the plugin's.
    CheckSeen(*view, table, keys[i], values[i], kGet);
    Keep(values[i], &view->kept);
  }
  return code;
}

// Within the bounds and after the pair before.
void CheckedStore::CheckPair(Cursor* cursor, const kw_kv_pair& pair) const {
  if (pair.key.ptr == nullptr || pair.key.len == 0 || pair.key.len > table_.key_bytes_max ||
      !IsSound(pair.value) || pair.value.len > table_.value_bytes_max) {
    subject_.Condemn(kCursorNext.name, "sound-slices",
                     absl::StrCat("gave a pair of ", pair.key.len, " and ", pair.value.len, " bytes"));
  }
  const std::string_view key = ToView(pair.key);
  if (key < cursor->begin || (!cursor->end.empty() && key >= cursor->end)) {
    subject_.Condemn(kCursorNext.name, "pairs-in-order", "gave a key outside of the cursor's bounds");
  }
  if (cursor->has_last && (cursor->is_descending ? key >= cursor->last : key <= cursor->last)) {
    subject_.Condemn(kCursorNext.name, "pairs-in-order",
                     "gave a key that does not come after the one before");
  }
}

void CheckedStore::CheckNoGap(const Cursor& cursor, const std::string& before) const {
  const auto missing = shadow_.FirstBetween(cursor.table, cursor.has_last ? cursor.last : cursor.begin,
                                            !cursor.has_last, before, cursor.view->batch);
  if (!missing.has_value()) return;
  subject_.Condemn(kCursorNext.name, "reads-see-writes",
                   absl::StrCat("left out a key of ", missing->size(), " bytes in table ", cursor.table,
                                " that was written before the view was opened"));
}

int32_t CheckedStore::CursorNext(Cursor* cursor, kw_kv_pair* pairs, size_t capacity, size_t* count,
                                 kw_error* error) {
  // Pairs are [next] unless the engine pins them.
  if ((table_.caps & KW_KV_CAP_PINNED_CURSOR) == 0) {
    CheckKept(cursor->kept, kCursorNext);
    cursor->kept.clear();
  }
  const int32_t code = CheckedCall(subject_, kCursorNext, error, [&] {
    return table_.cursor_next(inner_, cursor->inner, pairs, capacity, count, error);
  });
  if (code != KW_OK) return code;
  if (*count > capacity) {
    subject_.Condemn(kCursorNext.name, "count-within-capacity",
                     absl::StrCat("gave ", *count, " pairs for a capacity of ", capacity));
  }
  CallScope scope(subject_, kCursorNext);  // A fault is the plugin's.
  // At level cheap the ends of the run stand for all of it.
  const size_t step = subject_.is_full() || *count < 2 ? 1 : *count - 1;
  for (size_t i = 0; i < *count; i += step) {
    const kw_kv_pair& pair = pairs[i];
    CheckPair(cursor, pair);
    std::string key(ToView(pair.key));
    if (subject_.is_full()) {
      CheckSeen(*cursor->view, cursor->table, pair.key, pair.value, kCursorNext);
      if (!cursor->is_descending) CheckNoGap(*cursor, key);
      Keep(pair.key, &cursor->kept);
      Keep(pair.value, &cursor->kept);
    }
    cursor->last = std::move(key);
    cursor->has_last = true;
  }
  if (subject_.is_full() && *count == 0 && !cursor->is_descending) {
    CheckNoGap(*cursor, cursor->end);
  }
  return code;
}

}  // namespace keyway::check
