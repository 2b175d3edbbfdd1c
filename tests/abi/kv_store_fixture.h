// SPDX-License-Identifier: Apache-2.0
//
// The engines under test, and a store of one of them in a directory of its own.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <ostream>

#include "kv_store_client.h"

namespace keyway::test {

namespace fs = std::filesystem;

struct Subject {
  const char* name;
  const char* engine;
  Settings settings;
};
inline void PrintTo(const Subject& subject, std::ostream* out) { *out << subject.name; }

class KvStoreTest : public ::testing::TestWithParam<Subject> {
 protected:
  KvStoreTest() {
    char name[] = "/tmp/keyway-kv-XXXXXX";
    root_ = ::mkdtemp(name);
    directory_ = root_ + "/store";
  }
  ~KvStoreTest() override {
    store_.Stop();
    fs::remove_all(root_);
  }
  const kw_descriptor* engine() const { return FindEngine(GetParam().engine); }
  Settings SettingsOf(const std::string& directory) const {
    Settings settings = GetParam().settings;
    settings.emplace_back("dir", directory);
    return settings;
  }
  int32_t Open() { return store_.Open(engine(), SettingsOf(directory_)); }
  void ExpectEqual(kw_kv_view* view, const Model& model) {
    for (uint32_t table = 0; table < KW_KV_TABLE_COUNT; ++table) {
      const auto found = model.find(table);
      const Table expected = found == model.end() ? Table() : found->second;
      ASSERT_EQ(store_.Scan(view, table), Pairs(expected.begin(), expected.end())) << "table " << table;
      ASSERT_EQ(store_.code, KW_OK) << store_.error.text;
    }
  }
  void ExpectEqual(const Model& model) {
    kw_kv_view* view = store_.OpenView();
    ASSERT_NE(view, nullptr) << store_.error.text;
    ExpectEqual(view, model);
    store_.CloseView(view);
  }

  std::string root_, directory_;
  Store store_;
};

// A new engine is one more line here.
inline auto Engines() {
  return ::testing::Values(
      Subject{"lmdb", "storage-lmdb", {{"map_size", "1048576"}}},
      Subject{"rocksdb", "storage-rocksdb", {{"write_buffer", "1048576"}}},
      Subject{"rocksdb_wal", "storage-rocksdb", {{"write_buffer", "1048576"}, {"wal", "true"}}});
}
inline std::string NameOf(const ::testing::TestParamInfo<Subject>& info) { return info.param.name; }

}  // namespace keyway::test
