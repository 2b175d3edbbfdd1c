// SPDX-License-Identifier: Apache-2.0
//
// keyway.authenticator/1 and keyway.observer/1 under check. Beside the rules of every table:
//
//   principal-within-bounds  a principal is at most as long as its field
//   sound-material           tls(): slices, a release function, and a key to every chain
//   result-given             KW_OK comes with a result
#pragma once

#include "kernel/plugin/check/pending.h"
#include "kernel/plugin/check/verdict.h"
#include "keyway/authenticator.h"
#include "keyway/observer.h"

namespace keyway::check {

class CheckedAuthenticator {
 public:
  CheckedAuthenticator(const Subject* subject, kw_plugin* inner, const kw_authenticator& table);

  kw_plugin* plugin() { return &facade_; }
  const kw_authenticator& table() const { return outer_; }
  const PendingCalls& pending() const { return pending_; }

 private:
  static CheckedAuthenticator& Self(kw_plugin* plugin) {
    return *static_cast<CheckedAuthenticator*>(plugin->self);
  }
  static int32_t Authenticate(kw_plugin* plugin, const kw_evidence* evidence, kw_principal* out,
                              kw_completion* completion);
  static void OnAuthenticated(PendingCall* call, int32_t code);
  static int32_t Tls(kw_plugin* plugin, const char* role, kw_tls** out, kw_error* error);

  const Subject& subject_;
  kw_plugin* const inner_;
  const kw_authenticator table_;
  kw_authenticator outer_;
  kw_plugin facade_{};
  PendingCalls pending_;
};

class CheckedObserver {
 public:
  CheckedObserver(const Subject* subject, kw_plugin* inner, const kw_observer& table);

  kw_plugin* plugin() { return &facade_; }
  const kw_observer& table() const { return outer_; }

 private:
  static int32_t Render(kw_plugin* plugin, const kw_sample* samples, size_t sample_count, kw_writer* writer,
                        kw_error* error);

  const Subject& subject_;
  kw_plugin* const inner_;
  const kw_observer table_;
  kw_observer outer_;
  kw_plugin facade_{};
};

}  // namespace keyway::check
