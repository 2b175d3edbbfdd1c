// SPDX-License-Identifier: Apache-2.0
//
// What a node says about its plugins: GET /keyway/plugins of an API plugin, and `keywayctl plugin list
// --running`.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernel/config/schema.h"
#include "kernel/plugin/manifest.h"

namespace keyway {

struct InventoryItem {
  std::string section;  // "storage", "api[1]"
  Manifest manifest;
  Options options;
};

// One JSON object:
//
//   {"check": LEVEL, "plugins": [{"section", "id", "version", "abi", "license", "stability",
//     "provides": [...], "needs": [...],
//     "options": [{"key", "value": TEXT or [TEXT...], "line": of the file, 0 for a default}]}]}
//
// The value of an option whose name says that it is a secret is "***".
std::string InventoryJson(std::string_view check_level, const std::vector<InventoryItem>& items);

// Whether the name of an option says that its value is a secret: a password, token, secret or passphrase.
bool IsSecretOption(std::string_view key);

}  // namespace keyway
