// SPDX-License-Identifier: Apache-2.0
//
// Order: file permissions, manifest, ABI version, only then dlopen; then entry, descriptor against
// manifest, and the services that it asks for.
#include "kernel/plugin/loader.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "kernel/base/check.h"
#include "kernel/plugin/host_services.h"
#include "kernel/plugin/manifest.h"
#include "kernel/plugin/tables.h"

namespace keyway {
namespace {

constexpr size_t kPluginsMax = 32;        // Of one library.
constexpr size_t kConfigFieldsMax = 256;  // Of one plugin.

std::vector<const kw_entry*>& StaticEntries() {
  static auto* entries = new std::vector<const kw_entry*>;
  return *entries;
}

std::string ErrorText(int error) { return std::strerror(error); }

class ScopedFd {
 public:
  explicit ScopedFd(int fd) : fd_(fd) {}
  ~ScopedFd() {
    if (fd_ >= 0) close(fd_);
  }
  ScopedFd(const ScopedFd&) = delete;
  ScopedFd& operator=(const ScopedFd&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

// Whoever can write the library runs code as this user.
absl::Status CheckMode(const std::string& what, const struct stat& info) {
  const bool by_group = (info.st_mode & S_IWGRP) != 0 && info.st_gid != getegid();
  if ((info.st_mode & S_IWOTH) == 0 && !by_group) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat(what, " is writable by other users, who could make this process run their code: chmod ",
                   (info.st_mode & S_IWOTH) != 0 ? "o-w" : "g-w"));
}

absl::StatusOr<std::vector<Manifest>> InspectFile(const std::string& path) {
  ScopedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return absl::NotFoundError(absl::StrCat(path, ": ", ErrorText(errno)));
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return absl::UnknownError(absl::StrCat(path, ": ", ErrorText(errno)));
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(path + ": not a regular file");
  if (absl::Status mode = CheckMode(path, info); !mode.ok()) return mode;
  const std::string folder = path.substr(0, std::max<size_t>(path.rfind('/'), 1));
  if (stat(folder.c_str(), &info) != 0) {
    return absl::UnknownError(absl::StrCat(folder, ": ", ErrorText(errno)));
  }
  if (absl::Status mode = CheckMode("the folder " + folder, info); !mode.ok()) return mode;
  auto manifests = ReadManifests(FileSource(fd.get()));
  if (!manifests.ok()) {
    return absl::Status(manifests.status().code(), absl::StrCat(path, ": ", manifests.status().message()));
  }
  return manifests;
}

absl::Status CheckDescriptor(const kw_descriptor* descriptor) {
  if (descriptor == nullptr || descriptor->size < sizeof(kw_descriptor)) {
    return absl::FailedPreconditionError("a descriptor is missing or too small");
  }
  const std::string id = descriptor->id == nullptr ? "" : descriptor->id;
  if (id.empty() || descriptor->version == nullptr) {
    return absl::FailedPreconditionError("a descriptor has no id or version");
  }
  absl::Status abi = CheckAbi(id, descriptor->version, descriptor->abi_major, descriptor->abi_minor);
  if (!abi.ok()) return abi;
  if (descriptor->create == nullptr) {
    return absl::FailedPreconditionError(id + ": the descriptor has no create function");
  }
  if (descriptor->field_count > kConfigFieldsMax ||
      (descriptor->field_count != 0 && descriptor->fields == nullptr)) {
    return absl::FailedPreconditionError(id + ": the descriptor has no valid option schema");
  }
  for (size_t i = 0; i < descriptor->field_count; ++i) {
    if (descriptor->fields[i].key == nullptr || descriptor->fields[i].type == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat(id, ": option ", i, " of the schema has no key or type"));
    }
  }
  const Manifest manifest = ManifestOf(*descriptor);
  // A plugin may also provide interfaces that are newer than this kernel, but not only such.
  if (std::none_of(manifest.provides.begin(), manifest.provides.end(), IsKnownInterface)) {
    return absl::FailedPreconditionError(id + ": provides no interface that this keywayd knows");
  }
  for (const std::string& need : manifest.needs) {
    if (!IsKnownService(need)) {
      return absl::FailedPreconditionError(
          absl::StrCat(id, " needs the host service ", need, ", which this keywayd does not offer"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckEntry(const kw_entry* entry) {
  if (entry == nullptr || entry->size < sizeof(kw_entry)) {
    return absl::FailedPreconditionError("its entry function gives no entry");
  }
  // Minor versions are the descriptors' matter.
  absl::Status abi = CheckAbi("library", "entry", entry->abi_major, 0);
  if (!abi.ok()) return abi;
  if (entry->plugins == nullptr || entry->plugin_count == 0 || entry->plugin_count > kPluginsMax) {
    return absl::FailedPreconditionError("its entry names no plugin, or too many");
  }
  for (size_t i = 0; i < entry->plugin_count; ++i) {
    absl::Status checked = CheckDescriptor(entry->plugins[i]);
    if (!checked.ok()) return checked;
  }
  return absl::OkStatus();
}

absl::Status CompareWithNotes(const kw_entry& entry, const std::vector<Manifest>& notes) {
  if (entry.plugin_count != notes.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat("it has ", notes.size(), " manifests and ", entry.plugin_count, " descriptors"));
  }
  for (size_t i = 0; i < entry.plugin_count; ++i) {
    const Manifest own = ManifestOf(*entry.plugins[i]);
    auto note =
        std::find_if(notes.begin(), notes.end(), [&](const Manifest& other) { return other.id == own.id; });
    // With one plugin the ids themselves are compared.
    absl::Status same = CompareManifests(note == notes.end() ? notes[0] : *note, own);
    if (!same.ok()) return same;
  }
  return absl::OkStatus();
}

absl::Status In(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

const kw_descriptor* FindById(const kw_entry& entry, std::string_view id) {
  for (size_t i = 0; i < entry.plugin_count; ++i) {
    if (entry.plugins[i]->id == id) return entry.plugins[i];
  }
  return nullptr;
}

std::string_view Stem(std::string_view path) {
  path.remove_prefix(path.rfind('/') + 1);
  return path.ends_with(".so") ? path.substr(0, path.size() - 3) : path;
}

}  // namespace

void RegisterStaticPlugin(const kw_entry* entry) {
  auto& entries = StaticEntries();
  if (std::find(entries.begin(), entries.end(), entry) == entries.end()) entries.push_back(entry);
}

absl::StatusOr<const kw_descriptor*> PluginLoader::Load(const std::string& plugin) {
  const bool is_path = plugin.starts_with('/');
  if (!is_path) {
    for (const kw_entry* entry : StaticEntries()) {
      absl::Status checked = CheckEntry(entry);
      if (!checked.ok()) return In("static plugin", checked);
      if (const kw_descriptor* found = FindById(*entry, plugin)) return found;
    }
  }
  const std::string path = is_path ? plugin : absl::StrCat(plugin_dir_, "/", plugin, ".so");
  absl::StatusOr<const kw_entry*> entry = LoadLibrary(path);
  if (!entry.ok()) return entry.status();
  if (const kw_descriptor* found = FindById(**entry, Stem(path))) return found;
  if (is_path && (*entry)->plugin_count == 1) return (*entry)->plugins[0];
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": holds the plugin ", (*entry)->plugins[0]->id,
                   ", not one with the name of the file: rename the file, or give its path"));
}

absl::StatusOr<const kw_entry*> PluginLoader::LoadLibrary(const std::string& path) {
  for (const Library& library : libraries_) {
    if (library.path == path) return library.entry;
  }
  auto notes = InspectFile(path);
  if (!notes.ok()) return notes.status();
  for (const Manifest& note : *notes) {
    absl::Status abi = CheckAbi(note.id, note.version, note.abi_major, note.abi_minor);
    if (!abi.ok()) return In(path, abi);
    for (const Library& other : libraries_) {
      if (FindById(*other.entry, note.id) == nullptr) continue;
      return absl::AlreadyExistsError(
          absl::StrCat(path, ": the plugin ", note.id, " is loaded already, from ", other.path));
    }
  }
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD) != nullptr) {
    return absl::AlreadyExistsError(path + ": is in this process already, and not as a plugin of this node");
  }
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    const char* reason = dlerror();
    return absl::FailedPreconditionError(
        absl::StrCat("cannot load ", reason == nullptr ? path.c_str() : reason));
  }
  void* symbol = dlsym(handle, KW_PLUGIN_ENTRY_SYMBOL);
  if (symbol == nullptr) {
    return absl::FailedPreconditionError(path + ": has no function " KW_PLUGIN_ENTRY_SYMBOL);
  }
  const auto* entry = reinterpret_cast<const kw_entry* (*)()>(symbol)();
  absl::Status checked = CheckEntry(entry);
  if (checked.ok()) checked = CompareWithNotes(*entry, *notes);
  if (!checked.ok()) return In(path, checked);
  libraries_.push_back({path, entry});
  return entry;
}

}  // namespace keyway
