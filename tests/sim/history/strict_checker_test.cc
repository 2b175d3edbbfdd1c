// SPDX-License-Identifier: Apache-2.0
//
// CheckStrict() and the search on histories written by hand: who made a revision that no reply names, and
// what real time allows.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "keyway/detail.h"
#include "keyway/kernel.h"
#include "tests/sim/history/checkers.h"
#include "tests/sim/history/matching.h"
#include "tests/sim/history/random.h"
#include "tests/sim/history/search_checker.h"

namespace keyway::sim {
namespace {

// A history of puts, deletes and reads of single keys; times in call order unless given.
struct Builder {
  History history;

  Operation& Add(Kind kind, uint32_t op_kind, const std::string& key, int64_t call_ns, int64_t return_ns) {
    Operation& operation = history.operations.emplace_back();
    operation.client = history.operations.size();
    operation.id = history.operations.size();
    operation.call_ns = call_ns;
    operation.return_ns = return_ns;
    operation.request.kind = kind;
    Op op;
    op.kind = op_kind;
    op.key = key;
    operation.request.txn.then_ops.push_back(op);
    return operation;
  }
  void Answer(Operation* operation, int64_t revision, int64_t count, std::vector<KeyValue> pairs = {}) {
    operation->outcome = Outcome::kOk;
    operation->response.revision = revision;
    operation->response.succeeded = true;
    operation->response.results.push_back(
        {.kind = operation->request.txn.then_ops[0].kind, .count = count, .pairs = std::move(pairs)});
  }
  // `revision` 0: no answer.
  Operation& Put(const std::string& key, const std::string& value, int64_t revision, int64_t call_ns,
                 int64_t return_ns) {
    Operation& operation = Add(Kind::kPut, KW_OP_PUT, key, call_ns, return_ns);
    operation.request.txn.then_ops[0].value = value;
    if (revision != 0) Answer(&operation, revision, 0);
    return operation;
  }
  Operation& Delete(const std::string& key, const std::string& end, int64_t revision, int64_t count,
                    int64_t call_ns, int64_t return_ns) {
    Operation& operation = Add(Kind::kDelete, KW_OP_DELETE, key, call_ns, return_ns);
    operation.request.txn.then_ops[0].end = end;
    if (revision != 0) Answer(&operation, revision, count);
    return operation;
  }
  void Read(const std::string& key, int64_t revision, std::vector<KeyValue> pairs, int64_t call_ns,
            int64_t return_ns) {
    const auto count = static_cast<int64_t>(pairs.size());
    Answer(&Add(Kind::kRange, KW_OP_RANGE, key, call_ns, return_ns), revision, count, std::move(pairs));
  }
  // An observer that is told of all of this at once.
  void Observe(int64_t time_ns, std::vector<WatchEvent> events) {
    if (history.watches.empty()) {
      Watch& watch = history.watches.emplace_back();
      watch.key = watch.end = std::string(1, '\0');
      watch.start_revision = 1;
      watch.batches.push_back({.kind = KW_WATCH_CREATED});
    }
    WatchBatch batch;
    batch.kind = KW_WATCH_EVENTS;
    batch.time_ns = time_ns;
    batch.revision = events.back().pair.mod_revision;
    batch.events = std::move(events);
    history.watches[0].batches.push_back(std::move(batch));
    history.settled = true;
  }
  std::string Check() const {
    Order order;
    const Findings findings = CheckStrict(history, &order);
    return findings.empty() ? "" : findings[0].text;
  }
};

KeyValue Pair(const std::string& key, const std::string& value, int64_t create, int64_t mod,
              int64_t version) {
  return {key, value, create, mod, version, 0};
}
WatchEvent PutOf(KeyValue pair) { return {.pair = std::move(pair)}; }
WatchEvent DeleteOf(const std::string& key, int64_t revision) {
  return {.is_delete = true, .pair = {.key = key, .mod_revision = revision}};
}

TEST(Strict, TakesAnUnknownPutThatWasSeen) {
  Builder builder;
  builder.Put("a", "1", 0, 10, -1);
  builder.Put("b", "2", 3, 20, 30);
  builder.Observe(40, {PutOf(Pair("a", "1", 2, 2, 1)), PutOf(Pair("b", "2", 3, 3, 1))});

  EXPECT_EQ(builder.Check(), "");
}

TEST(Strict, TakesAnUnknownPutThatNeverWas) {
  Builder builder;
  builder.Put("a", "1", 0, 10, -1);
  builder.Put("b", "2", 2, 20, 30);
  builder.Observe(40, {PutOf(Pair("b", "2", 2, 2, 1))});

  EXPECT_EQ(builder.Check(), "");
}

// The second event has the value of the first put: a put that kept it.
TEST(Strict, TakesAnUnknownPutThatKeptTheValue) {
  Builder builder;
  builder.Put("a", "1", 0, 10, -1);
  builder.Put("a", "", 0, 11, -1).request.txn.then_ops[0].flags = KW_PUT_IGNORE_VALUE;
  builder.Observe(40, {PutOf(Pair("a", "1", 2, 2, 1)), PutOf(Pair("a", "1", 2, 3, 2))});

  EXPECT_EQ(builder.Check(), "");
}

TEST(Strict, FindsAnUnknownPutThatTookEffectTwice) {
  Builder builder;
  builder.Put("a", "1", 0, 10, -1);
  builder.Observe(40, {PutOf(Pair("a", "1", 2, 2, 1)), PutOf(Pair("a", "1", 2, 3, 2))});

  EXPECT_NE(builder.Check().find("repeats an effect"), std::string::npos) << builder.Check();
}

TEST(Strict, FindsAnAcknowledgedPutThatTookEffectTwice) {
  Builder builder;
  builder.Put("a", "1", 2, 10, 20);
  builder.Observe(40, {PutOf(Pair("a", "1", 2, 2, 1)), PutOf(Pair("a", "1", 2, 3, 2))});

  EXPECT_NE(builder.Check().find("was made by nobody"), std::string::npos) << builder.Check();
}

TEST(Strict, FindsAnAcknowledgedPutThatIsLost) {
  Builder builder;
  builder.Put("a", "1", 2, 10, 20);
  builder.Put("b", "2", 2, 30, 40);  // After a crash that lost the first.

  EXPECT_NE(builder.Check().find("given to two changes"), std::string::npos) << builder.Check();
}

TEST(Strict, FindsARefusedPutThatTookEffect) {
  Builder builder;
  Operation& put = builder.Put("a", "1", 0, 10, 20);
  put.outcome = Outcome::kError;
  put.detail = KW_DETAIL_TOO_MANY_REQUESTS;
  builder.Observe(40, {PutOf(Pair("a", "1", 2, 2, 1))});

  EXPECT_NE(builder.Check().find("which was refused"), std::string::npos) << builder.Check();
}

// Either of the two deletes explains revision 3, but then only the other one is left for revision 5.
TEST(Strict, MatchesDeletesOfUnknownOutcome) {
  Builder builder;
  builder.Put("a", "1", 2, 10, 20);
  builder.Delete("a", "c", 0, 0, 21, -1);
  builder.Delete("a", "", 0, 0, 22, -1);
  builder.Put("b", "2", 4, 30, 40);
  builder.Observe(60, {PutOf(Pair("a", "1", 2, 2, 1)), DeleteOf("a", 3), PutOf(Pair("b", "2", 4, 4, 1)),
                       DeleteOf("b", 5)});
  EXPECT_EQ(builder.Check(), "");

  builder.Put("b", "3", 6, 61, 62);
  builder.Observe(70, {PutOf(Pair("b", "3", 6, 6, 1)), DeleteOf("b", 7)});
  EXPECT_NE(builder.Check(), "");
}

// The put of unknown outcome took the key from the lease just before that was revoked, at its revision.
TEST(Strict, TakesARevocationThatFoundNoKeysAnyMore) {
  Builder builder;
  builder.Put("a", "1", 2, 10, 20).request.txn.then_ops[0].lease = 7;
  builder.Put("a", "2", 0, 21, -1);
  Operation& revoke = builder.Add(Kind::kLeaseRevoke, 0, "", 30, 40);
  revoke.request.txn.then_ops.clear();
  revoke.request.lease = 7;
  revoke.outcome = Outcome::kOk;
  revoke.response.revision = 3;
  KeyValue first = Pair("a", "1", 2, 2, 1);
  first.lease = 7;
  builder.Observe(60, {PutOf(first), PutOf(Pair("a", "2", 2, 3, 2))});
  EXPECT_EQ(builder.Check(), "");

  builder.history.watches[0].batches[1].events[1] = DeleteOf("a", 3);
  EXPECT_EQ(builder.Check(), "");  // Or it deleted the key, and the put was lost.
}

TEST(Strict, FindsAReadThatIsBehindAnAnswer) {
  Builder builder;
  builder.Put("a", "1", 2, 10, 20);
  builder.Put("a", "2", 3, 30, 40);
  builder.Read("a", 2, {Pair("a", "1", 2, 2, 1)}, 35, 50);  // Concurrent with the second: right.
  EXPECT_EQ(builder.Check(), "");

  builder.Read("a", 2, {Pair("a", "1", 2, 2, 1)}, 41, 50);
  EXPECT_NE(builder.Check().find("is stale"), std::string::npos) << builder.Check();
}

TEST(Strict, LetsASerializableReadBeBehindButNotWrong) {
  Builder builder;
  builder.Put("a", "1", 2, 10, 20);
  builder.Put("a", "2", 3, 30, 40);
  builder.Read("a", 2, {Pair("a", "1", 2, 2, 1)}, 41, 50);
  builder.history.operations.back().request.serializable = true;
  EXPECT_EQ(builder.Check(), "");

  builder.history.operations.back().response.results[0].pairs[0].value = "2";
  EXPECT_NE(builder.Check().find("gives"), std::string::npos) << builder.Check();
}

TEST(Strict, FindsAnUnknownPutThatWasSeenBeforeItsCall) {
  Builder builder;
  builder.Put("a", "1", 0, 100, -1);
  builder.Observe(40, {PutOf(Pair("a", "1", 2, 2, 1))});

  EXPECT_NE(builder.Check(), "");
}

TEST(Matching, FindsAnAssignmentIfThereIsOne) {
  std::vector<size_t> chosen;
  EXPECT_FALSE(MatchAll({{0, 1}, {0}, {1, 2}}, 3, &chosen).has_value());
  EXPECT_EQ(chosen, (std::vector<size_t>{1, 0, 2}));
  EXPECT_EQ(MatchAll({{0, 1}, {0}, {1}}, 3, &chosen), 2u);
}

// ---- the search: all histories of three operations on one register against brute force ----

bool BruteForce(const std::vector<SearchOperation>& operations, std::vector<bool>* done, uint64_t state) {
  bool all = true;
  for (size_t i = 0; i < operations.size(); ++i) all &= (*done)[i];
  if (all) return true;
  for (size_t i = 0; i < operations.size(); ++i) {
    if ((*done)[i]) continue;
    bool is_first = true;
    for (size_t j = 0; j < operations.size(); ++j) {
      if (!(*done)[j] && operations[j].return_ns < operations[i].call_ns) is_first = false;
    }
    const SearchStep& step = operations[i].alternatives[0][0];
    if (!is_first || (step.kind == SearchStep::Kind::kExpect && step.value != state)) continue;
    (*done)[i] = true;
    const uint64_t next = step.kind == SearchStep::Kind::kSet ? step.value : state;
    if (BruteForce(operations, done, next)) return true;
    (*done)[i] = false;
  }
  return false;
}

TEST(Search, AgreesWithBruteForce) {
  HistoryRandom random(1);
  int good = 0, bad = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::vector<SearchOperation> operations;
    for (uint64_t i = 2 + random.Below(5); i > 0; --i) {
      SearchOperation operation;
      operation.call_ns = random.Between(0, 10);
      operation.return_ns = operation.call_ns + random.Between(1, 5);
      const auto kind = random.Percent(50) ? SearchStep::Kind::kExpect : SearchStep::Kind::kSet;
      operation.alternatives = {{{kind, random.Below(3)}}};
      operations.push_back(std::move(operation));
    }
    std::vector<bool> done(operations.size());
    const bool expected = BruteForce(operations, &done, 0);
    ++(expected ? good : bad);

    const SearchResult result = SearchLinearization(operations, 1'000'000);

    ASSERT_EQ(result.verdict == SearchVerdict::kLinearizable, expected) << "round " << round;
  }
  EXPECT_GT(good, 1000);
  EXPECT_GT(bad, 1000);
}

}  // namespace
}  // namespace keyway::sim
