// SPDX-License-Identifier: Apache-2.0
//
// A disk in memory for tests: it keeps apart what is durable and what only the page cache has, for
// data by sectors and for names by operation; it can die at a given operation or fail a given call.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "file_system.h"

namespace keyway::log_segmented {

class MemoryFileSystem final : public FileSystem {
 public:
  static constexpr size_t kSectorBytes = 512;
  enum class Survival { kNothing, kEverything, kRandom };

  struct Inode {
    std::vector<uint8_t> cached, durable;
    std::set<size_t> dirty;  // Sectors that differ, maybe.
  };
  using InodeRef = std::shared_ptr<Inode>;
  using Names = std::map<std::string, InodeRef>;

  explicit MemoryFileSystem(uint64_t seed = 1) : random_(seed) {}

  // The disk as it is after a power loss now: a new file system, without this one's faults.
  std::unique_ptr<MemoryFileSystem> AfterPowerLoss(Survival survival, uint64_t seed) const {
    std::lock_guard lock(mutex_);
    auto after = std::make_unique<MemoryFileSystem>(seed);
    Names names = durable_names_;
    size_t kept = name_changes_.size();
    if (survival == Survival::kNothing) kept = 0;
    if (survival == Survival::kRandom) kept = after->random_() % (kept + 1);
    for (size_t i = 0; i < kept; ++i) name_changes_[i](names);
    for (const auto& [name, inode] : names) {
      auto copy = std::make_shared<Inode>();
      copy->cached = inode->durable;
      if (survival == Survival::kEverything) copy->cached = inode->cached;
      if (survival == Survival::kRandom) {
        if (after->random_() % 2 == 0 && copy->cached.size() < inode->cached.size()) {
          copy->cached.resize(inode->cached.size());
        }
        for (const size_t sector : inode->dirty) {
          if (after->random_() % 2 == 0) CopySector(inode->cached, sector, &copy->cached);
        }
      }
      copy->durable = copy->cached;
      after->names_[name] = copy;
    }
    after->durable_names_ = after->names_;
    return after;
  }
  // The disk as another process sees it after this one was killed.
  std::unique_ptr<MemoryFileSystem> AfterKill() const {
    std::lock_guard lock(mutex_);
    auto after = std::make_unique<MemoryFileSystem>(7);
    std::map<const Inode*, InodeRef> copies;
    const auto copy_of = [&](const InodeRef& inode) {
      InodeRef& copy = copies[inode.get()];
      if (copy == nullptr) copy = std::make_shared<Inode>(*inode);
      return copy;
    };
    for (const auto& [name, inode] : names_) after->names_[name] = copy_of(inode);
    for (const auto& [name, inode] : durable_names_) after->durable_names_[name] = copy_of(inode);
    // Pending name changes are kept as "all or nothing" of the whole directory.
    if (!name_changes_.empty()) {
      after->name_changes_.push_back([names = after->names_](Names& all) { all = names; });
    }
    return after;
  }

  // The `count`-th changing operation from now on is done in part, and all later ones fail.
  void DieAt(uint64_t count) {
    std::lock_guard lock(mutex_);
    die_at_ = operations_ + count;
  }
  uint64_t operations() const {
    std::lock_guard lock(mutex_);
    return operations_;
  }
  bool dead() const {
    std::lock_guard lock(mutex_);
    return dead_;
  }
  // Called before each changing operation ("write", "sync", "create", "rename", "remove",
  // "sync_directory") with the file's name; an error is answered instead.
  void SetFault(std::function<Status(const std::string& call, const std::string& name)> fault) {
    std::lock_guard lock(mutex_);
    fault_ = std::move(fault);
  }
  std::vector<uint8_t>& Bytes(const std::string& path) { return names_.at(path)->cached; }
  void Put(const std::string& path, std::vector<uint8_t> bytes) {
    auto inode = std::make_shared<Inode>();
    inode->cached = inode->durable = std::move(bytes);
    names_[path] = durable_names_[path] = inode;
  }
  std::vector<std::string> Paths() const {
    std::lock_guard lock(mutex_);
    std::vector<std::string> paths;
    for (const auto& [name, inode] : names_) paths.push_back(name);
    return paths;
  }

  Status CreateDirectory(const std::string&) override { return {}; }
  Status List(const std::string& path, std::vector<std::string>* names) override {
    std::lock_guard lock(mutex_);
    names->clear();
    for (const auto& [name, inode] : names_) {
      if (name.compare(0, path.size() + 1, path + "/") == 0) {
        names->push_back(name.substr(path.size() + 1));
      }
    }
    return {};
  }
  Status Create(const std::string& path, std::unique_ptr<File>* file) override {
    std::lock_guard lock(mutex_);
    if (Status status = Begin("create", path); !status.ok()) return status;
    auto inode = std::make_shared<Inode>();
    ChangeNames([path, inode](Names& names) { names[path] = inode; });
    *file = std::make_unique<MemoryFile>(*this, inode, path);
    return End();
  }
  Status Open(const std::string& path, std::unique_ptr<File>* file) override {
    std::lock_guard lock(mutex_);
    const auto found = names_.find(path);
    if (found == names_.end()) return Error(KW_NOT_FOUND, path + ": no such file");
    *file = std::make_unique<MemoryFile>(*this, found->second, path);
    return {};
  }
  Status Rename(const std::string& from, const std::string& to) override {
    std::lock_guard lock(mutex_);
    if (Status status = Begin("rename", from); !status.ok()) return status;
    if (names_.count(from) == 0) return Error(KW_NOT_FOUND, from + ": no such file");
    ChangeNames([from, to](Names& names) {
      names[to] = names[from];
      names.erase(from);
    });
    return End();
  }
  Status Remove(const std::string& path) override {
    std::lock_guard lock(mutex_);
    if (Status status = Begin("remove", path); !status.ok()) return status;
    if (names_.count(path) == 0) return Error(KW_NOT_FOUND, path + ": no such file");
    ChangeNames([path](Names& names) { names.erase(path); });
    return End();
  }
  Status SyncDirectory(const std::string& path) override {
    std::lock_guard lock(mutex_);
    if (Status status = Begin("sync_directory", path); !status.ok()) return status;
    if (Status status = End(); !status.ok()) return status;
    durable_names_ = names_;
    name_changes_.clear();
    return {};
  }
  Status Lock(const std::string&, std::unique_ptr<FileLock>* lock) override {
    *lock = std::make_unique<FileLock>();
    return {};
  }

 private:
  class MemoryFile final : public File {
   public:
    MemoryFile(MemoryFileSystem& owner, InodeRef inode, std::string path)
        : owner_(owner), inode_(std::move(inode)), opened_as_(std::move(path)) {}
    Status Write(uint64_t offset, std::span<const uint8_t> bytes) override {
      std::lock_guard lock(owner_.mutex_);
      if (Status status = owner_.Begin("write", Path()); !status.ok()) return status;
      const size_t done = owner_.dead_ ? owner_.random_() % (bytes.size() + 1) : bytes.size();
      if (done == 0) return owner_.End();
      if (inode_->cached.size() < offset + done) inode_->cached.resize(offset + done);
      std::copy_n(bytes.data(), done, inode_->cached.data() + offset);
      for (size_t i = offset / kSectorBytes; i <= (offset + done - 1) / kSectorBytes; ++i) {
        inode_->dirty.insert(i);
      }
      return owner_.End();
    }
    Status Read(uint64_t offset, std::span<uint8_t> bytes, size_t* read_bytes) const override {
      std::lock_guard lock(owner_.mutex_);
      const size_t size = inode_->cached.size();
      *read_bytes = offset >= size ? 0 : std::min<size_t>(bytes.size(), size - offset);
      std::copy_n(inode_->cached.data() + (*read_bytes == 0 ? 0 : offset), *read_bytes, bytes.data());
      return {};
    }
    Status Sync() override {
      std::lock_guard lock(owner_.mutex_);
      if (Status status = owner_.Begin("sync", Path()); !status.ok()) return status;
      if (Status status = owner_.End(); !status.ok()) return status;  // AfterPowerLoss picks.
      inode_->durable.resize(inode_->cached.size());
      for (const size_t sector : inode_->dirty) CopySector(inode_->cached, sector, &inode_->durable);
      inode_->dirty.clear();
      return {};
    }
    Status Size(uint64_t* bytes) const override {
      std::lock_guard lock(owner_.mutex_);
      *bytes = inode_->cached.size();
      return {};
    }

   private:
    // The name that it has now.
    std::string Path() const {
      for (const auto& [name, inode] : owner_.names_) {
        if (inode == inode_) return name;
      }
      return opened_as_;
    }

    MemoryFileSystem& owner_;
    const InodeRef inode_;
    const std::string opened_as_;
  };

  static void CopySector(const std::vector<uint8_t>& from, size_t sector, std::vector<uint8_t>* to) {
    const size_t begin = sector * kSectorBytes;
    const size_t end = std::min({begin + kSectorBytes, from.size(), to->size()});
    if (begin < end) std::copy(from.begin() + begin, from.begin() + end, to->begin() + begin);
  }
  Status Begin(const char* call, const std::string& path) {
    if (dead_) return Error(KW_DATA_LOSS, path + ": the disk is gone");
    if (fault_) {
      if (Status status = fault_(call, path.substr(path.find_last_of('/') + 1)); !status.ok()) {
        return status;
      }
    }
    operations_ += 1;
    if (operations_ == die_at_) dead_ = true;
    return {};
  }
  Status End() const { return dead_ ? Error(KW_DATA_LOSS, "the disk is gone") : Status{}; }
  void ChangeNames(std::function<void(Names&)> change) {
    change(names_);
    name_changes_.push_back(std::move(change));
  }

  mutable std::mutex mutex_;
  std::mt19937_64 random_;
  Names names_, durable_names_;
  std::vector<std::function<void(Names&)>> name_changes_;  // Since the last SyncDirectory.
  uint64_t operations_ = 0;
  uint64_t die_at_ = 0;
  bool dead_ = false;
  std::function<Status(const std::string&, const std::string&)> fault_;
};

}  // namespace keyway::log_segmented
