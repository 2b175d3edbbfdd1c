// SPDX-License-Identifier: Apache-2.0
//
// nghttp2's callbacks, and the bounds on floods.
#include "http2_session.h"

#include "stream.h"

namespace keyway::api_etcd {
namespace {

Http2Session* Self(void* user) { return static_cast<Http2Session*>(user); }

}  // namespace

nghttp2_session_callbacks* Http2Session::Callbacks() {
  static nghttp2_session_callbacks* const callbacks = [] {
    nghttp2_session_callbacks* made = nullptr;
    if (nghttp2_session_callbacks_new(&made) != 0) throw std::bad_alloc();
    nghttp2_session_callbacks_set_on_begin_frame_callback(made, &OnBeginFrame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(made, &OnBeginHeaders);
    nghttp2_session_callbacks_set_on_header_callback(made, &OnHeader);
    nghttp2_session_callbacks_set_on_frame_recv_callback(made, &OnFrame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, &OnData);
    nghttp2_session_callbacks_set_on_frame_send_callback(made, &OnSent);
    nghttp2_session_callbacks_set_on_stream_close_callback(made, &OnStreamClose);
    nghttp2_session_callbacks_set_send_data_callback(made, &SendData);
    return made;
  }();
  return callbacks;
}

nghttp2_option* Http2Session::SessionOptions() {
  static nghttp2_option* const options = [] {
    nghttp2_option* made = nullptr;
    if (nghttp2_option_new(&made) != 0) throw std::bad_alloc();
    nghttp2_option_set_no_auto_window_update(made, 1);
    nghttp2_option_set_no_closed_streams(made, 1);
    nghttp2_option_set_max_continuations(made, kContinuationsMax);
    // Our own bound on resets is relative to the requests that the peer let finish.
    nghttp2_option_set_stream_reset_rate_limit(made, 1'000'000, 1'000'000);
    return made;
  }();
  return options;
}

Http2Session::Http2Session(Connection* connection) : connection_(connection) {
  if (nghttp2_session_server_new3(&session_, Callbacks(), this, SessionOptions(),
                                  io()->pool().nghttp2_memory()) != 0) {
    throw std::bad_alloc();
  }
  provider_.read_callback = &ReadBody;
  window_start_ns_ = io()->now_ns();
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, io()->server().options.max_concurrent_streams},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindowBytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, kHeaderListBytesMax},
  };
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, 3);
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kConnectionWindowBytes);
}

Http2Session::~Http2Session() {
  while (first_stream_ != nullptr) CloseStream(first_stream_, NGHTTP2_CANCEL);
  nghttp2_session_del(session_);
}

bool Http2Session::Receive(const uint8_t* bytes, size_t count) {
  if (is_over_) return false;
  const ssize_t read = nghttp2_session_mem_recv(session_, bytes, count);
  const ServerMetrics& metrics = io()->server().metrics;
  if (received_bytes_ != 0) metrics.received_bytes.Add(received_bytes_);
  received_bytes_ = 0;
  if (read == NGHTTP2_ERR_FLOODED) Calm("frame_flood");
  if (read < 0 && !is_over_) {
    nghttp2_session_terminate_session(session_, NGHTTP2_PROTOCOL_ERROR);
    is_over_ = true;
  }
  return !is_over_;
}

void Http2Session::Produce() {
  Buffer& out = connection_->out();
  while (out.size() < kOutputBytesSoft) {
    const uint8_t* bytes = nullptr;
    const ssize_t count = nghttp2_session_mem_send(session_, &bytes);
    if (count < 0) is_over_ = true;
    if (count <= 0) break;
    out.Append(bytes, static_cast<size_t>(count));
  }
  if (sent_bytes_ != 0) io()->server().metrics.sent_bytes.Add(sent_bytes_);
  sent_bytes_ = 0;
}

void Http2Session::Drain() {
  if (is_draining_) return;
  is_draining_ = true;
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
                        NGHTTP2_NO_ERROR, nullptr, 0);
  for (Stream* stream = first_stream_; stream != nullptr; stream = stream->next) stream->Drain();
}

bool Http2Session::IsFinished() const {
  if (is_over_) return true;
  if (is_draining_ && stream_count_ == 0) return true;
  return nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0;
}

Stream* Http2Session::StreamOf(int32_t stream_id) {
  return static_cast<Stream*>(nghttp2_session_get_stream_user_data(session_, stream_id));
}

void Http2Session::CloseStream(Stream* stream, uint32_t) {
  stream->OnReset();
  if (stream->previous != nullptr) stream->previous->next = stream->next;
  if (stream->next != nullptr) stream->next->previous = stream->previous;
  if (first_stream_ == stream) first_stream_ = stream->next;
  --stream_count_;
  Pool& pool = io()->pool();
  stream->~Stream();
  pool.Give(stream);
}

// ---- floods ---------------------------------------------------------------------------------------

void Http2Session::RollAbuseWindow() {
  const uint64_t now_ns = io()->now_ns();
  if (now_ns - window_start_ns_ < kAbuseWindowNs) return;
  window_start_ns_ = now_ns;
  reset_count_ = completed_count_ = control_count_ = data_count_ = 0;
}

bool Http2Session::IsAbusive(uint8_t frame_type) {
  switch (frame_type) {
    case NGHTTP2_RST_STREAM:
      RollAbuseWindow();
      return ++reset_count_ > kResetsMax + completed_count_;
    case NGHTTP2_PING:  // Clients probe the bandwidth with one ping for each DATA they got.
    case NGHTTP2_SETTINGS:
    case NGHTTP2_PRIORITY:
      RollAbuseWindow();
      return ++control_count_ > kControlFramesMax + 2 * data_count_;
    default:
      return false;
  }
}

void Http2Session::Calm(std::string_view what) {
  if (is_over_) return;
  is_over_ = true;
  io()->server().metrics.connections_abusive.Add();
  io()->server().log.Warn("client_abuse", {{"address", connection_->address()}, {"kind", what}});
  nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM);
}

// ---- callbacks ------------------------------------------------------------------------------------

int Http2Session::OnBeginFrame(nghttp2_session*, const nghttp2_frame_hd* head, void* user) {
  Http2Session* const self = Self(user);
  if (head->type == NGHTTP2_CONTINUATION) {
    if (++self->continuation_count_ > kContinuationsMax) self->Calm("continuation_flood");
  } else {
    self->continuation_count_ = 0;
  }
  // An empty DATA frame that does not end anything is noise as well.
  const bool is_noise =
      head->type == NGHTTP2_DATA && head->length == 0 && (head->flags & NGHTTP2_FLAG_END_STREAM) == 0;
  if (self->IsAbusive(is_noise ? uint8_t{NGHTTP2_PING} : head->type)) {
    self->Calm(head->type == NGHTTP2_RST_STREAM ? "rapid_reset" : "control_flood");
  }
  return self->is_over_ ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

int Http2Session::OnBeginHeaders(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
  if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  Http2Session* const self = Self(user);
  void* const memory = self->io()->pool().Take(sizeof(Stream));
  if (memory == nullptr) return NGHTTP2_ERR_CALLBACK_FAILURE;
  auto* const stream = new (memory) Stream(self, frame->hd.stream_id);
  stream->next = self->first_stream_;
  if (stream->next != nullptr) stream->next->previous = stream;
  self->first_stream_ = stream;
  ++self->stream_count_;
  nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream);
  return 0;
}

int Http2Session::OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                           size_t name_bytes, const uint8_t* value, size_t value_bytes, uint8_t, void*) {
  if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  auto* const stream =
      static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, frame->hd.stream_id));
  if (stream != nullptr) {
    stream->OnHeader({reinterpret_cast<const char*>(name), name_bytes},
                     {reinterpret_cast<const char*>(value), value_bytes});
  }
  return 0;
}

int Http2Session::OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
  Http2Session* const self = Self(user);
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  Stream* const stream = self->StreamOf(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  const bool is_end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (is_end) stream->is_half_closed = true;
  if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
    stream->OnHeadersEnd();
  }
  if (is_end) stream->OnEnd();
  return 0;
}

int Http2Session::OnData(nghttp2_session* session, uint8_t, int32_t stream_id, const uint8_t* bytes,
                         size_t count, void* user) {
  Http2Session* const self = Self(user);
  self->received_bytes_ += count;
  nghttp2_session_consume_connection(session, count);
  Stream* const stream = self->StreamOf(stream_id);
  if (stream != nullptr) stream->OnData(bytes, count);
  return 0;
}

int Http2Session::OnSent(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
  if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  const Stream* const stream = Self(user)->StreamOf(frame->hd.stream_id);
  // Answered before the request was complete: the rest of it is not wanted.
  if (stream != nullptr && !stream->is_half_closed) {
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
  }
  return 0;
}

int Http2Session::OnStreamClose(nghttp2_session* session, int32_t stream_id, uint32_t error_code,
                                void* user) {
  Http2Session* const self = Self(user);
  Stream* const stream = self->StreamOf(stream_id);
  if (stream == nullptr) return 0;
  nghttp2_session_set_stream_user_data(session, stream_id, nullptr);
  self->CloseStream(stream, error_code);
  if (self->is_draining_) self->Changed();
  return 0;
}

ssize_t Http2Session::ReadBody(nghttp2_session*, int32_t stream_id, uint8_t*, size_t count, uint32_t* flags,
                               nghttp2_data_source*, void* user) {
  Stream* const stream = Self(user)->StreamOf(stream_id);
  if (stream == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  return stream->ReadBody(count, flags);
}

int Http2Session::SendData(nghttp2_session*, nghttp2_frame* frame, const uint8_t* frame_head, size_t count,
                           nghttp2_data_source*, void* user) {
  Http2Session* const self = Self(user);
  Stream* const stream = self->StreamOf(frame->hd.stream_id);
  if (stream == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  constexpr size_t kFrameHeadBytes = 9;
  uint8_t* const at = self->connection_->out().Extend(kFrameHeadBytes + count);
  std::memcpy(at, frame_head, kFrameHeadBytes);
  if (count != 0) stream->CopyBody(at + kFrameHeadBytes, count);
  self->sent_bytes_ += count;
  ++self->data_count_;
  return 0;
}

}  // namespace keyway::api_etcd
