// SPDX-License-Identifier: Apache-2.0
//
// StderrLogger: one line of text for each event, to a file descriptor.
//
//   console  2026-11-25T22:59:01.123Z INFO leader_elected term=3 votes=2 caller=core/node.cc:120
//   json     {"level":"info","ts":"2026-11-25T22:59:01.123456Z","caller":"core/node.cc:120",
//             "msg":"leader_elected","term":"3","votes":"2"}
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "kernel/plugin/clock.h"
#include "kernel/plugin/log.h"

namespace keyway {

enum class LogFormat { kConsole, kJson };

class StderrLogger : public Logger {
 public:
  // Longer lines are cut. A line is one write(2), so lines of several processes do not mix.
  static constexpr size_t kLineBytesMax = 16384;

  // `clock` outlives this; `fd` is borrowed.
  StderrLogger(Clock* clock, uint32_t level_min, LogFormat format, int fd = 2)
      : clock_(clock), level_min_(level_min), format_(format), fd_(fd) {}

  bool Enabled(uint32_t level) const override { return level >= level_min_; }
  void Write(uint32_t level, std::string_view caller, std::string_view event,
             std::span<const kw_field> fields) override;

 private:
  Clock* const clock_;
  const uint32_t level_min_;
  const LogFormat format_;
  const int fd_;
  std::mutex mutex_;  // Held while a line is written.
};

// The text of a line without its newline.
std::string FormatLine(LogFormat format, uint64_t wall_ns, uint32_t level, std::string_view caller,
                       std::string_view event, std::span<const kw_field> fields);

}  // namespace keyway
