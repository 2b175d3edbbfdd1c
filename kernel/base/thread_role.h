// SPDX-License-Identifier: Apache-2.0
//
// Which of the ABI's threads this one is (the thread tags of keyway/abi.h). The kernel's threads say it
// once when they begin; the checking host compares it with the tag of what is called.
#pragma once

#include <cstdint>

namespace keyway {

enum class ThreadRole : uint8_t { kOther, kControl, kCore, kLog, kStore, kRead };

// The kernel is only ever in an executable, so the address needs no call (nor the loader as a library).
#define KW_EXECUTABLE_TLS __attribute__((tls_model("initial-exec")))

inline constinit thread_local ThreadRole thread_role KW_EXECUTABLE_TLS = ThreadRole::kOther;

}  // namespace keyway
