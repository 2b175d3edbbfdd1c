// SPDX-License-Identifier: Apache-2.0
//
// How replicated state lies in the engine's tables. All keys sort by their bytes.
//
//   table 0 meta       "identity"   Identity: written once, when the data directory is new
//                      "applied"    Applied: in the same batch as the changes that it counts
//                      "fenced"     present after the members' digests differed: why
//                      "installing" present while a snapshot is being installed: the rest is partial
//                      "log-reset"  present from the end of a snapshot until the log was reset to it
//                      "log-promise" Promise: present while the log, once damaged, lacks what it had
//                      "peer/" id u64 BE -> u64: the incarnation that this member first came with
//   table 1 revisions  main u64 BE, sub u32 BE -> record (mvcc/record.h)
//   table 2 leases     id u64 BE -> varint granted ttl in seconds
//   table 3 members    id u64 BE -> member::Membership's bytes; id 0: the removed ids
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace keyway::core {

inline constexpr uint32_t kTableMeta = 0;
inline constexpr uint32_t kTableRevisions = 1;
inline constexpr uint32_t kTableLeases = 2;
inline constexpr uint32_t kTableMembers = 3;

inline constexpr std::string_view kMetaIdentity = "identity";
inline constexpr std::string_view kMetaApplied = "applied";
inline constexpr std::string_view kMetaInstalling = "installing";
inline constexpr std::string_view kMetaLogReset = "log-reset";
inline constexpr std::string_view kMetaFenced = "fenced";
inline constexpr std::string_view kMetaLogPromise = "log-promise";

inline constexpr std::string_view kMetaPeerPrefix = "peer/";
std::string MetaPeerKey(uint64_t member);
// The member of such a key; 0: it is another key.
uint64_t MemberOfMetaPeerKey(std::string_view key);

// Who this data directory belongs to. Never leaves the member (a snapshot skips it).
struct Identity {
  uint64_t cluster_id = 0;  // 0: not joined yet.
  uint64_t member_id = 0;
  uint64_t incarnation = 0;  // Random, of this data directory.
};
std::string EncodeIdentity(const Identity& identity);
std::optional<Identity> DecodeIdentity(std::string_view bytes);

// The point of the log up to which the engine's tables hold everything.
struct Applied {
  uint64_t index = 0, term = 0;
  int64_t revision = 1;
  int64_t compact_revision = 0;
  bool compacted = true;  // The compaction to compact_revision has finished.
  uint64_t cluster_id = 0;
  uint64_t digest = 0;  // Of the items of the replicated tables: StateDigest.
};
std::string EncodeApplied(const Applied& applied);
std::optional<Applied> DecodeApplied(std::string_view bytes);

// The last entry of a log before it was damaged: raft::InitialState::promised_index.
struct Promise {
  uint64_t index = 0, term = 0;
};
std::string EncodePromise(const Promise& promise);
std::optional<Promise> DecodePromise(std::string_view bytes);

}  // namespace keyway::core
