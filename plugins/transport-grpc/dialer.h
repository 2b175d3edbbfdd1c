// SPDX-License-Identifier: Apache-2.0
//
// Dialer: keeps the connection that this member opens to one peer, on which it sends.
//
//   waiting -> opening (control stream) -> authenticating -> opening bulk -> up -> waiting ...
//
// One round tries every URL in turn, each on a gRPC channel of its own; gRPC resolves names and tries
// the addresses of one. After a round without success the next one waits 50 ms, doubling up to 1 s, with
// jitter. A lost connection is dialed again after 30 ms, if it had lasted a second; a peer that just
// dialed us is dialed at once.
#pragma once

#include <array>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "io.h"
#include "stream.h"

namespace keyway::transport_grpc {

class Dialer : public Stream::Owner {  // [io]
 public:
  Dialer(Io* io, std::shared_ptr<Peer> peer);
  ~Dialer() override;

  // Begins, or goes on with other URLs.
  void SetUrls(std::vector<Url> urls);
  const std::vector<Url>& urls() const { return urls_; }
  // Dials again, since this member has another id now.
  void Restart();
  // Sends what waits in the outbox.
  void Pump();
  void OnTime(uint64_t now_ns);
  // The TLS material has changed: is the certificate still good?
  void CheckAgain();
  // The session that the peer had opened to us was ended by the peer.
  void OnInboundLost();
  // The peer has just opened a session to us, so it is there.
  void OnInboundGreeted();
  Peer* peer() { return peer_.get(); }

  void OnOpened(Stream* stream) override;
  void OnMessage(Stream* stream, std::string_view bytes) override;
  void OnSent(Stream* stream) override;
  void OnClosed(Stream* stream, grpc_status_code code, const std::string& text) override;

 private:
  enum class State { kWaiting, kOpening, kAuthenticating, kOpeningBulk, kUp };

  void Advance();
  bool StartUrl();
  void StartStream(uint32_t lane);
  void Authenticate();
  void GoUp();
  void SendPing();
  // The current URL did not work: on to the next.
  void Fail(const std::string& reason);
  // The connection that was up is no more.
  void Lose(const std::string& reason);
  void CloseChannel();
  void WaitBeforeRound(bool at_once);
  void ReportState(uint32_t state);
  void SetDeadline(uint64_t delay_ns);
  void LogUnreachable();

  Io* const io_;
  const std::shared_ptr<Peer> peer_;
  const std::string id_text_;
  std::vector<Url> urls_;
  State state_ = State::kWaiting;
  uint64_t deadline_ns_ = kNever;  // Of the state: the next round, a timeout, the next ping.
  uint64_t backoff_ns_ = 0;
  std::mt19937_64 random_;

  // Of the current round.
  size_t url_index_ = 0;  // The next one.
  Url url_;
  std::string failure_;

  // Of the current connection.
  grpc_channel* channel_ = nullptr;
  std::array<Stream*, Outbox::kLaneCount> streams_ = {};  // NULL: not there.
  uint64_t session_ = 0;
  std::string address_;
  PeerChain chain_;
  uint64_t auth_ticket_ = 0;
  std::string principal_;
  uint64_t up_since_ns_ = 0;
  bool is_reported_up_ = false;
  uint64_t doubted_since_ns_ = 0;  // A pong of a later ping ends the doubt. 0: no doubt.

  uint64_t next_unreachable_log_ns_ = 0;
  std::string logged_failure_;
};

}  // namespace keyway::transport_grpc
