// SPDX-License-Identifier: Apache-2.0
//
// The HTTP/1.1 parser and writer.
#include "http1.h"

#include <ctime>

namespace keyway::api_etcd {
namespace {

bool IsTokenCharacter(char character) {
  if (character >= '0' && character <= '9') return true;
  const char lower = static_cast<char>(character | 0x20);
  if (lower >= 'a' && lower <= 'z') return true;
  return std::string_view("!#$%&'*+-.^_`|~").find(character) != std::string_view::npos;
}
bool IsToken(std::string_view text) {
  for (const char character : text) {
    if (!IsTokenCharacter(character)) return false;
  }
  return !text.empty();
}
bool EqualsIgnoringCase(std::string_view text, std::string_view lower) {
  if (text.size() != lower.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char character = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] | 0x20) : text[i];
    if (character != lower[i]) return false;
  }
  return true;
}
std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool ParseRequestLine(std::string_view line, Http1Request* out) {
  const size_t first = line.find(' ');
  if (first == std::string_view::npos) return false;
  const size_t second = line.find(' ', first + 1);
  if (second == std::string_view::npos) return false;
  out->method = line.substr(0, first);
  out->target = line.substr(first + 1, second - first - 1);
  const std::string_view version = line.substr(second + 1);
  if (!IsToken(out->method) || out->target.empty() || out->target[0] != '/') return false;
  for (const char character : out->target) {
    if (character <= 0x20 || character == 0x7f) return false;
  }
  if (version == "HTTP/1.0") {
    out->is_http10 = true;
    out->keeps_alive = false;
    return true;
  }
  return version == "HTTP/1.1";
}

bool ParseField(std::string_view line, Http1Request* out) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || !IsToken(line.substr(0, colon))) return false;
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = Trim(line.substr(colon + 1));
  for (const char character : value) {
    if (static_cast<uint8_t>(character) < 0x20 && character != '\t') return false;
  }
  if (EqualsIgnoringCase(name, "connection")) {
    if (EqualsIgnoringCase(value, "close")) out->keeps_alive = false;
    if (EqualsIgnoringCase(value, "keep-alive")) out->keeps_alive = true;
  } else if (EqualsIgnoringCase(name, "transfer-encoding")) {
    out->is_chunked = true;
  } else if (EqualsIgnoringCase(name, "content-length")) {
    if (value.empty() || value.size() > 18) return false;
    uint64_t bytes = 0;
    for (const char digit : value) {
      if (digit < '0' || digit > '9') return false;
      bytes = bytes * 10 + static_cast<uint64_t>(digit - '0');
    }
    out->content_bytes = bytes;
  }
  return true;
}

}  // namespace

ssize_t ParseHttp1Head(std::string_view text, Http1Request* out) {
  size_t at = 0;
  bool is_first = true;
  while (true) {
    const size_t end = text.find("\r\n", at);
    if (end == std::string_view::npos) {
      // A bare LF, or garbage that can never become a head, is refused at once.
      return text.find('\n', at) == std::string_view::npos ? 0 : -1;
    }
    const std::string_view line = text.substr(at, end - at);
    if (line.find('\n') != std::string_view::npos) return -1;
    at = end + 2;
    if (is_first) {
      if (!ParseRequestLine(line, out)) return -1;
      is_first = false;
      continue;
    }
    if (line.empty()) return static_cast<ssize_t>(at);
    if (!ParseField(line, out)) return -1;
  }
}

bool Http1::Receive(const uint8_t* bytes, size_t count) {
  if (is_closing_) return false;
  in_.Append(bytes, count);
  // While a request runs, the next ones wait here, within the same bound.
  if (query_ != nullptr) return in_.size() <= kHeadBytesMax;
  return Next();
}

bool Http1::Next() {
  while (query_ == nullptr && !in_.empty() && !is_closing_) {
    finished_.reset();
    Http1Request request;
    const std::string_view text = View(in_.slice());
    const ssize_t head_bytes = ParseHttp1Head(text, &request);
    if (head_bytes == 0 && text.size() <= kHeadBytesMax) return true;
    HttpResponse refusal;
    is_head_only_ = false;
    if (head_bytes <= 0 || static_cast<size_t>(head_bytes) > kHeadBytesMax) {
      keeps_alive_ = false;
      refusal.status = head_bytes < 0 ? 400 : 431;
      refusal.body = std::string(ReasonPhrase(refusal.status)) + "\n";
      Write(refusal);
      return false;
    }
    // No route takes a body: the answer is given and the connection ends with it.
    keeps_alive_ = request.keeps_alive && request.content_bytes == 0 && !request.is_chunked;
    is_head_only_ = request.method == "HEAD";
    query_ = std::make_unique<HttpQuery>(connection_->io(), this);
    connection_->SetDeadline(0);
    is_starting_ = true;
    query_->Start(request.method, request.target);
    is_starting_ = false;
    in_.Consume(static_cast<size_t>(head_bytes));
    if (finished_ != nullptr) finished_.reset();
  }
  return !is_closing_;
}

void Http1::Respond(HttpResponse response) {
  finished_ = std::move(query_);
  Write(response);
  connection_->io()->MarkDirty(connection_);
  if (!is_starting_ && !is_closing_) Next();
}

void Http1::Write(const HttpResponse& response) {
  char date[64];
  const auto now = static_cast<time_t>(connection_->io()->server().clock.WallNs() / 1'000'000'000);
  tm parts = {};
  gmtime_r(&now, &parts);
  strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  std::string head = "HTTP/1.1 " + std::to_string(response.status) + " ";
  head += ReasonPhrase(response.status);
  head += "\r\nContent-Type: ";
  head += response.content_type;
  head += "\r\nContent-Length: " + std::to_string(response.body.size()) + "\r\nDate: " + date;
  if (response.is_nosniff) head += "\r\nX-Content-Type-Options: nosniff";
  if (response.allows_get_only) head += "\r\nAllow: GET";
  if (!keeps_alive_) head += "\r\nConnection: close";
  head += "\r\n\r\n";
  connection_->out().Append(head);
  if (!is_head_only_) connection_->out().Append(response.body);
  if (!keeps_alive_) is_closing_ = true;
  connection_->SetDeadline(connection_->io()->now_ns() +
                           (is_closing_ ? kHttp1DeadlineNs : kIdleHttp1DeadlineNs));
}

}  // namespace keyway::api_etcd
