// SPDX-License-Identifier: Apache-2.0
//
// mutant-storage: keyway.kv-store/1 with one defect. See mutants.md for the list.
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "keyway/kv_store.h"
#include "mutant.h"

KW_PLUGIN_MANIFEST(
    "id=mutant-storage;version=0.1.0;abi=1.0;license=Apache-2.0;stability=alpha;"
    "provides=keyway.kv-store/1;needs=keyway.log/1,keyway.clock/1,keyway.metrics/1");

namespace keyway::mutants {
namespace {

const kw_kv_store& Inner() { return Real<kw_kv_store>(KW_KV_STORE); }

// A batch with its bytes.
struct Batch {
  std::vector<kw_kv_op> ops;
  std::vector<std::unique_ptr<std::string>> bytes;
  kw_slice Own(kw_slice from) {
    if (from.ptr == nullptr) return from;
    bytes.push_back(std::make_unique<std::string>(View(from)));
    return {reinterpret_cast<const uint8_t*>(bytes.back()->data()), from.len};
  }
  Batch(const kw_kv_op* from, size_t count) : ops(from, from + count) {
    for (kw_kv_op& op : ops) {
      op.key = Own(op.key);
      op.value = Own(op.value);
    }
  }
};

std::unique_ptr<Batch> held_back;
const uint8_t* kept_slice = nullptr;
int* volatile nowhere = nullptr;
uint64_t writes = 0;  // [store]
std::mutex copies_mutex;
std::map<kw_kv_cursor*, std::vector<std::unique_ptr<std::string>>> copies;

// The sanitizers would end the process before the host can name the plugin.
__attribute__((no_sanitize("undefined", "address", "thread"))) void Crash() { *nowhere = 1; }

int32_t Write(kw_plugin*, const kw_kv_op* ops, size_t count, kw_error* error) {
  ++writes;
  const bool is_late = writes > 1;  // The first is the node's identity.
  if (me.is("throws-in-write") && is_late) throw std::runtime_error("a mutant's write");
  if (me.is("hangs-in-write") && is_late) {
    while (true) std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  if (me.is("crashes-in-write") && is_late) Crash();
  if (me.is("writes-part-of-a-batch") && is_late && count > 1) {
    return Inner().write(me.inner, ops, count - 1, error);
  }
  if (me.is("reorders-writes") && is_late) {
    if (held_back == nullptr) {
      held_back = std::make_unique<Batch>(ops, count);
      return KW_OK;
    }
    const int32_t code = Inner().write(me.inner, ops, count, error);
    if (code != KW_OK) return code;
    const auto late = std::move(held_back);
    return Inner().write(me.inner, late->ops.data(), late->ops.size(), error);
  }
  if (me.is("corrupts-a-value") && is_late) {
    Batch batch(ops, count);
    for (kw_kv_op& op : batch.ops) {
      if (op.kind == KW_KV_PUT && op.value.len > 3) const_cast<uint8_t*>(op.value.ptr)[op.value.len / 2] ^= 4;
    }
    return Inner().write(me.inner, batch.ops.data(), count, error);
  }
  if (me.is("keeps-a-call-slice")) {
    static std::atomic<uint8_t> sum;
    if (kept_slice != nullptr) sum = static_cast<uint8_t>(sum + *kept_slice);
    if (count != 0) kept_slice = ops[0].key.ptr;
  }
  return Inner().write(me.inner, ops, count, error);
}

int32_t Sync(kw_plugin*, kw_error* error) {
  if (me.is("answers-a-garbage-code") && writes > 1) return 77;
  if (me.is("leaves-the-error-empty") && writes > 1) return KW_DATA_LOSS;
  return Inner().sync(me.inner, error);
}
int32_t ViewOpen(kw_plugin*, kw_kv_view** out, kw_error* error) {
  return Inner().view_open(me.inner, out, error);
}
void ViewClose(kw_plugin*, kw_kv_view* view) { Inner().view_close(me.inner, view); }
int32_t Get(kw_plugin*, kw_kv_view* view, uint32_t table, const kw_slice* keys, size_t count,
            kw_slice* values, kw_error* error) {
  if (me.is("throws-in-get")) throw 42;
  return Inner().get(me.inner, view, table, keys, count, values, error);
}
int32_t CursorOpen(kw_plugin*, kw_kv_view* view, uint32_t table, kw_slice begin, kw_slice end,
                   uint32_t descending, kw_kv_cursor** out, kw_error* error) {
  return Inner().cursor_open(me.inner, view, table, begin, end, descending, out, error);
}
int32_t CursorNext(kw_plugin*, kw_kv_cursor* cursor, kw_kv_pair* pairs, size_t capacity, size_t* count,
                   kw_error* error) {
  const int32_t code = Inner().cursor_next(me.inner, cursor, pairs, capacity, count, error);
  if (me.is("gives-a-garbage-count")) *count = capacity + 6;
  if (me.is("changes-a-result") && code == KW_OK) {
    // The values of one call are overwritten by the next one, although they live until cursor_close.
    const std::lock_guard lock(copies_mutex);
    auto& own = copies[cursor];
    for (auto& old : own) old->assign(old->size(), 'X');
    for (size_t i = 0; i < *count; ++i) {
      own.push_back(std::make_unique<std::string>(View(pairs[i].value)));
      pairs[i].value.ptr = reinterpret_cast<const uint8_t*>(own.back()->data());
    }
  }
  return code;
}
void CursorClose(kw_plugin*, kw_kv_cursor* cursor) {
  Inner().cursor_close(me.inner, cursor);
  const std::lock_guard lock(copies_mutex);
  copies.erase(cursor);
}
int32_t Stats(kw_plugin*, kw_kv_stats* out, kw_error* error) { return Inner().stats(me.inner, out, error); }

kw_kv_store table = {.size = sizeof(kw_kv_store),
                     .write = Write,
                     .sync = Sync,
                     .view_open = ViewOpen,
                     .view_close = ViewClose,
                     .get = Get,
                     .cursor_open = CursorOpen,
                     .cursor_next = CursorNext,
                     .cursor_close = CursorClose,
                     .stats = Stats};

int32_t Start(kw_plugin*, kw_error* error) {
  if (me.is("throws-in-start")) throw std::runtime_error("a mutant's start");
  return me.inner->start(me.inner, error);
}
void Stop(kw_plugin*) {
  if (me.is("throws-in-stop")) throw std::runtime_error("a mutant's stop");
  me.inner->stop(me.inner);
}
const void* Get(kw_plugin*, const char* interface_id) {
  if (std::strcmp(interface_id, KW_KV_STORE) != 0) return nullptr;
  table.caps = Inner().caps & KW_KV_CAP_PINNED_CURSOR;
  table.key_bytes_max = Inner().key_bytes_max;
  table.value_bytes_max = Inner().value_bytes_max;
  return &table;
}

int32_t CreateStorage(const kw_host* host, const kw_config_item* items, size_t count, kw_plugin** out,
                      kw_error* error) {
  me.plugin = {sizeof(kw_plugin),
               0,
               nullptr,
               Start,
               Stop,
               [](kw_plugin*) { me.inner->destroy(me.inner); },
               static_cast<const void* (*)(kw_plugin*, const char*)>(Get)};
  return Create(host, items, count, out, error);
}

constexpr kw_config_field kFields[] = {{"dir", "path", nullptr, "of the real plugin"},
                                       {"real", "path", nullptr, "the real plugin"},
                                       {"mutant", "string", "none", "the defect"}};
constexpr const char* kProvides[] = {KW_KV_STORE, nullptr};
constexpr const char* kNeeds[] = {KW_LOG, KW_CLOCK, KW_METRICS, nullptr};
constexpr kw_descriptor kDescriptor = {sizeof(kw_descriptor),
                                       KW_ABI_MAJOR,
                                       0,
                                       "mutant-storage",
                                       "0.1.0",
                                       "Apache-2.0",
                                       "alpha",
                                       kProvides,
                                       kNeeds,
                                       kFields,
                                       3,
                                       CreateStorage};

}  // namespace
}  // namespace keyway::mutants

KW_PLUGIN_ENTRY(mutant_storage) {
  static constexpr const kw_descriptor* kPlugins[] = {&keyway::mutants::kDescriptor};
  static constexpr kw_entry kEntry = {sizeof(kw_entry), KW_ABI_MAJOR, KW_ABI_MINOR, kPlugins, 1};
  return &kEntry;
}
