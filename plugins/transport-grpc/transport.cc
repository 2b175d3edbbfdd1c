// SPDX-License-Identifier: Apache-2.0
//
// The core's half: the table of peers, and the copying of frames into their outboxes.
#include "transport.h"

#include <algorithm>
#include <utility>

namespace keyway::transport_grpc {
namespace {

constexpr size_t kPeersMax = 64;

}  // namespace

int32_t Transport::Start(kw_error* error) {
  if (HostService<kw_clock>(host_, KW_CLOCK) == nullptr) {
    return Fail(error, KW_FAILED_PRECONDITION, "transport-grpc needs keyway.clock/1");
  }
  runtime_.Start(Logger(host_));
  io_ = std::make_unique<Io>(host_, options_);
  return KW_OK;
}

void Transport::Stop() {
  if (io_ == nullptr) return;
  io_->Stop();
  io_.reset();
  runtime_.Stop();
}

int32_t Transport::Listen(uint64_t self_id, const char* token, const char* const* urls, size_t url_count,
                          const kw_transport_sink* sink, kw_error* error) {
  if (io_ == nullptr || is_listening_)
    return Fail(error, KW_FAILED_PRECONDITION, "listen: once, after start");
  const std::string token_text = token == nullptr ? "" : token;
  if (token_text.size() > kTokenBytesMax) {
    return Fail(error, KW_INVALID_ARGUMENT, "the cluster token has ", std::to_string(token_text.size()),
                " bytes; at most 1024 are possible");
  }
  for (size_t i = 0; i < url_count; ++i) {
    Url url;
    std::string text;
    if (!ParseUrl(urls[i], &url, &text)) return Fail(error, KW_INVALID_ARGUMENT, text);
    if (!io_->Listen(url, &text)) {
      return Fail(error, KW_UNAVAILABLE, "cannot listen on ", url.text, ": ", text);
    }
  }
  io_->Run(self_id, token_text, sink);
  is_listening_ = true;
  return KW_OK;
}

std::shared_ptr<Peer> Transport::NewPeer(uint64_t id) const {
  auto peer = std::make_shared<Peer>(id, options_.send_buffer_bytes);
  const std::string hex = Hex(id);
  peer->sent_bytes.set_counter(Counter(host_, "etcd_network_peer_sent_bytes_total",
                                       "The total number of bytes sent to peers.", {{"To", hex}}));
  peer->received_bytes.set_counter(Counter(host_, "etcd_network_peer_received_bytes_total",
                                           "The total number of bytes received from peers.",
                                           {{"From", hex}}));
  peer->send_failures.set_counter(Counter(host_, "etcd_network_peer_sent_failures_total",
                                          "The total number of send failures from peers.", {{"To", hex}}));
  return peer;
}

int32_t Transport::SetPeers(uint64_t self_id, const kw_peer* peers, size_t peer_count, kw_error* error) {
  if (!is_listening_) return Fail(error, KW_FAILED_PRECONDITION, "set_peers: after listen");
  if (peer_count > kPeersMax) {
    return Fail(error, KW_RESOURCE_EXHAUSTED, std::to_string(peer_count), " peers; at most 64 are possible");
  }
  std::map<uint64_t, std::shared_ptr<Peer>> next;
  std::vector<Io::PlannedPeer> planned;
  for (size_t i = 0; i < peer_count; ++i) {
    const kw_peer& given = peers[i];
    if (given.id == self_id || next.count(given.id) != 0) continue;
    Io::PlannedPeer plan;
    for (size_t j = 0; j < given.url_count; ++j) {
      Url url;
      std::string text;
      if (!ParseUrl(given.urls[j], &url, &text)) {
        return Fail(error, KW_INVALID_ARGUMENT, "peer ", Hex(given.id), ": ", text);
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
  bool must_wake = false;
  size_t taken = 0;
  for (; taken < frame_count; ++taken) {
    const kw_frame& frame = frames[taken];
    const auto found = peers_.find(frame.peer);
    if (found == peers_.end()) continue;
    Peer* const peer = found->second.get();
    if (frame.head.len + frame.body.len > kFrameBytesMax || frame.lane >= Outbox::kLaneCount) {
      peer->send_failures.Add(1);
      continue;
    }
    bool must_wake_for_it = false;
    const Outbox::Taken result =
        peer->outbox.Append(Kind::kData, frame.lane, frame.head, frame.body, &must_wake_for_it);
    must_wake |= must_wake_for_it;
    if (result == Outbox::Taken::kFull) break;
    if (result == Outbox::Taken::kClosed) peer->send_failures.Add(1);
  }
  if (must_wake) io_->Wake();
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

}  // namespace keyway::transport_grpc
