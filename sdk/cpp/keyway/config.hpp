// SPDX-License-Identifier: Apache-2.0
//
// Reads the kw_config_items given to create(). The host has checked them against the plugin's schema
// and filled in the defaults, so a missing key or a malformed number is answered with the fallback.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "keyway/abi.h"
#include "keyway/slice.hpp"

namespace keyway {

// Valid during create(): it borrows the items.
class ConfigReader {
 public:
  ConfigReader(const kw_config_item* items, size_t item_count) : items_(items), item_count_(item_count) {}

  bool Has(std::string_view key) const { return Find(key) != nullptr; }

  std::string String(std::string_view key, std::string_view fallback = {}) const {
    const kw_config_item* item = Find(key);
    return std::string(item == nullptr ? fallback : View(item->value));
  }
  // Also for "bytes(...)" (in bytes) and "duration(...)" (in milliseconds).
  int64_t Int(std::string_view key, int64_t fallback = 0) const {
    const kw_config_item* item = Find(key);
    if (item == nullptr) return fallback;
    const std::string_view text = View(item->value);
    int64_t number = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
    const bool whole = result.ec == std::errc() && result.ptr == text.data() + text.size();
    return whole ? number : fallback;
  }
  bool Bool(std::string_view key, bool fallback = false) const {
    const kw_config_item* item = Find(key);
    return item == nullptr ? fallback : View(item->value) == "true";
  }
  // The elements of an array, in order; a string option answers one element.
  std::vector<std::string> Strings(std::string_view key) const {
    std::vector<std::string> elements;
    for (size_t i = 0; i < item_count_; ++i) {
      if (items_[i].key == key) elements.emplace_back(View(items_[i].value));
    }
    return elements;
  }
  // The line of the configuration file, 0 for a default or a missing key.
  uint32_t Line(std::string_view key) const {
    const kw_config_item* item = Find(key);
    return item == nullptr ? 0 : item->line;
  }

 private:
  const kw_config_item* Find(std::string_view key) const {
    for (size_t i = 0; i < item_count_; ++i) {
      if (items_[i].key == key) return &items_[i];
    }
    return nullptr;
  }

  const kw_config_item* const items_;
  const size_t item_count_;
};

}  // namespace keyway
