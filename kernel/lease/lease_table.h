// SPDX-License-Identifier: Apache-2.0
//
// The leases of one member. What is granted, and which keys are attached, is replicated: it changes only
// by applied entries and is the same everywhere. When a lease runs out is known to the leader alone, in
// monotonic time that the caller passes in; a new leader gives every lease its full TTL again.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "kernel/base/bytes.h"
#include "kernel/base/outcome.h"
#include "kernel/mvcc/mvcc.h"

namespace keyway {

inline constexpr int64_t kLeaseTtlMaxSeconds = 9'000'000'000;  // etcd's.
inline constexpr int64_t kLeaseReportAgainMs = 3000;

class LeaseTable final : public mvcc::LeaseKeys {
 public:
  // ---- replicated ----
  // `ttl_s` is final: the proposer has raised it to the minimum. `now_ms` matters to the leader only.
  // Errors: LEASE_EXISTS, LEASE_TTL_TOO_LARGE.
  Outcome Grant(int64_t id, int64_t ttl_s, int64_t now_ms);
  // Forgets the lease. Returns the keys that were attached, in key order, for the caller to delete in
  // one revision; none if the lease is unknown (see Exists()).
  std::vector<SharedBytes> Revoke(int64_t id);
  bool Exists(int64_t id) const override;
  // Unknown leases are ignored: at restore, old versions of a key may name a lease that is gone.
  void Attach(int64_t id, std::string_view key) override;
  void Detach(int64_t id, std::string_view key) override;
  // In key order; each view is valid until its key is detached or the lease revoked.
  std::vector<std::string_view> Keys(int64_t id) const;
  size_t KeyCount(int64_t id) const;
  // The TTL as granted, 0 if unknown.
  int64_t GrantedTtl(int64_t id) const;
  std::vector<int64_t> Ids() const;  // Ascending.
  size_t count() const { return leases_.size(); }
  // A lease as the engine has it. Before Promote(); keys come through Attach().
  void Restore(int64_t id, int64_t ttl_s);
  void Clear();

  // ---- leader only ----
  // Every lease gets its full TTL from now, plus `extend_ms`.
  void Promote(int64_t now_ms, int64_t extend_ms);
  void Demote();
  bool primary() const { return primary_; }
  // The TTL from now on; 0 if the lease is unknown or has run out already.
  int64_t Renew(int64_t id, int64_t now_ms);
  // At most `max` leases that have run out, to be revoked by a proposal; the earliest first. Each is
  // reported again after kLeaseReportAgainMs while it is not revoked, since a proposal may get lost.
  std::vector<int64_t> Expired(int64_t now_ms, size_t max);
  // When Expired() has something next; INT64_MAX if never.
  int64_t NextExpiryMs() const;
  // Whole seconds left, rounded down, not below 0; -1 if unknown. The granted TTL if not primary.
  int64_t Remaining(int64_t id, int64_t now_ms) const;

 private:
  struct KeyLess {
    using is_transparent = void;
    static std::string_view View(const SharedBytes& key) { return key.view(); }
    static std::string_view View(std::string_view key) { return key; }
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const {
      return View(a) < View(b);
    }
  };
  struct Lease {
    int64_t ttl_s = 0;
    int64_t expiry_ms = 0;  // Leader only.
    int64_t report_ms = 0;  // Its place in due_: the expiry, then the next report.
    bool reported = false;  // Ran out: no renewal any more.
    absl::btree_set<SharedBytes, KeyLess> keys;
  };

  void Schedule(int64_t id, Lease* lease, int64_t report_ms);
  void Unschedule(int64_t id, const Lease& lease);

  absl::flat_hash_map<int64_t, Lease> leases_;
  bool primary_ = false;
  absl::btree_set<std::pair<int64_t, int64_t>> due_;  // (report_ms, id), all leases if primary.
};

}  // namespace keyway
