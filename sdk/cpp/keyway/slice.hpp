// SPDX-License-Identifier: Apache-2.0
//
// kw_slice and std::string_view, both ways. Neither owns the bytes.
#pragma once

#include <string_view>

#include "keyway/abi.h"

namespace keyway {

inline kw_slice Slice(std::string_view bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}
inline std::string_view View(kw_slice slice) { return {reinterpret_cast<const char*>(slice.ptr), slice.len}; }

}  // namespace keyway
