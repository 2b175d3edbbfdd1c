// SPDX-License-Identifier: Apache-2.0
//
// The plugin through its ABI, on a real directory.
#include "keyway/plugin.hpp"

#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "keyway/crc32c.h"
#include "keyway/log_store.h"

extern "C" const kw_entry* kw_plugin_entry_log_segmented(void);

namespace keyway {
namespace {

namespace fs = std::filesystem;

struct Waiter {
  kw_completion base = {};
  std::mutex mutex;
  std::condition_variable changed;
  int32_t code = KW_PENDING;

  Waiter() {
    base.ctx = this;
    base.done = [](kw_completion* self, int32_t code, const kw_error*) {
      auto* waiter = static_cast<Waiter*>(self->ctx);
      std::lock_guard lock(waiter->mutex);
      waiter->code = code;
      waiter->changed.notify_all();
    };
  }
  int32_t Wait(int32_t returned) {
    if (returned != KW_PENDING) return returned;
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return code != KW_PENDING; });
    return code;
  }
};

class LogPluginTest : public ::testing::Test {
 protected:
  LogPluginTest() {
    char name[] = "/tmp/keyway-log-XXXXXX";
    root_ = ::mkdtemp(name);
    directory_ = root_ + "/a/b";
    host_.size = sizeof host_;
    host_.get = [](const kw_host*, const char*) -> const void* { return nullptr; };
  }
  ~LogPluginTest() override { fs::remove_all(root_); }

  kw_plugin* Create(const std::string& segment_bytes = "65536") {
    const kw_config_item items[] = {{"dir", Slice(directory_), 1, 0},
                                    {"segment_bytes", Slice(segment_bytes), 2, 0}};
    kw_plugin* plugin = nullptr;
    const kw_descriptor& descriptor = *kw_plugin_entry_log_segmented()->plugins[0];
    EXPECT_EQ(descriptor.create(&host_, items, 2, &plugin, &error_), KW_OK) << error_.text;
    return plugin;
  }
  static const kw_log_store& Table(kw_plugin* plugin) {
    return *static_cast<const kw_log_store*>(plugin->get(plugin, KW_LOG_STORE));
  }
  int32_t Append(kw_plugin* plugin, uint64_t index, const std::string& data) {
    const kw_log_entry entry = {index, 1, 1, kw_crc32c(0, data.data(), data.size()), Slice(data)};
    const kw_hard_state hard_state = {1, 2, index - 1};
    Waiter waiter;
    return waiter.Wait(Table(plugin).append(plugin, &entry, 1, &hard_state, &waiter.base));
  }
  static void End(kw_plugin* plugin) {
    plugin->stop(plugin);
    plugin->destroy(plugin);
  }

  std::string root_, directory_;
  kw_host host_ = {};
  kw_error error_ = NoError();
};

TEST_F(LogPluginTest, LivesAndComesBack) {
  kw_hard_state hard_state;
  kw_log_bounds bounds;
  for (uint64_t round = 0; round < 3; ++round) {
    kw_plugin* plugin = Create();
    ASSERT_EQ(plugin->start(plugin, &error_), KW_OK) << error_.text;
    EXPECT_EQ(plugin->get(plugin, "keyway.other/1"), nullptr);
    ASSERT_EQ(Table(plugin).recover(plugin, &hard_state, &bounds, &error_), KW_OK) << error_.text;
    EXPECT_EQ(bounds.last, round * 100);
    EXPECT_EQ(hard_state.vote, round == 0 ? 0u : 2u);
    for (uint64_t i = 1; i <= 100; ++i) {
      ASSERT_EQ(Append(plugin, round * 100 + i, std::string(1000, 'd')), KW_OK);
    }
    kw_log_batch* batch = nullptr;
    ASSERT_EQ(Table(plugin).read(plugin, 1, round * 100 + 101, 1 << 20, &batch, &error_), KW_OK);
    EXPECT_EQ(batch->entry_count, round * 100 + 100);
    batch->release(batch);
    End(plugin);
  }
  EXPECT_EQ(fs::status(directory_).permissions(), fs::perms::owner_all);
}

TEST_F(LogPluginTest, RefusesASecondOpenerByName) {
  kw_plugin* first = Create();
  kw_plugin* second = Create();
  ASSERT_EQ(first->start(first, &error_), KW_OK);

  EXPECT_EQ(second->start(second, &error_), KW_FAILED_PRECONDITION);
  EXPECT_NE(std::string(error_.text).find(directory_ + "/LOCK: locked"), std::string::npos) << error_.text;

  End(first);
  ASSERT_EQ(second->start(second, &error_), KW_OK) << error_.text;
  End(second);
}

TEST_F(LogPluginTest, RefusesADirectoryThatOthersMayWriteTo) {
  fs::create_directories(directory_);
  fs::permissions(directory_, fs::perms::owner_all | fs::perms::group_write);
  kw_plugin* plugin = Create();

  EXPECT_EQ(plugin->start(plugin, &error_), KW_FAILED_PRECONDITION);

  plugin->destroy(plugin);
}

TEST_F(LogPluginTest, NamesTheFileAndOffsetOfDamage) {
  kw_hard_state hard_state;
  kw_log_bounds bounds;
  kw_plugin* plugin = Create();
  ASSERT_EQ(plugin->start(plugin, &error_), KW_OK);
  ASSERT_EQ(Table(plugin).recover(plugin, &hard_state, &bounds, &error_), KW_OK);
  for (uint64_t i = 1; i <= 5; ++i) ASSERT_EQ(Append(plugin, i, "data"), KW_OK);
  End(plugin);
  std::fstream file(directory_ + "/log-0000000000000001.seg",
                    std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(4096 + 64 + 64);  // The data of the first entry.
  file.put('D');
  file.close();

  plugin = Create();
  ASSERT_EQ(plugin->start(plugin, &error_), KW_OK);
  EXPECT_EQ(Table(plugin).recover(plugin, &hard_state, &bounds, &error_), KW_DATA_LOSS);
  EXPECT_NE(std::string(error_.text).find("log-0000000000000001.seg at offset 4096"), std::string::npos)
      << error_.text;
  End(plugin);
}

}  // namespace
}  // namespace keyway
