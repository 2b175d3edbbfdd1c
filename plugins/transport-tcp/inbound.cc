// SPDX-License-Identifier: Apache-2.0
//
// Accepting, greeting and receiving.
#include "inbound.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "wire.h"

namespace keyway::transport_tcp {
namespace {

constexpr uint64_t kAcceptPauseNs = 100'000'000;
constexpr int kAcceptsPerTurn = 64;
constexpr size_t kGreetingBufferBytes = kHeaderBytes + kGreetingBytesMax;
constexpr size_t kReadBytes = 256u << 10;
constexpr size_t kKeptBufferBytes = 1u << 20;
constexpr int kReadsPerTurn = 4;
constexpr size_t kFramesPerCall = 512;

}  // namespace

Listener::Listener(Io* io, int fd, bool is_tls, std::string unix_path)
    : io_(io), fd_(fd), is_tls_(is_tls), unix_path_(std::move(unix_path)) {}

Listener::~Listener() {
  close(fd_);
  if (!unix_path_.empty()) unlink(unix_path_.c_str());
}

void Listener::Start() { io_->loop().Add(fd_, EPOLLIN, this); }

void Listener::OnEvents(uint32_t) {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    const int fd = accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      io_->OnAccepted(fd, is_tls_);
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      // The listener stays readable: without a pause the thread would spin.
      io_->loop().Remove(fd_);
      paused_until_ns_ = io_->loop().now_ns() + kAcceptPauseNs;
      io_->loop().NoteDeadline(paused_until_ns_);
      io_->NoteRejected("listener", "out of file descriptors or memory");
      return;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return;
  }
}

void Listener::OnTime(uint64_t now_ns) {
  if (paused_until_ns_ == 0) return;
  if (now_ns >= paused_until_ns_) {
    paused_until_ns_ = 0;
    Start();
  } else {
    io_->loop().NoteDeadline(paused_until_ns_);
  }
}

Inbound::Inbound(Io* io, std::unique_ptr<Stream> stream, std::string address, uint64_t arrival)
    : io_(io),
      stream_(std::move(stream)),
      address_(std::move(address)),
      arrival_(arrival),
      state_(stream_->is_tls() ? State::kTls : State::kGreeting),
      deadline_ns_(io->loop().now_ns() + kGreetingTimeoutNs),
      buffer_(kGreetingBufferBytes) {
  io_->loop().NoteDeadline(deadline_ns_);
}

Inbound::~Inbound() {
  if (auth_ticket_ != 0) io_->ForgetAuthentication(auth_ticket_);
}

void Inbound::OnTime(uint64_t now_ns) {
  if (state_ == State::kGreeted || state_ == State::kEnded) return;
  if (now_ns >= deadline_ns_ && state_ == State::kTls) {
    io_->NoteRefused(address_, tls::Refusal::kTimeout, "no TLS handshake in time");
    End(false, "");
  } else if (now_ns >= deadline_ns_) {
    End(false, "no greeting in time");
  } else {
    io_->loop().NoteDeadline(deadline_ns_);
  }
}

void Inbound::OnEvents(uint32_t events) {
  if (state_ == State::kAuthenticating && (events & (EPOLLERR | EPOLLHUP)) != 0) {
    return End(true, "closed before its greeting");
  }
  if (state_ == State::kTls && io_->TakeHandshakeStep()) AdvanceTls();
  if (state_ == State::kGreeting || state_ == State::kGreeted) ReadAll();
}

void Inbound::AdvanceTls() {
  const int result = stream_->Handshake();
  if (result == -EAGAIN) {
    io_->loop().Change(fd(), EPOLLIN | EPOLLRDHUP | (stream_->wants_write() ? EPOLLOUT : 0u), this);
    return;
  }
  if (result != 0) {
    if (stream_->refusal() == tls::Refusal::kOther) return End(false, stream_->error());
    io_->NoteRefused(address_, stream_->refusal(), stream_->error());
    return End(false, "");
  }
  shown_ = tls::EvidenceOf(stream_->maybe_ssl());
  // Nothing is read until the authenticator has answered, so nothing has to be kept.
  state_ = State::kAuthenticating;
  io_->loop().Change(fd(), 0, this);
  auth_generation_ = io_->tls_server().generation();
  const uint64_t ticket =
      io_->Authenticate(shown_, address_, [this](std::string principal, const std::string& error) {
        auth_ticket_ = 0;
        if (!error.empty()) return End(false, "");
        principal_ = std::move(principal);
        state_ = State::kGreeting;
        io_->loop().Change(fd(), EPOLLIN | EPOLLRDHUP, this);
        ReadAll();
      });
  if (state_ == State::kAuthenticating) auth_ticket_ = ticket;
}

void Inbound::Reauthenticate() {
  if (!is_greeted() || shown_.leaf.empty() || auth_ticket_ != 0) return;
  auth_generation_ = io_->tls_server().generation();
  const uint64_t ticket = io_->Authenticate(shown_, address_, [this](std::string, const std::string& error) {
    auth_ticket_ = 0;
    if (!error.empty()) return End(false, "");
    if (auth_generation_ != io_->tls_server().generation()) Reauthenticate();
  });
  if (ticket != 0) auth_ticket_ = ticket;
}

bool Inbound::HasName(uint64_t id, std::string* why) const {
  *why = io_->NameMismatch(id, shown_);
  return why->empty();
}

void Inbound::CheckName() {
  std::string why;
  if (HasName(peer_, &why)) return;
  io_->NoteRefused(address_, tls::Refusal::kNameMismatch, why);
  End(false, "");
}

void Inbound::ReadAll() {
  for (int reads = 0; reads < kReadsPerTurn || stream_->is_tls(); ++reads) {
    const size_t held = buffer_.bytes().size();
    size_t room = 1;  // Of the greeting: the buffer holds the largest one.
    if (is_greeted()) {
      room = buffer_.capacity() < kReadBytes ? kReadBytes - held : kReadBytes / 4;
      // A large message grows the buffer by doubling, as its bytes come.
      Message next;
      const char* ignored;
      if (Parse(buffer_.bytes(), kFrameBytesMax, &next, &ignored) == ParseResult::kNeedMore &&
          next.bytes > buffer_.capacity()) {
        room = std::min(next.bytes - held, std::max(kReadBytes, buffer_.capacity()));
      }
    }
    size_t size;
    char* to = buffer_.Room(room, &size);
    const ssize_t got = stream_->Read(to, size);
    if (got == -EAGAIN) return;
    if (got <= 0) {
      return End(true, state_ == State::kGreeting ? "closed before its greeting" : "");
    }
    buffer_.Filled(static_cast<size_t>(got));
    if (!HandleMessages()) return;
    buffer_.ShrinkTo(kKeptBufferBytes);
    if (static_cast<size_t>(got) < size && !stream_->is_tls()) return;  // Epoll tells of more.
  }
}

// False if the connection has ended.
bool Inbound::HandleMessages() {
  const std::string_view bytes = buffer_.bytes();
  size_t at = 0;
  while (true) {
    Message message;
    const char* error = nullptr;
    const ParseResult result =
        Parse(bytes.substr(at), is_greeted() ? kFrameBytesMax : kGreetingBytesMax, &message, &error);
    if (result == ParseResult::kNeedMore) break;
    if (result == ParseResult::kBad) {
      Deliver();
      End(false, error);
      return false;
    }
    at += message.bytes;
    if (!is_greeted()) {
      if (!HandleHello(message.header, message.payload)) return false;
      continue;
    }
    const auto* payload = reinterpret_cast<const uint8_t*>(message.payload.data());
    switch (message.header.kind) {
      case Kind::kData:
        frames_.push_back({peer_, message.header.lane, 0, {payload, message.payload.size()}, {nullptr, 0}});
        frame_bytes_ += message.bytes;
        if (frames_.size() == kFramesPerCall) Deliver();
        break;
      case Kind::kPing:
        if (!Send(Encode(Kind::kPong, message.payload))) {
          Deliver();
          End(false, "does not read its pongs");
          return false;
        }
        break;
      case Kind::kHello:
      case Kind::kWelcome:
      case Kind::kRefuse:
      case Kind::kPong:
        Deliver();
        End(false, "a message out of place");
        return false;
    }
  }
  Deliver();
  buffer_.Consume(at);
  return true;
}

void Inbound::Deliver() {
  if (frames_.empty()) return;
  Peer* peer = io_->FindPeer(peer_);
  if (peer != nullptr) peer->received_bytes.Add(frame_bytes_);
  io_->sink().frames(io_->sink().self, frames_.data(), frames_.size());
  frames_.clear();
  frame_bytes_ = 0;
}

bool Inbound::HandleHello(const Header& header, std::string_view payload) {
  Hello hello;
  if (header.version != kVersion) {
    Refuse("protocol version " + std::to_string(header.version) + "; this member speaks version " +
           std::to_string(kVersion));
    return false;
  }
  if (header.kind != Kind::kHello || !DecodeHello(payload, &hello)) {
    End(false, "no greeting");
    return false;
  }
  if (hello.token != io_->token()) {
    Refuse("another cluster token: \"" + std::string(hello.token.substr(0, 128)) +
           "\" does not belong to this cluster");
    return false;
  }
  const uint64_t self = io_->self_id();
  if (hello.target != 0 && self != 0 && hello.target != self) {
    Refuse("this is member " + Hex(self) + ", not " + Hex(hello.target));
    return false;
  }
  if (hello.sender != 0 && hello.sender == self) {
    Refuse("member " + Hex(self) + " is this one");
    return false;
  }
  std::string why;
  if (!HasName(hello.sender, &why)) {
    io_->NoteRefused(address_, tls::Refusal::kNameMismatch, why);
    Send(EncodeAnswer(Kind::kRefuse, self, "name_mismatch: " + why));
    shutdown(fd(), SHUT_WR);
    End(false, "");
    return false;
  }
  if (!Send(EncodeAnswer(Kind::kWelcome, self, ""))) {
    End(false, "cannot be answered");
    return false;
  }
  peer_ = hello.sender;
  state_ = State::kGreeted;
  io_->OnGreeted(this);
  if (auth_generation_ != io_->tls_server().generation()) Reauthenticate();
  return state_ == State::kGreeted;
}

// These messages are few and tiny: a socket that cannot take one at once belongs to a broken peer.
bool Inbound::Send(const std::string& message) {
  const iovec piece = {const_cast<char*>(message.data()), message.size()};
  return stream_->Write(&piece, 1) == static_cast<ssize_t>(message.size()) && !stream_->has_pending();
}

void Inbound::Refuse(const std::string& reason) {
  Send(EncodeAnswer(Kind::kRefuse, io_->self_id(), reason));
  shutdown(fd(), SHUT_WR);
  End(false, reason);
}

void Inbound::End(bool by_peer, const std::string& why_rejected) {
  if (state_ == State::kEnded) return;
  if (!why_rejected.empty()) io_->NoteRejected(address_, why_rejected);
  io_->loop().Remove(fd());
  io_->OnInboundEnded(this, by_peer);
  state_ = State::kEnded;
}

}  // namespace keyway::transport_tcp
