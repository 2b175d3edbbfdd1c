// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/checker.h"

#include "kernel/plugin/check/crash.h"

namespace keyway::check {

Level LevelOf(std::string_view text) {
  if (text == "off") return Level::kOff;
  return text == "cheap" ? Level::kCheap : Level::kFull;
}

InstanceCheck::InstanceCheck(std::string plugin, Level level, Logger* logger, Watchdog* watchdog)
    : subject_(*Subject::Make(std::move(plugin), level, logger)), watchdog_(*watchdog), host_(&subject_) {}

InstanceCheck::~InstanceCheck() {
  if (store_ != nullptr) watchdog_.Remove(&store_->pending());
  if (log_ != nullptr) watchdog_.Remove(&log_->pending());
  if (authenticator_ != nullptr) watchdog_.Remove(&authenticator_->pending());
}

void InstanceCheck::Wrap(kw_plugin** plugin, kw_kv_store* table) {
  store_ = std::make_unique<CheckedStore>(&subject_, *plugin, *table);
  watchdog_.Add(&store_->pending());
  *plugin = store_->plugin();
  *table = store_->table();
}

void InstanceCheck::Wrap(kw_plugin** plugin, kw_log_store* table) {
  log_ = std::make_unique<CheckedLog>(&subject_, *plugin, *table);
  watchdog_.Add(&log_->pending());
  *plugin = log_->plugin();
  *table = log_->table();
}

void InstanceCheck::Wrap(kw_plugin** plugin, kw_transport* table) {
  transport_ = std::make_unique<CheckedTransport>(&subject_, *plugin, *table);
  *plugin = transport_->plugin();
  *table = transport_->table();
}

void InstanceCheck::Wrap(kw_plugin** plugin, kw_authenticator* table) {
  authenticator_ = std::make_unique<CheckedAuthenticator>(&subject_, *plugin, *table);
  watchdog_.Add(&authenticator_->pending());
  *plugin = authenticator_->plugin();
  *table = authenticator_->table();
}

void InstanceCheck::Wrap(kw_plugin** plugin, kw_observer* table) {
  observer_ = std::make_unique<CheckedObserver>(&subject_, *plugin, *table);
  *plugin = observer_->plugin();
  *table = observer_->table();
}

void InstanceCheck::BeforeStop() {
  if (log_ != nullptr) log_->BeforeStop();
}

void InstanceCheck::AfterStop() {
  subject_.SetStopped();
  if (store_ != nullptr) store_->CheckStopped();
  if (log_ != nullptr) log_->CheckStopped();
  if (authenticator_ != nullptr) authenticator_->pending().CheckNoneIsPending();
  host_.CheckStopped();
}

Checker::Checker(Level level, Deadlines deadlines, Clock* maybe_clock, Logger* logger)
    : level_(level), logger_(logger), watchdog_(maybe_clock, logger, deadlines) {
  InstallCrashHandlers();
}

}  // namespace keyway::check
