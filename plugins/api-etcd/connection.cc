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
#include <utility>
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
  tls::Evidence shown;
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

Arrival::~Arrival() {
  if (maybe_ssl != nullptr) SSL_free(maybe_ssl);
  if (fd < 0) return;
  close(fd);
  server->connection_count.fetch_sub(1, std::memory_order_relaxed);
  server->metrics.connections.Subtract();
}

void Arrival::Run(Posted* posted, IoThread* io) {
  const std::unique_ptr<Arrival> arrival(static_cast<Arrival*>(posted));
  io->Adopt(std::make_unique<Connection>(io, arrival.get()));
}

Connection::Connection(IoThread* io, Arrival* arrival)
    : io_(io),
      fd_(std::exchange(arrival->fd, -1)),
      is_tls_(arrival->is_tls),
      address_(std::move(arrival->address)),
      ssl_(std::exchange(arrival->maybe_ssl, nullptr)),
      phase_(is_tls_ && ssl_ == nullptr ? Phase::kHandshake : Phase::kPreface),
      principal_(std::move(arrival->principal)),
      identity_status_(std::move(arrival->identity_status)),
      generation_(arrival->generation) {
  deadline_.connection = this;
  deadline_.fire = [](TimerWheel::Timer* timer) {
    static_cast<DeadlineTimer*>(timer)->connection->OnDeadline();
  };
}

Connection::~Connection() {
  protocol_.reset();
  io_->timers().Clear(&deadline_);
  if (maybe_identification_ != nullptr) maybe_identification_->maybe_connection = nullptr;
  if (ssl_ != nullptr) SSL_free(ssl_);
  if (fd_ < 0) return;  // Handed over.
  close(fd_);
  io_->server().connection_count.fetch_sub(1, std::memory_order_relaxed);
  io_->server().metrics.connections.Subtract();
}

bool Connection::Start() {
  if (phase_ == Phase::kHandshake) {
    if (io_->server().tls == nullptr) return false;
  } else if (ssl_ != nullptr) {
    has_certificate_ = SSL_get0_peer_certificate(ssl_) != nullptr;
    has_more_to_read_ = true;  // What OpenSSL may hold, epoll does not know of.
    io_->MarkDirty(this);
  }
  interest_ = EPOLLIN | EPOLLRDHUP;
  if (!io_->Poll(fd_, interest_, this)) return false;
  SetDeadline(io_->now_ns() + io_->server().options.handshake_timeout_ns);
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

void Connection::OnDeadline() {
  if (is_in_handshake()) {
    io_->server().tls->NoteRefusal(tls::Refusal::kTimeout, address_, "no TLS handshake in time");
  }
  Close();
}

void Connection::Evict() {
  io_->server().tls->NoteEviction();
  Close();
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
  if (phase_ == Phase::kHandshake) {
    // Nothing is computed for who has left, and not too much at once: first the ones in the queue of the
    // listener may take the slots of older ones.
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
      Close();
    } else if (io_->TakeHandshakeStep()) {
      OnReadable();
    }
    return;
  }
  if ((events & EPOLLOUT) != 0) {
    is_write_blocked_ = false;
    wants_write_for_tls_ = false;
    io_->MarkDirty(this);
  }
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    OnReadable();
  }
}

void Connection::OnReadable() {
  if (phase_ == Phase::kHandshake) Handshake();
  if (is_closed_ || is_in_handshake()) return;
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
  has_more_to_read_ = ssl_ != nullptr && SSL_has_pending(ssl_) != 0;
}

void Connection::Handshake() {
  // Made only now: one that is pushed out before its first bytes has cost no memory.
  if (ssl_ == nullptr) ssl_ = io_->server().tls->NewSession(fd_);
  if (ssl_ == nullptr) {
    Close();
    return;
  }
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_);
  if (result != 1) {
    const int error = SSL_get_error(ssl_, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
      wants_write_for_tls_ = error == SSL_ERROR_WANT_WRITE;
      UpdateInterest();
      return;
    }
    const bool is_gone =
        ERR_peek_error() == 0 || ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
    const tls::Failure failure = tls::FailureOf(ssl_);
    if (!is_gone) io_->server().tls->NoteRefusal(failure.refusal, address_, failure.text);
    Close();
    return;
  }
  has_certificate_ = SSL_get0_peer_certificate(ssl_) != nullptr;
  if (!has_certificate_ || io_->server().identity == nullptr) {
    generation_ = io_->server().tls->generation();
    HandOver();
    return;
  }
  phase_ = Phase::kAuthenticate;
  if (AskAuthenticator()) UpdateInterest();
}

// The socket and the session go to a thread that serves; this object ends.
void Connection::HandOver() {
  auto* const arrival = new Arrival();
  arrival->run = &Arrival::Run;
  arrival->server = &io_->server();
  io_->Unpoll(fd_);
  arrival->fd = std::exchange(fd_, -1);
  arrival->is_tls = true;
  arrival->address = address_;
  arrival->maybe_ssl = std::exchange(ssl_, nullptr);
  arrival->principal = std::move(principal_);
  arrival->identity_status = identity_status_;
  arrival->generation = generation_;
  Close();
  io_->NextServingThread()->Post(arrival);
}

// False if the answer came, and was handled, at once.
bool Connection::AskAuthenticator() {
  auto* const question = new Identification();
  generation_ = io_->server().tls->generation();
  question->shown = tls::EvidenceOf(ssl_);
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
  question->evidence.primary = Slice(question->shown.leaf);
  question->evidence.secondary = Slice(question->shown.chain);
  question->evidence.address = Slice(question->address);
  maybe_identification_ = question;
  io_->AddOutstanding();
  const int32_t code = io_->server().identity->authenticate(io_->server().host, &question->evidence,
                                                            &question->principal, &question->completion);
  if (code == KW_PENDING) return true;
  question->code = code;
  question->text = code == KW_OK ? "" : "client certificate not accepted";
  Identification::Run(question, io_);
  return false;
}

void Connection::Reauthenticate() {
  if (is_closed_ || maybe_identification_ != nullptr || !has_certificate_) return;
  AskAuthenticator();
}

void Connection::OnIdentified(int32_t code, std::string_view principal, std::string_view text) {
  if (is_closed_) return;
  const bool is_first = phase_ == Phase::kAuthenticate;
  if (code == KW_OK) {
    principal_ = principal;
    identity_status_ = {};
  } else {
    identity_status_ = {code, std::string(text)};
    io_->server().tls->NoteRefusal(tls::RefusalOfText(text), address_, text);
  }
  if (is_first) {
    HandOver();
  } else if (code != KW_OK) {
    Close();
  } else if (generation_ != io_->server().tls->generation()) {
    io_->QueueReauthentication(this);
  }
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
    SetDeadline(io_->now_ns() + kHttp1DeadlineNs);
    protocol_ = std::make_unique<Http1>(this);
  }
  if (!protocol_->Receive(preface_.data(), preface_.size())) EndReading();
  preface_.Reset(0);
}

// What is in the output still goes out, if the peer takes it soon.
void Connection::EndReading() {
  if (is_read_over_) return;
  is_read_over_ = true;
  SetDeadline(io_->now_ns() + kHttp1DeadlineNs);
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
