// SPDX-License-Identifier: Apache-2.0
//
// Messages are compared as a whole: they are what an operator works with.
#include "kernel/config/config.h"

#include <gtest/gtest.h>

#include <random>

namespace keyway {
namespace {

constexpr char kGood[] = R"([node]
name = "a"

[cluster.members]
a = "http://10.0.0.1:2380"
b = ["http://10.0.0.2:2380", "http://[::1]:2380"]

[storage]
plugin = "storage-lmdb"
map_size = "64MiB"

[[api]]
plugin = "api-etcd"
listen = ["http://127.0.0.1:2379"]
)";

constexpr kw_config_field kStoreFields[] = {
    {"dir", "path", "store", "folder"},
    {"map_size", "bytes(1MiB..16TiB)", "16GiB", "address space"},
    {"mode", "enum(safe|fast)", "safe", "durability"},
    {"readers", "int(1..4096)", "256", "reader slots"},
    {"flush", "duration(1..60000)", "100ms", "between flushes"},
    {"prealloc", "bool", "false", "fill files ahead"},
    {"tls.ca", "path", "", "trusted roots"},
    {"tags", "strings", "[\"x\", \"y\"]", "labels"},
};
// Without tls.ca, whose default is no path.
constexpr std::span<const kw_config_field> kFewFields = std::span(kStoreFields).first(6);

std::string Errors(std::string_view text) {
  std::vector<ConfigError> errors;
  ParseConfig(text, "keyway.toml", &errors);
  return FormatErrors("keyway.toml", errors);
}

std::string WithMembers(std::string text) {
  return "[node]\nname = \"a\"\n[cluster.members]\na = \"http://h:1\"\n" + text;
}

std::string StoreErrors(const std::string& options) {
  std::vector<ConfigError> errors;
  Config config = ParseConfig(WithMembers("[storage]\n" + options), "keyway.toml", &errors);
  EXPECT_EQ(FormatErrors("keyway.toml", errors), "");
  CheckPluginOptions(config, config.plugins.at(0), kFewFields, &errors);
  return FormatErrors("keyway.toml", errors);
}

TEST(Config, ReadsValuesAndDefaults) {
  std::vector<ConfigError> errors;
  Config config = ParseConfig(kGood, "keyway.toml", &errors);

  EXPECT_EQ(FormatErrors("keyway.toml", errors), "");
  EXPECT_EQ(config.name, "a");
  EXPECT_EQ(config.data_dir, "keyway-data");
  EXPECT_EQ(config.cluster_token, "keyway-cluster");
  EXPECT_FALSE(config.join_existing);
  ASSERT_EQ(config.members.size(), 2u);
  EXPECT_EQ(config.members[1].name, "b");
  EXPECT_EQ(config.members[1].urls.size(), 2u);
  EXPECT_EQ(config.listen_peer_urls, std::vector<std::string>{"http://10.0.0.1:2380"});
  EXPECT_EQ(config.heartbeat_ms, 100u);
  EXPECT_EQ(config.election_ms, 1000u);
  EXPECT_EQ(config.request_bytes_max, 1536u * 1024);
  EXPECT_EQ(config.txn_ops_max, 128u);
  EXPECT_EQ(config.quota_bytes, uint64_t{2} << 30);
  EXPECT_EQ(config.cache_bytes, uint64_t{64} << 20);
  std::vector<std::string> kinds;
  for (const auto& plugin : config.plugins) kinds.push_back(plugin.kind + "=" + plugin.plugin);
  EXPECT_EQ(kinds, (std::vector<std::string>{"storage=storage-lmdb", "log=log-segmented",
                                             "transport=transport-tcp", "api=api-etcd"}));
}

TEST(Config, StartsPluginsInFixedOrderWhateverTheFileSays) {
  std::vector<ConfigError> errors;
  Config config =
      ParseConfig(WithMembers("[[api]]\nplugin=\"x\"\n[[metrics]]\nplugin=\"m\"\n[[api]]\nplugin=\"/y.so\"\n"
                              "[log]\nplugin=\"l\"\n[auth]\nplugin=\"z\"\n[storage]\nplugin=\"s\"\n"),
                  "keyway.toml", &errors);

  EXPECT_EQ(FormatErrors("keyway.toml", errors), "");
  std::string order;
  for (const auto& plugin : config.plugins) order += plugin.label + "=" + plugin.plugin + " ";
  EXPECT_EQ(order, "auth=z storage=s log=l transport=transport-tcp metrics=m api[0]=x api[1]=/y.so ");
}

TEST(Config, SyntaxErrorNamesLineAndColumn) {
  const std::string text = Errors("[node]\nname = \"a\nx = 1\n");
  EXPECT_TRUE(text.starts_with("keyway.toml:2:10: ")) << text;
  EXPECT_TRUE(Errors("[node\n").starts_with("keyway.toml:1:6: ")) << Errors("[node\n");
  EXPECT_TRUE(Errors("[node]\nname = \"a\"\nname = \"b\"\n").starts_with("keyway.toml:3:")) << text;
}

TEST(Config, MissingNodeSaysWhatToAdd) {
  EXPECT_EQ(Errors(""), "keyway.toml: the section [node] is missing; add:\n  [node]\n  name = \"a\"\n");
}

TEST(Config, MissingMemberSaysWhatToAdd) {
  EXPECT_EQ(Errors("[node]\nname = \"n 1\"\n"),
            "keyway.toml: cluster.members: this node is missing; add:\n  [cluster.members]\n"
            "  \"n 1\" = \"http://127.0.0.1:2380\"\n");
}

TEST(Config, ReportsEveryErrorInFileOrder) {
  EXPECT_EQ(Errors("[node]\nname = 7\ndata_dri = \"x\"\n"
                   "[raft]\nheartbeat_interval = \"100\"\nelection_timeout = \"90s\"\n"
                   "[storge]\n[limits]\ntxn_ops_max = 0\nquota_bytes = \"9EiB\"\n"
                   "[cluster]\nstate = \"old\"\n"),
            "keyway.toml:2:8: node.name: expected a string, got 7\n"
            "keyway.toml:3:1: node.data_dri: unknown key, did you mean \"data_dir\"?\n"
            "keyway.toml:5:22: raft.heartbeat_interval: expected a duration from 1ms to 10s, such as "
            "\"100ms\", got \"100\"\n"
            "keyway.toml:6:20: raft.election_timeout: expected a duration from 10ms to 50s, such as "
            "\"100ms\", got \"90s\"\n"
            "keyway.toml:7:1: unknown section [storge], did you mean \"storage\"?\n"
            "keyway.toml:9:15: limits.txn_ops_max: expected an integer from 1 to 100000, got 0\n"
            "keyway.toml:10:15: limits.quota_bytes: expected a size from 0 to 1024TiB, such as "
            "\"64MiB\", got \"9EiB\"\n"
            "keyway.toml:12:9: cluster.state: expected one of \"new\", \"existing\", got \"old\"\n");
}

TEST(Config, ElectionTimeoutMustBeFiveHeartbeats) {
  EXPECT_EQ(Errors(WithMembers("[raft]\nheartbeat_interval = \"300ms\"\n")),
            "keyway.toml:5:1: raft.election_timeout: expected at least five times "
            "raft.heartbeat_interval (300ms), got 1000ms\n");
}

TEST(Config, EncryptedUrlsNeedAnAuthSection) {
  const std::string text =
      "[transport]\nlisten_urls = [\"https://10.0.0.1:2380\"]\n"
      "[[api]]\nplugin = \"x\"\nlisten = [\"http://10.0.0.1:2379\", \"https://10.0.0.1:2378\"]\n";
  EXPECT_EQ(Errors(WithMembers(text)),
            "keyway.toml:6:15: transport.listen_urls: \"https://10.0.0.1:2380\" needs certificates; add a "
            "section [auth] with plugin = \"auth-mtls\"\n"
            "keyway.toml:9:10: api.listen: \"https://10.0.0.1:2378\" needs certificates; add a section "
            "[auth] with plugin = \"auth-mtls\"\n");
  EXPECT_EQ(Errors(WithMembers(text + "[auth]\nplugin = \"z\"\n")), "");
}

TEST(Config, TableAndArrayOfTablesAreToldApart) {
  EXPECT_EQ(Errors(WithMembers("[api]\nplugin = \"x\"\n")),
            "keyway.toml:5:1: api: expected [[api]], got [api]\n");
  EXPECT_EQ(Errors(WithMembers("[[log]]\nplugin = \"x\"\n")),
            "keyway.toml:5:1: log: expected [log], got [[log]]\n");
}

TEST(Config, PluginIsNameOrAbsolutePath) {
  for (const char* bad : {"\"../x.so\"", "\"a/b\"", "\"\"", "3", "\".x\""}) {
    EXPECT_EQ(Errors(WithMembers(std::string("[[api]]\nplugin = ") + bad + "\n")),
              std::string("keyway.toml:6:10: api.plugin: expected a plugin's name or an absolute "
                          "path, got ") +
                  bad + "\n");
  }
  EXPECT_EQ(Errors(WithMembers("[[api]]\nlisten = []\n")),
            "keyway.toml:5:1: api.plugin: missing; expected a plugin's name or an absolute path\n");
}

TEST(Config, MembersAreStrict) {
  EXPECT_EQ(Errors("[node]\nname = \"a\"\n[cluster.members]\na = \"10.0.0.1:2380\"\nb = 3\n"
                   "c = []\nd = \"http://h:99999\"\n"),
            "keyway.toml:4:5: cluster.members.a: expected a URL such as \"http://10.0.0.1:2380\", got "
            "\"10.0.0.1:2380\"\n"
            "keyway.toml:5:5: cluster.members.b: expected NAME = \"http://HOST:PORT\" or an array of "
            "such URLs, got 3\n"
            "keyway.toml:6:5: cluster.members.c: expected at least one URL, got []\n"
            "keyway.toml:7:5: cluster.members.d: expected a URL such as \"http://10.0.0.1:2380\", got "
            "\"http://h:99999\"\n");
  EXPECT_EQ(Errors("[node]\nname = \"a\"\n[cluster.members]\na = \"http://h:1\"\nb = \"http://h:1\"\n"),
            "keyway.toml:5:5: cluster.members.b: \"http://h:1\" is also a URL of member \"a\"\n");
}

TEST(PluginOptions, GiveBaseUnitsLinesAndDefaults) {
  std::vector<ConfigError> errors;
  Config config =
      ParseConfig(WithMembers("[storage]\nmap_size = \"64MiB\"\nflush = \"59.5s\"\ntls.ca = \"/ca\"\n"),
                  "keyway.toml", &errors);

  Options options = CheckPluginOptions(config, config.plugins.at(0), kStoreFields, &errors);

  EXPECT_EQ(FormatErrors("keyway.toml", errors), "");
  std::string items;
  for (const kw_config_item& item : options.Items()) {
    items += std::string(item.key) + "=" +
             std::string(reinterpret_cast<const char*>(item.value.ptr), item.value.len) + "@" +
             std::to_string(item.line) + " ";
  }
  EXPECT_EQ(items,
            "dir=keyway-data/storage@0 map_size=67108864@6 mode=safe@0 readers=256@0 flush=59500@7 "
            "prealloc=false@0 tls.ca=/ca@8 tags=x@0 tags=y@0 ");
}

TEST(PluginOptions, ApiPluginIsToldTheRequestLimit) {
  constexpr kw_config_field kFields[] = {{"max_request_bytes", "bytes(1KiB..512MiB)", "1536KiB", ""}};
  std::vector<ConfigError> errors;
  Config config =
      ParseConfig(WithMembers("[limits]\nrequest_bytes_max = \"2MiB\"\n[[api]]\nplugin = \"x\"\n"),
                  "keyway.toml", &errors);

  Options options = CheckPluginOptions(config, config.plugins.back(), kFields, &errors);

  EXPECT_EQ(FormatErrors("keyway.toml", errors), "");
  EXPECT_EQ(options.Number("max_request_bytes"), 2 << 20);
}

TEST(PluginOptions, ReportEveryWrongType) {
  EXPECT_EQ(StoreErrors("map_size = true\nmode = \"quick\"\nreaders = \"7\"\nflush = 5\n"
                        "prealloc = 1\ndir = \"\"\nmap_sise = 1\nzzz = 1\n"),
            "keyway.toml:6:12: storage.map_size: expected a size from 1MiB to 16TiB, such as "
            "\"64MiB\", got true\n"
            "keyway.toml:7:8: storage.mode: expected one of \"safe\", \"fast\", got \"quick\"\n"
            "keyway.toml:8:11: storage.readers: expected an integer from 1 to 4096, got \"7\"\n"
            "keyway.toml:9:9: storage.flush: expected a duration from 1ms to 1m, such as \"100ms\", "
            "got 5\n"
            "keyway.toml:10:12: storage.prealloc: expected true or false, got 1\n"
            "keyway.toml:11:7: storage.dir: expected a path (a string that is not empty), got \"\"\n"
            "keyway.toml:12:1: storage.map_sise: unknown key, did you mean \"map_size\"?\n"
            "keyway.toml:13:1: storage.zzz: unknown key\n");
  EXPECT_EQ(StoreErrors("readers = 4097\n"),
            "keyway.toml:6:11: storage.readers: expected an integer from 1 to 4096, got 4097\n");
  EXPECT_EQ(StoreErrors("readers = {a = 1}\nmode = 2020-01-01\n"),
            "keyway.toml:6:12: storage.readers.a: unknown key, did you mean \"readers\"?\n"
            "keyway.toml:7:8: storage.mode: expected one of \"safe\", \"fast\", got a date\n");
}

TEST(PluginOptions, MissingRequiredOptionCarriesItsDoc) {
  constexpr kw_config_field kFields[] = {{"url", "string", nullptr, "where to go"},
                                         {"odd", "float(1)", "1", ""}};
  std::vector<ConfigError> errors;
  Config config = ParseConfig(WithMembers("[log]\nplugin = \"x\"\n"), "keyway.toml", &errors);

  CheckPluginOptions(config, config.plugins.at(1), kFields, &errors);

  EXPECT_EQ(FormatErrors("keyway.toml", errors),
            "keyway.toml:5:1: log.url: missing; expected a string (where to go)\n"
            "keyway.toml:5:1: log.odd: the schema has the unknown type \"float(1)\" (a fault of the "
            "plugin)\n");
}

TEST(PrintConfig, IsValidTomlThatMeansTheSame) {
  std::vector<ConfigError> errors;
  Config config = ParseConfig(kGood, "keyway.toml", &errors);
  constexpr kw_config_field kApi[] = {{"listen", "strings", nullptr, "URLs"}};
  auto options = [&](const Config& of) {
    std::vector<Options> all;
    for (const PluginSection& section : of.plugins) {
      std::span<const kw_config_field> fields;
      if (section.kind == "storage") fields = kFewFields;
      if (section.kind == "api") fields = kApi;
      all.push_back(CheckPluginOptions(of, section, fields, &errors));
    }
    return all;
  };
  const auto first_options = options(config);

  const std::string printed = PrintConfig(config, first_options);

  Config again = ParseConfig(printed, "printed", &errors);
  const auto second_options = options(again);
  EXPECT_EQ(FormatErrors("printed", errors), "") << printed;
  ASSERT_EQ(first_options.size(), second_options.size());
  for (size_t i = 0; i < first_options.size(); ++i) {
    ASSERT_EQ(first_options[i].list.size(), second_options[i].list.size());
    for (size_t j = 0; j < first_options[i].list.size(); ++j) {
      EXPECT_EQ(first_options[i].list[j].values, second_options[i].list[j].values);
    }
  }
  EXPECT_EQ(again.request_bytes_max, config.request_bytes_max);
  EXPECT_EQ(again.listen_peer_urls, config.listen_peer_urls);
  EXPECT_NE(printed.find("map_size = \"64MiB\"  # line 10\n"), std::string::npos) << printed;
  EXPECT_NE(printed.find("txn_ops_max = 128  # default\n"), std::string::npos) << printed;
}

TEST(Units, AreExact) {
  EXPECT_EQ(ParseByteSize("1.5MiB"), 1536 * 1024);
  EXPECT_EQ(ParseByteSize("0"), 0);
  EXPECT_EQ(ParseByteSize("8 GiB"), int64_t{8} << 30);
  for (const char* bad : {"", "MiB", "1.MiB", "1.3B", "-1", "1mib", "99999999TiB", "1.1234567MiB"}) {
    EXPECT_EQ(ParseByteSize(bad), std::nullopt) << bad;
  }
  EXPECT_EQ(ParseDurationMs("1h30m"), 5400000);
  EXPECT_EQ(ParseDurationMs("1.5s"), 1500);
  for (const char* bad : {"", "5", "ms", "1d", "-1s", "1s ", "999999999999999999h"}) {
    EXPECT_EQ(ParseDurationMs(bad), std::nullopt) << bad;
  }
}

TEST(OptionTypes, AreParsedStrictly) {
  for (const char* good : {"bool", "int(0..5)", "int(-3..-1)", "bytes(1KiB..2MiB)", "bytes(0..9)",
                           "duration(1..60000)", "duration(1ms..1h)", "enum(a)", "enum(a|b)"}) {
    EXPECT_TRUE(ParseOptionType(good).has_value()) << good;
  }
  for (const char* bad : {"", "int", "int()", "int(5..0)", "int(1..)", "enum()", "enum(a|)", "Bool",
                          "bytes(1..2", "duration(x..y)"}) {
    EXPECT_FALSE(ParseOptionType(bad).has_value()) << bad;
  }
}

// Whatever the bytes, there is an answer and no crash.
TEST(Config, SurvivesMutatedInput) {
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    std::string text = kGood;
    for (int change = 0; change < 3; ++change) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, random() % 8);
          break;
        case 2:
          text.insert(at, 1, "[]=\"'\\.#{}\n0a"[random() % 13]);
          break;
      }
      if (text.empty()) text = "x";
    }
    std::vector<ConfigError> errors;
    Config config = ParseConfig(text, "keyway.toml", &errors);
    for (const PluginSection& section : config.plugins) {
      CheckPluginOptions(config, section, kFewFields, &errors);
    }
    PrintConfig(config, {});
  }
}

}  // namespace
}  // namespace keyway
