// SPDX-License-Identifier: Apache-2.0
//
// Listener and Inbound: the connections that other members open, on which their frames arrive.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io.h"
#include "loop.h"
#include "receive_buffer.h"
#include "stream.h"

namespace keyway::transport_tcp {

// [io], but for the constructor.
class Listener : public Pollable {
 public:
  Listener(Io* io, int fd, bool is_tls, std::string unix_path);
  ~Listener() override;

  void Start();
  void OnEvents(uint32_t events) override;
  // Accepts again after it had run out of descriptors.
  void OnTime(uint64_t now_ns);

 private:
  Io* const io_;
  const int fd_;
  const bool is_tls_;
  const std::string unix_path_;
  uint64_t paused_until_ns_ = 0;
};

// [io] From accept() to the end of the connection.
class Inbound : public Pollable {
 public:
  // `arrival`: a later connection has a higher number.
  Inbound(Io* io, std::unique_ptr<Stream> stream, std::string address, uint64_t arrival);
  ~Inbound() override;

  void OnEvents(uint32_t events) override;
  void OnTime(uint64_t now_ns);

  // Ends it in favour of a newer connection.
  void Evict() { End(false, ""); }
  // Asks the authenticator again about the certificate; ends the connection if it is refused now.
  void Reauthenticate();
  // Ends the connection if the certificate is not one of the member that it claims to be.
  void CheckName();

  uint64_t arrival() const { return arrival_; }
  bool is_greeted() const { return state_ == State::kGreeted; }
  uint64_t peer() const { return peer_; }
  const std::string& address() const { return address_; }
  int fd() const { return stream_->fd(); }

 private:
  enum class State { kTls, kAuthenticating, kGreeting, kGreeted, kEnded };

  void AdvanceTls();
  bool HasName(uint64_t id, std::string* why) const;
  void ReadAll();
  bool HandleMessages();
  bool HandleHello(const Header& header, std::string_view payload);
  void Deliver();
  bool Send(const std::string& message);
  void Refuse(const std::string& reason);
  // Ends the connection, which frees this object after the current events.
  void End(bool by_peer, const std::string& why_rejected);

  Io* const io_;
  const std::unique_ptr<Stream> stream_;
  const std::string address_;
  const uint64_t arrival_;
  State state_;
  uint64_t deadline_ns_;
  uint64_t auth_ticket_ = 0;
  uint64_t auth_generation_ = 0;
  tls::Evidence shown_;
  std::string principal_;
  uint64_t peer_ = 0;
  ReceiveBuffer buffer_;
  std::vector<kw_frame> frames_;
  size_t frame_bytes_ = 0;
};

}  // namespace keyway::transport_tcp
