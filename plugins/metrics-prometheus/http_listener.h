// SPDX-License-Identifier: Apache-2.0
//
// A listener for GET /metrics over HTTP/1.1 without TLS: one thread, one request a connection.
//
// Bounds: 32 connections (the next one is closed at once), 8 KiB of request, 5 s to send it, 10 s to
// take the answer.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace keyway::metrics_prometheus {

class HttpListener {
 public:
  static constexpr size_t kConnectionsMax = 32;
  static constexpr size_t kRequestBytesMax = 8192;
  static constexpr uint64_t kRequestTimeoutNs = 5'000'000'000;
  static constexpr uint64_t kAnswerTimeoutNs = 10'000'000'000;

  using Clock = std::function<uint64_t()>;
  // The body of /metrics; called on the listener's thread.
  using Body = std::function<std::string()>;

  HttpListener(Clock clock, Body body) : clock_(std::move(clock)), body_(std::move(body)) {}
  ~HttpListener() { Stop(); }

  // Binds all URLs (http://host:port) and starts the thread. False: nothing is left open and `*error`
  // names the address; `*is_invalid` tells a malformed URL from one that cannot be bound.
  bool Start(const std::vector<std::string>& urls, bool* is_invalid, std::string* error);
  void Stop();

 private:
  struct Connection {
    int fd = -1;
    uint64_t deadline_ns = 0;
    std::string request;
    std::string answer;
    size_t answer_sent = 0;
    bool is_done = false;
  };

  bool Bind(const std::string& url, bool* is_invalid, std::string* error);
  void ThreadMain();
  void Accept(int listener);
  void Read(Connection* connection);
  void Write(Connection* connection);
  std::string Answer(const std::string& request) const;

  const Clock clock_;
  const Body body_;
  std::vector<int> listeners_;
  int wake_fd_ = -1;
  std::thread thread_;
  std::vector<Connection> connections_;  // Of the thread.
};

}  // namespace keyway::metrics_prometheus
