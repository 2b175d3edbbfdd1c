// SPDX-License-Identifier: Apache-2.0
//
// The server's side of a stream: the response head, messages with their prefix, trailers.
#include <algorithm>

#include "gzip.h"
#include "http2_session.h"
#include "stream.h"

namespace keyway::api_etcd {
namespace {

constexpr size_t kPrefixBytes = 5;

// nghttp2 does not change the bytes, it only lacks the const. The text must outlive the submission.
nghttp2_nv Field(std::string_view name, std::string_view value, bool is_static) {
  const auto bytes = [](std::string_view text) {
    return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
  };
  const auto flags =
      static_cast<uint8_t>(NGHTTP2_NV_FLAG_NO_COPY_NAME | (is_static ? NGHTTP2_NV_FLAG_NO_COPY_VALUE : 0));
  return {bytes(name), bytes(value), name.size(), value.size(), flags};
}

constexpr std::string_view kCodeTexts[] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                           "9", "10", "11", "12", "13", "14", "15", "16"};

void PutPrefix(uint8_t* at, bool is_compressed, size_t bytes) {
  at[0] = is_compressed ? 1 : 0;
  at[1] = static_cast<uint8_t>(bytes >> 24);
  at[2] = static_cast<uint8_t>(bytes >> 16);
  at[3] = static_cast<uint8_t>(bytes >> 8);
  at[4] = static_cast<uint8_t>(bytes);
}

}  // namespace

uint8_t* Stream::BeginMessage(size_t bytes) {
  if (is_compressing()) {
    scratch_.Reset(kBufferKeepBytes);
    open_message_bytes_ = bytes;
    return scratch_.Extend(bytes);
  }
  uint8_t* const at = body_.Extend(kPrefixBytes + bytes);
  PutPrefix(at, false, bytes);
  return at + kPrefixBytes;
}

void Stream::EndMessage() {
  if (!is_compressing()) return;
  Buffer compressed;
  GzipCompress(scratch_.slice(), &compressed);
  uint8_t* const at = body_.Extend(kPrefixBytes + compressed.size());
  PutPrefix(at, true, compressed.size());
  std::memcpy(at + kPrefixBytes, compressed.data(), compressed.size());
}

void Stream::BeginPieces(size_t bytes) { PutPrefix(body_.Extend(kPrefixBytes), false, bytes); }

void Stream::SubmitHead() {
  is_head_submitted_ = true;
  const nghttp2_nv fields[] = {Field(":status", "200", true), Field("content-type", "application/grpc", true),
                               Field("grpc-encoding", "gzip", true)};
  const nghttp2_data_provider provider = session_->data_provider();
  nghttp2_submit_response(session_->raw(), id_, fields, is_compressing() ? 3 : 2, &provider);
}

void Stream::SubmitTrailersOnly() {
  is_head_submitted_ = true;
  const nghttp2_nv fields[] = {Field(":status", refused_status_.empty() ? "200" : refused_status_, true),
                               Field("content-type", "application/grpc", true),
                               Field("grpc-status", kCodeTexts[status_.code], true),
                               Field("grpc-message", encoded_text_, false)};
  nghttp2_submit_response(session_->raw(), id_, fields, encoded_text_.empty() ? 3 : 4, nullptr);
}

void Stream::SubmitTrailers() {
  const nghttp2_nv fields[] = {Field("grpc-status", kCodeTexts[status_.code], true),
                               Field("grpc-message", encoded_text_, false)};
  nghttp2_submit_trailer(session_->raw(), id_, fields, encoded_text_.empty() ? 1 : 2);
}

void Stream::CountUnsent() {
  const size_t pending = body_.pending_bytes();
  session_->CountUnsent(pending, counted_unsent_bytes_);
  counted_unsent_bytes_ = pending;
}

void Stream::Send() {
  CountUnsent();
  if (!is_head_submitted_) {
    SubmitHead();
  } else if (is_deferred_) {
    is_deferred_ = false;
    nghttp2_session_resume_data(session_->raw(), id_);
  }
  session_->Changed();
}

void Stream::Finish(const Status& status) {
  if (is_finished_) return;
  is_finished_ = true;
  status_ = status;
  if (status_.code < KW_OK || status_.code > KW_UNAUTHENTICATED) status_.code = KW_UNKNOWN;
  if (!status_.text.empty()) encoded_text_ = PercentEncode(status_.text);
  io()->timers().Clear(&deadline_timer_);
  io()->timers().Clear(&leader_timer_);
  if (is_started_) io()->server().metrics.Handled(method_->rpc, status_.code);
  session_->CountCompleted();
  Orphan();
  if (!is_processing_) {
    session_->CountBuffered(0, in_.size());
    in_.Reset(kBufferKeepBytes);
  }
  if (!is_head_submitted_ && body_.pending_bytes() == 0) {
    SubmitTrailersOnly();
    session_->Changed();
    return;
  }
  Send();
}

void Stream::Refuse(std::string_view http_status, const Status& status) {
  refused_status_ = http_status;
  Finish(status);
}

void Stream::Respond(HttpResponse response) {
  is_http_ = true;
  is_finished_ = true;
  is_head_submitted_ = true;
  const bool is_head_only = http_method_ == "HEAD";
  const std::string status = std::to_string(response.status);
  const std::string length = std::to_string(response.body.size());
  nghttp2_nv fields[5] = {Field(":status", status, false),
                          Field("content-type", response.content_type, false),
                          Field("content-length", length, false)};
  size_t count = 3;
  if (response.is_nosniff) fields[count++] = Field("x-content-type-options", "nosniff", true);
  if (response.allows_get_only) fields[count++] = Field("allow", "GET", true);
  const bool has_body = !response.body.empty() && !is_head_only;
  if (has_body) {
    std::memcpy(body_.Extend(response.body.size()), response.body.data(), response.body.size());
  }
  const nghttp2_data_provider provider = session_->data_provider();
  nghttp2_submit_response(session_->raw(), id_, fields, count, has_body ? &provider : nullptr);
  session_->CountCompleted();
  session_->Changed();
}

ssize_t Stream::ReadBody(size_t count, uint32_t* flags) {
  const size_t pending = body_.pending_bytes();
  const size_t part = std::min(count, pending);
  if (part == 0 && !is_finished_) {
    is_deferred_ = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (part == pending && is_finished_) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (!is_http_) {
      *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
      SubmitTrailers();
    }
  }
  return static_cast<ssize_t>(part);
}

void Stream::CopyBody(uint8_t* out, size_t count) {
  body_.CopyOut(out, count);
  CountUnsent();
  if (handler_ != nullptr && !is_finished_) handler_->OnConsumed();
}

}  // namespace keyway::api_etcd
