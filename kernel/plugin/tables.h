// SPDX-License-Identifier: Apache-2.0
//
// Completes the tables that plugins give: each is copied into one of this kernel's own size, an absent
// optional function becomes one that answers KW_UNIMPLEMENTED, an absent mandatory one is refused by its
// name. After that no call needs a check.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "keyway/abi.h"
#include "keyway/authenticator.h"
#include "keyway/kv_store.h"
#include "keyway/log_store.h"
#include "keyway/observer.h"
#include "keyway/transport.h"

namespace keyway {

// Whether this kernel can use an interface, keyway.kv-store/1 for instance.
bool IsKnownInterface(std::string_view interface_id);

// Copies the table of `interface_id` into `out`, which is zeroed beyond the plugin's size. Errors are
// FAILED_PRECONDITION and name the function or the value. `given` may be NULL (refused).
absl::Status CompleteTable(const void* given, kw_kv_store* out);
absl::Status CompleteTable(const void* given, kw_log_store* out);
absl::Status CompleteTable(const void* given, kw_transport* out);
absl::Status CompleteTable(const void* given, kw_authenticator* out);
absl::Status CompleteTable(const void* given, kw_observer* out);

// Refuses an instance without one of its functions.
absl::Status CheckInstance(const kw_plugin* plugin);

}  // namespace keyway
