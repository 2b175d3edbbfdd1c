// SPDX-License-Identifier: Apache-2.0
//
// Inbound: a session that another member opened, on whose two streams its frames arrive.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "io.h"
#include "stream.h"
#include "tls.h"

namespace keyway::transport_grpc {

class Inbound : public Stream::Owner {  // [io]
 public:
  // `control` becomes the session's.
  Inbound(Io* io, Stream* control, std::string address);
  ~Inbound() override { Close(); }

  // Checks the greeting and the certificate; welcomes or refuses.
  void Greet(const Hello& hello);
  // False: the bulk stream belongs to another session.
  bool TakeBulk(Stream* stream, const Hello& hello);
  void OnTime(uint64_t now_ns);
  // The TLS material has changed: is the certificate still good?
  void CheckAgain();
  // Lets go of the streams.
  void Close();

  void OnOpened(Stream* stream) override;
  void OnMessage(Stream* stream, std::string_view bytes) override;
  void OnSent(Stream* stream) override;
  void OnClosed(Stream* stream, grpc_status_code code, const std::string& text) override;

  uint64_t peer() const { return peer_; }
  const std::string& address() const { return address_; }

 private:
  std::string CheckHello(const Hello& hello) const;
  std::string CheckCertificate() const;
  void Welcome(Stream* stream);
  void Deliver();
  void SendPong();
  void Refuse(const std::string& reason);
  // Ends the session, which frees this object after the current event.
  void End(bool by_peer, const std::string& why_rejected);

  Io* const io_;
  const std::string address_;
  std::array<Stream*, Outbox::kLaneCount> streams_ = {};  // NULL: not there.
  uint64_t deadline_ns_;
  bool is_ended_ = false;
  bool is_welcome_ = false;
  uint64_t peer_ = 0;
  uint64_t session_ = 0;
  bool is_tls_ = false;
  std::string leaf_pem_;
  PeerChain chain_;
  uint64_t auth_ticket_ = 0;
  std::vector<kw_frame> frames_;
  size_t frame_bytes_ = 0;
  std::string pong_;  // Waits for the one before it to be written. Empty: none.
};

}  // namespace keyway::transport_grpc
