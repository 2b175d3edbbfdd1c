// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/checked_transport.h"

#include <vector>

#include "kernel/plugin/check/poison.h"

namespace keyway::check {
namespace {

constexpr Function kListen{"transport.listen", ThreadTag::kControl};
constexpr Function kSetPeers{"transport.set_peers", ThreadTag::kCore};
constexpr Function kSend{"transport.send", ThreadTag::kCore};
constexpr Function kStats{"transport.stats", ThreadTag::kAny};
constexpr const char* kFrames = "transport-sink.frames";
constexpr const char* kPeerState = "transport-sink.peer_state";

size_t CopyBytes(kw_slice slice) { return PoisonedCopy::RoundUp(slice.len); }

}  // namespace

class CheckedTransport::PeerScope {
 public:
  PeerScope(CheckedTransport* transport, uint64_t peer, const char* function)
      : slot_(transport->in_sink_[HashOf(&peer, sizeof peer) % kPeersMax]) {
    uint64_t before = 0;
    is_holder_ = slot_.compare_exchange_strong(before, peer, std::memory_order_acquire);
    if (!is_holder_ && before == peer) [[unlikely]] {
      transport->subject_.Condemn(function, "serial-for-one-peer",
                                  absl::StrCat("was called by two threads at once for peer ", HexId(peer)));
    }
  }
  ~PeerScope() {
    if (is_holder_) slot_.store(0, std::memory_order_release);
  }
  PeerScope(const PeerScope&) = delete;
  PeerScope& operator=(const PeerScope&) = delete;

 private:
  std::atomic<uint64_t>& slot_;
  bool is_holder_ = false;
};

struct TransportThunks {
  static int32_t Listen(kw_plugin* plugin, uint64_t self_id, const char* cluster_token,
                        const char* const* urls, size_t url_count, const kw_transport_sink* sink,
                        kw_error* error) {
    return CheckedTransport::Self(plugin).Listen(self_id, cluster_token, urls, url_count, sink, error);
  }
  static int32_t SetPeers(kw_plugin* plugin, uint64_t self_id, const kw_peer* peers, size_t peer_count,
                          kw_error* error) {
    return CheckedTransport::Self(plugin).SetPeers(self_id, peers, peer_count, error);
  }
  static size_t Send(kw_plugin* plugin, const kw_frame* frames, size_t frame_count) {
    return CheckedTransport::Self(plugin).Send(frames, frame_count);
  }
  static int32_t Stats(kw_plugin* plugin, uint64_t peer, kw_transport_stats* out) {
    CheckedTransport& self = CheckedTransport::Self(plugin);
    const int32_t code =
        Guarded(self.subject_, kStats, [&] { return self.table_.stats(self.inner_, peer, out); });
    CheckCode(self.subject_, kStats.name, code);
    return code;
  }
};

CheckedTransport::CheckedTransport(const Subject* subject, kw_plugin* inner, const kw_transport& table)
    : subject_(*subject), inner_(inner), table_(table), outer_(table) {
  facade_.size = sizeof facade_;
  facade_.self = this;
  outer_.listen = &TransportThunks::Listen;
  outer_.set_peers = &TransportThunks::SetPeers;
  outer_.send = &TransportThunks::Send;
  outer_.stats = &TransportThunks::Stats;
  outer_sink_.size = sizeof outer_sink_;
  outer_sink_.self = this;
  outer_sink_.frames = &CheckedTransport::OnFrames;
  outer_sink_.peer_state = &CheckedTransport::OnPeerState;
}

// ---- calls of the kernel -------------------------------------------------------------------------

int32_t CheckedTransport::Listen(uint64_t self_id, const char* cluster_token, const char* const* urls,
                                 size_t url_count, const kw_transport_sink* sink, kw_error* error) {
  sink_ = sink;
  PoisonedCopy copy;
  if (subject_.is_full()) {
    size_t bytes = PoisonedCopy::RoundUp(url_count * sizeof(char*)) +
                   PoisonedCopy::RoundUp(std::strlen(cluster_token) + 1);
    for (size_t i = 0; i < url_count; ++i) bytes += PoisonedCopy::RoundUp(std::strlen(urls[i]) + 1);
    copy = PoisonedCopy(subject_, kListen, bytes);
    cluster_token = copy.Text(cluster_token);
    const char** copied = copy.Array(urls, url_count);
    for (size_t i = 0; i < url_count; ++i) copied[i] = copy.Text(urls[i]);
    urls = copied;
  }
  return CheckedCall(subject_, kListen, error, [&] {
    return table_.listen(inner_, self_id, cluster_token, urls, url_count, &outer_sink_, error);
  });
}

int32_t CheckedTransport::SetPeers(uint64_t self_id, const kw_peer* peers, size_t peer_count,
                                   kw_error* error) {
  SerialLane::Scope serial(&core_lane_, subject_, kSetPeers);
  PoisonedCopy copy;
  if (subject_.is_full()) {
    size_t bytes = PoisonedCopy::RoundUp(peer_count * sizeof(kw_peer));
    for (size_t i = 0; i < peer_count; ++i) {
      bytes += PoisonedCopy::RoundUp(peers[i].url_count * sizeof(char*));
      for (size_t j = 0; j < peers[i].url_count; ++j) {
        bytes += PoisonedCopy::RoundUp(std::strlen(peers[i].urls[j]) + 1);
      }
    }
    copy = PoisonedCopy(subject_, kSetPeers, bytes);
    kw_peer* copied = copy.Array(peers, peer_count);
    for (size_t i = 0; i < peer_count; ++i) {
      const char** urls = copy.Array(peers[i].urls, peers[i].url_count);
      for (size_t j = 0; j < peers[i].url_count; ++j) urls[j] = copy.Text(urls[j]);
      copied[i].urls = urls;
    }
    peers = copied;
  }
  return CheckedCall(subject_, kSetPeers, error,
                     [&] { return table_.set_peers(inner_, self_id, peers, peer_count, error); });
}

size_t CheckedTransport::Send(const kw_frame* frames, size_t frame_count) {
  CheckThread(subject_, kSend);
  SerialLane::Scope serial(&core_lane_, subject_, kSend);
  PoisonedCopy copy;
  if (subject_.is_full()) {
    size_t bytes = PoisonedCopy::RoundUp(frame_count * sizeof(kw_frame));
    for (size_t i = 0; i < frame_count; ++i) bytes += CopyBytes(frames[i].head) + CopyBytes(frames[i].body);
    copy = PoisonedCopy(subject_, kSend, bytes);
    kw_frame* copied = copy.Array(frames, frame_count);
    for (size_t i = 0; i < frame_count; ++i) {
      copied[i].head = copy.Slice(frames[i].head);
      copied[i].body = copy.Slice(frames[i].body);
    }
    frames = copied;
  }
  const size_t taken = Guarded(subject_, kSend, [&] { return table_.send(inner_, frames, frame_count); });
  if (taken > frame_count) [[unlikely]] {
    subject_.Condemn(kSend.name, "taken-within-given",
                     absl::StrCat("took ", taken, " frames of ", frame_count));
  }
  return taken;
}

// ---- calls of the plugin -------------------------------------------------------------------------

void CheckedTransport::OnFrames(void* context, const kw_frame* frames, size_t frame_count) {
  auto* self = static_cast<CheckedTransport*>(context);
  CheckNotStopped(self->subject_, kFrames);
  if (frame_count == 0) return;
  PeerScope scope(self, frames[0].peer, kFrames);
  for (size_t i = 0; i < frame_count; ++i) {
    const kw_frame& frame = frames[i];
    if (frame.lane > KW_LANE_BULK || !IsSound(frame.head) || frame.body.len != 0 ||
        frame.head.len > self->table_.frame_bytes_max) [[unlikely]] {
      self->subject_.Condemn(kFrames, "sound-frames",
                             absl::StrCat("was given a frame of ", frame.head.len, " and ", frame.body.len,
                                          " bytes in lane ", frame.lane));
    }
  }
  self->sink_->frames(self->sink_->self, frames, frame_count);
}

void CheckedTransport::OnPeerState(void* context, uint64_t peer, uint32_t state, kw_slice principal) {
  auto* self = static_cast<CheckedTransport*>(context);
  CheckNotStopped(self->subject_, kPeerState);
  PeerScope scope(self, peer, kPeerState);
  if (state > KW_PEER_UP || !IsSound(principal)) {
    self->subject_.Condemn(kPeerState, "sound-frames", absl::StrCat("was given the state ", state));
  }
  self->sink_->peer_state(self->sink_->self, peer, state, principal);
}

}  // namespace keyway::check
