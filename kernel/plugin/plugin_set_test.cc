// SPDX-License-Identifier: Apache-2.0
//
// Six recording plugins, linked statically, and the fixtures of the folder.
#include "kernel/plugin/plugin_set.h"

#include <gtest/gtest.h>

#include <cstring>
#include <stdexcept>

namespace keyway {
namespace {

// What the plugins did, in order, and how the next ones shall behave.
std::string history;
std::string fails_create, fails_start, throws_start, lacks_function;
const kw_host* last_host = nullptr;

struct Recorder {
  kw_plugin plugin;
  std::string name;
};

Recorder& Self(kw_plugin* plugin) { return *static_cast<Recorder*>(plugin->self); }

const void* TableOf(const std::string& name) {
  static kw_kv_store store = {
      .size = sizeof(kw_kv_store),
      .key_bytes_max = 511,
      .value_bytes_max = 8u << 20,
      .write = [](kw_plugin*, const kw_kv_op*, size_t, kw_error*) { return KW_OK + 0; },
      .sync = [](kw_plugin*, kw_error*) { return KW_OK + 0; },
      .view_open = [](kw_plugin*, kw_kv_view**, kw_error*) { return KW_OK + 0; },
      .view_close = [](kw_plugin*, kw_kv_view*) {},
      .get = [](kw_plugin*, kw_kv_view*, uint32_t, const kw_slice*, size_t, kw_slice*,
                kw_error*) { return KW_OK + 0; },
      .cursor_open = [](kw_plugin*, kw_kv_view*, uint32_t, kw_slice, kw_slice, uint32_t, kw_kv_cursor**,
                        kw_error*) { return KW_OK + 0; },
      .cursor_next = [](kw_plugin*, kw_kv_cursor*, kw_kv_pair*, size_t, size_t*,
                        kw_error*) { return KW_OK + 0; },
      .cursor_close = [](kw_plugin*, kw_kv_cursor*) {},
      .stats = [](kw_plugin*, kw_kv_stats*, kw_error*) { return KW_OK + 0; },
  };
  static kw_log_store log = {
      .size = sizeof(kw_log_store),
      .recover = [](kw_plugin*, kw_hard_state*, kw_log_bounds*, kw_error*) { return KW_OK + 0; },
      .append = [](kw_plugin*, const kw_log_entry*, size_t, const kw_hard_state*,
                   kw_completion*) { return KW_OK + 0; },
      .read = [](kw_plugin*, uint64_t, uint64_t, uint64_t, kw_log_batch**, kw_error*) { return KW_OK + 0; },
      .truncate_prefix = [](kw_plugin*, uint64_t, kw_completion*) { return KW_OK + 0; },
      .reset = [](kw_plugin*, uint64_t, uint64_t, kw_completion*) { return KW_OK + 0; },
  };
  static kw_transport transport = {
      .size = sizeof(kw_transport),
      .frame_bytes_max = 8u << 20,
      .listen = [](kw_plugin*, uint64_t, const char*, const char* const*, size_t, const kw_transport_sink*,
                   kw_error*) { return KW_OK + 0; },
      .set_peers = [](kw_plugin*, uint64_t, const kw_peer*, size_t, kw_error*) { return KW_OK + 0; },
      .send = [](kw_plugin*, const kw_frame*, size_t count) { return count; },
      .stats = [](kw_plugin*, uint64_t, kw_transport_stats*) { return KW_OK + 0; },
  };
  static kw_authenticator auth = {
      .size = sizeof(kw_authenticator),
      .authenticate =
          [](kw_plugin*, const kw_evidence*, kw_principal* out, kw_completion*) {
            std::memcpy(out->name, "bob", out->len = 3);
            return KW_OK + 0;
          },
      .tls =
          [](kw_plugin*, const char*, kw_tls** out, kw_error*) {
            *out = nullptr;
            return KW_OK + 0;
          },
  };
  static kw_observer metrics = {
      .size = sizeof(kw_observer),
      .render = [](kw_plugin*, const kw_sample*, size_t, kw_writer*, kw_error*) { return KW_OK + 0; },
  };
  static kw_log_store without_reset = log;
  without_reset.reset = nullptr;
  static const uint64_t api = 8;
  if (name == "r-storage") return &store;
  if (name == "r-log") return lacks_function == name ? &without_reset : &log;
  if (name == "r-transport") return &transport;
  if (name == "r-auth") return &auth;
  if (name == "r-metrics") return &metrics;
  return &api;
}

int32_t Create(const char* name, const kw_host* host, kw_plugin** out, kw_error* error) {
  last_host = host;
  if (fails_create == name) {
    std::strcpy(error->text, "bad combination");
    return KW_INVALID_ARGUMENT;
  }
  auto* self = new Recorder{{}, name};
  self->plugin = {.size = sizeof(kw_plugin), .self = self};
  self->plugin.start = [](kw_plugin* plugin, kw_error* start_error) -> int32_t {
    if (fails_start == Self(plugin).name) {
      std::strcpy(start_error->text, "address in use");
      return KW_UNAVAILABLE;
    }
    if (throws_start == Self(plugin).name) throw std::runtime_error("oops");
    history += "+" + Self(plugin).name + " ";
    return KW_OK;
  };
  self->plugin.stop = [](kw_plugin* plugin) { history += "-" + Self(plugin).name + " "; };
  self->plugin.destroy = [](kw_plugin* plugin) {
    history += "~" + Self(plugin).name + " ";
    delete &Self(plugin);
  };
  self->plugin.get = [](kw_plugin* plugin, const char*) { return TableOf(Self(plugin).name); };
  *out = &self->plugin;
  return KW_OK;
}

// One descriptor for each name.
template <int kIndex>
const kw_descriptor* Descriptor() {
  static constexpr const char* kNames[] = {"r-auth",      "r-storage", "r-log",
                                           "r-transport", "r-metrics", "r-api"};
  static constexpr const char* kProvided[] = {KW_AUTHENTICATOR, KW_KV_STORE, KW_LOG_STORE,
                                              KW_TRANSPORT,     KW_OBSERVER, KW_API};
  static const char* const provides[] = {kProvided[kIndex], nullptr};
  static const char* const api_needs[] = {KW_KERNEL, KW_IDENTITY, KW_EXPOSITION, KW_METRICS, nullptr};
  static const char* const log_needs[] = {KW_LOG, nullptr};
  static constexpr kw_config_field kFields[] = {{"dir", "path", "x", ""}, {"listen", "strings", "[]", ""}};
  static const kw_descriptor descriptor = {
      .size = sizeof(kw_descriptor),
      .abi_major = 1,
      .abi_minor = 0,
      .id = kNames[kIndex],
      .version = "1.0.0",
      .license = "Apache-2.0",
      .stability = "stable",
      .provides = provides,
      .needs = kIndex == 5 ? api_needs : log_needs,
      .fields = kFields,
      .field_count = 2,
      .create = [](const kw_host* host, const kw_config_item*, size_t, kw_plugin** out, kw_error* error) {
        return Create(kNames[kIndex], host, out, error);
      }};
  return &descriptor;
}

constexpr char kAll[] = R"([node]
name = "a"
[cluster.members]
a = "http://h:1"
[[api]]
plugin = "r-api"
listen = ["http://127.0.0.1:2379"]
[[metrics]]
plugin = "r-metrics"
[transport]
plugin = "r-transport"
[log]
plugin = "r-log"
[storage]
plugin = "r-storage"
[auth]
plugin = "r-auth"
)";

class PluginSetTest : public testing::Test {
 protected:
  PluginSetTest() {
    static const kw_descriptor* const kPlugins[] = {Descriptor<0>(), Descriptor<1>(), Descriptor<2>(),
                                                    Descriptor<3>(), Descriptor<4>(), Descriptor<5>()};
    static const kw_entry kEntry = {sizeof(kw_entry), 1, 0, kPlugins, 6};
    RegisterStaticPlugin(&kEntry);
    history = fails_create = fails_start = throws_start = lacks_function = "";
    services_.logger = &logger_;
    services_.metrics = &metrics_;
  }

  // The set, loaded; configuration errors are in errors_.
  PluginSet& Load(const std::string& text = kAll) {
    std::vector<ConfigError> errors;
    set_.reset();  // It refers to the configuration.
    config_ = ParseConfig(text, "keyway.toml", &errors);
    EXPECT_EQ(FormatErrors("keyway.toml", errors), "");
    set_ = std::make_unique<PluginSet>(&config_, &loader_, &services_);
    set_->Load(&errors);
    errors_ = FormatErrors("keyway.toml", errors);
    return *set_;
  }

  NullLogger logger_;
  MetricsRegistry metrics_;
  kw_kernel kernel_ = {};
  NodeServices services_;
  PluginLoader loader_{FIXTURE_DIR};
  Config config_;
  std::string errors_;
  std::unique_ptr<PluginSet> set_;
};

std::string Text(const absl::Status& status) { return std::string(status.message()); }

TEST_F(PluginSetTest, StartsInOrderAndStopsInReverse) {
  PluginSet& set = Load();
  EXPECT_EQ(errors_, "");

  ASSERT_TRUE(set.Create().ok());
  ASSERT_TRUE(set.Start().ok());
  EXPECT_EQ(history, "+r-auth +r-storage +r-log +r-transport +r-metrics ");
  services_.kernel = &kernel_;
  ASSERT_TRUE(set.StartApis().ok());
  EXPECT_EQ(set.ListenClientUrls(), std::vector<std::string>{"http://127.0.0.1:2379"});
  EXPECT_EQ(set.store().table.size, sizeof(kw_kv_store));
  history.clear();
  set.StopApis();
  set.Stop();

  EXPECT_EQ(history,
            "-r-api -r-metrics -r-transport -r-log -r-storage -r-auth "
            "~r-api ~r-metrics ~r-transport ~r-log ~r-storage ~r-auth ");
}

TEST_F(PluginSetTest, AbsentOptionalFunctionAnswersUnimplemented) {
  PluginSet& set = Load();
  ASSERT_TRUE(set.Create().ok());

  EXPECT_EQ(set.store().table.checkpoint(nullptr, "d", nullptr), KW_UNIMPLEMENTED);
  EXPECT_EQ(set.store().table.reclaim(nullptr, nullptr), KW_UNIMPLEMENTED);
}

// What it costs when it is off: nothing is between the kernel and the plugin.
TEST_F(PluginSetTest, CheckLevelOffGivesThePluginsOwnTables) {
  PluginSet& set = Load(std::string(kAll) + "[check]\nlevel = \"off\"\n");
  ASSERT_TRUE(set.Create().ok());
  ASSERT_TRUE(set.Start().ok());

  const auto& own = *static_cast<const kw_log_store*>(TableOf("r-log"));
  EXPECT_EQ(set.log().table.append, own.append);
  EXPECT_EQ(set.log().table.read, own.read);
  EXPECT_EQ(Self(set.log().plugin).name, "r-log");
  EXPECT_EQ(set.transport().table.send, static_cast<const kw_transport*>(TableOf("r-transport"))->send);
  EXPECT_EQ(set.store().table.get, static_cast<const kw_kv_store*>(TableOf("r-storage"))->get);
  services_.kernel = &kernel_;
  EXPECT_EQ(last_host->get(last_host, KW_KERNEL), &kernel_);
}

TEST_F(PluginSetTest, OtherCheckLevelsPutAWrapperBetween) {
  for (const char* level : {"cheap", "full"}) {
    PluginSet& set = Load(std::string(kAll) + "[check]\nlevel = \"" + level + "\"\n");
    ASSERT_TRUE(set.Create().ok());
    ASSERT_TRUE(set.Start().ok());

    EXPECT_NE(set.log().table.append, static_cast<const kw_log_store*>(TableOf("r-log"))->append);
    kw_error error = {.size = sizeof(kw_error)};
    EXPECT_EQ(set.store().table.sync(set.store().plugin, &error), KW_OK);
    set.Stop();
  }
}

TEST_F(PluginSetTest, AbsentMandatoryFunctionIsRefusedByName) {
  lacks_function = "r-log";

  EXPECT_EQ(Text(Load().Create()),
            "plugin r-log ([log], keyway.toml:13): keyway.log-store/1: the mandatory function reset is "
            "missing");
  EXPECT_EQ(history, "~r-log ~r-storage ~r-auth ");
}

TEST_F(PluginSetTest, FailedStartUndoesEverything) {
  fails_start = "r-transport";
  PluginSet& set = Load();
  ASSERT_TRUE(set.Create().ok());

  EXPECT_EQ(Text(set.Start()),
            "plugin r-transport ([transport], keyway.toml:11): did not start: UNAVAILABLE: address in "
            "use");
  EXPECT_EQ(history,
            "+r-auth +r-storage +r-log -r-log -r-storage -r-auth "
            "~r-api ~r-metrics ~r-transport ~r-log ~r-storage ~r-auth ");
}

TEST_F(PluginSetTest, FailedCreateNamesPluginLineAndReason) {
  fails_create = "r-storage";

  EXPECT_EQ(Text(Load().Create()),
            "plugin r-storage ([storage], keyway.toml:15): cannot be created: INVALID_ARGUMENT: bad "
            "combination");
  EXPECT_EQ(history, "~r-auth ");
}

TEST_F(PluginSetTest, ExceptionFromStartIsAFailureOfThatPlugin) {
  throws_start = "r-storage";
  PluginSet& set = Load();
  ASSERT_TRUE(set.Create().ok());

  EXPECT_EQ(Text(set.Start()),
            "plugin r-storage ([storage], keyway.toml:15): did not start: INTERNAL: it threw an "
            "exception, which the ABI forbids (rule no-exception): oops");
}

TEST_F(PluginSetTest, AllLoadErrorsAreReportedTogether) {
  Load(R"([node]
name = "a"
[cluster.members]
a = "http://h:1"
[storage]
plugin = "r-log"
[log]
plugin = "r-log"
dri = "/x"
[transport]
plugin = "fixture-minor"
[auth]
plugin = "r-auth"
)");

  EXPECT_EQ(errors_,
            "keyway.toml:6:1: storage.plugin: this section needs a plugin that provides "
            "keyway.kv-store/1; r-log provides keyway.log-store/1\n"
            "keyway.toml:9:1: log.dri: unknown key, did you mean \"dir\"?\n"
            "keyway.toml:11:1: transport.plugin: " FIXTURE_DIR
            "/fixture-minor.so: plugin fixture-minor 0.3.0 needs ABI 1.4, this keywayd offers 1.0: use a "
            "keywayd that offers ABI 1.4 or later, or a fixture-minor built for ABI 1.0\n");
}

TEST_F(PluginSetTest, ServicesAreGrantedByNeedOnly) {
  PluginSet& set = Load();
  ASSERT_TRUE(set.Create().ok());
  const kw_host* api_host = last_host;  // Created last.

  EXPECT_EQ(api_host->get(api_host, KW_LOG), nullptr);
  EXPECT_EQ(api_host->get(api_host, KW_KERNEL), nullptr) << "there is no kernel yet";
  services_.kernel = &kernel_;
  EXPECT_NE(api_host->get(api_host, KW_KERNEL), nullptr);

  const auto* identity = static_cast<const kw_identity*>(api_host->get(api_host, KW_IDENTITY));
  kw_evidence evidence = {.size = sizeof(kw_evidence)};
  kw_principal principal = {.size = sizeof(kw_principal), .len = 9};
  EXPECT_EQ(identity->authenticate(api_host, &evidence, &principal, nullptr), KW_OK);
  EXPECT_EQ(principal.len, 0u) << "nobody is asked before the authenticator has started";
  const auto* exposition = static_cast<const kw_exposition*>(api_host->get(api_host, KW_EXPOSITION));
  kw_error error = {.size = sizeof(kw_error)};
  EXPECT_EQ(exposition->render(api_host, nullptr, &error), KW_NOT_FOUND);

  ASSERT_TRUE(set.Start().ok());
  EXPECT_EQ(identity->authenticate(api_host, &evidence, &principal, nullptr), KW_OK);
  EXPECT_EQ(std::string(principal.name, principal.len), "bob");
  EXPECT_EQ(exposition->render(api_host, nullptr, &error), KW_OK);
  const auto* metrics = static_cast<const kw_metrics*>(api_host->get(api_host, KW_METRICS));
  EXPECT_NE(metrics->cell(api_host, KW_METRIC_GAUGE, "g", "", nullptr, 0), nullptr);
  std::vector<double> bounds(MetricsRegistry::kBoundsMax + 1);
  EXPECT_EQ(metrics->histogram(api_host, "h", "", nullptr, 0, bounds.data(), bounds.size()), nullptr);
}

constexpr char kWithFixture[] = R"([node]
name = "a"
[cluster.members]
a = "http://h:1"
[storage]
plugin = "r-storage"
[log]
plugin = "r-log"
[transport]
plugin = "r-transport"
[[metrics]]
plugin = ")";

TEST_F(PluginSetTest, LoadedFixtureRuns) {
  PluginSet& set = Load(std::string(kWithFixture) + "fixture-good\"\npath = \"/m\"\n");
  EXPECT_EQ(errors_, "");

  ASSERT_TRUE(set.Create().ok());
  EXPECT_TRUE(set.Start().ok());
}

TEST_F(PluginSetTest, LoadedFixtureThrows) {
  EXPECT_EQ(Text(Load(std::string(kWithFixture) + "fixture-throws-create\"\n").Create()),
            "plugin fixture-throws-create ([metrics], keyway.toml:12): cannot be created: INTERNAL: it threw "
            "an exception, which the ABI forbids (rule no-exception): thrown by create");
  PluginSet& set = Load(std::string(kWithFixture) + "fixture-throws-start\"\n");
  ASSERT_TRUE(set.Create().ok());
  EXPECT_EQ(Text(set.Start()),
            "plugin fixture-throws-start ([metrics], keyway.toml:12): did not start: INTERNAL: it threw an "
            "exception, which the ABI forbids (rule no-exception): thrown by start");
}

TEST_F(PluginSetTest, LoadedFixtureFailsToStart) {
  PluginSet& set = Load(std::string(kWithFixture) + "fixture-failing\"\n");
  ASSERT_TRUE(set.Create().ok());

  EXPECT_EQ(Text(set.Start()),
            "plugin fixture-failing ([metrics], keyway.toml:12): did not start: UNAVAILABLE: no such "
            "device");
}

TEST_F(PluginSetTest, TableThatEndsBeforeAFunctionLacksIt) {
  EXPECT_EQ(Text(Load(std::string(kWithFixture) + "fixture-short\"\n").Create()),
            "plugin fixture-short ([metrics], keyway.toml:12): keyway.observer/1: the mandatory function "
            "render is missing");
}

}  // namespace
}  // namespace keyway
