// SPDX-License-Identifier: Apache-2.0
#include "context.h"

#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <cmath>
#include <cstdio>

namespace keyway::ctl {

int Fail(ExitCode code, std::string_view text) {
  std::string line(text);
  for (char& c : line) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  std::fflush(stdout);  // What was printed before comes before.
  std::fprintf(stderr, "Error: %s\n", line.c_str());
  return code;
}

bool ParseDuration(std::string_view text, std::chrono::nanoseconds* out) {
  double total_ns = 0;
  if (text.empty()) return false;
  while (!text.empty()) {
    double number = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    if (parsed.ec != std::errc() || number < 0 || !std::isfinite(number)) return false;
    text.remove_prefix(static_cast<size_t>(parsed.ptr - text.data()));
    const size_t unit_size = text.find_first_of("0123456789.");
    const std::string_view unit = text.substr(0, unit_size);
    double unit_ns = 0;
    if (unit == "ns") unit_ns = 1;
    if (unit == "us") unit_ns = 1e3;
    if (unit == "ms") unit_ns = 1e6;
    if (unit == "s" || unit.empty()) unit_ns = 1e9;
    if (unit == "m") unit_ns = 60e9;
    if (unit == "h") unit_ns = 3600e9;
    if (unit_ns == 0) return false;
    total_ns += number * unit_ns;
    text.remove_prefix(unit.size());
  }
  if (total_ns < 1 || total_ns > 1e18) return false;
  *out = std::chrono::nanoseconds(static_cast<int64_t>(total_ns));
  return true;
}

bool ParseHexId(std::string_view text, uint64_t* out) {
  if (text.substr(0, 2) == "0x") text.remove_prefix(2);
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), *out, 16);
  return !text.empty() && parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

std::string HexId(uint64_t id) {
  char text[20];
  std::snprintf(text, sizeof(text), "%" PRIx64, id);
  return text;
}

std::vector<std::string> SplitCommas(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(','));
    if (!part.empty()) parts.emplace_back(part);
    text.remove_prefix(std::min(part.size() + 1, text.size()));
  }
  return parts;
}

}  // namespace keyway::ctl
