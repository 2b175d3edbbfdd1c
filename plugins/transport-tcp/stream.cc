// SPDX-License-Identifier: Apache-2.0
//
// Sockets, and the plain and the TLS form of reading and writing them.
#include "stream.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tls.h"

namespace keyway::transport_tcp {
namespace {

constexpr size_t kTlsRecordBytes = 16384;
// The kernel keeps at most this much unsent, so that a control frame does not wait behind megabytes.
constexpr int kNotSentBytesMax = 256 << 10;

std::string ErrnoText(const char* what, int code) {
  char text[128];
  return std::string(what) + ": " + strerror_r(code, text, sizeof(text));
}

}  // namespace

Stream::Stream(int fd, std::unique_ptr<SSL, SslDeleter> maybe_ssl) : fd_(fd), ssl_(std::move(maybe_ssl)) {
  if (ssl_ != nullptr) AttachSocket(ssl_.get(), fd_);
}

Stream::~Stream() { close(fd_); }

int Stream::Handshake() {
  if (ssl_ == nullptr) return 0;
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  if (result == 1) {
    wants_write_ = false;
    return 0;
  }
  const int code = TlsResult(result);
  return code == 0 ? -ECONNRESET : code;
}

// Maps OpenSSL's answer to 0 (end of the stream), -EAGAIN or another -errno.
int Stream::TlsResult(int result) {
  const int saved_errno = errno;
  wants_write_ = false;
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
      wants_write_ = true;
      return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
      return 0;
    case SSL_ERROR_SYSCALL:
      error_ = ErrnoText("tls", saved_errno == 0 ? ECONNRESET : saved_errno);
      return saved_errno == 0 ? -ECONNRESET : -saved_errno;
    default: {
      tls::Failure failure = tls::FailureOf(ssl_.get());
      refusal_ = failure.refusal;
      error_ = "tls: " + (refusal_ == tls::Refusal::kOther ? "" : std::string(tls::Name(refusal_)) + ": ") +
               failure.text;
      return -EPROTO;
    }
  }
}

ssize_t Stream::Read(char* to, size_t size) {
  if (ssl_ != nullptr) {
    ERR_clear_error();
    const int got = SSL_read(ssl_.get(), to, static_cast<int>(std::min(size, size_t{1} << 30)));
    return got > 0 ? got : TlsResult(got);
  }
  const ssize_t got = recv(fd_, to, size, 0);
  if (got >= 0) return got;
  const int code = errno == EINTR || errno == EWOULDBLOCK ? EAGAIN : errno;
  if (code != EAGAIN) error_ = ErrnoText("read", code);
  return -code;
}

ssize_t Stream::Write(const iovec* pieces, int count) {
  if (ssl_ != nullptr) return WriteTls(pieces, count);
  if (count == 0) return 0;
  msghdr message = {};
  message.msg_iov = const_cast<iovec*>(pieces);
  message.msg_iovlen = static_cast<size_t>(count);
  const ssize_t sent = sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) return sent;
  const int code = errno == EINTR || errno == EWOULDBLOCK ? EAGAIN : errno;
  if (code != EAGAIN) error_ = ErrnoText("write", code);
  return -code;
}

ssize_t Stream::WriteTls(const iovec* pieces, int count) {
  ssize_t taken = 0;
  int piece = 0;
  size_t piece_at = 0;
  while (true) {
    if (has_pending()) {
      ERR_clear_error();
      const int sent = SSL_write(ssl_.get(), pending_.data() + pending_sent_,
                                 static_cast<int>(pending_.size() - pending_sent_));
      if (sent > 0) {
        pending_sent_ += static_cast<size_t>(sent);
        continue;
      }
      const int code = TlsResult(sent);
      if (code == -EAGAIN) return taken > 0 ? taken : -EAGAIN;
      return code == 0 ? -ECONNRESET : code;
    }
    pending_.clear();
    pending_sent_ = 0;
    while (piece < count && pending_.size() < kTlsRecordBytes) {
      const size_t size = std::min(pieces[piece].iov_len - piece_at, kTlsRecordBytes - pending_.size());
      pending_.append(static_cast<const char*>(pieces[piece].iov_base) + piece_at, size);
      piece_at += size;
      if (piece_at == pieces[piece].iov_len) {
        ++piece;
        piece_at = 0;
      }
    }
    if (pending_.empty()) return taken;
    taken += static_cast<ssize_t>(pending_.size());
  }
}

void TuneSocket(int fd, int dead_after_ms) {
  const int on = 1;
  const int idle_s = 2;
  const int interval_s = 1;
  const int probes = std::max(1, dead_after_ms / 1000 - idle_s);
  // Unix sockets answer these with an error; there, a vanished peer is always noticed at once.
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_after_ms, sizeof(dead_after_ms));
  setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kNotSentBytesMax, sizeof(kNotSentBytesMax));
}

int OpenListener(const Address& address, std::string* error) {
  const int family = address.storage.ss_family;
  const auto* where = reinterpret_cast<const sockaddr*>(&address.storage);
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    *error = ErrnoText("socket", errno);
    return -1;
  }
  const int on = 1;
  if (family == AF_UNIX) {
    // A path left by a node that died is taken over; one that somebody listens on is not.
    const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (probe >= 0) {
      if (connect(probe, where, address.size) < 0 && errno == ECONNREFUSED) {
        unlink(reinterpret_cast<const sockaddr_un*>(where)->sun_path);
      }
      close(probe);
    }
  } else {
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  }
  if (bind(fd, where, address.size) < 0 || listen(fd, 128) < 0) {
    *error = ErrnoText("bind", errno);
    close(fd);
    return -1;
  }
  return fd;
}

int StartConnect(const Address& address, int dead_after_ms, std::string* error) {
  const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    *error = ErrnoText("socket", errno);
    return -1;
  }
  TuneSocket(fd, dead_after_ms);
  const auto* where = reinterpret_cast<const sockaddr*>(&address.storage);
  if (connect(fd, where, address.size) < 0 && errno != EINPROGRESS) {
    *error = ErrnoText("connect", errno);
    close(fd);
    return -1;
  }
  return fd;
}

std::string PeerAddress(int fd) {
  Address address;
  address.size = sizeof(address.storage);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.size) < 0) return "?";
  return address.ToString();
}

}  // namespace keyway::transport_tcp
