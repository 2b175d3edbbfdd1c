// SPDX-License-Identifier: Apache-2.0
//
// What keyway.kv-store/1 promises over kill -9 and a full disk, of every engine in this tree.
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <memory>
#include <random>

#include "kv_store_fixture.h"

namespace keyway::test {
namespace {

class KvStoreCrashTest : public KvStoreTest {};

// The child writes numbered batches into three tables, syncs each third, and is killed at any moment;
// each batch carries its number, so that a part of one would be seen.
TEST_P(KvStoreCrashTest, ComesBackAsOfAWholeBatchAfterKill) {
  std::mt19937_64 random(5);
  uint64_t least = 0;
  const auto key_of = [](uint64_t number) {
    char key[32];
    std::snprintf(key, sizeof key, "%08llu", static_cast<unsigned long long>(number));
    return std::string(key);
  };
  for (int round = 0; round < 15; ++round) {
    SCOPED_TRACE(round);
    int pipe_ends[2];
    ASSERT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(pipe_ends[0]);
      Store store;
      if (store.Open(engine(), SettingsOf(directory_)) != KW_OK) ::_exit(1);
      for (uint64_t number = least + 1;; ++number) {
        Batch batch;
        for (const uint32_t table : {0u, 1u, 2u}) {
          batch.Put(table, key_of(number), std::string(number % 5000, 'v'));
          batch.Put(table, "last", std::to_string(number));
          if (number > 50) batch.Delete(table, key_of(number - 50));
        }
        if (store.Write(batch) != KW_OK) ::_exit(2);
        if (number % 3 != 0) continue;
        if (store.Sync() != KW_OK) ::_exit(3);
        if (::write(pipe_ends[1], &number, sizeof number) != sizeof number) ::_exit(4);
      }
    }
    ASSERT_GT(child, 0);
    ::close(pipe_ends[1]);
    // Killed while it works on one of the next batches.
    uint64_t synced = least;
    const uint64_t until = least + 1 + random() % 30;
    while (synced < until && ::read(pipe_ends[0], &synced, sizeof synced) == sizeof synced) {
    }
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit code " << WEXITSTATUS(status);
    while (::read(pipe_ends[0], &synced, sizeof synced) == sizeof synced) {
    }
    ::close(pipe_ends[0]);

    ASSERT_EQ(Open(), KW_OK) << store_.error.text;
    kw_kv_view* view = store_.OpenView();
    std::string last;
    for (const uint32_t table : {0u, 1u, 2u}) {
      const Pairs pairs = store_.Scan(view, table);
      ASSERT_FALSE(pairs.empty());
      ASSERT_EQ(pairs.back().first, "last");
      if (table == 0) last = pairs.back().second;
      ASSERT_EQ(pairs.back().second, last) << "part of a batch";
      const uint64_t number = std::stoull(last);
      ASSERT_EQ(pairs.size(), std::min<uint64_t>(number, 50) + 1);
      ASSERT_EQ(pairs[pairs.size() - 2].first, key_of(number));
      ASSERT_EQ(pairs[pairs.size() - 2].second.size(), number % 5000);
    }
    ASSERT_GE(std::stoull(last), synced);
    least = std::stoull(last);
    store_.CloseView(view);
    store_.Stop();
  }
  EXPECT_GT(least, 100u);
}

// Reliability catalogue D10: nothing of a refused batch is seen; all that was synced is there.
class FullDisk {
 public:
  virtual ~FullDisk() = default;
  virtual void Lift() = 0;
};
class SmallFileSystem : public FullDisk {
 public:
  static std::unique_ptr<FullDisk> Make(const std::string& at) {
    fs::create_directory(at);
    if (::mount("tmpfs", at.c_str(), "tmpfs", 0, "size=8m,mode=0700") != 0) return nullptr;
    auto made = std::make_unique<SmallFileSystem>();
    made->at_ = at;
    return made;
  }
  void Lift() override { ::mount("tmpfs", at_.c_str(), "tmpfs", MS_REMOUNT, "size=256m"); }
  ~SmallFileSystem() override { ::umount2(at_.c_str(), MNT_DETACH); }

 private:
  std::string at_;
};
class SmallFiles : public FullDisk {
 public:
  SmallFiles() {
    std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit small = before_;
    small.rlim_cur = 2 << 20;
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  void Lift() override { ::setrlimit(RLIMIT_FSIZE, &before_); }
  ~SmallFiles() override { Lift(); }

 private:
  rlimit before_;
};

TEST_P(KvStoreCrashTest, KeepsWhatWasSyncedWhenTheDiskIsFull) {
  for (const bool whole_disk : {true, false}) {
    SCOPED_TRACE(whole_disk ? "a full file system" : "a limit of a file's size");
    std::unique_ptr<FullDisk> disk;
    if (whole_disk) {
      disk = SmallFileSystem::Make(root_ + "/small");
      if (disk == nullptr) continue;  // Not root.
      directory_ = root_ + "/small/store";
    } else {
      disk = std::make_unique<SmallFiles>();
      directory_ = root_ + "/store";
    }
    ASSERT_EQ(Open(), KW_OK) << store_.error.text;
    std::mt19937_64 random(9);
    Model synced, unsynced;
    int32_t code = KW_OK;
    bool refused_by_write = false;
    for (int i = 0; i < 100 && code == KW_OK; ++i) {
      Batch batch;
      std::string value(whole_disk ? 300000 : 3000000, 0);
      for (char& c : value) c = static_cast<char>(random());
      batch.Put(1, std::to_string(i), i == 0 ? "small" : value).Put(2, "last", std::to_string(i));
      batch.ApplyTo(&unsynced);
      code = store_.Write(batch);
      refused_by_write = code != KW_OK;
      if (code == KW_OK) code = store_.Sync();
      if (code == KW_OK) synced = unsynced;
    }
    EXPECT_EQ(code, KW_RESOURCE_EXHAUSTED) << store_.error.text;
    EXPECT_EQ(store_.error.detail, static_cast<uint32_t>(KW_DETAIL_NO_SPACE)) << store_.error.text;
    EXPECT_NE(std::string(store_.error.text).find(directory_), std::string::npos) << store_.error.text;
    EXPECT_FALSE(synced.empty());
    if (refused_by_write) ExpectEqual(synced);
    store_.Stop();
    disk->Lift();

    ASSERT_EQ(Open(), KW_OK) << store_.error.text;
    kw_kv_view* view = store_.OpenView();
    const auto last = store_.Get(view, 2, {"last"});
    store_.CloseView(view);
    ASSERT_TRUE(last.at(0).has_value());
    // The batch that sync() could not make durable may be there all the same, then whole.
    const bool has_unsynced = !refused_by_write && *last[0] == unsynced[2]["last"];
    ExpectEqual(has_unsynced ? unsynced : synced);
    EXPECT_EQ(store_.Write(Batch().Put(1, "more", std::string(4 << 20, 'v'))), KW_OK) << store_.error.text;
    EXPECT_EQ(store_.Sync(), KW_OK) << store_.error.text;
    store_.Stop();
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, KvStoreCrashTest, Engines(), NameOf);

}  // namespace
}  // namespace keyway::test
