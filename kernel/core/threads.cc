// SPDX-License-Identifier: Apache-2.0
#include "kernel/core/threads.h"

#include <pthread.h>

#include "kernel/base/thread_role.h"

namespace keyway::core {
namespace {

void NameThread(const char* name, ThreadRole role) {
  pthread_setname_np(pthread_self(), name);
  thread_role = role;
}

}  // namespace

Threads::Threads(Inbox* inbox, LogWriter* log_writer, int reader_count)
    : inbox_(inbox), log_writer_(log_writer) {
  threads_.emplace_back([this] { RunLog(); });
  threads_.emplace_back([this] { RunStore(); });
  for (int i = 0; i < reader_count; ++i) threads_.emplace_back([this] { RunReader(); });
}

void Threads::Stop() {
  if (stopped_) return;
  stopped_ = true;
  log_jobs_.Push(&log_stop_);
  store_jobs_.Push(&store_stop_);
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  read_work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Threads::Submit(Lane lane, std::unique_ptr<Job> job) {
  if (stopped_) return;
  switch (lane) {
    case Lane::kLog:
      if (log_jobs_left_.load(std::memory_order_acquire) == 0 &&
          log_writer_->TrySubmit(static_cast<LogJob*>(job.get()))) {
        job.release();
        return;
      }
      log_jobs_left_.fetch_add(1, std::memory_order_relaxed);
      log_jobs_.Push(job.release());
      return;
    case Lane::kStore:
      store_jobs_.Push(job.release());
      return;
    case Lane::kRead: {
      {
        std::lock_guard lock(mutex_);
        read_jobs_.push_back(std::move(job));
      }
      read_work_.notify_one();
      return;
    }
  }
  KW_UNREACHABLE();
}

void Threads::RunLog() {
  NameThread("kw-log", ThreadRole::kLog);
  std::vector<LogJob*> jobs;
  while (true) {
    log_jobs_.Wait();
    jobs.clear();
    bool stop = false;
    for (InboxNode* node = log_jobs_.Take(); node != nullptr; node = node->next) {
      if (node->kind == 0) {
        stop = true;
      } else {
        jobs.push_back(static_cast<LogJob*>(static_cast<Job*>(node)));
      }
    }
    log_writer_->Submit(jobs);
    log_jobs_left_.fetch_sub(static_cast<int>(jobs.size()), std::memory_order_release);
    if (stop) return log_writer_->WaitUntilIdle();
  }
}

void Threads::RunStore() {
  NameThread("kw-store", ThreadRole::kStore);
  while (true) {
    store_jobs_.Wait();
    InboxNode* node = store_jobs_.Take();
    while (node != nullptr) {
      InboxNode* next = node->next;
      if (node->kind == 0) return;  // The last one ever pushed.
      Job* job = static_cast<Job*>(node);
      job->Execute();
      inbox_->Push(job);
      node = next;
    }
  }
}

void Threads::RunReader() {
  NameThread("kw-read", ThreadRole::kRead);
  while (true) {
    std::unique_ptr<Job> job;
    {
      std::unique_lock lock(mutex_);
      read_work_.wait(lock, [this] { return stopping_ || !read_jobs_.empty(); });
      if (read_jobs_.empty()) return;
      job = std::move(read_jobs_.front());
      read_jobs_.pop_front();
    }
    job->Execute();
    inbox_->Push(job.release());
  }
}

}  // namespace keyway::core
