// SPDX-License-Identifier: Apache-2.0
//
// The kernel's error details as etcd's status codes and literal texts, which etcd's clients compare
// byte by byte.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "keyway/abi.h"
#include "keyway/detail.h"

namespace keyway::api_etcd {

struct Status {
  int32_t code = KW_OK;
  std::string text;
};

// The entry of `detail`: its code and text; false if there is none.
bool DetailStatus(uint32_t detail, int32_t* code, std::string_view* text);

// What a client sees of an error: the detail's entry, else the code and the error's own text.
Status ToStatus(int32_t code, uint32_t detail, std::string_view text);
Status FromDetail(uint32_t detail);

// "InvalidArgument" for 3, as Go's codes.Code prints itself, and as the label grpc_code.
std::string_view CodeName(int32_t code);

// As grpc-message wants it: percent-encoded outside of printable ASCII.
std::string PercentEncode(std::string_view text);

}  // namespace keyway::api_etcd
