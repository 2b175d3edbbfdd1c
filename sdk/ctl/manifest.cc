// SPDX-License-Identifier: Apache-2.0
#include "manifest.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "context.h"
#include "keyway/abi.h"

namespace keyway::ctl {
namespace {

constexpr size_t kManifestBytesMax = 65536;

// Copies a struct out of the file; false if it does not lie within.
template <typename T>
bool Load(std::string_view bytes, uint64_t at, T* out) {
  if (at > bytes.size() || bytes.size() - at < sizeof(T)) return false;
  std::memcpy(out, bytes.data() + at, sizeof(T));
  return true;
}

// Looks through one segment of notes, each padded to four bytes.
bool FindInNotes(std::string_view notes, std::string_view* text) {
  uint64_t at = 0;
  Elf64_Nhdr note;
  while (Load(notes, at, &note)) {
    const uint64_t name_at = at + sizeof(note);
    const uint64_t text_at = name_at + ((uint64_t{note.n_namesz} + 3) & ~uint64_t{3});
    const uint64_t end = text_at + ((uint64_t{note.n_descsz} + 3) & ~uint64_t{3});
    if (text_at > notes.size() || notes.size() - text_at < note.n_descsz) return false;
    const std::string_view name = notes.substr(name_at, note.n_namesz);
    if (note.n_type == KW_MANIFEST_TYPE &&
        name == std::string_view(KW_MANIFEST_OWNER, sizeof(KW_MANIFEST_OWNER))) {
      *text = notes.substr(text_at, note.n_descsz);
      return true;
    }
    at = end;
  }
  return false;
}

}  // namespace

std::string ParseManifest(std::string_view text, Manifest* out) {
  if (text.size() > kManifestBytesMax) return "the manifest is longer than 64 KiB";
  text = text.substr(0, text.find('\0'));
  while (!text.empty()) {
    const std::string_view field = text.substr(0, text.find(';'));
    text.remove_prefix(std::min(field.size() + 1, text.size()));
    const size_t equals = field.find('=');
    if (equals == std::string_view::npos)
      return "malformed field \"" + std::string(field) + "\" in the manifest";
    const std::string_view key = field.substr(0, equals);
    const std::string_view value = field.substr(equals + 1);
    if (key == "id") out->id = value;
    if (key == "version") out->version = value;
    if (key == "abi") out->abi = value;
    if (key == "license") out->license = value;
    if (key == "stability") out->stability = value;
    if (key == "provides") out->provides = SplitCommas(value);
    if (key == "needs") out->needs = SplitCommas(value);
  }
  if (out->id.empty() || out->version.empty() || out->abi.empty()) {
    return "the manifest lacks an id, a version or an abi";
  }
  return "";
}

std::string FindManifest(std::string_view bytes, Manifest* out) {
  Elf64_Ehdr header;
  if (!Load(bytes, 0, &header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return "not an ELF file";
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB) {
    return "not a 64-bit little-endian ELF file";
  }
  for (uint32_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    if (!Load(bytes, header.e_phoff + uint64_t{i} * header.e_phentsize, &segment))
      return "the ELF file is cut short";
    if (segment.p_type != PT_NOTE) continue;
    if (segment.p_offset > bytes.size() || bytes.size() - segment.p_offset < segment.p_filesz) {
      return "the ELF file is cut short";
    }
    std::string_view text;
    if (FindInNotes(bytes.substr(segment.p_offset, segment.p_filesz), &text)) return ParseManifest(text, out);
  }
  return "no Keyway manifest: not a Keyway plugin";
}

std::string ReadManifest(const std::string& path, Manifest* out) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return std::strerror(errno);
  struct stat status = {};
  fstat(fd, &status);
  if (!S_ISREG(status.st_mode) || status.st_size == 0) {
    close(fd);
    return "not a file with content";
  }
  const size_t size = static_cast<size_t>(status.st_size);
  void* mapped = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (mapped == MAP_FAILED) return std::strerror(errno);
  const std::string error = FindManifest({static_cast<const char*>(mapped), size}, out);
  munmap(mapped, size);
  return error;
}

}  // namespace keyway::ctl
