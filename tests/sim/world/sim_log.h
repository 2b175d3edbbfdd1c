// SPDX-License-Identifier: Apache-2.0
//
// SimLog: keyway.log-store/1 of one process life. It is the shipped LogStore, without its threads, over a
// SimDisk; this wrapper crosses the boundary at each call, lets the owner decide when a flush begins and
// ends, and keeps a shadow of what was acknowledged, which recovery must give back.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "keyway/log_store.h"
#include "tests/sim/world/boundary.h"

namespace keyway::sim {

class SimDisk;

// A log as Raft sees it: [base + 1, base + entries].
struct LogShadow {
  struct Entry {
    uint64_t term = 0;
    uint32_t crc32c = 0;
    friend bool operator==(const Entry&, const Entry&) = default;
  };
  uint64_t base_index = 0, base_term = 0;
  std::deque<Entry> entries;
  kw_hard_state hard_state{};

  uint64_t last_index() const { return base_index + entries.size(); }
  const Entry* Find(uint64_t index) const {
    return index <= base_index || index > last_index() ? nullptr : &entries[index - base_index - 1];
  }
  bool Has(uint64_t index, uint64_t term) const {
    if (index == base_index) return term == base_term;
    const Entry* entry = Find(index);
    return entry != nullptr && entry->term == term;
  }
};

// One call that changes the log.
struct LogChange {
  enum class Kind : uint8_t { kAppend, kTruncatePrefix, kReset };
  Kind kind = Kind::kAppend;
  uint64_t index = 0,
           term = 0;  // kAppend: of the first entry. kTruncatePrefix: first kept. kReset: the base.
  std::vector<LogShadow::Entry> entries;
  bool has_hard_state = false;
  kw_hard_state hard_state{};

  void ApplyTo(LogShadow* log) const;
};

// What is remembered of a log from one life of its process to the next.
struct LogRecord {
  LogShadow acknowledged;
  std::deque<LogChange> unacknowledged;  // Of the last life: any number of them, in order, may be there.
  std::optional<LogShadow> rebuilt;      // As a rebuild that failed would have made it: it may have.
};

class SimLog {
 public:
  // `disk`, `record` and `boundary` outlive this. `changed` is called when there is something to flush.
  SimLog(SimDisk* disk, uint64_t segment_bytes, uint64_t seed, LogRecord* record, Boundary* boundary,
         std::function<void()> changed);
  ~SimLog();  // After Close().

  kw_plugin* plugin() { return &plugin_; }
  const kw_log_store* table() const;
  // Opens the directory. False with a reason.
  bool Open(std::string* error);
  // Until this is called, each append is flushed before it returns.
  void SetFlushLater() { flush_at_once_ = false; }
  bool BeginFlush();
  void EndFlush();
  bool Mark();
  void MakeSegments();
  // Flushes what waits, or fails it, and closes the files.
  void Close();

  // What is not as it must be: recovery gave back something else than what was acknowledged.
  const std::string& violation() const { return violation_; }
  bool recovered() const { return recovered_; }
  // For each entry that is appended: (index, term, term before it, crc32c).
  std::function<void(uint64_t, uint64_t, uint64_t, uint32_t)> on_entry;
  // A reset to an entry that the log has drops entries behind it that were acknowledged.
  std::function<void(uint64_t base_index)> on_loss;
  // For each one that changes the members: (index, term).
  std::function<void(uint64_t, uint64_t)> on_configuration;

 private:
  struct Real;
  struct Pending {
    kw_completion completion{};
    kw_completion* original = nullptr;
    SimLog* log = nullptr;
  };
  static SimLog& Self(kw_plugin* plugin) { return *static_cast<SimLog*>(plugin->self); }
  static void OnDone(kw_completion* completion, int32_t code, const kw_error* error);
  int32_t Start(Call call, LogChange change, kw_completion* completion,
                const std::function<int32_t(kw_completion*)>& run);
  int32_t Append(Call call, const kw_log_entry* entries, size_t count, const kw_hard_state* hard_state,
                 kw_completion* completion);
  int32_t Recover(kw_hard_state* hard_state, kw_log_bounds* bounds, kw_error* error);
  int32_t Salvage(uint64_t base_index, uint64_t base_term, kw_log_salvage* out, kw_error* error);
  int32_t Rebuild(kw_error* error);
  LogShadow ReadBack(const kw_hard_state& hard_state, const kw_log_bounds& bounds);
  void CheckAgainstRecord(const std::string& what,
                          const std::function<bool(const LogShadow& expected)>& is_found);
  void CheckRecovered(const kw_hard_state& hard_state, const kw_log_bounds& bounds);
  void StartFrom(LogShadow found);
  void Note(const LogChange& change);

  LogRecord* const record_;
  Boundary* const boundary_;
  const std::function<void()> changed_;
  std::unique_ptr<Real> real_;
  kw_plugin plugin_{};
  LogShadow written_;          // With all that was ever given to append.
  kw_log_salvage salvaged_{};  // What Rebuild() leaves ...
  LogShadow salvaged_from_;    // ... of this.
  bool flush_at_once_ = true;
  bool recovered_ = false;
  std::string violation_;
};

}  // namespace keyway::sim
