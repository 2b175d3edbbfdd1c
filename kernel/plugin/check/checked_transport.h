// SPDX-License-Identifier: Apache-2.0
//
// keyway.transport/1 under check, with the sink that it calls. Beside the rules of every table:
//
//   taken-within-given     send() takes at most the frames that were given
//   serial-for-one-peer    the sink is called by one thread at a time for one peer
//   sound-frames           a received frame has a lane of the enum, an empty body, and at most
//                          frame_bytes_max; a state is UP or DOWN
//   no-call-after-stop     of the sink
#pragma once

#include <array>
#include <atomic>

#include "kernel/plugin/check/verdict.h"
#include "keyway/transport.h"

namespace keyway::check {

class CheckedTransport {
 public:
  CheckedTransport(const Subject* subject, kw_plugin* inner, const kw_transport& table);

  kw_plugin* plugin() { return &facade_; }
  const kw_transport& table() const { return outer_; }

 private:
  friend struct TransportThunks;
  // Marks that a thread is in the sink for a peer. Two peers in one slot: the second goes unchecked.
  class PeerScope;
  static constexpr size_t kPeersMax = 128;

  static CheckedTransport& Self(kw_plugin* plugin) { return *static_cast<CheckedTransport*>(plugin->self); }
  int32_t Listen(uint64_t self_id, const char* cluster_token, const char* const* urls, size_t url_count,
                 const kw_transport_sink* sink, kw_error* error);
  int32_t SetPeers(uint64_t self_id, const kw_peer* peers, size_t peer_count, kw_error* error);
  size_t Send(const kw_frame* frames, size_t frame_count);
  static void OnFrames(void* self, const kw_frame* frames, size_t frame_count);
  static void OnPeerState(void* self, uint64_t peer, uint32_t state, kw_slice principal);

  const Subject& subject_;
  kw_plugin* const inner_;
  const kw_transport table_;
  kw_transport outer_;
  kw_plugin facade_{};
  SerialLane core_lane_;
  const kw_transport_sink* sink_ = nullptr;  // The kernel's; set before listen().
  kw_transport_sink outer_sink_{};
  std::array<std::atomic<uint64_t>, kPeersMax> in_sink_{};  // Peers, 0: none.
};

}  // namespace keyway::check
