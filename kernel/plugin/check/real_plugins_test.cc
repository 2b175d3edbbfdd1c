// SPDX-License-Identifier: Apache-2.0
//
// No false alarm: the real engine and the real log under random use at level full.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <map>
#include <random>

#include "kernel/base/bytes.h"
#include "kernel/plugin/check/checked_log.h"
#include "kernel/plugin/check/checked_store.h"
#include "kernel/plugin/tables.h"
#include "keyway/crc32c.h"

extern "C" const kw_entry* kw_plugin_entry_storage_lmdb(void);
extern "C" const kw_entry* kw_plugin_entry_log_segmented(void);

namespace keyway::check {
namespace {

NullLogger logger;
constexpr uint64_t kSeed = 20261126;

// A started instance in a directory of its own.
class Instance {
 public:
  explicit Instance(const kw_entry* entry) {
    host_.size = sizeof host_;
    host_.get = [](const kw_host*, const char*) -> const void* { return nullptr; };
    char path[] = "/tmp/keyway-check-XXXXXX";
    directory_ = mkdtemp(path);
    const kw_config_item items[] = {{"dir", ToSlice(directory_), 0, 0}};
    kw_error error{sizeof(kw_error)};
    EXPECT_EQ(entry->plugins[0]->create(&host_, items, 1, &plugin, &error), KW_OK) << error.text;
    EXPECT_EQ(plugin->start(plugin, &error), KW_OK) << error.text;
  }
  ~Instance() {
    plugin->destroy(plugin);
    [[maybe_unused]] const int result = system(("rm -rf " + directory_).c_str());
  }
  kw_plugin* plugin = nullptr;

 private:
  kw_host host_{};
  std::string directory_;
};

TEST(RealStore, IsNotCondemned) {
  thread_role = ThreadRole::kControl;
  Instance instance(kw_plugin_entry_storage_lmdb());
  kw_kv_store table;
  ASSERT_TRUE(CompleteTable(instance.plugin->get(instance.plugin, KW_KV_STORE), &table).ok());
  CheckedStore checked(Subject::Make("storage-lmdb", Level::kFull, &logger), instance.plugin, table);
  const kw_kv_store& store = checked.table();
  std::map<std::string, std::string> model;
  std::mt19937_64 random(kSeed);
  kw_error error{sizeof(kw_error)};
  for (int round = 0; round < 400; ++round) {
    std::vector<std::string> texts(64);
    std::vector<kw_kv_op> ops;
    for (size_t i = 0; i < 16; ++i) {
      std::string& key = texts[2 * i] = "key" + std::to_string(random() % 300);
      std::string& value = texts[2 * i + 1] = std::string(random() % 3000, static_cast<char>('a' + i));
      const uint64_t kind = random() % 20;
      if (kind == 0) {
        value = key + "5";
        ops.push_back({KW_KV_DELETE_RANGE, 1, ToSlice(key), ToSlice(value)});
        model.erase(model.lower_bound(key), model.lower_bound(value));
      } else if (kind < 4) {
        ops.push_back({KW_KV_DELETE, 1, ToSlice(key), {}});
        model.erase(key);
      } else {
        ops.push_back({KW_KV_PUT, 1, ToSlice(key), ToSlice(value)});
        model[key] = value;
      }
    }
    ASSERT_EQ(store.write(checked.plugin(), ops.data(), ops.size(), &error), KW_OK);
    if (round % 20 != 0) continue;
    kw_kv_view* view = nullptr;
    kw_kv_cursor* cursor = nullptr;
    ASSERT_EQ(store.view_open(checked.plugin(), &view, &error), KW_OK);
    const uint32_t is_descending = round % 40 == 0;
    ASSERT_EQ(store.cursor_open(checked.plugin(), view, 1, ToSlice("k"), {}, is_descending, &cursor, &error),
              KW_OK);
    size_t all = 0, count = 0;
    do {
      kw_kv_pair pairs[10];
      ASSERT_EQ(store.cursor_next(checked.plugin(), cursor, pairs, 10, &count, &error), KW_OK);
      for (size_t i = 0; i < count; ++i) {
        const std::string key(ToView(pairs[i].key));
        EXPECT_EQ(ToView(pairs[i].value), model[key]) << "seed " << kSeed;
        const kw_slice asked = ToSlice(key);
        kw_slice value{};
        ASSERT_EQ(store.get(checked.plugin(), view, 1, &asked, 1, &value, &error), KW_OK);
      }
      all += count;
    } while (count == 10);
    EXPECT_EQ(all, model.size());
    store.cursor_close(checked.plugin(), cursor);
    store.view_close(checked.plugin(), view);
    ASSERT_EQ(store.sync(checked.plugin(), &error), KW_OK);
  }
  instance.plugin->stop(instance.plugin);
  checked.CheckStopped();
}

TEST(RealLog, IsNotCondemned) {
  thread_role = ThreadRole::kControl;
  Instance instance(kw_plugin_entry_log_segmented());
  kw_log_store table;
  ASSERT_TRUE(CompleteTable(instance.plugin->get(instance.plugin, KW_LOG_STORE), &table).ok());
  CheckedLog checked(Subject::Make("log-segmented", Level::kFull, &logger), instance.plugin, table);
  const kw_log_store& log = checked.table();
  kw_error error{sizeof(kw_error)};
  kw_hard_state state{};
  kw_log_bounds bounds{};
  ASSERT_EQ(log.recover(checked.plugin(), &state, &bounds, &error), KW_OK);
  std::mt19937_64 random(kSeed);
  static std::atomic<int> fired;
  fired = 0;
  std::vector<std::unique_ptr<kw_completion>> completions;
  const auto completion = [&] {
    completions.push_back(std::make_unique<kw_completion>());
    completions.back()->done = [](kw_completion*, int32_t code, const kw_error*) {
      EXPECT_EQ(code, KW_OK);
      fired.fetch_add(1);
    };
    return completions.back().get();
  };
  uint64_t first = 1, last = 0, term = 1;
  for (int round = 0; round < 3000; ++round) {
    const uint64_t kind = random() % 100;
    if (kind == 0 && last > first + 20) {
      first += random() % 10;
      ASSERT_EQ(log.truncate_prefix(checked.plugin(), first, completion()), KW_PENDING);
    } else if (kind == 1 && round > 1000) {
      last += 5;
      first = last + 1;
      ASSERT_EQ(log.reset(checked.plugin(), last, term, completion()), KW_PENDING);
    } else {
      // Sometimes over the last entries, as a new leader does.
      uint64_t begin = last + 1;
      if (kind < 6 && last > first + 5) {
        begin -= random() % 4;
        ++term;
      }
      std::vector<std::string> data;
      std::vector<kw_log_entry> entries;
      for (size_t i = 0; i < 1 + random() % 4; ++i) data.emplace_back(random() % 500, 'x');
      for (const std::string& each : data) {
        entries.push_back({begin, term, 1, kw_crc32c(0, each.data(), each.size()), ToSlice(each)});
        ++begin;
      }
      last = begin - 1;
      int32_t code = log.try_append(checked.plugin(), entries.data(), entries.size(), nullptr, completion());
      if (code == KW_UNAVAILABLE) {
        completions.pop_back();
        code = log.append(checked.plugin(), entries.data(), entries.size(), nullptr, completion());
      }
      ASSERT_EQ(code, KW_PENDING);
    }
    if (kind > 90 && last >= first) {
      kw_log_batch* batch = nullptr;
      const int32_t code = log.read(checked.plugin(), first, last + 1, 1 << 20, &batch, &error);
      if (code == KW_OK) batch->release(batch);
    }
  }
  checked.BeforeStop();
  instance.plugin->stop(instance.plugin);
  checked.CheckStopped();
  EXPECT_EQ(fired.load(), static_cast<int>(completions.size())) << "seed " << kSeed;
}

}  // namespace
}  // namespace keyway::check
