// SPDX-License-Identifier: Apache-2.0
//
// mutant-auth: a small authenticator of its own, with one defect. Whoever asks is "somebody"; peers and
// clients speak plain text, but for the role "material". See mutants.md for the list.
#include "keyway/authenticator.h"
#include "mutant.h"

KW_PLUGIN_MANIFEST(
    "id=mutant-auth;version=0.1.0;abi=1.0;license=Apache-2.0;stability=alpha;"
    "provides=keyway.authenticator/1;needs=keyway.log/1");

namespace keyway::mutants {
namespace {

kw_slice Slice(std::string_view text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

int32_t Authenticate(kw_plugin*, const kw_evidence*, kw_principal* out, kw_completion* completion) {
  std::memcpy(out->name, "somebody", 8);
  out->len = me.is("gives-an-overlong-principal") ? 4000 : 8;
  if (me.is("completes-twice")) {
    completion->done(completion, KW_OK, nullptr);
    completion->done(completion, KW_OK, nullptr);
    return KW_PENDING;
  }
  return KW_OK;
}

std::string chain = "-----CHAIN-----";
kw_tls material = {};

int32_t Tls(kw_plugin*, const char* role, kw_tls** out, kw_error*) {
  *out = nullptr;
  if (std::strcmp(role, "material") != 0) return KW_OK;
  material = {sizeof(kw_tls), 0,  1,      Slice(chain), Slice("key"), Slice("roots"), {},
              Slice("1.3"),   {}, nullptr};
  material.release = [](kw_tls*) {};
  if (me.is("gives-a-chain-without-a-key")) material.key = {};
  *out = &material;
  return KW_OK;
}

constexpr kw_authenticator kTable = {sizeof(kw_authenticator), 0, Authenticate, Tls};

int32_t CreateAuth(const kw_host* host, const kw_config_item* items, size_t count, kw_plugin** out,
                   kw_error* error) {
  me.plugin = {sizeof(kw_plugin),
               0,
               nullptr,
               [](kw_plugin*, kw_error*) -> int32_t { return KW_OK; },
               [](kw_plugin*) {},
               [](kw_plugin*) {},
               [](kw_plugin*, const char* id) -> const void* {
                 return std::strcmp(id, KW_AUTHENTICATOR) == 0 ? &kTable : nullptr;
               }};
  return Create(host, items, count, out, error);
}

constexpr kw_config_field kFields[] = {{"mutant", "string", "none", "the defect"}};
constexpr const char* kProvides[] = {KW_AUTHENTICATOR, nullptr};
constexpr const char* kNeeds[] = {KW_LOG, nullptr};
constexpr kw_descriptor kDescriptor = {sizeof(kw_descriptor),
                                       KW_ABI_MAJOR,
                                       0,
                                       "mutant-auth",
                                       "0.1.0",
                                       "Apache-2.0",
                                       "alpha",
                                       kProvides,
                                       kNeeds,
                                       kFields,
                                       1,
                                       CreateAuth};

}  // namespace
}  // namespace keyway::mutants

KW_PLUGIN_ENTRY(mutant_auth) {
  static constexpr const kw_descriptor* kPlugins[] = {&keyway::mutants::kDescriptor};
  static constexpr kw_entry kEntry = {sizeof(kw_entry), KW_ABI_MAJOR, KW_ABI_MINOR, kPlugins, 1};
  return &kEntry;
}
