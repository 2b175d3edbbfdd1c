// SPDX-License-Identifier: Apache-2.0
#include "kernel/core/log_writer.h"

#include <atomic>

namespace keyway::core {
namespace {

struct Waiter {
  kw_completion completion{};
  std::atomic<int32_t> state{KW_PENDING};
  std::string error;

  static void Done(kw_completion* self, int32_t code, const kw_error* error) {
    Waiter* waiter = static_cast<Waiter*>(self->ctx);
    if (code != KW_OK && error != nullptr) waiter->error = error->text;
    waiter->state.store(code, std::memory_order_release);
    waiter->state.notify_one();
  }
};

kw_log_entry ToAbi(const raft::Entry& entry) {
  return {entry.index, entry.term, static_cast<uint32_t>(entry.kind), entry.crc32c,
          entry.data.slice()};
}

}  // namespace

template <typename Start>
int32_t LogWriter::Await(Start start, std::string* error) {
  Waiter waiter;
  waiter.completion.done = &Waiter::Done;
  waiter.completion.ctx = &waiter;
  int32_t code = start(&waiter.completion);
  if (code == KW_PENDING) {
    waiter.state.wait(KW_PENDING, std::memory_order_acquire);
    code = waiter.state.load(std::memory_order_acquire);
    *error = waiter.error;
  }
  if (code != KW_OK && error->empty()) *error = "the log store gave no reason";
  return code;
}

void LogWriter::Append(LogJob* const* begin, LogJob* const* end) {
  entries_.clear();
  const std::optional<kw_hard_state>* hard_state = nullptr;
  for (LogJob* const* job = begin; job != end; ++job) {
    for (const raft::Entry& entry : (*job)->entries) entries_.push_back(ToAbi(entry));
    if ((*job)->hard_state.has_value()) hard_state = &(*job)->hard_state;
  }
  std::string error;
  int32_t code = Await(
      [&](kw_completion* completion) {
        return store_->append(plugin_, entries_.data(), entries_.size(),
                              hard_state != nullptr ? &**hard_state : nullptr, completion);
      },
      &error);
  for (LogJob* const* job = begin; job != end; ++job) {
    (*job)->code = code;
    (*job)->error = error;
  }
}

void LogWriter::Run(const std::vector<LogJob*>& jobs) {
  size_t at = 0;
  while (at < jobs.size()) {
    LogJob* job = jobs[at];
    if (failed_) {
      job->code = failed_code_;
      job->error = failed_error_;
      ++at;
      continue;
    }
    size_t next = at + 1;
    switch (job->op) {
      case LogJob::Kind::kAppend: {
        // Appends join as long as their entries go on where the one before ended.
        uint64_t last = job->entries.empty() ? 0 : job->entries.back().index;
        while (next < jobs.size() && jobs[next]->op == LogJob::Kind::kAppend) {
          const auto& entries = jobs[next]->entries;
          if (!entries.empty()) {
            if (last != 0 && entries.front().index != last + 1) break;
            last = entries.back().index;
          }
          ++next;
        }
        Append(&jobs[at], &jobs[at] + (next - at));
        break;
      }
      case LogJob::Kind::kTruncatePrefix:
        job->code = Await(
            [&](kw_completion* c) { return store_->truncate_prefix(plugin_, job->index, c); },
            &job->error);
        break;
      case LogJob::Kind::kReset:
        job->code = Await(
            [&](kw_completion* c) { return store_->reset(plugin_, job->index, job->term, c); },
            &job->error);
        break;
    }
    if (job->code != KW_OK) {
      failed_ = true;
      failed_code_ = job->code;
      failed_error_ = job->error;
    }
    at = next;
  }
}

}  // namespace keyway::core
