// SPDX-License-Identifier: Apache-2.0
//
// The result of an operation of this plugin: a code of keyway/abi.h and a text for the operator.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "keyway/abi.h"
#include "keyway/error.hpp"

namespace keyway::log_segmented {

struct [[nodiscard]] Status {
  int32_t code = KW_OK;
  std::string text;

  bool ok() const { return code == KW_OK; }
  int32_t Fill(kw_error* maybe_error) const {
    return ok() ? KW_OK : Fail(maybe_error, code, std::string_view(text));
  }
};

inline Status Error(int32_t code, std::string text) { return {code, std::move(text)}; }

}  // namespace keyway::log_segmented
