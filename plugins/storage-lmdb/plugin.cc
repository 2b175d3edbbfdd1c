// SPDX-License-Identifier: Apache-2.0
//
// The plugin "storage-lmdb": keyway.kv-store/1 over Engine.
#include "keyway/plugin.hpp"

#include <memory>
#include <string_view>

#include "engine.h"
#include "keyway/kv_store.h"

KW_PLUGIN_MANIFEST(
    "id=storage-lmdb;version=0.1.0;abi=1.0;license=Apache-2.0;stability=beta;"
    "provides=keyway.kv-store/1;needs=keyway.log/1,keyway.clock/1,keyway.metrics/1");

namespace keyway::storage_lmdb {
namespace {

class LmdbPlugin {
 public:
  static int32_t Create(const kw_host* host, const ConfigReader& config, std::unique_ptr<LmdbPlugin>* out,
                        kw_error* error);
  int32_t Start(kw_error* error) {
    engine_ = std::make_unique<Engine>(options_);
    return engine_->Open(host_, error);
  }
  void Stop() { engine_->Close(); }
  static const void* Get(std::string_view interface_id);
  Engine& engine() { return *engine_; }

 private:
  const kw_host* host_ = nullptr;
  Options options_;
  std::unique_ptr<Engine> engine_;
};

Engine& Self(kw_plugin* plugin) { return SelfOf<LmdbPlugin>(plugin).engine(); }
auto* ToView(kw_kv_view* view) { return reinterpret_cast<ReadView*>(view); }
auto* ToCursor(kw_kv_cursor* cursor) { return reinterpret_cast<Cursor*>(cursor); }

int32_t Write(kw_plugin* plugin, const kw_kv_op* ops, size_t op_count, kw_error* error) noexcept {
  return Guard(error, [&] { return Self(plugin).Write({ops, op_count}, error); });
}
int32_t Sync(kw_plugin* plugin, kw_error* error) noexcept {
  return Guard(error, [&] { return Self(plugin).Sync(error); });
}
int32_t ViewOpen(kw_plugin* plugin, kw_kv_view** out, kw_error* error) noexcept {
  return Guard(error, [&] { return Self(plugin).OpenView(reinterpret_cast<ReadView**>(out), error); });
}
void ViewClose(kw_plugin* plugin, kw_kv_view* view) noexcept { Self(plugin).CloseView(ToView(view)); }
int32_t Get(kw_plugin* plugin, kw_kv_view* view, uint32_t table, const kw_slice* keys, size_t key_count,
            kw_slice* values, kw_error* error) noexcept {
  return Guard(error, [&] {
    return Self(plugin).Get(ToView(view), table, {keys, key_count}, values, error);
  });
}
int32_t CursorOpen(kw_plugin* plugin, kw_kv_view* view, uint32_t table, kw_slice begin, kw_slice end,
                   uint32_t descending, kw_kv_cursor** out, kw_error* error) noexcept {
  return Guard(error, [&] {
    return Self(plugin).OpenCursor(ToView(view), table, begin, end, descending != 0,
                                   reinterpret_cast<Cursor**>(out), error);
  });
}
int32_t CursorNext(kw_plugin* plugin, kw_kv_cursor* cursor, kw_kv_pair* pairs, size_t capacity, size_t* count,
                   kw_error* error) noexcept {
  return Guard(error, [&] { return Self(plugin).Next(ToCursor(cursor), {pairs, capacity}, count, error); });
}
void CursorClose(kw_plugin* plugin, kw_kv_cursor* cursor) noexcept {
  Self(plugin).CloseCursor(ToCursor(cursor));
}
int32_t Stats(kw_plugin* plugin, kw_kv_stats* out, kw_error*) noexcept {
  Self(plugin).Stats(out);
  return KW_OK;
}
int32_t Checkpoint(kw_plugin* plugin, const char* directory, kw_completion* completion) noexcept {
  return Guard(nullptr, [&] { return Self(plugin).Checkpoint(directory, completion); });
}

constexpr kw_kv_store kKvStore = {sizeof(kw_kv_store),
                                  KW_KV_CAP_PINNED_CURSOR | KW_KV_CAP_CHECKPOINT,
                                  kKeyBytesMax,
                                  0,
                                  kValueBytesMax,
                                  Write,
                                  Sync,
                                  ViewOpen,
                                  ViewClose,
                                  Get,
                                  CursorOpen,
                                  CursorNext,
                                  CursorClose,
                                  Stats,
                                  Checkpoint,
                                  nullptr};

const void* LmdbPlugin::Get(std::string_view interface_id) {
  return interface_id == KW_KV_STORE ? &kKvStore : nullptr;
}

int32_t LmdbPlugin::Create(const kw_host* host, const ConfigReader& config, std::unique_ptr<LmdbPlugin>* out,
                           kw_error* error) {
  auto plugin = std::make_unique<LmdbPlugin>();
  plugin->host_ = host;
  Options& options = plugin->options_;
  options.directory = config.String("dir");
  options.map_bytes = static_cast<uint64_t>(config.Int("map_size", int64_t{64} << 30));
  options.readers_max = static_cast<uint32_t>(config.Int("max_readers", 1024));
  if (options.directory.empty()) {
    return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG, "dir: must not be empty");
  }
  if (options.map_bytes < kMapBytesMin || options.map_bytes > kMapBytesMax) {
    return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG, "map_size: ", options.map_bytes,
                      " is out of range");
  }
  *out = std::move(plugin);
  return KW_OK;
}

constexpr kw_config_field kFields[] = {
    {"dir", "path", nullptr, "Directory of the store; made if missing."},
    {"map_size", "bytes(1048576..70368744177664)", "64GiB",
     "Address space for the file, not memory and not disk; grows by itself."},
    {"max_readers", "int(16..65536)", "1024", "Views that can be open at the same time."},
};
constexpr const char* kProvides[] = {KW_KV_STORE, nullptr};
constexpr const char* kNeeds[] = {KW_LOG, KW_CLOCK, KW_METRICS, nullptr};
constexpr kw_descriptor kDescriptor = {sizeof(kw_descriptor),
                                       KW_ABI_MAJOR,
                                       0,
                                       "storage-lmdb",
                                       "0.1.0",
                                       "Apache-2.0",
                                       "beta",
                                       kProvides,
                                       kNeeds,
                                       kFields,
                                       std::size(kFields),
                                       Lifecycle<LmdbPlugin>::Create};

}  // namespace
}  // namespace keyway::storage_lmdb

KW_PLUGIN_ENTRY(storage_lmdb) { return keyway::SoleEntry<&keyway::storage_lmdb::kDescriptor>(); }
