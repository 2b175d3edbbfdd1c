// SPDX-License-Identifier: Apache-2.0
//
// SimDisk: a disk and its page cache, for the log's files. It knows for each sector what is durable and
// what only the page cache has, and the same for names. It outlives the processes that use it.
//
//   power loss   of each sector not synced the old or the new content survives; of the changes of names
//                that were not synced a prefix; of a file's growth all or nothing
//   dying        after a number of operations all fail; the last one is done in part
//   sync error   the page cache keeps what the disk does not have, and takes it for written (fsyncgate)
//   at rest      a bit flips, a sector is zeroed: in what is durable, never in the last flush, since damage
//                there cannot be told from a flush that was torn
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "plugins/log-segmented/file_system.h"
#include "tests/sim/world/random.h"

namespace keyway::sim {

class SimDisk final : public log_segmented::FileSystem {
 public:
  static constexpr size_t kSectorBytes = 512;
  using Status = log_segmented::Status;

  // Chances in parts per million of a call.
  struct Faults {
    uint32_t read_error_ppm = 0, write_error_ppm = 0, sync_error_ppm = 0;
    bool full = false;
  };

  explicit SimDisk(uint64_t seed) : random_(seed) {}

  // ---- the world's side ----
  Faults faults;
  uint64_t faults_injected() const { return faults_injected_; }
  // From now on `count` more changing operations are done, the last one in part; then all fail.
  void DieAfter(uint64_t count);
  // The machine has lost its power: what was not synced may be gone. The disk works again.
  void PowerLoss();
  // The process was killed: the page cache stays. The disk works again.
  void Revive() { dying_ = dead_ = false; }
  void Wipe();
  // Damages something durable in a segment; says what, or "" if there is nothing to damage.
  std::string Corrupt();

  // For tests: another disk with the same content, all durable; a file's bytes, to be changed at rest.
  std::unique_ptr<SimDisk> Copy(uint64_t seed) const;
  std::vector<std::string> Names() const;
  std::vector<uint8_t>& BytesOf(const std::string& name) { return names_.at(name)->bytes; }

  // ---- FileSystem ----
  Status CreateDirectory(const std::string&) override { return {}; }
  Status List(const std::string& path, std::vector<std::string>* names) override;
  Status Create(const std::string& path, std::unique_ptr<log_segmented::File>* file) override;
  Status Open(const std::string& path, std::unique_ptr<log_segmented::File>* file) override;
  Status Rename(const std::string& from, const std::string& to) override;
  Status Remove(const std::string& path) override;
  Status SyncDirectory(const std::string& path) override;
  Status Lock(const std::string& path, std::unique_ptr<log_segmented::FileLock>* lock) override;

 private:
  class OpenFile;
  struct Undo {
    std::array<uint8_t, kSectorBytes> durable;
    bool lost = false;  // A sync has failed on it: it will not be tried again.
  };
  struct Inode {
    std::vector<uint8_t> bytes;
    std::map<size_t, Undo> dirty;  // By sector.
    size_t durable_bytes = 0;
    size_t last_begin = 0, last_end = 0;  // Of the last write.
  };
  using InodeRef = std::shared_ptr<Inode>;
  using NameMap = std::map<std::string, InodeRef>;

  Status Begin(uint32_t error_ppm, const char* what, bool takes_space);
  Status End() const;
  void ChangeNames(std::function<void(NameMap&)> change);
  Status WriteTo(Inode& inode, uint64_t offset, std::span<const uint8_t> bytes);
  Status SyncFile(Inode& inode);

  Random random_;
  NameMap names_, durable_names_;
  std::vector<std::function<void(NameMap&)>> name_changes_;  // Since the last sync of the directory.
  uint64_t operations_left_ = 0;
  bool dying_ = false, dead_ = false;
  uint64_t faults_injected_ = 0;
};

}  // namespace keyway::sim
