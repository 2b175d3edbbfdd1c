// SPDX-License-Identifier: Apache-2.0
//
// A bounded reader of ELF64. Every offset and size of the file is untrusted: it is used only through
// ByteSource::Read, which refuses what is not there, and with a maximum.
#include "kernel/plugin/manifest.h"

#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace keyway {
namespace {

constexpr size_t kHeadersMax = 4096;         // Sections or segments looked at.
constexpr size_t kNoteBytesMax = 64u << 10;  // Of one section or segment.
constexpr size_t kManifestsMax = 32;
constexpr size_t kListMax = 32;
constexpr size_t kValueBytesMax = 256;

absl::Status Damaged(const std::string& what) { return absl::InvalidArgumentError("not a plugin: " + what); }

template <typename T>
bool ReadStruct(const ByteSource& source, uint64_t offset, T* out) {
  return source.Read(offset, reinterpret_cast<char*>(out), sizeof(T));
}

// Appends the texts of our notes among the notes in `bytes`, each padded to `align`.
void CollectNotes(std::string_view bytes, size_t align, std::vector<std::string>* texts) {
  auto padded = [align](uint64_t size) { return (size + align - 1) / align * align; };
  while (bytes.size() >= sizeof(Elf64_Nhdr) && texts->size() < kManifestsMax) {
    Elf64_Nhdr note;
    std::memcpy(&note, bytes.data(), sizeof note);
    bytes.remove_prefix(sizeof note);
    const uint64_t name_bytes = padded(note.n_namesz), desc_bytes = padded(note.n_descsz);
    if (name_bytes > bytes.size() || note.n_descsz > bytes.size() - name_bytes) return;
    const std::string_view owner = bytes.substr(0, note.n_namesz);
    std::string_view text = bytes.substr(name_bytes, note.n_descsz);
    constexpr std::string_view kOwner(KW_MANIFEST_OWNER, sizeof KW_MANIFEST_OWNER);  // With its NUL.
    if (owner == kOwner && note.n_type == KW_MANIFEST_TYPE) {
      texts->emplace_back(text.substr(0, text.find('\0')));
    }
    bytes.remove_prefix(std::min<uint64_t>(bytes.size(), name_bytes + desc_bytes));
  }
}

void CollectAt(const ByteSource& source, uint64_t offset, uint64_t bytes, uint64_t align,
               std::vector<std::string>* texts) {
  if (bytes == 0 || bytes > kNoteBytesMax) return;
  std::string notes(bytes, '\0');
  if (source.Read(offset, notes.data(), bytes)) CollectNotes(notes, align == 8 ? 8 : 4, texts);
}

// Section headers survive `strip`.
void CollectFromSections(const ByteSource& source, const Elf64_Ehdr& header,
                         std::vector<std::string>* texts) {
  if (header.e_shentsize != sizeof(Elf64_Shdr)) return;
  const size_t count = std::min<size_t>(header.e_shnum, kHeadersMax);
  for (size_t i = 0; i < count; ++i) {
    Elf64_Shdr section;
    if (!ReadStruct(source, header.e_shoff + i * sizeof section, &section)) return;
    if (section.sh_type == SHT_NOTE) {
      CollectAt(source, section.sh_offset, section.sh_size, section.sh_addralign, texts);
    }
  }
}

// The segments are what remains without section headers.
void CollectFromSegments(const ByteSource& source, const Elf64_Ehdr& header,
                         std::vector<std::string>* texts) {
  if (header.e_phentsize != sizeof(Elf64_Phdr)) return;
  const size_t count = std::min<size_t>(header.e_phnum, kHeadersMax);
  for (size_t i = 0; i < count; ++i) {
    Elf64_Phdr segment;
    if (!ReadStruct(source, header.e_phoff + i * sizeof segment, &segment)) return;
    if (segment.p_type == PT_NOTE) {
      CollectAt(source, segment.p_offset, segment.p_filesz, segment.p_align, texts);
    }
  }
}

// Whether the file holds all that the loader would map: a page beyond its end is a SIGBUS in dlopen.
bool IsWhole(const ByteSource& source, const Elf64_Ehdr& header) {
  if (header.e_phentsize != sizeof(Elf64_Phdr)) return false;
  for (size_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    if (!ReadStruct(source, header.e_phoff + i * sizeof segment, &segment)) return false;
    if (segment.p_type != PT_LOAD || segment.p_filesz == 0) continue;
    char last;
    const uint64_t end = segment.p_offset + segment.p_filesz;
    if (end < segment.p_offset || !source.Read(end - 1, &last, 1)) return false;
  }
  return true;
}

absl::StatusOr<std::vector<std::string>> SplitList(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    if (comma == 0 || parts.size() == kListMax) return Damaged("its manifest has a malformed list");
    parts.emplace_back(text.substr(0, comma));
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
  }
  return parts;
}

bool ParseNumber(std::string_view text, uint16_t* out) {
  auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return !text.empty() && failure == std::errc() && end == text.data() + text.size();
}

std::string Join(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text.append(text.empty() ? "" : ",").append(part);
  return text;
}

}  // namespace

bool MemorySource::Read(uint64_t offset, char* out, size_t bytes) const {
  if (offset > bytes_.size() || bytes > bytes_.size() - offset) return false;
  std::memcpy(out, bytes_.data() + offset, bytes);
  return true;
}

bool FileSource::Read(uint64_t offset, char* out, size_t bytes) const {
  while (bytes > 0) {
    if (offset > INT64_MAX) return false;
    const ssize_t got = pread(fd_, out, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    out += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

absl::StatusOr<std::vector<Manifest>> ReadManifests(const ByteSource& source) {
  Elf64_Ehdr header;
  if (!ReadStruct(source, 0, &header)) return Damaged("shorter than an ELF header");
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return Damaged("not an ELF file");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB) {
    return Damaged("not a 64-bit little-endian ELF file");
  }
  if (header.e_type != ET_DYN) return Damaged("not a shared library");
#if defined(__x86_64__)
  constexpr Elf64_Half kMachine = EM_X86_64;
#elif defined(__aarch64__)
  constexpr Elf64_Half kMachine = EM_AARCH64;
#else
#error "name the ELF machine of this architecture here"
#endif
  if (header.e_machine != kMachine) {
    return Damaged(absl::StrCat("built for another machine (ELF machine ", header.e_machine, ", this one is ",
                                kMachine, ")"));
  }
  if (!IsWhole(source, header)) return Damaged("cut short: it ends before what it declares");
  std::vector<std::string> texts;
  CollectFromSections(source, header, &texts);
  if (texts.empty()) CollectFromSegments(source, header, &texts);
  if (texts.empty()) {
    return absl::NotFoundError("not a plugin: it has no manifest (ELF note of owner \"" KW_MANIFEST_OWNER
                               "\")");
  }
  std::vector<Manifest> manifests;
  for (const std::string& text : texts) {
    absl::StatusOr<Manifest> manifest = ParseManifest(text);
    if (!manifest.ok()) return manifest.status();
    manifests.push_back(*std::move(manifest));
  }
  return manifests;
}

absl::StatusOr<Manifest> ParseManifest(std::string_view text) {
  Manifest manifest;
  std::vector<std::string_view> seen;
  bool has_abi = false;
  while (!text.empty()) {
    const size_t semicolon = text.find(';');
    const std::string_view pair = text.substr(0, semicolon);
    text.remove_prefix(semicolon == std::string_view::npos ? text.size() : semicolon + 1);
    const size_t equals = pair.find('=');
    if (equals == std::string_view::npos || equals == 0) return Damaged("malformed manifest");
    const std::string_view key = pair.substr(0, equals), value = pair.substr(equals + 1);
    const bool printable =
        std::all_of(pair.begin(), pair.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
    if (!printable) return Damaged("its manifest has unprintable bytes");
    if (std::find(seen.begin(), seen.end(), key) != seen.end() || seen.size() == kListMax) {
      return Damaged("its manifest names a key twice: " + std::string(key));
    }
    seen.push_back(key);
    std::string* single = key == "id"          ? &manifest.id
                          : key == "version"   ? &manifest.version
                          : key == "license"   ? &manifest.license
                          : key == "stability" ? &manifest.stability
                                               : nullptr;
    if (single != nullptr) {
      if (value.size() > kValueBytesMax) return Damaged("its manifest has an overlong value");
      *single = value;
    } else if (key == "abi") {
      const size_t dot = value.find('.');
      has_abi = dot != std::string_view::npos && ParseNumber(value.substr(0, dot), &manifest.abi_major) &&
                ParseNumber(value.substr(dot + 1), &manifest.abi_minor);
    } else if (key == "provides" || key == "needs") {
      auto list = SplitList(value);
      if (!list.ok()) return list.status();
      (key == "needs" ? manifest.needs : manifest.provides) = *std::move(list);
    }
  }
  if (manifest.id.empty() || manifest.version.empty() || !has_abi) {
    return Damaged("its manifest lacks id, version or abi");
  }
  return manifest;
}

Manifest ManifestOf(const kw_descriptor& descriptor) {
  auto list = [](const char* const* names) {
    std::vector<std::string> out;
    for (size_t i = 0; names != nullptr && names[i] != nullptr && i < kListMax; ++i) {
      out.emplace_back(names[i]);
    }
    return out;
  };
  auto text = [](const char* value) { return std::string(value == nullptr ? "" : value); };
  return {text(descriptor.id),        text(descriptor.version), text(descriptor.license),
          text(descriptor.stability), descriptor.abi_major,     descriptor.abi_minor,
          list(descriptor.provides),  list(descriptor.needs)};
}

absl::Status CompareManifests(const Manifest& note, const Manifest& descriptor) {
  auto abi = [](const Manifest& of) { return absl::StrCat(of.abi_major, ".", of.abi_minor); };
  const struct {
    const char* name;
    std::string note, descriptor;
  } fields[] = {{"id", note.id, descriptor.id},
                {"version", note.version, descriptor.version},
                {"abi", abi(note), abi(descriptor)},
                {"license", note.license, descriptor.license},
                {"stability", note.stability, descriptor.stability},
                {"provides", Join(note.provides), Join(descriptor.provides)},
                {"needs", Join(note.needs), Join(descriptor.needs)}};
  for (const auto& field : fields) {
    if (field.note == field.descriptor) continue;
    return absl::FailedPreconditionError(absl::StrCat("its manifest says ", field.name, "=", field.note,
                                                      ", its descriptor ", field.descriptor));
  }
  return absl::OkStatus();
}

absl::Status CheckAbi(const std::string& id, const std::string& version, uint32_t major, uint32_t minor) {
  if (major == KW_ABI_MAJOR && minor <= KW_ABI_MINOR) return absl::OkStatus();
  std::string text = absl::StrCat("plugin ", id, " ", version, " needs ABI ", major, ".", minor,
                                  ", this keywayd offers ", KW_ABI_MAJOR, ".", KW_ABI_MINOR, ": ");
  if (major == KW_ABI_MAJOR) {
    absl::StrAppend(&text, "use a keywayd that offers ABI ", major, ".", minor, " or later, or ");
  } else if (major > KW_ABI_MAJOR) {
    absl::StrAppend(&text, "use a keywayd of ABI major ", major, ", or ");
  } else {
    absl::StrAppend(&text, "use ");
  }
  return absl::FailedPreconditionError(
      absl::StrCat(text, "a ", id, " built for ABI ", KW_ABI_MAJOR, ".", KW_ABI_MINOR));
}

}  // namespace keyway
