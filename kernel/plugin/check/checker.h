// SPDX-License-Identifier: Apache-2.0
//
// Checker: the checking host of one node, and InstanceCheck, its part for one plugin. PluginSet asks it
// to wrap each table that the kernel gets; at level off there is no Checker, and the kernel has the
// plugin's own tables.
#pragma once

#include <memory>
#include <string>

#include "kernel/plugin/check/checked_host.h"
#include "kernel/plugin/check/checked_identity.h"
#include "kernel/plugin/check/checked_log.h"
#include "kernel/plugin/check/checked_store.h"
#include "kernel/plugin/check/checked_transport.h"
#include "kernel/plugin/check/watchdog.h"

namespace keyway::check {

// "off", "cheap" or "full"; anything else is full.
Level LevelOf(std::string_view text);

// The tables of one started plugin. All of [control].
class InstanceCheck {
 public:
  InstanceCheck(std::string plugin, Level level, Logger* logger, Watchdog* watchdog);
  ~InstanceCheck();

  const Subject& subject() const { return subject_; }
  HostCheck* host() { return &host_; }

  // Put the checking table in the place of the plugin's own, completed one.
  void Wrap(kw_plugin** plugin, kw_kv_store* table);
  void Wrap(kw_plugin** plugin, kw_log_store* table);
  void Wrap(kw_plugin** plugin, kw_transport* table);
  void Wrap(kw_plugin** plugin, kw_authenticator* table);
  void Wrap(kw_plugin** plugin, kw_observer* table);

  void BeforeStop();
  // From now on no call of the plugin is allowed, and nothing may be open.
  void AfterStop();

 private:
  Subject& subject_;
  Watchdog& watchdog_;
  HostCheck host_;
  std::unique_ptr<CheckedStore> store_;
  std::unique_ptr<CheckedLog> log_;
  std::unique_ptr<CheckedTransport> transport_;
  std::unique_ptr<CheckedAuthenticator> authenticator_;
  std::unique_ptr<CheckedObserver> observer_;
};

class Checker {
 public:
  // `maybe_clock` and `logger` outlive this.
  Checker(Level level, Deadlines deadlines, Clock* maybe_clock, Logger* logger);

  std::unique_ptr<InstanceCheck> Add(std::string plugin) {
    return std::make_unique<InstanceCheck>(std::move(plugin), level_, logger_, &watchdog_);
  }

 private:
  const Level level_;
  Logger* const logger_;
  Watchdog watchdog_;
};

}  // namespace keyway::check
