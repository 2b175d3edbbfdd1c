// SPDX-License-Identifier: Apache-2.0
//
// HTTP/1.1 for probes and scrapers: a strict, small parser; one request at a time, keep-alive, no
// bodies.
#pragma once

#include <memory>
#include <string>

#include "connection.h"
#include "http_routes.h"

namespace keyway::api_etcd {

struct Http1Request {
  std::string_view method;
  std::string_view target;
  bool is_http10 = false;
  bool keeps_alive = true;
  uint64_t content_bytes = 0;
  bool is_chunked = false;
};

// Parses one request head. Returns its bytes including the empty line; 0: more is needed; -1:
// malformed or too large. The views point into `text`.
ssize_t ParseHttp1Head(std::string_view text, Http1Request* out);

class Http1 final : public Protocol, public HttpExchange {
 public:
  explicit Http1(Connection* connection) : connection_(connection) {}

  bool Receive(const uint8_t* bytes, size_t count) override;
  void Produce() override {}
  void Drain() override { is_closing_ = true; }
  bool IsFinished() const override { return is_closing_ && query_ == nullptr; }
  void Respond(HttpResponse response) override;

 private:
  static constexpr size_t kHeadBytesMax = 16 << 10;

  bool Next();
  void Write(const HttpResponse& response);

  Connection* const connection_;
  Buffer in_;
  std::unique_ptr<HttpQuery> query_;
  std::unique_ptr<HttpQuery> finished_;  // Destroyed once it is off the stack.
  bool is_starting_ = false;
  bool is_head_only_ = false;
  bool keeps_alive_ = true;
  bool is_closing_ = false;
};

}  // namespace keyway::api_etcd
