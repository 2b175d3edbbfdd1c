// SPDX-License-Identifier: Apache-2.0
//
// Dialing, greeting, and noticing that a connection is gone.
#include "dialer.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "wire.h"

namespace keyway::transport_tcp {
namespace {

constexpr uint64_t kBackoffMinNs = 10'000'000;
constexpr uint64_t kBackoffMaxNs = 1'000'000'000;
constexpr uint64_t kStableNs = 1'000'000'000;
constexpr uint64_t kResolveTimeoutNs = 5'000'000'000;
constexpr uint64_t kUnreachableLogNs = 30'000'000'000;
constexpr uint64_t kOtherReasonLogNs = 5'000'000'000;
constexpr uint32_t kReadEvents = EPOLLIN | EPOLLRDHUP;

}  // namespace

Dialer::Dialer(Io* io, std::shared_ptr<Peer> peer)
    : io_(io),
      peer_(std::move(peer)),
      id_text_(Hex(peer_->id)),
      random_(static_cast<uint32_t>(io->loop().ReadClock() ^ peer_->id)) {}

Dialer::~Dialer() {
  if (resolve_ticket_ != 0) io_->resolver().Forget(resolve_ticket_);
  CloseStream();
}

void Dialer::SetUrls(std::vector<Url> urls) {
  if (urls == urls_) return;
  urls_ = std::move(urls);
  const bool is_kept = std::find(urls_.begin(), urls_.end(), url_) != urls_.end();
  if (state_ == State::kWaiting) {
    if (!urls_.empty()) WaitBeforeRound(true);
  } else if (!is_kept && state_ == State::kUp) {
    Lose("the URL was removed");
  } else if (!is_kept) {
    Restart();
  }
}

void Dialer::Restart() {
  if (state_ == State::kUp) return Lose("this member has another id");
  if (resolve_ticket_ != 0) io_->resolver().Forget(std::exchange(resolve_ticket_, 0));
  CloseStream();
  addresses_.clear();
  WaitBeforeRound(true);
}

void Dialer::SetDeadline(uint64_t delay_ns) {
  deadline_ns_ = io_->loop().ReadClock() + delay_ns;
  io_->loop().NoteDeadline(deadline_ns_);
}

void Dialer::WaitBeforeRound(bool at_once) {
  state_ = State::kWaiting;
  if (urls_.empty()) {
    deadline_ns_ = Loop::kNever;
    return;
  }
  if (at_once) {
    backoff_ns_ = 0;
    return SetDeadline(0);
  }
  backoff_ns_ = std::clamp(backoff_ns_ * 2, kBackoffMinNs, kBackoffMaxNs);
  SetDeadline(backoff_ns_ / 2 + random_() % (backoff_ns_ / 2));
}

void Dialer::OnTime(uint64_t now_ns) {
  if (now_ns < deadline_ns_) {
    if (deadline_ns_ != Loop::kNever) io_->loop().NoteDeadline(deadline_ns_);
    return;
  }
  switch (state_) {
    case State::kWaiting:
      return BeginRound();
    case State::kResolving:
      io_->resolver().Forget(std::exchange(resolve_ticket_, 0));
      return Fail("no answer to the name query for \"" + url_.host + "\"");
    case State::kConnecting:
      return Fail("connect: timed out");
    case State::kTls:
    case State::kAuthenticating:
    case State::kGreeting:
      return Fail("no answer to the greeting in time");
    case State::kUp:
      SendPing();
      return SetDeadline(io_->options().keepalive_interval_ns);
  }
}

void Dialer::BeginRound() {
  url_index_ = 0;
  addresses_.clear();
  Advance();
}

// Goes on until something has to be waited for.
void Dialer::Advance() {
  while (true) {
    if (!addresses_.empty()) {
      const Address address = addresses_.back();
      addresses_.pop_back();
      if (StartAddress(address)) return;
      continue;
    }
    if (url_index_ >= urls_.size()) {
      WaitBeforeRound(false);
      return LogUnreachable();
    }
    url_ = urls_[url_index_++];
    Address address;
    if (NumericAddress(url_, &address)) {
      addresses_.push_back(address);
      continue;
    }
    state_ = State::kResolving;
    SetDeadline(kResolveTimeoutNs);
    is_inside_resolve_ = true;
    uint64_t ticket = 0;
    io_->resolver().Resolve(
        url_.host, url_.port,
        [this](std::vector<Address> found, const std::string& error) {
          resolve_ticket_ = 0;
          addresses_.assign(found.rbegin(), found.rend());
          if (addresses_.empty()) failure_ = "name \"" + url_.host + "\": " + error;
          state_ = State::kWaiting;
          if (!is_inside_resolve_) Advance();
        },
        &ticket);
    is_inside_resolve_ = false;
    if (state_ == State::kResolving) {
      resolve_ticket_ = ticket;
      return;
    }
  }
}

bool Dialer::StartAddress(const Address& address) {
  address_text_ = address.ToString();
  const int fd = StartConnect(address, io_->dead_after_ms(), &failure_);
  if (fd < 0) return false;
  std::unique_ptr<SSL, SslDeleter> ssl;
  if (url_.is_tls) {
    ssl = io_->tls_client().NewConnection(url_.host, &failure_);
    if (ssl == nullptr) {
      Stream discarded(fd, nullptr);
      return false;
    }
  }
  stream_ = std::make_unique<Stream>(fd, std::move(ssl));
  state_ = State::kConnecting;
  received_.clear();
  principal_.clear();
  shown_ = {};
  io_->loop().Add(fd, EPOLLOUT | EPOLLRDHUP, this);
  SetDeadline(io_->options().connect_timeout_ns);
  return true;
}

void Dialer::OnEvents(uint32_t events) {
  switch (state_) {
    case State::kWaiting:
    case State::kResolving:
      return;
    case State::kConnecting:
      return OnConnected();
    case State::kTls:
      return AdvanceTls();
    case State::kAuthenticating:
      if ((events & (EPOLLERR | EPOLLHUP)) != 0) Fail("closed during the TLS handshake");
      return;
    case State::kGreeting:
      return ReadAnswer();
    case State::kUp:
      if ((events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) ReadPongs();
      if (state_ == State::kUp && (events & EPOLLOUT) != 0) {
        const int result = peer_->outbox.FlushFromIo();
        if (result < 0) Lose(stream_->error());
      }
      return;
  }
}

void Dialer::OnConnected() {
  int code = 0;
  socklen_t size = sizeof(code);
  getsockopt(stream_->fd(), SOL_SOCKET, SO_ERROR, &code, &size);
  if (code != 0) {
    char text[128];
    return Fail(std::string("connect: ") + strerror_r(code, text, sizeof(text)));
  }
  SetDeadline(kGreetingTimeoutNs);
  if (stream_->is_tls()) {
    state_ = State::kTls;
    return AdvanceTls();
  }
  SendHello();
}

void Dialer::AdvanceTls() {
  const int result = stream_->Handshake();
  if (result == -EAGAIN) {
    io_->loop().Change(stream_->fd(), kReadEvents | (stream_->wants_write() ? EPOLLOUT : 0u), this);
    return;
  }
  if (result != 0) {
    if (stream_->refusal() != tls::Refusal::kOther) {
      io_->NoteRefused(address_text_, stream_->refusal(), stream_->error());
    }
    return Fail(stream_->error());
  }
  shown_ = tls::EvidenceOf(stream_->maybe_ssl());
  state_ = State::kAuthenticating;
  io_->loop().Change(stream_->fd(), 0, this);
  auth_generation_ = io_->tls_client().generation();
  const uint64_t ticket =
      io_->Authenticate(shown_, address_text_, [this](std::string principal, const std::string& error) {
        auth_ticket_ = 0;
        if (!error.empty()) return Fail(error);
        principal_ = std::move(principal);
        SendHello();
      });
  if (state_ == State::kAuthenticating) auth_ticket_ = ticket;
}

void Dialer::Reauthenticate() {
  if (state_ != State::kUp || shown_.leaf.empty() || auth_ticket_ != 0) return;
  auth_generation_ = io_->tls_client().generation();
  const uint64_t ticket =
      io_->Authenticate(shown_, address_text_, [this](std::string, const std::string& error) {
        auth_ticket_ = 0;
        if (!error.empty()) return Lose(error);
        if (auth_generation_ != io_->tls_client().generation()) Reauthenticate();
      });
  if (ticket != 0) auth_ticket_ = ticket;
}

void Dialer::SendHello() {
  const std::string hello = EncodeHello(io_->token(), io_->self_id(), peer_->id);
  const iovec piece = {const_cast<char*>(hello.data()), hello.size()};
  if (stream_->Write(&piece, 1) != static_cast<ssize_t>(hello.size()) || stream_->has_pending()) {
    return Fail("the greeting could not be sent");
  }
  state_ = State::kGreeting;
  io_->loop().Change(stream_->fd(), kReadEvents, this);
  if (stream_->is_tls()) ReadAnswer();
}

void Dialer::ReadAnswer() {
  char bytes[kHeaderBytes + kGreetingBytesMax];
  const ssize_t got = stream_->Read(bytes, sizeof(bytes));
  if (got == -EAGAIN) return;
  if (got <= 0) return Fail(got == 0 ? "closed without an answer to the greeting" : stream_->error());
  received_.append(bytes, static_cast<size_t>(got));
  Message message;
  const char* error = nullptr;
  const ParseResult result = Parse(received_, kGreetingBytesMax, &message, &error);
  if (result == ParseResult::kNeedMore) return;
  if (result == ParseResult::kBad) return Fail(std::string("answer to the greeting: ") + error);
  uint64_t acceptor = 0;
  std::string_view reason;
  if (message.header.kind == Kind::kRefuse && DecodeAnswer(message.payload, &acceptor, &reason)) {
    return Fail("refused: " + std::string(reason));
  }
  if (message.header.version != kVersion) {
    return Fail("the peer speaks protocol version " + std::to_string(message.header.version));
  }
  if (message.header.kind != Kind::kWelcome || !DecodeAnswer(message.payload, &acceptor, &reason)) {
    return Fail("a message out of place in answer to the greeting");
  }
  if (acceptor != 0 && peer_->id != 0 && acceptor != peer_->id) {
    return Fail("member " + Hex(acceptor) + " is at this address");
  }
  received_.erase(0, message.bytes);
  GoUp(acceptor);
}

void Dialer::GoUp(uint64_t) {
  state_ = State::kUp;
  up_since_ns_ = io_->loop().ReadClock();
  doubted_since_ns_ = 0;
  next_unreachable_log_ns_ = 0;
  logged_failure_.clear();
  peer_->outbox.Open(io_->loop().epoll_fd(), static_cast<Pollable*>(this), stream_.get());
  io_->log().Write(KW_LOG_INFO, "peer_connected",
                   {{"peer", id_text_}, {"url", url_.text}, {"address", address_text_}});
  ReportState(KW_PEER_UP);
  SendPing();
  if (auth_generation_ != io_->tls_client().generation()) Reauthenticate();
  if (state_ == State::kUp) SetDeadline(io_->options().keepalive_interval_ns);
}

void Dialer::SendPing() {
  const uint64_t now = io_->loop().ReadClock();
  peer_->outbox.Append(Kind::kPing, KW_LANE_CONTROL, {reinterpret_cast<const uint8_t*>(&now), sizeof(now)},
                       {nullptr, 0});
  if (peer_->outbox.FlushFromIo() < 0) Lose(stream_->error());
}

void Dialer::ReadPongs() {
  // Only pongs come this way: a turn reads more than a peer that behaves can have sent.
  for (int reads = 0; reads < 16; ++reads) {
    char bytes[kHeaderBytes + kGreetingBytesMax];
    const ssize_t got = peer_->outbox.Read(bytes, sizeof(bytes));
    if (got == -EAGAIN) return;
    if (got <= 0) return Lose(got == 0 ? "closed by the peer" : stream_->error());
    received_.append(bytes, static_cast<size_t>(got));
    size_t at = 0;
    while (true) {
      Message message;
      const char* error = nullptr;
      const ParseResult result = Parse(std::string_view(received_).substr(at), 0, &message, &error);
      if (result == ParseResult::kNeedMore) break;
      if (result == ParseResult::kBad) return Lose(error);
      at += message.bytes;
      uint64_t sent_ns;
      if (message.header.kind != Kind::kPong || message.payload.size() != sizeof(sent_ns)) {
        return Lose("a message out of place");
      }
      std::memcpy(&sent_ns, message.payload.data(), sizeof(sent_ns));
      const uint64_t now = io_->loop().ReadClock();
      if (sent_ns <= now)
        peer_->round_trip_ns.store(std::max<uint64_t>(now - sent_ns, 1), std::memory_order_relaxed);
      if (doubted_since_ns_ != 0 && sent_ns >= doubted_since_ns_) {
        doubted_since_ns_ = 0;
        ReportState(KW_PEER_UP);
      }
    }
    received_.erase(0, at);
  }
}

void Dialer::OnInboundLost() {
  if (state_ != State::kUp || !is_reported_up_) return;
  // Either the peer died, and this connection's end is about to arrive, or it only dialed anew, and
  // will answer a ping. Closing ours could make both sides close in turn without an end.
  ReportState(KW_PEER_DOWN);
  doubted_since_ns_ = io_->loop().ReadClock();
  SendPing();
}

void Dialer::OnInboundGreeted() {
  if (state_ == State::kWaiting && !urls_.empty()) SetDeadline(0);
}

void Dialer::Fail(const std::string& reason) {
  failure_ = reason;
  CloseStream();
  Advance();
}

void Dialer::Lose(const std::string& why) {
  const std::string reason = why;  // `why` may lie in the stream.
  const bool was_stable = io_->loop().ReadClock() - up_since_ns_ >= kStableNs;
  CloseStream();
  io_->log().Write(KW_LOG_WARN, "peer_lost",
                   {{"peer", id_text_}, {"address", address_text_}, {"reason", reason}});
  if (is_reported_up_) ReportState(KW_PEER_DOWN);
  WaitBeforeRound(was_stable);
}

void Dialer::CloseStream() {
  if (auth_ticket_ != 0) io_->ForgetAuthentication(std::exchange(auth_ticket_, 0));
  if (stream_ == nullptr) return;
  if (state_ == State::kUp) peer_->send_failures.Add(peer_->outbox.Close());
  io_->loop().Remove(stream_->fd());
  stream_.reset();
  state_ = State::kWaiting;
  deadline_ns_ = Loop::kNever;
}

void Dialer::ReportState(uint32_t state) {
  is_reported_up_ = state == KW_PEER_UP;
  io_->sink().peer_state(io_->sink().self, peer_->id, state,
                         {reinterpret_cast<const uint8_t*>(principal_.data()), principal_.size()});
}

void Dialer::LogUnreachable() {
  const uint64_t now = io_->loop().ReadClock();
  // Another reason is news, though not each time that two of them alternate.
  const uint64_t early_ns = failure_ == logged_failure_ ? 0 : kUnreachableLogNs - kOtherReasonLogNs;
  if (now + early_ns < next_unreachable_log_ns_) return;
  logged_failure_ = failure_;
  next_unreachable_log_ns_ = now + kUnreachableLogNs;
  io_->log().Write(KW_LOG_WARN, "peer_unreachable",
                   {{"peer", id_text_}, {"url", url_.text}, {"reason", failure_}});
}

}  // namespace keyway::transport_tcp
