// SPDX-License-Identifier: Apache-2.0
//
// What people read: tables, keys and values, sizes and durations.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace keyway::ctl {

// Columns as wide as their widest cell, right-aligned where every cell is a number.
class Table {
 public:
  explicit Table(std::vector<std::string> heads) : heads_(std::move(heads)) {}
  void Add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string ToString() const;
  // The form of `-w simple`: one line a row, cells with ", " between.
  std::string ToLines() const;

 private:
  std::vector<std::string> heads_;
  std::vector<std::vector<std::string>> rows_;
};

// To stdout, as they are.
void Print(std::string_view bytes);
void PrintLine(std::string_view bytes);

// `\x66\x6f` for each byte, as etcdctl --hex.
std::string HexBytes(std::string_view bytes);
// A key or a value: as it is, or in hex.
std::string Shown(std::string_view bytes, bool hex);
// The same for a cell: what is not printable is escaped, and long ones are cut.
std::string ShownInCell(std::string_view bytes, bool hex);

std::string Base64(std::string_view bytes);
std::string ByteSize(uint64_t bytes);                     // "20 kB", "2.1 GB"
std::string Duration(std::chrono::nanoseconds duration);  // "3.674ms"

}  // namespace keyway::ctl
