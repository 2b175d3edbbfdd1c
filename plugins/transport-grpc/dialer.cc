// SPDX-License-Identifier: Apache-2.0
//
// Dialing, sending, and noticing that a connection is gone.
#include "dialer.h"

#include <grpc/grpc_security.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <random>
#include <utility>

namespace keyway::transport_grpc {
namespace {

constexpr uint64_t kBackoffMinNs = 50'000'000;
constexpr uint64_t kBackoffMaxNs = 1'000'000'000;
constexpr uint64_t kStableNs = 1'000'000'000;
// A gRPC channel costs the I/O thread a millisecond and more; the votes that follow a loss come first.
constexpr uint64_t kFirstRetryNs = 30'000'000;
constexpr uint64_t kResolveTimeoutNs = 5'000'000'000;
constexpr uint64_t kUnreachableLogNs = 30'000'000'000;
constexpr uint64_t kOtherReasonLogNs = 5'000'000'000;

grpc_arg Number(const char* key, int value) {
  grpc_arg arg = {};
  arg.type = GRPC_ARG_INTEGER;
  arg.key = const_cast<char*>(key);
  arg.value.integer = value;
  return arg;
}

}  // namespace

Dialer::Dialer(Io* io, std::shared_ptr<Peer> peer)
    : io_(io), peer_(std::move(peer)), id_text_(Hex(peer_->id)), random_(std::random_device{}()) {}

Dialer::~Dialer() { CloseChannel(); }

void Dialer::SetUrls(std::vector<Url> urls) {
  if (urls == urls_) return;
  urls_ = std::move(urls);
  const bool is_kept = std::find(urls_.begin(), urls_.end(), url_) != urls_.end();
  if (state_ == State::kWaiting) {
    WaitBeforeRound(true);
  } else if (!is_kept && state_ == State::kUp) {
    Lose("the URL was removed");
  } else if (!is_kept) {
    Restart();
  }
}

void Dialer::Restart() {
  if (state_ == State::kUp) return Lose("this member has another id");
  CloseChannel();
  WaitBeforeRound(true);
}

void Dialer::SetDeadline(uint64_t delay_ns) {
  deadline_ns_ = io_->now_ns() + delay_ns;
  io_->NoteDeadline(deadline_ns_);
}

void Dialer::WaitBeforeRound(bool at_once) {
  state_ = State::kWaiting;
  if (urls_.empty()) {
    deadline_ns_ = kNever;
    return;
  }
  if (at_once) {
    backoff_ns_ = 0;
    return SetDeadline(0);
  }
  backoff_ns_ = std::clamp(backoff_ns_ * 2, kBackoffMinNs, kBackoffMaxNs);
  SetDeadline(backoff_ns_ / 2 + random_() % (backoff_ns_ / 2));
}

void Dialer::OnTime(uint64_t now) {
  if (now < deadline_ns_) {
    if (deadline_ns_ != kNever) io_->NoteDeadline(deadline_ns_);
    return;
  }
  switch (state_) {
    case State::kWaiting:
      url_index_ = 0;
      return Advance();
    case State::kOpening:
      return Fail("no connection and no answer to the greeting in time");
    case State::kAuthenticating:
    case State::kOpeningBulk:
      return Fail("no answer to the greeting in time");
    case State::kUp:
      SendPing();
      return SetDeadline(io_->options().keepalive_interval_ns);
  }
}

// Goes on until something has to be waited for.
void Dialer::Advance() {
  while (url_index_ < urls_.size()) {
    url_ = urls_[url_index_++];
    if (StartUrl()) return;
  }
  WaitBeforeRound(false);
  LogUnreachable();
}

bool Dialer::StartUrl() {
  const int connect_ms = static_cast<int>(io_->options().connect_timeout_ns / 1'000'000);
  std::vector<grpc_arg> args = io_->CommonArguments();
  args.push_back(Number(GRPC_ARG_ENABLE_HTTP_PROXY, 0));
  args.push_back(Number(GRPC_ARG_ENABLE_RETRIES, 0));
  args.push_back(Number(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1));
  args.push_back(Number(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1));
  args.push_back(Number(GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, INT_MAX));
  // Of one address. The pauses between attempts are this class's.
  args.push_back(Number(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, connect_ms));
  args.push_back(Number(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, connect_ms));
  args.push_back(Number(GRPC_ARG_DNS_ARES_QUERY_TIMEOUT_MS, static_cast<int>(kResolveTimeoutNs / 1'000'000)));
  const grpc_channel_args list = {args.size(), args.data()};
  grpc_channel_credentials* credentials = url_.is_tls
                                              ? io_->tls_client().NewChannelCredentials(url_.host, &failure_)
                                              : grpc_insecure_credentials_create();
  if (credentials == nullptr) return false;
  if (url_.is_tls) io_->WatchTls();
  channel_ = grpc_channel_create(url_.Target().c_str(), credentials, &list);
  grpc_channel_credentials_release(credentials);
  chain_ = PeerChain();
  principal_.clear();
  session_ = random_();
  state_ = State::kOpening;
  StartStream(KW_LANE_CONTROL);
  // gRPC mostly knows of a failure long before. A name may have several addresses.
  const uint64_t connect_ns = io_->options().connect_timeout_ns;
  SetDeadline(url_.is_unix || url_.IsNumeric() ? connect_ns + 100'000'000
                                               : kResolveTimeoutNs + 4 * connect_ns);
  return true;
}

void Dialer::StartStream(uint32_t lane) {
  grpc_call* call = grpc_channel_create_call(channel_, nullptr, GRPC_PROPAGATE_DEFAULTS, io_->queue(),
                                             grpc_slice_from_static_string(kPaths[lane]), nullptr,
                                             gpr_inf_future(GPR_CLOCK_REALTIME), nullptr);
  streams_[lane] = new Stream(call, lane, this, io_->stream_count());
  streams_[lane]->Dial({{"kw-version", std::to_string(kVersion)},
                        {"kw-token-bin", io_->token()},
                        {"kw-sender", Hex(io_->self_id())},
                        {"kw-target", id_text_},
                        {"kw-session", Hex(session_)}});
}

void Dialer::OnOpened(Stream* stream) {
  const std::string* const version = stream->FindAnswer("kw-version");
  const std::string* const member = stream->FindAnswer("kw-member");
  uint64_t acceptor = 0;
  // A refusal has no answer; the end of the call says why.
  if (version == nullptr || member == nullptr || !ParseHex(*member, &acceptor)) return;
  if (*version != std::to_string(kVersion))
    return Fail("the peer speaks protocol version " + version->substr(0, 16));
  if (acceptor != 0 && peer_->id != 0 && acceptor != peer_->id) {
    return Fail("member " + Hex(acceptor) + " is at this address");
  }
  if (stream->lane() == KW_LANE_BULK) return GoUp();
  address_ = PlainAddress(stream->Peer());
  stream->Read();
  state_ = State::kAuthenticating;
  SetDeadline(kGreetingTimeoutNs);
  if (url_.is_tls) {
    chain_ = PeerChain(stream->AuthProperty(GRPC_X509_PEM_CERT_PROPERTY_NAME),
                       stream->AuthProperty(GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME));
  }
  Authenticate();
}

void Dialer::Authenticate() {
  if (auth_ticket_ != 0) io_->ForgetAuthentication(std::exchange(auth_ticket_, 0));
  const uint64_t ticket =
      io_->Authenticate(chain_, address_, [this](std::string principal, const std::string& error) {
        auth_ticket_ = 0;
        if (!error.empty()) return state_ == State::kUp ? Lose(error) : Fail(error);
        principal_ = std::move(principal);
        if (state_ != State::kAuthenticating) return;
        state_ = State::kOpeningBulk;
        StartStream(KW_LANE_BULK);
      });
  // After an answer at once the ticket is 0; a later connection may already have one of its own.
  if (ticket != 0) auth_ticket_ = ticket;
}

void Dialer::CheckAgain() {
  if (!url_.is_tls || chain_.empty()) return;
  const std::shared_ptr<const Material> material = io_->tls_client().current();
  const std::string refusal = CheckChain(*material, chain_, true);
  if (refusal.empty()) return Authenticate();
  state_ == State::kUp ? Lose(refusal) : Fail(refusal);
}

void Dialer::GoUp() {
  state_ = State::kUp;
  up_since_ns_ = io_->now_ns();
  doubted_since_ns_ = 0;
  next_unreachable_log_ns_ = 0;
  logged_failure_.clear();
  peer_->outbox.Open();
  io_->log().Info("peer_connected", {{"peer", id_text_}, {"url", url_.text}, {"address", address_}});
  ReportState(KW_PEER_UP);
  SendPing();
  SetDeadline(io_->options().keepalive_interval_ns);
}

void Dialer::Pump() {
  if (state_ != State::kUp) return;
  for (Stream* stream : streams_) {
    if (stream->is_sending()) continue;
    grpc_byte_buffer* const message = peer_->outbox.Take(stream->lane());
    if (message != nullptr) stream->Send(message);
  }
}

void Dialer::OnSent(Stream* stream) {
  if (state_ != State::kUp) return;
  peer_->sent_bytes.Add(peer_->outbox.Sent(stream->lane()));
  Pump();
}

void Dialer::SendPing() {
  const uint64_t now = io_->now_ns();
  bool must_wake = false;
  peer_->outbox.Append(Kind::kPing, KW_LANE_CONTROL, {reinterpret_cast<const uint8_t*>(&now), sizeof(now)},
                       {nullptr, 0}, &must_wake);
  Pump();
}

void Dialer::OnMessage(Stream*, std::string_view bytes) {
  Header header;
  std::string_view payload;
  const char* error = nullptr;
  ParseResult result;
  while ((result = Parse(&bytes, &header, &payload, &error)) == ParseResult::kFrame) {
    uint64_t sent_ns;
    if (header.kind != Kind::kPong || payload.size() != sizeof(sent_ns)) break;
    std::memcpy(&sent_ns, payload.data(), sizeof(sent_ns));
    const uint64_t now = io_->now_ns();
    if (sent_ns <= now) {
      peer_->round_trip_ns.store(std::max<uint64_t>(now - sent_ns, 1), std::memory_order_relaxed);
    }
    if (doubted_since_ns_ != 0 && sent_ns >= doubted_since_ns_) {
      doubted_since_ns_ = 0;
      ReportState(KW_PEER_UP);
    }
  }
  if (result == ParseResult::kEnd) return;
  const std::string reason = result == ParseResult::kBad ? error : "a frame out of place";
  state_ == State::kUp ? Lose(reason) : Fail(reason);
}

void Dialer::OnInboundLost() {
  if (state_ != State::kUp || !is_reported_up_) return;
  // Either the peer died, and this connection's end is about to arrive, or it only dialed anew, and
  // will answer a ping. Closing ours could make both sides close in turn without an end.
  ReportState(KW_PEER_DOWN);
  doubted_since_ns_ = io_->now_ns();
  SendPing();
}

void Dialer::OnInboundGreeted() {
  if (state_ == State::kWaiting && !urls_.empty()) SetDeadline(0);
}

void Dialer::OnClosed(Stream*, grpc_status_code code, const std::string& text) {
  std::string reason;
  if (code == GRPC_STATUS_FAILED_PRECONDITION || code == GRPC_STATUS_RESOURCE_EXHAUSTED) reason = "refused: ";
  if (code == GRPC_STATUS_UNIMPLEMENTED) reason = "not a member of a Keyway cluster: ";
  reason += text.empty() ? "closed by the peer (status " + std::to_string(code) + ")" : text;
  state_ == State::kUp ? Lose(reason) : Fail(reason);
}

void Dialer::Fail(const std::string& reason) {
  failure_ = reason;
  CloseChannel();
  Advance();
}

void Dialer::Lose(const std::string& reason) {
  const bool was_stable = io_->now_ns() - up_since_ns_ >= kStableNs;
  CloseChannel();
  io_->log().Warn("peer_lost", {{"peer", id_text_}, {"address", address_}, {"reason", reason}});
  if (is_reported_up_) ReportState(KW_PEER_DOWN);
  WaitBeforeRound(was_stable);
  if (was_stable && !urls_.empty()) SetDeadline(kFirstRetryNs);
}

void Dialer::CloseChannel() {
  if (auth_ticket_ != 0) io_->ForgetAuthentication(std::exchange(auth_ticket_, 0));
  if (state_ == State::kUp) peer_->send_failures.Add(peer_->outbox.Close());
  for (Stream*& stream : streams_) {
    if (stream != nullptr) std::exchange(stream, nullptr)->Release();
  }
  if (channel_ != nullptr) grpc_channel_destroy(std::exchange(channel_, nullptr));
  state_ = State::kWaiting;
  deadline_ns_ = kNever;
}

void Dialer::ReportState(uint32_t state) {
  is_reported_up_ = state == KW_PEER_UP;
  io_->sink().peer_state(io_->sink().self, peer_->id, state, Slice(principal_));
}

void Dialer::LogUnreachable() {
  const uint64_t now = io_->now_ns();
  // Another reason is news, though not each time that two of them alternate.
  const uint64_t early_ns = failure_ == logged_failure_ ? 0 : kUnreachableLogNs - kOtherReasonLogNs;
  if (now + early_ns < next_unreachable_log_ns_) return;
  logged_failure_ = failure_;
  next_unreachable_log_ns_ = now + kUnreachableLogNs;
  io_->log().Warn("peer_unreachable", {{"peer", id_text_}, {"url", url_.text}, {"reason", failure_}});
}

}  // namespace keyway::transport_grpc
