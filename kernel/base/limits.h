// SPDX-License-Identifier: Apache-2.0
//
// Every bound of the kernel in one place. Reaching one is a status, never growth.
#pragma once

#include <cstddef>
#include <cstdint>

namespace keyway {

inline constexpr size_t kEntryBytesMax = 4u << 20;          // One Raft entry: a batch of proposals.
inline constexpr size_t kProposalBatchBytes = 1u << 20;     // An entry is closed at this size.
inline constexpr size_t kAppendMessageBytesMax = 1u << 20;  // Entries' data in one Append message.
inline constexpr size_t kInflightBytesMax = 16u << 20;      // Unacknowledged, to one follower.
inline constexpr size_t kInflightMessagesMax = 256;
inline constexpr size_t kRaftCacheBytes = 16u << 20;    // Entries kept in memory for followers.
inline constexpr uint64_t kApplyLagMax = 5000;          // Committed and not applied (etcd's limit).
inline constexpr size_t kUnstoredBytesMax = 64u << 20;  // Applied, not yet in the engine: apply waits.
inline constexpr size_t kStoreBatchBytes = 4u << 20;    // Written to the engine from this size on.
inline constexpr size_t kRequestsWaitingMax = 65536;    // Submitted, not yet answered.
inline constexpr size_t kSnapshotChunkBytes = 512u << 10;
inline constexpr size_t kSnapshotChunksInflight = 8;
inline constexpr size_t kFrameBytesMax = 8u << 20;  // What the kernel accepts of a peer.

static_assert(kEntryBytesMax + 65536 <= kFrameBytesMax, "one entry must fit one frame");
static_assert(kProposalBatchBytes < kEntryBytesMax);

}  // namespace keyway
