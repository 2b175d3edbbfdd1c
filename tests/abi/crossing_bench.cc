// SPDX-License-Identifier: Apache-2.0
//
// crossing_bench PLUGIN_DIR: what one call through the ABI costs, in ns, as JSON on stdout.
//
// Rows: a call that does next to nothing (kv-store.stats), a get of one key, a frame to an unknown peer;
// through the plugin linked into this program, through the loaded library, and through the checking host
// at each level. The least of several runs in turn: the one that was disturbed least.
#include <dlfcn.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernel/base/bytes.h"
#include "kernel/plugin/check/checked_store.h"
#include "kernel/plugin/check/checked_transport.h"
#include "kernel/plugin/tables.h"
#include "keyway/host.h"

extern "C" const kw_entry* kw_plugin_entry_storage_lmdb(void);
extern "C" const kw_entry* kw_plugin_entry_transport_tcp(void);

namespace {

using namespace keyway;

constexpr int kRuns = 100;

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "crossing_bench: %s\n", what);
  exit(1);
}

uint64_t NowNs(const kw_host*) {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}
constexpr kw_clock kClock = {sizeof(kw_clock), 0, NowNs, NowNs, nullptr, nullptr};
const void* Service(const kw_host*, const char* id) {
  return std::string_view(id) == KW_CLOCK ? &kClock : nullptr;
}
const kw_host host = {sizeof(kw_host), KW_ABI_MAJOR, KW_ABI_MINOR, nullptr, "bench", Service};
const kw_transport_sink sink = {sizeof(kw_transport_sink), 0, nullptr, [](void*, const kw_frame*, size_t) {},
                                [](void*, uint64_t, uint32_t, kw_slice) {}};

const kw_entry* Load(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) Fail(dlerror());
  return reinterpret_cast<const kw_entry* (*)()>(dlsym(library, KW_PLUGIN_ENTRY_SYMBOL))();
}

kw_plugin* Start(const kw_entry* entry, const std::string& directory) {
  const kw_config_item items[] = {{"dir", ToSlice(directory), 0, 0}};
  kw_plugin* plugin = nullptr;
  kw_error error{sizeof(kw_error)};
  if (entry->plugins[0]->create(&host, items, directory.empty() ? 0 : 1, &plugin, &error) != KW_OK ||
      plugin->start(plugin, &error) != KW_OK) {
    Fail(error.text);
  }
  return plugin;
}

// One way to the plugins.
struct Way {
  std::string name;
  kw_plugin *store_plugin, *transport_plugin;
  kw_kv_store store;
  kw_transport transport;
};

template <typename Call>
double NanosecondsOf(int count, Call&& call) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) call();
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
  return took.count() / count;
}

void Measure(const Way& way, std::map<std::string, std::vector<double>>* out) {
  kw_error error{sizeof(kw_error)};
  const bool is_full = way.name == "full";
  const int count = is_full ? 200 : 10'000;  // Within one turn of the scheduler.
  kw_kv_stats stats{sizeof(kw_kv_stats)};
  (*out)["trivial " + way.name].push_back(
      NanosecondsOf(count, [&] { way.store.stats(way.store_plugin, &stats, &error); }));
  kw_kv_view* view = nullptr;
  if (way.store.view_open(way.store_plugin, &view, &error) != KW_OK) Fail(error.text);
  const kw_slice key = ToSlice("key");
  kw_slice value{};
  (*out)["get " + way.name].push_back(
      NanosecondsOf(count, [&] { way.store.get(way.store_plugin, view, 0, &key, 1, &value, &error); }));
  if (value.len != 256) Fail("the value is not there");
  way.store.view_close(way.store_plugin, view);
  const std::string body(256, 'b');
  const kw_frame frame = {77, KW_LANE_CONTROL, 0, ToSlice("head"), ToSlice(body)};
  (*out)["send " + way.name].push_back(
      NanosecondsOf(count, [&] { way.transport.send(way.transport_plugin, &frame, 1); }));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) Fail("the folder of the plugins is needed");
  thread_role = ThreadRole::kControl;
  const std::string plugins = argv[1];
  char pattern[] = "/tmp/keyway-crossing-XXXXXX";
  const std::string directory = mkdtemp(pattern);
  NullLogger logger;

  std::vector<Way> ways;
  std::vector<kw_plugin*> started;
  const auto add = [&](const char* name, const kw_entry* store, const kw_entry* transport) {
    Way way{name, Start(store, directory + "/" + name), Start(transport, ""), {}, {}};
    started.insert(started.end(), {way.store_plugin, way.transport_plugin});
    const void* store_table = way.store_plugin->get(way.store_plugin, KW_KV_STORE);
    const void* transport_table = way.transport_plugin->get(way.transport_plugin, KW_TRANSPORT);
    if (!CompleteTable(store_table, &way.store).ok() ||
        !CompleteTable(transport_table, &way.transport).ok()) {
      Fail("a table is not complete");
    }
    ways.push_back(way);
  };
  add("static", kw_plugin_entry_storage_lmdb(), kw_plugin_entry_transport_tcp());
  add("off", Load(plugins + "/storage-lmdb.so"), Load(plugins + "/transport-tcp.so"));
  for (const Way& way : ways) {
    const std::string value(256, 'v');
    const kw_kv_op op = {KW_KV_PUT, 0, ToSlice("key"), ToSlice(value)};
    kw_error error{sizeof(kw_error)};
    if (way.store.write(way.store_plugin, &op, 1, &error) != KW_OK) Fail(error.text);
    // Nobody connects, but a transport sends only once it listens.
    int32_t code = KW_UNAVAILABLE;
    for (int attempt = 0; attempt < 20 && code != KW_OK; ++attempt) {
      const std::string url = "http://127.0.0.1:" + std::to_string(20000 + std::random_device()() % 12000);
      const char* urls[] = {url.c_str()};
      code = way.transport.listen(way.transport_plugin, 1, "bench", urls, 1, &sink, &error);
    }
    if (code != KW_OK) Fail(error.text);
  }
  // The checking host in front of the loaded library.
  std::vector<std::unique_ptr<check::CheckedStore>> stores;
  std::vector<std::unique_ptr<check::CheckedTransport>> transports;
  for (check::Level level : {check::Level::kCheap, check::Level::kFull}) {
    const Way& off = ways[1];
    const check::Subject* subject = check::Subject::Make("bench", level, &logger);
    stores.push_back(std::make_unique<check::CheckedStore>(subject, off.store_plugin, off.store));
    transports.push_back(
        std::make_unique<check::CheckedTransport>(subject, off.transport_plugin, off.transport));
    ways.push_back({level == check::Level::kCheap ? "cheap" : "full", stores.back()->plugin(),
                    transports.back()->plugin(), stores.back()->table(), transports.back()->table()});
  }

  std::map<std::string, std::vector<double>> results;
  for (int run = 0; run < kRuns; ++run) {
    for (const Way& way : ways) Measure(way, &results);
  }
  std::printf("{");
  const char* separator = "";
  for (auto& [name, values] : results) {
    std::printf("%s\"%s\": %.1f", separator, name.c_str(), *std::min_element(values.begin(), values.end()));
    separator = ", ";
  }
  std::printf("}\n");
  for (kw_plugin* plugin : started) plugin->stop(plugin);
  [[maybe_unused]] const int removed = system(("rm -rf " + directory).c_str());
  return 0;
}
