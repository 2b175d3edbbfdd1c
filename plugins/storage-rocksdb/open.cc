// SPDX-License-Identifier: Apache-2.0
//
// Opening and closing the database; what a status of RocksDB means.
#include <rocksdb/convenience.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/table.h>

#include <algorithm>
#include <cstring>

#include "engine.h"
#include "environment.h"

namespace keyway::storage_rocksdb {
namespace {

constexpr size_t kBlockBytes = 8 << 10;
constexpr uint64_t kManifestBytesMax = 4 << 20;  // Then it is written anew.
constexpr uint64_t kSyncEveryBytes = 1 << 20;    // Else a large file's flush would hold up the log's.
constexpr int kRunsBeforeMerge = 8;              // Sorted runs; small files are merged from this on,
constexpr int kRunsSlow = 40, kRunsStop = 64;    // and writes wait from these on.

// Whether a status tells of this errno: RocksDB gives its text only.
bool IsErrno(const std::string& text, int number) {
  return text.find(std::strerror(number)) != std::string::npos;
}

bool HoldsTables(const std::string& path) {
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) return false;
  bool holds = false;
  while (const dirent* entry = ::readdir(directory)) {
    holds = holds || std::string_view(entry->d_name).ends_with(".sst");
  }
  ::closedir(directory);
  return holds;
}

}  // namespace

// Compactions change how much is on the disk.
class Engine::Events : public rocksdb::EventListener {
 public:
  explicit Events(Engine* engine) : engine_(engine) {}
  void OnCompactionCompleted(rocksdb::DB* database, const rocksdb::CompactionJobInfo&) override {
    engine_->RefreshStats(database);
  }

 private:
  Engine* const engine_;
};

int32_t Engine::Failed(kw_error* error, const char* call, const rocksdb::Status& status) const {
  const std::string text = status.ToString();
  int32_t code = KW_INTERNAL;
  uint32_t detail = KW_DETAIL_NONE;
  if (status.IsNoSpace() || IsErrno(text, EFBIG) || IsErrno(text, EDQUOT)) {
    code = KW_RESOURCE_EXHAUSTED;
    detail = KW_DETAIL_NO_SPACE;
  } else if (IsErrno(text, EACCES) || IsErrno(text, EPERM) || IsErrno(text, EROFS)) {
    code = KW_PERMISSION_DENIED;
  } else if (status.IsMemoryLimit() || IsErrno(text, EMFILE) || IsErrno(text, ENFILE)) {
    code = KW_RESOURCE_EXHAUSTED;
  } else if (status.IsCorruption() || status.IsIOError()) {
    code = KW_DATA_LOSS;  // The text names the file.
  } else if (status.IsInvalidArgument()) {
    code = KW_INVALID_ARGUMENT;
  } else if (status.IsNotSupported()) {
    code = KW_FAILED_PRECONDITION;  // A format that this RocksDB does not know.
  }
  // The text of an error is short: the directory is said once.
  if (text.find(options_.directory) != std::string::npos) {
    return FailDetail(error, code, detail, call, ": ", std::string_view(text));
  }
  return FailDetail(error, code, detail, options_.directory, ": ", call, ": ", std::string_view(text));
}

rocksdb::Options Engine::DatabaseOptions() {
  rocksdb::Options options;
  options.env = environment_.get();
  options.info_log = NewInfoLog(log_);
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.listeners.push_back(std::make_shared<Events>(this));
  options.paranoid_checks = true;
  options.max_open_files = options_.open_files_max;
  options.max_file_opening_threads = 1;
  options.max_background_jobs = options_.background_jobs_max;
  options.max_manifest_file_size = kManifestBytesMax;
  options.bytes_per_sync = kSyncEveryBytes;
  options.wal_bytes_per_sync = kSyncEveryBytes;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.avoid_unnecessary_blocking_io = true;  // Closing a cursor deletes no file.
  // A torn end of the log is normal after a crash; damage before it is not.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  // There is one writer.
  options.allow_concurrent_memtable_write = false;
  options.enable_write_thread_adaptive_yield = false;

  options.write_buffer_size = options_.write_buffer_bytes;
  options.max_write_buffer_number = 2;
  options.compression = options_.compression;
  options.compaction_style = rocksdb::kCompactionStyleUniversal;
  options.compaction_options_universal.size_ratio = 10;
  options.level0_file_num_compaction_trigger = kRunsBeforeMerge;
  options.level0_slowdown_writes_trigger = kRunsSlow;
  options.level0_stop_writes_trigger = kRunsStop;
  options.optimize_filters_for_hits = true;  // Nearly all that is asked for is there.

  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(options_.block_cache_bytes);
  table.block_size = kBlockBytes;
  table.cache_index_and_filter_blocks = true;  // Within the cache's size, however large the store.
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

int32_t Engine::Open(const kw_host* maybe_host, kw_error* error) {
  log_ = Logger(maybe_host);
  clock_ = Clock(maybe_host);
  commit_seconds_ = Histogram(maybe_host, "etcd_disk_backend_commit_duration_seconds",
                              "The latency distributions of commit called by the storage engine.",
                              Histogram::Exponential(0.001, 2, 14));
  const auto supported = rocksdb::GetSupportedCompressions();
  if (std::find(supported.begin(), supported.end(), options_.compression) == supported.end()) {
    return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG,
                      "compression: this RocksDB was built without it");
  }
  if (const int32_t code = lock_.Open(options_.directory, {"db"}, error); code != KW_OK) return code;
  environment_ = NewEnvironment();
  rocksdb::Options options = DatabaseOptions();
  const std::string path = DatabasePath();
  // RocksDB would make a new database of a directory that has lost its CURRENT, and delete the rest.
  const bool has_current = ::access((path + "/CURRENT").c_str(), F_OK) == 0;
  if (!has_current && HoldsTables(path)) {
    Close();
    return Fail(error, KW_DATA_LOSS, path, "/CURRENT: missing, but there are tables beside it");
  }
  options.create_if_missing = !has_current;
  rocksdb::DB* database = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, path, &database);
  if (!status.ok()) {
    const int32_t code = Failed(error, "open", status);
    Close();
    return code;
  }
  database_.reset(database);
  RefreshStats(database);
  worker_ = std::thread([this] { RunWorker(); });
  log_.Info("store_opened", {{"directory", std::string_view(options_.directory)},
                             {"disk_bytes", disk_bytes_.load()},
                             {"live_bytes", live_bytes_.load()}});
  return KW_OK;
}

void Engine::Close() {
  if (worker_.joinable()) {
    {
      std::lock_guard lock(worker_mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    worker_.join();
  }
  if (database_ != nullptr && views_open_ != 0) {
    // Whoever still reads would crash: the database stays until the process ends.
    log_.Error("views_open_at_stop", {{"views", views_open_.load()}});
    (void)database_.release();
    (void)environment_.release();
    return;
  }
  if (database_ != nullptr) {
    const rocksdb::Status status = database_->Close();  // Writes the memtable to a file.
    if (!status.ok()) log_.Error("store_close_failed", {{"error", std::string_view(status.ToString())}});
  }
  database_.reset();
  environment_.reset();
  lock_.Close();
}

}  // namespace keyway::storage_rocksdb
