// SPDX-License-Identifier: Apache-2.0
// One HTTP/2 client connection that carries gRPC calls, on nghttp2 and a non-blocking socket.
//
// Everything here runs on the one thread of the load generator. A Call is owned by the caller and
// must live until OnClose was called for it.
#ifndef KEYWAY_TESTS_BENCH_LOADGEN_CONNECTION_H_
#define KEYWAY_TESTS_BENCH_LOADGEN_CONNECTION_H_

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace keyway::loadgen {

uint64_t NowNs();  // CLOCK_MONOTONIC.

class Connection;

// One gRPC call: the request as framed bytes, and what came back.
struct Call {
  // Set by the caller.
  std::string request;     // gRPC frames to send; Connection::Send appends to it.
  bool half_close = true;  // END_STREAM after the request; false for a stream that sends more.
  bool keep_body = false;  // Collect the whole reply in `body` instead of only its head.
  uint32_t slot = 0;       // The caller's own number for this call.
  uint64_t key = 0;        // The caller's own note.
  int64_t floor_revision = 0;

  // Set by the connection.
  Connection* connection = nullptr;
  int32_t stream_id = 0;
  size_t sent = 0;
  bool deferred = false;
  bool open = false;
  int grpc_status = -1;  // -1: none came.
  int http_status = 0;
  uint64_t start_ns = 0;
  size_t reply_bytes = 0;  // With the five bytes of the framing.
  std::array<char, 64> head;
  std::string body;
  std::string message;  // grpc-message.
};

class Events {
 public:
  virtual ~Events() = default;
  virtual void OnConnected(Connection* connection) = 0;
  virtual void OnBody(Call* call) = 0;  // Only for calls that keep the body; may consume call->body.
  // The stream is over. `lost`: the connection or the stream broke before a status came.
  virtual void OnClose(Call* call, bool lost) = 0;
  // The connection is gone; every call on it was closed before.
  virtual void OnLost(Connection* connection, const std::string& why) = 0;
};

class Connection {
 public:
  Connection(int epoll, std::string endpoint, uint32_t number, Events* events);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // All connections that are made from now on speak TLS. Ends the program if a file is of no use.
  static void UseTls(const std::string& ca_file, const std::string& certificate_file,
                     const std::string& key_file);

  void Connect();  // Starts a connect; OnConnected or OnLost follows.
  void Start(Call* call, std::string_view path);
  void Send(Call* call, std::string_view message);  // One more message on an open stream.
  void Reset(Call* call);                           // RST_STREAM with CANCEL; OnClose(lost) follows.
  void OnReady(uint32_t epoll_events);              // What epoll said.
  void Flush();                                     // Writes all that nghttp2 has to send.

  bool connected() const { return connected_; }
  bool idle() const { return fd_ < 0; }
  uint32_t number() const { return number_; }
  const std::string& endpoint() const { return endpoint_; }

 private:
  static int OnHeader(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t, const uint8_t*, size_t,
                      uint8_t, void*);
  static int OnData(nghttp2_session*, uint8_t, int32_t, const uint8_t*, size_t, void*);
  static int OnStreamClose(nghttp2_session*, int32_t, uint32_t, void*);
  static ssize_t ReadBody(nghttp2_session*, int32_t, uint8_t*, size_t, uint32_t*, nghttp2_data_source*,
                          void*);
  void Lose(const std::string& why);
  void OnEstablished();
  // Bytes, 0 at the end, or -1 with errno; EPROTO for TLS, whose text is in tls_error_.
  ssize_t Read(uint8_t* bytes, size_t size);
  ssize_t Write(const char* bytes, size_t size);
  ssize_t TlsResult(int result);
  std::string ErrorText() const;
  void Interest(uint32_t events);

  const int epoll_;
  const std::string endpoint_;
  const uint32_t number_;
  Events* const events_;
  int fd_ = -1;
  bool connected_ = false;
  bool in_receive_ = false;
  SSL* ssl_ = nullptr;
  std::string tls_error_;
  uint32_t interest_ = 0;
  nghttp2_session* session_ = nullptr;
  std::vector<Call*> calls_;  // Open calls, for Lose().
  std::string output_;        // Bytes the socket did not take yet.
  size_t output_start_ = 0;
};

}  // namespace keyway::loadgen

#endif  // KEYWAY_TESTS_BENCH_LOADGEN_CONNECTION_H_
