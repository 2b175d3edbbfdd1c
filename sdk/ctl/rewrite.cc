// SPDX-License-Identifier: Apache-2.0
#include "rewrite.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

#include "keyway/crc32c.h"

namespace keyway::ctl {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBatchBytes = 4 << 20;
constexpr size_t kBatchOps = 8192;

std::string ErrnoText(const std::string& path, const char* call) {
  return path + ": " + call + ": " + std::strerror(errno);
}

std::string SyncPath(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return ErrnoText(path, "open");
  const int result = ::fsync(file);
  const std::string error = result == 0 ? "" : ErrnoText(path, "fsync");
  ::close(file);
  return error;
}

// The files of the copy, their directories, and the directory that holds it.
std::string SyncTree(const std::string& root) {
  std::error_code code;
  for (const auto& entry : fs::recursive_directory_iterator(root, code)) {
    if (const std::string error = SyncPath(entry.path()); !error.empty()) return error;
  }
  if (code) return root + ": " + code.message();
  return SyncPath(root);
}

std::string ParentOf(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

// The directory DIR.rewrite, locked, and emptied of what an earlier run left.
class WorkDirectory {
 public:
  explicit WorkDirectory(const std::string& destination) : path_(destination + ".rewrite") {}
  ~WorkDirectory() {
    if (lock_ < 0) return;
    std::error_code ignored;
    fs::remove_all(path_, ignored);
    ::close(lock_);
  }
  std::string Open() {
    if (::mkdir(path_.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoText(path_, "mkdir");
    const std::string lock = path_ + "/LOCK";
    lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock_ < 0) return ErrnoText(lock, "open");
    if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
      ::close(lock_);
      lock_ = -1;
      return path_ + ": another rewrite is at work here";
    }
    std::error_code code;
    fs::remove_all(store(), code);
    return code ? store() + ": " + code.message() : "";
  }
  std::string store() const { return path_ + "/store"; }

 private:
  const std::string path_;
  int lock_ = -1;
};

std::string CheckPlaces(const std::string& from, const std::string& to) {
  std::error_code code;
  if (!fs::is_directory(from, code)) return from + ": no such directory";
  if (fs::is_empty(from, code)) return from + ": an empty directory, not a store";
  if (fs::exists(to, code) && !fs::is_directory(to, code)) return to + ": is no directory";
  if (fs::is_directory(to, code) && !fs::is_empty(to, code)) {
    return to + ": not empty; give a directory that is empty or does not exist";
  }
  if (!fs::is_directory(ParentOf(to), code)) return ParentOf(to) + ": no such directory";
  return "";
}

// Sums of everything in `engine`, and a visit of each pair.
std::string ScanAll(StoreEngine* engine, StoreSum* sum,
                    const std::function<std::string(uint32_t, kw_slice, kw_slice)>& visit) {
  kw_kv_view* view = nullptr;
  std::string error = engine->OpenView(&view);
  if (!error.empty()) return error;
  for (uint32_t table = 0; table < KW_KV_TABLE_COUNT && error.empty(); ++table) {
    error = engine->Scan(view, table, [&](kw_slice key, kw_slice value) {
      sum->tables[table].Add(key, value);
      return visit(table, key, value);
    });
  }
  engine->CloseView(view);
  return error;
}

std::string Copy(StoreEngine* from, StoreEngine* to, const std::function<void(const TableSum&)>& progress,
                 StoreSum* sum) {
  // The bytes of a batch; slices are made when it is complete.
  struct Item {
    uint32_t table;
    size_t key_bytes, value_bytes;
  };
  std::string bytes;
  std::vector<Item> items;
  const auto flush = [&]() -> std::string {
    std::vector<kw_kv_op> ops;
    const auto* at = reinterpret_cast<const uint8_t*>(bytes.data());
    for (const Item& item : items) {
      ops.push_back({KW_KV_PUT, item.table, {at, item.key_bytes}, {at + item.key_bytes, item.value_bytes}});
      at += item.key_bytes + item.value_bytes;
    }
    const std::string error = to->Write(ops);
    items.clear();
    bytes.clear();
    progress(sum->Total());
    return error;
  };
  const std::string error =
      ScanAll(from, sum, [&](uint32_t table, kw_slice key, kw_slice value) -> std::string {
        if (key.len > to->table().key_bytes_max || value.len > to->table().value_bytes_max) {
          return "table " + std::to_string(table) + " holds a key of " + std::to_string(key.len) +
                 " bytes with a value of " + std::to_string(value.len) + "; " + to->id() + " takes " +
                 std::to_string(to->table().key_bytes_max) + " and " +
                 std::to_string(to->table().value_bytes_max);
        }
        items.push_back({table, key.len, value.len});
        bytes.append(reinterpret_cast<const char*>(key.ptr), key.len);
        bytes.append(reinterpret_cast<const char*>(value.ptr), value.len);
        return bytes.size() >= kBatchBytes || items.size() >= kBatchOps ? flush() : "";
      });
  if (!error.empty()) return error;
  const std::string last = items.empty() ? "" : flush();
  return last.empty() ? to->Sync() : last;
}

std::string Verify(StoreEngine* engine, const StoreSum& expected) {
  StoreSum found;
  const std::string error =
      ScanAll(engine, &found, [](uint32_t, kw_slice, kw_slice) { return std::string(); });
  if (!error.empty()) return error;
  for (uint32_t table = 0; table < KW_KV_TABLE_COUNT; ++table) {
    const TableSum &was = expected.tables[table], &is = found.tables[table];
    if (was == is) continue;
    return "the copy differs in table " + std::to_string(table) + ": " + std::to_string(is.pairs) + " of " +
           std::to_string(was.pairs) + " pairs, " + std::to_string(is.bytes) + " of " +
           std::to_string(was.bytes) + " bytes, CRC-32C " + std::to_string(is.crc) + ", not " +
           std::to_string(was.crc);
  }
  return "";
}

}  // namespace

void TableSum::Add(kw_slice key, kw_slice value) {
  const uint64_t lengths[2] = {key.len, value.len};
  crc = kw_crc32c(crc, lengths, sizeof lengths);
  crc = kw_crc32c(crc, key.ptr, key.len);
  crc = kw_crc32c(crc, value.ptr, value.len);
  pairs += 1;
  bytes += key.len + value.len;
}

TableSum StoreSum::Total() const {
  TableSum total;
  for (const TableSum& table : tables) {
    total.pairs += table.pairs;
    total.bytes += table.bytes;
  }
  return total;
}

std::string RewriteStore(StoreEngine* from, StoreEngine* to,
                         const std::function<void(const TableSum&)>& progress, StoreSum* out) {
  std::string destination = to->data_directory();
  while (destination.size() > 1 && destination.back() == '/') destination.pop_back();
  std::string error = CheckPlaces(from->data_directory(), destination);
  if (!error.empty()) return error;
  error = from->Start();  // Refused while a node uses it.
  if (!error.empty()) return error;
  WorkDirectory work(destination);
  error = work.Open();
  if (!error.empty()) return error;
  to->set_data_directory(work.store());
  error = to->Start();
  if (error.empty()) error = Copy(from, to, progress, out);
  if (error.empty() && out->Total().pairs == 0) error = from->data_directory() + ": holds nothing";
  to->Stop();
  if (error.empty()) error = to->Start();  // What is on the disk counts.
  if (error.empty()) error = Verify(to, *out);
  to->Stop();
  from->Stop();
  if (error.empty()) error = SyncTree(work.store());
  if (!error.empty()) return error;
  if (std::rename(work.store().c_str(), destination.c_str()) != 0) return ErrnoText(destination, "rename");
  return SyncPath(ParentOf(destination));
}

}  // namespace keyway::ctl
