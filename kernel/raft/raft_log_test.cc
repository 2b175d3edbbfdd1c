// SPDX-License-Identifier: Apache-2.0
#include "kernel/raft/raft_log.h"

#include <string>

#include "gtest/gtest.h"

namespace keyway::raft {
namespace {

Entry MakeEntry(uint64_t index, uint64_t term, EntryKind kind = EntryKind::kNormal) {
  Entry entry;
  entry.index = index;
  entry.term = term;
  entry.kind = kind;
  entry.data = SharedBytes::Copy("0123456789");
  return entry;
}

// A log with entries 1.. of these terms, durable unless appended later.
RaftLog MakeLog(const std::vector<uint64_t>& terms, uint64_t commit = 0, uint64_t applied = 0,
                size_t cache_bytes = 1 << 20) {
  std::vector<Entry> entries;
  for (uint64_t term : terms) entries.push_back(MakeEntry(entries.size() + 1, term));
  return RaftLog(0, 0, std::move(entries), commit, applied, cache_bytes);
}

TEST(RaftLog, EmptyLogHasBaseOnly) {
  RaftLog log(7, 3, {}, 7, 7, 0);

  EXPECT_EQ(log.first_index(), 8u);
  EXPECT_EQ(log.last_index(), 7u);
  EXPECT_EQ(log.last_term(), 3u);
  EXPECT_EQ(log.durable_index(), 7u);
  EXPECT_EQ(log.TermAt(7), 3u);
  EXPECT_EQ(log.TermAt(6), std::nullopt);
  EXPECT_EQ(log.TermAt(8), std::nullopt);
  EXPECT_FALSE(log.HasUnstable());
}

// Every log of up to 5 entries whose term grows by 0 to 2 each and every prefix truncation: TermAt()
// and FindConflictByTerm() are those of the plain list of terms.
TEST(RaftLog, TermsSurviveEvictionAndTruncation) {
  std::vector<uint64_t> terms;
  for (unsigned shape = 0; shape < 243; ++shape) {
    terms.clear();
    uint64_t term = 1;
    for (unsigned i = 0, rest = shape; i < 5; ++i, rest /= 3) {
      term += rest % 3;
      terms.push_back(term);
    }
    for (uint64_t base = 0; base <= 5; ++base) {
      RaftLog log = MakeLog(terms, 5, 5, 0);
      log.TruncatePrefix(base);
      auto term_of = [&](uint64_t i) { return i == 0 ? 0 : terms[i - 1]; };
      for (uint64_t i = 0; i <= 6; ++i) {
        const bool known = i >= base && i <= 5;
        ASSERT_EQ(log.TermAt(i), known ? std::optional(term_of(i)) : std::nullopt);
      }
      for (uint64_t i = base; i <= 5; ++i) {
        for (uint64_t t = 0; t <= 12; ++t) {
          uint64_t expected = i;
          while (expected > base && term_of(expected) > t) --expected;
          auto [index, found_term] = log.FindConflictByTerm(i, t);
          if (expected == base && term_of(base) > t) {
            ASSERT_EQ(index, base - 1);
            ASSERT_EQ(found_term, 0u);
          } else {
            ASSERT_EQ(index, expected);
            ASSERT_EQ(found_term, term_of(expected));
          }
        }
      }
    }
  }
}

// Raft paper, 5.4.1: the later term wins, then the longer log.
TEST(RaftLog, ComparesLogsByTermThenLength) {
  RaftLog log = MakeLog({1, 2, 2});

  EXPECT_TRUE(log.IsUpToDate(3, 2));
  EXPECT_TRUE(log.IsUpToDate(4, 2));
  EXPECT_FALSE(log.IsUpToDate(2, 2));
  EXPECT_TRUE(log.IsUpToDate(1, 3));
  EXPECT_FALSE(log.IsUpToDate(9, 1));
}

TEST(RaftLog, CountsAsDurableWhatWasReported) {
  RaftLog log = MakeLog({});
  log.Append(MakeEntry(1, 1));
  log.Append(MakeEntry(2, 1));

  EXPECT_EQ(log.TakeUnstable(1).size(), 2u);
  EXPECT_FALSE(log.HasUnstable());
  log.Append(MakeEntry(3, 1));
  EXPECT_EQ(log.TakeUnstable(2).size(), 1u);
  EXPECT_EQ(log.durable_index(), 0u);
  log.OnDurable(1);
  EXPECT_EQ(log.durable_index(), 2u);
  log.OnDurable(2);
  EXPECT_EQ(log.durable_index(), 3u);
}

// The ABA of in-flight appends: entry (2, 1) is written, replaced by (2, 2), and comes back. The report
// of its first write must not count: the write of (2, 2) is still under way and would destroy it.
TEST(RaftLog, OldReportDoesNotVouchForTheSameEntryWrittenAgain) {
  RaftLog log = MakeLog({1});
  log.Append(MakeEntry(2, 1));
  log.TakeUnstable(1);
  log.TruncateFrom(2);
  log.Append(MakeEntry(2, 2));
  EXPECT_EQ(log.TakeUnstable(2).front().term, 2u);
  log.TruncateFrom(2);
  log.Append(MakeEntry(2, 1));  // Not possible for one leader; for a later one that has it, it is.
  log.TakeUnstable(3);

  log.OnDurable(1);
  EXPECT_EQ(log.durable_index(), 1u);
  log.OnDurable(2);
  EXPECT_EQ(log.durable_index(), 1u);
  log.OnDurable(3);
  EXPECT_EQ(log.durable_index(), 2u);
}

TEST(RaftLog, TruncationTakesBackDurability) {
  RaftLog log = MakeLog({1, 1, 1, 1}, 1);

  log.TruncateFrom(3);

  EXPECT_EQ(log.durable_index(), 2u);
  EXPECT_EQ(log.last_index(), 2u);
  EXPECT_EQ(log.TermAt(3), std::nullopt);
  log.Append(MakeEntry(3, 2));
  std::vector<Entry> unstable = log.TakeUnstable(1);
  ASSERT_EQ(unstable.size(), 1u);
  EXPECT_EQ(unstable[0].index, 3u);
}

TEST(RaftLog, EvictsOnlyWhatIsDurableAndApplied) {
  RaftLog log = MakeLog({}, 0, 0, 0);
  for (uint64_t i = 1; i <= 4; ++i) log.Append(MakeEntry(i, 1));
  log.TakeUnstable(1);
  log.CommitTo(3);
  log.ApplyTo(3);
  EXPECT_EQ(log.cached_first(), 1u);

  log.OnDurable(1);

  EXPECT_EQ(log.cached_first(), 4u);
  EXPECT_EQ(log.At(4).index, 4u);
  EXPECT_EQ(log.TermAt(2), 1u);
}

TEST(RaftLog, KeepsTheCacheWithinItsBytes) {
  const size_t cost = RaftLog::Cost(MakeEntry(1, 1));
  RaftLog log = MakeLog({1, 1, 1, 1, 1, 1}, 5, 0, 2 * cost);
  EXPECT_EQ(log.cached_first(), 1u);

  log.ApplyTo(2);
  EXPECT_EQ(log.cached_first(), 1u);
  log.ApplyTo(3);
  EXPECT_EQ(log.cached_first(), 2u);
  log.ApplyTo(5);
  EXPECT_EQ(log.cached_first(), 4u);
  log.TruncatePrefix(4);
  EXPECT_EQ(log.cached_first(), 5u);
  EXPECT_EQ(log.TermAt(4), 1u);
}

TEST(RaftLog, CopiesUpToBytesAndAtLeastOne) {
  const size_t cost = RaftLog::Cost(MakeEntry(1, 1));
  RaftLog log = MakeLog({1, 1, 1});

  EXPECT_EQ(log.Copy(1, 1).size(), 1u);
  EXPECT_EQ(log.Copy(1, 2 * cost).size(), 2u);
  EXPECT_EQ(log.Copy(2, 100 * cost).size(), 2u);
  EXPECT_TRUE(log.Copy(4, 100).empty());
}

TEST(RaftLog, ResetLeavesAnEmptyLogAndVoidsReports) {
  RaftLog log = MakeLog({1, 1});
  log.Append(MakeEntry(3, 1));
  log.TakeUnstable(1);

  log.Reset(10, 4);

  EXPECT_EQ(log.first_index(), 11u);
  EXPECT_EQ(log.last_index(), 10u);
  EXPECT_EQ(log.commit_index(), 10u);
  log.Append(MakeEntry(11, 4));
  log.TakeUnstable(2);
  log.OnDurable(1);
  EXPECT_EQ(log.durable_index(), 10u);
  log.OnDurable(2);
  EXPECT_EQ(log.durable_index(), 11u);
}

TEST(RaftLog, ResetBelowTheEndVoidsReportsOfWhatWasAbove) {
  RaftLog log = MakeLog({1, 1});
  for (uint64_t i = 3; i <= 6; ++i) log.Append(MakeEntry(i, 1));
  log.TakeUnstable(1);

  log.Reset(4, 2);
  log.Append(MakeEntry(5, 2));
  log.TakeUnstable(2);
  log.OnDurable(1);

  EXPECT_EQ(log.durable_index(), 4u);
}

TEST(RaftLog, KnowsOfUnappliedConfigurations) {
  RaftLog log = MakeLog({1});
  log.Append(MakeEntry(2, 1, EntryKind::kConfiguration));
  EXPECT_EQ(log.UnappliedConfiguration(), 0u);
  log.CommitTo(2);
  EXPECT_EQ(log.UnappliedConfiguration(), 2u);
  log.ApplyTo(2);
  EXPECT_EQ(log.UnappliedConfiguration(), 0u);
  log.Append(MakeEntry(3, 1, EntryKind::kConfiguration));
  log.TruncateFrom(3);
  log.Append(MakeEntry(3, 2));
  log.CommitTo(3);
  EXPECT_EQ(log.UnappliedConfiguration(), 0u);
}

}  // namespace
}  // namespace keyway::raft
