// SPDX-License-Identifier: Apache-2.0
//
// The worker thread: copies of the store, and giving disk space back.
#include <rocksdb/utilities/checkpoint.h>

#include <cerrno>
#include <cstring>

#include "engine.h"

namespace keyway::storage_rocksdb {
namespace {

int SyncDirectory(const std::string& path) {
  const int directory = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return errno;
  const int result = ::fsync(directory) == 0 ? 0 : errno;
  ::close(directory);
  return result;
}

}  // namespace

int32_t Engine::Checkpoint(const char* directory, kw_completion* completion) {
  return Enqueue({directory, completion});
}
int32_t Engine::Reclaim(kw_completion* completion) { return Enqueue({"", completion}); }

int32_t Engine::Enqueue(Job job) {
  std::lock_guard lock(worker_mutex_);
  if (stopping_) return KW_UNAVAILABLE;
  if (jobs_.size() >= kJobsMax) return KW_RESOURCE_EXHAUSTED;
  jobs_.push_back(std::move(job));
  work_.notify_one();
  return KW_PENDING;
}

void Engine::RunWorker() {
  std::unique_lock lock(worker_mutex_);
  while (true) {
    work_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    const bool cancelled = stopping_;
    lock.unlock();
    kw_error error = NoError();
    const int32_t code = cancelled ? Fail(&error, KW_CANCELLED, "the store was stopped")
                                   : Guard(&error, [&] { return RunJob(job, &error); });
    Complete(job.completion, code, &error);
    lock.lock();
  }
}

int32_t Engine::RunJob(const Job& job, kw_error* error) {
  if (!job.directory.empty()) return RunCheckpoint(job.directory, error);
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = false;  // The others go on.
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  const rocksdb::Status status = database_->CompactRange(options, nullptr, nullptr);
  if (!status.ok()) return Failed(error, "compact", status);
  RefreshStats(database_.get());
  return KW_OK;
}

// Hard links to the tables, which never change, and a copy of the MANIFEST.
int32_t Engine::RunCheckpoint(const std::string& directory, kw_error* error) {
  rocksdb::Checkpoint* made = nullptr;
  rocksdb::Status status = rocksdb::Checkpoint::Create(database_.get(), &made);
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
  if (status.ok()) status = checkpoint->CreateCheckpoint(directory + "/db");
  if (!status.ok()) {
    Failed(error, "", status);  // For the code. A directory that is in use is an invalid argument.
    return Fail(error, error->code, directory, ": checkpoint: ", std::string_view(status.ToString()));
  }
  if (const int result = SyncDirectory(directory); result != 0) {
    return Fail(error, CodeOfErrno(result), directory, ": fsync: ", std::string_view(std::strerror(result)));
  }
  return KW_OK;
}

}  // namespace keyway::storage_rocksdb
