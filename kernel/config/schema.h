// SPDX-License-Identifier: Apache-2.0
//
// Checks one section of the configuration against a schema of kw_config_field (keyway/abi.h): the
// kernel's own sections and those of the plugins go through the same code. Every error is reported.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/config/document.h"
#include "keyway/abi.h"

namespace keyway {

// A kw_config_field's `type`, parsed.
struct OptionType {
  enum class Kind { kBool, kString, kPath, kStrings, kInt, kBytes, kDuration, kEnum };

  Kind kind = Kind::kString;
  int64_t min = 0, max = 0;          // kInt, kBytes (bytes), kDuration (milliseconds).
  std::vector<std::string> choices;  // kEnum.

  // For "expected ...".
  std::string Describe() const;
};
std::optional<OptionType> ParseOptionType(std::string_view text);

// "64MiB", "1.5MiB", "4096": bytes. Units: B, KiB, MiB, GiB, TiB. Nothing if malformed or not whole.
std::optional<int64_t> ParseByteSize(std::string_view text);
// "100ms", "1m30s": milliseconds. Units: ms, s, m, h.
std::optional<int64_t> ParseDurationMs(std::string_view text);

// A well-formed option: as configured, given by the kernel, or its default.
struct Option {
  std::string key;
  bool is_list = false;
  std::vector<std::string> values;  // One unless a list. As a plugin gets it: base units, decimal.
  std::string literal;              // As it may stand in the file.
  uint32_t line = 0;                // 0: not in the file.
};

class Options {
 public:
  std::vector<Option> list;  // In the order of the schema.

  const Option* Find(std::string_view key) const;
  // The value of an option that the schema has.
  const std::string& Text(std::string_view key) const;
  int64_t Number(std::string_view key) const;
  const std::vector<std::string>& Strings(std::string_view key) const;
  // For create(); slices point into this object.
  std::vector<kw_config_item> Items() const;
};

// Checks `section` against `fields` and fills in defaults.
//
// ignored   keys that somebody else reads; unknown to this schema is fine.
// supplied  values that replace the default of a key which the section does not set.
// errors    gets every unknown key, wrong value, missing key and malformed schema entry; an option
//           with an error is left out of the result.
Options CheckSection(const RawSection& section, std::span<const kw_config_field> fields,
                     std::span<const std::string_view> ignored,
                     const std::map<std::string, std::string>& supplied, std::vector<ConfigError>* errors);

// ", did you mean X?" for the nearest of `names`, or empty if none is near.
std::string DidYouMean(std::string_view word, std::span<const std::string> names);

}  // namespace keyway
