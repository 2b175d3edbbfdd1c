// SPDX-License-Identifier: Apache-2.0
#include "kernel/mvcc/record.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace keyway::mvcc {
namespace {

// The bytes that etcd stores for this pair (mvccpb.KeyValue).
TEST(Record, HasTheWireFormOfKeyValue) {
  SharedBytes record = EncodeRecord(
      {.key = "foo", .value = "bar", .create_revision = 2, .mod_revision = 300, .version = 1, .lease = 7});

  EXPECT_EQ(record.view(), std::string("\x0a\x03"
                                       "foo\x10\x02\x18\xac\x02\x20\x01\x2a\x03"
                                       "bar\x30\x07"));
}

TEST(Record, LeavesOutZeros) {
  EXPECT_EQ(EncodeRecord({.key = "k", .mod_revision = 5}).view(), std::string("\x0a\x01k\x18\x05"));
}

TEST(Record, ReadsBackWhatItWrote) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  std::string value(70000, 'v');
  for (int64_t number : {int64_t{1}, int64_t{127}, int64_t{128}, int64_t{1} << 40, kMax}) {
    SharedBytes record = EncodeRecord({.key = std::string("a\0b", 3),
                                       .value = value,
                                       .create_revision = number,
                                       .mod_revision = number,
                                       .version = number,
                                       .lease = number});
    RecordFields fields;

    ASSERT_TRUE(DecodeRecord(record.view(), &fields));
    EXPECT_EQ(fields.key, std::string("a\0b", 3));
    EXPECT_EQ(fields.value, value);
    EXPECT_EQ(fields.create_revision, number);
    EXPECT_EQ(fields.mod_revision, number);
    EXPECT_EQ(fields.version, number);
    EXPECT_EQ(fields.lease, number);
    EXPECT_EQ(RecordKey(record.view()), fields.key);
  }
}

TEST(Record, RefusesEveryCutAndUnknownFields) {
  SharedBytes record = EncodeRecord({.key = "key",
                                     .value = "value",
                                     .create_revision = 400,
                                     .mod_revision = 400,
                                     .version = 1,
                                     .lease = 900});
  // A cut between fields leaves a shorter message that is well-formed, once key and mod_revision are in.
  int accepted = 0;
  for (size_t size = 0; size < record.size(); ++size) {
    RecordFields fields;
    if (DecodeRecord(record.view().substr(0, size), &fields)) ++accepted;
  }
  RecordFields fields;

  EXPECT_EQ(accepted, 3);  // After mod_revision, version and value.
  EXPECT_FALSE(DecodeRecord(std::string(record.view()) + "\x38\x01", &fields));
  EXPECT_FALSE(DecodeRecord("", &fields));
}

TEST(RevisionKey, SortsAsTheRevisionsDo) {
  std::string before;
  for (Revision revision : {Revision{1, 0}, Revision{1, 1}, Revision{1, 256}, Revision{2, 0},
                            Revision{255, 3}, Revision{256, 0}, Revision{int64_t{1} << 40, 0}}) {
    std::string key(kRevisionKeyBytes, '\0');
    EncodeRevisionKey(revision, key.data());
    EXPECT_LT(before, key);
    EXPECT_EQ(DecodeRevisionKey(key), revision);
    before = key;
  }
}

}  // namespace
}  // namespace keyway::mvcc
