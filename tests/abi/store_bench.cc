// SPDX-License-Identifier: Apache-2.0
//
// Micro-benchmark of an engine on a real disk:
//   store_bench storage-lmdb|storage-rocksdb DIRECTORY [RECORDS [VALUE_BYTES [OPTION=VALUE ...]]]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "kv_store_client.h"

namespace keyway::test {
namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}
std::string Key(uint64_t number) {
  char key[17];
  std::snprintf(key, sizeof key, "%016llx", static_cast<unsigned long long>(number));
  return key;
}
void Report(const char* name, uint64_t count, double seconds) {
  std::printf("%-36s %8.3f s %10.3f us each\n", name, seconds, seconds * 1e6 / double(count));
}

// Writes batches of about 4 MiB and syncs each. Values are parts of `pool`, which does not compress.
bool Fill(Store& store, uint32_t table, const std::vector<std::string>& keys, std::string_view pool,
          size_t value_bytes) {
  const size_t step = std::max<size_t>(1, (4 << 20) / (value_bytes + 16));
  for (size_t at = 0; at < keys.size(); at += step) {
    std::vector<kw_kv_op> ops;
    for (size_t i = at; i < std::min(keys.size(), at + step); ++i) {
      ops.push_back({KW_KV_PUT, table, Slice(keys[i]),
                     Slice(pool.substr(i * 4099 % (pool.size() - value_bytes), value_bytes))});
    }
    if (store.table->write(store.plugin(), ops.data(), ops.size(), &store.error) != KW_OK ||
        store.Sync() != KW_OK) {
      std::fprintf(stderr, "%s\n", store.error.text);
      return false;
    }
  }
  return true;
}

int Run(const kw_descriptor* descriptor, const Settings& settings, uint64_t records, size_t value_bytes) {
  Store store;
  if (store.Open(descriptor, settings) != KW_OK) {
    std::fprintf(stderr, "%s\n", store.error.text);
    return 1;
  }
  std::mt19937_64 random(1);
  std::string pool((4 << 20) + value_bytes, 0);
  for (char& c : pool) c = static_cast<char>(random());
  const std::string value = pool.substr(0, value_bytes);
  std::vector<std::string> keys;
  for (uint64_t i = 0; i < records; ++i) keys.push_back(Key(i));
  auto begin = SteadyClock::now();
  if (!Fill(store, 1, keys, pool, value_bytes)) return 1;
  Report("write, ascending keys, synced", records, SecondsSince(begin));

  std::shuffle(keys.begin(), keys.end(), random);
  begin = SteadyClock::now();
  if (!Fill(store, 2, keys, pool, value_bytes)) return 1;
  Report("write, random keys, synced", records, SecondsSince(begin));

  begin = SteadyClock::now();
  constexpr uint64_t kSmall = 200;
  for (uint64_t i = 0; i < kSmall; ++i) {
    if (store.Write(Batch().Put(0, "applied", value)) != KW_OK || store.Sync() != KW_OK) return 1;
  }
  Report("write of one key, synced", kSmall, SecondsSince(begin));

  kw_kv_view* view = store.OpenView();
  if (view == nullptr) return 1;
  begin = SteadyClock::now();
  uint64_t found = 0;
  for (const std::string& key : keys) {
    const kw_slice slice = Slice(key);
    kw_slice stored;
    const int32_t code = store.table->get(store.plugin(), view, 1, &slice, 1, &stored, &store.error);
    if (code == KW_OK && stored.ptr != nullptr) ++found;
  }
  Report("get, random keys", found, SecondsSince(begin));

  begin = SteadyClock::now();
  kw_kv_cursor* cursor = nullptr;
  if (store.table->cursor_open(store.plugin(), view, 1, {}, {}, 0, &cursor, &store.error) != KW_OK) return 1;
  kw_kv_pair pairs[64];
  size_t count = 0;
  uint64_t scanned = 0;
  do {
    if (store.table->cursor_next(store.plugin(), cursor, pairs, std::size(pairs), &count, &store.error) !=
        KW_OK) {
      return 1;
    }
    scanned += count;
  } while (count != 0);
  Report("scan", scanned, SecondsSince(begin));
  store.table->cursor_close(store.plugin(), cursor);
  store.CloseView(view);

  begin = SteadyClock::now();
  constexpr uint64_t kViews = 100000;
  for (uint64_t i = 0; i < kViews; ++i) {
    view = store.OpenView();
    if (view == nullptr) return 1;
    store.CloseView(view);
  }
  Report("open and close a view", kViews, SecondsSince(begin));
  const kw_kv_stats stats = store.Stats();
  std::printf("%-36s %8.1f MiB\n", "on disk", double(stats.disk_bytes) / (1 << 20));
  return 0;
}

}  // namespace
}  // namespace keyway::test

int main(int argc, char** argv) {
  const kw_descriptor* engine = argc > 2 ? keyway::test::FindEngine(argv[1]) : nullptr;
  if (engine == nullptr) {
    std::fprintf(
        stderr,
        "usage: %s storage-lmdb|storage-rocksdb DIRECTORY [RECORDS [VALUE_BYTES [OPTION=VALUE ...]]]\n",
        argv[0]);
    return 2;
  }
  const uint64_t records = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1000000;
  const size_t bytes = argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 300;
  keyway::test::Settings settings = {{"dir", argv[2]}};
  for (int i = 5; i < argc; ++i) {
    const std::string text = argv[i];
    settings.emplace_back(text.substr(0, text.find('=')), text.substr(text.find('=') + 1));
  }
  return keyway::test::Run(engine, settings, records, bytes);
}
