// SPDX-License-Identifier: Apache-2.0
//
// One HTTP/2 connection on nghttp2: frames in, frames out, the streams between, and the limits that
// keep a hostile peer cheap.
#pragma once

#include <nghttp2/nghttp2.h>

#include <vector>

#include "connection.h"

namespace keyway::api_etcd {

class Stream;

class Http2Session final : public Protocol {
 public:
  explicit Http2Session(Connection* connection);
  ~Http2Session() override;

  // ---- Protocol ------------------------------------------------------------------------------
  bool Receive(const uint8_t* bytes, size_t count) override;
  void Produce() override;
  void Drain() override;
  bool IsFinished() const override;

  // ---- for streams ---------------------------------------------------------------------------
  IoThread* io() { return connection_->io(); }
  Connection* connection() { return connection_; }
  nghttp2_session* raw() { return session_; }
  const nghttp2_data_provider& data_provider() const { return provider_; }
  bool is_draining() const { return is_draining_; }
  // Output of a stream has become available.
  void Changed() { io()->MarkDirty(connection_); }
  void CountBuffered(size_t added, size_t removed) { buffered_bytes_ += added - removed; }
  size_t buffered_bytes() const { return buffered_bytes_; }
  void CountUnsent(size_t added, size_t removed) { unsent_bytes_ += added - removed; }
  size_t unsent_bytes() const { return unsent_bytes_; }
  void CountCompleted() { ++completed_count_; }

 private:
  static nghttp2_session_callbacks* Callbacks();
  static nghttp2_option* SessionOptions();
  static int OnBeginFrame(nghttp2_session*, const nghttp2_frame_hd* head, void* user);
  static int OnBeginHeaders(nghttp2_session*, const nghttp2_frame* frame, void* user);
  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                      const uint8_t* value, size_t value_bytes, uint8_t flags, void* user);
  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* user);
  static int OnData(nghttp2_session*, uint8_t flags, int32_t stream_id, const uint8_t* bytes, size_t count,
                    void* user);
  static int OnSent(nghttp2_session*, const nghttp2_frame* frame, void* user);
  static int OnStreamClose(nghttp2_session*, int32_t stream_id, uint32_t error_code, void* user);
  static ssize_t ReadBody(nghttp2_session*, int32_t stream_id, uint8_t* buffer, size_t count, uint32_t* flags,
                          nghttp2_data_source* source, void* user);
  static int SendData(nghttp2_session*, nghttp2_frame* frame, const uint8_t* frame_head, size_t count,
                      nghttp2_data_source* source, void* user);

  Stream* StreamOf(int32_t stream_id);
  void CloseStream(Stream* stream, uint32_t error_code);
  void RollAbuseWindow();
  bool IsAbusive(uint8_t frame_type);
  void Calm(std::string_view what);

  Connection* const connection_;
  nghttp2_session* session_ = nullptr;
  nghttp2_data_provider provider_ = {};
  Stream* first_stream_ = nullptr;  // A doubly-linked list of all open ones.
  size_t stream_count_ = 0;
  size_t buffered_bytes_ = 0;    // of requests that are not complete
  size_t unsent_bytes_ = 0;      // of responses
  uint64_t received_bytes_ = 0;  // DATA since the last turn, for the metrics.
  uint64_t sent_bytes_ = 0;
  // Since the start of the abuse window.
  uint64_t window_start_ns_ = 0;
  uint64_t reset_count_ = 0;
  uint64_t completed_count_ = 0;
  uint64_t control_count_ = 0;
  uint64_t data_count_ = 0;
  uint32_t continuation_count_ = 0;
  bool is_draining_ = false;
  bool is_over_ = false;  // GOAWAY for abuse was queued: nothing more is read.
};

}  // namespace keyway::api_etcd
