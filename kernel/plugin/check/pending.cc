// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/pending.h"

#include "kernel/base/check.h"

namespace keyway::check {

PendingCall* PendingCalls::Begin(const Function& function, kw_completion* original) {
  PendingCall* call = nullptr;
  {
    std::lock_guard lock(mutex_);
    if (idle_count_ <= kSlotsIdleMin) {
      chunks_.push_back(std::make_unique<PendingCall[]>(kChunk));
      for (size_t i = 0; i < kChunk; ++i) {
        PendingCall* slot = &chunks_.back()[i];
        slot->owner = this;
        slot->facade.done = &PendingCalls::Done;
        slot->state.store(kIdle, std::memory_order_relaxed);
        (idle_last_ == nullptr ? idle_first_ : idle_last_->next_idle) = slot;
        idle_last_ = slot;
      }
      idle_count_ += kChunk;
    }
    call = idle_first_;
    idle_first_ = call->next_idle;
    --idle_count_;
  }
  call->next_idle = nullptr;
  call->function = &function;
  call->original = original;
  call->on_done = nullptr;
  call->facade.done = &PendingCalls::Done;
  call->facade.ctx = nullptr;
  call->generation.fetch_add(1, std::memory_order_relaxed);
  call->state.store(0, std::memory_order_release);
  return call;
}

void PendingCalls::CheckNotFired(const PendingCall& call, int32_t code) const {
  if ((call.state.load(std::memory_order_acquire) & kFired) == 0) return;
  subject_.Condemn(call.function->name, "done-or-final-code",
                   absl::StrCat("completed and returned the final code ", code, " as well"));
}

int32_t PendingCalls::Returned(PendingCall* call, int32_t code) {
  if (code == KW_PENDING) {
    const uint32_t before = call->state.fetch_or(kReturned, std::memory_order_acq_rel);
    if ((before & kForwarded) != 0) Release(call);
    return code;
  }
  CheckCode(subject_, call->function->name, code);
  CheckNotFired(*call, code);
  call->state.fetch_or(kFinal, std::memory_order_acq_rel);
  Release(call);
  return code;
}

void PendingCalls::Done(kw_completion* completion, int32_t code, const kw_error* error) {
  auto* call = reinterpret_cast<PendingCall*>(completion);
  PendingCalls& self = *call->owner;
  const uint32_t before = call->state.fetch_or(kFired, std::memory_order_acq_rel);
  const char* name = call->function->name;
  if (self.subject_.is_stopped()) {
    self.subject_.Condemn(name, "no-call-after-stop", "called done() after stop() had returned");
  }
  if ((before & (kFired | kIdle)) != 0) {
    self.subject_.Condemn(
        name, "done-fires-once",
        (before & kFinal) != 0 ? "called done() after a final code" : "called done() twice");
  }
  if ((before & kFinal) != 0) {
    self.subject_.Condemn(name, "done-or-final-code", "called done() after a final code");
  }
  CheckCode(self.subject_, name, code);
  CheckError(self.subject_, name, code, error);
  if (call->on_done != nullptr) call->on_done(call, code);
  call->copy.Seal();
  kw_completion* original = call->original;
  original->done(original, code, code == KW_OK ? nullptr : error);
  const uint32_t then = call->state.fetch_or(kForwarded, std::memory_order_acq_rel);
  if ((then & kReturned) != 0) self.Release(call);
}

void PendingCalls::Release(PendingCall* call) {
  call->copy.Seal();
  call->state.fetch_or(kIdle, std::memory_order_acq_rel);
  std::lock_guard lock(mutex_);
  call->next_idle = nullptr;
  (idle_first_ == nullptr ? idle_first_ : idle_last_->next_idle) = call;
  idle_last_ = call;
  ++idle_count_;
}

void PendingCalls::CheckNoneIsPending() const {
  const PendingCall* first = nullptr;
  ForEachPending([&](const PendingCall& call) {
    if (first == nullptr) first = &call;
  });
  if (first != nullptr) {
    subject_.Condemn(first->function->name, "done-before-stop", "had not called done() when stop() returned");
  }
}

}  // namespace keyway::check
