// SPDX-License-Identifier: Apache-2.0
//
// A log with a damaged record (see salvage in keyway/log_store.h). Entries that the engine has applied are not
// needed: the log is built anew behind them. Where it then ends before the entry that was the last one, this
// node has acknowledged what it does not have. It notes that entry in the engine first, as its promise, and
// follows, votes by the promise and does not campaign until a leader has sent the rest
// (raft::Raft::IsBehindPromise). A crash anywhere between finds the damage or the promise again.
#include "kernel/core/core.h"
#include "kernel/core/replace_hint.h"

namespace keyway::core {

bool Core::SalvageLog(raft::NodeId self, const Applied& applied, const std::string& damage,
                      kw_hard_state* hard_state, kw_log_bounds* bounds, std::string* error) {
  const std::string what = "the log is damaged: " + damage;
  if (deps_.log->salvage == nullptr) {
    *error = what + kReplaceHint;
    return false;
  }
  kw_log_salvage salvage{};
  salvage.size = sizeof salvage;
  kw_error failure{};
  failure.size = sizeof failure;
  if (deps_.log->salvage(deps_.log_plugin, applied.index, applied.term, &salvage, &failure) != KW_OK) {
    *error = what + "; and what it held cannot be told: " + failure.text + kReplaceHint;
    return false;
  }
  Promise promise{salvage.last, salvage.last_term};
  if (salvage.hard_state.term < applied.term || promise.index < applied.index) {
    *error = what + "; and what is left of it ends with entry " + std::to_string(promise.index) +
             " of term " + std::to_string(salvage.hard_state.term) + ", but the store has applied entry " +
             std::to_string(applied.index) + " of term " + std::to_string(applied.term) + kReplaceHint;
    return false;
  }
  // An earlier promise that was not kept yet still counts.
  if (promise_.has_value() && (promise_->term > promise.term ||
                               (promise_->term == promise.term && promise_->index > promise.index))) {
    promise = *promise_;
  }
  const bool is_whole = salvage.bounds.last == salvage.last && salvage.last > applied.index;
  const Promise left =
      is_whole ? Promise{salvage.last, salvage.last_term} : Promise{applied.index, applied.term};
  const bool is_behind =
      left.term < promise.term || (left.term == promise.term && left.index < promise.index);
  if (is_behind) {
    Membership membership;
    bool is_sound = true;
    if (!ScanTable(deps_, kTableMembers, error, [&](std::string_view key, std::string_view value) {
          is_sound = is_sound && RestoreItem(kTableMembers, key, value, &membership);
          return true;
        })) {
      return false;
    }
    const raft::Configuration configuration = membership.Configuration();
    if (is_sound && configuration.voters.size() == 1 && configuration.voters[0] == self) {
      *error = what + "; entries up to " + std::to_string(salvage.last) +
               " were acknowledged, the store has them up to " + std::to_string(applied.index) +
               ", and no other voter has the rest: restore a copy of the data directory";
      return false;
    }
    StoreBatch batch;
    batch.Put(kTableMeta, kMetaLogPromise, SharedBytes::Copy(EncodePromise(promise)));
    if (batch.WriteTo(deps_.store_plugin, deps_.store, error) != KW_OK) return false;
    promise_ = promise;
  }
  if (deps_.log->rebuild(deps_.log_plugin, &failure) != KW_OK) {
    *error = what + "; it cannot be rebuilt: " + failure.text;
    return false;
  }
  *hard_state = salvage.hard_state;
  *bounds = salvage.bounds;
  Log(deps_.logger, KW_LOG_WARN, "log_rebuilt",
      {{"damage", std::string_view(damage)},
       {"kept_behind", applied.index},
       {"kept_to", salvage.bounds.last},
       {"acknowledged_to", salvage.last},
       {"waits_for_leader", is_behind}});
  return true;
}

}  // namespace keyway::core
