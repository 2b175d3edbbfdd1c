// SPDX-License-Identifier: Apache-2.0
//
// Micro-benchmark of the log on a real disk: log_bench DIRECTORY [DATA_BYTES [SECONDS]].
// Prints the latency of one append at a time, and the throughput with many in flight; and beside it
// that of a bare pwrite + fdatasync on a zero-filled file, the least that is possible.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "keyway/crc32c.h"
#include "log_store.h"

namespace keyway::log_segmented {
namespace {

using SteadyClock = std::chrono::steady_clock;

double Microseconds(SteadyClock::duration elapsed) {
  return std::chrono::duration<double, std::micro>(elapsed).count();
}

void Report(const char* name, std::vector<double> latencies, double seconds) {
  if (latencies.empty()) return;
  std::sort(latencies.begin(), latencies.end());
  const auto at = [&](double share) {
    return latencies[std::min(latencies.size() - 1,
                              static_cast<size_t>(share * static_cast<double>(latencies.size())))];
  };
  std::printf("%-28s %9.0f/s  p50 %8.1f us  p99 %8.1f us  p99.9 %8.1f us  max %8.1f us\n", name,
              static_cast<double>(latencies.size()) / seconds, at(0.5), at(0.99), at(0.999),
              latencies.back());
}

void BareFlush(const std::string& directory, size_t bytes, double seconds) {
  const std::string path = directory + "/bare.tmp";
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  std::vector<char> zeros(64 << 20);
  if (file < 0 || ::pwrite(file, zeros.data(), zeros.size(), 0) < 0 || ::fsync(file) != 0) return;
  std::vector<double> latencies;
  off_t offset = 0;
  const auto begin = SteadyClock::now();
  while (Microseconds(SteadyClock::now() - begin) < seconds * 1e6) {
    const auto before = SteadyClock::now();
    if (::pwrite(file, zeros.data(), bytes, offset) < 0 || ::fdatasync(file) != 0) break;
    latencies.push_back(Microseconds(SteadyClock::now() - before));
    offset = (offset + static_cast<off_t>(bytes)) % (60 << 20);
  }
  ::close(file);
  ::unlink(path.c_str());
  Report("bare pwrite + fdatasync", std::move(latencies), seconds);
}

// Keeps `depth` appends of one entry in flight.
void Appends(LogStore& store, uint64_t* next_index, size_t bytes, size_t depth, double seconds) {
  struct Slot {
    kw_completion base = {};
    std::atomic<bool> free = true;
    SteadyClock::time_point before, after;
    std::atomic<uint64_t>* done = nullptr;
  };
  std::vector<Slot> slots(depth);
  std::atomic<uint64_t> done = 0;
  for (Slot& slot : slots) {
    slot.done = &done;
    slot.base.ctx = &slot;
    slot.base.done = [](kw_completion* self, int32_t code, const kw_error* error) {
      auto* slot = static_cast<Slot*>(self->ctx);
      if (code != KW_OK) std::fprintf(stderr, "append failed: %s\n", error->text);
      slot->after = SteadyClock::now();
      auto* count = slot->done;
      slot->free.store(true, std::memory_order_release);
      count->fetch_add(1);
      count->notify_one();
    };
  }
  const std::string data(bytes, 'd');
  const uint32_t crc = kw_crc32c(0, data.data(), data.size());
  std::vector<double> latencies;
  uint64_t sent = 0;
  const auto begin = SteadyClock::now();
  while (Microseconds(SteadyClock::now() - begin) < seconds * 1e6) {
    Slot& slot = slots[sent % depth];
    uint64_t seen = done.load();
    while (!slot.free.load(std::memory_order_acquire)) {
      done.wait(seen);
      seen = done.load();
    }
    if (sent >= depth) latencies.push_back(Microseconds(slot.after - slot.before));
    slot.free = false;
    slot.before = SteadyClock::now();
    kw_log_entry entry = {*next_index, 1, 1, crc, Slice(data)};
    if (store.Append({&entry, 1}, nullptr, &slot.base) != KW_PENDING) break;
    *next_index += 1;
    sent += 1;
  }
  while (done.load() < sent) std::this_thread::yield();
  char name[64];
  std::snprintf(name, sizeof name, "append, %zu in flight", depth);
  Report(name, std::move(latencies), seconds);
}

int Run(const char* directory, size_t bytes, double seconds) {
  const auto file_system = MakePosixFileSystem();
  LogStore store(*file_system, {directory, 64 << 20});
  kw_hard_state hard_state;
  kw_log_bounds bounds;
  Status status = store.Open(nullptr);
  if (status.ok()) status = store.Recover(&hard_state, &bounds);
  if (status.ok()) status = store.WaitPoolIdle();
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.text.c_str());
    return 1;
  }
  uint64_t next_index = bounds.last + 1;
  std::printf("%zu bytes an entry, %s\n", bytes, directory);
  BareFlush(directory, bytes, seconds);
  for (const size_t depth : {1, 8, 64, 1024}) {
    Appends(store, &next_index, bytes, depth, seconds);
    std::atomic<bool> truncated = false;
    kw_completion completion = {};
    completion.ctx = &truncated;
    completion.done = [](kw_completion* self, int32_t, const kw_error*) {
      static_cast<std::atomic<bool>*>(self->ctx)->store(true);
    };
    if (store.TruncatePrefix(next_index, &completion) != KW_PENDING) return 1;
    while (!truncated) std::this_thread::yield();
  }
  store.Stop();
  return 0;
}

}  // namespace
}  // namespace keyway::log_segmented

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s DIRECTORY [DATA_BYTES [SECONDS]]\n", argv[0]);
    return 2;
  }
  const size_t bytes = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 300;
  const double seconds = argc > 3 ? std::strtod(argv[3], nullptr) : 3;
  return keyway::log_segmented::Run(argv[1], bytes, seconds);
}
