// SPDX-License-Identifier: Apache-2.0
//
// Micro-benchmark of the store on a real disk: store_bench DIRECTORY [RECORDS [VALUE_BYTES]].
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "engine.h"

namespace keyway::storage_lmdb {
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

// Writes batches of about 4 MiB and syncs each.
bool Fill(Engine& engine, uint32_t table, const std::vector<std::string>& keys, const std::string& value) {
  kw_error error = NoError();
  const size_t step = std::max<size_t>(1, (4 << 20) / (value.size() + 16));
  for (size_t at = 0; at < keys.size(); at += step) {
    std::vector<kw_kv_op> ops;
    for (size_t i = at; i < std::min(keys.size(), at + step); ++i) {
      ops.push_back({KW_KV_PUT, table, Slice(keys[i]), Slice(value)});
    }
    if (engine.Write(ops, &error) != KW_OK || engine.Sync(&error) != KW_OK) {
      std::fprintf(stderr, "%s\n", error.text);
      return false;
    }
  }
  return true;
}

int Run(const char* directory, uint64_t records, size_t value_bytes) {
  Engine engine({directory, uint64_t{64} << 30, 1024});
  kw_error error = NoError();
  if (engine.Open(nullptr, &error) != KW_OK) {
    std::fprintf(stderr, "%s\n", error.text);
    return 1;
  }
  const std::string value(value_bytes, 'v');
  std::vector<std::string> keys;
  for (uint64_t i = 0; i < records; ++i) keys.push_back(Key(i));
  auto begin = SteadyClock::now();
  if (!Fill(engine, 1, keys, value)) return 1;
  Report("write, ascending keys, synced", records, SecondsSince(begin));

  std::mt19937_64 random(1);
  std::shuffle(keys.begin(), keys.end(), random);
  begin = SteadyClock::now();
  if (!Fill(engine, 2, keys, value)) return 1;
  Report("write, random keys, synced", records, SecondsSince(begin));

  ReadView* view = nullptr;
  if (engine.OpenView(&view, &error) != KW_OK) return 1;
  begin = SteadyClock::now();
  uint64_t found = 0;
  for (const std::string& key : keys) {
    const kw_slice slice = Slice(key);
    kw_slice stored;
    if (engine.Get(view, 1, {&slice, 1}, &stored, &error) == KW_OK && stored.ptr != nullptr) ++found;
  }
  Report("get, random keys", found, SecondsSince(begin));

  begin = SteadyClock::now();
  Cursor* cursor = nullptr;
  if (engine.OpenCursor(view, 1, {}, {}, false, &cursor, &error) != KW_OK) return 1;
  kw_kv_pair pairs[64];
  size_t count = 0;
  uint64_t scanned = 0;
  do {
    if (engine.Next(cursor, pairs, &count, &error) != KW_OK) return 1;
    scanned += count;
  } while (count == std::size(pairs));
  Report("scan", scanned, SecondsSince(begin));
  engine.CloseCursor(cursor);
  engine.CloseView(view);

  begin = SteadyClock::now();
  constexpr uint64_t kViews = 100000;
  for (uint64_t i = 0; i < kViews; ++i) {
    if (engine.OpenView(&view, &error) != KW_OK) return 1;
    engine.CloseView(view);
  }
  Report("open and close a view", kViews, SecondsSince(begin));
  return 0;
}

}  // namespace
}  // namespace keyway::storage_lmdb

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s DIRECTORY [RECORDS [VALUE_BYTES]]\n", argv[0]);
    return 2;
  }
  const uint64_t records = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1000000;
  const size_t bytes = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 300;
  return keyway::storage_lmdb::Run(argv[1], records, bytes);
}
