// SPDX-License-Identifier: Apache-2.0
//
// Dialer: keeps the connection that this member opens to one peer, on which it sends.
//
//   waiting -> resolving -> connecting -> (tls -> authenticating ->) greeting -> up -> waiting ...
//
// One round tries every address of every URL in turn. After a round without success the next one waits
// 10 ms, doubling up to 1 s, with jitter. A lost connection is dialed again at once, unless it had
// lasted less than a second; so is a peer that just dialed us.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "io.h"
#include "loop.h"
#include "stream.h"

namespace keyway::transport_tcp {

class Dialer : public Pollable {  // [io]
 public:
  Dialer(Io* io, std::shared_ptr<Peer> peer);
  ~Dialer() override;

  // Begins, or goes on with other URLs.
  void SetUrls(std::vector<Url> urls);
  // Dials again, since this member has another id now.
  void Restart();
  void OnEvents(uint32_t events) override;
  void OnTime(uint64_t now_ns);
  // Asks the authenticator again about the acceptor's certificate; the connection ends if it is refused.
  void Reauthenticate();
  // The connection that the peer had opened to us was ended by the peer.
  void OnInboundLost();
  // The peer has just opened a connection to us, so it is there.
  void OnInboundGreeted();
  Peer* peer() { return peer_.get(); }
  const std::vector<Url>& urls() const { return urls_; }

 private:
  enum class State { kWaiting, kResolving, kConnecting, kTls, kAuthenticating, kGreeting, kUp };

  void BeginRound();
  void Advance();
  bool StartAddress(const Address& address);
  void OnConnected();
  void AdvanceTls();
  void SendHello();
  void ReadAnswer();
  void GoUp(uint64_t acceptor);
  void ReadPongs();
  void SendPing();
  // The current address did not work: on to the next.
  void Fail(const std::string& reason);
  // The connection that was up is no more.
  void Lose(const std::string& reason);
  void CloseStream();
  void WaitBeforeRound(bool at_once);
  void ReportState(uint32_t state);
  void SetDeadline(uint64_t delay_ns);
  void LogUnreachable();

  Io* const io_;
  const std::shared_ptr<Peer> peer_;
  const std::string id_text_;
  std::vector<Url> urls_;
  State state_ = State::kWaiting;
  uint64_t deadline_ns_ = Loop::kNever;  // Of the state: the next round, a timeout, the next ping.
  uint64_t backoff_ns_ = 0;
  std::minstd_rand random_;

  // Of the current round.
  size_t url_index_ = 0;  // The next one.
  Url url_;
  std::vector<Address> addresses_;  // Not yet tried, last first.
  uint64_t resolve_ticket_ = 0;
  bool is_inside_resolve_ = false;
  std::string failure_;

  // Of the current connection.
  std::unique_ptr<Stream> stream_;
  std::string address_text_;
  uint64_t auth_ticket_ = 0;
  uint64_t auth_generation_ = 0;
  tls::Evidence shown_;
  std::string principal_;
  std::string received_;
  uint64_t up_since_ns_ = 0;
  bool is_reported_up_ = false;
  uint64_t doubted_since_ns_ = 0;  // A pong of a later ping ends the doubt. 0: no doubt.

  uint64_t next_unreachable_log_ns_ = 0;
  std::string logged_failure_;
};

}  // namespace keyway::transport_tcp
