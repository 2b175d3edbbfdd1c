// SPDX-License-Identifier: Apache-2.0
//
// Binding, and the reading of greetings.
#include "server.h"

#include <arpa/inet.h>
#include <grpc/grpc_security.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "io.h"

namespace keyway::transport_grpc {
namespace {

constexpr size_t kArrivals = 8;
constexpr int kIdleConnectionMs = 60'000;

std::string_view ViewOf(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

std::string ErrnoText(int code) {
  char text[128];
  return strerror_r(code, text, sizeof(text));
}

// Why `address` cannot be bound; gRPC only says that it cannot.
std::string WhyUnbound(const addrinfo& address) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return ErrnoText(errno);
  const int yes = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  const bool ok = bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, 1) == 0;
  const int code = errno;
  close(fd);
  return ok ? "gRPC cannot listen there" : ErrnoText(code);
}

// A socket file that nobody listens on is left of a crash, and gRPC replaces it.
bool IsUnixSocketTaken(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool taken = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  close(fd);
  return taken;
}

grpc_arg Number(const char* key, int value) {
  grpc_arg arg = {};
  arg.type = GRPC_ARG_INTEGER;
  arg.key = const_cast<char*>(key);
  arg.value.integer = value;
  return arg;
}

grpc_server* NewServer(Io* io) {
  std::vector<grpc_arg> args = io->CommonArguments();
  args.push_back(Number(GRPC_ARG_ALLOW_REUSEPORT, 0));
  args.push_back(Number(GRPC_ARG_MAX_CONCURRENT_STREAMS, 8));
  args.push_back(
      Number(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, static_cast<int>(kGreetingTimeoutNs / 1'000'000)));
  args.push_back(Number(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kIdleConnectionMs));
  args.push_back(Number(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 50));
  args.push_back(Number(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0));
  const grpc_channel_args list = {args.size(), args.data()};
  return grpc_server_create(&list, nullptr);
}

}  // namespace

Server::Server(Io* io) : io_(io), server_(NewServer(io)) {
  grpc_server_register_completion_queue(server_, io_->queue(), nullptr);
}

Server::~Server() { grpc_server_destroy(server_); }

bool Server::AddPort(const std::string& address, bool is_tls, std::string* error) {
  grpc_server_credentials* credentials =
      is_tls ? io_->tls_server().NewServerCredentials() : grpc_insecure_server_credentials_create();
  const int port = grpc_server_add_http2_port(server_, address.c_str(), credentials);
  grpc_server_credentials_release(credentials);
  if (port == 0) *error = "gRPC cannot listen there";
  return port != 0;
}

bool Server::Listen(const Url& url, std::string* error) {
  if (url.is_tls && io_->tls_server().Refresh(error) == nullptr) return false;
  if (url.is_unix) {
    if (IsUnixSocketTaken(url.host)) {
      *error = "address already in use";
      return false;
    }
    return AddPort(url.ListenAddress(), false, error);
  }
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | (url.IsNumeric() ? AI_NUMERICHOST : 0);
  addrinfo* found = nullptr;
  const int result = getaddrinfo(url.host.c_str(), std::to_string(url.port).c_str(), &hints, &found);
  if (result != 0) {
    *error = "name \"" + url.host + "\": " + gai_strerror(result);
    return false;
  }
  size_t opened = 0;
  bool ok = true;
  for (const addrinfo* at = found; ok && at != nullptr; at = at->ai_next) {
    char host[INET6_ADDRSTRLEN] = "";
    getnameinfo(at->ai_addr, at->ai_addrlen, host, sizeof(host), nullptr, 0, NI_NUMERICHOST);
    const std::string address =
        (at->ai_family == AF_INET6 ? "[" + std::string(host) + "]" : std::string(host)) + ":" +
        std::to_string(url.port);
    // Asked before gRPC, which says no reason and takes the other family where one is taken.
    const std::string why = WhyUnbound(*at);
    if (why == "gRPC cannot listen there" && AddPort(address, url.is_tls, error)) {
      ++opened;
      continue;
    }
    *error = address + ": " + why;
    // A name may have an IPv6 address on a machine without IPv6; one address is enough then.
    ok = at->ai_family == AF_INET6 && found->ai_next != nullptr;
  }
  freeaddrinfo(found);
  return ok && opened > 0;
}

void Server::Run() {
  grpc_server_start(server_);
  is_running_ = true;
  for (size_t i = 0; i < kArrivals; ++i) {
    arrivals_.push_back(std::make_unique<Arrival>(io_, this));
    arrivals_.back()->Wait();
  }
}

void Server::ShutDown() {
  is_shut_down_ = true;
  grpc_server_shutdown_and_notify(server_, io_->queue(), &is_down_);
  grpc_server_cancel_all_calls(server_);
}

Server::Arrival::Arrival(Io* io, Server* server) : io_(io), server_(server) {
  grpc_call_details_init(&details_);
  grpc_metadata_array_init(&metadata_);
}

Server::Arrival::~Arrival() {
  grpc_call_details_destroy(&details_);
  grpc_metadata_array_destroy(&metadata_);
}

void Server::Arrival::Wait() {
  ++server_->waiting_;
  grpc_server_request_call(server_->server_, &call_, &details_, &metadata_, io_->queue(), io_->queue(), this);
}

Hello Server::Arrival::ReadHello() const {
  Hello hello;
  const std::string_view path = ViewOf(details_.method);
  while (hello.lane < std::size(kPaths) && path != kPaths[hello.lane]) ++hello.lane;
  for (size_t i = 0; i < metadata_.count; ++i) {
    const std::string_view key = ViewOf(metadata_.metadata[i].key);
    const std::string_view value = ViewOf(metadata_.metadata[i].value);
    if (key == "kw-version") {
      hello.has_version =
          std::from_chars(value.data(), value.data() + value.size(), hello.version).ec == std::errc();
    } else if (key == "kw-token-bin") {
      hello.token = value.substr(0, kTokenBytesMax);
    } else if (key == "kw-sender") {
      if (!ParseHex(value, &hello.sender)) hello.sender = 0;
    } else if (key == "kw-target") {
      if (!ParseHex(value, &hello.target)) hello.target = 0;
    } else if (key == "kw-session") {
      if (!ParseHex(value, &hello.session)) hello.session = 0;
    }
  }
  return hello;
}

void Server::Arrival::Complete(bool ok) {
  --server_->waiting_;
  if (!ok) return;  // The server shuts down.
  const Hello hello = ReadHello();
  auto* stream = new Stream(std::exchange(call_, nullptr), hello.lane, nullptr, io_->stream_count());
  stream->Accept();
  grpc_call_details_destroy(&details_);
  grpc_metadata_array_destroy(&metadata_);
  grpc_call_details_init(&details_);
  grpc_metadata_array_init(&metadata_);
  if (server_->is_shut_down_) return stream->Release();
  Wait();
  io_->OnCall(stream, hello);
}

}  // namespace keyway::transport_grpc
