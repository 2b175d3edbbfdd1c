// SPDX-License-Identifier: Apache-2.0
//
// The inbox, the lanes' threads and the log writer's group commit.
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "kernel/core/inbox.h"
#include "kernel/core/threads.h"

namespace keyway::core {
namespace {

struct Numbered : InboxNode {
  int sender = 0, number = 0;
};

TEST(Inbox, KeepsTheOrderOfEachSender) {
  constexpr int kSenders = 3, kNodes = 20000;
  std::vector<Numbered> nodes(kSenders * kNodes);
  Inbox inbox;
  std::vector<std::thread> senders;
  for (int sender = 0; sender < kSenders; ++sender) {
    senders.emplace_back([&, sender] {
      for (int i = 0; i < kNodes; ++i) {
        Numbered& node = nodes[sender * kNodes + i];
        node.sender = sender;
        node.number = i;
        inbox.Push(&node);
      }
    });
  }

  int next[kSenders] = {};
  for (int taken = 0; taken < kSenders * kNodes;) {
    inbox.Wait();
    for (InboxNode* node = inbox.Take(); node != nullptr; node = node->next, ++taken) {
      auto* numbered = static_cast<Numbered*>(node);
      ASSERT_EQ(numbered->number, next[numbered->sender]++);
    }
  }

  for (std::thread& sender : senders) sender.join();
}

// A log store that remembers its calls and can be told to fail.
struct FakeLog {
  std::vector<std::vector<uint64_t>> appends;
  std::vector<uint64_t> terms;
  int fail_at = -1;

  static FakeLog* Of(kw_plugin* plugin) { return static_cast<FakeLog*>(plugin->self); }
  static int32_t Append(kw_plugin* plugin, const kw_log_entry* entries, size_t count,
                        const kw_hard_state* hard_state, kw_completion* completion) {
    FakeLog* log = Of(plugin);
    std::vector<uint64_t> indexes;
    for (size_t i = 0; i < count; ++i) indexes.push_back(entries[i].index);
    log->appends.push_back(indexes);
    log->terms.push_back(hard_state == nullptr ? 0 : hard_state->term);
    if (static_cast<int>(log->appends.size()) - 1 == log->fail_at) {
      kw_error error{};
      error.size = sizeof error;
      snprintf(error.text, sizeof error.text, "EIO");
      completion->done(completion, KW_DATA_LOSS, &error);
    } else {
      completion->done(completion, KW_OK, nullptr);
    }
    return KW_PENDING;
  }
};

LogJob AppendJob(std::vector<uint64_t> indexes, uint64_t term = 0) {
  LogJob job;
  for (uint64_t index : indexes) job.entries.push_back({.index = index, .term = 1});
  if (term != 0) job.hard_state = kw_hard_state{term, 0, 0};
  return job;
}

class LogWriterTest : public testing::Test {
 protected:
  LogWriterTest() {
    plugin_.self = &log_;
    table_.append = &FakeLog::Append;
    table_.try_append = [](kw_plugin*, const kw_log_entry*, size_t, const kw_hard_state*,
                           kw_completion*) -> int32_t { return KW_UNAVAILABLE; };
  }
  FakeLog log_;
  kw_plugin plugin_{};
  kw_log_store table_{};
  std::vector<LogJob*> done_;
  LogWriter writer_{&plugin_, &table_, [this](LogJob* job) { done_.push_back(job); }};
};

TEST_F(LogWriterTest, JoinsAppendsThatFollowEachOther) {
  LogJob a = AppendJob({1, 2}, 5), b = AppendJob({}, 6), c = AppendJob({3});

  writer_.Submit({&a, &b, &c});

  EXPECT_EQ(log_.appends, (std::vector<std::vector<uint64_t>>{{1, 2, 3}}));
  EXPECT_EQ(log_.terms, (std::vector<uint64_t>{6}));
  EXPECT_EQ(done_, (std::vector<LogJob*>{&a, &b, &c}));
  EXPECT_EQ(c.code, KW_OK);
}

TEST_F(LogWriterTest, KeepsAnAppendThatReplacesTheTailApart) {
  LogJob a = AppendJob({1, 2, 3}), b = AppendJob({2}), c = AppendJob({3});

  writer_.Submit({&a, &b, &c});

  EXPECT_EQ(log_.appends, (std::vector<std::vector<uint64_t>>{{1, 2, 3}, {2, 3}}));
}

// fsyncgate: after a failed sync nothing may be acknowledged any more.
TEST_F(LogWriterTest, FailsEverythingAfterAFailure) {
  log_.fail_at = 0;
  LogJob a = AppendJob({1}), b = AppendJob({1}), c = AppendJob({2});

  writer_.Submit({&a, &b});
  writer_.Submit({&c});

  EXPECT_EQ(a.code, KW_DATA_LOSS);
  EXPECT_EQ(b.code, KW_DATA_LOSS);
  EXPECT_EQ(c.code, KW_DATA_LOSS);
  EXPECT_EQ(c.error, "EIO");
  EXPECT_EQ(log_.appends.size(), 1u);
}

TEST_F(LogWriterTest, TriesWithoutTheThreadAndFallsBack) {
  LogJob a = AppendJob({1});

  EXPECT_FALSE(writer_.TrySubmit(&a));
  EXPECT_TRUE(done_.empty());
  table_.try_append = &FakeLog::Append;
  EXPECT_TRUE(writer_.TrySubmit(&a));
  EXPECT_EQ(done_, (std::vector<LogJob*>{&a}));
}

TEST_F(LogWriterTest, ThreadsCompleteEveryJobOnce) {
  Inbox inbox;
  constexpr int kJobs = 300;
  std::atomic<int> executed{0};
  LogWriter writer(&plugin_, &table_, [&](LogJob* job) { inbox.Push(job); });
  {
    Threads threads(&inbox, &writer, 2);
    for (int i = 0; i < kJobs; ++i) {
      const Lane lane = i % 2 == 0 ? Lane::kRead : Lane::kStore;
      threads.Submit(lane, std::make_unique<FunctionJob>([&] { ++executed; }, [] {}));
      auto job = std::make_unique<LogJob>(AppendJob({static_cast<uint64_t>(i + 1)}));
      job->on_complete = [](LogJob*) {};
      threads.Submit(Lane::kLog, std::move(job));
    }
  }

  int completed = 0;
  for (InboxNode* node = inbox.Take(); node != nullptr; ++completed) {
    InboxNode* next = node->next;
    std::unique_ptr<Job> job(static_cast<Job*>(node));
    job->Complete();
    node = next;
  }
  EXPECT_EQ(executed.load(), kJobs);
  EXPECT_EQ(completed, 2 * kJobs);
  uint64_t expected = 1;
  for (const auto& append : log_.appends) {
    for (uint64_t index : append) EXPECT_EQ(index, expected++);
  }
}

}  // namespace
}  // namespace keyway::core
