// SPDX-License-Identifier: Apache-2.0
//
// Logger: structured log lines, one event name plus fields. The daemon writes them to stderr
// (kernel/daemon/stderr_logger.h); the simulator keeps them.
//
//   Log(logger, KW_LOG_INFO, "leader_elected", {{"term", term}, {"votes", votes}});
#pragma once

#include <charconv>
#include <concepts>
#include <initializer_list>
#include <source_location>
#include <span>
#include <string>
#include <string_view>

#include "keyway/host.h"

// The inline namespace keeps these names apart from the SDK's helpers (sdk/cpp), which a simulator or a
// static build links into the same program.
namespace keyway {
inline namespace host {

class Logger {
 public:
  virtual ~Logger() = default;

  // Whether a line of this level (KW_LOG_) is written at all. [any]
  virtual bool Enabled(uint32_t level) const = 0;
  // One line. `caller` says where it comes from: "core/node.cc:120", or a plugin's id. All arguments
  // are [call]. [any]
  virtual void Write(uint32_t level, std::string_view caller, std::string_view event,
                     std::span<const kw_field> fields) = 0;
};

// A field with its value as text.
struct LogField {
  LogField(const char* field_key, std::string_view text) : key(field_key), value(text) {}
  LogField(const char* field_key, const char* text) : key(field_key), value(text) {}
  LogField(const char* field_key, std::string text) : key(field_key), value(std::move(text)) {}
  LogField(const char* field_key, bool yes) : key(field_key), value(yes ? "true" : "false") {}
  LogField(const char* field_key, double number) : key(field_key), value(std::to_string(number)) {}
  template <std::integral T>
  requires(!std::same_as<T, bool>) LogField(const char* field_key, T number)
      : key(field_key), value(std::to_string(number)) {}

  const char* key;
  std::string value;
};

// An id as etcd prints it: hexadecimal.
inline std::string HexId(uint64_t id) {
  char text[17];
  auto end = std::to_chars(text, text + 16, id, 16).ptr;
  return std::string(text, end);
}

// Writes one line with the place of the call as its caller. Fields are bounded to 24.
void Log(Logger* logger, uint32_t level, const char* event, std::initializer_list<LogField> fields = {},
         std::source_location where = std::source_location::current());

// Drops everything.
class NullLogger : public Logger {
 public:
  bool Enabled(uint32_t) const override { return false; }
  void Write(uint32_t, std::string_view, std::string_view, std::span<const kw_field>) override {}
};

}  // namespace host
}  // namespace keyway
