// SPDX-License-Identifier: Apache-2.0
//
// Raft messages as bytes. The frame kinds around them are core's.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "kernel/raft/types.h"

namespace keyway::raft {

// Appends the message's bytes. Deterministic; entries' data are copied once.
void EncodeMessage(const Message& message, std::string* out);
// nullopt on malformed bytes or a wrong entry checksum. Copies entries' data.
std::optional<Message> DecodeMessage(std::string_view bytes);

}  // namespace keyway::raft
