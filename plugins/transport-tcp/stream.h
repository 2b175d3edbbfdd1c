// SPDX-License-Identifier: Apache-2.0
//
// One non-blocking connection, in plain text or TLS, with the same four operations for both.
#pragma once

#include <openssl/ssl.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <string>

#include "keyway/tls.hpp"
#include "url.h"

namespace keyway::transport_tcp {

struct SslDeleter {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};

// Not thread-safe: an Outbox serializes the users of a shared one.
class Stream {
 public:
  // Takes over the file descriptor. `maybe_ssl` is set up for its role already.
  Stream(int fd, std::unique_ptr<SSL, SslDeleter> maybe_ssl);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int fd() const { return fd_; }
  bool is_tls() const { return ssl_ != nullptr; }
  SSL* maybe_ssl() const { return ssl_.get(); }

  // 0 when the connection can carry messages, -EAGAIN while it cannot (see wants_write), else -errno.
  int Handshake();
  bool wants_write() const { return wants_write_; }
  // Bytes read, 0 at the end of the stream, -EAGAIN, or another -errno.
  ssize_t Read(char* to, size_t size);
  // Bytes taken (TLS: maybe not all sent yet, see has_pending), -EAGAIN, or another -errno.
  ssize_t Write(const iovec* pieces, int count);
  // TLS: bytes that were taken wait for the socket; Write() with no pieces sends them.
  bool has_pending() const { return pending_sent_ < pending_.size(); }
  // Says why the last call failed.
  const std::string& error() const { return error_; }
  // TLS: the same as one word; kOther for what has nothing to do with certificates.
  tls::Refusal refusal() const { return refusal_; }

 private:
  int TlsResult(int result);
  ssize_t WriteTls(const iovec* pieces, int count);

  const int fd_;
  const std::unique_ptr<SSL, SslDeleter> ssl_;
  bool wants_write_ = false;
  std::string pending_;  // TLS: one record's bytes, which OpenSSL wants again unchanged.
  size_t pending_sent_ = 0;
  std::string error_;
  tls::Refusal refusal_ = tls::Refusal::kOther;
};

// A socket that listens on `address`. Returns the descriptor, or -1 and `*error`.
int OpenListener(const Address& address, std::string* error);
// Starts to connect. Returns the descriptor, or -1 and `*error`.
int StartConnect(const Address& address, int dead_after_ms, std::string* error);
// Sets what both ends of a connection want: no delay, and a vanished host noticed.
void TuneSocket(int fd, int dead_after_ms);
std::string PeerAddress(int fd);

}  // namespace keyway::transport_tcp
