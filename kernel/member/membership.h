// SPDX-License-Identifier: Apache-2.0
//
// The members of the cluster, replicated: changed only by applied entries, the same on every member.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/base/outcome.h"
#include "kernel/base/reply.h"
#include "kernel/raft/types.h"

namespace keyway {

inline constexpr size_t kLearnersMax = 1;           // etcd's default.
inline constexpr size_t kMemberUrlsMax = 32;        // Of one list of one member.
inline constexpr size_t kMemberUrlBytesMax = 2048;  // Of one URL, or the name.

struct Member {
  uint64_t id = 0;
  std::string name;  // Empty until it has started, if it was added at run time.
  std::vector<std::string> peer_urls, client_urls;  // Sorted.
  bool is_learner = false;
  uint64_t incarnation = 0;  // Random number of its data directory; 0: never started.
  friend bool operator==(const Member&, const Member&) = default;
};

enum class ChangeKind : uint8_t {
  kAdd = 1,         // id, peer_urls
  kAddLearner = 2,  // id, peer_urls
  kRemove = 3,      // id
  kPromote = 4,     // id
  kUpdateUrls = 5,  // id, peer_urls
  kPublish = 6,     // id, name, client_urls, incarnation: what a member says about itself.
};

struct MemberChange {
  ChangeKind kind = ChangeKind::kAdd;
  Member member;  // The fields that the kind names; the others are ignored.
  // Whether Raft's configuration changes with it.
  bool Reconfigures() const { return kind != ChangeKind::kUpdateUrls && kind != ChangeKind::kPublish; }
};

std::string EncodeMemberChange(const MemberChange& change);
// False on malformed bytes.
[[nodiscard]] bool DecodeMemberChange(std::string_view bytes, MemberChange* change);
std::string EncodeMember(const Member& member);
[[nodiscard]] bool DecodeMember(std::string_view bytes, Member* member);

// Trims, checks and sorts peer or client URLs: at least one; http, https, unix or unixs; host:port
// without a path. Errors: MEMBER_BAD_URLS, and then `urls` is unchanged.
Outcome NormalizeUrls(std::vector<std::string>* urls);

// One member of the initial cluster, as configured.
struct InitialMember {
  std::string name;
  std::vector<std::string> peer_urls;
};

class Membership {
 public:
  // The first state of a new cluster: ids of members and cluster are hashes of URLs and token, the same
  // on every member that is configured the same. Errors: MEMBER_BAD_URLS, PEER_URL_EXISTS,
  // MEMBER_EXISTS (a name comes twice).
  Outcome Bootstrap(const std::vector<InitialMember>& initial, std::string_view token);
  // An id for a member to be added; never 0, never one that is known or removed.
  uint64_t NewMemberId(const std::vector<std::string>& peer_urls, uint64_t random) const;

  // Whether the change is possible now. Errors, in etcd's order: MEMBER_NOT_FOUND (also: the id was
  // removed), MEMBER_EXISTS, MEMBER_NOT_LEARNER, MEMBER_BAD_URLS, PEER_URL_EXISTS, TOO_MANY_LEARNERS,
  // NOT_ENOUGH_STARTED_MEMBERS (the last voter cannot be removed).
  Outcome Check(const MemberChange& change) const;
  // etcd's strict reconfiguration check, for the leader before it proposes: a quorum of the voters after
  // the change has started. Errors: NOT_ENOUGH_STARTED_MEMBERS. Presumes Check().
  Outcome CheckStarted(const MemberChange& change) const;
  // Checks again, then changes. Deterministic.
  Outcome Apply(const MemberChange& change);

  uint64_t cluster_id() const { return cluster_id_; }
  const Member* Find(uint64_t id) const;  // Null if unknown; valid until the next change.
  const Member* FindByName(std::string_view name) const;
  // The member that one of these (normalized) peer URLs belongs to, or null.
  const Member* FindByPeerUrls(const std::vector<std::string>& peer_urls) const;
  const std::map<uint64_t, Member>& members() const { return members_; }  // By id.
  bool IsRemoved(uint64_t id) const { return removed_.count(id) != 0; }
  raft::Configuration Configuration() const;

  // ---- the engine's bytes: one value for each member, one for removed ids and cluster id ----
  std::string EncodeCluster() const;
  [[nodiscard]] bool RestoreCluster(std::string_view bytes);
  [[nodiscard]] bool RestoreMember(std::string_view bytes);
  void Clear();

  // Sets cluster_id, members and member_count; strings are copied.
  void FillReply(Reply* reply) const;

 private:
  bool PeerUrlTaken(const std::vector<std::string>& urls, uint64_t except_id) const;

  uint64_t cluster_id_ = 0;
  std::map<uint64_t, Member> members_;
  std::set<uint64_t> removed_;
};

}  // namespace keyway
