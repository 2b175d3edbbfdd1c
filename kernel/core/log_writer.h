// SPDX-License-Identifier: Apache-2.0
//
// LogWriter: the [log] lane's side of the log store. Consecutive appends that have queued up while the
// disk was busy go down as one append (group commit); no timer is involved.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernel/core/executor.h"
#include "kernel/raft/types.h"
#include "keyway/log_store.h"

namespace keyway::core {

// One durable step of the log. Completed on [core] by the subclass or function given.
struct LogJob : public Job {
  enum class Kind { kAppend, kTruncatePrefix, kReset };
  Kind op = Kind::kAppend;
  std::vector<raft::Entry> entries;           // kAppend; kept alive until completed
  std::optional<kw_hard_state> hard_state;    // kAppend
  uint64_t index = 0, term = 0;               // kTruncatePrefix: first kept. kReset: base.
  int32_t code = KW_OK;                       // Result.
  std::string error;
  std::function<void(LogJob*)> on_complete;

  void Execute() override {}  // LogWriter::Run does it, for a batch.
  void Complete() override { on_complete(this); }
};

class LogWriter {
 public:
  LogWriter(kw_plugin* plugin, const kw_log_store* store) : plugin_(plugin), store_(store) {}

  // Executes the jobs in order and sets their results. Blocks until all are durable. After a failure
  // every later job fails with the same error: what the disk holds is unknown then (fsyncgate).
  void Run(const std::vector<LogJob*>& jobs);

 private:
  void Append(LogJob* const* begin, LogJob* const* end);
  // Calls `start` with a completion and waits for the final code.
  template <typename Start>
  int32_t Await(Start start, std::string* error);

  kw_plugin* const plugin_;
  const kw_log_store* const store_;
  std::vector<kw_log_entry> entries_;  // Reused.
  bool failed_ = false;
  int32_t failed_code_ = KW_OK;
  std::string failed_error_;
};

}  // namespace keyway::core
