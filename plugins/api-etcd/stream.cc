// SPDX-License-Identifier: Apache-2.0
//
// The client's side of a stream: the request head, messages, deadlines.
#include "stream.h"

#include "gzip.h"
#include "http2_session.h"
#include "rpc_stream.h"
#include "rpc_unary.h"

namespace keyway::api_etcd {
namespace {

constexpr size_t kPrefixBytes = 5;
constexpr uint64_t kLeaderTickNs = 250'000'000;

// grpc-timeout: up to eight digits and a unit. 0 if malformed.
uint64_t ParseTimeoutNs(std::string_view text) {
  if (text.size() < 2 || text.size() > 9) return 0;
  uint64_t number = 0;
  for (const char digit : text.substr(0, text.size() - 1)) {
    if (digit < '0' || digit > '9') return 0;
    number = number * 10 + static_cast<uint64_t>(digit - '0');
  }
  switch (text.back()) {
    case 'n':
      return number == 0 ? 1 : number;
    case 'u':
      return number * 1000 + 1;
    case 'm':
      return number * 1'000'000 + 1;
    case 'S':
      return number * 1'000'000'000 + 1;
    case 'M':
      return number * 60'000'000'000 + 1;
    case 'H':
      return number > 1'000'000 ? uint64_t{1} << 62 : number * 3'600'000'000'000 + 1;
    default:
      return 0;
  }
}

bool IsGrpcContentType(std::string_view value) {
  constexpr std::string_view kType = "application/grpc";
  if (!value.starts_with(kType)) return false;
  return value.size() == kType.size() || value[kType.size()] == '+' || value[kType.size()] == ';';
}

}  // namespace

Stream::Stream(Http2Session* session, int32_t id)
    : session_(session), id_(id), in_(io()->pool().TakeBuffer()), body_(&io()->pool()) {
  deadline_timer_.stream = this;
  deadline_timer_.fire = [](TimerWheel::Timer* timer) {
    static_cast<StreamTimer*>(timer)->stream->OnDeadline();
  };
  leader_timer_.stream = this;
  leader_timer_.fire = [](TimerWheel::Timer* timer) {
    static_cast<StreamTimer*>(timer)->stream->OnLeaderTick();
  };
}

Stream::~Stream() {
  io()->timers().Clear(&deadline_timer_);
  io()->timers().Clear(&leader_timer_);
  session_->CountBuffered(0, in_.size());
  session_->CountUnsent(0, counted_unsent_bytes_);
  Orphan();
  io()->pool().GiveBuffer(std::move(in_));
}

IoThread* Stream::io() { return session_->io(); }
kw_slice Stream::principal() { return session_->connection()->principal(); }

void Stream::Orphan() {
  if (maybe_call_ != nullptr) maybe_call_->maybe_owner = nullptr;
  maybe_call_ = nullptr;
  if (handler_ != nullptr) handler_->Stop();
}

// ---- the request head -----------------------------------------------------------------------------

void Stream::OnHeader(std::string_view name, std::string_view value) {
  header_bytes_ += name.size() + value.size() + 32;
  if (header_bytes_ > kHeaderListBytesMax) return;
  switch (name.size()) {
    case 5:
      if (name == ":path") {
        method_ = FindMethod(value);
        if (method_ == nullptr) path_ = value;
      }
      return;
    case 7:
      if (name == ":method") {
        is_post_ = value == "POST";
        if (!is_post_) http_method_ = value;
      }
      return;
    case 9:
      if (name == "hasleader") wants_leader_ = value == "true";
      return;
    case 12:
      if (name == "content-type") {
        is_grpc_ = IsGrpcContentType(value);
        if (!is_grpc_) content_type_ = value;
      } else if (name == "grpc-timeout") {
        timeout_ns_ = ParseTimeoutNs(value);
      }
      return;
    case 13:
      if (name == "grpc-encoding" && value != "identity") {
        request_encoding_ = value == "gzip" ? Encoding::kGzip : Encoding::kOther;
        if (request_encoding_ == Encoding::kOther) encoding_name_ = value;
      }
      return;
    default:
      return;
  }
}

void Stream::OnHeadersEnd() {
  if (header_bytes_ > kHeaderListBytesMax) {
    HttpResponse response;
    response.status = 431;
    return Respond(std::move(response));
  }
  if (is_grpc_) return StartGrpc();
  StartHttp();
}

void Stream::StartHttp() {
  if (is_post_ && method_ != nullptr) {
    return Refuse("415",
                  {KW_INVALID_ARGUMENT, "invalid gRPC request content-type \"" + content_type_ + "\""});
  }
  const std::string target = method_ == nullptr ? path_ : std::string(method_->path);
  query_ = std::make_unique<HttpQuery>(io(), this);
  query_->Start(is_post_ ? "POST" : http_method_, target);
}

bool Stream::CheckStart() {
  Server& server = io()->server();
  if (session_->connection()->identity_status().code != KW_OK) {
    Finish(session_->connection()->identity_status());
    return false;
  }
  if (method_ == nullptr) {
    Finish({KW_UNIMPLEMENTED, UnknownMethodText(path_)});
    return false;
  }
  is_started_ = true;
  server.metrics.Started(method_->rpc);
  if (request_encoding_ == Encoding::kOther) {
    Finish({KW_UNIMPLEMENTED,
            "grpc: Decompressor is not installed for grpc-encoding \"" + encoding_name_ + "\""});
    return false;
  }
  if (server.is_learner() && !method_->serves_on_learner) {
    Finish(FromDetail(KW_DETAIL_NOT_SUPPORTED_FOR_LEARNER));
    return false;
  }
  if (session_->unsent_bytes() > kConnectionUnsentBytesMax) {
    Finish({KW_RESOURCE_EXHAUSTED, "too many bytes of unread responses on this connection"});
    return false;
  }
  if (wants_leader_ && server.leader_id() == 0) {
    Finish(FromDetail(KW_DETAIL_NO_LEADER));
    return false;
  }
  return true;
}

void Stream::StartGrpc() {
  if (!is_post_) {
    return Refuse("405", {KW_INTERNAL, "Received a HEADERS frame with :method \"" + http_method_ +
                                           "\" which should be POST"});
  }
  if (!CheckStart()) return;
  SetTimers();
  if (method_->type != RpcType::kUnary) handler_ = MakeStreamHandler(this);
}

void Stream::SetTimers() {
  if (timeout_ns_ != 0) {
    deadline_ns_ = io()->now_ns() + timeout_ns_;
    io()->timers().Set(&deadline_timer_, deadline_ns_);
  }
  if (wants_leader_ && method_->type != RpcType::kUnary) {
    io()->timers().Set(&leader_timer_, io()->now_ns() + kLeaderTickNs);
  }
}

void Stream::OnDeadline() { Finish({KW_DEADLINE_EXCEEDED, "context deadline exceeded"}); }

void Stream::OnLeaderTick() {
  const uint64_t lost_ns = io()->server().leader_lost_ns();
  if (lost_ns != 0 && io()->now_ns() > lost_ns + kLeaderLostNs) {
    Finish(FromDetail(KW_DETAIL_NO_LEADER));
    return;
  }
  io()->timers().Set(&leader_timer_, io()->now_ns() + kLeaderTickNs);
}

// ---- messages -------------------------------------------------------------------------------------

void Stream::OnData(const uint8_t* bytes, size_t count) {
  if (is_finished_ || is_http_ || !is_grpc_) {
    nghttp2_session_consume_stream(session_->raw(), id_, count);
    return;
  }
  if (session_->buffered_bytes() + count > kConnectionReceiveBytesMax) {
    Finish({KW_RESOURCE_EXHAUSTED, "too many bytes of unfinished requests on this connection"});
    return;
  }
  in_.Append(bytes, count);
  session_->CountBuffered(count, 0);
  unconsumed_bytes_ += count;
  ProcessMessages();
}

void Stream::ProcessMessages() {
  if (is_processing_) return;
  is_processing_ = true;
  while (!is_finished_ && (handler_ == nullptr || handler_->WantsMessages())) {
    kw_slice message = {};
    size_t frame_bytes = 0;
    const int found = NextMessage(&message, &frame_bytes);
    // A unary message is left in place: its request will point into it.
    if (found != 1 || handler_ == nullptr) break;
    handler_->OnMessage(message);
    in_.Consume(frame_bytes);
    session_->CountBuffered(0, frame_bytes);
    inflated_.Reset(kBufferKeepBytes);
  }
  is_processing_ = false;
  const bool waits = handler_ != nullptr && !is_finished_ && !handler_->WantsMessages();
  if (!waits && unconsumed_bytes_ != 0) {
    nghttp2_session_consume_stream(session_->raw(), id_, unconsumed_bytes_);
    unconsumed_bytes_ = 0;
  }
}

void Stream::Resume() {
  if (is_processing_ || is_finished_) return;
  ProcessMessages();
  if (is_half_closed && !is_finished_) OnEnd();
  session_->Changed();
}

int Stream::NextMessage(kw_slice* message, size_t* frame_bytes) {
  if (in_.size() < kPrefixBytes) return 0;
  const uint8_t* const head = in_.data();
  const size_t bytes = size_t{head[1]} << 24 | size_t{head[2]} << 16 | size_t{head[3]} << 8 | head[4];
  const size_t bytes_max = io()->server().options.receive_bytes_max();
  const auto too_large = [&](size_t size) {
    Finish({KW_RESOURCE_EXHAUSTED, "grpc: received message larger than max (" + std::to_string(size) +
                                       " vs. " + std::to_string(bytes_max) + ")"});
    return -1;
  };
  if (bytes > bytes_max) return too_large(bytes);
  if (head[0] == 1 && request_encoding_ != Encoding::kGzip) {
    Finish({KW_INTERNAL, "grpc: compressed flag set with identity or empty encoding"});
    return -1;
  }
  if (head[0] > 1) {
    Finish({KW_INTERNAL, "grpc: received unexpected payload format " + std::to_string(head[0])});
    return -1;
  }
  if (in_.size() < kPrefixBytes + bytes) return 0;
  *frame_bytes = kPrefixBytes + bytes;
  *message = {head + kPrefixBytes, bytes};
  if (head[0] == 0) return 1;
  inflated_.Reset(kBufferKeepBytes);
  switch (GzipDecompress(*message, bytes_max, &inflated_)) {
    case Inflated::kOk:
      *message = inflated_.slice();
      return 1;
    case Inflated::kTooLarge:
      return too_large(bytes_max + 1);
    case Inflated::kCorrupt:
      Finish({KW_INTERNAL, "grpc: failed to decompress the received message"});
      return -1;
  }
  return -1;
}

void Stream::OnEnd() {
  if (is_finished_ || is_http_ || !is_grpc_) return;
  if (handler_ == nullptr) return StartUnary();
  if (in_.empty()) {
    handler_->OnHalfClose();
  } else if (handler_->WantsMessages()) {
    Finish({KW_UNKNOWN, "unexpected EOF"});
  }
}

void Stream::StartUnary() {
  kw_slice message = {};
  size_t frame_bytes = 0;
  const int found = NextMessage(&message, &frame_bytes);
  if (found < 0) return;
  if (found == 0) {
    Finish({KW_UNKNOWN, in_.empty() ? "EOF" : "unexpected EOF"});
    return;
  }
  Server& server = io()->server();
  if (method_->is_limited && message.len > server.options.max_request_bytes) {
    Finish(FromDetail(KW_DETAIL_REQUEST_TOO_LARGE));
    return;
  }
  Call* const call = io()->NewCall(this, method_->rpc);
  session_->CountBuffered(0, in_.size());
  const bool is_inflated = !inflated_.empty();
  call->input.Swap(is_inflated ? inflated_ : in_);
  if (is_inflated) in_.Reset(0);
  const Status status = StartUnaryCall(this, call, message);
  if (status.code == KW_OK && !is_finished_) {
    maybe_call_ = call;
    io()->Submit(call);
    return;
  }
  // Refused, or answered without the kernel.
  io()->FreeCall(call);
  if (!is_finished_) Finish(status);
}

void Stream::OnCallDone(Call* call) {
  maybe_call_ = nullptr;
  if (is_finished_) return;
  if (call->code != KW_OK || call->reply == nullptr) {
    Status status = call->status();
    if (status.code == KW_OK) status = {KW_INTERNAL, "no reply"};
    Finish(status);
    return;
  }
  FinishUnaryCall(this, call);
}

void Stream::OnReset() {
  if (is_started_ && !is_finished_) {
    io()->server().metrics.Handled(method_->rpc, KW_CANCELLED);
  }
  is_finished_ = true;
  Orphan();
}

void Stream::Drain() {
  if (handler_ != nullptr && !is_finished_) Finish(FromDetail(KW_DETAIL_STOPPED));
}

}  // namespace keyway::api_etcd
