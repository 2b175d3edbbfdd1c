// SPDX-License-Identifier: Apache-2.0
//
// The whole store over a disk in memory: bounds, reads, faults, and a crash at every operation.
#include "log_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>

#include "keyway/crc32c.h"
#include "memory_file_system.h"

namespace keyway::log_segmented {
namespace {

// A completion that can be waited for.
struct Waiter {
  kw_completion base = {};
  std::mutex mutex;
  std::condition_variable changed;
  bool fired = false;
  int32_t code = KW_OK;
  std::string text;

  Waiter() {
    base.ctx = this;
    base.done = [](kw_completion* self, int32_t code, const kw_error* error) {
      auto* waiter = static_cast<Waiter*>(self->ctx);
      std::lock_guard lock(waiter->mutex);
      waiter->fired = true;
      waiter->code = code;
      if (error != nullptr) waiter->text = error->text;
      waiter->changed.notify_all();
    };
  }
  int32_t Wait(int32_t returned) {
    if (returned != KW_PENDING) return returned;
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return fired; });
    return code;
  }
};

struct Item {
  uint64_t term;
  std::string data;
  bool operator==(const Item&) const = default;
};
// What a log holds.
struct Model {
  uint64_t first = 1, base_term = 0;
  std::vector<Item> items;
  kw_hard_state hard_state = {};

  uint64_t last() const { return first + items.size() - 1; }
  void Append(uint64_t index, const std::vector<Item>& added) {
    items.resize(index - first);
    items.insert(items.end(), added.begin(), added.end());
  }
  void Truncate(uint64_t first_kept) {
    if (first_kept <= first) return;
    base_term = items[first_kept - 1 - first].term;
    items.erase(items.begin(), items.begin() + static_cast<ptrdiff_t>(first_kept - first));
    first = first_kept;
  }
  void Reset(uint64_t base_index, uint64_t term) {
    items.clear();
    first = base_index + 1;
    base_term = term;
  }
  bool operator==(const Model& other) const {
    const auto commit = [](const Model& model) { return std::min(model.hard_state.commit, model.last()); };
    return first == other.first && base_term == other.base_term && items == other.items &&
           hard_state.term == other.hard_state.term && hard_state.vote == other.hard_state.vote &&
           commit(*this) == commit(other);
  }
};

class Store {
 public:
  explicit Store(FileSystem& disk, uint64_t segment_bytes = kSegmentBytesMin)
      : store_(disk, {"/log", segment_bytes}) {
    status = store_.Open(nullptr);
    if (status.ok()) status = store_.Recover(&hard_state, &bounds);
  }
  int32_t Append(uint64_t index, const std::vector<Item>& items,
                 const kw_hard_state* maybe_hard_state = nullptr) {
    Waiter waiter;
    const int32_t code = waiter.Wait(Start(index, items, maybe_hard_state, &waiter));
    text = waiter.text;
    return code;
  }
  int32_t Start(uint64_t index, const std::vector<Item>& items, const kw_hard_state* maybe_hard_state,
                Waiter* waiter) {
    std::vector<kw_log_entry> entries;
    for (const Item& item : items) {
      entries.push_back({index + entries.size(), item.term, 1,
                         kw_crc32c(0, item.data.data(), item.data.size()), Slice(item.data)});
    }
    return store_.Append(entries, maybe_hard_state, &waiter->base);
  }
  int32_t Truncate(uint64_t first_kept) {
    Waiter waiter;
    return waiter.Wait(store_.TruncatePrefix(first_kept, &waiter.base));
  }
  int32_t Reset(uint64_t base_index, uint64_t base_term) {
    Waiter waiter;
    return waiter.Wait(store_.Reset(base_index, base_term, &waiter.base));
  }
  // Entries [begin, end), read in batches of at most `bytes_max`.
  Status Read(uint64_t begin, uint64_t end, uint64_t bytes_max, std::vector<Item>* out) {
    out->clear();
    while (begin < end) {
      kw_log_batch* batch = nullptr;
      if (Status read = store_.Read(begin, end, bytes_max, &batch); !read.ok()) return read;
      for (size_t i = 0; i < batch->entry_count; ++i) {
        EXPECT_EQ(batch->entries[i].index, begin + i);
        out->push_back({batch->entries[i].term, std::string(View(batch->entries[i].data))});
      }
      begin += batch->entry_count;
      batch->release(batch);
    }
    return {};
  }
  // All that was recovered, to compare with a model. Only before the first change.
  Model Recovered() {
    Model model;
    model.first = bounds.first;
    model.base_term = bounds.base_term;
    model.hard_state = hard_state;
    if (bounds.last >= bounds.first) {
      const Status read = Read(bounds.first, bounds.last + 1, 4000, &model.items);
      EXPECT_TRUE(read.ok()) << read.text;
    }
    return model;
  }
  LogStore& store() { return store_; }
  void Stop() { store_.Stop(); }

  Status status;
  std::string text;
  kw_hard_state hard_state = {};
  kw_log_bounds bounds = {};

 private:
  LogStore store_;
};

TEST(LogStore, GivesBackWhatWasAppended) {
  MemoryFileSystem disk;
  Store store(disk);
  ASSERT_TRUE(store.status.ok()) << store.status.text;
  const kw_hard_state hard_state = {2, 5, 1};

  ASSERT_EQ(store.Append(1, {{1, "one"}, {1, ""}, {2, std::string(3000, 'x')}}, &hard_state), KW_OK);

  std::vector<Item> items;
  ASSERT_TRUE(store.Read(1, 4, 1 << 20, &items).ok());
  EXPECT_EQ(items, (std::vector<Item>{{1, "one"}, {1, ""}, {2, std::string(3000, 'x')}}));
  kw_log_batch* batch = nullptr;
  ASSERT_TRUE(store.store().Read(1, 4, 3, &batch).ok());
  EXPECT_EQ(batch->entry_count, 2u);  // "one" and "" are no more than 3 bytes.
  batch->release(batch);
  EXPECT_EQ(store.store().Read(1, 5, 3, &batch).code, KW_OUT_OF_RANGE);
  EXPECT_EQ(store.store().Read(0, 2, 3, &batch).code, KW_OUT_OF_RANGE);

  store.Stop();
  Store again(disk);
  ASSERT_TRUE(again.status.ok()) << again.status.text;
  EXPECT_EQ(again.bounds.last, 3u);
  EXPECT_EQ(again.hard_state.term, 2u);
  EXPECT_EQ(again.hard_state.vote, 5u);
  EXPECT_EQ(again.Recovered().items, items);
}

TEST(LogStore, RefusesWhatIsNoContinuation) {
  MemoryFileSystem disk;
  Store store(disk);
  ASSERT_EQ(store.Append(1, {{1, "a"}, {1, "b"}}), KW_OK);

  EXPECT_EQ(store.Append(4, {{1, "gap"}}), KW_INVALID_ARGUMENT);
  EXPECT_EQ(store.Truncate(4), KW_INVALID_ARGUMENT);
  kw_log_entry wrong = {3, 1, 1, 12345, Slice("abc")};
  Waiter waiter;
  EXPECT_EQ(store.store().Append({&wrong, 1}, nullptr, &waiter.base), KW_INVALID_ARGUMENT);
  ASSERT_EQ(store.Truncate(2), KW_OK);
  EXPECT_EQ(store.Append(1, {{1, "below first"}}), KW_INVALID_ARGUMENT);
  EXPECT_EQ(store.Append(3, {{1, "c"}}), KW_OK);
}

TEST(LogStore, AnOversizedAppendGetsASegmentOfItsSize) {
  MemoryFileSystem disk;
  Store store(disk);
  const std::string large(100000, 'l');

  ASSERT_EQ(store.Append(1, {{1, "a"}, {1, large}, {1, large}}), KW_OK);
  ASSERT_EQ(store.Append(4, {{1, "b"}}), KW_OK);

  store.Stop();
  Store again(disk);
  ASSERT_TRUE(again.status.ok()) << again.status.text;
  EXPECT_EQ(again.Recovered().items, (std::vector<Item>{{1, "a"}, {1, large}, {1, large}, {1, "b"}}));
}

TEST(LogStore, DropsAndRecyclesSegmentsBelowThePrefix) {
  MemoryFileSystem disk;
  Store store(disk);
  const std::string data(4000, 'd');
  for (uint64_t index = 1; index <= 30; ++index) ASSERT_EQ(store.Append(index, {{1, data}}), KW_OK);
  ASSERT_TRUE(store.store().WaitPoolIdle().ok());
  const size_t before = disk.Paths().size();

  ASSERT_EQ(store.Truncate(29), KW_OK);
  ASSERT_TRUE(store.store().WaitPoolIdle().ok());

  EXPECT_LT(disk.Paths().size(), before);
  EXPECT_LE(disk.Paths().size(), 5u);  // The current one, the one before, a spare, two in reserve.
  uint64_t creates = 0;
  disk.SetFault([&](const std::string& call, const std::string&) -> Status {
    creates += call == "create";
    return {};
  });
  for (uint64_t index = 31; index <= 60; ++index) {
    ASSERT_EQ(store.Append(index, {{1, data}}), KW_OK);
    ASSERT_EQ(store.Truncate(index), KW_OK);
    ASSERT_TRUE(store.store().WaitPoolIdle().ok());
  }
  EXPECT_LE(creates, 2u);  // Of more than 10 switches: the rest is recycled.
  store.Stop();
  Store again(disk);
  EXPECT_EQ(again.bounds.first, 60u);
  EXPECT_EQ(again.bounds.last, 60u);
}

// A conflict that goes back into an earlier segment, and then that segment is dropped.
TEST(LogStore, KnowsItsBaseWhenTheTailWasReplacedAcrossSegments) {
  MemoryFileSystem disk;
  Store store(disk);
  const std::string data(4000, 'd');
  for (uint64_t index = 1; index <= 8; ++index) ASSERT_EQ(store.Append(index, {{1, data}}), KW_OK);
  ASSERT_EQ(store.Append(3, {{2, "new 3"}, {2, "new 4"}}), KW_OK);
  ASSERT_EQ(store.Truncate(3), KW_OK);
  ASSERT_TRUE(store.store().WaitPoolIdle().ok());

  store.Stop();
  Store again(disk);
  ASSERT_TRUE(again.status.ok()) << again.status.text;
  EXPECT_EQ(again.bounds.first, 3u);
  EXPECT_EQ(again.bounds.last, 4u);
  EXPECT_EQ(again.bounds.base_term, 1u);
  EXPECT_EQ(again.Recovered().items, (std::vector<Item>{{2, "new 3"}, {2, "new 4"}}));
}

// Reliability catalogue D9: nothing after a failed sync is trusted, and it is not tried again.
TEST(LogStore, FailsAllThatFollowsAFailedSync) {
  MemoryFileSystem disk;
  Store store(disk);
  ASSERT_EQ(store.Append(1, {{1, "a"}}), KW_OK);
  ASSERT_TRUE(store.store().WaitPoolIdle().ok());
  std::atomic<int> syncs = 0;
  disk.SetFault([&](const std::string& call, const std::string&) -> Status {
    if (call != "sync" || syncs++ > 0) return {};
    return Error(KW_DATA_LOSS, "log-1: fdatasync: Input/output error (errno 5)");
  });

  EXPECT_EQ(store.Append(2, {{1, "b"}}), KW_DATA_LOSS);
  EXPECT_NE(store.text.find("errno 5"), std::string::npos);
  EXPECT_EQ(store.Append(3, {{1, "c"}}), KW_DATA_LOSS);

  kw_log_batch* batch = nullptr;
  EXPECT_EQ(store.store().Read(2, 3, 100, &batch).code, KW_OUT_OF_RANGE);
  store.Stop();
  EXPECT_EQ(syncs, 1);
}

// Reliability catalogue D10: a full disk stops new segments, not the one at hand; and it passes.
TEST(LogStore, ReportsAFullDiskAndGoesOnWhenThereIsSpace) {
  MemoryFileSystem disk;
  Store store(disk);
  ASSERT_TRUE(store.store().WaitPoolIdle().ok());
  std::atomic<bool> full = true;
  disk.SetFault([&](const std::string& call, const std::string& name) -> Status {
    if (!full || call != "write" || name != kSpareName) return {};
    return Error(KW_RESOURCE_EXHAUSTED, "spare.tmp: pwrite: No space left on device (errno 28)");
  });
  const std::string data(4000, 'd');
  uint64_t index = 1;
  int32_t code = KW_OK;

  while (code == KW_OK && index < 100) code = store.Append(index++, {{1, data}});
  EXPECT_EQ(code, KW_RESOURCE_EXHAUSTED);
  EXPECT_GT(index, 4u);  // Two segments were there.
  EXPECT_EQ(store.Append(index - 1, {{1, data}}), KW_RESOURCE_EXHAUSTED);
  full = false;
  EXPECT_EQ(store.Append(index - 1, {{1, data}}), KW_OK);

  store.Stop();
  Store again(disk);
  EXPECT_EQ(again.bounds.last, index - 1);
}

TEST(LogStore, CompletesInOrderOfSubmission) {
  MemoryFileSystem disk;
  Store store(disk);
  struct Ordered {
    kw_completion base = {};
    std::vector<uint64_t>* fired;
    uint64_t index;
  };
  std::vector<uint64_t> fired;
  std::vector<Ordered> all(500);

  for (uint64_t index = 1; index <= all.size(); ++index) {
    Ordered& one = all[index - 1];
    one.fired = &fired;
    one.index = index;
    one.base.ctx = &one;
    one.base.done = [](kw_completion* self, int32_t code, const kw_error*) {
      auto* ordered = static_cast<Ordered*>(self->ctx);
      if (code == KW_OK) ordered->fired->push_back(ordered->index);
    };
    const std::string data(index, 'o');
    kw_log_entry entry = {index, 1, 1, kw_crc32c(0, data.data(), data.size()), Slice(data)};
    ASSERT_EQ(store.store().Append({&entry, 1}, nullptr, &one.base), KW_PENDING);
  }
  store.Stop();

  ASSERT_EQ(fired.size(), all.size());
  for (uint64_t i = 0; i < fired.size(); ++i) ASSERT_EQ(fired[i], i + 1);
}

TEST(LogStore, ReadsWhileItAppendsTruncatesAndRecycles) {
  MemoryFileSystem disk;
  Store store(disk);
  std::atomic<uint64_t> first = 1, last = 0;
  std::atomic<bool> done = false;
  const auto data_of = [](uint64_t index) { return std::string(200 + index % 900, 'a' + index % 26); };
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&, i] {
      std::mt19937 random(static_cast<uint32_t>(i));
      while (!done) {
        const uint64_t low = first, high = last;
        if (high <= low) continue;
        const uint64_t begin = low + random() % (high - low);
        kw_log_batch* batch = nullptr;
        const Status status = store.store().Read(begin, high, 5000, &batch);
        if (!status.ok()) {
          ASSERT_EQ(status.code, KW_OUT_OF_RANGE) << status.text;
          ASSERT_LT(begin, first.load());
          continue;
        }
        for (size_t k = 0; k < batch->entry_count; ++k) {
          ASSERT_EQ(View(batch->entries[k].data), data_of(begin + k));
        }
        batch->release(batch);
      }
    });
  }
  for (uint64_t index = 1; index <= 1500; ++index) {
    ASSERT_EQ(store.Append(index, {{1, data_of(index)}}), KW_OK);
    last = index;
    if (index % 50 == 0) {
      first = index - 30;
      ASSERT_EQ(store.Truncate(index - 30), KW_OK);
    }
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
}

// Random operations until the disk dies. `history` gets the model after each submitted operation;
// returns how many of them were acknowledged.
size_t RunUntilDeath(Store& store, uint64_t seed, int operation_count, std::vector<Model>* history) {
  std::mt19937_64 random(seed);
  size_t acknowledged = 0;
  for (int i = 0; i < operation_count; ++i) {
    Model model = history->back();
    const uint64_t term = model.hard_state.term + random() % 2 + (model.hard_state.term == 0);
    int32_t code = KW_OK;
    const uint64_t dice = random() % 100;
    if (dice < 70) {
      uint64_t index = model.last() + 1;
      if (dice < 20) index -= random() % (model.items.size() + 1);  // A conflict.
      std::vector<Item> items;
      for (uint64_t k = 0; k <= random() % 4; ++k) {
        items.push_back({term, std::string(random() % 2500, static_cast<char>('a' + random() % 26))});
      }
      kw_hard_state hard_state = {term, random() % 3, model.first - 1};
      model.Append(index, items);
      model.hard_state = hard_state;
      history->push_back(model);
      code = store.Append(index, items, &hard_state);
    } else if (dice < 80) {
      kw_hard_state hard_state = {term, random() % 3, model.last()};
      model.hard_state = hard_state;
      history->push_back(model);
      code = store.Append(1, {}, &hard_state);
    } else if (dice < 97) {
      const uint64_t first_kept = model.first + random() % (model.items.size() + 1);
      model.Truncate(first_kept);
      history->push_back(model);
      code = store.Truncate(first_kept);
    } else {
      model.Reset(model.last() + random() % 10, term);
      history->push_back(model);
      code = store.Reset(model.first - 1, term);
    }
    if (code != KW_OK) break;
    acknowledged = history->size() - 1;
  }
  return acknowledged;
}

// The recovered log is that of an acknowledged operation or a later, submitted one.
void ExpectRecovered(MemoryFileSystem& disk, const std::vector<Model>& history, size_t acknowledged,
                     const std::string& context, Model* recovered) {
  Store store(disk);
  ASSERT_TRUE(store.status.ok()) << context << ": " << store.status.text;
  *recovered = store.Recovered();
  bool found = false;
  for (size_t i = acknowledged; i < history.size(); ++i) found |= history[i] == *recovered;
  ASSERT_TRUE(found) << context << ": recovered [" << recovered->first << ", " << recovered->last()
                     << "] term " << recovered->hard_state.term << ", acknowledged ["
                     << history[acknowledged].first << ", " << history[acknowledged].last() << "]";
}

class LogStoreCrash : public ::testing::TestWithParam<uint64_t> {};

// Crash cases 1 to 10 of segment_format.h: the disk dies at every one of its operations, and then the
// power goes or the process; recovery itself may die too.
TEST_P(LogStoreCrash, LosesNothingAcknowledgedAtAnyOperation) {
  using Survival = MemoryFileSystem::Survival;
  constexpr int kOperations = 40;
  const uint64_t seed = GetParam();
  uint64_t total = 0;
  {
    MemoryFileSystem disk(seed);
    Store store(disk);
    std::vector<Model> history = {Model()};
    RunUntilDeath(store, seed, kOperations, &history);
    store.Stop();
    total = disk.operations();
  }
  for (uint64_t die_at = 1; die_at <= total; ++die_at) {
    MemoryFileSystem disk(seed + die_at);
    disk.DieAt(die_at);
    std::vector<Model> history = {Model()};
    size_t acknowledged = 0;
    {
      Store store(disk);
      if (store.status.ok()) acknowledged = RunUntilDeath(store, seed, kOperations, &history);
    }
    std::vector<std::unique_ptr<MemoryFileSystem>> futures;
    futures.push_back(disk.AfterPowerLoss(Survival::kNothing, 1));
    futures.push_back(disk.AfterPowerLoss(Survival::kEverything, 1));
    futures.push_back(disk.AfterPowerLoss(Survival::kRandom, die_at));
    futures.push_back(disk.AfterPowerLoss(Survival::kRandom, die_at + 1000));
    futures.push_back(disk.AfterKill());
    for (size_t i = 0; i < futures.size(); ++i) {
      const std::string context = "seed " + std::to_string(seed) + " die_at " + std::to_string(die_at) +
                                  " future " + std::to_string(i);
      std::mt19937_64 random(die_at * 10 + i);
      // Recovery dies as well, and then the power goes.
      futures[i]->DieAt(1 + random() % 4);
      { Store dying(*futures[i]); }
      const auto disk_after = futures[i]->AfterPowerLoss(Survival::kRandom, random());
      Model recovered;
      ExpectRecovered(*disk_after, history, acknowledged, context, &recovered);
      if (HasFatalFailure()) return;
      // It goes on from there, and comes back from a power loss once more.
      std::vector<Model> more = {recovered};
      size_t acknowledged_more = 0;
      {
        Store store(*disk_after);
        ASSERT_TRUE(store.status.ok()) << context << store.status.text;
        acknowledged_more = RunUntilDeath(store, seed + 1, 6, &more);
        ASSERT_EQ(acknowledged_more, 6u) << context;
      }
      const auto last = disk_after->AfterPowerLoss(Survival::kNothing, 1);
      ExpectRecovered(*last, more, acknowledged_more, context + " again", &recovered);
      if (HasFatalFailure()) return;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Seeds, LogStoreCrash, ::testing::Values(1, 2, 3, 4));

}  // namespace
}  // namespace keyway::log_segmented
