// SPDX-License-Identifier: Apache-2.0
//
// Opening and closing the environment, and what can be told about a damaged file.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "engine.h"
#include "file_check.h"

namespace keyway::storage_lmdb {
bool AddressSpaceIsThere(uint64_t bytes) {
  void* address = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) return false;
  ::munmap(address, bytes);
  return true;
}

void Gate::Enter() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !closed_; });
  users_ += 1;
}

void Gate::Leave() {
  std::lock_guard lock(mutex_);
  users_ -= 1;
  if (closed_ && users_ == 0) changed_.notify_all();
}

int32_t Engine::Failed(kw_error* error, const char* call, int result) const {
  int32_t code = KW_INTERNAL;
  uint32_t detail = KW_DETAIL_NONE;
  switch (result) {
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_PANIC:
    case EIO:
      code = KW_DATA_LOSS;
      break;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      code = KW_RESOURCE_EXHAUSTED;
      detail = KW_DETAIL_NO_SPACE;
      break;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case MDB_READERS_FULL:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      code = KW_RESOURCE_EXHAUSTED;
      break;
    case MDB_BAD_VALSIZE:
      code = KW_INVALID_ARGUMENT;
      break;
    case MDB_VERSION_MISMATCH:
      code = KW_FAILED_PRECONDITION;
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      code = KW_PERMISSION_DENIED;
      break;
    default:
      break;
  }
  return FailDetail(error, code, detail, DataPath(), ": ", call, ": ", std::string_view(mdb_strerror(result)),
                    " (", result, ")");
}

int32_t Engine::OpenEnvironment(kw_error* error) {
  struct stat info = {};
  uint64_t file_bytes = 0;
  if (::stat(DataPath().c_str(), &info) == 0) file_bytes = static_cast<uint64_t>(info.st_size);
  // A limit on address space (ulimit -v) makes the map smaller, as long as the file fits.
  uint64_t map_bytes = options_.map_bytes;
  while (map_bytes < file_bytes + kMapBytesMin) map_bytes *= 2;
  while (!AddressSpaceIsThere(map_bytes)) {
    if (map_bytes / 2 < file_bytes + kMapBytesMin) return Failed(error, "mmap", ENOMEM);
    map_bytes /= 2;
  }
  map_bytes = map_bytes / 4096 * 4096;
  int result = mdb_env_create(&environment_);
  if (result != 0) return Failed(error, "mdb_env_create", result);
  result = mdb_env_set_mapsize(environment_, map_bytes);
  if (result == 0) result = mdb_env_set_maxdbs(environment_, KW_KV_TABLE_COUNT);
  if (result == 0) result = mdb_env_set_maxreaders(environment_, options_.readers_max);
  if (result != 0) return Failed(error, "mdb_env_set", result);
  // NOTLS: a view may change threads. NORDAHEAD: reads of single records must not pull in their
  // surroundings; a scan in key order gets read-ahead of the kernel's own on what is contiguous.
  result = mdb_env_open(environment_, options_.directory.c_str(), MDB_NOTLS | MDB_NORDAHEAD | MDB_NOMETASYNC,
                        0600);
  if (result != 0) return Failed(error, "mdb_env_open", result);
  if (mdb_env_get_maxkeysize(environment_) < static_cast<int>(kKeyBytesMax)) {
    return Fail(error, KW_FAILED_PRECONDITION, "this LMDB takes keys of ",
                mdb_env_get_maxkeysize(environment_), " bytes only");
  }
  int dead_readers = 0;  // We hold LOCK, so whoever has a slot is gone.
  result = mdb_reader_check(environment_, &dead_readers);
  if (result != 0) return Failed(error, "mdb_reader_check", result);
  map_bytes_ = map_bytes;
  data_file_ = ::open(DataPath().c_str(), O_RDWR | O_CLOEXEC);
  if (data_file_ < 0) return Failed(error, "open", errno);
  return KW_OK;
}

int32_t Engine::OpenTables(kw_error* error) {
  MDB_txn* transaction = nullptr;
  int result = mdb_txn_begin(environment_, nullptr, 0, &transaction);
  if (result != 0) return Failed(error, "mdb_txn_begin", result);
  for (uint32_t table = 0; table < KW_KV_TABLE_COUNT && result == 0; ++table) {
    const char name[2] = {static_cast<char>('0' + table), '\0'};
    result = mdb_dbi_open(transaction, name, MDB_CREATE, &tables_[table]);
  }
  if (result != 0) {
    mdb_txn_abort(transaction);
    return Failed(error, "mdb_dbi_open", result);
  }
  MDB_stat stat;
  if (mdb_stat(transaction, tables_[0], &stat) == 0) page_bytes_ = stat.ms_psize;
  RefreshStats(transaction);
  result = mdb_txn_commit(transaction);
  if (result != 0) return Failed(error, "mdb_txn_commit", result);
  RefreshDiskBytes();
  return Sync(error);
}

// A page behind the end of the file would be a SIGBUS at its first use. The file may end early without
// harm, if its last pages were allocated and given up in one transaction; so it is looked at closely.
int32_t Engine::CheckFileSize(kw_error* error) {
  struct stat info;
  if (::fstat(data_file_, &info) != 0) return Failed(error, "fstat", errno);
  const auto file_bytes = static_cast<uint64_t>(info.st_size);
  MDB_envinfo environment;
  MDB_stat stat;
  mdb_env_info(environment_, &environment);
  mdb_env_stat(environment_, &stat);  // Both read the meta page only.
  const uint64_t expected = (uint64_t{environment.me_last_pgno} + 1) * stat.ms_psize;
  if (file_bytes >= expected) return KW_OK;
  log_.Warn("file_short",
            {{"file", std::string_view(DataPath())}, {"bytes", file_bytes}, {"bytes_expected", expected}});
  const std::string problem = CheckFile(data_file_);
  if (problem.empty()) return KW_OK;
  return Fail(error, KW_DATA_LOSS, DataPath(), ": the file ends at byte ", file_bytes, " of ", expected, ": ",
              std::string_view(problem));
}

// Where the file is mapped, NULL if that cannot be told: LMDB does not, so the kernel is asked.
uint8_t* Engine::MapAddress() const {
  struct stat info;
  if (::fstat(data_file_, &info) != 0) return nullptr;
  std::FILE* maps = std::fopen("/proc/self/maps", "re");
  if (maps == nullptr) return nullptr;
  uint8_t* address = nullptr;
  char line[4608];
  while (address == nullptr && std::fgets(line, sizeof line, maps) != nullptr) {
    unsigned long long begin = 0, offset = 0, inode = 0;
    const int fields = std::sscanf(line, "%llx-%*x %*4s %llx %*s %llu", &begin, &offset, &inode);
    const bool is_file = fields == 3 && offset == 0 && inode == info.st_ino;
    if (is_file && std::strstr(line, "/data.mdb") != nullptr) {
      address = reinterpret_cast<uint8_t*>(begin);
    }
  }
  std::fclose(maps);
  return address;
}

int32_t Engine::Open(const kw_host* maybe_host, kw_error* error) {
  log_ = Logger(maybe_host);
  clock_ = Clock(maybe_host);
  commit_seconds_ = Histogram(maybe_host, "etcd_disk_backend_commit_duration_seconds",
                              "The latency distributions of commit called by the storage engine.",
                              Histogram::Exponential(0.001, 2, 14));
  int32_t code = lock_.Open(options_.directory, {"data.mdb", "lock.mdb"}, error);
  if (code == KW_OK) code = OpenEnvironment(error);
  if (code == KW_OK) code = CheckFileSize(error);
  if (code == KW_OK) code = OpenTables(error);
  if (code != KW_OK) {
    Close();
    return code;
  }
  worker_ = std::thread([this] { RunWorker(); });
  log_.Info("store_opened", {{"file", std::string_view(DataPath())},
                             {"disk_bytes", disk_bytes_.load()},
                             {"live_bytes", live_bytes_.load()},
                             {"map_bytes", map_bytes_.load()}});
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
  for (MDB_txn* transaction : idle_) mdb_txn_abort(transaction);
  idle_.clear();
  if (environment_ != nullptr) {
    if (views_open_ == 0) {
      mdb_env_close(environment_);
    } else {
      // Whoever still reads would crash: the map stays until the process ends.
      log_.Error("views_open_at_stop", {{"views", views_open_.load()}});
    }
  }
  environment_ = nullptr;
  if (data_file_ >= 0) ::close(data_file_);
  data_file_ = -1;
  lock_.Close();
}

}  // namespace keyway::storage_lmdb
