// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/checked_log.h"

#include <pthread.h>

#include <algorithm>
#include <memory>

#include "kernel/plugin/check/poison.h"
#include "keyway/crc32c.h"

namespace keyway::check {
namespace {

constexpr Function kRecover{"log-store.recover", ThreadTag::kControl};
constexpr Function kAppend{"log-store.append", ThreadTag::kLog};
constexpr Function kSalvage{"log-store.salvage", ThreadTag::kControl};
constexpr Function kRebuild{"log-store.rebuild", ThreadTag::kControl};
constexpr Function kTryAppend{"log-store.try_append", ThreadTag::kCore};
constexpr Function kRead{"log-store.read", ThreadTag::kRead};
constexpr Function kTruncatePrefix{"log-store.truncate_prefix", ThreadTag::kLog};
constexpr Function kReset{"log-store.reset", ThreadTag::kLog};
constexpr Function kRelease{"log-batch.release", ThreadTag::kAny};

constexpr size_t kShadowMax = 65536;  // Entries.

std::string Range(uint64_t begin, uint64_t end) { return absl::StrCat("[", begin, ", ", end, ")"); }

}  // namespace

// The batch that the kernel gets.
struct CheckedLog::Batch {
  kw_log_batch outer{};  // First.
  CheckedLog* owner = nullptr;
  kw_log_batch* inner = nullptr;
  uint64_t hash = 0;

  static uint64_t Hash(const kw_log_batch& batch) {
    uint64_t hash = 0;
    for (size_t i = 0; i < batch.entry_count; ++i) {
      const kw_log_entry& entry = batch.entries[i];
      hash = HashOf(&entry, offsetof(kw_log_entry, data), hash);
      hash = HashOf(entry.data.ptr, entry.data.len, hash);
    }
    return hash;
  }
  static void Release(kw_log_batch* given) {
    const std::unique_ptr<Batch> batch(reinterpret_cast<Batch*>(given));
    const Subject& subject = batch->owner->subject_;
    if (subject.is_full()) {
      CallScope scope(subject, kRead);  // A fault is the plugin's.
      if (Hash(*batch->inner) != batch->hash) {
        subject.Condemn(kRead.name, "results-keep", "changed a batch before its release");
      }
    }
    Guarded(subject, kRelease, [&] { batch->inner->release(batch->inner); });
    batch->owner->batches_open_.fetch_sub(1, std::memory_order_relaxed);
  }
};

struct LogThunks {
  static int32_t Recover(kw_plugin* plugin, kw_hard_state* hard_state, kw_log_bounds* bounds,
                         kw_error* error) {
    return CheckedLog::Self(plugin).Recover(hard_state, bounds, error);
  }
  static int32_t Salvage(kw_plugin* plugin, uint64_t base_index, uint64_t base_term, kw_log_salvage* out,
                         kw_error* error) {
    return CheckedLog::Self(plugin).Salvage(base_index, base_term, out, error);
  }
  static int32_t Rebuild(kw_plugin* plugin, kw_error* error) {
    return CheckedLog::Self(plugin).Rebuild(error);
  }
  static int32_t Append(kw_plugin* plugin, const kw_log_entry* entries, size_t entry_count,
                        const kw_hard_state* hard_state, kw_completion* completion) {
    return CheckedLog::Self(plugin).Append(kAppend, false, entries, entry_count, hard_state, completion);
  }
  static int32_t TryAppend(kw_plugin* plugin, const kw_log_entry* entries, size_t entry_count,
                           const kw_hard_state* hard_state, kw_completion* completion) {
    return CheckedLog::Self(plugin).Append(kTryAppend, true, entries, entry_count, hard_state, completion);
  }
  static int32_t Read(kw_plugin* plugin, uint64_t begin, uint64_t end, uint64_t bytes_max, kw_log_batch** out,
                      kw_error* error) {
    return CheckedLog::Self(plugin).Read(begin, end, bytes_max, out, error);
  }
  static int32_t TruncatePrefix(kw_plugin* plugin, uint64_t first_kept, kw_completion* completion) {
    return CheckedLog::Self(plugin).TruncatePrefix(first_kept, completion);
  }
  static int32_t Reset(kw_plugin* plugin, uint64_t base_index, uint64_t base_term,
                       kw_completion* completion) {
    return CheckedLog::Self(plugin).Reset(base_index, base_term, completion);
  }
};

CheckedLog::CheckedLog(const Subject* subject, kw_plugin* inner, const kw_log_store& table)
    : subject_(*subject), inner_(inner), table_(table), outer_(table), pending_(subject) {
  facade_.size = sizeof facade_;
  facade_.self = this;
  outer_.recover = &LogThunks::Recover;
  if (table_.salvage != nullptr) {
    outer_.salvage = &LogThunks::Salvage;
    outer_.rebuild = &LogThunks::Rebuild;
  }
  outer_.append = &LogThunks::Append;
  outer_.try_append = &LogThunks::TryAppend;
  outer_.read = &LogThunks::Read;
  outer_.truncate_prefix = &LogThunks::TruncatePrefix;
  outer_.reset = &LogThunks::Reset;
}

CheckedLog::~CheckedLog() { BeforeStop(); }

void CheckedLog::BeforeStop() {
  {
    std::lock_guard lock(probe_mutex_);
    is_stopping_ = true;
  }
  probe_work_.notify_one();
  if (prober_.joinable()) prober_.join();
}

void CheckedLog::CheckStopped() const {
  pending_.CheckNoneIsPending();
  if (batches_open_.load() != 0) {
    subject_.CondemnKernel("kw_plugin.stop", "batches-released",
                           absl::StrCat("came with ", batches_open_.load(), " batches not released"));
  }
}

// ---- recovery ------------------------------------------------------------------------------------

int32_t CheckedLog::Recover(kw_hard_state* hard_state, kw_log_bounds* bounds, kw_error* error) {
  if (is_recovered_.exchange(true)) {
    subject_.CondemnKernel(kRecover.name, "recover-once", "was called twice");
  }
  const int32_t code = CheckedCall(subject_, kRecover, error,
                                   [&] { return table_.recover(inner_, hard_state, bounds, error); });
  if (code == KW_OK) StartFrom(kRecover, *bounds);
  return code;
}

int32_t CheckedLog::Salvage(uint64_t base_index, uint64_t base_term, kw_log_salvage* out, kw_error* error) {
  const int32_t code = CheckedCall(subject_, kSalvage, error,
                                   [&] { return table_.salvage(inner_, base_index, base_term, out, error); });
  if (code == KW_OK) salvaged_ = out->bounds;
  return code;
}

int32_t CheckedLog::Rebuild(kw_error* error) {
  const int32_t code = CheckedCall(subject_, kRebuild, error, [&] { return table_.rebuild(inner_, error); });
  if (code == KW_OK) StartFrom(kSalvage, salvaged_);
  return code;
}

// The log is in use from here on.
void CheckedLog::StartFrom(const Function& function, const kw_log_bounds& bounds) {
  if (bounds.first == 0 || bounds.last + 1 < bounds.first || (bounds.first > 1 && bounds.base_term == 0)) {
    subject_.Condemn(function.name, "sound-bounds",
                     absl::StrCat("gave the bounds first ", bounds.first, ", last ", bounds.last,
                                  ", base_term ", bounds.base_term));
  }
  first_ = bounds.first;
  last_ = bounds.last;
  submitted_last_ = bounds.last;
  if (subject_.is_full() && !prober_.joinable()) prober_ = std::thread([this] { RunProber(); });
}

// ---- what changes the log ------------------------------------------------------------------------

PendingCall* CheckedLog::Submit(const Function& function, kw_completion* completion,
                                void (*on_done)(PendingCall*, int32_t)) {
  CheckThread(subject_, function);
  PendingCall* call = pending_.Begin(function, completion);
  call->context = this;
  call->on_done = on_done;
  call->sequence = next_sequence_++;
  return call;
}

int32_t CheckedLog::Submitted(PendingCall* call, int32_t code) {
  if (code != KW_PENDING) {
    pending_.CheckNotFired(*call, code);
    // It never completes: the place in the order is free again, or used up now.
    if (code == KW_OK) {
      call->on_done(call, code);
    } else {
      next_sequence_ = call->sequence;
    }
  }
  return pending_.Returned(call, code);
}

void CheckedLog::CheckOrder(PendingCall* call, int32_t code) {
  CheckedLog& self = *static_cast<CheckedLog*>(call->context);
  const uint64_t expected = self.next_done_.fetch_add(1, std::memory_order_acq_rel);
  if (code != KW_OK || call->sequence == expected) return;
  self.subject_.Condemn(call->function->name, "completions-in-order",
                        absl::StrCat("completed submission ", call->sequence, " before ", expected));
}

int32_t CheckedLog::Append(const Function& function, bool may_refuse, const kw_log_entry* entries,
                           size_t entry_count, const kw_hard_state* hard_state, kw_completion* completion) {
  SerialLane::Scope serial(&log_lane_, subject_, function);
  PendingCall* call = Submit(function, completion, &CheckedLog::OnAppended);
  call->numbers[0] = entry_count;
  call->numbers[1] = entry_count == 0 ? 0 : entries[entry_count - 1].index;
  const uint64_t last_before = submitted_last_.load(std::memory_order_relaxed);
  const bool overwrites = entry_count != 0 && entries[0].index <= last_before;
  if (entry_count != 0) {
    if (overwrites) {
      epoch_.fetch_add(1, std::memory_order_acq_rel);
      last_.store(std::min(last_.load(std::memory_order_relaxed), entries[0].index - 1));
    }
    submitted_last_.store(call->numbers[1], std::memory_order_relaxed);
  }
  call->numbers[2] = epoch_.load(std::memory_order_relaxed);
  if (subject_.is_full()) {
    size_t bytes = PoisonedCopy::RoundUp(entry_count * sizeof(kw_log_entry)) + sizeof(kw_hard_state);
    for (size_t i = 0; i < entry_count; ++i) bytes += PoisonedCopy::RoundUp(entries[i].data.len);
    call->copy = PoisonedCopy(subject_, function, bytes);
    kw_log_entry* copied = call->copy.Array(entries, entry_count);
    for (size_t i = 0; i < entry_count; ++i) copied[i].data = call->copy.Slice(entries[i].data);
    if (hard_state != nullptr) hard_state = call->copy.Array(hard_state, 1);
    if (entry_count != 0) {
      std::lock_guard lock(shadow_mutex_);
      const uint64_t begin = entries[0].index;
      if (shadow_.empty() || begin < shadow_first_ || begin > shadow_first_ + shadow_.size()) {
        shadow_.clear();
        shadow_first_ = begin;
      }
      shadow_.resize(begin - shadow_first_);
      for (size_t i = 0; i < entry_count; ++i) shadow_.push_back({entries[i].term, entries[i].crc32c});
      while (shadow_.size() > kShadowMax) {
        shadow_.pop_front();
        ++shadow_first_;
      }
    }
    entries = copied;
  }
  int32_t code = Guarded(subject_, function, [&] {
    const auto append = may_refuse ? table_.try_append : table_.append;
    return append(inner_, entries, entry_count, hard_state, &call->facade);
  });
  if (may_refuse && code != KW_PENDING && code != KW_OK) {
    if (code != KW_UNAVAILABLE) {
      CheckCode(subject_, function.name, code);
      subject_.Condemn(function.name, "refuses-with-unavailable", absl::StrCat("answered ", code));
    }
    submitted_last_.store(last_before, std::memory_order_relaxed);
  }
  return Submitted(call, code);
}

void CheckedLog::OnAppended(PendingCall* call, int32_t code) {
  CheckOrder(call, code);
  CheckedLog& self = *static_cast<CheckedLog*>(call->context);
  if (code != KW_OK || call->numbers[0] == 0) return;
  // A later append or reset drops some of it again.
  if (call->numbers[2] != self.epoch_.load(std::memory_order_acquire)) return;
  self.last_.store(call->numbers[1], std::memory_order_release);
  if (!self.subject_.is_full()) return;
  std::lock_guard lock(self.probe_mutex_);
  self.probe_last_ = call->numbers[1];
  self.probe_work_.notify_one();
}

int32_t CheckedLog::TruncatePrefix(uint64_t first_kept, kw_completion* completion) {
  SerialLane::Scope serial(&log_lane_, subject_, kTruncatePrefix);
  PendingCall* call = Submit(kTruncatePrefix, completion, &CheckedLog::OnTruncated);
  call->numbers[0] = first_kept;
  first_.store(std::max(first_.load(std::memory_order_relaxed), first_kept), std::memory_order_release);
  return Submitted(call, Guarded(subject_, kTruncatePrefix,
                                 [&] { return table_.truncate_prefix(inner_, first_kept, &call->facade); }));
}

void CheckedLog::OnTruncated(PendingCall* call, int32_t code) {
  CheckOrder(call, code);
  CheckedLog& self = *static_cast<CheckedLog*>(call->context);
  if (code != KW_OK || !self.subject_.is_full()) return;
  std::lock_guard lock(self.probe_mutex_);
  self.probe_first_ = call->numbers[0];
  self.probe_work_.notify_one();
}

int32_t CheckedLog::Reset(uint64_t base_index, uint64_t base_term, kw_completion* completion) {
  SerialLane::Scope serial(&log_lane_, subject_, kReset);
  PendingCall* call = Submit(kReset, completion, &CheckedLog::OnReset);
  call->numbers[0] = base_index;
  epoch_.fetch_add(1, std::memory_order_acq_rel);
  first_.store(base_index + 1);
  last_.store(base_index);
  submitted_last_.store(base_index, std::memory_order_relaxed);
  {
    std::lock_guard lock(shadow_mutex_);
    shadow_.clear();
    shadow_first_ = base_index + 1;
  }
  return Submitted(call, Guarded(subject_, kReset,
                                 [&] { return table_.reset(inner_, base_index, base_term, &call->facade); }));
}

void CheckedLog::OnReset(PendingCall* call, int32_t code) {
  CheckOrder(call, code);
  CheckedLog& self = *static_cast<CheckedLog*>(call->context);
  if (code != KW_OK || !self.subject_.is_full()) return;
  std::lock_guard lock(self.probe_mutex_);
  self.probe_last_ = self.probe_first_ = 0;
  self.probe_gone_ = call->numbers[0];
  self.probe_work_.notify_one();
}

// ---- reading -------------------------------------------------------------------------------------

bool CheckedLog::IsAcknowledged(uint64_t begin, uint64_t end) const {
  return begin >= first_.load(std::memory_order_acquire) && end <= last_.load(std::memory_order_acquire) + 1;
}

int32_t CheckedLog::Read(uint64_t begin, uint64_t end, uint64_t bytes_max, kw_log_batch** out,
                         kw_error* error) {
  const uint64_t epoch = epoch_.load(std::memory_order_acquire);
  const bool must_be_there = IsAcknowledged(begin, end);
  kw_log_batch* inner = nullptr;
  const int32_t code = CheckedCall(subject_, kRead, error,
                                   [&] { return table_.read(inner_, begin, end, bytes_max, &inner, error); });
  if (code != KW_OK) {
    const bool is_missing = code == KW_OUT_OF_RANGE || code == KW_NOT_FOUND;
    if (is_missing && must_be_there && IsAcknowledged(begin, end) && epoch == epoch_.load()) {
      subject_.Condemn(kRead.name, "acknowledged-is-readable",
                       absl::StrCat("answered ", code, " for the acknowledged entries ", Range(begin, end)));
    }
    return code;
  }
  if (inner == nullptr || inner->size < sizeof(kw_log_batch) || inner->release == nullptr) {
    subject_.Condemn(kRead.name, "result-given", "answered KW_OK without a sound batch");
  }
  CheckBatch(*inner, begin, end, bytes_max);
  auto batch = std::make_unique<Batch>();
  batch->outer = *inner;
  batch->outer.size = sizeof(kw_log_batch);
  batch->outer.release = &Batch::Release;
  batch->owner = this;
  batch->inner = inner;
  if (subject_.is_full()) {
    for (size_t i = 0; i < inner->entry_count; ++i) CheckIdentity(inner->entries[i], epoch);
    batch->hash = Batch::Hash(*inner);
  }
  batches_open_.fetch_add(1, std::memory_order_relaxed);
  *out = &batch.release()->outer;
  return code;
}

void CheckedLog::CheckBatch(const kw_log_batch& batch, uint64_t begin, uint64_t end,
                            uint64_t bytes_max) const {
  CallScope scope(subject_, kRead);  // A fault is the plugin's.
  if (batch.entry_count == 0 || batch.entries == nullptr || batch.entry_count > end - begin) {
    subject_.Condemn(kRead.name, "at-least-one-entry",
                     absl::StrCat("gave ", batch.entry_count, " entries of ", Range(begin, end)));
  }
  uint64_t bytes = 0;
  for (size_t i = 0; i < batch.entry_count; ++i) {
    const kw_log_entry& entry = batch.entries[i];
    if (entry.index != begin + i || (i != 0 && entry.term < batch.entries[i - 1].term)) {
      subject_.Condemn(kRead.name, "entries-consecutive",
                       absl::StrCat("gave entry ", entry.index, " of term ", entry.term, " where ", begin + i,
                                    " comes next"));
    }
    if (!IsSound(entry.data)) {
      subject_.Condemn(kRead.name, "sound-slices", absl::StrCat("gave entry ", entry.index, " without data"));
    }
    bytes += entry.data.len;
    if (i != 0 && bytes > bytes_max) {
      subject_.Condemn(kRead.name, "at-least-one-entry",
                       absl::StrCat("gave ", bytes, " bytes where ", bytes_max, " were the most"));
    }
  }
}

void CheckedLog::CheckIdentity(const kw_log_entry& entry, uint64_t epoch) const {
  std::lock_guard lock(shadow_mutex_);
  if (entry.index > last_.load() || entry.index < shadow_first_ ||
      entry.index >= shadow_first_ + shadow_.size()) {
    return;
  }
  const Identity& known = shadow_[entry.index - shadow_first_];
  const uint32_t crc32c = kw_crc32c(0, entry.data.ptr, entry.data.len);
  if (known.term == entry.term && known.crc32c == entry.crc32c && known.crc32c == crc32c) return;
  if (epoch != epoch_.load()) return;  // Overwritten meanwhile.
  subject_.Condemn(kRead.name, "entry-unchanged",
                   absl::StrCat("gave entry ", entry.index, " of term ", entry.term, " with checksum ",
                                crc32c, "; acknowledged were term ", known.term, " and ", known.crc32c));
}

// ---- reading back --------------------------------------------------------------------------------

void CheckedLog::RunProber() {
  pthread_setname_np(pthread_self(), "kw-check-log");
  thread_role = ThreadRole::kRead;
  while (true) {
    uint64_t last = 0, first = 0, gone = 0, epoch = 0;
    {
      std::unique_lock lock(probe_mutex_);
      probe_work_.wait(
          lock, [this] { return is_stopping_ || probe_last_ != 0 || probe_first_ != 0 || probe_gone_ != 0; });
      if (is_stopping_) return;
      std::swap(last, probe_last_);
      std::swap(first, probe_first_);
      std::swap(gone, probe_gone_);
      epoch = epoch_.load(std::memory_order_acquire);
    }
    if (last != 0) Probe(last, true, epoch);
    if (first != 0) Probe(first, true, epoch);
    if (gone != 0) Probe(gone, false, epoch);
  }
}

// The entry must be there, or must not, unless something else was submitted meanwhile.
void CheckedLog::Probe(uint64_t index, bool must_be_there, uint64_t epoch) {
  if (must_be_there && !IsAcknowledged(index, index + 1)) return;
  kw_error error{};
  error.size = sizeof error;
  kw_log_batch* batch = nullptr;
  const int32_t code = Read(index, index + 1, 1, &batch, &error);
  if (code == KW_OK) batch->release(batch);
  if (code == KW_OK && !must_be_there && epoch == epoch_.load() && index < first_.load()) {
    subject_.Condemn(kReset.name, "reset-drops-all",
                     absl::StrCat("left entry ", index, ", which can still be read"));
  }
}

}  // namespace keyway::check
