// SPDX-License-Identifier: Apache-2.0
//
// FileSystem over POSIX calls.
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "file_system.h"

namespace keyway::log_segmented {
namespace {

Status ErrnoStatus(const char* call, const std::string& path, int number) {
  int32_t code = KW_INTERNAL;
  if (number == ENOSPC || number == EDQUOT || number == EMFILE || number == ENFILE) {
    code = KW_RESOURCE_EXHAUSTED;
  } else if (number == ENOENT) {
    code = KW_NOT_FOUND;
  } else if (number == EACCES || number == EPERM || number == EROFS) {
    code = KW_PERMISSION_DENIED;
  } else if (number == EIO) {
    code = KW_DATA_LOSS;
  }
  char buffer[128];
  const char* reason = ::strerror_r(number, buffer, sizeof buffer);
  return Error(code, path + ": " + call + ": " + reason + " (errno " + std::to_string(number) + ")");
}

class PosixFile final : public File {
 public:
  PosixFile(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}
  ~PosixFile() override { ::close(descriptor_); }

  Status Write(uint64_t offset, std::span<const uint8_t> bytes) override {
    while (!bytes.empty()) {
      const ssize_t written = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (written < 0) {
        if (errno == EINTR) continue;
        return ErrnoStatus("pwrite", path_, errno);
      }
      if (written == 0) return ErrnoStatus("pwrite", path_, EIO);
      bytes = bytes.subspan(static_cast<size_t>(written));
      offset += static_cast<uint64_t>(written);
    }
    return {};
  }
  Status Read(uint64_t offset, std::span<uint8_t> bytes, size_t* read_bytes) const override {
    *read_bytes = 0;
    while (*read_bytes < bytes.size()) {
      const ssize_t count = ::pread(descriptor_, bytes.data() + *read_bytes, bytes.size() - *read_bytes,
                                    static_cast<off_t>(offset + *read_bytes));
      if (count < 0) {
        if (errno == EINTR) continue;
        return ErrnoStatus("pread", path_, errno);
      }
      if (count == 0) break;
      *read_bytes += static_cast<size_t>(count);
    }
    return {};
  }
  Status Sync() override {
    // Never retried, not even on EINTR: a second call may answer success for pages that the first
    // one failed to write and marked clean.
    if (::fdatasync(descriptor_) != 0) return ErrnoStatus("fdatasync", path_, errno);
    return {};
  }
  Status Size(uint64_t* bytes) const override {
    struct stat info;
    if (::fstat(descriptor_, &info) != 0) return ErrnoStatus("fstat", path_, errno);
    *bytes = static_cast<uint64_t>(info.st_size);
    return {};
  }

 private:
  const int descriptor_;
  const std::string path_;
};

class PosixLock final : public FileLock {
 public:
  explicit PosixLock(int descriptor) : descriptor_(descriptor) {}
  ~PosixLock() override { ::close(descriptor_); }

 private:
  const int descriptor_;
};

class PosixFileSystem final : public FileSystem {
 public:
  Status CreateDirectory(const std::string& path) override {
    // Each missing parent in turn: "/a", "/a/b", "/a/b/c".
    for (size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
      const std::string part = path.substr(0, at);
      if (::mkdir(part.c_str(), 0700) == 0) {
        const size_t slash = part.find_last_of('/');
        const std::string parent = slash == std::string::npos ? "." : part.substr(0, slash + 1);
        if (Status status = SyncDirectory(parent); !status.ok()) return status;
      } else if (errno != EEXIST) {
        return ErrnoStatus("mkdir", part, errno);
      }
      if (at == std::string::npos) break;
    }
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) return ErrnoStatus("stat", path, errno);
    if (!S_ISDIR(info.st_mode)) return ErrnoStatus("stat", path, ENOTDIR);
    if ((info.st_mode & 022) != 0) {
      return Error(KW_FAILED_PRECONDITION,
                   path + ": the group or others may write to this directory; chmod go-w it");
    }
    return {};
  }
  Status List(const std::string& path, std::vector<std::string>* names) override {
    DIR* directory = ::opendir(path.c_str());
    if (directory == nullptr) return ErrnoStatus("opendir", path, errno);
    names->clear();
    errno = 0;
    while (const dirent* entry = ::readdir(directory)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names->push_back(name);
      errno = 0;
    }
    const int number = errno;
    ::closedir(directory);
    return number == 0 ? Status{} : ErrnoStatus("readdir", path, number);
  }
  Status Create(const std::string& path, std::unique_ptr<File>* file) override {
    return OpenWith(path, O_CREAT | O_TRUNC, file);
  }
  Status Open(const std::string& path, std::unique_ptr<File>* file) override {
    return OpenWith(path, 0, file);
  }
  Status Rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return ErrnoStatus("rename", from, errno);
    return {};
  }
  Status Remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return ErrnoStatus("unlink", path, errno);
    return {};
  }
  Status SyncDirectory(const std::string& path) override {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return ErrnoStatus("open", path, errno);
    const int number = ::fsync(descriptor) == 0 ? 0 : errno;
    ::close(descriptor);
    return number == 0 ? Status{} : ErrnoStatus("fsync", path, number);
  }
  Status Lock(const std::string& path, std::unique_ptr<FileLock>* lock) override {
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (descriptor < 0) return ErrnoStatus("open", path, errno);
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
      const int number = errno;
      ::close(descriptor);
      if (number != EWOULDBLOCK) return ErrnoStatus("flock", path, number);
      return Error(KW_FAILED_PRECONDITION, path + ": locked: another process uses this directory");
    }
    *lock = std::make_unique<PosixLock>(descriptor);
    return {};
  }

 private:
  static Status OpenWith(const std::string& path, int flags, std::unique_ptr<File>* file) {
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (descriptor < 0) return ErrnoStatus("open", path, errno);
    *file = std::make_unique<PosixFile>(descriptor, path);
    return {};
  }
};

}  // namespace

std::unique_ptr<FileSystem> MakePosixFileSystem() { return std::make_unique<PosixFileSystem>(); }

}  // namespace keyway::log_segmented
