// SPDX-License-Identifier: Apache-2.0
//
// What keyway.kv-store/1 promises, of every engine in this tree. What one engine does beyond it is
// tested beside that engine.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "kv_store_fixture.h"

namespace keyway::test {
namespace {

TEST_P(KvStoreTest, GetsWhatItsViewSaw) {
  ASSERT_EQ(Open(), KW_OK) << store_.error.text;
  ASSERT_EQ(store_.Write(Batch().Put(1, "a", "1").Put(1, "b", "").Put(2, "a", "two").Delete(1, "zz")), KW_OK);
  ASSERT_EQ(store_.Sync(), KW_OK) << store_.error.text;
  kw_kv_view* before = store_.OpenView();
  ASSERT_EQ(store_.Write(Batch().Put(1, "a", "1*").Delete(1, "b").Put(1, "c", "3").Delete(1, "c")), KW_OK);
  kw_kv_view* after = store_.OpenView();

  const std::vector<std::string> keys = {"a", "b", "c", "", std::string(6000, 'k')};
  using Values = std::vector<std::optional<std::string>>;
  EXPECT_EQ(store_.Get(before, 1, keys), (Values{"1", "", {}, {}, {}}));
  EXPECT_EQ(store_.Get(after, 1, keys), (Values{"1*", {}, {}, {}, {}}));
  EXPECT_EQ(store_.Get(before, 2, keys), (Values{"two", {}, {}, {}, {}}));
  EXPECT_EQ(store_.Get(before, 1, {}), Values{});
  store_.Get(before, KW_KV_TABLE_COUNT, keys);
  EXPECT_EQ(store_.code, KW_INVALID_ARGUMENT);
  const kw_kv_stats stats = store_.Stats();
  EXPECT_EQ(stats.views_open, 2u);
  EXPECT_GT(stats.live_bytes, 0u);
  EXPECT_LE(stats.live_bytes, stats.disk_bytes);
  store_.CloseView(before);
  store_.CloseView(after);
  EXPECT_EQ(store_.Stats().views_open, 0u);
}

TEST_P(KvStoreTest, KeepsAnEmptyValueApartFromNone) {
  ASSERT_EQ(Open(), KW_OK);
  ASSERT_EQ(store_.Write(Batch().Put(0, "empty", "")), KW_OK);
  for (const bool synced : {false, true}) {
    if (synced) {
      ASSERT_EQ(store_.Sync(), KW_OK);
    }
    kw_kv_view* view = store_.OpenView();
    EXPECT_EQ(store_.Get(view, 0, {"empty", "none"}),
              (std::vector<std::optional<std::string>>{"", std::nullopt}));
    kw_kv_cursor* cursor = nullptr;
    ASSERT_EQ(store_.table->cursor_open(store_.plugin(), view, 0, {}, {}, 0, &cursor, &store_.error), KW_OK);
    kw_kv_pair pair = {};
    size_t count = 0;
    ASSERT_EQ(store_.table->cursor_next(store_.plugin(), cursor, &pair, 1, &count, &store_.error), KW_OK);
    ASSERT_EQ(count, 1u);
    EXPECT_NE(pair.value.ptr, nullptr);
    EXPECT_EQ(pair.value.len, 0u);
    store_.table->cursor_close(store_.plugin(), cursor);
    store_.CloseView(view);
  }
}

TEST_P(KvStoreTest, RefusesWhatIsOutOfLimitsAndAppliesNothingOfIt) {
  ASSERT_EQ(Open(), KW_OK);
  const uint32_t longest = store_.table->key_bytes_max;
  ASSERT_GE(longest, 511u);

  EXPECT_EQ(store_.Write(Batch().Put(0, "ok", "x").Put(0, "", "x")), KW_INVALID_ARGUMENT);
  EXPECT_EQ(store_.Write(Batch().Put(0, "ok", "x").Put(0, std::string(longest + 1, 'k'), "x")),
            KW_INVALID_ARGUMENT);
  EXPECT_EQ(store_.Write(Batch().Put(0, "ok", "x").Put(KW_KV_TABLE_COUNT, "k", "x")), KW_INVALID_ARGUMENT);
  std::vector<kw_kv_op> ops = Batch().Put(0, "ok", "x").Put(0, "k", "x").Ops();
  ops[1].kind = 77;
  EXPECT_EQ(store_.table->write(store_.plugin(), ops.data(), ops.size(), &store_.error), KW_INVALID_ARGUMENT);
  EXPECT_EQ(store_.table->write(store_.plugin(), nullptr, 0, &store_.error), KW_OK);
  EXPECT_EQ(store_.Write(Batch().Put(7, std::string(longest, '\xff'), "kept")), KW_OK);

  Model model;
  model[7][std::string(longest, '\xff')] = "kept";
  ExpectEqual(model);
}

TEST_P(KvStoreTest, HoldsBigValues) {
  ASSERT_EQ(Open(), KW_OK);
  std::mt19937_64 random(1);
  Model model;
  Batch batch;
  for (int i = 0; i < 3; ++i) {
    std::string value((8 << 20) + i, 0);
    for (char& c : value) c = static_cast<char>(random());
    batch.Put(1, "big" + std::to_string(i), value);
  }
  for (int i = 0; i < 200; ++i) batch.Put(1, "mid" + std::to_string(i), std::string(20000 + i, 'm'));
  batch.ApplyTo(&model);
  ASSERT_EQ(store_.Write(batch), KW_OK) << store_.error.text;
  ASSERT_EQ(store_.Sync(), KW_OK) << store_.error.text;
  for (const bool reopened : {false, true}) {
    if (reopened) {
      ASSERT_EQ(Open(), KW_OK);
    }
    kw_kv_view* view = store_.OpenView();
    ExpectEqual(view, model);
    std::vector<std::string> keys;
    for (const auto& [key, value] : model[1]) keys.push_back(key);
    const auto values = store_.Get(view, 1, keys);
    ASSERT_EQ(values.size(), keys.size()) << store_.error.text;
    for (size_t i = 0; i < keys.size(); ++i) ASSERT_TRUE(values[i] == model[1][keys[i]]) << keys[i];
    store_.CloseView(view);
  }
}

TEST_P(KvStoreTest, AppliesAllOpsOfABatchInOrder) {
  ASSERT_EQ(Open(), KW_OK);
  ASSERT_EQ(store_.Write(Batch().Put(0, "a", "0").Put(0, "b", "0").Put(0, "c", "0").Put(1, "b", "other")),
            KW_OK);

  ASSERT_EQ(store_.Write(Batch()
                             .Put(0, "b", "lost")
                             .DeleteRange(0, "a", "c")
                             .Put(0, "a", "1")
                             .Delete(0, "a")
                             .Put(0, "aa", "2")
                             .DeleteRange(0, "z", "b")  // Turned round: nothing.
                             .DeleteRange(0, "c", "c")  // Empty: nothing.
                             .Put(0, "d", "3")
                             .DeleteRange(0, "d", "")  // To the end of this table only.
                             .Put(0, "e", "4")),
            KW_OK)
      << store_.error.text;

  Model model;
  model[0] = {{"aa", "2"}, {"c", "0"}, {"e", "4"}};
  model[1] = {{"b", "other"}};
  ExpectEqual(model);
}

TEST_P(KvStoreTest, CursorsKeepToTheirBoundsInBothDirections) {
  ASSERT_EQ(Open(), KW_OK);
  Batch batch;
  for (const char* key : {"a", "b", "b\xff", "c", "\xff"}) batch.Put(3, key, key);
  batch.Put(2, "b", "below").Put(4, "b", "above");
  batch.Put(3, std::string("b\0", 2), "zero");
  ASSERT_EQ(store_.Write(batch), KW_OK);
  kw_kv_view* view = store_.OpenView();
  const auto keys = [&](std::string_view begin, std::string_view end, bool descending) {
    std::string out;
    for (const auto& [key, value] : store_.Scan(view, 3, begin, end, descending, 2)) out += value + " ";
    return out;
  };

  EXPECT_EQ(keys("", "", false), "a b zero b\xff c \xff ");
  EXPECT_EQ(keys("", "", true), "\xff c b\xff zero b a ");
  EXPECT_EQ(keys("b", "c", false), "b zero b\xff ");
  EXPECT_EQ(keys("b", "c", true), "b\xff zero b ");
  EXPECT_EQ(keys("bb", "", false), "b\xff c \xff ");
  EXPECT_EQ(keys("", "bb", true), "zero b a ");
  EXPECT_EQ(keys("c", "c", false), "");
  EXPECT_EQ(keys("c", "b", false), "");
  EXPECT_EQ(keys("c", "b", true), "");
  EXPECT_EQ(keys("d", "e", true), "");
  EXPECT_TRUE(store_.Scan(view, 5).empty());
  store_.Scan(view, KW_KV_TABLE_COUNT);
  EXPECT_EQ(store_.code, KW_INVALID_ARGUMENT);
  store_.CloseView(view);
}

// Random batches against a std::map, with views pinned at older states, over syncs and reopens.
TEST_P(KvStoreTest, BehavesLikeAMap) {
  for (const uint64_t seed : {1, 2, 3}) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    store_.Stop();
    fs::remove_all(directory_);
    ASSERT_EQ(Open(), KW_OK) << store_.error.text;
    Model model;
    std::vector<std::pair<kw_kv_view*, Model>> pinned;
    const auto key_of = [&] {
      return std::string(1 + random() % 3, static_cast<char>('a' + random() % 6)) +
             std::to_string(random() % 30);
    };
    const auto unpin = [&] {
      for (auto& [view, state] : pinned) {
        ExpectEqual(view, state);
        store_.CloseView(view);
      }
      pinned.clear();
    };
    for (int round = 0; round < 250; ++round) {
      Batch batch;
      for (uint64_t i = 0; i < random() % 12; ++i) {
        const auto table = static_cast<uint32_t>(random() % KW_KV_TABLE_COUNT);
        const uint64_t dice = random() % 20;
        if (dice < 13) {
          batch.Put(table, key_of(), std::string(random() % (dice == 0 ? 9000 : 90), 'v'));
        } else if (dice < 18) {
          batch.Delete(table, key_of());
        } else {
          batch.DeleteRange(table, key_of(), dice == 18 ? key_of() : "");
        }
      }
      batch.ApplyTo(&model);
      // A store may have to wait for views: they are few, and now and then none.
      if (pinned.size() > 3 || round % 40 == 0) unpin();
      ASSERT_EQ(store_.Write(batch), KW_OK) << store_.error.text;
      if (random() % 4 == 0) {
        ASSERT_EQ(store_.Sync(), KW_OK) << store_.error.text;
      }
      if (round % 5 == 0) pinned.emplace_back(store_.OpenView(), model);
      if (round % 60 == 59) {
        unpin();
        ASSERT_EQ(Open(), KW_OK) << store_.error.text;
      }
      kw_kv_view* view = store_.OpenView();
      ExpectEqual(view, model);
      const auto table = static_cast<uint32_t>(random() % KW_KV_TABLE_COUNT);
      const std::string begin = key_of(), end = key_of();
      Pairs expected, down = store_.Scan(view, table, begin, end, true);
      for (auto at = model[table].lower_bound(begin); at != model[table].end() && at->first < end; ++at) {
        expected.push_back(*at);
      }
      std::reverse(down.begin(), down.end());
      ASSERT_EQ(store_.Scan(view, table, begin, end, false), expected) << "round " << round;
      ASSERT_EQ(down, expected) << "round " << round;
      store_.CloseView(view);
      if (HasFatalFailure()) return;
    }
    unpin();
  }
}

TEST_P(KvStoreTest, ReadersSeeWholeBatchesWhileItWrites) {
  ASSERT_EQ(Open(), KW_OK);
  constexpr int kRounds = 300;
  std::atomic<bool> done = false;
  std::atomic<uint64_t> reads = 0;
  ASSERT_EQ(store_.Write(Batch().Put(0, "n", "0").Put(1, "n", "0").Put(2, "n", "0")), KW_OK);
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      kw_error error = NoError();
      const std::string key = "n";
      const kw_slice slice = Slice(key);
      while (!done) {
        kw_kv_view* view = nullptr;
        ASSERT_EQ(store_.table->view_open(store_.plugin(), &view, &error), KW_OK) << error.text;
        std::string seen[3];
        for (uint32_t table = 0; table < 3; ++table) {
          kw_slice value;
          ASSERT_EQ(store_.table->get(store_.plugin(), view, table, &slice, 1, &value, &error), KW_OK);
          seen[table] = View(value);
        }
        store_.table->view_close(store_.plugin(), view);
        ASSERT_EQ(seen[0], seen[1]);
        ASSERT_EQ(seen[0], seen[2]);
        reads += 1;
      }
    });
  }
  for (int i = 1; i <= kRounds; ++i) {
    const std::string number = std::to_string(i);
    ASSERT_EQ(store_.Write(Batch().Put(0, "n", number).Put(1, "n", number).Put(2, "n", number)), KW_OK);
    if (i % 10 == 0) {
      ASSERT_EQ(store_.Sync(), KW_OK);
    }
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(reads.load(), 0u);
}

TEST_P(KvStoreTest, KeepsEverythingOverAStop) {
  Model model;
  for (int round = 0; round < 4; ++round) {
    ASSERT_EQ(Open(), KW_OK) << store_.error.text;
    ExpectEqual(model);
    Batch batch;
    for (int i = 0; i < 100; ++i) batch.Put(i % 8, std::to_string(round * 100 + i), std::string(i, 'r'));
    batch.DeleteRange(round, "1", "2");
    batch.ApplyTo(&model);
    ASSERT_EQ(store_.Write(batch), KW_OK);  // Not synced: stop() is no crash.
    store_.Stop();
  }
}

size_t ThreadCount() {
  const auto tasks = fs::directory_iterator("/proc/self/task");
  return static_cast<size_t>(std::distance(begin(tasks), end(tasks)));
}

TEST_P(KvStoreTest, LeavesNoThreadBehind) {
  const size_t before = ThreadCount();
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(Open(), KW_OK);
    for (int i = 0; i < 20; ++i) {
      ASSERT_EQ(store_.Write(Batch().Put(1, std::to_string(i), std::string(1000, 'v'))), KW_OK);
      ASSERT_EQ(store_.Sync(), KW_OK);
    }
    store_.Stop();
    EXPECT_EQ(ThreadCount(), before);
  }
}

TEST_P(KvStoreTest, RefusesASecondOpener) {
  ASSERT_EQ(Open(), KW_OK);

  Store second;
  EXPECT_EQ(second.Open(engine(), SettingsOf(directory_)), KW_FAILED_PRECONDITION);
  EXPECT_NE(std::string(second.error.text).find("another process uses"), std::string::npos);
}

TEST_P(KvStoreTest, RefusesADirectoryThatOthersMayWriteTo) {
  fs::create_directory(directory_);
  fs::permissions(directory_, fs::perms::all);

  EXPECT_EQ(Open(), KW_FAILED_PRECONDITION);
  EXPECT_NE(std::string(store_.error.text).find(directory_), std::string::npos);
}

// Else a configuration that names the other engine would look like a member that has lost its data.
TEST_P(KvStoreTest, RefusesTheDirectoryOfAnotherEngine) {
  for (const char* other : {"storage-lmdb", "storage-rocksdb"}) {
    if (std::string(other) == GetParam().engine) continue;
    const std::string directory = root_ + "/" + other;
    Store first;
    ASSERT_EQ(first.Open(FindEngine(other), {{"dir", directory}}), KW_OK) << first.error.text;
    ASSERT_EQ(first.Write(Batch().Put(0, "k", "v")), KW_OK);
    first.Stop();

    EXPECT_EQ(store_.Open(engine(), SettingsOf(directory)), KW_FAILED_PRECONDITION);
    EXPECT_NE(std::string(store_.error.text).find("not of this engine"), std::string::npos)
        << store_.error.text;
    EXPECT_EQ(first.Open(FindEngine(other), {{"dir", directory}}), KW_OK) << first.error.text;
  }
}

TEST_P(KvStoreTest, MakesACopyThatCanBeOpened) {
  ASSERT_EQ(Open(), KW_OK);
  if ((store_.table->caps & KW_KV_CAP_CHECKPOINT) == 0) GTEST_SKIP() << "makes no checkpoints";
  Batch batch;
  Model model;
  for (int i = 0; i < 500; ++i) batch.Put(3, "k" + std::to_string(i), std::string(1000, 'c'));
  batch.ApplyTo(&model);
  ASSERT_EQ(store_.Write(batch), KW_OK);
  const std::string copy = root_ + "/copy";
  fs::create_directory(copy);
  fs::permissions(copy, fs::perms::owner_all);

  ASSERT_EQ(store_.Checkpoint(copy), KW_OK);
  EXPECT_NE(store_.Checkpoint(copy), KW_OK) << "into a directory that is in use";
  EXPECT_NE(store_.Checkpoint(root_ + "/none/none"), KW_OK);
  ASSERT_EQ(store_.Write(Batch().Put(3, "later", "x").DeleteRange(3, "k", "l")), KW_OK);
  ASSERT_EQ(store_.Sync(), KW_OK);

  ASSERT_EQ(store_.Open(engine(), SettingsOf(copy)), KW_OK) << store_.error.text;
  ExpectEqual(model);
}

TEST_P(KvStoreTest, GivesDiskSpaceBack) {
  ASSERT_EQ(Open(), KW_OK);
  if ((store_.table->caps & KW_KV_CAP_RECLAIM) == 0) GTEST_SKIP() << "has no reclaim";
  std::mt19937_64 random(3);
  for (int i = 0; i < 10; ++i) {
    std::string value(1 << 20, 0);
    for (char& c : value) c = static_cast<char>(random());
    ASSERT_EQ(store_.Write(Batch().Put(1, std::to_string(i), value)), KW_OK);
    ASSERT_EQ(store_.Sync(), KW_OK);
  }
  ASSERT_EQ(store_.Write(Batch().DeleteRange(1, "1", "")), KW_OK);
  ASSERT_EQ(store_.Sync(), KW_OK);

  ASSERT_EQ(store_.Reclaim(), KW_OK);

  EXPECT_LT(store_.Stats().disk_bytes, 2u << 20);
  kw_kv_view* view = store_.OpenView();
  EXPECT_EQ(store_.Scan(view, 1).size(), 1u);
  store_.CloseView(view);
}

INSTANTIATE_TEST_SUITE_P(Engines, KvStoreTest, Engines(), NameOf);

}  // namespace
}  // namespace keyway::test
