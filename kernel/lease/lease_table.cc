// SPDX-License-Identifier: Apache-2.0
#include "kernel/lease/lease_table.h"

#include <algorithm>
#include <limits>

#include "kernel/base/check.h"
#include "kernel/base/mutant.h"

namespace keyway {

Outcome LeaseTable::Grant(int64_t id, int64_t ttl_s, int64_t now_ms) {
  if (ttl_s > kLeaseTtlMaxSeconds) return Failure(KW_DETAIL_LEASE_TTL_TOO_LARGE);
  auto [at, inserted] = leases_.try_emplace(id);
  if (!inserted) return Failure(KW_DETAIL_LEASE_EXISTS);
  Lease& lease = at->second;
  lease.ttl_s = ttl_s;
  if (primary_) {
    lease.expiry_ms = now_ms + ttl_s * 1000;
    Schedule(id, &lease, lease.expiry_ms);
  }
  return {};
}

std::vector<SharedBytes> LeaseTable::Revoke(int64_t id) {
  auto at = leases_.find(id);
  if (at == leases_.end()) return {};
  if (primary_) Unschedule(id, at->second);
  std::vector<SharedBytes> keys(at->second.keys.begin(), at->second.keys.end());
  leases_.erase(at);
  return keys;
}

bool LeaseTable::Exists(int64_t id) const { return leases_.contains(id); }

void LeaseTable::Attach(int64_t id, std::string_view key) {
  auto at = leases_.find(id);
  if (at == leases_.end()) return;
  auto& keys = at->second.keys;
  auto place = keys.lower_bound(key);
  if (place != keys.end() && place->view() == key) return;
  keys.insert(place, SharedBytes::Copy(key));
}

void LeaseTable::Detach(int64_t id, std::string_view key) {
  auto at = leases_.find(id);
  if (at == leases_.end() || mutant::Is(mutant::kOldLeaseKeepsKey)) return;
  auto place = at->second.keys.find(key);
  if (place != at->second.keys.end()) at->second.keys.erase(place);
}

std::vector<std::string_view> LeaseTable::Keys(int64_t id) const {
  std::vector<std::string_view> keys;
  auto at = leases_.find(id);
  if (at == leases_.end()) return keys;
  keys.reserve(at->second.keys.size());
  for (const SharedBytes& key : at->second.keys) keys.push_back(key.view());
  return keys;
}

size_t LeaseTable::KeyCount(int64_t id) const {
  auto at = leases_.find(id);
  return at == leases_.end() ? 0 : at->second.keys.size();
}

int64_t LeaseTable::GrantedTtl(int64_t id) const {
  auto at = leases_.find(id);
  return at == leases_.end() ? 0 : at->second.ttl_s;
}

std::vector<int64_t> LeaseTable::Ids() const {
  std::vector<int64_t> ids;
  ids.reserve(leases_.size());
  for (const auto& [id, lease] : leases_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  return ids;
}

void LeaseTable::Restore(int64_t id, int64_t ttl_s) {
  KW_CHECK(!primary_);
  leases_[id].ttl_s = ttl_s;
}

void LeaseTable::Clear() {
  Demote();
  leases_.clear();
}

void LeaseTable::Promote(int64_t now_ms, int64_t extend_ms) {
  primary_ = true;
  due_.clear();
  std::vector<std::pair<int64_t, int64_t>> due;
  due.reserve(leases_.size());
  for (auto& [id, lease] : leases_) {
    lease.expiry_ms = now_ms + lease.ttl_s * 1000 + extend_ms;
    if (mutant::Is(mutant::kLeaseEndsWithLeader)) lease.expiry_ms = now_ms;
    lease.report_ms = lease.expiry_ms;
    lease.reported = false;
    due.emplace_back(lease.report_ms, id);
  }
  std::sort(due.begin(), due.end());
  if (mutant::Is(mutant::kLeaseNeverEnds)) return;
  for (const auto& entry : due) due_.insert(due_.end(), entry);
}

void LeaseTable::Demote() {
  primary_ = false;
  due_.clear();
}

int64_t LeaseTable::Renew(int64_t id, int64_t now_ms) {
  auto at = leases_.find(id);
  if (!primary_ || at == leases_.end()) return 0;
  Lease& lease = at->second;
  // Reported or about to be: the revocation may be under way, so a promise of more time would be void.
  if ((lease.reported || now_ms >= lease.expiry_ms) && !mutant::Is(mutant::kRenewAfterExpiry)) return 0;
  Unschedule(id, lease);
  lease.expiry_ms = now_ms + lease.ttl_s * 1000;
  Schedule(id, &lease, lease.expiry_ms);
  return lease.ttl_s;
}

std::vector<int64_t> LeaseTable::Expired(int64_t now_ms, size_t max) {
  std::vector<int64_t> ids;
  while (ids.size() < max && !due_.empty()) {
    auto [report_ms, id] = *due_.begin();
    if (report_ms > now_ms) break;
    Lease& lease = leases_.find(id)->second;
    due_.erase(due_.begin());
    lease.reported = true;
    Schedule(id, &lease, now_ms + kLeaseReportAgainMs);
    ids.push_back(id);
  }
  return ids;
}

int64_t LeaseTable::NextExpiryMs() const {
  return due_.empty() ? std::numeric_limits<int64_t>::max() : due_.begin()->first;
}

int64_t LeaseTable::Remaining(int64_t id, int64_t now_ms) const {
  auto at = leases_.find(id);
  if (at == leases_.end()) return -1;
  if (!primary_) return at->second.ttl_s;
  return std::max<int64_t>(at->second.expiry_ms - now_ms, 0) / 1000;
}

void LeaseTable::Schedule(int64_t id, Lease* lease, int64_t report_ms) {
  lease->report_ms = report_ms;
  bool inserted = due_.emplace(report_ms, id).second;
  KW_CHECK(inserted);
}

void LeaseTable::Unschedule(int64_t id, const Lease& lease) {
  size_t erased = due_.erase({lease.report_ms, id});
  KW_CHECK(erased == 1 || mutant::Is(mutant::kLeaseNeverEnds));
}

}  // namespace keyway
