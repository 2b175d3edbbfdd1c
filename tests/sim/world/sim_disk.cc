// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/sim_disk.h"

#include <algorithm>
#include <cstring>

namespace keyway::sim {

using log_segmented::Error;

class SimDisk::OpenFile final : public log_segmented::File {
 public:
  OpenFile(SimDisk& disk, InodeRef inode) : disk_(disk), inode_(std::move(inode)) {}
  Status Write(uint64_t offset, std::span<const uint8_t> bytes) override {
    return disk_.WriteTo(*inode_, offset, bytes);
  }
  Status Read(uint64_t offset, std::span<uint8_t> bytes, size_t* read_bytes) const override {
    if (disk_.dead_) return Error(KW_DATA_LOSS, "the disk is gone");
    if (disk_.random_.Chance(disk_.faults.read_error_ppm)) {
      ++disk_.faults_injected_;
      return Error(KW_INTERNAL, "read: input/output error");
    }
    const size_t size = inode_->bytes.size();
    *read_bytes = offset >= size ? 0 : std::min<size_t>(bytes.size(), size - offset);
    if (*read_bytes != 0) std::memcpy(bytes.data(), inode_->bytes.data() + offset, *read_bytes);
    return {};
  }
  Status Sync() override { return disk_.SyncFile(*inode_); }
  Status Size(uint64_t* bytes) const override {
    *bytes = inode_->bytes.size();
    return {};
  }

 private:
  SimDisk& disk_;
  const InodeRef inode_;
};

// ---- faults --------------------------------------------------------------------------------------------

void SimDisk::DieAfter(uint64_t count) {
  dying_ = true;
  operations_left_ = count;
  dead_ = count == 0;
}

void SimDisk::PowerLoss() {
  dying_ = dead_ = false;
  const size_t kept = random_.Below(name_changes_.size() + 1);
  names_ = durable_names_;
  for (size_t i = 0; i < kept; ++i) name_changes_[i](names_);
  durable_names_ = names_;
  name_changes_.clear();
  for (auto& [name, inode] : names_) {
    for (auto& [sector, undo] : inode->dirty) {
      if (!undo.lost && random_.Coin()) continue;
      const size_t begin = sector * kSectorBytes;
      const size_t end = std::min(begin + kSectorBytes, inode->bytes.size());
      if (begin < end) std::memcpy(inode->bytes.data() + begin, undo.durable.data(), end - begin);
    }
    inode->dirty.clear();
    if (inode->bytes.size() > inode->durable_bytes && random_.Coin())
      inode->bytes.resize(inode->durable_bytes);
    inode->durable_bytes = inode->bytes.size();
  }
}

void SimDisk::Wipe() {
  names_.clear();
  durable_names_.clear();
  name_changes_.clear();
  Revive();
}

std::unique_ptr<SimDisk> SimDisk::Copy(uint64_t seed) const {
  auto copy = std::make_unique<SimDisk>(seed);
  for (const auto& [name, inode] : names_) {
    auto own = std::make_shared<Inode>();
    own->bytes = inode->bytes;
    own->durable_bytes = inode->bytes.size();
    copy->names_[name] = own;
  }
  copy->durable_names_ = copy->names_;
  return copy;
}

std::vector<std::string> SimDisk::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, inode] : names_) names.push_back(name);
  return names;
}

std::string SimDisk::Corrupt() {
  std::vector<std::pair<std::string, Inode*>> segments;
  const Inode* last = nullptr;
  for (const auto& [name, inode] : names_) {
    if (!name.ends_with(".seg")) continue;
    segments.emplace_back(name, inode.get());
    if (inode->last_begin >= kSectorBytes) last = inode.get();
  }
  if (segments.empty()) return "";
  auto& [name, inode] = segments[random_.Below(segments.size())];
  if (inode->bytes.empty()) return "";
  size_t at = random_.Below(inode->bytes.size());
  // Mostly where something stands.
  if (inode == last && inode->last_end != 0 && !random_.Chance(100'000)) at = random_.Below(inode->last_end);
  const size_t sector = at / kSectorBytes;
  if (inode->dirty.count(sector) != 0) return "";
  if (at >= inode->last_begin / kSectorBytes * kSectorBytes && at < inode->last_end + kSectorBytes) return "";
  if (random_.Coin()) {
    inode->bytes[at] ^= static_cast<uint8_t>(1u << random_.Below(8));
    return name + ": a bit of byte " + std::to_string(at) + " flipped";
  }
  const size_t begin = sector * kSectorBytes;
  const size_t end = std::min(begin + kSectorBytes, inode->bytes.size());
  std::fill(inode->bytes.begin() + static_cast<ptrdiff_t>(begin),
            inode->bytes.begin() + static_cast<ptrdiff_t>(end), uint8_t{0});
  return name + ": sector " + std::to_string(sector) + " zeroed";
}

SimDisk::Status SimDisk::Begin(uint32_t error_ppm, const char* what, bool takes_space) {
  if (dead_) return Error(KW_DATA_LOSS, "the disk is gone");
  if (takes_space && faults.full) {
    ++faults_injected_;
    return Error(KW_RESOURCE_EXHAUSTED, std::string(what) + ": no space left on device");
  }
  if (random_.Chance(error_ppm)) {
    ++faults_injected_;
    return Error(KW_INTERNAL, std::string(what) + ": input/output error");
  }
  if (dying_ && --operations_left_ == 0) dead_ = true;
  return {};
}

SimDisk::Status SimDisk::End() const { return dead_ ? Error(KW_DATA_LOSS, "the disk is gone") : Status{}; }

// ---- files ---------------------------------------------------------------------------------------------

SimDisk::Status SimDisk::WriteTo(Inode& inode, uint64_t offset, std::span<const uint8_t> bytes) {
  // Only growing takes space.
  const bool grows = offset + bytes.size() > inode.bytes.size();
  if (Status status = Begin(faults.write_error_ppm, "write", grows); !status.ok()) return status;
  const size_t done = dead_ ? random_.Below(bytes.size() + 1) : bytes.size();
  if (done == 0) return End();
  if (inode.bytes.size() < offset + done) inode.bytes.resize(offset + done);
  for (size_t sector = offset / kSectorBytes; sector <= (offset + done - 1) / kSectorBytes; ++sector) {
    auto [at, is_new] = inode.dirty.try_emplace(sector);
    at->second.lost = false;
    if (!is_new) continue;
    const size_t begin = sector * kSectorBytes;
    const size_t end = std::min(begin + kSectorBytes, inode.bytes.size());
    at->second.durable.fill(0);
    std::memcpy(at->second.durable.data(), inode.bytes.data() + begin, end - begin);
  }
  std::memcpy(inode.bytes.data() + offset, bytes.data(), done);
  inode.last_begin = offset;
  inode.last_end = offset + done;
  return End();
}

SimDisk::Status SimDisk::SyncFile(Inode& inode) {
  if (Status status = Begin(faults.sync_error_ppm, "fdatasync", false); !status.ok()) {
    if (dead_) return status;
    for (auto& [sector, undo] : inode.dirty) undo.lost = undo.lost || random_.Coin();
    std::erase_if(inode.dirty, [](const auto& item) { return !item.second.lost; });
    return status;
  }
  if (Status status = End(); !status.ok()) return status;  // PowerLoss() decides.
  std::erase_if(inode.dirty, [](const auto& item) { return !item.second.lost; });
  inode.durable_bytes = inode.bytes.size();
  return {};
}

// ---- names ---------------------------------------------------------------------------------------------

void SimDisk::ChangeNames(std::function<void(NameMap&)> change) {
  change(names_);
  name_changes_.push_back(std::move(change));
}

SimDisk::Status SimDisk::List(const std::string& path, std::vector<std::string>* names) {
  if (dead_) return Error(KW_DATA_LOSS, "the disk is gone");
  names->clear();
  for (const auto& [name, inode] : names_) {
    if (name.starts_with(path + "/")) names->push_back(name.substr(path.size() + 1));
  }
  return {};
}

SimDisk::Status SimDisk::Create(const std::string& path, std::unique_ptr<log_segmented::File>* file) {
  if (Status status = Begin(faults.write_error_ppm, "create", true); !status.ok()) return status;
  auto inode = std::make_shared<Inode>();
  ChangeNames([path, inode](NameMap& names) { names[path] = inode; });
  *file = std::make_unique<OpenFile>(*this, inode);
  return End();
}

SimDisk::Status SimDisk::Open(const std::string& path, std::unique_ptr<log_segmented::File>* file) {
  if (dead_) return Error(KW_DATA_LOSS, "the disk is gone");
  const auto found = names_.find(path);
  if (found == names_.end()) return Error(KW_NOT_FOUND, path + ": no such file");
  *file = std::make_unique<OpenFile>(*this, found->second);
  return {};
}

SimDisk::Status SimDisk::Rename(const std::string& from, const std::string& to) {
  if (Status status = Begin(faults.write_error_ppm, "rename", false); !status.ok()) return status;
  if (names_.count(from) == 0) return Error(KW_NOT_FOUND, from + ": no such file");
  ChangeNames([from, to](NameMap& names) {
    const auto at = names.find(from);
    if (at == names.end()) return;
    names[to] = at->second;
    names.erase(from);
  });
  return End();
}

SimDisk::Status SimDisk::Remove(const std::string& path) {
  if (Status status = Begin(faults.write_error_ppm, "remove", false); !status.ok()) return status;
  if (names_.count(path) == 0) return Error(KW_NOT_FOUND, path + ": no such file");
  ChangeNames([path](NameMap& names) { names.erase(path); });
  return End();
}

SimDisk::Status SimDisk::SyncDirectory(const std::string&) {
  if (Status status = Begin(faults.sync_error_ppm, "fsync of the directory", false); !status.ok())
    return status;
  if (Status status = End(); !status.ok()) return status;
  durable_names_ = names_;
  name_changes_.clear();
  return {};
}

SimDisk::Status SimDisk::Lock(const std::string&, std::unique_ptr<log_segmented::FileLock>* lock) {
  *lock = std::make_unique<log_segmented::FileLock>();
  return {};
}

}  // namespace keyway::sim
