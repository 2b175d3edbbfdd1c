// SPDX-License-Identifier: Apache-2.0
//
// Types of options, their texts, and the check of a section.
#include "kernel/config/schema.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <numeric>

#include "kernel/base/bytes.h"
#include "kernel/base/check.h"

namespace keyway {
namespace {

struct Unit {
  std::string_view name;
  int64_t factor;
};
constexpr Unit kByteUnits[] = {{"TiB", int64_t{1} << 40},
                               {"GiB", int64_t{1} << 30},
                               {"MiB", int64_t{1} << 20},
                               {"KiB", int64_t{1} << 10},
                               {"B", 1},
                               {"", 1}};
constexpr Unit kDurationUnits[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};

std::optional<int64_t> ParseInt(std::string_view text) {
  int64_t value = 0;
  auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || failure != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Takes "12" or "1.5" off the front of `text`, times `factor`; at most six decimals.
struct Decimal {
  int64_t whole = 0, fraction = 0, scale = 1;
};
std::optional<Decimal> TakeDecimal(std::string_view* text) {
  constexpr int64_t kScaleMax = 1000000;
  Decimal number;
  size_t at = 0;
  while (at < text->size() && (*text)[at] >= '0' && (*text)[at] <= '9') ++at;
  auto whole = ParseInt(text->substr(0, at));
  if (!whole) return std::nullopt;
  number.whole = *whole;
  if (at < text->size() && (*text)[at] == '.') {
    const size_t dot = at++;
    while (at < text->size() && (*text)[at] >= '0' && (*text)[at] <= '9') {
      if (number.scale >= kScaleMax) return std::nullopt;
      number.fraction = number.fraction * 10 + ((*text)[at] - '0');
      number.scale *= 10;
      ++at;
    }
    if (at == dot + 1) return std::nullopt;
  }
  text->remove_prefix(at);
  return number;
}

std::optional<int64_t> Scale(const Decimal& number, int64_t factor) {
  int64_t whole = 0, part = 0, sum = 0;
  if (__builtin_mul_overflow(number.whole, factor, &whole)) return std::nullopt;
  if (__builtin_mul_overflow(number.fraction, factor, &part)) return std::nullopt;
  if (part % number.scale != 0) return std::nullopt;
  if (__builtin_add_overflow(whole, part / number.scale, &sum)) return std::nullopt;
  return sum;
}

std::string ShowBytes(int64_t bytes) {
  for (const Unit& unit : kByteUnits) {
    if (unit.factor > 1 && bytes >= unit.factor && bytes % unit.factor == 0) {
      return std::to_string(bytes / unit.factor).append(unit.name);
    }
  }
  return std::to_string(bytes);
}

std::string ShowDuration(int64_t ms) {
  for (size_t i = std::size(kDurationUnits); i-- > 1;) {
    const Unit& unit = kDurationUnits[i];
    if (ms >= unit.factor && ms % unit.factor == 0) {
      return std::to_string(ms / unit.factor).append(unit.name);
    }
  }
  return std::to_string(ms).append("ms");
}

std::string ShowRange(int64_t min, int64_t max, std::string (*show)(int64_t)) {
  return "from " + show(min) + " to " + show(max);
}

// The inside of "int(1..5)", if `text` is that kind of type.
std::optional<std::string_view> Inside(std::string_view text, std::string_view name) {
  if (!text.starts_with(name)) return std::nullopt;
  text.remove_prefix(name.size());
  if (text.size() < 2 || text.front() != '(' || text.back() != ')') return std::nullopt;
  return text.substr(1, text.size() - 2);
}

bool ParseBounds(std::string_view inside, std::optional<int64_t> (*parse)(std::string_view),
                 OptionType* type) {
  const size_t dots = inside.find("..");
  if (dots == std::string_view::npos) return false;
  auto min = parse(inside.substr(0, dots)), max = parse(inside.substr(dots + 2));
  if (!min || !max || *min > *max) return false;
  type->min = *min;
  type->max = *max;
  return true;
}

std::optional<int64_t> ParseMsBound(std::string_view text) {
  if (auto plain = ParseInt(text)) return plain;
  return ParseDurationMs(text);
}

// The value as a plugin gets it, or nothing if `raw` is not of this type.
std::optional<std::vector<std::string>> Convert(const OptionType& type, const RawValue& raw) {
  using Kind = OptionType::Kind;
  auto bounded = [&](std::optional<int64_t> number) -> std::optional<std::vector<std::string>> {
    if (!number || *number < type.min || *number > type.max) return std::nullopt;
    return std::vector<std::string>{std::to_string(*number)};
  };
  const bool is_string = raw.kind == RawValue::Kind::kString;
  switch (type.kind) {
    case Kind::kBool:
      if (raw.kind != RawValue::Kind::kBool) return std::nullopt;
      return std::vector<std::string>{raw.text};
    case Kind::kPath:
      if (!is_string || raw.text.empty()) return std::nullopt;
      [[fallthrough]];
    case Kind::kString:
      // A plugin may use the value as a C string.
      if (!is_string || raw.text.find('\0') != std::string::npos) return std::nullopt;
      return std::vector<std::string>{raw.text};
    case Kind::kStrings:
      if (raw.kind != RawValue::Kind::kStrings) return std::nullopt;
      return raw.elements;
    case Kind::kInt:
      if (raw.kind != RawValue::Kind::kInt) return std::nullopt;
      return bounded(ParseInt(raw.text));
    case Kind::kBytes:
      if (raw.kind == RawValue::Kind::kInt) return bounded(ParseInt(raw.text));
      return is_string ? bounded(ParseByteSize(raw.text)) : std::nullopt;
    case Kind::kDuration:
      return is_string ? bounded(ParseDurationMs(raw.text)) : std::nullopt;
    case Kind::kEnum:
      if (!is_string || std::find(type.choices.begin(), type.choices.end(), raw.text) == type.choices.end()) {
        return std::nullopt;
      }
      return std::vector<std::string>{raw.text};
  }
  return std::nullopt;
}

// A default as a raw value: a literal of the file, or, where quotes were left out, the bare text.
RawValue DefaultValue(const OptionType& type, std::string_view text) {
  using Kind = OptionType::Kind;
  const bool wants_string = type.kind != Kind::kBool && type.kind != Kind::kInt &&
                            type.kind != Kind::kBytes && type.kind != Kind::kStrings;
  auto parsed = ParseLiteral(text);
  if (parsed && (!wants_string || parsed->kind == RawValue::Kind::kString)) return *parsed;
  RawValue bare;
  bare.kind = RawValue::Kind::kString;
  bare.text = text;
  if (type.kind == Kind::kStrings && text.empty()) bare.kind = RawValue::Kind::kStrings;
  return bare;
}

}  // namespace

std::optional<int64_t> ParseByteSize(std::string_view text) {
  auto number = TakeDecimal(&text);
  if (!number) return std::nullopt;
  if (text.starts_with(' ')) text.remove_prefix(1);
  for (const Unit& unit : kByteUnits) {
    if (text == unit.name) return Scale(*number, unit.factor);
  }
  return std::nullopt;
}

std::optional<int64_t> ParseDurationMs(std::string_view text) {
  constexpr int kPartsMax = 4;
  int64_t sum = 0;
  if (text.empty()) return std::nullopt;
  for (int part = 0; part < kPartsMax && !text.empty(); ++part) {
    auto number = TakeDecimal(&text);
    if (!number) return std::nullopt;
    const Unit* found = nullptr;
    for (const Unit& unit : kDurationUnits) {
      if (text.starts_with(unit.name)) {
        found = &unit;
        break;
      }
    }
    if (found == nullptr) return std::nullopt;
    text.remove_prefix(found->name.size());
    auto scaled = Scale(*number, found->factor);
    if (!scaled || __builtin_add_overflow(sum, *scaled, &sum)) return std::nullopt;
  }
  return text.empty() ? std::optional<int64_t>(sum) : std::nullopt;
}

std::optional<OptionType> ParseOptionType(std::string_view text) {
  using Kind = OptionType::Kind;
  OptionType type;
  constexpr std::pair<std::string_view, Kind> kPlain[] = {
      {"bool", Kind::kBool}, {"string", Kind::kString}, {"path", Kind::kPath}, {"strings", Kind::kStrings}};
  for (const auto& [name, kind] : kPlain) {
    if (text == name) {
      type.kind = kind;
      return type;
    }
  }
  if (auto inside = Inside(text, "int")) {
    type.kind = Kind::kInt;
    return ParseBounds(*inside, ParseInt, &type) ? std::optional(type) : std::nullopt;
  }
  if (auto inside = Inside(text, "bytes")) {
    type.kind = Kind::kBytes;
    return ParseBounds(*inside, ParseByteSize, &type) ? std::optional(type) : std::nullopt;
  }
  if (auto inside = Inside(text, "duration")) {
    type.kind = Kind::kDuration;
    return ParseBounds(*inside, ParseMsBound, &type) ? std::optional(type) : std::nullopt;
  }
  if (auto inside = Inside(text, "enum")) {
    type.kind = Kind::kEnum;
    for (std::string_view rest = *inside;;) {
      const size_t bar = rest.find('|');
      if (rest.substr(0, bar).empty()) return std::nullopt;
      type.choices.emplace_back(rest.substr(0, bar));
      if (bar == std::string_view::npos) return type;
      rest.remove_prefix(bar + 1);
    }
  }
  return std::nullopt;
}

std::string OptionType::Describe() const {
  switch (kind) {
    case Kind::kBool:
      return "true or false";
    case Kind::kString:
      return "a string";
    case Kind::kPath:
      return "a path (a string that is not empty)";
    case Kind::kStrings:
      return "an array of strings";
    case Kind::kInt:
      return "an integer " + ShowRange(
                                 min, max, +[](int64_t number) { return std::to_string(number); });
    case Kind::kBytes:
      return "a size " + ShowRange(min, max, ShowBytes) + ", such as \"64MiB\"";
    case Kind::kDuration:
      return "a duration " + ShowRange(min, max, ShowDuration) + ", such as \"100ms\"";
    case Kind::kEnum: {
      std::string text = "one of";
      for (const std::string& choice : choices) {
        text.append(text.size() > 6 ? ", \"" : " \"").append(choice).append("\"");
      }
      return text;
    }
  }
  return "";
}

const Option* Options::Find(std::string_view key) const {
  for (const Option& option : list) {
    if (option.key == key) return &option;
  }
  return nullptr;
}

const std::string& Options::Text(std::string_view key) const {
  static const std::string kNone;  // After an error the option is missing.
  const Option* option = Find(key);
  return option == nullptr || option->values.empty() ? kNone : option->values.front();
}

int64_t Options::Number(std::string_view key) const { return ParseInt(Text(key)).value_or(0); }

const std::vector<std::string>& Options::Strings(std::string_view key) const {
  static const std::vector<std::string> kNone;
  const Option* option = Find(key);
  return option == nullptr ? kNone : option->values;
}

std::vector<kw_config_item> Options::Items() const {
  std::vector<kw_config_item> items;
  for (const Option& option : list) {
    for (const std::string& value : option.values) {
      items.push_back({option.key.c_str(), ToSlice(value), option.line, 0});
    }
  }
  return items;
}

std::string DidYouMean(std::string_view word, std::span<const std::string> names) {
  constexpr size_t kWordMax = 64;
  if (word.size() > kWordMax) return "";
  const std::string* best = nullptr;
  size_t best_distance = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string& name : names) {
    if (name.size() > kWordMax) continue;
    // Damerau-Levenshtein with adjacent transpositions, three rows.
    std::vector<size_t> before(name.size() + 1), last(name.size() + 1), row(name.size() + 1);
    std::iota(last.begin(), last.end(), size_t{0});
    for (size_t i = 1; i <= word.size(); ++i) {
      row[0] = i;
      for (size_t j = 1; j <= name.size(); ++j) {
        row[j] = std::min({row[j - 1] + 1, last[j] + 1, last[j - 1] + (word[i - 1] != name[j - 1])});
        if (i > 1 && j > 1 && word[i - 1] == name[j - 2] && word[i - 2] == name[j - 1]) {
          row[j] = std::min(row[j], before[j - 2] + 1);
        }
      }
      before.swap(last);
      last.swap(row);
    }
    if (last[name.size()] < best_distance) {
      best_distance = last[name.size()];
      best = &name;
    }
  }
  return best == nullptr ? "" : ", did you mean \"" + *best + "\"?";
}

Options CheckSection(const RawSection& section, std::span<const kw_config_field> fields,
                     std::span<const std::string_view> ignored,
                     const std::map<std::string, std::string>& supplied, std::vector<ConfigError>* errors) {
  std::vector<std::string> known;
  for (const kw_config_field& field : fields) known.emplace_back(field.key);
  for (const RawValue& value : section.values) {
    if (std::find(known.begin(), known.end(), value.key) != known.end()) continue;
    if (std::find(ignored.begin(), ignored.end(), value.key) != ignored.end()) continue;
    std::vector<std::string> names = known;
    names.insert(names.end(), ignored.begin(), ignored.end());
    errors->push_back(
        {value.key_place, section.label + "." + value.key + ": unknown key" + DidYouMean(value.key, names)});
  }
  Options options;
  for (const kw_config_field& field : fields) {
    const std::string name = section.label + "." + field.key;
    const auto type = ParseOptionType(field.type);
    if (!type) {
      errors->push_back({section.place, name + ": the schema has the unknown type \"" + field.type +
                                            "\" (a fault of the plugin)"});
      continue;
    }
    const RawValue* set = nullptr;
    for (const RawValue& value : section.values) {
      if (value.key == field.key) set = &value;
    }
    RawValue fallback;
    const auto given = supplied.find(field.key);
    if (set == nullptr && given != supplied.end()) {
      fallback.kind = RawValue::Kind::kString;
      fallback.text = given->second;
    } else if (set == nullptr && field.fallback != nullptr) {
      fallback = DefaultValue(*type, field.fallback);
    } else if (set == nullptr) {
      errors->push_back({section.place, name + ": missing; expected " + type->Describe() +
                                            (field.doc == nullptr || *field.doc == '\0'
                                                 ? std::string()
                                                 : std::string(" (") + field.doc + ")")});
      continue;
    }
    const RawValue& raw = set != nullptr ? *set : fallback;
    auto values = Convert(*type, raw);
    if (!values) {
      errors->push_back({raw.place.line != 0 ? raw.place : section.place,
                         name + ": expected " + type->Describe() + ", got " + raw.Shown() +
                             (set == nullptr ? " as the default (a fault of the plugin)" : "")});
      continue;
    }
    Option& option = options.list.emplace_back();
    option.key = field.key;
    option.is_list = type->kind == OptionType::Kind::kStrings;
    option.values = std::move(*values);
    option.literal = raw.Literal();
    option.line = set != nullptr ? set->key_place.line : 0;
  }
  return options;
}

}  // namespace keyway
