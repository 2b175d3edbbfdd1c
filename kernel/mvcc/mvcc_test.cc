// SPDX-License-Identifier: Apache-2.0
//
// etcd's semantics, quirk by quirk. Answers marked "seen" are those of etcd 3.7.1 to the same requests.
#include <gtest/gtest.h>

#include "kernel/mvcc/test_support.h"

namespace keyway::mvcc {
namespace {

using Keys = std::vector<std::string>;

TxnBuilder Txn() { return TxnBuilder(); }

class MvccTest : public testing::Test {
 protected:
  Outcome Try(const TxnBuilder& builder, bool want_prev = false) {
    reply_.reset(Reply::New());
    kw_txn txn = builder.txn();
    EXPECT_TRUE(Mvcc::CheckTxn(txn, false, 128).ok());
    std::vector<Revision> missing;
    mvcc_.MissingForTxn(txn, want_prev, &missing);
    EXPECT_TRUE(missing.empty());
    return mvcc_.ApplyTxn(txn, want_prev, reply_.get());
  }
  const kw_reply& Run(const TxnBuilder& builder, bool want_prev = false) {
    EXPECT_TRUE(Try(builder, want_prev).ok());
    return *reply_;
  }
  void Put(std::string_view key, std::string_view value = "") { Run(Txn().Put(key, value)); }
  void Delete(std::string_view key) { Run(Txn().Delete(key)); }

  Outcome TryRange(std::string_view key, std::string_view end, kw_range range = {}) {
    range.key = ToSlice(key);
    range.end = ToSlice(end);
    reply_.reset(Reply::New());
    RangeReader reader(&mvcc_, range, reply_.get());
    RangeReader::Progress progress = reader.Step(2);
    while (progress == RangeReader::Progress::kMore) progress = reader.Step(2);
    EXPECT_EQ(progress, RangeReader::Progress::kDone);
    return reader.outcome();
  }
  const kw_op_result& Range(std::string_view key, std::string_view end, kw_range range = {}) {
    EXPECT_TRUE(TryRange(key, end, range).ok());
    return reply_->results[0];
  }
  bool More() const { return (reply_->results[0].flags & KW_RESULT_MORE) != 0; }

  // b=9, c=1, d=5, e=3, and e three times more: revisions 2 to 8.
  void FillFour() {
    Put("b", "9");
    Put("c", "1");
    Put("d", "5");
    Put("e", "3");
    for (int i = 0; i < 3; ++i) Put("e", "0");
  }

  FakeLeases leases_;
  Mvcc mvcc_{Options(), &leases_};
  ReplyPtr reply_;
};

TEST_F(MvccTest, AnEmptyStoreIsAtRevisionOne) {
  EXPECT_EQ(mvcc_.revision(), 1);
  EXPECT_EQ(Range("a", "").count, 0);
  EXPECT_EQ(reply_->revision, 1);
  EXPECT_EQ(mvcc_.recent_from(), 2);
}

TEST_F(MvccTest, AKeyCountsItsVersionsAndStartsAnewAfterADelete) {
  Put("k", "1");
  Put("k", "2");
  EXPECT_EQ(ToPairs(Range("k", "")), (std::vector<Pair>{{"k", "2", 2, 3, 2, 0}}));
  EXPECT_EQ(reply_->results[0].count, 1);
  Delete("k");
  EXPECT_EQ(Range("k", "").record_count, 0u);
  EXPECT_EQ(reply_->revision, 4);
  Put("k", "3");
  EXPECT_EQ(ToPairs(Range("k", "")), (std::vector<Pair>{{"k", "3", 5, 5, 1, 0}}));
  EXPECT_EQ(ToPairs(Range("k", "", {.revision = 3})), (std::vector<Pair>{{"k", "2", 2, 3, 2, 0}}));
  EXPECT_EQ(reply_->revision, 5);  // The current one, not the requested.
  EXPECT_EQ(Range("k", "", {.revision = 4}).record_count, 0u);
}

TEST_F(MvccTest, DeletingNothingKeepsTheRevision) {
  EXPECT_EQ(Run(Txn().Delete("nope")).revision, 1);
  EXPECT_EQ(reply_->results[0].count, 0);
  EXPECT_TRUE(mvcc_.TakeChanges().empty());
}

TEST_F(MvccTest, OneTxnIsOneRevisionWithASubForEachKey) {
  Run(Txn().Put("a", "").Put("b", ""));
  EXPECT_EQ(Run(Txn().Put("c", "").Delete("a", "c").Range("a")).revision, 3);

  std::vector<Change> changes = mvcc_.TakeChanges();
  ASSERT_EQ(changes.size(), 5u);
  EXPECT_EQ(changes[1].revision, (Revision{2, 1}));
  EXPECT_EQ(changes[2].revision, (Revision{3, 0}));
  EXPECT_EQ(changes[4].revision, (Revision{3, 2}));
  EXPECT_EQ(changes[4].kind, uint32_t{KW_EVENT_DELETE});
  EXPECT_EQ(ToPair(changes[4].record.view()), (Pair{.key = "b", .mod = 3}));
  EXPECT_EQ(changes[4].prev_revision, (Revision{2, 1}));
  EXPECT_TRUE(mvcc_.TakeChanges().empty());
  EXPECT_EQ(mvcc_.recent().size(), 5u);
}

// ---- ranges ----

TEST_F(MvccTest, CountIgnoresLimitAndFilters) {
  FillFour();
  struct {
    kw_range range;
    Keys keys;
    bool more;
  } cases[] = {
      {{}, {"b", "c", "d", "e"}, false},
      {{.limit = 4}, {"b", "c", "d", "e"}, false},
      {{.limit = 3}, {"b", "c", "d"}, true},
      {{.limit = -1}, {"b", "c", "d", "e"}, false},
      {{.limit = 1, .mod_min = 4}, {"d"}, true},
      {{.limit = 1, .mod_min = 8}, {"e"}, false},
      {{.mod_max = 4}, {"b", "c", "d"}, false},
      {{.create_min = 3, .create_max = 4}, {"c", "d"}, false},
      {{.mod_max = -1}, {}, false},
  };
  for (const auto& c : cases) {
    const kw_op_result& result = Range("b", "z", c.range);
    EXPECT_EQ(KeysOf(result), c.keys);
    EXPECT_EQ(result.count, 4);
    EXPECT_EQ(More(), c.more);
  }
}

TEST_F(MvccTest, SortsAsEtcdDoes) {
  FillFour();
  struct {
    uint8_t target, order;
    int64_t limit, mod_max;
    Keys keys;
    bool more;
  } cases[] = {
      {KW_SORT_KEY, KW_ORDER_ASCEND, 2, 0, {"b", "c"}, true},
      {KW_SORT_KEY, KW_ORDER_DESCEND, 2, 0, {"e", "d"}, true},
      {KW_SORT_KEY, KW_ORDER_DESCEND, 0, 0, {"e", "d", "c", "b"}, false},
      {KW_SORT_VALUE, KW_ORDER_ASCEND, 0, 0, {"e", "c", "d", "b"}, false},
      {KW_SORT_VALUE, KW_ORDER_DESCEND, 1, 0, {"b"}, true},
      {KW_SORT_MOD, KW_ORDER_DESCEND, 0, 0, {"e", "d", "c", "b"}, false},
      {KW_SORT_CREATE, KW_ORDER_ASCEND, 3, 0, {"b", "c", "d"}, true},
      // Seen: equal sort values keep key order, descending too.
      {KW_SORT_VERSION, KW_ORDER_DESCEND, 3, 0, {"e", "b", "c"}, true},
      // Seen: no order, so the window of limit + 1 = 3 keys is cut first: b, c, d; then sorted.
      {KW_SORT_VALUE, KW_ORDER_NONE, 2, 0, {"c", "d"}, true},
      // Seen: with a filter the limit comes last even so.
      {KW_SORT_VALUE, KW_ORDER_NONE, 2, 1000, {"e", "c"}, true},
  };
  for (const auto& c : cases) {
    kw_range range{.limit = c.limit, .mod_max = c.mod_max, .sort_target = c.target, .sort_order = c.order};
    const kw_op_result& result = Range("b", "z", range);
    EXPECT_EQ(KeysOf(result), c.keys) << int{c.target} << " " << int{c.order} << " " << c.limit;
    EXPECT_EQ(result.count, 4);
    EXPECT_EQ(More(), c.more);
  }
}

TEST_F(MvccTest, KeysOnlyHasNoValueAndNoLease) {
  leases_.leases.insert(7);
  Run(Txn().Put("k", "value", 0, 7));
  kw_range range{.flags = KW_RANGE_KEYS_ONLY};

  EXPECT_EQ(ToPairs(Range("k", "", range)), (std::vector<Pair>{{"k", "", 2, 2, 1, 0}}));
  range.sort_target = KW_SORT_VALUE;  // Then the records are read, and only the value goes.
  EXPECT_EQ(ToPairs(Range("k", "", range)), (std::vector<Pair>{{"k", "", 2, 2, 1, 7}}));
}

TEST_F(MvccTest, CountOnlyHasNoPairsAndNoMore) {
  FillFour();
  const kw_op_result& result = Range("b", "z", {.limit = 1, .flags = KW_RANGE_COUNT_ONLY});
  EXPECT_EQ(result.count, 4);
  EXPECT_EQ(result.record_count, 0u);
  EXPECT_FALSE(More());
}

TEST_F(MvccTest, WithoutACountMoreIsStillExact) {
  FillFour();
  EXPECT_EQ(KeysOf(Range("b", "z", {.limit = 3, .flags = KW_RANGE_NO_COUNT})).size(), 3u);
  EXPECT_TRUE(More());
  EXPECT_EQ(KeysOf(Range("b", "z", {.limit = 4, .flags = KW_RANGE_NO_COUNT})).size(), 4u);
  EXPECT_FALSE(More());
}

TEST_F(MvccTest, RangeEndsAreEtcds) {
  FillFour();
  EXPECT_EQ(Range("c", AllKeys()).count, 3);
  EXPECT_EQ(Range(AllKeys(), AllKeys()).count, 4);
  EXPECT_EQ(Range("c", "c").count, 0);
  EXPECT_EQ(Range("d", "b").count, 0);
  EXPECT_EQ(Range("c", "d").count, 1);
}

TEST_F(MvccTest, RevisionsOutOfBoundsFail) {
  FillFour();
  EXPECT_EQ(TryRange("b", "", {.revision = 9}), Failure(KW_DETAIL_FUTURE_REVISION));
  EXPECT_TRUE(TryRange("b", "", {.revision = -2}).ok());  // Seen: as the latest.
  ASSERT_TRUE(mvcc_.ApplyCompact(5).ok());
  EXPECT_EQ(TryRange("b", "", {.revision = 4}), Failure(KW_DETAIL_COMPACTED));
  EXPECT_EQ(KeysOf(Range("b", "z", {.revision = 5})), (Keys{"b", "c", "d", "e"}));
}

// ---- puts ----

TEST_F(MvccTest, PutGivesThePreviousPair) {
  Run(Txn().Put("k", "1", KW_PUT_PREV_KV));
  EXPECT_EQ(reply_->results[0].record_count, 0u);
  Run(Txn().Put("k", "2", KW_PUT_PREV_KV));
  EXPECT_EQ(ToPairs(reply_->results[0]), (std::vector<Pair>{{"k", "1", 2, 2, 1, 0}}));
}

TEST_F(MvccTest, LeasesAreAttachedReplacedAndDetached) {
  leases_.leases = {7, 8};
  EXPECT_EQ(Try(Txn().Put("k", "", 0, 9)), Failure(KW_DETAIL_LEASE_NOT_FOUND));
  Run(Txn().Put("k", "", 0, 7));
  EXPECT_EQ(leases_.attached["k"], 7);
  Run(Txn().Put("k", "", 0, 8));
  EXPECT_EQ(leases_.attached["k"], 8);
  Run(Txn().Put("k", "v", KW_PUT_IGNORE_LEASE));
  EXPECT_EQ(ToPairs(Range("k", ""))[0].lease, 8);
  Put("k", "w");
  EXPECT_TRUE(leases_.attached.empty());
  Run(Txn().Put("k", "", 0, 7));
  Delete("k");
  EXPECT_TRUE(leases_.attached.empty());
  EXPECT_EQ(leases_.errors, 0);
}

TEST_F(MvccTest, IgnoreValueKeepsItAndNeedsTheKey) {
  EXPECT_EQ(Try(Txn().Put("k", "", KW_PUT_IGNORE_VALUE)), Failure(KW_DETAIL_KEY_NOT_FOUND));
  EXPECT_EQ(Try(Txn().Put("k", "", KW_PUT_IGNORE_LEASE)), Failure(KW_DETAIL_KEY_NOT_FOUND));
  Put("k", "kept");
  Run(Txn().Put("k", "", KW_PUT_IGNORE_VALUE));
  EXPECT_EQ(ToPairs(Range("k", "")), (std::vector<Pair>{{"k", "kept", 2, 3, 2, 0}}));
}

// ---- transactions ----

TEST_F(MvccTest, ComparesAsEtcdDoes) {
  leases_.leases = {7};
  Put("a", "m");
  Run(Txn().Put("b", "n", 0, 7));
  Put("b", "n");
  struct {
    const char* key;
    const char* end;
    uint32_t target, relation;
    int64_t number;
    bool holds;
  } cases[] = {
      {"a", "", KW_CMP_VERSION, KW_CMP_EQUAL, 1, true},
      {"a", "", KW_CMP_VERSION, KW_CMP_NOT_EQUAL, 1, false},
      {"b", "", KW_CMP_VERSION, KW_CMP_GREATER, 1, true},
      {"b", "", KW_CMP_CREATE, KW_CMP_LESS, 4, true},
      {"b", "", KW_CMP_MOD, KW_CMP_EQUAL, 4, true},
      {"b", "", KW_CMP_LEASE, KW_CMP_EQUAL, 0, true},
      {"none", "", KW_CMP_MOD, KW_CMP_EQUAL, 0, true},
      {"none", "", KW_CMP_CREATE, KW_CMP_GREATER, 0, false},
      {"a", "z", KW_CMP_VERSION, KW_CMP_GREATER, 0, true},
      {"a", "z", KW_CMP_VERSION, KW_CMP_EQUAL, 1, false},
      {"x", "z", KW_CMP_VERSION, KW_CMP_EQUAL, 0, true},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(Run(Txn().If(c.key, c.target, c.relation, c.number, c.end)).succeeded, c.holds ? 1u : 0u)
        << c.key << " " << c.target << " " << c.relation;
  }
  EXPECT_EQ(Run(Txn().IfValue("a", KW_CMP_EQUAL, "m")).succeeded, 1u);
  EXPECT_EQ(Run(Txn().IfValue("a", KW_CMP_GREATER, "l", "c")).succeeded, 1u);
  EXPECT_EQ(Run(Txn().IfValue("a", KW_CMP_LESS, "n", "c")).succeeded, 0u);
  // A value that does not exist: false, whatever the relation.
  for (uint32_t relation : {KW_CMP_EQUAL, KW_CMP_GREATER, KW_CMP_LESS, KW_CMP_NOT_EQUAL}) {
    EXPECT_EQ(Run(Txn().IfValue("none", relation, "")).succeeded, 0u);
  }
  EXPECT_EQ(Run(Txn()).succeeded, 1u);
  EXPECT_EQ(mvcc_.revision(), 4);
}

TEST_F(MvccTest, RangesSeeTheOpsBeforeThem) {
  FillFour();
  kw_range two{.limit = 2};
  Run(Txn()
          .Put("r", "1")
          .Range("r")
          .Range("b", "e", {.flags = KW_RANGE_COUNT_ONLY})
          .Delete("b")
          .Range("b", "z", two)
          .Range("b", "", {.revision = 8}));

  EXPECT_EQ(ToPairs(reply_->results[1]), (std::vector<Pair>{{"r", "1", 9, 9, 1, 0}}));
  EXPECT_EQ(reply_->results[2].count, 3);
  EXPECT_EQ(reply_->results[3].count, 1);
  EXPECT_EQ(KeysOf(reply_->results[4]), (Keys{"c", "d"}));
  EXPECT_EQ(reply_->results[4].count, 4);
  EXPECT_EQ(reply_->results[4].flags, uint32_t{KW_RESULT_MORE});
  EXPECT_EQ(KeysOf(reply_->results[5]), (Keys{"b"}));  // At a revision before the txn.
}

TEST_F(MvccTest, NestedComparesDoNotSeeWhatTheTxnWrites) {
  Run(Txn().Put("n", "1").Nested(
      Txn().If("n", KW_CMP_CREATE, KW_CMP_EQUAL, 0).Put("n2", "yes").Else().Put("n2", "no")));

  EXPECT_EQ(reply_->results[1].kind, uint32_t{KW_OP_TXN});
  EXPECT_EQ(reply_->results[1].flags, uint32_t{KW_RESULT_SUCCEEDED});
  EXPECT_EQ(reply_->results[1].nested_count, 1u);
  EXPECT_EQ(ToPairs(Range("n2", ""))[0].value, "yes");
  EXPECT_EQ(mvcc_.revision(), 2);
}

TEST_F(MvccTest, AFailedTxnChangesNothing) {
  leases_.leases = {7};
  Put("k", "1");
  Outcome lease_not_found = Failure(KW_DETAIL_LEASE_NOT_FOUND);
  EXPECT_EQ(Try(Txn().Put("a", "").Range("a", "", {.revision = 100})), Failure(KW_DETAIL_FUTURE_REVISION));
  EXPECT_EQ(Try(Txn().Put("a", "", 0, 7).Put("b", "", 0, 9)), lease_not_found);
  EXPECT_EQ(Try(Txn().Delete("k").Nested(Txn().Put("b", "", 0, 9))), lease_not_found);
  EXPECT_EQ(Try(Txn().Put("a", "").Put("none", "", KW_PUT_IGNORE_VALUE)), Failure(KW_DETAIL_KEY_NOT_FOUND));
  // Only the branch that runs is checked.
  EXPECT_TRUE(Try(Txn().Range("k").Else().Put("b", "", 0, 9)).ok());

  EXPECT_EQ(mvcc_.revision(), 2);
  EXPECT_TRUE(leases_.attached.empty());
  EXPECT_EQ(Range("a", "z").count, 1);
}

TEST_F(MvccTest, RevisionsInATxnAreCheckedMoreStrictly) {
  // Seen: -1 is etcd's "never compacted", so it passes as the latest until there is a compaction.
  EXPECT_TRUE(Try(Txn().Range("a", "", {.revision = -1})).ok());
  EXPECT_EQ(Try(Txn().Range("a", "", {.revision = -2})), Failure(KW_DETAIL_COMPACTED));
  Put("a");
  ASSERT_TRUE(mvcc_.ApplyCompact(2).ok());
  EXPECT_EQ(Try(Txn().Range("a", "", {.revision = -1})), Failure(KW_DETAIL_COMPACTED));
  EXPECT_EQ(Try(Txn().Range("a", "", {.revision = 1})), Failure(KW_DETAIL_COMPACTED));
}

TEST_F(MvccTest, OneTxnMayDeleteAndPutAKey) {
  Put("a", "1");
  mvcc_.TakeChanges();
  // Seen: a delete to the end of all keys is not taken for an overlap.
  Run(Txn().Delete("a", AllKeys(), KW_DELETE_PREV_KV).Put("a", "2", KW_PUT_PREV_KV), true);

  EXPECT_EQ(ToPairs(reply_->results[0]), (std::vector<Pair>{{"a", "1", 2, 2, 1, 0}}));
  EXPECT_EQ(reply_->results[1].record_count, 0u);
  EXPECT_EQ(ToPairs(Range("a", "")), (std::vector<Pair>{{"a", "2", 3, 3, 1, 0}}));
  // Both events have the pair from before the txn, as etcd reads it at revision - 1.
  std::vector<Change> changes = mvcc_.TakeChanges();
  ASSERT_EQ(changes.size(), 2u);
  for (const Change& change : changes) {
    EXPECT_EQ(change.prev_revision, (Revision{2, 0}));
    EXPECT_EQ(ToPair(change.prev.view()).value, "1");
  }
  EXPECT_EQ(Range("a", "", {.revision = 2}).count, 1);
}

// ---- expiry, compaction, restore ----

TEST_F(MvccTest, ExpiryDeletesInOneRevisionAndLeavesTheLeaseAlone) {
  leases_.leases = {7};
  Run(Txn().Put("a", "", 0, 7).Put("b", "", 0, 7));

  EXPECT_EQ(mvcc_.ApplyDelete({"a", "b", "none"}, false), 2u);
  EXPECT_EQ(mvcc_.revision(), 3);
  EXPECT_EQ(leases_.attached.size(), 2u);
  EXPECT_EQ(mvcc_.ApplyDelete({"a"}, false), 0u);
  EXPECT_EQ(mvcc_.revision(), 3);
}

TEST_F(MvccTest, CompactionFailsAsEtcds) {
  FillFour();
  EXPECT_EQ(mvcc_.ApplyCompact(9), Failure(KW_DETAIL_FUTURE_REVISION));
  EXPECT_EQ(mvcc_.ApplyCompact(-1), Failure(KW_DETAIL_COMPACTED));
  EXPECT_TRUE(mvcc_.ApplyCompact(0).ok());
  EXPECT_FALSE(mvcc_.compacting());
  EXPECT_TRUE(mvcc_.ApplyCompact(8).ok());
  EXPECT_EQ(mvcc_.ApplyCompact(8), Failure(KW_DETAIL_COMPACTED));
  EXPECT_EQ(mvcc_.ApplyCompact(0), Failure(KW_DETAIL_COMPACTED));
}

TEST_F(MvccTest, ACompactionDuringOneGoesRoundOnce) {
  FillFour();
  ASSERT_TRUE(mvcc_.ApplyCompact(5).ok());
  std::vector<Revision> deleted;
  mvcc_.CompactStep(2, &deleted);
  Put("b");  // Behind the cursor.
  Put("b");
  ASSERT_TRUE(mvcc_.ApplyCompact(9).ok());
  int steps = 0;
  for (; mvcc_.compacting(); ++steps) mvcc_.CompactStep(1, &deleted);

  EXPECT_LE(steps, 7);
  std::sort(deleted.begin(), deleted.end());
  // All old versions but (9, 0), which b has at the compaction.
  EXPECT_EQ(deleted, (std::vector<Revision>{{2, 0}, {5, 0}, {6, 0}, {7, 0}}));
}

TEST_F(MvccTest, PreviousVersionIsGoneOnceItsSuccessorIsCompacted) {
  Put("k", "1");
  Put("k", "2");
  Put("k", "3");
  EXPECT_EQ(mvcc_.PreviousVersion("k", {3, 0}), (Revision{2, 0}));
  EXPECT_EQ(mvcc_.PreviousVersion("k", {2, 0}), Revision());
  ASSERT_TRUE(mvcc_.ApplyCompact(3).ok());
  EXPECT_EQ(mvcc_.PreviousVersion("k", {3, 0}), Revision());
  EXPECT_EQ(mvcc_.PreviousVersion("k", {4, 0}), (Revision{3, 0}));
}

TEST_F(MvccTest, APinnedRangeSeesNoLaterChangeAndStartsAnewWhenCompacted) {
  FillFour();
  for (bool old : {false, true}) {
    int64_t revision = mvcc_.revision();
    ReplyPtr reply(Reply::New());
    kw_range range{.key = ToSlice("b"), .end = ToSlice("z"), .revision = old ? revision : 0};
    RangeReader reader(&mvcc_, range, reply.get());
    ASSERT_EQ(reader.Step(1), RangeReader::Progress::kMore);
    Put("c", "changed");
    ASSERT_EQ(reader.Step(1), RangeReader::Progress::kMore);
    Put("c", "again");
    ASSERT_TRUE(mvcc_.ApplyCompact(mvcc_.revision()).ok());
    RangeReader::Progress progress = reader.Step(1);
    while (progress == RangeReader::Progress::kMore) progress = reader.Step(1);

    ASSERT_EQ(progress, RangeReader::Progress::kDone);
    if (old) {
      EXPECT_EQ(reader.outcome(), Failure(KW_DETAIL_COMPACTED));
    } else {
      ASSERT_TRUE(reader.outcome().ok());
      EXPECT_EQ(reply->revision, revision + 2);
      EXPECT_EQ(ToPairs(reply->results[0])[1].value, "again");
      EXPECT_EQ(reply->held.size(), 4u);
    }
  }
}

// A watch from there lost the delete: it was told of a key that nobody watches.
TEST_F(MvccTest, ADeleteAtTheCompactRevisionUnderAnotherKeyIsNotIntact) {
  Put("k", "1");
  Delete("k");
  const std::vector<Change> changes = mvcc_.TakeChanges();
  ASSERT_TRUE(mvcc_.ApplyCompact(changes[1].revision.main).ok());
  std::vector<Revision> deleted;
  while (mvcc_.compacting()) mvcc_.CompactStep(100, &deleted);
  std::string changed(changes[1].record.view());
  const size_t key_at = changed.find('k');
  ASSERT_NE(key_at, std::string::npos);
  changed[key_at] = 'j';
  EXPECT_TRUE(mvcc_.IsIntact(changes[1].revision, changes[1].record.view()));
  EXPECT_FALSE(mvcc_.IsIntact(changes[1].revision, changed));
}

TEST_F(MvccTest, EveryVersionInTheIndexKnowsTheChecksumOfItsRecord) {
  Put("k", "1");
  Run(Txn().Put("k", "2").Put("other", "x"));
  Delete("k");
  Put("k", "3");
  for (const Change& change : mvcc_.TakeChanges()) {
    EXPECT_EQ(change.revision.crc32c, RecordChecksum(change.record.view()));
    EXPECT_TRUE(mvcc_.IsIntact(change.revision, change.record.view()));
    std::string changed(change.record.view());
    changed.back() = static_cast<char>(changed.back() ^ 1);
    EXPECT_FALSE(mvcc_.IsIntact(change.revision, changed));
    EXPECT_FALSE(mvcc_.IsIntact({change.revision.main + 100, 0}, change.record.view()));
  }
  EXPECT_NE(mvcc_.PreviousVersion("k", {3, 0}).crc32c, 0u);
  EXPECT_EQ(mvcc_.PreviousVersion("k", {3, 0}), (Revision{2, 0}));
}

TEST(MvccReads, ALostRecordIsDataLoss) {
  FakeLeases leases;
  Mvcc mvcc({.cache_bytes = 0, .recent_bytes = 0}, &leases);
  mvcc.RestoreRecord(
      {2, 0}, EncodeRecord({.key = "k", .create_revision = 2, .mod_revision = 2, .version = 1}).view());
  mvcc.FinishRestore(2, 0, true);
  ReplyPtr reply(Reply::New());
  RangeReader reader(&mvcc, {.key = ToSlice("k")}, reply.get());

  ASSERT_EQ(reader.Step(10), RangeReader::Progress::kBlocked);
  EXPECT_EQ(reader.missing(), (std::vector<Revision>{{2, 0}}));
  reader.Resume({SharedBytes()});
  ASSERT_EQ(reader.Step(10), RangeReader::Progress::kDone);
  EXPECT_EQ(reader.outcome().code, KW_DATA_LOSS);
}

TEST(MvccReads, ARecordThatWasReadIsCached) {
  FakeLeases leases;
  Mvcc mvcc(Options(), &leases);
  SharedBytes record = EncodeRecord({.key = "k", .create_revision = 2, .mod_revision = 2, .version = 1});
  mvcc.RestoreRecord({2, 0}, record.view());
  mvcc.FinishRestore(2, 0, true);
  for (bool first : {true, false}) {
    ReplyPtr reply(Reply::New());
    RangeReader reader(&mvcc, {.key = ToSlice("k")}, reply.get());
    RangeReader::Progress progress = reader.Step(10);
    ASSERT_EQ(progress, first ? RangeReader::Progress::kBlocked : RangeReader::Progress::kDone);
    if (!first) continue;
    reader.Resume({record});
    ASSERT_EQ(reader.Step(10), RangeReader::Progress::kDone);
    EXPECT_EQ(reply->results[0].record_count, 1u);
  }
}

TEST(MvccRecent, IsBoundedButKeepsWhatIsNotStored) {
  FakeLeases leases;
  Mvcc mvcc({.cache_bytes = 0, .recent_bytes = 1000}, &leases);
  auto put = [&](int i) {
    TxnBuilder builder;
    builder.Put(std::to_string(i), std::string(100, 'v'));
    ASSERT_TRUE(mvcc.ApplyTxn(builder.txn(), false, nullptr).ok());
    mvcc.TakeChanges();
  };
  for (int i = 0; i < 100; ++i) put(i);
  EXPECT_EQ(mvcc.recent().size(), 100u);
  EXPECT_EQ(mvcc.recent_from(), 2);

  mvcc.OnStored(50);
  EXPECT_EQ(mvcc.recent_from(), 51);
  EXPECT_EQ(mvcc.recent().front().revision, (Revision{51, 0}));
  mvcc.OnStored(101);
  EXPECT_LT(mvcc.recent().size(), 8u);
  EXPECT_GT(mvcc.recent().size(), 0u);
  EXPECT_EQ(mvcc.recent_from(), mvcc.recent().front().revision.main);
}

}  // namespace
}  // namespace keyway::mvcc
