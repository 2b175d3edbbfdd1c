// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <utility>

#include "kernel/base/check.h"
#include "kernel/mvcc/mvcc.h"
#include "kernel/mvcc/range_scan.h"

namespace keyway::mvcc {

class RangeReader::Impl {
 public:
  Impl(Store* store, const kw_range& range, Reply* reply) : store_(store), range_(range), reply_(reply) {}

  Progress Step(size_t keys_max, Outcome* outcome) {
    if (lost_) {
      *outcome = Failure(KW_DETAIL_CORRUPT);
      return Progress::kDone;
    }
    if (scan_ && IsStale()) {
      if (range_.revision > 0 && store_->epoch() == epoch_) {
        *outcome = Failure(KW_DETAIL_COMPACTED);
        return Progress::kDone;
      }
      scan_.reset();
    }
    if (!scan_) {
      *outcome = Pin();
      if (!outcome->ok()) return Progress::kDone;
    }
    Progress progress = scan_->Step(keys_max);
    if (progress == Progress::kDone) Finish();
    return progress;
  }

  void Resume(std::vector<SharedBytes> records) {
    KW_CHECK(scan_);
    // What was read of a state that is gone may be gone, too; the next step starts anew or fails.
    if (IsStale()) return;
    lost_ = !scan_->Resume(std::move(records));
  }

  const std::vector<Revision>& missing() const {
    KW_CHECK(scan_);
    return scan_->missing();
  }

 private:
  bool IsStale() const { return store_->epoch() != epoch_ || revision_ < store_->compact_revision(); }

  Outcome Pin() {
    if (range_.revision > store_->revision()) return Failure(KW_DETAIL_FUTURE_REVISION);
    if (range_.revision > 0 && range_.revision < store_->compact_revision()) {
      return Failure(KW_DETAIL_COMPACTED);
    }
    pinned_ = store_->revision();
    revision_ = range_.revision > 0 ? range_.revision : pinned_;
    epoch_ = store_->epoch();
    reply_->held.clear();
    scan_.emplace(store_, range_, revision_, reply_);
    return {};
  }

  void Finish() {
    kw_op_result* result = reply_->arena.New<kw_op_result>();
    scan_->Finish(result);
    reply_->results = result;
    reply_->result_count = 1;
    reply_->revision = pinned_;
  }

  Store* const store_;
  const kw_range range_;
  Reply* const reply_;
  std::optional<RangeScan> scan_;
  int64_t pinned_ = 0;    // The newest revision when the scan began.
  int64_t revision_ = 0;  // What it reads at.
  uint64_t epoch_ = 0;
  bool lost_ = false;
};

RangeReader::RangeReader(Mvcc* mvcc, const kw_range& range, Reply* reply)
    : mvcc_(mvcc), range_(range), reply_(reply) {}
RangeReader::~RangeReader() = default;

// The common read: one key, the newest revision, no filter. False if that is not it, or if the record
// is not in the cache.
bool RangeReader::ReadCachedKey() {
  constexpr int kOtherFlags = KW_RANGE_KEYS_ONLY | KW_RANGE_COUNT_ONLY;
  if (range_.end.len != 0 || range_.revision > 0 || (range_.flags & kOtherFlags) || HasFilters(range_)) {
    return false;
  }
  Store* store = mvcc_->impl_.get();
  Item* item = store->index().Find(ToView(range_.key));
  bool found = item != nullptr && !item->tombstone();
  if (found && !item->record().has_value()) return false;

  kw_op_result* result = reply_->arena.New<kw_op_result>();
  result->kind = KW_OP_RANGE;
  if (found) {
    item->MarkUsed();
    reply_->held.push_back(item->record());
    kw_slice* slice = reply_->arena.New<kw_slice>();
    *slice = item->record().slice();
    result->records = slice;
    result->record_count = 1;
    result->count = range_.flags & KW_RANGE_NO_COUNT ? 0 : 1;
  }
  reply_->results = result;
  reply_->result_count = 1;
  reply_->revision = store->revision();
  return true;
}

RangeReader::Progress RangeReader::Step(size_t keys_max) {
  if (impl_ == nullptr) {
    if (ReadCachedKey()) return Progress::kDone;
    impl_ = std::make_unique<Impl>(mvcc_->impl_.get(), range_, reply_);
  }
  return impl_->Step(keys_max, &outcome_);
}

const std::vector<Revision>& RangeReader::missing() const {
  KW_CHECK(impl_ != nullptr);
  return impl_->missing();
}

void RangeReader::Resume(std::vector<SharedBytes> records) {
  KW_CHECK(impl_ != nullptr);
  impl_->Resume(std::move(records));
}

}  // namespace keyway::mvcc
