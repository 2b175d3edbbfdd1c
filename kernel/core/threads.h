// SPDX-License-Identifier: Apache-2.0
//
// Threads: the executor of the daemon. One log thread, one store thread, a few readers; each executes
// its jobs and puts them into the core's inbox (jobs of the log: whoever completes them).
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "kernel/core/executor.h"
#include "kernel/core/log_writer.h"

namespace keyway::core {

class Threads : public Executor {
 public:
  // `inbox` and `log_writer` outlive this; the writer puts finished jobs into the inbox.
  Threads(Inbox* inbox, LogWriter* log_writer, int reader_count);
  ~Threads() override { Stop(); }
  // [control] Executes what was submitted, then ends the threads. Completions are left in the inbox. What
  // is submitted afterwards (by the completion of a job, for instance) is dropped. May be called again.
  void Stop();

  void Submit(Lane lane, std::unique_ptr<Job> job) override;

 private:
  void RunLog();
  void RunStore();
  void RunReader();

  Inbox* const inbox_;
  LogWriter* const log_writer_;
  Inbox log_jobs_, store_jobs_;
  std::atomic<int> log_jobs_left_{0};  // Given to the log thread and not yet handed to the store.
  InboxNode log_stop_, store_stop_;    // kind 0: the last node.
  std::mutex mutex_;
  std::condition_variable read_work_;
  std::deque<std::unique_ptr<Job>> read_jobs_;  // Guarded by mutex_.
  bool stopping_ = false;                       // Guarded by mutex_.
  bool stopped_ = false;                        // Stop() and Submit() are never called at the same time.
  std::vector<std::thread> threads_;
};

}  // namespace keyway::core
