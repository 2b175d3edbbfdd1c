// SPDX-License-Identifier: Apache-2.0
//
// One client connection: the socket, TLS, who is at the other end, and which protocol it speaks. With
// TLS it lives twice: until its handshake and authentication are over on the thread of the handshakes,
// then, as a new object around the same socket and session, on the one that serves it.
#pragma once

#include <openssl/ssl.h>

#include <list>
#include <memory>
#include <string>

#include "buffer.h"
#include "errors.h"
#include "io_thread.h"

namespace keyway::api_etcd {

// What is spoken on a connection. Never destroys its connection: it answers instead.
class Protocol {
 public:
  virtual ~Protocol() = default;
  // False: nothing more can be read; what is in the output is still sent.
  virtual bool Receive(const uint8_t* bytes, size_t count) = 0;
  // Appends to the connection's output while that is below kOutputBytesSoft.
  virtual void Produce() = 0;
  // No new requests; ends when the running ones are done.
  virtual void Drain() = 0;
  // Nothing left to do once the output is sent.
  virtual bool IsFinished() const = 0;
};

// A socket on its way to the thread that goes on with it.
struct Arrival final : Posted {
  ~Arrival();
  static void Run(Posted* posted, IoThread* io);

  Server* server = nullptr;
  int fd = -1;
  bool is_tls = false;
  std::string address;
  // After a handshake:
  SSL* maybe_ssl = nullptr;
  std::string principal;
  Status identity_status;
  uint64_t generation = 0;  // Of the TLS material that it was authenticated under.
};

// Of one I/O thread.
class Connection final : public Pollable {
 public:
  // Takes what `arrival` holds.
  Connection(IoThread* io, Arrival* arrival);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool Start();
  void OnEvents(uint32_t events) override;
  void Flush();
  void Drain();
  // Ends it now; destroyed at the end of the turn.
  void Close();
  // Unfinished, and a newer handshake needs its place.
  void Evict();
  // Asks the authenticator again about the certificate; a refusal closes the connection.
  void Reauthenticate();

  bool is_in_handshake() const { return phase_ == Phase::kHandshake || phase_ == Phase::kAuthenticate; }
  uint64_t generation() const { return generation_; }
  bool has_certificate() const { return has_certificate_; }
  IoThread* io() { return io_; }
  Buffer& out() { return out_; }
  kw_slice principal() const { return Slice(principal_); }
  const Status& identity_status() const { return identity_status_; }
  const std::string& address() const { return address_; }
  // (Re)sets the connection's one deadline; 0: none. When it passes, the connection is closed.
  void SetDeadline(uint64_t at_ns);

  // Of the loop.
  bool is_dirty = false;
  bool is_to_reauthenticate = false;
  std::list<Connection*>::iterator handshake_slot;
  bool has_handshake_slot = false;

 private:
  enum class Phase { kHandshake, kAuthenticate, kPreface, kServing };
  struct Identification;

  void OnReadable();
  void Handshake();
  void OnDeadline();
  bool AskAuthenticator();
  void HandOver();
  void OnIdentified(int32_t code, std::string_view principal, std::string_view text);
  void Consume(const uint8_t* bytes, size_t count);
  void EndReading();
  // Bytes read or written; 0: would block; -1: over.
  ssize_t Read(uint8_t* bytes, size_t count);
  ssize_t Write(const uint8_t* bytes, size_t count);
  ssize_t TlsResult(int result);
  void UpdateInterest();

  IoThread* const io_;
  int fd_;
  const bool is_tls_;
  const std::string address_;
  SSL* ssl_ = nullptr;
  Phase phase_;
  std::unique_ptr<Protocol> protocol_;
  Buffer preface_;
  Buffer out_;
  std::string principal_;
  Status identity_status_;
  Identification* maybe_identification_ = nullptr;
  uint64_t generation_ = 0;
  bool has_certificate_ = false;
  uint32_t interest_ = 0;
  bool is_closed_ = false;
  bool is_draining_ = false;
  bool is_read_over_ = false;
  bool is_write_blocked_ = false;
  bool has_more_to_read_ = false;
  bool wants_write_for_tls_ = false;
  struct DeadlineTimer : TimerWheel::Timer {
    Connection* connection = nullptr;
  } deadline_;
};

}  // namespace keyway::api_etcd
