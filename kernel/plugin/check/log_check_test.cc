// SPDX-License-Identifier: Apache-2.0
//
// One test a rule of checked_log.h, pending.h and watchdog.h, over a log in memory that breaks it.
#include <gtest/gtest.h>
#include <unistd.h>

#include "kernel/plugin/check/checked_log.h"
#include "kernel/plugin/check/fakes_test_util.h"
#include "kernel/plugin/check/watchdog.h"

namespace keyway::check {
namespace {

NullLogger logger;
const ::testing::ExitedWithCode kCondemned(kExitBrokenPlugin);

class LogCheck : public ::testing::Test {
 protected:
  void SetUp() override { thread_role = ThreadRole::kControl; }
  void Make(Level level) {
    subject_ = Subject::Make("log-x", level, &logger);
    checked_ = std::make_unique<CheckedLog>(subject_, &log_.plugin, log_.Table());
  }
  int32_t Recover() {
    kw_hard_state state{};
    kw_log_bounds bounds{};
    return checked_->table().recover(checked_->plugin(), &state, &bounds, &error_);
  }
  kw_completion* NewCompletion() {
    completions_.push_back(std::make_unique<kw_completion>());
    completions_.back()->ctx = &done_;
    completions_.back()->done = [](kw_completion* self, int32_t, const kw_error*) {
      ++*static_cast<int*>(self->ctx);
    };
    return completions_.back().get();
  }
  int32_t Append(uint64_t index, std::string_view data = "data", bool tries = false) {
    const kw_log_entry entry = EntryOf(index, 1, data);
    const auto append = tries ? checked_->table().try_append : checked_->table().append;
    return append(checked_->plugin(), &entry, 1, nullptr, NewCompletion());
  }
  int32_t Read(uint64_t begin, uint64_t end) {
    kw_log_batch* batch = nullptr;
    const int32_t code = checked_->table().read(checked_->plugin(), begin, end, 1 << 20, &batch, &error_);
    if (code == KW_OK) batch->release(batch);
    return code;
  }

  MemoryLog log_;
  Subject* subject_ = nullptr;
  std::unique_ptr<CheckedLog> checked_;
  std::vector<std::unique_ptr<kw_completion>> completions_;
  int done_ = 0;
  kw_error error_{sizeof(kw_error)};
};

TEST_F(LogCheck, KeepsQuietAboutAGoodLog) {
  Make(Level::kCheap);
  ASSERT_EQ(Recover(), KW_OK);
  for (uint64_t i = 1; i <= 300; ++i) {
    EXPECT_EQ(Append(i, "data", i % 2 == 0), KW_PENDING);
    if (i % 3 == 0) {
      while (!log_.pending.empty()) log_.Complete();
    }
  }
  EXPECT_EQ(Append(250, "overwrites"), KW_PENDING);
  EXPECT_EQ(Read(280, 290), KW_OUT_OF_RANGE) << "it is not acknowledged any more";
  log_.Complete();
  EXPECT_EQ(done_, 301);
  EXPECT_EQ(Read(1, 20), KW_OK);
  EXPECT_EQ(checked_->table().truncate_prefix(checked_->plugin(), 100, NewCompletion()), KW_PENDING);
  log_.entries.erase(log_.entries.begin(), log_.entries.find(100));
  EXPECT_EQ(Read(1, 20), KW_OUT_OF_RANGE);
  log_.Complete();
  checked_->BeforeStop();
  checked_->CheckStopped();
}

TEST_F(LogCheck, SoundBounds) {
  Make(Level::kCheap);
  log_.bounds = {5, 2, 1};
  EXPECT_EXIT(Recover(), kCondemned,
              "log-store.recover gave the bounds first 5, last 2.*\\(rule sound-bounds");
}

TEST_F(LogCheck, CompletionsInOrder) {
  Make(Level::kCheap);
  Recover();
  Append(1);
  Append(2);
  EXPECT_EXIT(log_.Complete(1), kCondemned,
              "log-store.append completed submission 1 before 0 \\(rule completions-in-order\\)");
}

TEST_F(LogCheck, DoneFiresOnce) {
  Make(Level::kCheap);
  Recover();
  Append(1);
  kw_completion* completion = log_.pending[0];
  log_.Complete();
  EXPECT_EXIT(completion->done(completion, KW_OK, nullptr), kCondemned,
              "log-store.append called done\\(\\) twice \\(rule done-fires-once\\)");
}

TEST_F(LogCheck, DoneOrFinalCode) {
  Make(Level::kCheap);
  Recover();
  kw_log_store table = log_.Table();
  table.append = [](kw_plugin*, const kw_log_entry*, size_t, const kw_hard_state*,
                    kw_completion* completion) {
    completion->done(completion, KW_OK, nullptr);
    return KW_OK + 0;
  };
  checked_ = std::make_unique<CheckedLog>(subject_, &log_.plugin, table);
  EXPECT_EXIT(Append(1), kCondemned,
              "completed and returned the final code 0 as well \\(rule done-or-final-code\\)");
}

TEST_F(LogCheck, DoneCodeOfTheEnum) {
  Make(Level::kCheap);
  Recover();
  Append(1);
  EXPECT_EXIT(log_.Complete(0, KW_PENDING), kCondemned, "rule code-of-the-enum");
}

TEST_F(LogCheck, DoneBeforeStop) {
  Make(Level::kCheap);
  Recover();
  Append(1);
  EXPECT_EXIT(checked_->CheckStopped(), kCondemned, "had not called done.*\\(rule done-before-stop\\)");
  subject_->SetStopped();
  EXPECT_EXIT(log_.Complete(), kCondemned, "rule no-call-after-stop");
}

TEST_F(LogCheck, RefusesWithUnavailable) {
  Make(Level::kCheap);
  Recover();
  log_.refusal = KW_UNAVAILABLE;
  EXPECT_EQ(Append(1, "data", true), KW_UNAVAILABLE);
  log_.refusal = KW_INTERNAL;
  EXPECT_EXIT(Append(1, "data", true), kCondemned, "rule refuses-with-unavailable");
}

TEST_F(LogCheck, EntriesConsecutive) {
  Make(Level::kCheap);
  Recover();
  for (uint64_t i = 1; i <= 5; ++i) Append(i);
  log_.reading = [](std::vector<kw_log_entry>* entries) { (*entries)[1].index = 9; };
  EXPECT_EXIT(Read(1, 4), kCondemned,
              "gave entry 9 of term 1 where 2 comes next \\(rule entries-consecutive");
  log_.reading = [](std::vector<kw_log_entry>* entries) { (*entries)[1].term = 0; };
  EXPECT_EXIT(Read(1, 4), kCondemned, "rule entries-consecutive");
  log_.reading = [](std::vector<kw_log_entry>* entries) { entries->push_back(entries->back()); };
  EXPECT_EXIT(Read(1, 4), kCondemned, "gave 4 entries .*\\(rule at-least-one-entry");
}

TEST_F(LogCheck, AcknowledgedIsReadable) {
  Make(Level::kCheap);
  Recover();
  Append(1);
  log_.drops = true;
  Append(2);
  EXPECT_EQ(Read(2, 3), KW_OUT_OF_RANGE) << "not acknowledged yet";
  log_.Complete();
  log_.Complete();
  EXPECT_EXIT(Read(2, 3), kCondemned,
              "log-store.read answered 11 for the acknowledged entries \\[2, 3\\) "
              "\\(rule acknowledged-is-readable\\)");
}

TEST_F(LogCheck, AcknowledgedIsReadBackAtLevelFull) {
  EXPECT_EXIT(
      {
        Make(Level::kFull);
        Recover();
        log_.drops = true;
        Append(1);
        log_.Complete();
        while (true) pause();
      },
      kCondemned, "rule acknowledged-is-readable");
}

TEST_F(LogCheck, EntryUnchanged) {
  EXPECT_EXIT(
      {
        Make(Level::kFull);
        Recover();
        log_.reading = [](std::vector<kw_log_entry>* entries) { (*entries)[0].data = ToSlice("other"); };
        Append(1);
        log_.Complete();
        while (true) pause();
      },
      kCondemned, "gave entry 1 of term 1 with checksum .*\\(rule entry-unchanged\\)");
}

TEST_F(LogCheck, ResetDropsAll) {
  EXPECT_EXIT(
      {
        Make(Level::kFull);
        Recover();
        Append(1);
        log_.Complete();
        checked_->table().reset(checked_->plugin(), 1, 1, NewCompletion());
        log_.Complete();
        while (true) pause();
      },
      kCondemned, "log-store.reset left entry 1.*\\(rule reset-drops-all\\)");
}

TEST_F(LogCheck, WatchdogEndsWhatNeverCompletes) {
  EXPECT_EXIT(
      {
        Make(Level::kCheap);
        Recover();
        Deadlines deadlines;
        deadlines.stop_ns = 100'000'000;
        Watchdog watchdog(nullptr, &logger, deadlines);
        watchdog.Add(&checked_->pending());
        Append(1);
        while (true) pause();
      },
      kCondemned,
      "log-store.append has not called done\\(\\) for 1[0-9][0-9] ms \\(rule within-the-deadline");
}

TEST_F(LogCheck, WatchdogEndsWhatNeverReturns) {
  EXPECT_EXIT(
      {
        Make(Level::kCheap);
        Recover();
        Deadlines deadlines;
        deadlines.stop_ns = 100'000'000;
        Watchdog watchdog(nullptr, &logger, deadlines);
        log_.reading = [](std::vector<kw_log_entry>*) {
          while (true) pause();
        };
        Read(1, 2);
      },
      kCondemned, "log-store.read has not returned for .*\\(rule within-the-deadline");
}

}  // namespace
}  // namespace keyway::check
