// SPDX-License-Identifier: Apache-2.0
#include "kernel/core/log_writer.h"

#include "kernel/base/futex.h"

namespace keyway::core {
namespace {

kw_log_entry ToAbi(const raft::Entry& entry) {
  return {entry.index, entry.term, static_cast<uint32_t>(entry.kind), entry.crc32c, entry.data.slice()};
}

}  // namespace

void LogWriter::Submit(const std::vector<LogJob*>& jobs) {
  outstanding_.fetch_add(static_cast<int32_t>(jobs.size()) * kOneJob, std::memory_order_relaxed);
  size_t at = 0;
  while (at < jobs.size()) {
    auto call = std::make_unique<Call>();
    call->jobs.push_back(jobs[at++]);
    // Appends join as long as their entries go on where the one before ended.
    if (call->jobs[0]->op == LogJob::Kind::kAppend) {
      const auto& first = call->jobs[0]->entries;
      uint64_t last = first.empty() ? 0 : first.back().index;
      while (at < jobs.size() && jobs[at]->op == LogJob::Kind::kAppend) {
        const auto& entries = jobs[at]->entries;
        if (!entries.empty()) {
          if (last != 0 && entries.front().index != last + 1) break;
          last = entries.back().index;
        }
        call->jobs.push_back(jobs[at++]);
      }
    }
    Start(std::move(call));
  }
}

const kw_hard_state* LogWriter::Gather(Call* call) {
  const kw_hard_state* hard_state = nullptr;
  for (const LogJob* job : call->jobs) {
    for (const raft::Entry& entry : job->entries) call->entries.push_back(ToAbi(entry));
    if (job->hard_state.has_value()) hard_state = &*job->hard_state;
  }
  return hard_state;
}

bool LogWriter::TrySubmit(LogJob* job) {
  if (job->op != LogJob::Kind::kAppend || failed_.load(std::memory_order_acquire)) return false;
  auto call = std::make_unique<Call>();
  call->jobs.push_back(job);
  call->writer = this;
  call->completion.ctx = call.get();
  call->completion.done = &LogWriter::OnDone;
  const kw_hard_state* hard_state = Gather(call.get());
  outstanding_.fetch_add(kOneJob, std::memory_order_relaxed);
  const int32_t code =
      store_->try_append(plugin_, call->entries.data(), call->entries.size(), hard_state, &call->completion);
  if (code == KW_PENDING) {
    call.release();  // Complete() frees it, or has done so.
    return true;
  }
  if (code == KW_OK) {
    Complete(call.release(), KW_OK, nullptr);
    return true;
  }
  outstanding_.fetch_sub(kOneJob, std::memory_order_relaxed);
  return false;
}

void LogWriter::Start(std::unique_ptr<Call> owned) {
  Call* call = owned.release();  // Complete() frees it.
  if (failed_.load(std::memory_order_acquire)) {
    return Complete(call, failed_code_, failed_error_.c_str());
  }
  call->writer = this;
  call->completion.ctx = call;
  call->completion.done = &LogWriter::OnDone;
  const LogJob* job = call->jobs[0];
  int32_t code = KW_PENDING;
  switch (job->op) {
    case LogJob::Kind::kAppend: {
      const kw_hard_state* hard_state = Gather(call);
      code =
          store_->append(plugin_, call->entries.data(), call->entries.size(), hard_state, &call->completion);
      break;
    }
    case LogJob::Kind::kTruncatePrefix:
      code = store_->truncate_prefix(plugin_, job->index, &call->completion);
      break;
    case LogJob::Kind::kReset:
      code = store_->reset(plugin_, job->index, job->term, &call->completion);
      break;
  }
  if (code != KW_PENDING) Complete(call, code, nullptr);
}

void LogWriter::OnDone(kw_completion* completion, int32_t code, const kw_error* error) {
  Call* call = static_cast<Call*>(completion->ctx);
  call->writer->Complete(call, code, error == nullptr ? nullptr : error->text);
}

void LogWriter::Complete(Call* owned, int32_t code, const char* error) {
  const std::unique_ptr<Call> call(owned);
  const std::string text = error == nullptr ? "the log store gave no reason" : error;
  if (code != KW_OK && !failing_.exchange(true)) {
    failed_code_ = code;
    failed_error_ = text;
    failed_.store(true, std::memory_order_release);
  }
  for (LogJob* job : call->jobs) {
    job->code = code;
    if (code != KW_OK) job->error = text;
    done_(job);
  }
  const int32_t done = static_cast<int32_t>(call->jobs.size()) * kOneJob;
  if (outstanding_.fetch_sub(done, std::memory_order_release) == done + kWaits) FutexWakeOne(&outstanding_);
}

void LogWriter::WaitUntilIdle() {
  int32_t left = outstanding_.fetch_or(kWaits, std::memory_order_acquire) | kWaits;
  while (left != kWaits) {
    FutexWait(&outstanding_, left);
    left = outstanding_.load(std::memory_order_acquire);
  }
  outstanding_.fetch_and(~kWaits, std::memory_order_relaxed);
}

void RunLogJob(kw_plugin* plugin, const kw_log_store* store, LogJob* job) {
  LogWriter writer(plugin, store, [](LogJob*) {});
  writer.Submit({job});
  writer.WaitUntilIdle();
}

}  // namespace keyway::core
