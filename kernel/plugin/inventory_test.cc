// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/inventory.h"

#include <gtest/gtest.h>

namespace keyway {
namespace {

TEST(Inventory, IsJsonWithMaskedSecrets) {
  InventoryItem item;
  item.section = "api[1]";
  item.manifest.id = "api-x";
  item.manifest.version = "1.2.3";
  item.manifest.license = "MIT";
  item.manifest.stability = "beta";
  item.manifest.abi_major = 1;
  item.manifest.provides = {"keyway.api/1"};
  item.options.list = {{"listen", true, {"a", "b"}, "", 7},
                       {"greeting", false, {"say \"hi\"\n"}, "", 0},
                       {"key_password", false, {"hunter2"}, "", 9}};

  EXPECT_EQ(InventoryJson("cheap", {item}),
            R"({"check":"cheap","plugins":[{"section":"api[1]","id":"api-x","version":"1.2.3","abi":"1.0",)"
            R"("license":"MIT","stability":"beta","provides":["keyway.api/1"],"needs":[],"options":[)"
            R"({"key":"listen","value":["a","b"],"line":7},)"
            R"({"key":"greeting","value":"say \"hi\"\u000a","line":0},)"
            R"({"key":"key_password","value":"***","line":9}]}]})");
}

TEST(Inventory, KnowsSecretsByTheirNames) {
  for (const char* key : {"password", "bearer_token", "client_secret", "key_passphrase"}) {
    EXPECT_TRUE(IsSecretOption(key)) << key;
  }
  EXPECT_FALSE(IsSecretOption("listen"));
}

}  // namespace
}  // namespace keyway
