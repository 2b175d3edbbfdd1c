// SPDX-License-Identifier: Apache-2.0
//
// The plugin "storage-rocksdb": keyway.kv-store/1 over Engine.
#include "keyway/plugin.hpp"

#include <memory>
#include <string_view>

#include "engine.h"
#include "keyway/kv_store.h"

KW_PLUGIN_MANIFEST(
    "id=storage-rocksdb;version=0.1.0;abi=1.0;license=Apache-2.0;stability=beta;"
    "provides=keyway.kv-store/1;needs=keyway.log/1,keyway.clock/1,keyway.metrics/1");

namespace keyway::storage_rocksdb {
namespace {

bool FindCompression(std::string_view name, rocksdb::CompressionType* out) {
  static constexpr std::pair<std::string_view, rocksdb::CompressionType> kNames[] = {
      {"none", rocksdb::kNoCompression},
      {"snappy", rocksdb::kSnappyCompression},
      {"zlib", rocksdb::kZlibCompression},
      {"bzip2", rocksdb::kBZip2Compression},
      {"lz4", rocksdb::kLZ4Compression},
      {"lz4hc", rocksdb::kLZ4HCCompression},
      {"zstd", rocksdb::kZSTD}};
  for (const auto& [known, type] : kNames) {
    if (name == known) {
      *out = type;
      return true;
    }
  }
  return false;
}

class RocksdbPlugin {
 public:
  static int32_t Create(const kw_host* host, const ConfigReader& config, std::unique_ptr<RocksdbPlugin>* out,
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

Engine& Self(kw_plugin* plugin) { return SelfOf<RocksdbPlugin>(plugin).engine(); }
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
int32_t Reclaim(kw_plugin* plugin, kw_completion* completion) noexcept {
  return Guard(nullptr, [&] { return Self(plugin).Reclaim(completion); });
}

constexpr kw_kv_store kKvStore = {sizeof(kw_kv_store),
                                  KW_KV_CAP_CHECKPOINT | KW_KV_CAP_RECLAIM,
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
                                  Reclaim};

const void* RocksdbPlugin::Get(std::string_view interface_id) {
  return interface_id == KW_KV_STORE ? &kKvStore : nullptr;
}

int32_t RocksdbPlugin::Create(const kw_host* host, const ConfigReader& config,
                              std::unique_ptr<RocksdbPlugin>* out, kw_error* error) {
  auto plugin = std::make_unique<RocksdbPlugin>();
  plugin->host_ = host;
  Options& options = plugin->options_;
  options.directory = config.String("dir");
  options.block_cache_bytes = static_cast<uint64_t>(config.Int("block_cache", 32 << 20));
  options.write_buffer_bytes = static_cast<uint64_t>(config.Int("write_buffer", 16 << 20));
  options.background_jobs_max = static_cast<int>(config.Int("max_background_jobs", 2));
  options.open_files_max = static_cast<int>(config.Int("max_open_files", 512));
  options.use_log = config.Bool("wal", false);
  if (options.directory.empty()) {
    return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG, "dir: must not be empty");
  }
  const std::string compression = config.String("compression", "lz4");
  if (!FindCompression(compression, &options.compression)) {
    return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG, "compression: unknown: \"",
                      std::string_view(compression), "\"");
  }
  *out = std::move(plugin);
  return KW_OK;
}

constexpr kw_config_field kFields[] = {
    {"dir", "path", nullptr, "Directory of the store; made if missing."},
    {"compression", "enum(none|snappy|zlib|bzip2|lz4|lz4hc|zstd)", "lz4",
     "How blocks of tables are compressed from now on; older ones stay as they are."},
    {"block_cache", "bytes(1048576..1099511627776)", "32MiB",
     "Memory for blocks of tables, their indexes and filters; the kernel caches records beside it."},
    {"write_buffer", "bytes(1048576..1073741824)", "16MiB",
     "Memory for what is not yet in a table; twice this while one is written."},
    {"max_background_jobs", "int(2..64)", "2", "Threads that write and merge tables."},
    {"max_open_files", "int(64..1000000)", "512", "Tables kept open."},
    {"wal", "bool", "false",
     "Sync a log of RocksDB's own instead of writing a table at each sync: fewer small tables, but what "
     "is written goes to the disk twice."},
};
constexpr const char* kProvides[] = {KW_KV_STORE, nullptr};
constexpr const char* kNeeds[] = {KW_LOG, KW_CLOCK, KW_METRICS, nullptr};
constexpr kw_descriptor kDescriptor = {sizeof(kw_descriptor),
                                       KW_ABI_MAJOR,
                                       0,
                                       "storage-rocksdb",
                                       "0.1.0",
                                       "Apache-2.0",
                                       "beta",
                                       kProvides,
                                       kNeeds,
                                       kFields,
                                       std::size(kFields),
                                       Lifecycle<RocksdbPlugin>::Create};

}  // namespace
}  // namespace keyway::storage_rocksdb

KW_PLUGIN_ENTRY(storage_rocksdb) { return keyway::SoleEntry<&keyway::storage_rocksdb::kDescriptor>(); }
