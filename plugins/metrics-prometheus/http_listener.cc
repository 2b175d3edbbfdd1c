// SPDX-License-Identifier: Apache-2.0
#include "http_listener.h"

#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "render.h"

namespace keyway::metrics_prometheus {
namespace {

std::string Response(std::string_view status, std::string_view type, std::string_view body, bool with_body) {
  std::string out = "HTTP/1.1 ";
  out.append(status).append("\r\nContent-Type: ").append(type).append("\r\nContent-Length: ");
  out.append(std::to_string(body.size())).append("\r\nConnection: close\r\n\r\n");
  if (with_body) out.append(body);
  return out;
}

std::string Problem(std::string_view status) {
  return Response(status, "text/plain; charset=utf-8", std::string(status) + "\n", true);
}

}  // namespace

bool HttpListener::Start(const std::vector<std::string>& urls, bool* is_invalid, std::string* error) {
  *is_invalid = false;
  wake_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  bool ok = wake_fd_ >= 0;
  if (!ok) *error = "out of file descriptors";
  for (size_t i = 0; ok && i < urls.size(); ++i) ok = Bind(urls[i], is_invalid, error);
  if (!ok) {
    Stop();
    return false;
  }
  thread_ = std::thread([this] { ThreadMain(); });
  return true;
}

void HttpListener::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
    thread_.join();
  }
  for (const int fd : listeners_) close(fd);
  listeners_.clear();
  if (wake_fd_ >= 0) close(wake_fd_);
  wake_fd_ = -1;
}

bool HttpListener::Bind(const std::string& url, bool* is_invalid, std::string* error) {
  constexpr std::string_view kScheme = "http://";
  const size_t colon = url.rfind(':');
  std::string host, port;
  if (url.rfind(kScheme, 0) == 0 && colon != std::string::npos && colon > kScheme.size()) {
    host = url.substr(kScheme.size(), colon - kScheme.size());
    port = url.substr(colon + 1);
    if (!port.empty() && port.back() == '/') port.pop_back();
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  }
  if (host.empty() || port.empty() || port.size() > 5 ||
      port.find_first_not_of("0123456789") != std::string::npos || std::stoi(port) > 65535 ||
      std::stoi(port) == 0) {
    *is_invalid = true;
    *error = "listen: \"" + url + "\" is not of the form http://host:port";
    return false;
  }
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int result = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (result != 0) {
    *error = "listen: " + url + ": " + gai_strerror(result);
    return false;
  }
  size_t opened = 0;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    const int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, at->ai_addr, at->ai_addrlen) < 0 || listen(fd, 32) < 0) {
      char text[128];
      *error = "listen: " + url + ": " + strerror_r(errno, text, sizeof(text));
      if (fd >= 0) close(fd);
      continue;
    }
    listeners_.push_back(fd);
    ++opened;
  }
  freeaddrinfo(found);
  return opened > 0;
}

void HttpListener::ThreadMain() {
  pthread_setname_np(pthread_self(), "kw-metrics");
  while (true) {
    std::vector<pollfd> polled = {{wake_fd_, POLLIN, 0}};
    for (const int fd : listeners_) polled.push_back({fd, POLLIN, 0});
    const uint64_t now = clock_();
    int timeout_ms = -1;
    for (const Connection& connection : connections_) {
      polled.push_back({connection.fd, static_cast<short>(connection.answer.empty() ? POLLIN : POLLOUT), 0});
      const uint64_t left_ns = connection.deadline_ns > now ? connection.deadline_ns - now : 0;
      const int left_ms = static_cast<int>(left_ns / 1'000'000 + 1);
      timeout_ms = timeout_ms < 0 ? left_ms : std::min(timeout_ms, left_ms);
    }
    poll(polled.data(), polled.size(), timeout_ms);
    if (polled[0].revents != 0) break;
    const size_t first = 1 + listeners_.size();
    for (size_t i = 0; i < connections_.size(); ++i) {
      Connection& connection = connections_[i];
      if (polled[first + i].revents != 0) {
        if (connection.answer.empty()) {
          Read(&connection);
        } else {
          Write(&connection);
        }
      }
      if (clock_() >= connection.deadline_ns) connection.is_done = true;
    }
    for (size_t i = 0; i < listeners_.size(); ++i) {
      if (polled[1 + i].revents != 0) Accept(listeners_[i]);
    }
    std::erase_if(connections_, [](const Connection& connection) {
      if (connection.is_done) close(connection.fd);
      return connection.is_done;
    });
  }
  for (const Connection& connection : connections_) close(connection.fd);
  connections_.clear();
}

void HttpListener::Accept(int listener) {
  const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    // Out of descriptors, the listener stays readable: a short sleep instead of a spin.
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) usleep(10'000);
    return;
  }
  if (connections_.size() >= kConnectionsMax) {
    close(fd);
    return;
  }
  Connection connection;
  connection.fd = fd;
  connection.deadline_ns = clock_() + kRequestTimeoutNs;
  connections_.push_back(std::move(connection));
}

void HttpListener::Read(Connection* connection) {
  char bytes[2048];
  const ssize_t got = recv(connection->fd, bytes, sizeof(bytes), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    connection->is_done = true;
    return;
  }
  connection->request.append(bytes, static_cast<size_t>(got));
  if (connection->request.find("\r\n\r\n") != std::string::npos) {
    connection->answer = Answer(connection->request);
  } else if (connection->request.size() > kRequestBytesMax) {
    connection->answer = Problem("431 Request Header Fields Too Large");
  } else {
    return;
  }
  connection->deadline_ns = clock_() + kAnswerTimeoutNs;
  Write(connection);
}

void HttpListener::Write(Connection* connection) {
  const ssize_t sent = send(connection->fd, connection->answer.data() + connection->answer_sent,
                            connection->answer.size() - connection->answer_sent, MSG_NOSIGNAL);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (sent > 0) connection->answer_sent += static_cast<size_t>(sent);
  connection->is_done = sent < 0 || connection->answer_sent == connection->answer.size();
}

std::string HttpListener::Answer(const std::string& request) const {
  const std::string_view line = std::string_view(request).substr(0, request.find("\r\n"));
  const size_t method_end = line.find(' ');
  const size_t target_end =
      method_end == std::string_view::npos ? method_end : line.find(' ', method_end + 1);
  if (target_end == std::string_view::npos || line.substr(target_end + 1).substr(0, 7) != "HTTP/1.") {
    return Problem("400 Bad Request");
  }
  const std::string_view method = line.substr(0, method_end);
  std::string_view target = line.substr(method_end + 1, target_end - method_end - 1);
  target = target.substr(0, target.find('?'));
  if (method != "GET" && method != "HEAD") return Problem("405 Method Not Allowed");
  if (target != "/metrics") return Problem("404 Not Found");
  return Response("200 OK", kContentType, body_(), method == "GET");
}

}  // namespace keyway::metrics_prometheus
