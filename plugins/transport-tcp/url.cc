// SPDX-License-Identifier: Apache-2.0
//
// Parsing of member URLs; the forms are in url.h.
#include "url.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <charconv>
#include <cstddef>
#include <cstring>

namespace keyway::transport_tcp {
namespace {

bool Fail(std::string_view text, std::string_view why, std::string* error) {
  *error = "URL \"" + std::string(text.substr(0, 128)) + "\": " + std::string(why);
  return false;
}

}  // namespace

bool ParseUrl(std::string_view text, Url* out, std::string* error) {
  *out = Url{};
  out->text = std::string(text);
  const size_t colon = text.find("://");
  if (colon == std::string_view::npos) return Fail(text, "has no scheme (http://host:port)", error);
  const std::string_view scheme = text.substr(0, colon);
  std::string_view rest = text.substr(colon + 3);
  if (scheme == "unix") {
    if (rest.empty() || rest.size() >= sizeof(sockaddr_un::sun_path)) {
      return Fail(text, "the path is empty or longer than 107 bytes", error);
    }
    out->is_unix = true;
    out->host = std::string(rest);
    return true;
  }
  if (scheme != "http" && scheme != "tcp" && scheme != "https") {
    return Fail(text, "the scheme is not one of http, tcp, https, unix", error);
  }
  out->is_tls = scheme == "https";
  if (!rest.empty() && rest.back() == '/') rest.remove_suffix(1);
  const size_t port_at = rest.rfind(':');
  if (port_at == std::string_view::npos) return Fail(text, "has no port", error);
  std::string_view host = rest.substr(0, port_at);
  const std::string_view port = rest.substr(port_at + 1);
  const auto parsed = std::from_chars(port.data(), port.data() + port.size(), out->port);
  if (parsed.ec != std::errc() || parsed.ptr != port.data() + port.size() || out->port == 0) {
    return Fail(text, "the port is not a number in 1..65535", error);
  }
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find_first_of(":/@[]") != std::string_view::npos) {
    return Fail(text, "the host is not a name, an IPv4 address or an IPv6 address in brackets", error);
  }
  if (host.empty() || host.size() > 253) return Fail(text, "the host is empty or too long", error);
  out->host = std::string(host);
  return true;
}

std::string Address::ToString() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (storage.ss_family == AF_INET) {
    const auto* in = reinterpret_cast<const sockaddr_in*>(&storage);
    inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
    return std::string(text) + ":" + std::to_string(ntohs(in->sin_port));
  }
  if (storage.ss_family == AF_INET6) {
    const auto* in = reinterpret_cast<const sockaddr_in6*>(&storage);
    inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof(text));
    return "[" + std::string(text) + "]:" + std::to_string(ntohs(in->sin6_port));
  }
  if (storage.ss_family == AF_UNIX) {
    const auto* un = reinterpret_cast<const sockaddr_un*>(&storage);
    return size > offsetof(sockaddr_un, sun_path) ? "unix:" + std::string(un->sun_path) : "unix";
  }
  return "unknown";
}

bool NumericAddress(const Url& url, Address* out) {
  *out = Address{};
  if (url.is_unix) {
    auto* un = reinterpret_cast<sockaddr_un*>(&out->storage);
    un->sun_family = AF_UNIX;
    std::memcpy(un->sun_path, url.host.c_str(), url.host.size() + 1);
    out->size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + url.host.size() + 1);
    return true;
  }
  auto* in4 = reinterpret_cast<sockaddr_in*>(&out->storage);
  if (inet_pton(AF_INET, url.host.c_str(), &in4->sin_addr) == 1) {
    in4->sin_family = AF_INET;
    in4->sin_port = htons(url.port);
    out->size = sizeof(sockaddr_in);
    return true;
  }
  auto* in6 = reinterpret_cast<sockaddr_in6*>(&out->storage);
  if (inet_pton(AF_INET6, url.host.c_str(), &in6->sin6_addr) == 1) {
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(url.port);
    out->size = sizeof(sockaddr_in6);
    return true;
  }
  return false;
}

}  // namespace keyway::transport_tcp
