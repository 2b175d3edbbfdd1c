// SPDX-License-Identifier: Apache-2.0
//
// Log lines through keyway.log/1: one event name and fields, never values of keys.
//
//   Logger log(host);
//   log.Info("segment_created", {{"file", path}, {"bytes", 67108864}});
#pragma once

#include <initializer_list>
#include <string_view>
#include <type_traits>

#include "keyway/error.hpp"
#include "keyway/host.h"
#include "keyway/slice.hpp"

namespace keyway {

// The table of a host service, or NULL if the host has none or did not grant it.
template <typename Table>
const Table* HostService(const kw_host* host, const char* service_id) {
  if (host == nullptr || host->get == nullptr) return nullptr;
  return static_cast<const Table*>(host->get(host, service_id));
}

// A key and a value (text, borrowed; or a number, kept as text).
class LogField {
 public:
  LogField(const char* key, std::string_view value) : key_(key), value_(value) {}
  LogField(const char* key, const char* value) : key_(key), value_(value) {}
  template <typename Number>
  requires std::is_arithmetic_v<Number> LogField(const char* key, Number value)
      : key_(key), is_number_(true) {
    TextBuffer text(digits_, sizeof digits_);
    text.Append(value);
    digit_count_ = text.size();
  }
  kw_field Field() const {
    const std::string_view digits(digits_, digit_count_);
    return {key_, Slice(is_number_ ? digits : value_)};
  }

 private:
  const char* key_;
  std::string_view value_;
  bool is_number_ = false;
  char digits_[32];
  size_t digit_count_ = 0;
};

// [any] thread. Without keyway.log/1 in `needs` it is silent. Construct it in start() or later:
// create() may not touch a host service.
class Logger {
 public:
  Logger() = default;
  explicit Logger(const kw_host* host) : host_(host), table_(HostService<kw_log>(host, KW_LOG)) {}

  bool Enabled(uint32_t level) const { return table_ != nullptr && level >= table_->level_min; }
  void Debug(const char* event, std::initializer_list<LogField> fields = {}) const {
    Write(KW_LOG_DEBUG, event, fields);
  }
  void Info(const char* event, std::initializer_list<LogField> fields = {}) const {
    Write(KW_LOG_INFO, event, fields);
  }
  void Warn(const char* event, std::initializer_list<LogField> fields = {}) const {
    Write(KW_LOG_WARN, event, fields);
  }
  void Error(const char* event, std::initializer_list<LogField> fields = {}) const {
    Write(KW_LOG_ERROR, event, fields);
  }
  // At most kFieldsMax fields; the rest is left out.
  void Write(uint32_t level, const char* event, std::initializer_list<LogField> fields) const {
    if (!Enabled(level)) return;
    kw_field out[kFieldsMax];
    size_t count = 0;
    for (const LogField& field : fields) {
      if (count == kFieldsMax) break;
      out[count++] = field.Field();
    }
    table_->write(host_, level, event, out, count);
  }

 private:
  static constexpr size_t kFieldsMax = 16;

  const kw_host* host_ = nullptr;
  const kw_log* table_ = nullptr;
};

}  // namespace keyway
