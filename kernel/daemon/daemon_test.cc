// SPDX-License-Identifier: Apache-2.0
//
// The clock and the logger of the daemon.
#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>

#include "kernel/base/bytes.h"
#include "kernel/daemon/real_clock.h"
#include "kernel/daemon/stderr_logger.h"

namespace keyway {
namespace {

struct Waiter {
  Waiter() {
    completion.ctx = this;
    completion.done = [](kw_completion* self, int32_t done_code, const kw_error*) {
      auto* waiter = static_cast<Waiter*>(self->ctx);
      // Notified with the mutex held: the waiter may be destroyed as soon as it was waited for.
      std::lock_guard lock(waiter->mutex);
      waiter->code = done_code;
      waiter->is_fired = true;
      waiter->fired.notify_all();
    };
  }
  int32_t Wait() {
    std::unique_lock lock(mutex);
    fired.wait(lock, [this] { return is_fired; });
    return code;
  }
  kw_completion completion = {};
  int32_t code = KW_UNKNOWN;
  std::mutex mutex;
  std::condition_variable fired;
  bool is_fired = false;
};

TEST(RealClock, FiresAfterTheDelay) {
  RealClock clock;
  Waiter waiter;
  const uint64_t begin = clock.MonoNs();

  clock.After(2'000'000, &waiter.completion);

  EXPECT_EQ(waiter.Wait(), KW_OK);
  EXPECT_GE(clock.MonoNs() - begin, 2'000'000u);
}

TEST(RealClock, EarlierTimerOvertakes) {
  RealClock clock;
  Waiter late, early;

  clock.After(3'600'000'000'000, &late.completion);
  clock.After(1, &early.completion);

  EXPECT_EQ(early.Wait(), KW_OK);
  clock.Cancel(&late.completion);
  EXPECT_EQ(late.Wait(), KW_CANCELLED);
  clock.Cancel(&late.completion);  // It has fired already: nothing happens.
}

TEST(RealClock, FiresWhatIsLeftAtTheEnd) {
  Waiter waiter;
  {
    RealClock clock;
    clock.After(UINT64_MAX, &waiter.completion);
  }
  EXPECT_EQ(waiter.Wait(), KW_CANCELLED);
}

constexpr uint64_t kSomeNs = 1795647541'123456789;  // 2026-11-25T22:59:01.123456789Z

TEST(Logger, ConsoleLine) {
  const kw_field fields[] = {{"term", ToSlice("3")}, {"why", ToSlice("a \"b\"\n")}, {"none", ToSlice("")}};
  EXPECT_EQ(
      FormatLine(LogFormat::kConsole, kSomeNs, KW_LOG_INFO, "core/node.cc:12", "leader_elected", fields),
      "2026-11-25T22:59:01.123Z INFO leader_elected term=3 why=\"a \\\"b\\\"\\n\" none=\"\" "
      "caller=core/node.cc:12");
}

TEST(Logger, JsonLine) {
  const kw_field fields[] = {{"bytes", ToSlice("\xff\xc3\xa4\x01")}};
  EXPECT_EQ(FormatLine(LogFormat::kJson, kSomeNs, KW_LOG_WARN, "log-segmented", "slow", fields),
            "{\"level\":\"warn\",\"ts\":\"2026-11-25T22:59:01.123456Z\",\"caller\":\"log-segmented\","
            "\"msg\":\"slow\",\"bytes\":\"\\ufffd\xc3\xa4\\u0001\"}");
}

TEST(Logger, WritesWholeLinesAboveTheLevel) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  RealClock clock;
  StderrLogger logger(&clock, KW_LOG_WARN, LogFormat::kConsole, ends[1]);

  Log(&logger, KW_LOG_INFO, "dropped");
  Log(&logger, KW_LOG_ERROR, "kept", {{"n", 1}});
  close(ends[1]);

  char text[512];
  const ssize_t bytes = read(ends[0], text, sizeof text);
  close(ends[0]);
  ASSERT_GT(bytes, 0);
  const std::string line(text, static_cast<size_t>(bytes));
  EXPECT_NE(line.find(" ERROR kept n=1 caller=daemon/daemon_test.cc:"), std::string::npos) << line;
  EXPECT_EQ(line.find('\n'), line.size() - 1);
}

}  // namespace
}  // namespace keyway
