// SPDX-License-Identifier: Apache-2.0
//
// keyway.log-store/1 under check. Beside the rules of every table:
//
//   sound-bounds              recover: first >= 1, last + 1 >= first, no entry without a term
//   completions-in-order      in the order of submission, over append, truncate_prefix and reset
//   entries-consecutive       read: from `begin`, one index after the other, terms never fall
//   at-least-one-entry        read: and no entry beyond `end`, and no more bytes than asked for
//   acknowledged-is-readable  what was acknowledged and is neither dropped nor overwritten can be read
//   entry-unchanged           full: index, term and checksum are those that were acknowledged
//   reset-drops-all           full: after reset() no older entry can be read
//   batches-released          before stop (the kernel's duty)
//   results-keep              full: a batch does not change before its release
//
// At level full a thread of the checker reads back what was just acknowledged: `read` answers for durable
// entries only, so a store that acknowledges before it has synced contradicts itself.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "kernel/plugin/check/pending.h"
#include "kernel/plugin/check/verdict.h"
#include "keyway/log_store.h"

namespace keyway::check {

class CheckedLog {
 public:
  CheckedLog(const Subject* subject, kw_plugin* inner, const kw_log_store& table);
  ~CheckedLog();

  kw_plugin* plugin() { return &facade_; }
  const kw_log_store& table() const { return outer_; }
  const PendingCalls& pending() const { return pending_; }
  // Before the plugin's stop(): the checker's own reads end. After it.
  void BeforeStop();
  void CheckStopped() const;

 private:
  struct Batch;
  struct Identity {
    uint64_t term;
    uint32_t crc32c;
  };
  friend struct LogThunks;

  static CheckedLog& Self(kw_plugin* plugin) { return *static_cast<CheckedLog*>(plugin->self); }

  int32_t Recover(kw_hard_state* hard_state, kw_log_bounds* bounds, kw_error* error);
  int32_t Salvage(uint64_t base_index, uint64_t base_term, kw_log_salvage* out, kw_error* error);
  int32_t Rebuild(kw_error* error);
  void StartFrom(const Function& function, const kw_log_bounds& bounds);
  // append and try_append.
  int32_t Append(const Function& function, bool may_refuse, const kw_log_entry* entries, size_t entry_count,
                 const kw_hard_state* hard_state, kw_completion* completion);
  int32_t TruncatePrefix(uint64_t first_kept, kw_completion* completion);
  int32_t Reset(uint64_t base_index, uint64_t base_term, kw_completion* completion);
  int32_t Read(uint64_t begin, uint64_t end, uint64_t bytes_max, kw_log_batch** out, kw_error* error);

  // The call takes its place in the order of completions. [log] or [core]
  PendingCall* Submit(const Function& function, kw_completion* completion,
                      void (*on_done)(PendingCall*, int32_t));
  int32_t Submitted(PendingCall* call, int32_t code);
  static void CheckOrder(PendingCall* call, int32_t code);
  static void OnAppended(PendingCall* call, int32_t code);
  static void OnTruncated(PendingCall* call, int32_t code);
  static void OnReset(PendingCall* call, int32_t code);

  void CheckBatch(const kw_log_batch& batch, uint64_t begin, uint64_t end, uint64_t bytes_max) const;
  void CheckIdentity(const kw_log_entry& entry, uint64_t epoch) const;
  // Whether all of [begin, end) was acknowledged and nothing drops any of it now.
  bool IsAcknowledged(uint64_t begin, uint64_t end) const;

  void RunProber();
  void Probe(uint64_t index, bool must_be_there, uint64_t epoch);

  const Subject& subject_;
  kw_plugin* const inner_;
  const kw_log_store table_;
  kw_log_store outer_;
  kw_plugin facade_{};
  PendingCalls pending_;
  SerialLane log_lane_;
  std::atomic<bool> is_recovered_{false};
  kw_log_bounds salvaged_{};  // What rebuild() leaves.
  std::atomic<int64_t> batches_open_{0};

  uint64_t next_sequence_ = 0;  // [log]: of the next submission.
  std::atomic<uint64_t> next_done_{0};

  // What is acknowledged, [first, last]; changed at submission for what drops, at completion for what
  // adds. Another epoch: something that drops acknowledged entries was submitted meanwhile.
  std::atomic<uint64_t> first_{1}, last_{0};
  std::atomic<uint64_t> submitted_last_{0};
  std::atomic<uint64_t> epoch_{0};

  mutable std::mutex shadow_mutex_;
  std::deque<Identity> shadow_;  // Of the entries from shadow_first_ on, at level full.
  uint64_t shadow_first_ = 0;

  std::mutex probe_mutex_;  // Guards what follows.
  std::condition_variable probe_work_;
  bool is_stopping_ = false;
  uint64_t probe_last_ = 0, probe_first_ = 0, probe_gone_ = 0;
  std::thread prober_;
};

}  // namespace keyway::check
