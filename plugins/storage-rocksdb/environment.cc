// SPDX-License-Identifier: Apache-2.0
#include "environment.h"

#include <rocksdb/threadpool.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>

namespace keyway::storage_rocksdb {
namespace {

class Environment : public rocksdb::EnvWrapper {
 public:
  Environment() : EnvWrapper(rocksdb::Env::Default()) {
    flushes_.reset(rocksdb::NewThreadPool(1));
    compactions_.reset(rocksdb::NewThreadPool(1));
  }
  ~Environment() override {
    flushes_->JoinAllThreads();
    compactions_->JoinAllThreads();
  }

  // Nothing is ever unscheduled (UnSchedule gives 0): at its end the database waits for what it
  // scheduled, and those jobs see that it ends.
  void Schedule(void (*function)(void*), void* argument, Priority priority, void*, void (*)(void*)) override {
    PoolOf(priority).SubmitJob([=] { function(argument); });
  }
  int UnSchedule(void*, Priority) override { return 0; }
  unsigned int GetThreadPoolQueueLen(Priority priority) const override {
    return PoolOf(priority).GetQueueLen();
  }
  void SetBackgroundThreads(int number, Priority priority) override {
    PoolOf(priority).SetBackgroundThreads(number);
  }
  int GetBackgroundThreads(Priority priority) override { return PoolOf(priority).GetBackgroundThreads(); }
  void IncBackgroundThreadsIfNeeded(int number, Priority priority) override {
    if (number > PoolOf(priority).GetBackgroundThreads()) PoolOf(priority).SetBackgroundThreads(number);
  }
  int ReserveThreads(int, Priority) override { return 0; }
  int ReleaseThreads(int, Priority) override { return 0; }
  void LowerThreadPoolIOPriority(Priority) override {}
  void LowerThreadPoolCPUPriority(Priority) override {}
  rocksdb::Status LowerThreadPoolCPUPriority(Priority, rocksdb::CpuPriority) override {
    return rocksdb::Status::OK();
  }

 private:
  rocksdb::ThreadPool& PoolOf(Priority priority) const {
    return priority == Priority::HIGH ? *flushes_ : *compactions_;
  }
  std::unique_ptr<rocksdb::ThreadPool> flushes_, compactions_;
};

class InfoLog : public rocksdb::Logger {
 public:
  explicit InfoLog(const keyway::Logger& log) : rocksdb::Logger(rocksdb::WARN_LEVEL), log_(log) {}
  ~InfoLog() override { Close().PermitUncheckedError(); }

  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}  // Header lines.
  void Logv(const rocksdb::InfoLogLevel level, const char* format, va_list arguments) override {
    if (level < GetInfoLogLevel() || level >= rocksdb::HEADER_LEVEL) return;
    const uint32_t own = level >= rocksdb::ERROR_LEVEL ? KW_LOG_ERROR : KW_LOG_WARN;
    if (!log_.Enabled(own)) return;
    char text[1024];
    const int size = std::vsnprintf(text, sizeof text, format, arguments);
    if (size < 0) return;
    std::string_view message(text, std::min(sizeof text - 1, static_cast<size_t>(size)));
    while (!message.empty() && message.back() == '\n') message.remove_suffix(1);
    log_.Write(own, "rocksdb", {{"message", message}});
  }

 protected:
  rocksdb::Status CloseImpl() override { return rocksdb::Status::OK(); }

 private:
  const keyway::Logger log_;
};

}  // namespace

std::unique_ptr<rocksdb::Env> NewEnvironment() { return std::make_unique<Environment>(); }

std::shared_ptr<rocksdb::Logger> NewInfoLog(const Logger& log) { return std::make_shared<InfoLog>(log); }

}  // namespace keyway::storage_rocksdb
