// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/checked_identity.h"

#include "kernel/plugin/check/poison.h"

namespace keyway::check {
namespace {

constexpr Function kAuthenticate{"authenticator.authenticate", ThreadTag::kAny};
constexpr Function kTls{"authenticator.tls", ThreadTag::kAny};
constexpr Function kRender{"observer.render", ThreadTag::kAny};

void CheckPrincipal(const Subject& subject, const kw_principal& principal) {
  if (principal.len <= sizeof principal.name) return;
  subject.Condemn(kAuthenticate.name, "principal-within-bounds",
                  absl::StrCat("gave a principal of ", principal.len, " bytes; ", sizeof principal.name,
                               " are the most"));
}

}  // namespace

CheckedAuthenticator::CheckedAuthenticator(const Subject* subject, kw_plugin* inner,
                                           const kw_authenticator& table)
    : subject_(*subject), inner_(inner), table_(table), outer_(table), pending_(subject) {
  facade_.size = sizeof facade_;
  facade_.self = this;
  outer_.authenticate = &CheckedAuthenticator::Authenticate;
  outer_.tls = &CheckedAuthenticator::Tls;
}

int32_t CheckedAuthenticator::Authenticate(kw_plugin* plugin, const kw_evidence* evidence, kw_principal* out,
                                           kw_completion* completion) {
  CheckedAuthenticator& self = Self(plugin);
  PendingCall* call = self.pending_.Begin(kAuthenticate, completion);
  call->context = out;
  call->on_done = &CheckedAuthenticator::OnAuthenticated;
  if (self.subject_.is_full()) {
    call->copy = PoisonedCopy(
        self.subject_, kAuthenticate,
        PoisonedCopy::RoundUp(sizeof *evidence) + PoisonedCopy::RoundUp(evidence->role.len) +
            PoisonedCopy::RoundUp(evidence->primary.len) + PoisonedCopy::RoundUp(evidence->secondary.len) +
            PoisonedCopy::RoundUp(evidence->address.len));
    kw_evidence* copied = call->copy.Array(evidence, 1);
    copied->role = call->copy.Slice(evidence->role);
    copied->primary = call->copy.Slice(evidence->primary);
    copied->secondary = call->copy.Slice(evidence->secondary);
    copied->address = call->copy.Slice(evidence->address);
    evidence = copied;
  }
  const int32_t code = Guarded(self.subject_, kAuthenticate, [&] {
    return self.table_.authenticate(self.inner_, evidence, out, &call->facade);
  });
  if (code == KW_OK) CheckPrincipal(self.subject_, *out);
  return self.pending_.Returned(call, code);
}

void CheckedAuthenticator::OnAuthenticated(PendingCall* call, int32_t code) {
  if (code != KW_OK) return;
  CheckPrincipal(call->owner->subject(), *static_cast<const kw_principal*>(call->context));
}

int32_t CheckedAuthenticator::Tls(kw_plugin* plugin, const char* role, kw_tls** out, kw_error* error) {
  CheckedAuthenticator& self = Self(plugin);
  kw_tls* given = nullptr;
  const int32_t code = CheckedCall(self.subject_, kTls, error,
                                   [&] { return self.table_.tls(self.inner_, role, &given, error); });
  if (code != KW_OK) return code;
  *out = given;
  if (given == nullptr) return code;  // Plain text.
  const bool is_sound = given->size >= sizeof(kw_tls) && given->release != nullptr && IsSound(given->chain) &&
                        IsSound(given->key) && IsSound(given->roots) && IsSound(given->crl) &&
                        IsSound(given->min_version) && IsSound(given->ciphers);
  if (!is_sound || (given->chain.len != 0 && given->key.len == 0)) {
    self.subject_.Condemn(kTls.name, "sound-material",
                          absl::StrCat("gave unusable material for the role ", role));
  }
  return code;
}

CheckedObserver::CheckedObserver(const Subject* subject, kw_plugin* inner, const kw_observer& table)
    : subject_(*subject), inner_(inner), table_(table), outer_(table) {
  facade_.size = sizeof facade_;
  facade_.self = this;
  outer_.render = &CheckedObserver::Render;
}

int32_t CheckedObserver::Render(kw_plugin* plugin, const kw_sample* samples, size_t sample_count,
                                kw_writer* writer, kw_error* error) {
  CheckedObserver& self = *static_cast<CheckedObserver*>(plugin->self);
  return CheckedCall(self.subject_, kRender, error,
                     [&] { return self.table_.render(self.inner_, samples, sample_count, writer, error); });
}

}  // namespace keyway::check
