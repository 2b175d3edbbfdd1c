// SPDX-License-Identifier: Apache-2.0
//
// A plugin's own directory: made if missing, refused if others may write to it, if it holds what another
// plugin left there, or if another process uses it.
//
//   int32_t code = directory_.Open(path, {"data.mdb", "lock.mdb"}, error);
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>

#include "keyway/error.hpp"

namespace keyway {

// Makes `path` and its parents durably. 0 or an errno.
inline int MakeDirectories(const std::string& path) {
  for (size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
    const std::string part = path.substr(0, at);
    if (::mkdir(part.c_str(), 0700) == 0) {
      const size_t slash = part.find_last_of('/');
      const std::string parent = slash == std::string::npos ? "." : part.substr(0, slash + 1);
      const int directory = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (directory < 0) return errno;
      const int result = ::fsync(directory) == 0 ? 0 : errno;
      ::close(directory);
      if (result != 0) return result;
    } else if (errno != EEXIST) {
      return errno;
    }
    if (at == std::string::npos) return 0;
  }
}

// The code for an errno of a file's operation.
inline int32_t CodeOfErrno(int number) {
  switch (number) {
    case EIO:
      return KW_DATA_LOSS;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return KW_RESOURCE_EXHAUSTED;
    case EACCES:
    case EPERM:
    case EROFS:
      return KW_PERMISSION_DENIED;
    default:
      return KW_INTERNAL;
  }
}

// Holds the lock of a directory, the file LOCK in it, while it lives.
class LockedDirectory {
 public:
  LockedDirectory() = default;
  LockedDirectory(const LockedDirectory&) = delete;
  LockedDirectory& operator=(const LockedDirectory&) = delete;
  ~LockedDirectory() { Close(); }

  // own  the names that this plugin makes in the directory. If none of them is there, the directory must
  //      be empty: a new store beside another engine's files would look like a member that lost its data.
  // Errors: FAILED_PRECONDITION where an operator must act; others from the system.
  int32_t Open(const std::string& path, std::initializer_list<std::string_view> own, kw_error* error) {
    if (const int result = MakeDirectories(path); result != 0) return Failed(error, path, "mkdir", result);
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) return Failed(error, path, "stat", errno);
    if ((info.st_mode & 022) != 0) {
      return Fail(error, KW_FAILED_PRECONDITION, path,
                  ": the group or others may write to this directory; chmod go-w it");
    }
    const std::string lock = path + "/LOCK";
    file_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file_ < 0) return Failed(error, path, "open LOCK", errno);
    if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
      Close();
      return Fail(error, KW_FAILED_PRECONDITION, lock, ": locked: another process uses this directory");
    }
    const int32_t code = CheckNames(path, own, error);
    if (code != KW_OK) Close();
    return code;
  }
  void Close() {
    if (file_ >= 0) ::close(file_);
    file_ = -1;
  }

 private:
  static int32_t Failed(kw_error* error, const std::string& path, const char* call, int number) {
    return Fail(error, CodeOfErrno(number), path, ": ", call, ": ", std::string_view(std::strerror(number)));
  }
  static int32_t CheckNames(const std::string& path, std::initializer_list<std::string_view> own,
                            kw_error* error) {
    DIR* directory = ::opendir(path.c_str());
    if (directory == nullptr) return Failed(error, path, "opendir", errno);
    std::string foreign;
    bool holds_own = false;
    while (const dirent* entry = ::readdir(directory)) {
      const std::string_view name = entry->d_name;
      if (name == "." || name == ".." || name == "LOCK") continue;
      bool is_own = false;
      for (const std::string_view one : own) is_own = is_own || name == one;
      holds_own = holds_own || is_own;
      if (!is_own) foreign = name;
    }
    ::closedir(directory);
    if (holds_own || foreign.empty()) return KW_OK;
    return Fail(error, KW_FAILED_PRECONDITION, path, ": holds \"", std::string_view(foreign),
                "\", which is not of this engine; give an empty directory, or bring the data over with "
                "keywayctl store rewrite");
  }

  int file_ = -1;
};

}  // namespace keyway
