// SPDX-License-Identifier: Apache-2.0
#include "engine.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <random>

namespace keyway::storage_lmdb {
namespace {

namespace fs = std::filesystem;
using Table = std::map<std::string, std::string>;
using Model = std::map<uint32_t, Table>;

// A batch in the making; owns its bytes.
class Batch {
 public:
  Batch& Put(uint32_t table, std::string key, std::string value) {
    return Add(KW_KV_PUT, table, std::move(key), std::move(value));
  }
  Batch& Delete(uint32_t table, std::string key) { return Add(KW_KV_DELETE, table, std::move(key), ""); }
  Batch& DeleteRange(uint32_t table, std::string begin, std::string end) {
    return Add(KW_KV_DELETE_RANGE, table, std::move(begin), std::move(end));
  }
  std::vector<kw_kv_op> Ops() const {
    std::vector<kw_kv_op> ops;
    for (const Item& item : items_) {
      ops.push_back({item.kind, item.table, Slice(item.key), Slice(item.value)});
    }
    return ops;
  }
  void ApplyTo(Model* model) const {
    for (const Item& item : items_) {
      Table& table = (*model)[item.table];
      if (item.kind == KW_KV_PUT) table[item.key] = item.value;
      if (item.kind == KW_KV_DELETE) table.erase(item.key);
      if (item.kind == KW_KV_DELETE_RANGE) {
        table.erase(table.lower_bound(item.key),
                    item.value.empty() ? table.end() : table.lower_bound(std::max(item.key, item.value)));
      }
    }
  }

 private:
  struct Item {
    uint32_t kind, table;
    std::string key, value;
  };
  Batch& Add(uint32_t kind, uint32_t table, std::string key, std::string value) {
    items_.push_back({kind, table, std::move(key), std::move(value)});
    return *this;
  }
  std::vector<Item> items_;
};

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() {
    char name[] = "/tmp/keyway-lmdb-XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  ~EngineTest() override {
    engine_.reset();
    fs::remove_all(directory_);
  }
  int32_t Open(uint64_t map_bytes = uint64_t{64} << 30) {
    engine_.reset();
    engine_ = std::make_unique<Engine>(Options{directory_, map_bytes, 256});
    return engine_->Open(nullptr, &error_);
  }
  int32_t Write(const Batch& batch) {
    const std::vector<kw_kv_op> ops = batch.Ops();
    return engine_->Write(ops, &error_);
  }
  ReadView* OpenView() {
    ReadView* view = nullptr;
    EXPECT_EQ(engine_->OpenView(&view, &error_), KW_OK) << error_.text;
    return view;
  }
  std::vector<std::pair<std::string, std::string>> Scan(ReadView* view, uint32_t table,
                                                        const std::string& begin, const std::string& end,
                                                        bool descending) {
    Cursor* cursor = nullptr;
    EXPECT_EQ(engine_->OpenCursor(view, table, Slice(begin), Slice(end), descending, &cursor, &error_),
              KW_OK);
    std::vector<kw_kv_pair> pinned;
    kw_kv_pair pairs[7];
    size_t count = 0;
    do {
      EXPECT_EQ(engine_->Next(cursor, pairs, &count, &error_), KW_OK) << error_.text;
      pinned.insert(pinned.end(), pairs, pairs + count);
    } while (count == std::size(pairs));
    // Only now are the pairs looked at: they live until the cursor is closed.
    std::vector<std::pair<std::string, std::string>> all;
    for (const kw_kv_pair& pair : pinned) all.emplace_back(View(pair.key), View(pair.value));
    engine_->CloseCursor(cursor);
    return all;
  }
  void ExpectEqual(ReadView* view, const Model& model) {
    for (uint32_t table = 0; table < KW_KV_TABLE_COUNT; ++table) {
      const auto found = model.find(table);
      const Table expected = found == model.end() ? Table() : found->second;
      const auto stored = Scan(view, table, "", "", false);
      ASSERT_EQ(stored.size(), expected.size()) << "table " << table;
      ASSERT_TRUE(
          std::equal(stored.begin(), stored.end(), expected.begin(),
                     [](const auto& a, const auto& b) { return a.first == b.first && a.second == b.second; }))
          << "table " << table;
    }
  }
  std::string DataPath() const { return directory_ + "/data.mdb"; }

  std::string directory_;
  std::unique_ptr<Engine> engine_;
  kw_error error_ = NoError();
};

TEST_F(EngineTest, GrowsTheMapUnderReaders) {
  ASSERT_EQ(Open(1 << 20), KW_OK);
  std::atomic<bool> done = false;
  std::atomic<uint64_t> reads = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      kw_error error = NoError();
      while (!done) {
        // A second view while the first is open, as one request may need it.
        ReadView *view = nullptr, *second = nullptr;
        ASSERT_EQ(engine_->OpenView(&view, &error), KW_OK) << error.text;
        ASSERT_EQ(engine_->OpenView(&second, &error), KW_OK) << error.text;
        const std::string key = "00000000";
        const kw_slice slice = Slice(key);
        kw_slice value;
        ASSERT_EQ(engine_->Get(second, 1, {&slice, 1}, &value, &error), KW_OK);
        ASSERT_TRUE(value.ptr == nullptr || value.len == 10000u);
        engine_->CloseView(second);
        engine_->CloseView(view);
        reads += 1;
      }
    });
  }

  for (int i = 0; i < 100; ++i) {
    Batch batch;
    for (int k = 0; k < 20; ++k) {
      char key[16];
      std::snprintf(key, sizeof key, "%08d", i * 20 + k);
      batch.Put(1, key, std::string(10000, 'v'));
    }
    ASSERT_EQ(Write(batch), KW_OK) << error_.text;
  }
  done = true;
  for (std::thread& reader : readers) reader.join();

  EXPECT_GE(engine_->map_bytes(), 20u << 20);
  EXPECT_GT(reads.load(), 0u);
  ReadView* view = OpenView();
  EXPECT_EQ(Scan(view, 1, "", "", false).size(), 2000u);
  engine_->CloseView(view);
}

// Reliability catalogue D10. The limit of a file's size stands in for a full disk.
TEST_F(EngineTest, AppliesNothingWhenTheDiskIsFullAndGoesOnLater) {
  ASSERT_EQ(Open(), KW_OK);
  ASSERT_EQ(Write(Batch().Put(1, "a", "1")), KW_OK);
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 1 << 20;
  ::setrlimit(RLIMIT_FSIZE, &small);

  const Batch large = std::move(Batch().Put(0, "x", "y").Put(1, "b", std::string(4 << 20, 'v')));
  EXPECT_EQ(Write(large), KW_RESOURCE_EXHAUSTED) << error_.text;
  EXPECT_EQ(error_.detail, static_cast<uint32_t>(KW_DETAIL_NO_SPACE));
  ReadView* view = OpenView();
  EXPECT_EQ(Scan(view, 1, "", "", false).size(), 1u);
  EXPECT_TRUE(Scan(view, 0, "", "", false).empty());
  engine_->CloseView(view);
  EXPECT_EQ(Write(Batch().Put(1, "small", "fits")), KW_OK) << error_.text;

  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(Write(large), KW_OK) << error_.text;
  view = OpenView();
  EXPECT_EQ(Scan(view, 1, "", "", false).size(), 3u);
  engine_->CloseView(view);
}

TEST_F(EngineTest, ReportsAFileThatIsNoStore) {
  ASSERT_EQ(Open(), KW_OK);
  engine_.reset();
  std::FILE* file = std::fopen(DataPath().c_str(), "r+");
  const char garbage[64] = "this is not an lmdb file, whatever its name may say......";
  std::fwrite(garbage, 1, sizeof garbage, file);
  std::fclose(file);

  EXPECT_EQ(Open(), KW_DATA_LOSS);
  EXPECT_NE(std::string(error_.text).find("data.mdb"), std::string::npos) << error_.text;
}

TEST_F(EngineTest, ReportsAFileThatWasCutAtAnyPage) {
  ASSERT_EQ(Open(), KW_OK);
  Model model;
  for (int i = 0; i < 12; ++i) {
    Batch batch;
    batch.Put(1, "key" + std::to_string(i), std::string(i % 3 == 0 ? 20000 : 900, 'v'));
    batch.ApplyTo(&model);
    ASSERT_EQ(Write(batch), KW_OK);
  }
  engine_.reset();
  const uint64_t bytes = fs::file_size(DataPath());
  const std::string copy = directory_ + "/copy";
  fs::copy_file(DataPath(), copy);
  uint64_t reported = 0;

  for (uint64_t cut = 2 * 4096; cut < bytes; cut += 4096) {
    fs::copy_file(copy, DataPath(), fs::copy_options::overwrite_existing);
    fs::resize_file(DataPath(), cut);
    const int32_t code = Open();
    if (code == KW_OK) {
      // Only free pages were cut off.
      ReadView* view = OpenView();
      ExpectEqual(view, model);
      engine_->CloseView(view);
    } else {
      ASSERT_EQ(code, KW_DATA_LOSS) << cut << ": " << error_.text;
      EXPECT_EQ(fs::file_size(DataPath()), cut);  // Left as it was found.
      reported += 1;
    }
    engine_.reset();
  }
  EXPECT_GT(reported, bytes / 4096 / 2);
}

// Of files that are mapped.
uint64_t ResidentBytes() {
  unsigned long long kilobytes = 0;
  std::FILE* file = std::fopen("/proc/self/status", "r");
  char line[256];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::sscanf(line, "RssFile: %llu kB", &kilobytes) == 1) break;
  }
  std::fclose(file);
  return kilobytes * 1024;
}

TEST_F(EngineTest, GivesMemoryBackAfterALongScan) {
  ASSERT_EQ(Open(), KW_OK);
  for (int i = 0; i < 40; ++i) {
    Batch batch;
    for (int k = 0; k < 4; ++k) {
      batch.Put(1, std::to_string(1000 + i * 4 + k), std::string(1 << 20, 'm'));
    }
    ASSERT_EQ(Write(batch), KW_OK);
  }
  const uint64_t releases = engine_->map_releases();
  const uint64_t before = ResidentBytes();
  ReadView* view = OpenView();
  Cursor* cursor = nullptr;
  ASSERT_EQ(engine_->OpenCursor(view, 1, {}, {}, false, &cursor, &error_), KW_OK);
  kw_kv_pair pairs[16];
  size_t count = 0;
  uint64_t sum = 0, peak = 0;
  do {
    ASSERT_EQ(engine_->Next(cursor, pairs, &count, &error_), KW_OK);
    for (size_t i = 0; i < count; ++i) {
      for (size_t at = 0; at < pairs[i].value.len; at += 4096) sum += pairs[i].value.ptr[at];
    }
    peak = std::max(peak, ResidentBytes());
  } while (count == std::size(pairs));
  EXPECT_EQ(sum, 160u * 256 * 'm');
  // Asks for it once more, now that all of it is resident.
  while (engine_->map_releases() < releases + 3) {
    engine_->CloseCursor(cursor);
    ASSERT_EQ(engine_->OpenCursor(view, 1, {}, {}, false, &cursor, &error_), KW_OK);
    do {
      ASSERT_EQ(engine_->Next(cursor, pairs, &count, &error_), KW_OK);
    } while (count == std::size(pairs));
  }
  engine_->CloseCursor(cursor);
  engine_->CloseView(view);

  EXPECT_GT(peak, before + (32 << 20));
  EXPECT_LT(ResidentBytes(), peak - (32 << 20));
}

}  // namespace
}  // namespace keyway::storage_lmdb
