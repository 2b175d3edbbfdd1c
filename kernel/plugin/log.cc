// SPDX-License-Identifier: Apache-2.0
//
// The helper behind Log(): turns fields into the ABI's form and names the caller.
#include "kernel/plugin/log.h"

#include <algorithm>
#include <array>

#include "kernel/base/bytes.h"

namespace keyway {
inline namespace host {
namespace {

// "/src/kernel/core/node.cc" becomes "core/node.cc".
std::string_view LastTwoParts(std::string_view path) {
  size_t slash = path.rfind('/');
  if (slash == std::string_view::npos || slash == 0) return path;
  slash = path.rfind('/', slash - 1);
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

}  // namespace

void Log(Logger* logger, uint32_t level, const char* event, std::initializer_list<LogField> fields,
         std::source_location where) {
  constexpr size_t kFieldsMax = 24;
  if (!logger->Enabled(level)) return;
  std::array<kw_field, kFieldsMax> converted;
  const size_t count = std::min(fields.size(), kFieldsMax);
  for (size_t i = 0; i < count; ++i) {
    const LogField& field = fields.begin()[i];
    converted[i] = {field.key, ToSlice(field.value)};
  }
  std::string caller(LastTwoParts(where.file_name()));
  caller.append(":").append(std::to_string(where.line()));
  logger->Write(level, caller, event, {converted.data(), count});
}

}  // namespace host
}  // namespace keyway
