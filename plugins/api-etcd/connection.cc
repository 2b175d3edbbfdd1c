// SPDX-License-Identifier: Apache-2.0
//
// Reading, writing, the handshake, and finding out the protocol.
#include "connection.h"

#include <openssl/err.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "http1.h"
#include "http2_session.h"
#include "tls.h"

namespace keyway::api_etcd {
namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr int kReadsPerTurnMax = 8;
constexpr int kWritesPerTurnMax = 8;

}  // namespace

// A question to keyway.identity/1; outlives its connection if that closes meanwhile.
struct Connection::Identification final : Posted {
  kw_completion completion = {};
  kw_evidence evidence = {};
  kw_principal principal = {};
  std::string leaf;
  std::string chain;
  std::string address;
  IoThread* io = nullptr;
  Connection* maybe_connection = nullptr;
  int32_t code = KW_OK;
  std::string text;

  static void Done(kw_completion* completion, int32_t code, const kw_error* error) {
    auto* const self = static_cast<Identification*>(completion->ctx);
    self->code = code;
    if (error != nullptr) self->text.assign(error->text, strnlen(error->text, sizeof error->text));
    self->io->Post(self);
  }
  static void Run(Posted* posted, IoThread* io) {
    const std::unique_ptr<Identification> self(static_cast<Identification*>(posted));
    io->RemoveOutstanding();
    if (self->maybe_connection == nullptr) return;
    self->maybe_connection->maybe_identification_ = nullptr;
    self->maybe_connection->OnIdentified(
        self->code, {self->principal.name, std::min<size_t>(self->principal.len, 248)}, self->text);
  }
};

Connection::Connection(IoThread* io, int fd, bool is_tls, std::string address)
    : io_(io),
      fd_(fd),
      is_tls_(is_tls),
      address_(std::move(address)),
      phase_(is_tls ? Phase::kHandshake : Phase::kPreface) {
  deadline_.connection = this;
  deadline_.fire = [](TimerWheel::Timer* timer) { static_cast<DeadlineTimer*>(timer)->connection->Close(); };
}

Connection::~Connection() {
  protocol_.reset();
  io_->timers().Clear(&deadline_);
  if (maybe_identification_ != nullptr) maybe_identification_->maybe_connection = nullptr;
  if (ssl_ != nullptr) SSL_free(ssl_);
  close(fd_);
  io_->server().connection_count.fetch_sub(1, std::memory_order_relaxed);
  io_->server().metrics.connections.Subtract();
}

bool Connection::Start() {
  if (is_tls_) {
    ssl_ = io_->server().tls == nullptr ? nullptr : io_->server().tls->NewSession(fd_);
    if (ssl_ == nullptr) return false;
  }
  interest_ = EPOLLIN | EPOLLRDHUP;
  if (!io_->Poll(fd_, interest_, this)) return false;
  SetDeadline(io_->now_ns() + kHandshakeDeadlineNs);
  return true;
}

void Connection::SetDeadline(uint64_t at_ns) {
  if (at_ns == 0) {
    io_->timers().Clear(&deadline_);
  } else {
    io_->timers().Set(&deadline_, at_ns);
  }
}

void Connection::Close() {
  if (is_closed_) return;
  is_closed_ = true;
  io_->timers().Clear(&deadline_);
  io_->Retire(this);
}

ssize_t Connection::TlsResult(int result) {
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ:
      return 0;
    case SSL_ERROR_WANT_WRITE:
      wants_write_for_tls_ = true;
      return 0;
    default:
      ERR_clear_error();
      return -1;
  }
}
ssize_t Connection::Read(uint8_t* bytes, size_t count) {
  if (ssl_ != nullptr) {
    const int result = SSL_read(ssl_, bytes, static_cast<int>(count));
    return result > 0 ? result : TlsResult(result);
  }
  const ssize_t result = recv(fd_, bytes, count, 0);
  if (result > 0) return result;
  if (result < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return 0;
  return -1;
}
ssize_t Connection::Write(const uint8_t* bytes, size_t count) {
  if (ssl_ != nullptr) {
    const int result = SSL_write(ssl_, bytes, static_cast<int>(std::min<size_t>(count, 1 << 20)));
    return result > 0 ? result : TlsResult(result);
  }
  const ssize_t result = send(fd_, bytes, count, MSG_NOSIGNAL);
  if (result > 0) return result;
  if (result < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return 0;
  return -1;
}

void Connection::OnEvents(uint32_t events) {
  if (is_closed_) return;
  if ((events & EPOLLOUT) != 0) {
    is_write_blocked_ = false;
    wants_write_for_tls_ = false;
    io_->MarkDirty(this);
  }
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0 || phase_ == Phase::kHandshake) {
    OnReadable();
  }
}

void Connection::OnReadable() {
  if (phase_ == Phase::kHandshake) Handshake();
  if (is_closed_ || phase_ == Phase::kHandshake || phase_ == Phase::kAuthenticate) return;
  std::vector<uint8_t>& buffer = io_->read_buffer();
  for (int i = 0; i < kReadsPerTurnMax; ++i) {
    const ssize_t count = Read(buffer.data(), buffer.size());
    if (count == 0) {
      UpdateInterest();
      return;
    }
    if (count < 0) {
      Close();
      return;
    }
    if (!is_read_over_) Consume(buffer.data(), static_cast<size_t>(count));
    io_->MarkDirty(this);
    if (is_closed_) return;
    if (ssl_ == nullptr && static_cast<size_t>(count) < buffer.size()) return;
  }
  // OpenSSL may hold bytes that epoll does not know of.
  has_more_to_read_ = ssl_ != nullptr && SSL_pending(ssl_) > 0;
}

void Connection::Handshake() {
  const int result = SSL_do_handshake(ssl_);
  if (result != 1) {
    if (TlsResult(result) < 0) {
      Close();
    } else {
      UpdateInterest();
    }
    return;
  }
  Authenticate();
}

void Connection::Authenticate() {
  X509* const leaf = SSL_get1_peer_certificate(ssl_);
  if (leaf == nullptr || io_->server().identity == nullptr) {
    X509_free(leaf);
    phase_ = Phase::kPreface;
    return;
  }
  const auto append = [](X509* certificate, std::string* out) {
    unsigned char* der = nullptr;
    const int bytes = i2d_X509(certificate, &der);
    if (bytes > 0) out->append(reinterpret_cast<const char*>(der), static_cast<size_t>(bytes));
    OPENSSL_free(der);
  };
  auto* const question = new Identification();
  append(leaf, &question->leaf);
  X509_free(leaf);
  STACK_OF(X509)* const chain = SSL_get_peer_cert_chain(ssl_);  // On a server: without the leaf.
  for (int i = 0; chain != nullptr && i < sk_X509_num(chain); ++i) {
    append(sk_X509_value(chain, i), &question->chain);
  }
  question->address = address_;
  question->io = io_;
  question->maybe_connection = this;
  question->run = &Identification::Run;
  question->completion.done = &Identification::Done;
  question->completion.ctx = question;
  question->principal.size = sizeof question->principal;
  question->evidence.size = sizeof question->evidence;
  question->evidence.kind = KW_EVIDENCE_X509;
  question->evidence.role = Slice("client");
  question->evidence.primary = Slice(question->leaf);
  question->evidence.secondary = Slice(question->chain);
  question->evidence.address = Slice(question->address);
  maybe_identification_ = question;
  phase_ = Phase::kAuthenticate;
  io_->AddOutstanding();
  const int32_t code = io_->server().identity->authenticate(io_->server().host, &question->evidence,
                                                            &question->principal, &question->completion);
  if (code == KW_PENDING) {
    UpdateInterest();
    return;
  }
  question->code = code;
  question->text = code == KW_OK ? "" : "client certificate not accepted";
  Identification::Run(question, io_);
}

void Connection::OnIdentified(int32_t code, std::string_view principal, std::string_view text) {
  if (is_closed_) return;
  if (code == KW_OK) {
    principal_ = principal;
  } else {
    identity_status_ = {code, std::string(text)};
    io_->server().log.Warn("client_not_identified", {{"address", address_}, {"reason", text}});
  }
  phase_ = Phase::kPreface;
  has_more_to_read_ = true;
  UpdateInterest();
  io_->MarkDirty(this);
}

void Connection::Consume(const uint8_t* bytes, size_t count) {
  if (phase_ == Phase::kServing) {
    if (!protocol_->Receive(bytes, count)) EndReading();
    return;
  }
  // Until the first bytes tell HTTP/2 from HTTP/1.1.
  preface_.Append(bytes, count);
  const size_t compared = std::min(preface_.size(), kPreface.size());
  const bool matches = std::memcmp(preface_.data(), kPreface.data(), compared) == 0;
  if (matches && compared < kPreface.size()) return;
  phase_ = Phase::kServing;
  if (matches) {
    SetDeadline(0);
    protocol_ = std::make_unique<Http2Session>(this);
  } else {
    SetDeadline(io_->now_ns() + kHandshakeDeadlineNs);
    protocol_ = std::make_unique<Http1>(this);
  }
  if (!protocol_->Receive(preface_.data(), preface_.size())) EndReading();
  preface_.Reset(0);
}

// What is in the output still goes out, if the peer takes it soon.
void Connection::EndReading() {
  if (is_read_over_) return;
  is_read_over_ = true;
  SetDeadline(io_->now_ns() + kHandshakeDeadlineNs);
}

void Connection::Flush() {
  if (is_closed_) return;
  if (has_more_to_read_) {
    has_more_to_read_ = false;
    OnReadable();
    if (is_closed_) return;
  }
  for (int i = 0; i < kWritesPerTurnMax && !is_write_blocked_; ++i) {
    if (protocol_ != nullptr) protocol_->Produce();
    if (out_.empty()) break;
    const ssize_t count = Write(out_.data(), out_.size());
    if (count < 0) {
      Close();
      return;
    }
    if (count == 0) {
      is_write_blocked_ = true;
    } else {
      out_.Consume(static_cast<size_t>(count));
    }
  }
  if (out_.empty()) {
    out_.Reset(kOutputBytesSoft * 2);
    const bool is_over =
        protocol_ == nullptr ? is_draining_ || is_read_over_ : protocol_->IsFinished() || is_read_over_;
    if (is_over && protocol_ != nullptr && ssl_ != nullptr) SSL_shutdown(ssl_);
    if (is_over) {
      Close();
      return;
    }
  } else if (!is_write_blocked_) {
    io_->MarkDirty(this);  // More to do, but others come first.
  }
  if (has_more_to_read_) io_->MarkDirty(this);
  UpdateInterest();
}

void Connection::Drain() {
  if (is_closed_) return;
  is_draining_ = true;
  if (protocol_ != nullptr) protocol_->Drain();
  io_->MarkDirty(this);
}

void Connection::UpdateInterest() {
  uint32_t interest = 0;
  // A peer that does not read what it asked for is not read either.
  const bool is_clogged = is_write_blocked_ && out_.size() >= kOutputBytesSoft;
  if (phase_ != Phase::kAuthenticate && !is_clogged) interest |= EPOLLIN | EPOLLRDHUP;
  if (is_write_blocked_ || wants_write_for_tls_) interest |= EPOLLOUT;
  if (interest == interest_) return;
  interest_ = interest;
  io_->Repoll(fd_, interest, this);
}

}  // namespace keyway::api_etcd
