// SPDX-License-Identifier: Apache-2.0
//
// Random requests against Mvcc and against the model of mvcc_model.h. The engine is a map that gets
// changes late, loses what compaction deletes, and gives back what Mvcc says is missing; caches are
// tiny, so that happens often. Now and then all is dropped and restored from the engine.
#include "kernel/mvcc/mvcc_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <random>

#include "kernel/mvcc/test_support.h"

namespace keyway::mvcc {
namespace {

RangeAnswer ToRangeAnswer(const kw_op_result& result) {
  return {ToPairs(result), result.count, (result.flags & KW_RESULT_MORE) != 0};
}

OpAnswer ToAnswer(const kw_op_result& result) {
  OpAnswer answer{.kind = result.kind};
  if (result.kind == KW_OP_RANGE) answer.range = ToRangeAnswer(result);
  if (result.kind == KW_OP_PUT || result.kind == KW_OP_DELETE) answer.prev = ToPairs(result);
  if (result.kind == KW_OP_DELETE) answer.deleted = result.count;
  if (result.kind == KW_OP_TXN) answer.succeeded = (result.flags & KW_RESULT_SUCCEEDED) != 0;
  for (size_t i = 0; i < result.nested_count; ++i) answer.nested.push_back(ToAnswer(result.nested[i]));
  return answer;
}

class Fuzz {
 public:
  Fuzz(uint32_t seed, Options options) : random_(seed), options_(options) {
    for (int64_t lease : {11, 12, 13}) leases_.leases.insert(lease);
    mvcc_ = std::make_unique<Mvcc>(options_, &leases_);
  }

  void Run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) Step();
    if (testing::Test::HasFatalFailure()) return;
    FinishCompaction();
    Restore();
    CheckAll();
    EXPECT_EQ(leases_.errors, 0);
    EXPECT_GT(missing_total_, 0);
    EXPECT_GT(blocked_total_, 0);
    EXPECT_GT(failed_total_, 0);
    EXPECT_GT(ok_total_, failed_total_);
  }

 private:
  int Below(int bound) { return static_cast<int>(random_() % static_cast<uint32_t>(bound)); }
  bool OneIn(int bound) { return Below(bound) == 0; }

  void Step() {
    switch (Below(20)) {
      case 0:
        return Compact();
      case 1:
        return Expire();
      case 2:
        if (OneIn(10)) Restore();
        return;
      case 3:
      case 4:
      case 5:
        return ReadInSlices();
      case 6:
        return StoreSome();
      case 7:
        return CompactSome();
      case 8:
        return CheckHistory();
      case 9:
        if (OneIn(8)) CheckAll();
        return;
      default:
        return Apply();
    }
  }

  // ---- random requests ----

  std::string Key() {
    std::string key(1, static_cast<char>('a' + Below(12)));
    if (OneIn(4)) key += static_cast<char>('a' + Below(3));
    return key;
  }
  std::string End() {
    switch (Below(4)) {
      case 0:
        return "";
      case 1:
        return AllKeys();
      default:
        return Key();
    }
  }
  int64_t Bound() { return OneIn(6) ? 1 + Below(static_cast<int>(model_.revision)) : 0; }
  int64_t OldRevision() {
    if (OneIn(8)) return model_.revision + Below(3);
    if (OneIn(30)) return -Below(4);
    return OneIn(2) ? 0 : std::max<int64_t>(0, model_.revision - Below(60));
  }
  kw_range RandomRange() {
    kw_range range{};
    range.revision = OldRevision();
    if (OneIn(2)) range.limit = 1 + Below(8);
    range.mod_min = Bound();
    range.mod_max = Bound();
    range.create_min = Bound();
    range.create_max = Bound();
    if (OneIn(2)) {
      range.sort_target = static_cast<uint8_t>(Below(5));
      range.sort_order = static_cast<uint8_t>(Below(3));
    }
    if (OneIn(4)) range.flags |= KW_RANGE_KEYS_ONLY;
    if (OneIn(8)) range.flags |= KW_RANGE_COUNT_ONLY;
    return range;
  }
  TxnBuilder RandomTxn(int depth) {
    TxnBuilder builder;
    for (int i = Below(3); i > 0; --i) {
      uint32_t relation = static_cast<uint32_t>(Below(4));
      std::string end = OneIn(3) ? End() : "";
      if (OneIn(3)) {
        builder.IfValue(Key(), relation, Value(), end);
      } else {
        uint32_t targets[] = {KW_CMP_VERSION, KW_CMP_CREATE, KW_CMP_MOD, KW_CMP_LEASE};
        builder.If(Key(), targets[Below(4)], relation, OneIn(2) ? 0 : Below(20), end);
      }
    }
    for (int side = 0; side < 2; ++side) {
      if (side == 1) builder.Else();
      for (int i = Below(4); i > 0; --i) AddOp(&builder, depth);
    }
    return builder;
  }
  void AddOp(TxnBuilder* builder, int depth) {
    switch (Below(depth > 0 ? 8 : 7)) {
      case 0:
      case 1:
        builder->Range(Key(), End(), RandomRange());
        break;
      case 2:
        builder->Delete(Key(), OneIn(2) ? End() : "", OneIn(2) ? KW_DELETE_PREV_KV : 0);
        break;
      case 7:
        builder->Nested(RandomTxn(depth - 1));
        break;
      default: {
        uint32_t flags = 0;
        if (OneIn(3)) flags |= KW_PUT_PREV_KV;
        if (OneIn(6)) flags |= KW_PUT_IGNORE_VALUE;
        if (OneIn(6)) flags |= KW_PUT_IGNORE_LEASE;
        int64_t lease = flags & KW_PUT_IGNORE_LEASE || OneIn(2) ? 0 : OneIn(12) ? 99 : 11 + Below(3);
        builder->Put(Key(), flags & KW_PUT_IGNORE_VALUE ? "" : Value(), flags, lease);
      }
    }
  }
  std::string Value() {
    return std::string(static_cast<size_t>(Below(20)), static_cast<char>('A' + Below(4)));
  }

  // ---- steps ----

  void ProvideMissing(const std::vector<Revision>& missing) {
    for (Revision revision : missing) {
      SharedBytes record = engine_.Read(revision);
      ASSERT_TRUE(record.has_value()) << "not in the engine: " << revision.main << "." << revision.sub;
      mvcc_->Provide(revision, record);
      ++missing_total_;
    }
  }

  void Apply() {
    TxnBuilder builder = RandomTxn(2);
    kw_txn txn = builder.txn();
    if (!Mvcc::CheckTxn(txn, false, 128).ok()) return;
    bool want_prev = OneIn(2);
    std::vector<Revision> missing;
    mvcc_->MissingForTxn(txn, want_prev, &missing);
    ASSERT_NO_FATAL_FAILURE(ProvideMissing(missing));
    ReplyPtr reply(OneIn(4) ? nullptr : Reply::New());
    int64_t before = mvcc_->revision();

    Outcome outcome = mvcc_->ApplyTxn(txn, want_prev, reply.get());

    OpAnswer expected;
    uint32_t detail = model_.Apply(txn, leases_.leases, &expected);
    ASSERT_EQ(outcome.detail, detail);
    ASSERT_EQ(mvcc_->revision(), model_.revision);
    ++(outcome.ok() ? ok_total_ : failed_total_);
    if (outcome.ok() && reply != nullptr) {
      ASSERT_EQ(reply->revision, model_.revision);
      OpAnswer answer{.kind = KW_OP_TXN, .succeeded = reply->succeeded != 0};
      for (size_t i = 0; i < reply->result_count; ++i) answer.nested.push_back(ToAnswer(reply->results[i]));
      ASSERT_EQ(answer, expected);
    }
    ASSERT_EQ(leases_.attached, model_.leases);
    TakeChanges(before, want_prev);
  }

  void Expire() {
    int64_t lease = 11 + Below(3);
    std::vector<std::string> owned;
    for (const auto& [key, attached] : leases_.attached) {
      if (attached == lease) owned.push_back(key);
    }
    std::vector<std::string_view> keys(owned.begin(), owned.end());
    bool want_prev = OneIn(2);
    std::vector<Revision> missing;
    mvcc_->MissingForDelete(keys, want_prev, &missing);
    ASSERT_NO_FATAL_FAILURE(ProvideMissing(missing));
    int64_t before = mvcc_->revision();

    size_t count = mvcc_->ApplyDelete(keys, want_prev);

    ASSERT_EQ(count, model_.DeleteKeys(keys));
    for (const std::string& key : owned) {
      leases_.attached.erase(key);
      model_.leases.erase(key);
    }
    ASSERT_EQ(mvcc_->revision(), model_.revision);
    TakeChanges(before, want_prev);
  }

  // Every new change is what the model has, with the right previous record.
  void TakeChanges(int64_t before, bool want_prev) {
    std::vector<Change> changes = mvcc_->TakeChanges();
    size_t expected = 0;
    for (const auto& [key, versions] : model_.keys) {
      for (const Model::Version& version : versions) expected += version.revision.main > before ? 1 : 0;
    }
    ASSERT_EQ(changes.size(), expected);
    int32_t sub = 0;
    for (Change& change : changes) {
      ASSERT_EQ(change.revision, (Revision{before + 1, sub++}));
      Pair pair = ToPair(change.record.view());
      const std::vector<Model::Version>& versions = model_.keys[pair.key];
      auto same = std::find_if(versions.begin(), versions.end(),
                               [&](const Model::Version& v) { return v.revision == change.revision; });
      ASSERT_NE(same, versions.end());
      ASSERT_EQ(pair, same->pair);
      ASSERT_EQ(change.kind == KW_EVENT_DELETE, same->tombstone);
      std::optional<Pair> prev = model_.At(pair.key, before);
      ASSERT_EQ(change.prev_revision.main, prev ? prev->mod : 0);
      if (want_prev) {
        ASSERT_EQ(change.prev.has_value(), prev.has_value());
      }
      if (change.prev.has_value()) {
        ASSERT_EQ(ToPair(change.prev.view()), *prev);
      }
      unstored_.push_back(std::move(change));
    }
  }

  void StoreSome() {
    size_t count = unstored_.empty() ? 0 : static_cast<size_t>(Below(static_cast<int>(unstored_.size()) + 1));
    while (count > 0 && count < unstored_.size() &&
           unstored_[count].revision.main == unstored_[count - 1].revision.main) {
      ++count;
    }
    if (count == 0) return;
    int64_t main = 0;
    for (size_t i = 0; i < count; ++i) {
      engine_.records[unstored_[i].revision] = std::string(unstored_[i].record.view());
      main = unstored_[i].revision.main;
    }
    unstored_.erase(unstored_.begin(), unstored_.begin() + static_cast<ptrdiff_t>(count));
    mvcc_->OnStored(main);
    // Everything later is still in memory.
    for (const Change& change : unstored_) {
      std::string key(RecordKey(change.record.view()));
      ASSERT_TRUE(mvcc_->FindRecord(key, change.revision).has_value());
    }
    ASSERT_LE(mvcc_->recent_from(), main + 1);
  }
  void StoreAll() {
    while (!unstored_.empty()) StoreSome();
  }

  void Compact() {
    int64_t revision = std::max<int64_t>(1, model_.revision + 1 - Below(12) * Below(12));
    Outcome outcome = mvcc_->ApplyCompact(revision);
    if (revision <= model_.compacted) {
      ASSERT_EQ(outcome, Failure(KW_DETAIL_COMPACTED));
    } else if (revision > model_.revision) {
      ASSERT_EQ(outcome, Failure(KW_DETAIL_FUTURE_REVISION));
    } else {
      ASSERT_TRUE(outcome.ok());
      model_.compacted = revision;
    }
    ASSERT_EQ(mvcc_->compact_revision(), model_.compacted);
  }
  // What it deletes may not be in the engine yet: then the engine is written first, as core does.
  void CompactSome() {
    std::vector<Revision> deleted;
    mvcc_->CompactStep(static_cast<size_t>(1 + Below(6)), &deleted);
    if (!deleted.empty()) StoreAll();
    for (Revision revision : deleted) ASSERT_EQ(engine_.records.erase(revision), 1u);
  }
  void FinishCompaction() {
    StoreAll();
    for (int i = 0; mvcc_->compacting(); ++i) {
      ASSERT_LT(i, 10000);
      ASSERT_NO_FATAL_FAILURE(CompactSome());
    }
    std::map<Revision, Pair> stored;
    for (const auto& [revision, record] : engine_.records) stored[revision] = ToPair(record);
    ASSERT_EQ(stored, model_.Kept());
  }

  void Restore() {
    StoreAll();
    bool compacted = !mvcc_->compacting();
    leases_.attached.clear();
    if (OneIn(2)) {
      mvcc_ = std::make_unique<Mvcc>(options_, &leases_);
    } else {
      mvcc_->Clear();
      ASSERT_EQ(mvcc_->revision(), 1);
      ASSERT_EQ(mvcc_->key_count(), 0u);
    }
    for (const auto& [revision, record] : engine_.records) mvcc_->RestoreRecord(revision, record);
    mvcc_->FinishRestore(model_.revision, model_.compacted, compacted);
    ASSERT_EQ(mvcc_->recent_from(), model_.revision + 1);
    ASSERT_EQ(leases_.attached, model_.leases);
  }

  // ---- reads ----

  // Steps, with other work between them, until done.
  Outcome Read(const kw_range& range, Reply* reply, bool with_other_work) {
    RangeReader reader(mvcc_.get(), range, reply);
    for (int i = 0; i < 100000; ++i) {
      switch (reader.Step(static_cast<size_t>(1 + Below(7)))) {
        case RangeReader::Progress::kDone:
          return reader.outcome();
        case RangeReader::Progress::kMore:
          break;
        case RangeReader::Progress::kBlocked: {
          ++blocked_total_;
          std::vector<Revision> missing = reader.missing();
          EXPECT_FALSE(missing.empty());
          if (with_other_work && OneIn(3)) OtherWork();
          std::vector<SharedBytes> records;
          for (Revision revision : missing) records.push_back(engine_.Read(revision));
          if (with_other_work && OneIn(3)) OtherWork();
          reader.Resume(std::move(records));
        }
      }
      if (with_other_work && OneIn(3)) OtherWork();
    }
    ADD_FAILURE() << "a range that never ends";
    return {};
  }
  void OtherWork() {
    switch (Below(4)) {
      case 0:
        return OneIn(4) ? Compact() : CompactSome();
      case 1:
        return StoreSome();
      default:
        return Apply();
    }
  }

  void ReadInSlices() {
    std::string key = OneIn(4) ? std::string(1, '\0') : Key(), end = End();
    kw_range range = RandomRange();
    range.key = ToSlice(key);
    range.end = ToSlice(end);
    if (OneIn(8)) range.flags |= KW_RANGE_NO_COUNT;
    int64_t compacted_before = model_.compacted, revision_before = model_.revision;
    ReplyPtr reply(Reply::New());

    Outcome outcome = Read(range, reply.get(), OneIn(2));

    if (testing::Test::HasFatalFailure()) return;
    if (range.revision > revision_before) {
      ASSERT_EQ(outcome, Failure(KW_DETAIL_FUTURE_REVISION));
      return;
    }
    if (!outcome.ok()) {
      ASSERT_EQ(outcome, Failure(KW_DETAIL_COMPACTED));
      ASSERT_GT(range.revision, 0);
      ASSERT_LT(range.revision, model_.compacted);
      return;
    }
    if (range.revision > 0) {
      ASSERT_GE(range.revision, compacted_before);
    }
    ASSERT_GE(reply->revision, revision_before);
    ASSERT_LE(reply->revision, model_.revision);
    ASSERT_EQ(reply->result_count, 1u);
    RangeAnswer expected = model_.Range(range, range.revision > 0 ? range.revision : reply->revision);
    if ((range.flags & KW_RANGE_NO_COUNT) && !(range.flags & KW_RANGE_COUNT_ONLY)) expected.count = 0;
    RangeAnswer answer = ToRangeAnswer(reply->results[0]);
    ASSERT_EQ(answer.pairs, expected.pairs);
    ASSERT_EQ(answer.count, expected.count);
    ASSERT_EQ(answer.more, expected.more);
  }

  // Each revision that may be read, whole.
  void CheckAll() {
    std::string zero = AllKeys();
    for (int64_t main = std::max<int64_t>(1, model_.compacted); main <= model_.revision;
         main += 1 + Below(4)) {
      for (uint8_t flags : {0, KW_RANGE_KEYS_ONLY + 0}) {
        kw_range range{};
        range.key = range.end = ToSlice(zero);
        range.revision = main;
        range.flags = flags;
        ReplyPtr reply(Reply::New());
        ASSERT_TRUE(Read(range, reply.get(), false).ok());
        ASSERT_EQ(ToRangeAnswer(reply->results[0]).pairs, model_.Range(range, main).pairs) << main;
      }
    }
    ASSERT_EQ(mvcc_->key_count(), model_.All(zero, zero, model_.revision).size());
  }

  void CheckHistory() {
    std::string key = Key();
    for (const Model::Version& version : model_.keys[key]) {
      std::optional<Pair> prev = model_.At(key, version.revision.main - 1);
      Revision found = mvcc_->PreviousVersion(key, version.revision);
      bool readable = version.revision.main > model_.compacted;
      ASSERT_EQ(found.main, prev && readable ? prev->mod : 0);
      if (found.main == 0) continue;
      SharedBytes record = mvcc_->FindRecord(key, found);
      if (record.has_value()) {
        ASSERT_EQ(ToPair(record.view()), *prev);
      } else {
        ASSERT_TRUE(engine_.Read(found).has_value());
      }
    }
    // recent() is without gaps from recent_from() on.
    int64_t from = mvcc_->recent_from();
    size_t expected = 0, count = 0;
    for (const auto& [name, versions] : model_.keys) {
      for (const Model::Version& version : versions) expected += version.revision.main >= from ? 1 : 0;
    }
    for (const Change& change : mvcc_->recent()) count += change.revision.main >= from ? 1 : 0;
    ASSERT_EQ(count, expected);
  }

  std::mt19937 random_;
  const Options options_;
  FakeLeases leases_;
  std::unique_ptr<Mvcc> mvcc_;
  Model model_;
  FakeEngine engine_;
  std::vector<Change> unstored_;
  int missing_total_ = 0, blocked_total_ = 0, failed_total_ = 0, ok_total_ = 0;
};

class MvccModel : public testing::TestWithParam<int> {};

TEST_P(MvccModel, AnswersAsTheModelDoes) {
  uint32_t seed = static_cast<uint32_t>(GetParam());
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  // Caches from nothing to a few records, so that most reads go to the engine.
  Options options{.cache_bytes = static_cast<size_t>(seed % 5) * 200,
                  .recent_bytes = static_cast<size_t>(seed % 3) * 1000};
  Fuzz fuzz(seed, options);
  fuzz.Run(4000);
}

INSTANTIATE_TEST_SUITE_P(Seeds, MvccModel, testing::Range(1, 41));

}  // namespace
}  // namespace keyway::mvcc
