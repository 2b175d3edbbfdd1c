// SPDX-License-Identifier: Apache-2.0
//
// The core's half: the table of peers, and the copying of frames into their outboxes.
#include "transport.h"

#include <algorithm>
#include <utility>

namespace keyway::transport_tcp {
namespace {

constexpr size_t kPeersMax = 64;

}  // namespace

int32_t Transport::Start(std::string* error) {
  const auto* clock = static_cast<const kw_clock*>(host_->get(host_, KW_CLOCK));
  if (clock == nullptr) {
    *error = "transport-tcp needs keyway.clock/1";
    return KW_FAILED_PRECONDITION;
  }
  auto io = std::make_unique<Io>(host_, clock, options_);
  if (!io->Open(error)) return KW_UNAVAILABLE;
  io_ = std::move(io);
  return KW_OK;
}

void Transport::Stop() {
  if (io_ != nullptr) io_->Stop();
}

int32_t Transport::Listen(uint64_t self_id, const char* token, const char* const* urls, size_t url_count,
                          const kw_transport_sink* sink, std::string* error) {
  if (io_ == nullptr || is_listening_) {
    *error = "listen: once, after start";
    return KW_FAILED_PRECONDITION;
  }
  const std::string token_text = token == nullptr ? "" : token;
  if (token_text.size() > kTokenBytesMax) {
    *error = "the cluster token is longer than 1024 bytes";
    return KW_INVALID_ARGUMENT;
  }
  for (size_t i = 0; i < url_count; ++i) {
    Url url;
    if (!ParseUrl(urls[i], &url, error)) return KW_INVALID_ARGUMENT;
    if (!io_->Listen(url, error)) {
      *error = "cannot listen on " + url.text + ": " + *error;
      return KW_UNAVAILABLE;
    }
  }
  io_->Run(self_id, token_text, sink);
  is_listening_ = true;
  return KW_OK;
}

std::shared_ptr<Peer> Transport::NewPeer(uint64_t id) const {
  auto peer = std::make_shared<Peer>(id, options_.send_buffer_bytes);
  const auto* metrics = static_cast<const kw_metrics*>(host_->get(host_, KW_METRICS));
  if (metrics == nullptr) return peer;
  const std::string hex = Hex(id);
  const kw_slice value = {reinterpret_cast<const uint8_t*>(hex.data()), hex.size()};
  const kw_field to = {"To", value};
  const kw_field from = {"From", value};
  peer->sent_bytes.set_cell(metrics->cell(host_, KW_METRIC_COUNTER, "etcd_network_peer_sent_bytes_total",
                                          "The total number of bytes sent to peers.", &to, 1));
  peer->received_bytes.set_cell(metrics->cell(host_, KW_METRIC_COUNTER,
                                              "etcd_network_peer_received_bytes_total",
                                              "The total number of bytes received from peers.", &from, 1));
  peer->send_failures.set_cell(metrics->cell(host_, KW_METRIC_COUNTER,
                                             "etcd_network_peer_sent_failures_total",
                                             "The total number of send failures from peers.", &to, 1));
  return peer;
}

int32_t Transport::SetPeers(uint64_t self_id, const kw_peer* peers, size_t peer_count, std::string* error) {
  if (!is_listening_) {
    *error = "set_peers: after listen";
    return KW_FAILED_PRECONDITION;
  }
  if (peer_count > kPeersMax) {
    *error = "more than 64 peers";
    return KW_RESOURCE_EXHAUSTED;
  }
  std::map<uint64_t, std::shared_ptr<Peer>> next;
  std::vector<Io::PlannedPeer> planned;
  for (size_t i = 0; i < peer_count; ++i) {
    const kw_peer& given = peers[i];
    if (given.id == self_id || next.count(given.id) != 0) continue;
    Io::PlannedPeer plan;
    for (size_t j = 0; j < given.url_count; ++j) {
      Url url;
      if (!ParseUrl(given.urls[j], &url, error)) {
        *error = "peer " + Hex(given.id) + ": " + *error;
        return KW_INVALID_ARGUMENT;
      }
      plan.urls.push_back(std::move(url));
    }
    const auto known = peers_.find(given.id);
    plan.peer = known != peers_.end() ? known->second : NewPeer(given.id);
    next[given.id] = plan.peer;
    planned.push_back(std::move(plan));
  }
  {
    std::lock_guard lock(mutex_);
    peers_.swap(next);
  }
  io_->PostPeers(self_id, std::move(planned));
  return KW_OK;
}

size_t Transport::Send(const kw_frame* frames, size_t frame_count) {
  touched_.clear();
  size_t taken = 0;
  for (; taken < frame_count; ++taken) {
    const kw_frame& frame = frames[taken];
    const auto found = peers_.find(frame.peer);
    if (found == peers_.end()) continue;
    Peer* peer = found->second.get();
    if (frame.head.len + frame.body.len > kFrameBytesMax || frame.lane >= Outbox::kLaneCount) {
      peer->send_failures.Add(1);
      continue;
    }
    const Outbox::Taken result = peer->outbox.Append(Kind::kData, frame.lane, frame.head, frame.body);
    if (result == Outbox::Taken::kFull) break;
    if (result == Outbox::Taken::kClosed) {
      peer->send_failures.Add(1);
    } else if (std::find(touched_.begin(), touched_.end(), peer) == touched_.end()) {
      touched_.push_back(peer);
    }
  }
  for (Peer* peer : touched_) peer->outbox.FlushFromCore();
  return taken;
}

int32_t Transport::Stats(uint64_t peer_id, kw_transport_stats* out) {
  std::lock_guard lock(mutex_);
  const auto found = peers_.find(peer_id);
  if (found == peers_.end()) return KW_NOT_FOUND;
  const Peer& peer = *found->second;
  *out = {peer.sent_bytes.value(), peer.received_bytes.value(), peer.send_failures.value(),
          peer.round_trip_ns.load(std::memory_order_relaxed)};
  return KW_OK;
}

}  // namespace keyway::transport_tcp
