// SPDX-License-Identifier: Apache-2.0
//
// Micro benchmark: mvcc_bench [keys]. Prints nanoseconds per operation and bytes per key.
#include <malloc.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "kernel/mvcc/mvcc.h"

namespace keyway::mvcc {
namespace {

class NoLeases : public LeaseKeys {
 public:
  bool Exists(int64_t) const override { return false; }
  void Attach(int64_t, std::string_view) override {}
  void Detach(int64_t, std::string_view) override {}
};

// Processor time of this thread, so that other work on the machine counts little.
double Now() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// 24 bytes, in random order of `i`.
std::string KeyOf(uint64_t i) {
  char key[32];
  std::snprintf(key, sizeof(key), "/registry/pods/%09" PRIu64, (i * 2654435761u) % 1000000007u);
  return std::string(key, 24);
}

struct Bench {
  NoLeases leases;
  Mvcc mvcc{Options{.cache_bytes = 512u << 20, .recent_bytes = 16u << 20}, &leases};
  std::vector<std::string> keys;

  void Put(std::string_view key, std::string_view value) {
    kw_op op{};
    op.kind = KW_OP_PUT;
    op.key = ToSlice(key);
    op.value = ToSlice(value);
    kw_txn txn{};
    txn.then_ops = &op;
    txn.then_count = 1;
    std::vector<Revision> missing;
    mvcc.MissingForTxn(txn, false, &missing);
    ReplyPtr reply(Reply::New());
    if (!mvcc.ApplyTxn(txn, false, reply.get()).ok()) std::abort();
  }
  void Stored() {
    mvcc.TakeChanges();
    mvcc.OnStored(mvcc.revision());
  }
  size_t Read(kw_range range) {
    ReplyPtr reply(Reply::New());
    RangeReader reader(&mvcc, range, reply.get());
    RangeReader::Progress progress;
    while ((progress = reader.Step(1000)) == RangeReader::Progress::kMore) {
    }
    if (progress != RangeReader::Progress::kDone || !reader.outcome().ok()) std::abort();
    return reply->results[0].record_count;
  }
};

template <typename Run>
void Measure(const char* name, size_t count, size_t per, Run run) {
  double begin = Now();
  for (size_t i = 0; i < count; ++i) run(i);
  double ns = (Now() - begin) * 1e9 / static_cast<double>(count * per);
  std::printf("%-44s %10.1f ns\n", name, ns);
}

size_t ResidentBytes() {
  FILE* file = std::fopen("/proc/self/statm", "r");
  size_t total = 0, resident = 0;
  if (file == nullptr || std::fscanf(file, "%zu %zu", &total, &resident) != 2) std::abort();
  std::fclose(file);
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// The index alone: a restore without values, into no cache.
void MeasureMemory(size_t count) {
  NoLeases leases;
  size_t before = ResidentBytes();
  Mvcc mvcc({.cache_bytes = 0, .recent_bytes = 0}, &leases);
  double begin = Now();
  for (size_t i = 0; i < count; ++i) {
    std::string key = KeyOf(i);
    int64_t main = static_cast<int64_t>(i) + 2;
    SharedBytes record =
        EncodeRecord({.key = key, .create_revision = main, .mod_revision = main, .version = 1});
    mvcc.RestoreRecord({main, 0}, record.view());
  }
  mvcc.FinishRestore(static_cast<int64_t>(count) + 1, 0, true);
  std::printf("%-44s %10.1f ns\n", "restore, random key order",
              (Now() - begin) * 1e9 / static_cast<double>(count));
  malloc_trim(0);
  double resident = static_cast<double>(ResidentBytes() - before) / static_cast<double>(count);
  std::printf("%-44s %10.1f bytes (%.1f by estimate)\n", "index per key of 24 bytes, resident", resident,
              static_cast<double>(mvcc.memory_bytes()) / static_cast<double>(count));
}

void Main(size_t count) {
  std::printf("%zu keys of 24 bytes, values of 100 bytes\n", count);
  MeasureMemory(count);

  Bench bench;
  std::mt19937_64 random(1);
  std::string value(100, 'v');
  for (size_t i = 0; i < count; ++i) bench.keys.push_back(KeyOf(i));
  auto any = [&]() -> const std::string& { return bench.keys[random() % count]; };

  Measure("put of a new key, random order", count, 1, [&](size_t i) {
    bench.Put(bench.keys[i], value);
    if (i % 64 == 63) bench.Stored();
  });
  Measure("put of an existing key, random", count, 1, [&](size_t i) {
    bench.Put(any(), value);
    if (i % 64 == 63) bench.Stored();
  });
  Measure("put of one of 1000 keys", 300000, 1, [&](size_t i) {
    bench.Put(bench.keys[i % 1000], value);
    if (i % 64 == 63) bench.Stored();
  });
  bench.Stored();

  Measure("range of one key, random", count, 1, [&](size_t) {
    kw_range range{};
    range.key = ToSlice(any());
    bench.Read(range);
  });
  Measure("range of one of 1000 keys", 1000000, 1, [&](size_t i) {
    kw_range range{};
    range.key = ToSlice(bench.keys[i % 1000]);
    bench.Read(range);
  });
  const std::string zero(1, '\0');
  auto many = [&](int64_t limit, uint8_t flags, int64_t revision = 0) {
    return [&bench, &any, zero, limit, flags, revision](size_t) {
      kw_range range{};
      const std::string& from = any();
      range.key = ToSlice(from);
      range.end = ToSlice(zero);
      range.limit = limit;
      range.flags = flags;
      range.revision = revision;
      bench.Read(range);
    };
  };
  Measure("range of 10000 keys, per key (no count)", 200, 10000, many(10000, KW_RANGE_NO_COUNT));
  Measure("  keys only", 200, 10000, many(10000, KW_RANGE_KEYS_ONLY | KW_RANGE_NO_COUNT));
  Measure("count of all keys, per key", 5, count, [&](size_t) {
    kw_range range{};
    range.key = range.end = ToSlice(zero);
    range.flags = KW_RANGE_COUNT_ONLY;
    bench.Read(range);
  });
  int64_t old = static_cast<int64_t>(count) + 1;
  Measure("  at the revision before the updates", 5, count, [&](size_t) {
    kw_range range{};
    range.key = range.end = ToSlice(zero);
    range.flags = KW_RANGE_COUNT_ONLY;
    range.revision = old;
    bench.Read(range);
  });

  if (!bench.mvcc.ApplyCompact(bench.mvcc.revision()).ok()) std::abort();
  std::vector<Revision> deleted;
  double longest = 0, begin = Now();
  while (bench.mvcc.compacting()) {
    double step = Now();
    deleted.clear();
    bench.mvcc.CompactStep(1000, &deleted);
    longest = std::max(longest, Now() - step);
  }
  std::printf("%-44s %10.1f ns, longest step of 1000 keys %.0f us\n", "compaction, per key",
              (Now() - begin) * 1e9 / static_cast<double>(count), longest * 1e6);
}

}  // namespace
}  // namespace keyway::mvcc

int main(int argc, char** argv) {
  // As the daemon should: with fast bins a free() of something large now and then sorts all small free
  // chunks, which showed as compaction steps of 50 ms.
  mallopt(M_MXFAST, 0);
  keyway::mvcc::Main(argc > 1 ? static_cast<size_t>(std::atoll(argv[1])) : 1000000);
  return 0;
}
