// SPDX-License-Identifier: Apache-2.0
//
// A plugin instance over the toy kernel, and a raw HTTP/2 client on nghttp2 to talk to it.
#pragma once

#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "etcd/rpc.pb.h"
#include "fake_kernel.h"

namespace keyway::api_etcd::testing {

// A gRPC message with its prefix.
std::string Frame(const std::string& message, bool is_compressed = false);
// The messages of a response body; a broken one fails the test.
std::vector<std::string> Unframe(const std::string& body);

using ApiOptions = std::vector<std::pair<std::string, std::string>>;

// One plugin, listening on a free port of 127.0.0.1 (or at `listen`).
class Api {
 public:
  explicit Api(ApiOptions options = {});
  ~Api();

  // KW_OK, or the error of create() or start() in `error`.
  int32_t Start(kw_error* error);
  void Stop();
  FakeKernel& kernel() { return kernel_; }
  int port() const { return port_; }

 private:
  ApiOptions options_;
  FakeKernel kernel_;
  kw_plugin* plugin_ = nullptr;
  int port_ = 0;
};

int FreePort();
// A blocking TCP connection with a receive timeout; -1 if refused.
int Connect(int port);
// Everything until the end of the stream, or until `done` says so.
std::string ReadAll(int fd, const std::function<bool(const std::string&)>& done = nullptr);
// One HTTP/1.1 exchange on a new connection.
std::string Http1(int port, const std::string& request);

using Headers = std::vector<std::pair<std::string, std::string>>;

class Client {
 public:
  struct Reply {
    std::map<std::string, std::string> headers;  // with the trailers
    std::string body;
    bool is_closed = false;
    uint32_t error_code = 0;
    size_t message_count() const { return Unframe(body).size(); }
  };

  // initial_window: 0 is the protocol's default. auto_window: false leaves the windows shut.
  explicit Client(int port, uint32_t initial_window = 0, bool auto_window = true);
  ~Client();

  int32_t Open(const std::string& path, const Headers& extra, const std::string& body, bool is_end,
               const std::string& content_type = "application/grpc", const std::string& method = "POST");
  void Send(int32_t stream_id, const std::string& bytes, bool is_end);
  void Reset(int32_t stream_id, uint32_t error_code = NGHTTP2_CANCEL);
  // Reads and writes until the condition holds; false after ten seconds or the connection's end.
  bool Until(const std::function<bool()>& condition);
  Reply& reply(int32_t stream_id) { return replies_[stream_id]; }
  nghttp2_session* raw() { return session_; }
  int fd() const { return fd_; }
  void Flush();
  bool is_dead() const { return is_dead_; }
  bool has_goaway() const { return has_goaway_; }
  uint32_t goaway_code() const { return goaway_code_; }
  size_t ping_acks() const { return ping_acks_; }

  // A whole unary call. Returns the grpc-status, -1 without one.
  template <typename Request, typename Response>
  int Unary(const std::string& path, const Request& request, Response* response, const Headers& extra = {}) {
    const int32_t id = Open(path, extra, Frame(request.SerializeAsString()), true);
    if (!Until([&] { return reply(id).is_closed; })) return -1;
    last_message = reply(id).headers["grpc-message"];
    const std::vector<std::string> messages = Unframe(reply(id).body);
    if (!messages.empty() && response != nullptr) {
      EXPECT_TRUE(response->ParseFromString(messages[0]));
    }
    return StatusOf(id);
  }
  int StatusOf(int32_t stream_id);

  std::string last_message;  // of the newest Unary()

 private:
  struct Pending {
    std::string bytes;
    bool is_end = false;
    bool is_deferred = false;
  };
  static ssize_t ReadPending(nghttp2_session*, int32_t stream_id, uint8_t* out, size_t count, uint32_t* flags,
                             nghttp2_data_source*, void* user);

  int fd_ = -1;
  nghttp2_session* session_ = nullptr;
  std::map<int32_t, Reply> replies_;
  std::map<int32_t, Pending> pending_;
  bool is_dead_ = false;
  bool has_goaway_ = false;
  uint32_t goaway_code_ = 0;
  size_t ping_acks_ = 0;
};

// A Watch stream: sends requests, collects responses in order.
class WatchClient {
 public:
  explicit WatchClient(Client* client, const Headers& extra = {});
  void Create(const std::function<void(etcdserverpb::WatchCreateRequest*)>& fill);
  void Cancel(int64_t id);
  void Progress();
  // The response of this index, waited for; fails the test if it does not come.
  etcdserverpb::WatchResponse At(size_t index);
  size_t count();
  int32_t stream_id() const { return id_; }

 private:
  Client* const client_;
  int32_t id_ = 0;
};

int PutKey(Client* client, const std::string& key, const std::string& value,
           etcdserverpb::PutResponse* response = nullptr);

}  // namespace keyway::api_etcd::testing
