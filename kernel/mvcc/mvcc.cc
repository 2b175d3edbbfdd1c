// SPDX-License-Identifier: Apache-2.0
//
// Mvcc's surface. CheckRange() and CheckTxn() are in txn_check.cc; what a txn does in txn_apply.cc.
#include "kernel/mvcc/mvcc.h"

#include "kernel/mvcc/store.h"
#include "kernel/mvcc/txn_apply.h"

namespace keyway::mvcc {

Mvcc::Mvcc(const Options& options, LeaseKeys* leases) : impl_(std::make_unique<Impl>(options, leases)) {}
Mvcc::~Mvcc() = default;

Revision Mvcc::RestoreRecord(Revision revision, std::string_view record) {
  return impl_->RestoreRecord(revision, record);
}
void Mvcc::FinishRestore(int64_t revision, int64_t compact_revision, bool compacted) {
  impl_->FinishRestore(revision, compact_revision, compacted);
}
void Mvcc::Clear() { impl_->Clear(); }

int64_t Mvcc::revision() const { return impl_->revision(); }
int64_t Mvcc::compact_revision() const { return impl_->compact_revision(); }
bool Mvcc::compacting() const { return impl_->compacting(); }
size_t Mvcc::key_count() const { return impl_->index().live_count(); }
size_t Mvcc::memory_bytes() const { return impl_->memory_bytes(); }

void Mvcc::MissingForTxn(const kw_txn& txn, bool want_prev, std::vector<Revision>* missing) const {
  AppendMissing(impl_.get(), txn, want_prev, missing);
}

void Mvcc::MissingForDelete(const std::vector<std::string_view>& keys, bool want_prev,
                            std::vector<Revision>* missing) const {
  if (!want_prev) return;
  for (std::string_view key : keys) {
    const Item* item = impl_->index().Find(key);
    if (item == nullptr || item->tombstone()) continue;
    SharedBytes record = impl_->FindRecord(*item, item->revision());
    if (record.has_value()) {
      impl_->Keep(item->revision(), std::move(record));
    } else {
      missing->push_back(item->revision());
    }
  }
}

void Mvcc::Provide(Revision revision, SharedBytes record) { impl_->Provide(revision, std::move(record)); }

Outcome Mvcc::ApplyTxn(const kw_txn& txn, bool want_prev, Reply* maybe_reply) {
  return RunTxn(impl_.get(), txn, want_prev, maybe_reply);
}

size_t Mvcc::ApplyDelete(const std::vector<std::string_view>& keys, bool want_prev) {
  size_t count = 0;
  for (std::string_view key : keys) {
    Item* item = impl_->index().Find(key);
    if (item == nullptr || item->tombstone()) continue;
    impl_->Delete(item, want_prev, /*detach=*/false);
    ++count;
  }
  impl_->Commit();
  return count;
}

Outcome Mvcc::ApplyCompact(int64_t revision) { return impl_->ApplyCompact(revision); }
void Mvcc::CompactStep(size_t keys_max, std::vector<Revision>* deleted) {
  impl_->CompactStep(keys_max, deleted);
}
std::vector<Change> Mvcc::TakeChanges() { return impl_->recent().Take(); }
void Mvcc::OnStored(int64_t main) { impl_->recent().OnStored(main); }

const std::deque<Change>& Mvcc::recent() const { return impl_->recent().changes(); }
int64_t Mvcc::recent_from() const { return impl_->recent().from(); }
Revision Mvcc::PreviousVersion(std::string_view key, Revision revision) const {
  return impl_->PreviousVersion(key, revision);
}
SharedBytes Mvcc::FindRecord(std::string_view key, Revision revision) const {
  return impl_->FindRecordOf(key, revision);
}
bool Mvcc::IsIntact(Revision revision, std::string_view record) const {
  return impl_->IsIntact(revision, record);
}

}  // namespace keyway::mvcc
