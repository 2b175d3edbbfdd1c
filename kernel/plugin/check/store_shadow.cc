// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/store_shadow.h"

#include <algorithm>

#include "kernel/base/bytes.h"
#include "kernel/plugin/check/verdict.h"

namespace keyway::check {

void StoreShadow::Set(uint32_t table, std::string key, Known known) {
  Key full{table, std::move(key)};
  order_.emplace_back(full, known.batch);
  known_[std::move(full)] = known;
  while (order_.size() > kKeysMax) {
    auto oldest = known_.find(order_.front().first);
    // Unless it was set again since.
    if (oldest != known_.end() && oldest->second.batch == order_.front().second) known_.erase(oldest);
    order_.pop_front();
  }
}

void StoreShadow::Begin(const kw_kv_op* ops, size_t op_count) {
  std::lock_guard lock(mutex_);
  const uint64_t batch = batch_ + 1;
  // Of a giant batch only the last keys would be kept: the others are forgotten at once.
  const size_t skipped = op_count > kKeysMax ? op_count - kKeysMax : 0;
  for (size_t i = 0; i < op_count; ++i) {
    const kw_kv_op& op = ops[i];
    std::string key(ToView(op.key));
    if (op.kind == KW_KV_DELETE_RANGE) {
      const std::string_view end = ToView(op.value);
      for (auto at = known_.lower_bound({op.table, key}); at != known_.end(); ++at) {
        if (at->first.first != op.table || (!end.empty() && at->first.second >= end)) break;
        at->second = {batch, false, 0};
        order_.emplace_back(at->first, batch);
      }
    } else if (i < skipped) {
      known_.erase({op.table, key});
    } else {
      const bool is_put = op.kind == KW_KV_PUT;
      Set(op.table, std::move(key), {batch, is_put, is_put ? HashOf(op.value) : 0});
    }
  }
}

void StoreShadow::Commit() {
  std::lock_guard lock(mutex_);
  ++batch_;
}

void StoreShadow::Forget() {
  std::lock_guard lock(mutex_);
  known_.clear();
  order_.clear();
}

uint64_t StoreShadow::batch() const {
  std::lock_guard lock(mutex_);
  return batch_;
}

std::optional<StoreShadow::Known> StoreShadow::Find(uint32_t table, kw_slice key, uint64_t batch) const {
  std::lock_guard lock(mutex_);
  const auto found = known_.find({table, std::string(ToView(key))});
  if (found == known_.end() || found->second.batch > batch) return std::nullopt;
  return found->second;
}

std::optional<std::string> StoreShadow::FirstBetween(uint32_t table, const std::string& from, bool from_is_in,
                                                     const std::string& before, uint64_t batch) const {
  std::lock_guard lock(mutex_);
  auto at = from_is_in ? known_.lower_bound({table, from}) : known_.upper_bound({table, from});
  for (; at != known_.end() && at->first.first == table; ++at) {
    if (!before.empty() && at->first.second >= before) break;
    if (at->second.is_there && at->second.batch <= batch) return at->first.second;
  }
  return std::nullopt;
}

std::vector<StoreShadow::Key> StoreShadow::KeysOfLastBatch(size_t count_max) const {
  std::lock_guard lock(mutex_);
  size_t count = 0;
  while (count < order_.size() && order_[order_.size() - 1 - count].second == batch_) ++count;
  std::vector<Key> keys;
  const size_t step = std::max<size_t>(1, count / count_max);
  for (size_t i = 0; i < count && keys.size() < count_max; i += step) {
    keys.push_back(order_[order_.size() - 1 - i].first);
  }
  return keys;
}

}  // namespace keyway::check
