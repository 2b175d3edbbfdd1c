// SPDX-License-Identifier: Apache-2.0
//
// A plugin library's manifest, read from its ELF note without loading it. See KW_PLUGIN_MANIFEST.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace keyway::ctl {

struct Manifest {
  std::string id, version, abi, license, stability;
  std::vector<std::string> provides, needs;
};

// Parses the text "id=...;version=...;...". An error text says what is wrong.
std::string ParseManifest(std::string_view text, Manifest* out);

// Finds the note in the bytes of a 64-bit ELF file and parses its text. `bytes` may be anything.
std::string FindManifest(std::string_view bytes, Manifest* out);

// Reads the file.
std::string ReadManifest(const std::string& path, Manifest* out);

}  // namespace keyway::ctl
