// SPDX-License-Identifier: Apache-2.0
#include "output.h"

#include <algorithm>
#include <cstdio>

namespace keyway::ctl {
namespace {

constexpr size_t kCellBytesMax = 64;

bool IsNumber(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789.-%") == std::string_view::npos;
}

// Columns on a terminal: bytes less the continuation bytes of UTF-8.
size_t Width(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

void AppendRule(const std::vector<size_t>& widths, std::string* out) {
  for (const size_t width : widths) out->append("+").append(width + 2, '-');
  out->append("+\n");
}

}  // namespace

std::string Table::ToString() const {
  std::vector<size_t> widths;
  std::vector<bool> is_right;
  for (size_t column = 0; column < heads_.size(); ++column) {
    size_t width = Width(heads_[column]);
    bool right = !rows_.empty();
    for (const auto& row : rows_) {
      width = std::max(width, Width(row[column]));
      right = right && IsNumber(row[column]);
    }
    widths.push_back(width);
    is_right.push_back(right);
  }
  std::string out;
  const auto append_row = [&](const std::vector<std::string>& cells, bool is_head) {
    for (size_t column = 0; column < cells.size(); ++column) {
      const std::string padding(widths[column] - Width(cells[column]), ' ');
      const bool right = is_right[column] && !is_head;
      out.append("| ")
          .append(right ? padding : "")
          .append(cells[column])
          .append(right ? "" : padding)
          .append(" ");
    }
    out.append("|\n");
  };
  AppendRule(widths, &out);
  append_row(heads_, true);
  AppendRule(widths, &out);
  for (const auto& row : rows_) append_row(row, false);
  if (!rows_.empty()) AppendRule(widths, &out);
  return out;
}

std::string Table::ToLines() const {
  std::string out;
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) out.append(i == 0 ? "" : ", ").append(row[i]);
    out.push_back('\n');
  }
  return out;
}

void Print(std::string_view bytes) { std::fwrite(bytes.data(), 1, bytes.size(), stdout); }

void PrintLine(std::string_view bytes) {
  Print(bytes);
  Print("\n");
}

std::string HexBytes(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    char text[8];
    std::snprintf(text, sizeof(text), "\\x%02x", static_cast<uint8_t>(c));
    out += text;
  }
  return out;
}

std::string Shown(std::string_view bytes, bool hex) { return hex ? HexBytes(bytes) : std::string(bytes); }

std::string ShownInCell(std::string_view bytes, bool hex) {
  std::string out;
  for (const char c : bytes) {
    if (out.size() >= kCellBytesMax) return out + "...";
    const uint8_t byte = static_cast<uint8_t>(c);
    const bool is_plain = byte >= 0x20 && byte != 0x7f && c != '\\';
    out += hex || !is_plain ? HexBytes({&c, 1}) : std::string(1, c);
  }
  return out;
}

std::string Base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j) group = group << 8 | (j < count ? static_cast<uint8_t>(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j) out.push_back(j <= count ? kDigits[group >> (18 - 6 * j) & 63] : '=');
  }
  return out;
}

std::string ByteSize(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof(text), unit > 0 && value < 10 ? "%.1f %s" : "%.0f %s", value, kUnits[unit]);
  return text;
}

std::string Duration(std::chrono::nanoseconds duration) {
  const double ns = static_cast<double>(duration.count());
  char text[32];
  if (ns < 1e6) {
    std::snprintf(text, sizeof(text), "%.0fus", ns / 1e3);
  } else if (ns < 1e9) {
    std::snprintf(text, sizeof(text), "%.3fms", ns / 1e6);
  } else {
    std::snprintf(text, sizeof(text), "%.3fs", ns / 1e9);
  }
  return text;
}

}  // namespace keyway::ctl
