// SPDX-License-Identifier: Apache-2.0
//
// Document: a TOML file as plain values with their places, before anything is checked. toml++ is used
// behind this header only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace keyway {

struct SourcePlace {
  uint32_t line = 0;  // From 1; 0: nowhere in the file.
  uint32_t column = 0;
};

// What is wrong at a place. Printed as "FILE:LINE:COLUMN: message", without a place "FILE: message".
struct ConfigError {
  SourcePlace place;
  std::string message;
};
std::string FormatError(std::string_view file, const ConfigError& error);

struct RawValue {
  enum class Kind { kBool, kInt, kFloat, kString, kStrings, kOther };

  std::string key;                // "map_size"; of nested tables "tls.ca".
  std::vector<std::string> path;  // The parts of the key.
  Kind kind = Kind::kOther;
  std::string text;                   // kBool, kInt, kFloat, kString; kOther: what it is.
  std::vector<std::string> elements;  // kStrings.
  SourcePlace key_place, place;

  // As it may stand in a TOML file.
  std::string Literal() const;
  // For "got ..." of a message: the literal, cut if long, or what it is.
  std::string Shown() const;
};

// One [section], or one element of [[section]].
struct RawSection {
  std::string name;   // "storage"
  std::string label;  // For messages: "storage", or "api[1]" of the second [[api]].
  bool is_element = false;
  SourcePlace place;
  std::vector<RawValue> values;  // In the order of the file.
};

struct Document {
  std::vector<RawSection> sections;  // In the order of the file.
};

// Reads `text`. A syntax error is the only error then, and the document is empty.
Document ParseDocument(std::string_view text, std::vector<ConfigError>* errors);

// Reads one TOML value, such as ["a", "b"]; nothing if `text` is not one.
std::optional<RawValue> ParseLiteral(std::string_view text);

// A TOML basic string with its quotes.
std::string QuoteToml(std::string_view text);
// A TOML key: bare if it can be.
std::string KeyToml(std::string_view key);

}  // namespace keyway
