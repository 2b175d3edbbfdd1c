// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/sim_log.h"

#include <algorithm>

#include "kernel/raft/types.h"
#include "plugins/log-segmented/log_store.h"
#include "tests/sim/world/random.h"
#include "tests/sim/world/sim_disk.h"

namespace keyway::sim {

struct SimLog::Real {
  Real(SimDisk* disk, log_segmented::Options options) : store(*disk, std::move(options)) {}
  log_segmented::LogStore store;
};

void LogChange::ApplyTo(LogShadow* log) const {
  switch (kind) {
    case Kind::kAppend:
      if (!entries.empty()) {
        log->entries.resize(std::min<uint64_t>(log->entries.size(), index - log->base_index - 1));
        log->entries.insert(log->entries.end(), entries.begin(), entries.end());
      }
      if (has_hard_state) log->hard_state = hard_state;
      return;
    case Kind::kTruncatePrefix:
      while (log->base_index + 1 < index && !log->entries.empty()) {
        log->base_term = log->entries.front().term;
        log->entries.pop_front();
        ++log->base_index;
      }
      return;
    case Kind::kReset:
      log->entries.clear();
      log->base_index = index;
      log->base_term = term;
      return;
  }
}

SimLog::SimLog(SimDisk* disk, uint64_t segment_bytes, uint64_t seed, LogRecord* record, Boundary* boundary,
               std::function<void()> changed)
    : record_(record), boundary_(boundary), changed_(std::move(changed)) {
  log_segmented::Options options;
  options.directory = "/log";
  options.segment_bytes = segment_bytes;
  options.ids = [random = Random(seed)]() mutable { return random.Next(); };
  options.has_threads = false;
  real_ = std::make_unique<Real>(disk, std::move(options));
  plugin_.size = sizeof plugin_;
  plugin_.self = this;
}

SimLog::~SimLog() = default;

bool SimLog::Open(std::string* error) {
  log_segmented::Status status = real_->store.Open(nullptr);
  if (!status.ok()) *error = status.text;
  return status.ok();
}

bool SimLog::BeginFlush() { return recovered_ && real_->store.BeginFlush(); }
void SimLog::EndFlush() { real_->store.EndFlush(); }
bool SimLog::Mark() { return recovered_ && real_->store.Mark(); }
void SimLog::MakeSegments() {
  if (recovered_) real_->store.MakeSegments();
}
void SimLog::Close() { real_->store.Stop(); }

// ---- calls ---------------------------------------------------------------------------------------------

void SimLog::OnDone(kw_completion* completion, int32_t code, const kw_error* error) {
  const std::unique_ptr<Pending> pending(static_cast<Pending*>(completion->ctx));
  SimLog& log = *pending->log;
  if (code == KW_OK && !log.boundary_->dying()) {
    log.record_->unacknowledged.front().ApplyTo(&log.record_->acknowledged);
    log.record_->unacknowledged.pop_front();
  }
  pending->original->done(pending->original, code, error);
}

void SimLog::Note(const LogChange& change) {
  if (change.kind == LogChange::Kind::kAppend && on_entry) {
    uint64_t index = change.index;
    uint64_t before = 0;
    if (index == written_.base_index + 1) {
      before = written_.base_term;
    } else if (const LogShadow::Entry* entry = written_.Find(index - 1)) {
      before = entry->term;
    }
    for (const LogShadow::Entry& entry : change.entries) {
      on_entry(index++, entry.term, before, entry.crc32c);
      before = entry.term;
    }
  }
  change.ApplyTo(&written_);
}

int32_t SimLog::Start(Call call, LogChange change, kw_completion* completion,
                      const std::function<int32_t(kw_completion*)>& run) {
  if (const int32_t code = boundary_->Cross(call); code != KW_OK) return code;
  auto pending = std::make_unique<Pending>();
  pending->completion.done = &SimLog::OnDone;
  pending->completion.ctx = pending.get();
  pending->original = completion;
  pending->log = this;
  record_->unacknowledged.push_back(change);
  const int32_t code = run(&pending->completion);
  if (code != KW_PENDING) {
    record_->unacknowledged.pop_back();
    return code;
  }
  pending.release();
  Note(change);
  if (flush_at_once_) {
    (void)real_->store.BeginFlush();
    real_->store.EndFlush();
  } else {
    changed_();
  }
  return KW_PENDING;
}

int32_t SimLog::Append(Call call, const kw_log_entry* entries, size_t count, const kw_hard_state* hard_state,
                       kw_completion* completion) {
  LogChange change;
  change.index = count == 0 ? 0 : entries[0].index;
  for (size_t i = 0; i < count; ++i) {
    change.entries.push_back({entries[i].term, entries[i].crc32c});
    const bool changes_members = entries[i].kind == static_cast<uint32_t>(raft::EntryKind::kConfiguration);
    if (changes_members && on_configuration) on_configuration(entries[i].index, entries[i].term);
  }
  change.has_hard_state = hard_state != nullptr;
  if (hard_state != nullptr) change.hard_state = *hard_state;
  return Start(call, std::move(change), completion, [&](kw_completion* done) {
    return call == Call::kLogTryAppend ? real_->store.TryAppend({entries, count}, hard_state, done)
                                       : real_->store.Append({entries, count}, hard_state, done);
  });
}

int32_t SimLog::Recover(kw_hard_state* hard_state, kw_log_bounds* bounds, kw_error* error) {
  if (const int32_t code = boundary_->Cross(Call::kLogRecover); code != KW_OK) {
    return Fail(error, code, "recover: injected failure");
  }
  log_segmented::Status status = real_->store.Recover(hard_state, bounds);
  if (!status.ok()) return status.Fill(error);
  CheckRecovered(*hard_state, *bounds);
  return KW_OK;
}

LogShadow SimLog::ReadBack(const kw_hard_state& hard_state, const kw_log_bounds& bounds) {
  LogShadow found;
  found.base_index = bounds.first - 1;
  found.base_term = bounds.base_term;
  found.hard_state = hard_state;
  for (uint64_t next = bounds.first; next <= bounds.last;) {
    kw_log_batch* batch = nullptr;
    // Injected errors do not stop this reader.
    log_segmented::Status status;
    for (int tries = 0; tries < 100; ++tries) {
      status = real_->store.Read(next, bounds.last + 1, 1 << 20, &batch);
      if (status.ok() || status.code == KW_DATA_LOSS) break;
    }
    if (!status.ok()) {
      violation_ = "what recovery found cannot be read: " + status.text;
      break;
    }
    for (size_t i = 0; i < batch->entry_count; ++i) {
      found.entries.push_back({batch->entries[i].term, batch->entries[i].crc32c});
    }
    next += batch->entry_count;
    batch->release(batch);
  }
  return found;
}

// What is found must be what was acknowledged, or that and some of what was on its way.
void SimLog::CheckAgainstRecord(const std::string& what,
                                const std::function<bool(const LogShadow& expected)>& is_found) {
  LogShadow expected = record_->acknowledged;
  bool matches = is_found(expected);
  for (const LogChange& change : record_->unacknowledged) {
    if (matches) break;
    change.ApplyTo(&expected);
    matches = is_found(expected);
  }
  if (matches || (record_->rebuilt.has_value() && is_found(*record_->rebuilt))) return;
  const LogShadow& acknowledged = record_->acknowledged;
  violation_ = "the log acknowledged [" + std::to_string(acknowledged.base_index + 1) + ", " +
               std::to_string(acknowledged.last_index()) + "] in term " +
               std::to_string(acknowledged.hard_state.term) + " with vote " +
               std::to_string(acknowledged.hard_state.vote) + "; after a restart it is " + what;
}

void SimLog::StartFrom(LogShadow found) {
  recovered_ = true;
  record_->acknowledged = found;
  record_->unacknowledged.clear();
  record_->rebuilt.reset();
  written_ = std::move(found);
}

void SimLog::CheckRecovered(const kw_hard_state& hard_state, const kw_log_bounds& bounds) {
  LogShadow found = ReadBack(hard_state, bounds);
  if (!violation_.empty()) return;
  CheckAgainstRecord(
      "[" + std::to_string(bounds.first) + ", " + std::to_string(bounds.last) + "] in term " +
          std::to_string(hard_state.term) + " with vote " + std::to_string(hard_state.vote),
      [&](const LogShadow& expected) {
        if (expected.hard_state.term != hard_state.term || expected.hard_state.vote != hard_state.vote) {
          return false;
        }
        if (found.base_index > expected.base_index || found.last_index() != expected.last_index()) {
          return false;
        }
        for (uint64_t i = expected.base_index + 1; i <= expected.last_index(); ++i) {
          if (!(*found.Find(i) == *expected.Find(i))) return false;
        }
        return true;
      });
  StartFrom(std::move(found));
}

// A damaged log may lose entries, but never be wrong about the vote and the last entry.
int32_t SimLog::Salvage(uint64_t base_index, uint64_t base_term, kw_log_salvage* out, kw_error* error) {
  if (const int32_t code = boundary_->Cross(Call::kLogSalvage); code != KW_OK) {
    return Fail(error, code, "salvage: injected failure");
  }
  log_segmented::Status status = real_->store.FindSalvage(base_index, base_term, out);
  if (!status.ok()) return status.Fill(error);
  salvaged_ = *out;
  CheckAgainstRecord(
      "salvaged as ending with " + std::to_string(out->last) + " in term " +
          std::to_string(out->hard_state.term) + " with vote " + std::to_string(out->hard_state.vote),
      [&](const LogShadow& expected) {
        salvaged_from_ = expected;
        const LogShadow::Entry* last = expected.Find(expected.last_index());
        return expected.hard_state.term == out->hard_state.term &&
               expected.hard_state.vote == out->hard_state.vote && expected.last_index() == out->last &&
               (last == nullptr ? expected.base_term : last->term) == out->last_term;
      });
  return KW_OK;
}

int32_t SimLog::Rebuild(kw_error* error) {
  if (const int32_t code = boundary_->Cross(Call::kLogRebuild); code != KW_OK) {
    return Fail(error, code, "rebuild: injected failure");
  }
  const LogShadow before = record_->acknowledged;
  log_segmented::Status status = real_->store.Rebuild();
  if (!status.ok()) {  // It may be done all the same.
    LogChange change;
    const bool is_emptied = salvaged_.bounds.last < salvaged_.bounds.first;
    change.kind = is_emptied ? LogChange::Kind::kReset : LogChange::Kind::kTruncatePrefix;
    change.index = is_emptied ? salvaged_.bounds.last : salvaged_.bounds.first;
    change.term = salvaged_.bounds.base_term;
    change.ApplyTo(&record_->rebuilt.emplace(std::move(salvaged_from_)));
    return status.Fill(error);
  }
  LogShadow found = ReadBack(salvaged_.hard_state, salvaged_.bounds);
  for (uint64_t i = std::max(found.base_index, before.base_index) + 1;
       i <= std::min(found.last_index(), before.last_index()); ++i) {
    if (!(*found.Find(i) == *before.Find(i))) {
      // It may be one that was written over and not yet acknowledged so.
      bool is_known = false;
      for (const LogChange& change : record_->unacknowledged) {
        is_known = is_known || (change.kind == LogChange::Kind::kAppend && change.index <= i);
      }
      if (!is_known) violation_ = "entry " + std::to_string(i) + " of the rebuilt log is another one";
    }
  }
  StartFrom(std::move(found));
  return KW_OK;
}

const kw_log_store* SimLog::table() const {
  static constexpr kw_log_store kTable = {
      sizeof(kw_log_store),
      0,
      [](kw_plugin* plugin, kw_hard_state* hard_state, kw_log_bounds* bounds, kw_error* error) -> int32_t {
        return Self(plugin).Recover(hard_state, bounds, error);
      },
      [](kw_plugin* plugin, const kw_log_entry* entries, size_t count, const kw_hard_state* hard_state,
         kw_completion* completion) -> int32_t {
        return Self(plugin).Append(Call::kLogAppend, entries, count, hard_state, completion);
      },
      [](kw_plugin* plugin, uint64_t begin, uint64_t end, uint64_t bytes_max, kw_log_batch** out,
         kw_error* error) -> int32_t {
        if (const int32_t code = Self(plugin).boundary_->Cross(Call::kLogRead); code != KW_OK) {
          return Fail(error, code, "read: injected failure");
        }
        return Self(plugin).real_->store.Read(begin, end, bytes_max, out).Fill(error);
      },
      [](kw_plugin* plugin, uint64_t first_kept, kw_completion* completion) -> int32_t {
        SimLog& log = Self(plugin);
        LogChange change;
        change.kind = LogChange::Kind::kTruncatePrefix;
        change.index = first_kept;
        return log.Start(Call::kLogTruncatePrefix, std::move(change), completion, [&](kw_completion* done) {
          return log.real_->store.TruncatePrefix(first_kept, done);
        });
      },
      [](kw_plugin* plugin, uint64_t base_index, uint64_t base_term, kw_completion* completion) -> int32_t {
        SimLog& log = Self(plugin);
        LogChange change;
        change.kind = LogChange::Kind::kReset;
        const LogShadow& before = log.record_->acknowledged;
        if (before.last_index() > base_index && before.Has(base_index, base_term) && log.on_loss) {
          log.on_loss(base_index);
        }
        change.index = base_index;
        change.term = base_term;
        return log.Start(Call::kLogReset, std::move(change), completion, [&](kw_completion* done) {
          return log.real_->store.Reset(base_index, base_term, done);
        });
      },
      [](kw_plugin* plugin, const kw_log_entry* entries, size_t count, const kw_hard_state* hard_state,
         kw_completion* completion) -> int32_t {
        return Self(plugin).Append(Call::kLogTryAppend, entries, count, hard_state, completion);
      },
      [](kw_plugin* plugin, uint64_t base_index, uint64_t base_term, kw_log_salvage* out,
         kw_error* error) -> int32_t { return Self(plugin).Salvage(base_index, base_term, out, error); },
      [](kw_plugin* plugin, kw_error* error) -> int32_t { return Self(plugin).Rebuild(error); }};
  return &kTable;
}

}  // namespace keyway::sim
