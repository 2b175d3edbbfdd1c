// SPDX-License-Identifier: Apache-2.0
#include "kernel/core/state_digest.h"

#include <gtest/gtest.h>

namespace keyway::core {
namespace {

TEST(StateDigest, DoesNotDependOnTheOrder) {
  StateDigest forth, back;
  for (int64_t i = 1; i <= 100; ++i) forth.Add({i, 0, static_cast<uint32_t>(i * 77)});
  for (int64_t i = 100; i >= 1; --i) back.Add({i, 0, static_cast<uint32_t>(i * 77)});
  EXPECT_EQ(forth.value(), back.value());
  for (int64_t i = 1; i <= 100; ++i) forth.Remove({i, 0, static_cast<uint32_t>(i * 77)});
  EXPECT_EQ(forth.value(), 0u);
}

TEST(StateDigest, ARecordCountsTheSameByRevisionAndByItsBytes) {
  StateDigest by_revision, by_bytes;
  char key[mvcc::kRevisionKeyBytes];
  mvcc::EncodeRevisionKey({7, 3}, key);
  by_revision.Add({7, 3, kw_crc32c(0, "record", 6)});
  by_bytes.Add(kTableRevisions, {key, sizeof key}, "record");
  EXPECT_EQ(by_revision.value(), by_bytes.value());
}

TEST(StateDigest, TellsEverythingApart) {
  const auto digest = [](uint32_t table, std::string_view key, std::string_view value) {
    StateDigest one;
    one.Add(table, key, value);
    return one.value();
  };
  const uint64_t base = digest(2, "key", "value");
  EXPECT_NE(base, digest(3, "key", "value"));
  EXPECT_NE(base, digest(2, "kex", "value"));
  EXPECT_NE(base, digest(2, std::string_view("key\0", 4), "value"));
  EXPECT_NE(base, digest(2, "key", "valux"));
  StateDigest pair, swapped;
  pair.Add(2, "a", "1");
  pair.Add(2, "b", "2");
  swapped.Add(2, "a", "2");
  swapped.Add(2, "b", "1");
  EXPECT_NE(pair.value(), swapped.value());
}

}  // namespace
}  // namespace keyway::core
