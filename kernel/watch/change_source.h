// SPDX-License-Identifier: Apache-2.0
//
// What the watch hub asks of the store. mvcc::Mvcc satisfies it through MvccChangeSource.
#pragma once

#include <cstdint>
#include <deque>
#include <string_view>

#include "kernel/mvcc/mvcc.h"

namespace keyway::watch {

// See the functions of the same names of mvcc::Mvcc for the contracts.
class ChangeSource {
 public:
  virtual ~ChangeSource() = default;
  virtual int64_t compact_revision() const = 0;
  virtual const std::deque<mvcc::Change>& recent() const = 0;
  virtual int64_t recent_from() const = 0;
  virtual mvcc::Revision PreviousVersion(std::string_view key, mvcc::Revision revision) const = 0;
  virtual SharedBytes FindRecord(std::string_view key, mvcc::Revision revision) const = 0;
};

class MvccChangeSource final : public ChangeSource {
 public:
  explicit MvccChangeSource(const mvcc::Mvcc* mvcc) : mvcc_(mvcc) {}
  int64_t compact_revision() const override { return mvcc_->compact_revision(); }
  const std::deque<mvcc::Change>& recent() const override { return mvcc_->recent(); }
  int64_t recent_from() const override { return mvcc_->recent_from(); }
  mvcc::Revision PreviousVersion(std::string_view key, mvcc::Revision revision) const override {
    return mvcc_->PreviousVersion(key, revision);
  }
  SharedBytes FindRecord(std::string_view key, mvcc::Revision revision) const override {
    return mvcc_->FindRecord(key, revision);
  }

 private:
  const mvcc::Mvcc* mvcc_;
};

}  // namespace keyway::watch
