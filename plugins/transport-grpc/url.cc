// SPDX-License-Identifier: Apache-2.0
//
// Parsing of member URLs; the forms are in url.h.
#include "url.h"

#include <arpa/inet.h>
#include <sys/un.h>

#include <charconv>

namespace keyway::transport_grpc {
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
    if (rest.empty() || rest.front() != '/' || rest.size() >= sizeof(sockaddr_un::sun_path)) {
      return Fail(text, "the path is not absolute, or longer than 107 bytes", error);
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
  } else if (host.find_first_of(":/@[]%") != std::string_view::npos) {
    return Fail(text, "the host is not a name, an IPv4 address or an IPv6 address in brackets", error);
  }
  if (host.empty() || host.size() > 253) return Fail(text, "the host is empty or too long", error);
  out->host = std::string(host);
  return true;
}

bool Url::IsNumeric() const {
  char scratch[sizeof(in6_addr)];
  return inet_pton(AF_INET, host.c_str(), scratch) == 1 || inet_pton(AF_INET6, host.c_str(), scratch) == 1;
}

std::string Url::ListenAddress() const {
  if (is_unix) return "unix:" + host;
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return (is_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string Url::Target() const {
  if (is_unix) return "unix:" + host;
  if (!IsNumeric()) return "dns:///" + ListenAddress();
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return (is_ipv6 ? "ipv6:" : "ipv4:") + ListenAddress();
}

std::string PlainAddress(std::string_view grpc_address) {
  std::string out;
  for (size_t i = 0; i < grpc_address.size(); ++i) {
    unsigned value = 0;
    if (grpc_address[i] == '%' && i + 2 < grpc_address.size() &&
        std::from_chars(&grpc_address[i + 1], &grpc_address[i + 1] + 2, value, 16).ec == std::errc()) {
      out.push_back(static_cast<char>(value));
      i += 2;
    } else {
      out.push_back(grpc_address[i]);
    }
  }
  if (out.starts_with("ipv4:") || out.starts_with("ipv6:")) out.erase(0, 5);
  return out;
}

}  // namespace keyway::transport_grpc
