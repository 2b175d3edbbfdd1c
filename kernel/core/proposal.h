// SPDX-License-Identifier: Apache-2.0
//
// Proposals: what a Raft entry carries. One entry is a run of proposals, each
//   u32 length | u64 origin member | u64 id | u8 kind | body
// (little-endian; the body's integers are varints, strings are length-prefixed). The origin finds the
// waiting request again by the id when the entry is applied. Encoded once, on the member that took the
// request; decoded by every member at apply.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kernel/base/coding.h"
#include "kernel/base/reply.h"
#include "keyway/kernel.h"

namespace keyway::core {

enum class ProposalKind : uint8_t {
  kTxn = 1,
  kCompact = 2,
  kLeaseGrant = 3,
  kLeaseRevoke = 4,
  kLeaseExpire = 5,    // By the leader: a lease that ran out. Void in a later term than proposed in.
  kMemberChange = 6,   // Body: EncodeMemberChange.
  kBootstrap = 7,      // First entry of a cluster. Body: EncodeMembers of the initial membership.
  kDigestMark = 8,     // By the leader: every member takes its state digest at this entry.
  kDigestVerdict = 9,  // By the leader: the members differ at a mark.
};

// What a majority of the voters found as state digest at a mark.
struct DigestVerdict {
  uint64_t mark = 0;    // Index of the mark's entry.
  bool agreed = false;  // A majority has `digest`; else no value has one.
  uint64_t digest = 0;
};

struct Proposal {
  uint64_t origin = 0;
  uint64_t id = 0;
  ProposalKind kind = ProposalKind::kTxn;
  bool plain = false;              // kTxn: a put or delete of its own.
  kw_txn txn{};                    // kTxn; arrays live in the arena, slices in the entry.
  int64_t revision = 0;            // kCompact
  int64_t lease = 0, ttl_s = 0;    // kLeaseGrant, kLeaseRevoke, kLeaseExpire
  uint64_t term = 0;               // kLeaseExpire
  std::string_view member_change;  // kMemberChange, kBootstrap
  DigestVerdict verdict;           // kDigestVerdict
};

// Appends one proposal to an entry's bytes. The length prefix is part of it.
void EncodeTxnProposal(uint64_t origin, uint64_t id, const kw_txn& txn, bool plain, std::string* out);
void EncodeCompactProposal(uint64_t origin, uint64_t id, int64_t revision, std::string* out);
void EncodeLeaseProposal(uint64_t origin, uint64_t id, ProposalKind kind, int64_t lease, int64_t ttl_s,
                         std::string* out);
void EncodeExpireProposal(uint64_t term, int64_t lease, std::string* out);
void EncodeDigestMarkProposal(std::string* out);
void EncodeDigestVerdictProposal(const DigestVerdict& verdict, std::string* out);
// `kind` is kMemberChange or kBootstrap.
void EncodeMemberProposal(uint64_t origin, uint64_t id, ProposalKind kind, std::string_view change,
                          std::string* out);

// Reads the proposals of one entry in turn.
class ProposalReader {
 public:
  explicit ProposalReader(std::string_view entry) : reader_(entry) {}
  // False at the end, and on malformed bytes (then ok() is false: the entry is corrupt).
  bool Next(Arena* arena, Proposal* proposal);
  bool ok() const { return ok_; }

 private:
  Reader reader_;
  bool ok_ = true;
};

}  // namespace keyway::core
