// SPDX-License-Identifier: Apache-2.0
//
// Greeting and receiving.
#include "inbound.h"

#include <grpc/byte_buffer.h>
#include <grpc/grpc_security_constants.h>

#include <utility>

namespace keyway::transport_grpc {
namespace {

constexpr size_t kFramesPerCall = 512;

}  // namespace

Inbound::Inbound(Io* io, Stream* control, std::string address)
    : io_(io), address_(std::move(address)), deadline_ns_(io->now_ns() + kGreetingTimeoutNs) {
  streams_[KW_LANE_CONTROL] = control;
  control->set_owner(this);
  io_->NoteDeadline(deadline_ns_);
}

void Inbound::Close() {
  if (auth_ticket_ != 0) io_->ForgetAuthentication(std::exchange(auth_ticket_, 0));
  for (Stream*& stream : streams_) {
    if (stream != nullptr) std::exchange(stream, nullptr)->Release();
  }
}

std::string Inbound::CheckHello(const Hello& hello) const {
  if (!hello.has_version) return "no greeting";
  if (hello.version != kVersion) {
    return "protocol version " + std::to_string(hello.version) + "; this member speaks version " +
           std::to_string(kVersion);
  }
  if (hello.token != io_->token()) {
    return "another cluster token: \"" + hello.token.substr(0, 128) + "\" does not belong to this cluster";
  }
  const uint64_t self = io_->self_id();
  if (hello.target != 0 && self != 0 && hello.target != self) {
    return "this is member " + Hex(self) + ", not " + Hex(hello.target);
  }
  if (hello.sender != 0 && hello.sender == self) return "member " + Hex(self) + " is this one";
  return "";
}

// Is the certificate good, and one of a host of the member that the other end says it is?
std::string Inbound::CheckCertificate() const {
  const std::shared_ptr<const Material> material = io_->tls_server().current();
  const std::string refusal = CheckChain(*material, chain_, false);
  if (!refusal.empty()) return refusal;
  const std::vector<Url>* const urls = io_->FindUrls(peer_);
  if (chain_.empty() || urls == nullptr || urls->empty()) return "";
  std::string hosts;
  for (const Url& url : *urls) {
    if (chain_.IsFor(url.host)) return "";
    hosts += (hosts.empty() ? "" : ", ") + url.host;
  }
  return "name_mismatch: the certificate is for " + chain_.Names() + ", but member " + Hex(peer_) +
         " is at " + hosts;
}

void Inbound::Greet(const Hello& hello) {
  Stream* const control = streams_[KW_LANE_CONTROL];
  const std::string refusal = CheckHello(hello);
  if (!refusal.empty()) return Refuse(refusal);
  peer_ = hello.sender;
  session_ = hello.session;
  is_tls_ =
      control->AuthProperty(GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME) == GRPC_SSL_TRANSPORT_SECURITY_TYPE;
  if (!is_tls_) return Welcome(control);
  io_->WatchTls();
  leaf_pem_ = control->AuthProperty(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  chain_ = PeerChain(leaf_pem_, control->AuthProperty(GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME));
  CheckAgain();
}

void Inbound::CheckAgain() {
  if (!is_tls_ || is_ended_) return;
  const std::string refusal = CheckCertificate();
  if (!refusal.empty()) return is_welcome_ ? End(false, refusal) : Refuse(refusal);
  if (auth_ticket_ != 0) io_->ForgetAuthentication(std::exchange(auth_ticket_, 0));
  const uint64_t ticket = io_->Authenticate(chain_, address_, [this](std::string, const std::string& error) {
    auth_ticket_ = 0;
    if (!error.empty()) return is_welcome_ ? End(false, error) : Refuse(error);
    if (!is_welcome_) Welcome(streams_[KW_LANE_CONTROL]);
  });
  if (!is_ended_) auth_ticket_ = ticket;
}

void Inbound::Welcome(Stream* stream) {
  is_welcome_ = true;
  stream->Welcome({{"kw-version", std::to_string(kVersion)}, {"kw-member", Hex(io_->self_id())}});
}

bool Inbound::TakeBulk(Stream* stream, const Hello& hello) {
  if (!is_welcome_ || streams_[KW_LANE_BULK] != nullptr || hello.sender != peer_ ||
      hello.session != session_ || stream->AuthProperty(GRPC_X509_PEM_CERT_PROPERTY_NAME) != leaf_pem_) {
    return false;
  }
  streams_[KW_LANE_BULK] = stream;
  stream->set_owner(this);
  deadline_ns_ = kNever;
  Welcome(stream);
  return true;
}

void Inbound::OnTime(uint64_t now) {
  if (deadline_ns_ == kNever) return;
  if (now >= deadline_ns_) return End(false, "no complete greeting in time");
  io_->NoteDeadline(deadline_ns_);
}

void Inbound::OnOpened(Stream* stream) {
  stream->Read();
  if (stream->lane() == KW_LANE_CONTROL) io_->OnGreeted(this);
}

void Inbound::OnMessage(Stream* stream, std::string_view bytes) {
  while (true) {
    Header header;
    std::string_view payload;
    const char* error = nullptr;
    switch (Parse(&bytes, &header, &payload, &error)) {
      case ParseResult::kEnd:
        return Deliver();
      case ParseResult::kBad:
        Deliver();
        return End(false, error);
      case ParseResult::kFrame:
        break;
    }
    const bool is_control = stream->lane() == KW_LANE_CONTROL;
    if (header.kind == Kind::kData && header.lane == stream->lane()) {
      frames_.push_back({peer_, header.lane, 0, Slice(payload), {nullptr, 0}});
      frame_bytes_ += kHeaderBytes + payload.size();
      if (frames_.size() == kFramesPerCall) Deliver();
    } else if (header.kind == Kind::kPing && is_control && payload.size() == sizeof(uint64_t)) {
      pong_ = Encode(Kind::kPong, payload);
      SendPong();
    } else {
      Deliver();
      return End(false, "a frame out of place");
    }
  }
}

void Inbound::Deliver() {
  if (frames_.empty()) return;
  Peer* peer = io_->FindPeer(peer_);
  if (peer != nullptr) peer->received_bytes.Add(frame_bytes_);
  io_->sink().frames(io_->sink().self, frames_.data(), frames_.size());
  frames_.clear();
  frame_bytes_ = 0;
}

// Only the newest ping is answered while the answer before it waits.
void Inbound::SendPong() {
  Stream* const control = streams_[KW_LANE_CONTROL];
  if (control->is_sending()) return;
  grpc_slice slice = grpc_slice_from_copied_buffer(pong_.data(), pong_.size());
  pong_.clear();
  control->Send(grpc_raw_byte_buffer_create(&slice, 1));
  grpc_slice_unref(slice);
}

void Inbound::OnSent(Stream*) {
  if (!pong_.empty()) SendPong();
}

void Inbound::OnClosed(Stream*, grpc_status_code, const std::string&) {
  End(true, is_welcome_ ? "" : "closed before its greeting was answered");
}

void Inbound::Refuse(const std::string& reason) {
  streams_[KW_LANE_CONTROL]->Refuse(GRPC_STATUS_FAILED_PRECONDITION, reason.substr(0, 512));
  End(false, reason);
}

void Inbound::End(bool by_peer, const std::string& why_rejected) {
  if (is_ended_) return;
  is_ended_ = true;
  if (!why_rejected.empty()) io_->NoteRejected(address_, why_rejected);
  io_->OnInboundEnded(this, by_peer);
}

}  // namespace keyway::transport_grpc
