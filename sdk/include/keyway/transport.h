/* SPDX-License-Identifier: Apache-2.0
 *
 * keyway.transport/1: opaque frames between members. Lossy by contract: Raft sends again, so a
 * transport needs no unbounded queue. Frames of one lane to one peer arrive in the order sent while a
 * connection lasts; a frame arrives whole and unchanged (checksum) or not at all. The transport never
 * looks into a frame. */
#ifndef KEYWAY_TRANSPORT_H
#define KEYWAY_TRANSPORT_H

#include "keyway/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KW_TRANSPORT "keyway.transport/1"

/* Lanes: a lower number is sent first. */
enum { KW_LANE_CONTROL = 0, KW_LANE_BULK = 1 };

typedef struct kw_frame {
  uint64_t peer; /* sending: the receiver; receiving: the sender, as it names itself */
  uint32_t lane; /* KW_LANE_ */
  uint32_t reserved;
  kw_slice head, body; /* sent as one frame, head then body; received with an empty body */
} kw_frame;

typedef struct kw_peer {
  uint64_t id;
  const char *const *urls; /* [call] tried in turn */
  size_t url_count;
} kw_peer;

enum { KW_PEER_DOWN = 0, KW_PEER_UP = 1 };

/* Where a transport hands over what arrives. Given by the kernel, valid until stop() returns. */
typedef struct kw_transport_sink {
  uint32_t size, reserved;
  void *self;
  /* [any] Slices are [call]; the callee copies. Never blocks; calls for one peer are serial. */
  void (*frames)(void *self, const kw_frame *frames, size_t frame_count);
  /* [any] UP: a connection that this side opened to the peer can take frames. DOWN: it was lost, or
   * the peer closed (or reset) the one that it had opened to us. `principal` is [call], empty
   * without an authenticator. */
  void (*peer_state)(void *self, uint64_t peer, uint32_t state, kw_slice principal);
} kw_transport_sink;

typedef struct kw_transport_stats {
  uint64_t sent_bytes, received_bytes, send_failures;
  uint64_t round_trip_ns; /* the last measured, 0 if none */
} kw_transport_stats;

typedef struct kw_transport {
  uint32_t size, caps;
  uint64_t frame_bytes_max; /* head plus body; at least 4 MiB */
  /* [control] Once, after start(): opens the listeners and names this member. `cluster_token` is
   * compared in the handshake; a connection with another token is refused and logged. `urls` [call],
   * `sink` [inst]. UNAVAILABLE names an address that cannot be bound. */
  int32_t (*listen)(kw_plugin *plugin, uint64_t self_id, const char *cluster_token, const char *const *urls,
                    size_t url_count, const kw_transport_sink *sink, kw_error *error);
  /* [core] The whole set of peers to keep connections to; others are closed. `self_id` may change
   * from 0 (not yet known) to the member's id. Slices are [call]. */
  int32_t (*set_peers)(kw_plugin *plugin, uint64_t self_id, const kw_peer *peers, size_t peer_count,
                       kw_error *error);
  /* [core] Queues the frames that fit and returns how many were taken or dropped for good (unknown or
   * unconnected peer): a prefix. Slices are [call]. */
  size_t (*send)(kw_plugin *plugin, const kw_frame *frames, size_t frame_count);
  /* [any] KW_NOT_FOUND if the peer is unknown. */
  int32_t (*stats)(kw_plugin *plugin, uint64_t peer, kw_transport_stats *out);
} kw_transport;

#ifdef __cplusplus
}
#endif
#endif /* KEYWAY_TRANSPORT_H */
