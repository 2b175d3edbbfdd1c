// SPDX-License-Identifier: Apache-2.0
//
// One request on an HTTP/2 connection: gRPC framing, compression, deadlines and status, or a plain
// HTTP exchange.
#pragma once

#include <memory>
#include <string>

#include "body.h"
#include "call.h"
#include "http_routes.h"
#include "timer_wheel.h"

namespace keyway::api_etcd {

class Http2Session;
class Stream;

// The server's side of a streaming RPC. Destroyed with its stream.
class StreamHandler {
 public:
  virtual ~StreamHandler() = default;
  // A whole message, valid during the call.
  virtual void OnMessage(kw_slice message) = 0;
  // The client will send nothing more.
  virtual void OnHalfClose() = 0;
  // Bytes of the stream's body were handed to the connection.
  virtual void OnConsumed() {}
  // False: messages wait in the stream's window until Stream::Resume().
  virtual bool WantsMessages() const { return true; }
  // The stream is over: gives back what it holds in the kernel. Nothing is called afterwards.
  virtual void Stop() = 0;
};

class Stream final : public CallOwner, public HttpExchange {
 public:
  Stream(Http2Session* session, int32_t id);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // ---- the client's side, from the session -----------------------------------------------------
  void OnHeader(std::string_view name, std::string_view value);
  void OnHeadersEnd();
  void OnData(const uint8_t* bytes, size_t count);
  void OnEnd();
  void OnReset();  // closed before it was answered
  void Drain();    // the plugin stops

  // ---- the server's side -------------------------------------------------------------------------
  // Room for one message of exactly `bytes` bytes; EndMessage() follows when it is filled.
  uint8_t* BeginMessage(size_t bytes);
  void EndMessage();
  // As BeginMessage(), but the message's pieces are appended to body(). Only without compression.
  void BeginPieces(size_t bytes);
  bool is_compressing() const { return request_encoding_ == Encoding::kGzip; }
  Body& body() { return body_; }
  // Lets what was written so far go out.
  void Send();
  // Ends the RPC with the status in the trailers.
  void Finish(const Status& status);
  // Ends a request that is no RPC: `http_status`, of static storage, tells so beside the gRPC status.
  void Refuse(std::string_view http_status, const Status& status);
  void FinishOk() { Finish(Status{}); }
  // Reads the messages that waited.
  void Resume();

  void OnCallDone(Call* call) override;
  void Respond(HttpResponse response) override;

  IoThread* io();
  Http2Session* session() { return session_; }
  const Method* method() const { return method_; }
  uint64_t deadline_ns() const { return deadline_ns_; }
  bool has_leader_wanted() const { return wants_leader_; }
  bool is_finished() const { return is_finished_; }
  kw_slice principal();

  // ---- for the session's data provider -----------------------------------------------------------
  bool is_half_closed = false;
  Stream* next = nullptr;
  Stream* previous = nullptr;
  int32_t id() const { return id_; }
  ssize_t ReadBody(size_t count, uint32_t* flags);
  void CopyBody(uint8_t* out, size_t count);

 private:
  enum class Encoding : uint8_t { kIdentity, kGzip, kOther };
  struct StreamTimer : TimerWheel::Timer {
    Stream* stream = nullptr;
  };

  void StartGrpc();
  void StartHttp();
  bool CheckStart();
  void StartHandler();
  void SetTimers();
  void OnDeadline();
  void OnLeaderTick();
  void ProcessMessages();
  // 1: a whole message is in `message` (and consumes `frame_bytes` of the input); 0: not yet; -1: the
  // stream was ended with an error.
  int NextMessage(kw_slice* message, size_t* frame_bytes);
  void StartUnary();
  void Orphan();
  void CountUnsent();
  void SubmitHead();
  void SubmitTrailersOnly();
  void SubmitTrailers();

  Http2Session* const session_;
  const int32_t id_;
  const Method* method_ = nullptr;
  std::string path_;  // only if it is not a method's
  std::string http_method_;
  std::string encoding_name_;  // only if it is an unknown one
  std::string content_type_;   // only if it is not gRPC's
  size_t header_bytes_ = 0;
  uint64_t timeout_ns_ = 0;
  uint64_t deadline_ns_ = 0;
  Encoding request_encoding_ = Encoding::kIdentity;
  bool is_grpc_ = false;
  bool is_post_ = false;
  bool wants_leader_ = false;
  bool is_started_ = false;  // counted in the metrics
  bool is_head_submitted_ = false;
  bool is_deferred_ = false;  // nghttp2 waits for us
  bool is_finished_ = false;  // the status is known
  bool is_http_ = false;
  bool is_processing_ = false;
  uint8_t* open_message_ = nullptr;
  size_t open_message_bytes_ = 0;

  Buffer in_;
  size_t counted_unsent_bytes_ = 0;  // of the body, as the session knows it
  size_t unconsumed_bytes_ = 0;      // of the stream's receive window, held back
  Buffer inflated_;
  Body body_;
  Buffer scratch_;
  Status status_;
  std::string encoded_text_;
  std::string_view refused_status_;
  Call* maybe_call_ = nullptr;
  std::unique_ptr<StreamHandler> handler_;
  std::unique_ptr<HttpQuery> query_;
  StreamTimer deadline_timer_;
  StreamTimer leader_timer_;
};

}  // namespace keyway::api_etcd
