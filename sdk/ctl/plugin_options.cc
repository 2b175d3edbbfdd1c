// SPDX-License-Identifier: Apache-2.0
#include "plugin_options.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>

namespace keyway::ctl {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};
constexpr Unit kByteUnits[] = {
    {"", 1}, {"B", 1}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0}};
constexpr Unit kDurationUnits[] = {{"ms", 1}, {"s", 1e3}, {"m", 6e4}, {"h", 3.6e6}};

// "1.5MiB" as a whole number of the base unit.
template <size_t kCount>
std::optional<int64_t> ParseScaled(std::string_view text, const Unit (&units)[kCount]) {
  double number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || parsed.ec != std::errc() || number < 0) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(parsed.ptr - text.data()));
  for (const Unit& unit : units) {
    if (text != unit.name) continue;
    const double scaled = number * unit.factor;
    if (scaled > 9e15 || scaled != std::floor(scaled)) return std::nullopt;
    return static_cast<int64_t>(scaled);
  }
  return std::nullopt;
}
std::optional<int64_t> ParseInt(std::string_view text) {
  int64_t number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = !text.empty() && parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  return whole ? std::optional(number) : std::nullopt;
}

// A default stands in the schema as it would in the file: with quotes or without.
std::string Unquoted(std::string_view text) {
  const bool quoted = text.size() >= 2 && text.front() == '"' && text.back() == '"';
  return std::string(quoted ? text.substr(1, text.size() - 2) : text);
}
std::vector<std::string> QuotedParts(std::string_view text) {
  std::vector<std::string> parts;
  for (size_t at = text.find('"'); at != std::string_view::npos; at = text.find('"', at)) {
    const size_t end = text.find('"', at + 1);
    if (end == std::string_view::npos) break;
    parts.emplace_back(text.substr(at + 1, end - at - 1));
    at = end + 1;
  }
  return parts;
}

}  // namespace

std::string ConvertOption(const std::string& type, const std::string& text, std::string* out) {
  const std::string_view kind = std::string_view(type).substr(0, type.find('('));
  const std::string expected = "expected " + type + ", got \"" + text + "\"";
  *out = text;
  if (text.find('\0') != std::string::npos) return expected;
  if (kind == "string" || kind == "strings") return "";
  if (kind == "path") return text.empty() ? expected : "";
  if (kind == "bool") return text == "true" || text == "false" ? "" : expected;
  const size_t open = type.find('(');
  if (open == std::string::npos || type.back() != ')') return "the schema has the unknown type " + type;
  const std::string_view inside = std::string_view(type).substr(open + 1, type.size() - open - 2);
  if (kind == "enum") {
    for (std::string_view rest = inside;;) {
      const size_t bar = rest.find('|');
      if (rest.substr(0, bar) == text) return "";
      if (bar == std::string_view::npos) return expected;
      rest.remove_prefix(bar + 1);
    }
  }
  const auto parse = [&](std::string_view number) -> std::optional<int64_t> {
    if (kind == "bytes") return ParseScaled(number, kByteUnits);
    if (kind == "duration") {
      const auto scaled = ParseScaled(number, kDurationUnits);
      return scaled ? scaled : ParseInt(number);
    }
    return kind == "int" ? ParseInt(number) : std::nullopt;
  };
  const size_t dots = inside.find("..");
  if (dots == std::string_view::npos) return "the schema has the unknown type " + type;
  const auto least = parse(inside.substr(0, dots)), most = parse(inside.substr(dots + 2)),
             value = parse(text);
  if (!least || !most) return "the schema has the unknown type " + type;
  if (!value || *value < *least || *value > *most) return expected;
  *out = std::to_string(*value);
  return "";
}

std::string ReadOptions(const kw_descriptor& plugin, const std::vector<std::string>& given,
                        PluginOptions* out) {
  std::string known;
  for (size_t i = 0; i < plugin.field_count; ++i)
    known += (i == 0 ? "" : ", ") + std::string(plugin.fields[i].key);
  for (const std::string& one : given) {
    const std::string key = one.substr(0, one.find('='));
    if (key.size() == one.size()) return "\"" + one + "\": expected KEY=VALUE";
    bool found = false;
    for (size_t i = 0; i < plugin.field_count; ++i) found = found || key == plugin.fields[i].key;
    if (!found) return "\"" + key + "\": " + plugin.id + " has no such option; it has " + known;
  }
  for (size_t i = 0; i < plugin.field_count; ++i) {
    const kw_config_field& field = plugin.fields[i];
    const std::string key = field.key, type = field.type;
    std::vector<std::string> values;
    for (const std::string& one : given) {
      if (one.substr(0, one.find('=')) == key) values.push_back(one.substr(key.size() + 1));
    }
    if (values.size() > 1 && type != "strings") return "\"" + key + "\" is given twice";
    if (values.empty() && field.fallback == nullptr) {
      return "\"" + key + "\" is missing: " + (field.doc == nullptr ? type : std::string(field.doc));
    }
    if (values.empty() && type == "strings") values = QuotedParts(field.fallback);
    if (values.empty() && type != "strings") values.push_back(Unquoted(field.fallback));
    for (const std::string& value : values) {
      std::string converted;
      const std::string error = ConvertOption(type, value, &converted);
      if (!error.empty()) return "\"" + key + "\": " + error;
      out->emplace_back(key, converted);
    }
  }
  return "";
}

}  // namespace keyway::ctl
