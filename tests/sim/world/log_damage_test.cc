// SPDX-License-Identifier: Apache-2.0
//
// Exhaustive: every bit of a small log flips, every sector of it is zeroed, one at a time. The shipped
// recovery gives back everything that was acknowledged, or says DATA_LOSS with file and offset; it never
// gives back less, or something else. What is salvaged then is true, or again DATA_LOSS.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "keyway/crc32c.h"
#include "plugins/log-segmented/log_store.h"
#include "tests/sim/world/random.h"
#include "tests/sim/world/sim_disk.h"

namespace keyway::sim {
namespace {

using log_segmented::LogStore;
using log_segmented::Status;

struct Item {
  uint64_t term;
  std::string data;
  friend bool operator==(const Item&, const Item&) = default;
};
struct State {
  std::vector<Item> items;
  kw_hard_state hard_state{};
  kw_log_bounds bounds{};
};

log_segmented::Options SmallLog() {
  log_segmented::Options options;
  options.directory = "/log";
  options.segment_bytes = 16 << 10;
  options.ids = [random = Random(5)]() mutable { return random.Next(); };
  options.has_threads = false;
  return options;
}

Status ReadAll(LogStore& store, State* state) {
  Status status;
  for (uint64_t next = state->bounds.first; status.ok() && next <= state->bounds.last;) {
    kw_log_batch* batch = nullptr;
    status = store.Read(next, state->bounds.last + 1, 1 << 20, &batch);
    if (!status.ok()) break;
    for (size_t i = 0; i < batch->entry_count; ++i) {
      const kw_slice data = batch->entries[i].data;
      state->items.push_back(
          {batch->entries[i].term, std::string(reinterpret_cast<const char*>(data.ptr), data.len)});
    }
    next += batch->entry_count;
    batch->release(batch);
  }
  return status;
}

Status Recover(SimDisk* disk, State* state) {
  LogStore store(*disk, SmallLog());
  Status status = store.Open(nullptr);
  if (status.ok()) status = store.Recover(&state->hard_state, &state->bounds);
  return status.ok() ? ReadAll(store, state) : status;
}

// Two segments of a log, with a replaced tail, a truncated prefix and hard states, stopped in order.
std::unique_ptr<SimDisk> MakeLog() {
  auto disk = std::make_unique<SimDisk>(1);
  LogStore store(*disk, SmallLog());
  kw_hard_state hard_state{};
  kw_log_bounds bounds{};
  EXPECT_TRUE(store.Open(nullptr).ok());
  EXPECT_TRUE(store.Recover(&hard_state, &bounds).ok());
  kw_completion done{};
  done.done = [](kw_completion*, int32_t code, const kw_error*) { EXPECT_EQ(code, KW_OK); };
  const auto append = [&](uint64_t index, uint64_t term, size_t bytes) {
    const std::string data(bytes, static_cast<char>('a' + index % 26));
    kw_log_entry entry{index,
                       term,
                       0,
                       kw_crc32c(0, data.data(), data.size()),
                       {reinterpret_cast<const uint8_t*>(data.data()), data.size()}};
    const kw_hard_state state{term, term % 3 + 1, index - 1};
    EXPECT_EQ(store.Append({&entry, 1}, &state, &done), KW_PENDING);
    EXPECT_TRUE(store.BeginFlush());
    store.EndFlush();
  };
  for (uint64_t index = 1; index <= 12; ++index) append(index, 1 + index / 5, 900);
  append(11, 4, 700);
  for (uint64_t index = 12; index <= 18; ++index) append(index, 5, 300);
  EXPECT_EQ(store.TruncatePrefix(4, &done), KW_PENDING);
  EXPECT_TRUE(store.BeginFlush());
  store.EndFlush();
  store.MakeSegments();
  store.Stop();
  return disk;
}

struct Salvaged {
  size_t unknown = 0, without_entries = 0, whole = 0;
};

// The engine has everything up to `base`: what is salvaged and rebuilt is what had been promised.
void CheckSalvage(SimDisk* disk, const State& expected, uint64_t base, Salvaged* count) {
  const auto at = [&](uint64_t index) { return expected.items[index - expected.bounds.first]; };
  const uint64_t base_term = base < expected.bounds.first ? expected.bounds.base_term : at(base).term;
  {
    LogStore store(*disk, SmallLog());
    kw_hard_state hard_state{};
    kw_log_bounds bounds{};
    kw_log_salvage salvage{};
    ASSERT_TRUE(store.Open(nullptr).ok());
    ASSERT_EQ(store.Recover(&hard_state, &bounds).code, KW_DATA_LOSS);
    const Status status = store.FindSalvage(base, base_term, &salvage);
    if (!status.ok()) {
      ++count->unknown;
      ASSERT_EQ(status.code, KW_DATA_LOSS) << status.text;
      return;
    }
    ASSERT_EQ(salvage.hard_state.term, expected.hard_state.term);
    ASSERT_EQ(salvage.hard_state.vote, expected.hard_state.vote);
    ASSERT_EQ(salvage.last, expected.bounds.last);
    ASSERT_EQ(salvage.last_term, expected.items.back().term);
    ASSERT_EQ(salvage.bounds.first, base + 1);
    ASSERT_EQ(salvage.bounds.base_term, base_term);
    ASSERT_TRUE(salvage.bounds.last == base || salvage.bounds.last == expected.bounds.last);
    ++(salvage.bounds.last == expected.bounds.last ? count->whole : count->without_entries);
    ASSERT_TRUE(store.Rebuild().ok());
    store.Stop();
  }
  State found;
  ASSERT_TRUE(Recover(disk, &found).ok());
  ASSERT_EQ(found.bounds.first, base + 1);
  ASSERT_EQ(found.hard_state.term, expected.hard_state.term);
  ASSERT_EQ(found.hard_state.vote, expected.hard_state.vote);
  ASSERT_LE(found.items.size(), expected.bounds.last - base);
  for (size_t i = 0; i < found.items.size(); ++i) ASSERT_EQ(found.items[i], at(base + 1 + i));
}

void CheckDamage(const SimDisk& disk, const State& expected, const std::string& name, const std::string& what,
                 const std::function<void(std::vector<uint8_t>&)>& damage, size_t* refused) {
  const std::unique_ptr<SimDisk> copy = disk.Copy(2);
  damage(copy->BytesOf(name));
  State found;
  const Status status = Recover(copy.get(), &found);
  if (!status.ok()) {
    ++*refused;
    ASSERT_EQ(status.code, KW_DATA_LOSS) << what << ": " << status.text;
    ASSERT_NE(status.text.find("offset"), std::string::npos) << what << ": " << status.text;
    return;
  }
  ASSERT_EQ(found.bounds.last, expected.bounds.last) << what;
  ASSERT_EQ(found.hard_state.term, expected.hard_state.term) << what;
  ASSERT_EQ(found.hard_state.vote, expected.hard_state.vote) << what;
  ASSERT_LE(found.bounds.first, expected.bounds.first) << what;
  const size_t more = static_cast<size_t>(expected.bounds.first - found.bounds.first);
  ASSERT_TRUE(std::equal(expected.items.begin(), expected.items.end(),
                         found.items.begin() + static_cast<ptrdiff_t>(more), found.items.end()))
      << what;
}

TEST(LogDamage, WhatIsSalvagedIsTrue) {
  const std::unique_ptr<SimDisk> disk = MakeLog();
  State expected;
  ASSERT_TRUE(Recover(disk->Copy(3).get(), &expected).ok());
  Salvaged count;
  for (const std::string& name : disk->Names()) {
    if (!name.ends_with(".seg")) continue;
    const size_t size = disk->BytesOf(name).size();
    const auto check = [&](const std::function<void(std::vector<uint8_t>&)>& damage) {
      for (uint64_t base = expected.bounds.first - 1; base <= expected.bounds.last; ++base) {
        const std::unique_ptr<SimDisk> copy = disk->Copy(2);
        damage(copy->BytesOf(name));
        State ignored;
        if (Recover(copy->Copy(4).get(), &ignored).ok()) return;
        ASSERT_NO_FATAL_FAILURE(CheckSalvage(copy.get(), expected, base, &count)) << "base " << base;
      }
    };
    for (size_t begin = 0; begin < size; begin += SimDisk::kSectorBytes) {
      SCOPED_TRACE(name + ": sector at " + std::to_string(begin) + " zeroed");
      ASSERT_NO_FATAL_FAILURE(check([&](std::vector<uint8_t>& bytes) {
        std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(begin), SimDisk::kSectorBytes, uint8_t{0});
      }));
    }
    for (size_t bit = 3; bit < size * 8; bit += 211) {
      SCOPED_TRACE(name + ": bit " + std::to_string(bit % 8) + " of byte " + std::to_string(bit / 8));
      ASSERT_NO_FATAL_FAILURE(
          check([&](std::vector<uint8_t>& bytes) { bytes[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8); }));
    }
  }
  std::printf("%zu whole, %zu without entries, %zu unknown\n", count.whole, count.without_entries,
              count.unknown);
  EXPECT_GT(count.whole, 100u);
  EXPECT_GT(count.without_entries, 100u);
}

// The damage, and then the power goes at any moment of the rebuilding.
TEST(LogDamage, RebuildingIsOneStep) {
  const std::unique_ptr<SimDisk> disk = MakeLog();
  State expected;
  ASSERT_TRUE(Recover(disk->Copy(3).get(), &expected).ok());
  const uint64_t base = 10;
  const uint64_t base_term = expected.items[base - expected.bounds.first].term;
  size_t rebuilt = 0, damaged = 0;
  bool is_done = false;
  for (uint64_t operations = 1; !is_done; ++operations) {
    const std::unique_ptr<SimDisk> copy = disk->Copy(operations);
    for (const std::string& name : copy->Names()) {
      if (name.ends_with("1.seg")) copy->BytesOf(name)[5000] ^= 1;
    }
    copy->DieAfter(operations);
    {
      LogStore store(*copy, SmallLog());
      kw_hard_state hard_state{};
      kw_log_bounds bounds{};
      kw_log_salvage salvage{};
      ASSERT_TRUE(store.Open(nullptr).ok());
      ASSERT_EQ(store.Recover(&hard_state, &bounds).code, KW_DATA_LOSS);
      ASSERT_TRUE(store.FindSalvage(base, base_term, &salvage).ok());
      is_done = store.Rebuild().ok();
    }
    copy->PowerLoss();
    State found;
    const Status status = Recover(copy.get(), &found);
    if (status.ok()) {
      ++rebuilt;
      ASSERT_EQ(found.bounds.last, expected.bounds.last);
    } else {
      ++damaged;
      ASSERT_EQ(status.code, KW_DATA_LOSS) << status.text;
      Salvaged count;
      ASSERT_NO_FATAL_FAILURE(CheckSalvage(copy.get(), expected, base, &count)) << operations;
      ASSERT_EQ(count.unknown, 0u) << operations;
    }
  }
  EXPECT_GT(rebuilt, 1u);
  EXPECT_GT(damaged, 1u);
}

TEST(LogDamage, EveryBitAndEverySector) {
  const std::unique_ptr<SimDisk> disk = MakeLog();
  State expected;
  ASSERT_TRUE(Recover(disk->Copy(3).get(), &expected).ok());
  ASSERT_EQ(expected.bounds.last, 18u);
  size_t bits = 0, sectors = 0, refused = 0;
  for (const std::string& name : disk->Names()) {
    if (!name.ends_with(".seg")) continue;
    const size_t size = disk->BytesOf(name).size();
    for (size_t begin = 0; begin < size; begin += SimDisk::kSectorBytes, ++sectors) {
      ASSERT_NO_FATAL_FAILURE(CheckDamage(
          *disk, expected, name, name + ": sector at " + std::to_string(begin) + " zeroed",
          [&](std::vector<uint8_t>& bytes) {
            std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(begin), SimDisk::kSectorBytes, uint8_t{0});
          },
          &refused));
    }
    for (size_t bit = 0; bit < size * 8; ++bit, ++bits) {
      ASSERT_NO_FATAL_FAILURE(CheckDamage(
          *disk, expected, name,
          name + ": bit " + std::to_string(bit % 8) + " of byte " + std::to_string(bit / 8),
          [&](std::vector<uint8_t>& bytes) { bytes[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8); },
          &refused));
    }
  }
  std::printf("%zu bits, %zu sectors, %zu refused\n", bits, sectors, refused);
  EXPECT_GT(refused, 1000u);
}

}  // namespace
}  // namespace keyway::sim
