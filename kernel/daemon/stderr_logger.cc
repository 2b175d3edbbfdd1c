// SPDX-License-Identifier: Apache-2.0
#include "kernel/daemon/stderr_logger.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "kernel/base/bytes.h"

namespace keyway {
namespace {

constexpr const char* kUpperLevels[] = {"DEBUG", "INFO", "WARN", "ERROR"};
constexpr const char* kLowerLevels[] = {"debug", "info", "warn", "error"};

void AppendTime(uint64_t wall_ns, int digits, std::string* out) {
  const time_t seconds = static_cast<time_t>(wall_ns / 1'000'000'000);
  tm parts;
  gmtime_r(&seconds, &parts);
  char text[40];
  const size_t bytes = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  out->append(text, bytes);
  const auto below = static_cast<unsigned>(wall_ns % 1'000'000'000);
  std::snprintf(text, sizeof text, ".%09u", below);
  out->append(text, static_cast<size_t>(digits) + 1).append("Z");
}

// The length of the valid UTF-8 sequence at the front of `text`, 0 if there is none.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  const size_t length = lead < 0x80                   ? 1
                        : lead >= 0xc2 && lead < 0xe0 ? 2
                        : lead >= 0xe0 && lead < 0xf0 ? 3
                        : lead >= 0xf0 && lead < 0xf5 ? 4
                                                      : 0;
  if (length == 0 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, and beyond U+10FFFF.
  if (lead == 0xe0 && byte(1) < 0xa0) return 0;
  if (lead == 0xed && byte(1) >= 0xa0) return 0;
  if (lead == 0xf0 && byte(1) < 0x90) return 0;
  if (lead == 0xf4 && byte(1) >= 0x90) return 0;
  return length;
}

// A JSON string with its quotes; what is not UTF-8 becomes U+FFFD.
void AppendQuoted(std::string_view text, std::string* out) {
  out->push_back('"');
  while (!text.empty()) {
    const auto byte = static_cast<unsigned char>(text[0]);
    size_t taken = 1;
    if (byte == '"' || byte == '\\') {
      out->push_back('\\');
      out->push_back(text[0]);
    } else if (byte == '\n') {
      out->append("\\n");
    } else if (byte < 0x20 || byte == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(byte));
      out->append(escape);
    } else if (taken = Utf8Length(text); taken == 0) {
      out->append("\\ufffd");
      taken = 1;
    } else {
      out->append(text.substr(0, taken));
    }
    text.remove_prefix(taken);
  }
  out->push_back('"');
}

// Bare where a reader cannot misunderstand it.
void AppendConsoleValue(std::string_view text, std::string* out) {
  const bool is_bare = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return c > 0x20 && c < 0x7f && c != '"' && c != '\\' && c != '=';
  });
  if (is_bare) {
    out->append(text);
  } else {
    AppendQuoted(text, out);
  }
}

// An event is a name or a fixed text; control characters would break the line.
void AppendEvent(std::string_view event, std::string* out) {
  for (char c : event) out->push_back(static_cast<unsigned char>(c) < 0x20 ? ' ' : c);
}

}  // namespace

std::string FormatLine(LogFormat format, uint64_t wall_ns, uint32_t level, std::string_view caller,
                       std::string_view event, std::span<const kw_field> fields) {
  const uint32_t known = std::min<uint32_t>(level, KW_LOG_ERROR);
  std::string line;
  line.reserve(256);
  if (format == LogFormat::kConsole) {
    AppendTime(wall_ns, 3, &line);
    line.append(" ").append(kUpperLevels[known]).append(" ");
    AppendEvent(event, &line);
    for (const kw_field& field : fields) {
      line.append(" ").append(field.key).append("=");
      AppendConsoleValue(ToView(field.value), &line);
    }
    line.append(" caller=");
    AppendConsoleValue(caller, &line);
    return line;
  }
  line.append("{\"level\":\"").append(kLowerLevels[known]).append("\",\"ts\":\"");
  AppendTime(wall_ns, 6, &line);
  line.append("\",\"caller\":");
  AppendQuoted(caller, &line);
  line.append(",\"msg\":");
  AppendQuoted(event, &line);
  for (const kw_field& field : fields) {
    line.push_back(',');
    AppendQuoted(field.key, &line);
    line.push_back(':');
    AppendQuoted(ToView(field.value), &line);
  }
  return line.append("}");
}

void StderrLogger::Write(uint32_t level, std::string_view caller, std::string_view event,
                         std::span<const kw_field> fields) {
  if (!Enabled(level)) return;
  std::string line = FormatLine(format_, clock_->WallNs(), level, caller, event, fields);
  if (line.size() > kLineBytesMax) {
    line.resize(kLineBytesMax);
    if (format_ == LogFormat::kJson) {
      // A cut object is no JSON; what matters most is kept.
      line = FormatLine(format_, clock_->WallNs(), level, caller.substr(0, 256), event.substr(0, 1024), {});
    }
  }
  line.push_back('\n');
  std::lock_guard lock(mutex_);
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t written = write(fd_, rest.data(), rest.size());
    if (written > 0) {
      rest.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EAGAIN) {
      pollfd ready = {fd_, POLLOUT, 0};
      if (poll(&ready, 1, 100) <= 0) return;  // A reader that does not read costs lines, not the node.
    } else if (errno != EINTR) {
      return;
    }
  }
}

}  // namespace keyway
