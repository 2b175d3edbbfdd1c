// SPDX-License-Identifier: Apache-2.0
//
// Manifest: what a plugin library says of itself in its ELF note `.note.keyway`, read without loading
// the library, so no code of an unknown file runs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "keyway/abi.h"

namespace keyway {

struct Manifest {
  std::string id, version, license, stability;
  uint16_t abi_major = 0, abi_minor = 0;
  std::vector<std::string> provides, needs;
};

// Bytes at a place, of a file or of memory.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills `out` with the bytes from `offset` on; false if there are not that many.
  virtual bool Read(uint64_t offset, char* out, size_t bytes) const = 0;
};

class MemorySource : public ByteSource {
 public:
  explicit MemorySource(std::string_view bytes) : bytes_(bytes) {}
  bool Read(uint64_t offset, char* out, size_t bytes) const override;

 private:
  const std::string_view bytes_;
};

class FileSource : public ByteSource {
 public:
  explicit FileSource(int fd) : fd_(fd) {}  // Borrowed.
  bool Read(uint64_t offset, char* out, size_t bytes) const override;

 private:
  const int fd_;
};

// The manifests of all plugins in a library. Errors: INVALID_ARGUMENT if this is no 64-bit ELF library
// of this machine, or damaged; NOT_FOUND if it has no manifest.
absl::StatusOr<std::vector<Manifest>> ReadManifests(const ByteSource& source);

// Parses "id=...;version=...;abi=1.0;...". Unknown keys are skipped, so that later ones can be added.
absl::StatusOr<Manifest> ParseManifest(std::string_view text);

// The manifest that belongs to a descriptor.
Manifest ManifestOf(const kw_descriptor& descriptor);

// FAILED_PRECONDITION, naming the first field that differs and both values.
absl::Status CompareManifests(const Manifest& note, const Manifest& descriptor);

// OK if this kernel can run a plugin with that demand; else a message with both versions and what to do.
absl::Status CheckAbi(const std::string& id, const std::string& version, uint32_t major, uint32_t minor);

}  // namespace keyway
