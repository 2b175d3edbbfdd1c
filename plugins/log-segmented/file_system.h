// SPDX-License-Identifier: Apache-2.0
//
// The file operations that the log needs, so that a test can stand in for the disk: fail a call, lose
// what was not synced, tear a write. What each call promises at a power loss is part of its contract.
//
// Threads: a FileSystem and a File may be used by several threads at once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "status.h"

namespace keyway::log_segmented {

class File {
 public:
  virtual ~File() = default;
  // Writes all of `bytes`. Durable only after Sync(); until then any part of it may survive.
  virtual Status Write(uint64_t offset, std::span<const uint8_t> bytes) = 0;
  // Reads up to bytes.size(); *read_bytes is less only at the end of the file.
  virtual Status Read(uint64_t offset, std::span<uint8_t> bytes, size_t* read_bytes) const = 0;
  // Makes earlier writes durable, the size of the file included, but not its name.
  virtual Status Sync() = 0;
  virtual Status Size(uint64_t* bytes) const = 0;
};

// Held while it lives.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // Makes the directory and missing parents (mode 0700), durably. An existing one that the group or
  // others may write to is FAILED_PRECONDITION.
  virtual Status CreateDirectory(const std::string& path) = 0;
  virtual Status List(const std::string& path, std::vector<std::string>* names) = 0;
  // A new, empty file (mode 0600), open for reading and writing; replaces an existing one.
  virtual Status Create(const std::string& path, std::unique_ptr<File>* file) = 0;
  virtual Status Open(const std::string& path, std::unique_ptr<File>* file) = 0;
  // Names change durably only with SyncDirectory().
  virtual Status Rename(const std::string& from, const std::string& to) = 0;
  virtual Status Remove(const std::string& path) = 0;
  virtual Status SyncDirectory(const std::string& path) = 0;
  // FAILED_PRECONDITION if another process, or another instance in this one, holds it.
  virtual Status Lock(const std::string& path, std::unique_ptr<FileLock>* lock) = 0;
};

std::unique_ptr<FileSystem> MakePosixFileSystem();

}  // namespace keyway::log_segmented
