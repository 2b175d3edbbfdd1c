// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history/order.h"

#include <algorithm>
#include <utility>

#include "kernel/base/check.h"

namespace keyway::sim {
namespace {

const VersionedMap::Version* VisibleAt(const VersionedMap::Versions& versions, int64_t revision) {
  auto after = std::partition_point(
      versions.begin(), versions.end(),
      [revision](const VersionedMap::Version& version) { return version.pair.mod_revision <= revision; });
  return after == versions.begin() ? nullptr : &*std::prev(after);
}

}  // namespace

bool InRange(std::string_view key, std::string_view begin, std::string_view end) {
  if (end.empty()) return key == begin;
  if (end == std::string_view("\0", 1)) return key >= begin;
  return key >= begin && key < end;
}

const KeyValue* VersionedMap::At(std::string_view key, int64_t revision) const {
  const Versions* versions = Find(key);
  if (versions == nullptr) return nullptr;
  const Version* version = VisibleAt(*versions, revision);
  return version == nullptr || version->is_delete ? nullptr : &version->pair;
}

std::vector<const KeyValue*> VersionedMap::Range(std::string_view begin, std::string_view end,
                                                 int64_t revision) const {
  std::vector<const KeyValue*> pairs;
  if (end.empty()) {
    if (const KeyValue* pair = At(begin, revision)) pairs.push_back(pair);
    return pairs;
  }
  const bool to_last = end == std::string_view("\0", 1);
  for (auto at = keys_.lower_bound(begin); at != keys_.end() && (to_last || at->first < end); ++at) {
    const Version* version = VisibleAt(at->second, revision);
    if (version != nullptr && !version->is_delete) pairs.push_back(&version->pair);
  }
  return pairs;
}

void VersionedMap::Add(KeyValue pair, bool is_delete) {
  auto at = keys_.find(pair.key);
  if (at == keys_.end()) at = keys_.emplace(pair.key, Versions()).first;
  KW_CHECK(at->second.empty() || at->second.back().pair.mod_revision <= pair.mod_revision);
  at->second.push_back({is_delete, std::move(pair)});
}

const VersionedMap::Versions* VersionedMap::Find(std::string_view key) const {
  auto at = keys_.find(key);
  return at == keys_.end() ? nullptr : &at->second;
}

}  // namespace keyway::sim
