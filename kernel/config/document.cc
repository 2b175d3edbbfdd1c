// SPDX-License-Identifier: Apache-2.0
//
// The one file that compiles toml++ (header-only, without exceptions).
#include "kernel/config/document.h"

#include <algorithm>
#include <sstream>

#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#define TOML_ENABLE_WINDOWS_COMPAT 0
#include <toml++/toml.h>

namespace keyway {
namespace {

SourcePlace PlaceOf(const toml::source_region& region) {
  return {static_cast<uint32_t>(region.begin.line), static_cast<uint32_t>(region.begin.column)};
}

const char* KindName(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::date:
      return "a date";
    case toml::node_type::time:
      return "a time";
    case toml::node_type::date_time:
      return "a date and time";
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array that holds more than strings";
    default:
      return "a value";
  }
}

void ReadValue(const toml::node& node, RawValue* out) {
  out->place = PlaceOf(node.source());
  if (const auto* boolean = node.as_boolean()) {
    out->kind = RawValue::Kind::kBool;
    out->text = boolean->get() ? "true" : "false";
  } else if (const auto* integer = node.as_integer()) {
    out->kind = RawValue::Kind::kInt;
    out->text = std::to_string(integer->get());
  } else if (const auto* number = node.as_floating_point()) {
    std::ostringstream text;
    text << number->get();
    out->kind = RawValue::Kind::kFloat;
    out->text = text.str();
  } else if (const auto* string = node.as_string()) {
    out->kind = RawValue::Kind::kString;
    out->text = string->get();
  } else if (const auto* array = node.as_array();
             array != nullptr && (array->empty() || array->is_homogeneous<std::string>())) {
    out->kind = RawValue::Kind::kStrings;
    for (const toml::node& element : *array) out->elements.push_back(element.as_string()->get());
  } else {
    out->kind = RawValue::Kind::kOther;
    out->text = KindName(node);
  }
}

// Flattens `table`; toml++ bounds the depth of nesting.
void ReadTable(const toml::table& table, const std::vector<std::string>& parents,
               std::vector<RawValue>* out) {
  for (auto&& [key, node] : table) {
    std::vector<std::string> path = parents;
    path.emplace_back(key.str());
    if (const toml::table* nested = node.as_table(); nested != nullptr && !nested->empty()) {
      ReadTable(*nested, path, out);
      continue;
    }
    RawValue& value = out->emplace_back();
    for (const std::string& part : path) value.key.append(value.key.empty() ? "" : ".").append(part);
    value.path = std::move(path);
    value.key_place = PlaceOf(key.source());
    ReadValue(node, &value);
  }
}

bool Earlier(const SourcePlace& a, const SourcePlace& b) {
  return a.line != b.line ? a.line < b.line : a.column < b.column;
}

RawSection ReadSection(std::string_view name, const toml::table& table) {
  RawSection section;
  section.name = name;
  section.label = name;
  section.place = PlaceOf(table.source());
  ReadTable(table, {}, &section.values);
  std::stable_sort(section.values.begin(), section.values.end(),
                   [](const RawValue& a, const RawValue& b) { return Earlier(a.key_place, b.key_place); });
  return section;
}

}  // namespace

std::string FormatError(std::string_view file, const ConfigError& error) {
  std::string text(file);
  if (error.place.line != 0) {
    text.append(":").append(std::to_string(error.place.line));
    text.append(":").append(std::to_string(error.place.column));
  }
  return text.append(": ").append(error.message);
}

std::string QuoteToml(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (byte < 0x20 || byte == 0x7f) {
      constexpr char kHex[] = "0123456789ABCDEF";
      out.append("\\u00").append(1, kHex[byte >> 4]).append(1, kHex[byte & 15]);
    } else {
      out.push_back(c);
    }
  }
  return out.append("\"");
}

std::string KeyToml(std::string_view key) {
  const bool bare = !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
  return bare ? std::string(key) : QuoteToml(key);
}

std::string RawValue::Literal() const {
  switch (kind) {
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
    case Kind::kOther:
      return text;
    case Kind::kString:
      return QuoteToml(text);
    case Kind::kStrings: {
      std::string out = "[";
      for (const std::string& element : elements) {
        if (out.size() > 1) out.append(", ");
        out.append(QuoteToml(element));
      }
      return out.append("]");
    }
  }
  return text;
}

std::string RawValue::Shown() const {
  constexpr size_t kShownMax = 60;
  std::string literal = Literal();
  if (literal.size() > kShownMax) literal.resize(kShownMax), literal.append("...");
  return literal;
}

Document ParseDocument(std::string_view text, std::vector<ConfigError>* errors) {
  Document document;
  toml::parse_result result = toml::parse(text);
  if (!result) {
    const toml::parse_error& error = result.error();
    errors->push_back({PlaceOf(error.source()), std::string(error.description())});
    return document;
  }
  for (auto&& [key, node] : result.table()) {
    const toml::array* array = node.as_array();
    if (const toml::table* table = node.as_table()) {
      document.sections.push_back(ReadSection(key.str(), *table));
    } else if (array != nullptr && !array->empty() && array->is_homogeneous<toml::table>()) {
      size_t ordinal = 0;
      for (const toml::node& element : *array) {
        RawSection section = ReadSection(key.str(), *element.as_table());
        section.is_element = true;
        if (array->size() > 1) section.label.append("[" + std::to_string(ordinal) + "]");
        ++ordinal;
        document.sections.push_back(std::move(section));
      }
    } else {
      errors->push_back({PlaceOf(key.source()), std::string(key.str()) + ": a key outside of any [section]"});
    }
  }
  std::stable_sort(document.sections.begin(), document.sections.end(),
                   [](const RawSection& a, const RawSection& b) { return Earlier(a.place, b.place); });
  return document;
}

std::optional<RawValue> ParseLiteral(std::string_view text) {
  toml::parse_result result = toml::parse("value = " + std::string(text));
  if (!result || result.table().size() != 1) return std::nullopt;
  const toml::node* node = result.table().get("value");
  if (node == nullptr) return std::nullopt;
  RawValue value;
  ReadValue(*node, &value);
  value.place = {};
  return value;
}

}  // namespace keyway
