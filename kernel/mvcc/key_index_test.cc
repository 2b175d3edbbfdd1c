// SPDX-License-Identifier: Apache-2.0
#include "kernel/mvcc/key_index.h"

#include <gtest/gtest.h>

#include <string>

#include "kernel/mvcc/record_cache.h"

namespace keyway::mvcc {
namespace {

struct Seen {
  bool exists = false;
  int64_t main = 0, create = 0, version = 0;
  friend bool operator==(const Seen&, const Seen&) = default;
};

Seen At(const KeyIndex& index, std::string_view key, int64_t main) {
  VersionInfo info;
  const Item* item = index.Find(key);
  if (item == nullptr || !item->At(main, &info)) return {};
  return {true, info.revision.main, info.create_revision, info.version};
}

std::vector<std::string> KeysOf(const KeyIndex& index, std::string_view key, std::string_view end) {
  std::vector<std::string> keys;
  index.ForEach(key, end, [&](Item* item) {
    keys.emplace_back(item->key());
    return true;
  });
  return keys;
}

void Put(KeyIndex* index, std::string_view key, Revision revision) {
  index->Put(index->FindOrAdd(key), revision, 0);
}

// etcd's own example (server/storage/mvcc/key_index.go): put 1.0, put 2.0, delete 3.0, put 4.0,
// delete 5.0.
class EtcdExample : public testing::Test {
 protected:
  EtcdExample() {
    Put(&index_, "foo", {1, 0});
    Put(&index_, "foo", {2, 0});
    index_.Delete(index_.Find("foo"), {3, 0});
    Put(&index_, "foo", {4, 0});
    index_.Delete(index_.Find("foo"), {5, 0});
  }
  KeyIndex::Compacted Compact(int64_t main, std::vector<Revision>* deleted) {
    return index_.Compact(index_.Find("foo"), main, 100, deleted);
  }
  KeyIndex index_;
};

TEST_F(EtcdExample, EachRevisionSeesItsVersion) {
  EXPECT_EQ(At(index_, "foo", 0), Seen());
  EXPECT_EQ(At(index_, "foo", 1), (Seen{true, 1, 1, 1}));
  EXPECT_EQ(At(index_, "foo", 2), (Seen{true, 2, 1, 2}));
  EXPECT_EQ(At(index_, "foo", 3), Seen());
  EXPECT_EQ(At(index_, "foo", 4), (Seen{true, 4, 4, 1}));
  EXPECT_EQ(At(index_, "foo", 5), Seen());
  EXPECT_EQ(At(index_, "foo", 9), Seen());
  EXPECT_EQ(index_.live_count(), 0u);
}

TEST_F(EtcdExample, CompactsAsEtcdDoes) {
  std::vector<Revision> deleted;

  EXPECT_EQ(Compact(2, &deleted), KeyIndex::Compacted::kDone);
  EXPECT_EQ(deleted, (std::vector<Revision>{{1, 0}}));
  EXPECT_EQ(At(index_, "foo", 2), (Seen{true, 2, 1, 2}));

  deleted.clear();
  EXPECT_EQ(Compact(3, &deleted), KeyIndex::Compacted::kDone);  // The tombstone at 3 stays.
  EXPECT_EQ(deleted, (std::vector<Revision>{{2, 0}}));

  deleted.clear();
  EXPECT_EQ(Compact(4, &deleted), KeyIndex::Compacted::kDone);
  EXPECT_EQ(deleted, (std::vector<Revision>{{3, 0}}));
  EXPECT_EQ(At(index_, "foo", 4), (Seen{true, 4, 4, 1}));

  deleted.clear();
  EXPECT_EQ(Compact(5, &deleted), KeyIndex::Compacted::kDone);
  EXPECT_EQ(deleted, (std::vector<Revision>{{4, 0}}));

  deleted.clear();
  EXPECT_EQ(Compact(6, &deleted), KeyIndex::Compacted::kGone);
  EXPECT_EQ(deleted, (std::vector<Revision>{{5, 0}}));
  index_.Erase(index_.Find("foo"));
  EXPECT_EQ(index_.Find("foo"), nullptr);
  EXPECT_EQ(index_.item_count(), 0u);
}

TEST_F(EtcdExample, CompactsInPieces) {
  std::vector<Revision> deleted;

  EXPECT_EQ(index_.Compact(index_.Find("foo"), 6, 3, &deleted), KeyIndex::Compacted::kMore);
  EXPECT_EQ(deleted, (std::vector<Revision>{{1, 0}, {2, 0}, {3, 0}}));
  EXPECT_EQ(At(index_, "foo", 4), (Seen{true, 4, 4, 1}));  // Untouched so far.
  EXPECT_EQ(index_.Compact(index_.Find("foo"), 6, 3, &deleted), KeyIndex::Compacted::kGone);
  EXPECT_EQ(deleted.size(), 5u);
}

// A transaction may put a key and delete it. A watch that begins at this revision must see both, also after a
// compaction there.
TEST(KeyIndex, AWatchFromACompactionSeesAllThatItsRevisionDid) {
  for (const bool is_newest : {true, false}) {
    KeyIndex index;
    Put(&index, "foo", {1, 0});
    Put(&index, "foo", {2, 0});
    index.Delete(index.Find("foo"), {2, 1});
    if (!is_newest) Put(&index, "foo", {4, 0});
    std::vector<Revision> deleted;
    EXPECT_EQ(index.Compact(index.Find("foo"), 2, 100, &deleted), KeyIndex::Compacted::kDone);
    EXPECT_EQ(deleted, (std::vector<Revision>{{1, 0}}));
    deleted.clear();
    EXPECT_EQ(index.Compact(index.Find("foo"), 3, 100, &deleted),
              is_newest ? KeyIndex::Compacted::kGone : KeyIndex::Compacted::kDone);
    EXPECT_EQ(deleted, (std::vector<Revision>{{2, 0}, {2, 1}}));
  }
}

TEST(KeyIndex, OneRevisionMayDeleteAndPutAKey) {
  KeyIndex index;
  Put(&index, "k", {2, 0});
  index.Delete(index.Find("k"), {3, 0});
  Put(&index, "k", {3, 1});

  EXPECT_EQ(At(index, "k", 2), (Seen{true, 2, 2, 1}));
  EXPECT_EQ(At(index, "k", 3), (Seen{true, 3, 3, 1}));
}

TEST(KeyIndex, RangesInKeyOrder) {
  KeyIndex index;
  int64_t main = 1;
  for (const char* key : {"b", "a", "c", "ab", "\xff"}) Put(&index, key, {++main, 0});
  const std::string zero(1, '\0');

  EXPECT_EQ(KeysOf(index, "a", "c"), (std::vector<std::string>{"a", "ab", "b"}));
  EXPECT_EQ(KeysOf(index, "b", zero), (std::vector<std::string>{"b", "c", "\xff"}));
  EXPECT_EQ(KeysOf(index, zero, zero).size(), 5u);
  EXPECT_EQ(KeysOf(index, "b", ""), (std::vector<std::string>{"b"}));
  EXPECT_TRUE(KeysOf(index, "x", "").empty());
  EXPECT_TRUE(KeysOf(index, "c", "a").empty());
  EXPECT_TRUE(KeysOf(index, "a", "a").empty());
}

TEST(KeyIndex, RestoresWithoutTheVersionsThatWereCompacted) {
  KeyIndex index;
  index.Restore("k", {7, 0}, {.key = "k", .create_revision = 2, .mod_revision = 7, .version = 5});
  index.Restore("k", {9, 1}, {.key = "k", .create_revision = 2, .mod_revision = 9, .version = 6});
  index.Restore("gone", {4, 0}, {.key = "gone", .mod_revision = 4});

  EXPECT_EQ(At(index, "k", 8), (Seen{true, 7, 2, 5}));
  EXPECT_EQ(At(index, "k", 9), (Seen{true, 9, 2, 6}));
  EXPECT_EQ(At(index, "gone", 9), Seen());
  EXPECT_EQ(index.live_count(), 1u);

  Put(&index, "gone", {10, 0});
  EXPECT_EQ(At(index, "gone", 10), (Seen{true, 10, 10, 1}));
  EXPECT_EQ(At(index, "gone", 9), Seen());
}

TEST(KeyIndex, AccountsForItsMemory) {
  KeyIndex index;
  size_t empty = index.memory_bytes();
  for (int64_t main = 2; main < 102; ++main) Put(&index, "k", {main, 0});
  size_t full = index.memory_bytes();
  std::vector<Revision> deleted;
  index.Compact(index.Find("k"), 101, 1000, &deleted);

  EXPECT_EQ(deleted.size(), 99u);
  EXPECT_GT(full, empty + 99 * 16);
  EXPECT_LT(index.memory_bytes(), empty + 200);
}

TEST(RecordCache, KeepsWhatIsReadAndStaysInItsBound) {
  KeyIndex index;
  RecordCache cache(10 * 132);  // Ten records of 100 bytes.
  for (int i = 0; i < 50; ++i) {
    std::string key = std::to_string(100 + i);
    Put(&index, key, {i + 2, 0});
    if (i > 0) index.Find("100")->MarkUsed();
    cache.Insert(index.Find(key), SharedBytes::Copy(std::string(100, 'r')), /*used=*/false);
    EXPECT_LE(cache.bytes(), 10u * 132);
  }

  EXPECT_EQ(cache.count(), 10u);
  EXPECT_TRUE(index.Find("100")->record().has_value());
  EXPECT_TRUE(index.Find("149")->record().has_value());
  EXPECT_FALSE(index.Find("120")->record().has_value());
}

TEST(RecordCache, TakesNoRecordLargerThanItself) {
  KeyIndex index;
  RecordCache cache(1000);
  Put(&index, "k", {2, 0});
  cache.Insert(index.Find("k"), SharedBytes::Copy("small"), true);
  cache.Insert(index.Find("k"), SharedBytes::Copy(std::string(2000, 'r')), true);

  EXPECT_FALSE(index.Find("k")->record().has_value());  // Nor does it keep the old one.
  EXPECT_EQ(cache.bytes(), 0u);
}

}  // namespace
}  // namespace keyway::mvcc
