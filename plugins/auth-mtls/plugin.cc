// SPDX-License-Identifier: Apache-2.0
//
// The plugin "auth-mtls": keyway.authenticator/1 over Authenticator.
#include "keyway/plugin.hpp"

#include <string_view>

#include "authenticator.h"
#include "keyway/lifecycle.hpp"

KW_PLUGIN_MANIFEST(
    "id=auth-mtls;version=0.1.0;abi=1.0;license=Apache-2.0;stability=beta;"
    "provides=keyway.authenticator/1;needs=keyway.log/1,keyway.clock/1,keyway.metrics/1");

namespace keyway::auth_mtls {
namespace {

Authenticator& Self(kw_plugin* plugin) { return SelfOf<Authenticator>(plugin); }

int32_t AuthenticateThunk(kw_plugin* plugin, const kw_evidence* evidence, kw_principal* out,
                          kw_completion* completion) noexcept {
  return Guard(nullptr, [&] { return Self(plugin).Authenticate(evidence, out, completion); });
}
int32_t TlsThunk(kw_plugin* plugin, const char* role, kw_tls** out, kw_error* error) noexcept {
  return Guard(error, [&] { return Self(plugin).Tls(role, out, error); });
}
constexpr kw_authenticator kTable = {sizeof(kw_authenticator), 0, AuthenticateThunk, TlsThunk};

constexpr const char* kProvides[] = {KW_AUTHENTICATOR, nullptr};
constexpr const char* kNeeds[] = {KW_LOG, KW_CLOCK, KW_METRICS, nullptr};
const kw_descriptor kDescriptor = {sizeof(kw_descriptor),
                                   KW_ABI_MAJOR,
                                   0,
                                   "auth-mtls",
                                   "0.1.0",
                                   "Apache-2.0",
                                   "beta",
                                   kProvides,
                                   kNeeds,
                                   kOptionFields,
                                   kOptionFieldCount,
                                   Lifecycle<Authenticator>::Create};

}  // namespace

const void* Authenticator::Get(std::string_view interface_id) {
  return interface_id == KW_AUTHENTICATOR ? &kTable : nullptr;
}

}  // namespace keyway::auth_mtls

KW_PLUGIN_ENTRY(auth_mtls) { return keyway::SoleEntry<&keyway::auth_mtls::kDescriptor>(); }
