// SPDX-License-Identifier: Apache-2.0
//
// What this engine does beyond keyway.kv-store/1 (tests/abi): damage, files, a disk that gets room again.
#include "engine.h"

#include <gtest/gtest.h>
#include <sys/mount.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

namespace keyway::storage_rocksdb {
namespace {

namespace fs = std::filesystem;

class RocksdbEngineTest : public ::testing::Test {
 protected:
  RocksdbEngineTest() {
    char name[] = "/tmp/keyway-rocksdb-XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  ~RocksdbEngineTest() override {
    engine_.reset();
    fs::remove_all(directory_);
  }
  int32_t Open() {
    engine_.reset();
    Options options;
    options.directory = directory_;
    options.write_buffer_bytes = 1 << 20;
    options.compression = rocksdb::kNoCompression;
    engine_ = std::make_unique<Engine>(options);
    return engine_->Open(nullptr, &error_);
  }
  int32_t Put(uint32_t table, const std::string& key, const std::string& value) {
    const kw_kv_op op = {KW_KV_PUT, table, Slice(key), Slice(value)};
    return engine_->Write({&op, 1}, &error_);
  }
  void PutAndSync(const std::string& key, const std::string& value) {
    ASSERT_EQ(Put(1, key, value), KW_OK) << error_.text;
    ASSERT_EQ(engine_->Sync(&error_), KW_OK) << error_.text;
  }
  int32_t Get(const std::string& key, std::string* value) {
    ReadView* view = nullptr;
    if (engine_->OpenView(&view, &error_) != KW_OK) return KW_INTERNAL;
    const kw_slice slice = Slice(key);
    kw_slice found = {};
    const int32_t code = engine_->Get(view, 1, {&slice, 1}, &found, &error_);
    if (code == KW_OK && found.ptr != nullptr) *value = View(found);
    engine_->CloseView(view);
    return code;
  }
  int32_t Scan(size_t* pair_count) {
    ReadView* view = nullptr;
    Cursor* cursor = nullptr;
    if (engine_->OpenView(&view, &error_) != KW_OK) return KW_INTERNAL;
    if (engine_->OpenCursor(view, 1, {}, {}, false, &cursor, &error_) != KW_OK) return KW_INTERNAL;
    kw_kv_pair pairs[16];
    size_t count = 0;
    int32_t code = KW_OK;
    *pair_count = 0;
    do {
      code = engine_->Next(cursor, pairs, &count, &error_);
      *pair_count += count;
    } while (code == KW_OK && count != 0);
    engine_->CloseCursor(cursor);
    engine_->CloseView(view);
    return code;
  }
  std::vector<fs::path> Files(const std::string& suffix) const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(directory_ + "/db")) {
      if (entry.path().filename().string().find(suffix) != std::string::npos) found.push_back(entry.path());
    }
    return found;
  }
  static void FlipByte(const fs::path& path, uint64_t at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const char byte = static_cast<char>(file.get() ^ 0x40);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(byte);
  }
  bool ErrorNames(const std::string& text) const {
    return std::string(error_.text).find(text) != std::string::npos;
  }

  std::string directory_;
  std::unique_ptr<Engine> engine_;
  kw_error error_ = NoError();
};

TEST_F(RocksdbEngineTest, NamesTheTableOfADamagedBlock) {
  ASSERT_EQ(Open(), KW_OK) << error_.text;
  for (int i = 0; i < 4; ++i) ASSERT_EQ(Put(1, "k" + std::to_string(i), std::string(30000, 'v')), KW_OK);
  ASSERT_EQ(engine_->Sync(&error_), KW_OK);
  engine_.reset();
  ASSERT_EQ(Files(".sst").size(), 1u);
  const fs::path table = Files(".sst")[0];
  FlipByte(table, 35000);  // In the second value.

  ASSERT_EQ(Open(), KW_OK) << error_.text;

  std::string value;
  EXPECT_EQ(Get("k1", &value), KW_DATA_LOSS);
  EXPECT_TRUE(ErrorNames(table.filename())) << error_.text;
  EXPECT_EQ(Get("k3", &value), KW_OK);
  EXPECT_EQ(value.size(), 30000u);
  size_t count = 0;
  EXPECT_EQ(Scan(&count), KW_DATA_LOSS);
  EXPECT_TRUE(ErrorNames(table.filename())) << error_.text;
}

TEST_F(RocksdbEngineTest, RefusesADatabaseWithMissingOrCutFiles) {
  ASSERT_EQ(Open(), KW_OK);
  PutAndSync("a", std::string(5000, 'a'));
  PutAndSync("b", std::string(5000, 'b'));
  engine_.reset();
  const std::string copy = directory_ + "-copy";
  fs::copy(directory_, copy, fs::copy_options::recursive);
  const auto restore = [&] {
    engine_.reset();
    fs::remove_all(directory_);
    fs::copy(copy, directory_, fs::copy_options::recursive);
    fs::permissions(directory_, fs::perms::owner_all);
  };
  for (const char* kind : {".sst", "MANIFEST", "CURRENT"}) {
    for (const char* harm : {"removed", "cut", "garbage"}) {
      SCOPED_TRACE(std::string(kind) + " " + harm);
      restore();
      const fs::path file = Files(kind).at(0);
      if (std::string(harm) == "removed") fs::remove(file);
      if (std::string(harm) == "cut") fs::resize_file(file, fs::file_size(file) / 2);
      if (std::string(harm) == "garbage") {
        std::ofstream(file, std::ios::binary | std::ios::in).write("garbage garbage!", 16);
      }
      int32_t code = Open();
      size_t count = 0;
      if (code == KW_OK) code = Scan(&count);
      if (std::string(kind) + harm == "MANIFESTcut" && code == KW_OK) {
        // As after a crash while it was written: an earlier sync, whole. The kernel has the log for it.
        EXPECT_LE(count, 2u);
        continue;
      }
      EXPECT_EQ(code, KW_DATA_LOSS) << error_.text << " " << count;
      EXPECT_TRUE(ErrorNames(directory_)) << error_.text;
    }
  }
  restore();
  ASSERT_EQ(Open(), KW_OK) << error_.text;
  fs::remove_all(copy);
}

// Reliability catalogue D10.
TEST_F(RocksdbEngineTest, IsWholeWhenOpenedAgainAfterAFullDisk) {
  const std::string disk = directory_;
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=2m,mode=0700") != 0) GTEST_SKIP() << "needs root";
  directory_ += "/store";
  ASSERT_EQ(Open(), KW_OK) << error_.text;
  PutAndSync("a", "1");

  ASSERT_EQ(Put(1, "b", std::string(4 << 20, 'v')), KW_OK);  // In memory.
  EXPECT_EQ(engine_->Sync(&error_), KW_RESOURCE_EXHAUSTED) << error_.text;
  EXPECT_EQ(error_.detail, static_cast<uint32_t>(KW_DETAIL_NO_SPACE));
  EXPECT_EQ(Put(1, "refused", "x"), KW_RESOURCE_EXHAUSTED) << error_.text;
  ASSERT_EQ(::mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=64m"), 0);

  EXPECT_EQ(Put(1, "refused", "x"), KW_RESOURCE_EXHAUSTED) << error_.text;  // What it holds is unknown.
  EXPECT_EQ(engine_->Sync(&error_), KW_RESOURCE_EXHAUSTED) << error_.text;
  ASSERT_EQ(Open(), KW_OK) << error_.text;
  PutAndSync("c", "3");
  ASSERT_EQ(Open(), KW_OK) << error_.text;
  size_t count = 0;
  EXPECT_EQ(Scan(&count), KW_OK);
  EXPECT_GE(count, 2u);  // "b" was never synced: it may be there.
  EXPECT_LE(count, 3u);
  engine_.reset();
  ::umount2(disk.c_str(), MNT_DETACH);
  directory_ = disk;
}

TEST_F(RocksdbEngineTest, KeepsFewFilesAfterManySmallSyncs) {
  ASSERT_EQ(Open(), KW_OK);
  for (int i = 0; i < 300; ++i) PutAndSync(std::to_string(1000 + i), std::string(100, 'v'));

  engine_.reset();
  EXPECT_LE(Files(".sst").size(), 20u);
  EXPECT_LE(Files("MANIFEST").size(), 1u);
  EXPECT_FALSE(fs::exists(directory_ + "/db/LOG"));
}

TEST_F(RocksdbEngineTest, BoundsWhatOneNextCopies) {
  ASSERT_EQ(Open(), KW_OK);
  for (int i = 0; i < 12; ++i) ASSERT_EQ(Put(1, std::to_string(100 + i), std::string(400 << 10, 'v')), KW_OK);
  ReadView* view = nullptr;
  Cursor* cursor = nullptr;
  ASSERT_EQ(engine_->OpenView(&view, &error_), KW_OK);
  ASSERT_EQ(engine_->OpenCursor(view, 1, {}, {}, true, &cursor, &error_), KW_OK);
  kw_kv_pair pairs[64];
  size_t count = 0, total = 0;
  do {
    ASSERT_EQ(engine_->Next(cursor, pairs, &count, &error_), KW_OK);
    EXPECT_LE(count, 3u);
    total += count;
  } while (count != 0);
  EXPECT_EQ(total, 12u);
  engine_->CloseCursor(cursor);
  engine_->CloseView(view);
}

}  // namespace
}  // namespace keyway::storage_rocksdb
