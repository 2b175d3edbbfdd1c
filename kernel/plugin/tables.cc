// SPDX-License-Identifier: Apache-2.0
//
// Which functions of each table are mandatory.
#include "kernel/plugin/tables.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "absl/strings/str_cat.h"
#include "keyway/kernel.h"

namespace keyway {
namespace {

struct Slot {
  const char* name;
  size_t offset;
};
#define KW_SLOT(table, function) \
  { #function, offsetof(table, function) }

constexpr Slot kStoreSlots[] = {
    KW_SLOT(kw_kv_store, write),       KW_SLOT(kw_kv_store, sync),         KW_SLOT(kw_kv_store, view_open),
    KW_SLOT(kw_kv_store, view_close),  KW_SLOT(kw_kv_store, get),          KW_SLOT(kw_kv_store, cursor_open),
    KW_SLOT(kw_kv_store, cursor_next), KW_SLOT(kw_kv_store, cursor_close), KW_SLOT(kw_kv_store, stats)};
constexpr Slot kLogSlots[] = {KW_SLOT(kw_log_store, recover), KW_SLOT(kw_log_store, append),
                              KW_SLOT(kw_log_store, read), KW_SLOT(kw_log_store, truncate_prefix),
                              KW_SLOT(kw_log_store, reset)};
constexpr Slot kTransportSlots[] = {KW_SLOT(kw_transport, listen), KW_SLOT(kw_transport, set_peers),
                                    KW_SLOT(kw_transport, send), KW_SLOT(kw_transport, stats)};
constexpr Slot kAuthenticatorSlots[] = {KW_SLOT(kw_authenticator, authenticate),
                                        KW_SLOT(kw_authenticator, tls)};
constexpr Slot kObserverSlots[] = {KW_SLOT(kw_observer, render)};
constexpr Slot kInstanceSlots[] = {KW_SLOT(kw_plugin, start), KW_SLOT(kw_plugin, stop),
                                   KW_SLOT(kw_plugin, destroy), KW_SLOT(kw_plugin, get)};
#undef KW_SLOT

// What a kw_transport must carry at least: one full Raft entry in a frame.
constexpr uint64_t kTransportFrameBytesMin = 4u << 20;
constexpr uint32_t kStoreKeyBytesMin = 511;
constexpr uint64_t kStoreValueBytesMin = 4u << 20;

absl::Status Refused(const std::string& interface_id, const std::string& what) {
  return absl::FailedPreconditionError(absl::StrCat(interface_id, ": ", what));
}

// Both sides of a function pointer are the same size, so its bytes tell whether it is NULL.
bool IsSet(const void* table, size_t offset) {
  void* function = nullptr;
  std::memcpy(&function, static_cast<const char*>(table) + offset, sizeof function);
  return function != nullptr;
}

absl::Status CheckSlots(const char* interface_id, const void* table, std::span<const Slot> slots) {
  for (const Slot& slot : slots) {
    if (!IsSet(table, slot.offset)) {
      return Refused(interface_id, absl::StrCat("the mandatory function ", slot.name, " is missing"));
    }
  }
  return absl::OkStatus();
}

template <typename Table>
absl::Status Copy(const char* interface_id, const void* given, std::span<const Slot> slots, Table* out) {
  *out = Table{};
  if (given == nullptr) return Refused(interface_id, "get() gave no table");
  uint32_t size = 0;
  std::memcpy(&size, given, sizeof size);
  if (size < sizeof size) return Refused(interface_id, "the table has no size");
  std::memcpy(out, given, std::min<size_t>(size, sizeof(Table)));
  out->size = sizeof(Table);
  return CheckSlots(interface_id, out, slots);
}

int32_t NoCheckpoint(kw_plugin*, const char*, kw_completion*) { return KW_UNIMPLEMENTED; }
int32_t NoTryAppend(kw_plugin*, const kw_log_entry*, size_t, const kw_hard_state*, kw_completion*) {
  return KW_UNAVAILABLE;
}
int32_t NoReclaim(kw_plugin*, kw_completion*) { return KW_UNIMPLEMENTED; }

}  // namespace

bool IsKnownInterface(std::string_view interface_id) {
  constexpr std::string_view kKnown[] = {KW_KV_STORE,      KW_LOG_STORE, KW_TRANSPORT,
                                         KW_AUTHENTICATOR, KW_OBSERVER,  KW_API};
  return std::find(std::begin(kKnown), std::end(kKnown), interface_id) != std::end(kKnown);
}

absl::Status CompleteTable(const void* given, kw_kv_store* out) {
  absl::Status copied = Copy(KW_KV_STORE, given, kStoreSlots, out);
  if (!copied.ok()) return copied;
  if (out->key_bytes_max < kStoreKeyBytesMin) {
    return Refused(KW_KV_STORE, absl::StrCat("key_bytes_max is ", out->key_bytes_max, ", at least ",
                                             kStoreKeyBytesMin, " is needed"));
  }
  if (out->value_bytes_max < kStoreValueBytesMin) {
    return Refused(KW_KV_STORE, absl::StrCat("value_bytes_max is ", out->value_bytes_max, ", at least ",
                                             kStoreValueBytesMin, " is needed"));
  }
  if ((out->caps & KW_KV_CAP_CHECKPOINT) != 0 && out->checkpoint == nullptr) {
    return Refused(KW_KV_STORE, "caps promise the function checkpoint, which is missing");
  }
  if ((out->caps & KW_KV_CAP_RECLAIM) != 0 && out->reclaim == nullptr) {
    return Refused(KW_KV_STORE, "caps promise the function reclaim, which is missing");
  }
  if (out->checkpoint == nullptr) out->checkpoint = NoCheckpoint;
  if (out->reclaim == nullptr) out->reclaim = NoReclaim;
  return absl::OkStatus();
}

absl::Status CompleteTable(const void* given, kw_log_store* out) {
  absl::Status copied = Copy(KW_LOG_STORE, given, kLogSlots, out);
  if (out->try_append == nullptr) out->try_append = NoTryAppend;
  if (out->salvage == nullptr || out->rebuild == nullptr) out->salvage = nullptr, out->rebuild = nullptr;
  return copied;
}

absl::Status CompleteTable(const void* given, kw_transport* out) {
  absl::Status copied = Copy(KW_TRANSPORT, given, kTransportSlots, out);
  if (copied.ok() && out->frame_bytes_max < kTransportFrameBytesMin) {
    return Refused(KW_TRANSPORT, absl::StrCat("frame_bytes_max is ", out->frame_bytes_max, ", at least ",
                                              kTransportFrameBytesMin, " is needed"));
  }
  return copied;
}

absl::Status CompleteTable(const void* given, kw_authenticator* out) {
  return Copy(KW_AUTHENTICATOR, given, kAuthenticatorSlots, out);
}

absl::Status CompleteTable(const void* given, kw_observer* out) {
  return Copy(KW_OBSERVER, given, kObserverSlots, out);
}

absl::Status CheckInstance(const kw_plugin* plugin) {
  if (plugin == nullptr || plugin->size < sizeof(kw_plugin)) {
    return absl::FailedPreconditionError("create() gave no instance");
  }
  return CheckSlots("kw_plugin", plugin, kInstanceSlots);
}

}  // namespace keyway
