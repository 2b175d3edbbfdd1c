// SPDX-License-Identifier: Apache-2.0
//
// LogWriter: the [log] lane's side of the log store. Consecutive appends that have queued up while the
// disk was busy go down as one append (group commit); no timer is involved.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
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
  std::vector<raft::Entry> entries;         // kAppend; kept alive until completed
  std::optional<kw_hard_state> hard_state;  // kAppend
  uint64_t index = 0, term = 0;             // kTruncatePrefix: first kept. kReset: base.
  int32_t code = KW_OK;                     // Result.
  std::string error;
  std::function<void(LogJob*)> on_complete;

  void Execute() override {}  // LogWriter does it, for several at once.
  void Complete() override { on_complete(this); }
};

class LogWriter {
 public:
  // `done` is called once for each job that has its result, on [log] or on a thread of the plugin, in
  // the order of the jobs.
  LogWriter(kw_plugin* plugin, const kw_log_store* store, std::function<void(LogJob*)> done)
      : plugin_(plugin), store_(store), done_(std::move(done)) {}
  ~LogWriter() { KW_CHECK(outstanding_.load() / kOneJob == 0); }

  // [log] Hands the jobs to the store, in order. After a failure every later job fails with the same
  // error: what the disk holds is unknown then (fsyncgate).
  void Submit(const std::vector<LogJob*>& jobs);
  // [core], while Submit() is not running and nothing waits for it: as Submit() of one append, if the
  // store takes it without waiting. False: nothing was done.
  bool TrySubmit(LogJob* job);
  // [log] or [control], one thread at a time. Returns when every job has its result.
  void WaitUntilIdle();

 private:
  // One call of the store: the jobs that it answers for.
  struct Call {
    kw_completion completion{};
    LogWriter* writer = nullptr;
    std::vector<LogJob*> jobs;
    std::vector<kw_log_entry> entries;
  };
  // The entries and the last hard state of the call's jobs.
  static const kw_hard_state* Gather(Call* call);
  void Start(std::unique_ptr<Call> call);
  static void OnDone(kw_completion* completion, int32_t code, const kw_error* error);
  void Complete(Call* call, int32_t code, const char* error);

  kw_plugin* const plugin_;
  const kw_log_store* const store_;
  const std::function<void(LogJob*)> done_;
  // Jobs, times kOneJob; with kWaits if somebody waits for them, so that who completes the last one makes a
  // system call only then.
  static constexpr int32_t kWaits = 1, kOneJob = 2;
  std::atomic<int32_t> outstanding_{0};
  std::atomic<bool> failing_{false};  // Somebody writes the next two.
  std::atomic<bool> failed_{false};   // They are written.
  int32_t failed_code_ = KW_OK;
  std::string failed_error_;
};

// Runs one job and waits for it. [control]
void RunLogJob(kw_plugin* plugin, const kw_log_store* store, LogJob* job);

}  // namespace keyway::core
