// SPDX-License-Identifier: Apache-2.0
//
// The life of a plugin's instance, written as a class. `T` gives
//
//   // [control] Reads the options; touches no disk, network, thread or host service yet.
//   static int32_t Create(const kw_host* host, const ConfigReader& config, std::unique_ptr<T>* out,
//                         kw_error* error);
//   int32_t Start(kw_error* error);  // [control] On an error nothing is left behind.
//   void Stop();                     // [control] Joins its threads. Must not throw.
//   static const void* Get(std::string_view interface_id);  // [any] The table, or NULL.
//
// and is used as
//
//   constexpr kw_descriptor kDescriptor = {..., Lifecycle<T>::Create};
//   KW_PLUGIN_ENTRY(name) { return keyway::SoleEntry<&kDescriptor>(); }
#pragma once

#include <memory>
#include <string_view>

#include "keyway/abi.h"
#include "keyway/config.hpp"
#include "keyway/error.hpp"

namespace keyway {

// The instance behind a kw_plugin that Lifecycle<T> made.
template <typename T>
T& SelfOf(kw_plugin* plugin) {
  return *static_cast<T*>(plugin->self);
}

template <typename T>
class Lifecycle {
 public:
  static int32_t Create(const kw_host* host, const kw_config_item* items, size_t item_count, kw_plugin** out,
                        kw_error* error) noexcept {
    return Guard(error, [&] {
      auto holder = std::make_unique<Holder>();
      const int32_t code = T::Create(host, ConfigReader(items, item_count), &holder->self, error);
      if (code != KW_OK) return code;
      holder->plugin = {sizeof(kw_plugin), 0, holder->self.get(), Start, Stop, Destroy, Get};
      *out = &holder.release()->plugin;
      return code;
    });
  }

 private:
  struct Holder {
    kw_plugin plugin = {};  // First, so that its address is the holder's.
    std::unique_ptr<T> self;
  };

  static int32_t Start(kw_plugin* plugin, kw_error* error) noexcept {
    return Guard(error, [&] { return SelfOf<T>(plugin).Start(error); });
  }
  static void Stop(kw_plugin* plugin) noexcept { SelfOf<T>(plugin).Stop(); }
  static void Destroy(kw_plugin* plugin) noexcept { delete reinterpret_cast<Holder*>(plugin); }
  static const void* Get(kw_plugin*, const char* interface_id) noexcept { return T::Get(interface_id); }
};

// What the entry function of a library with one plugin kind returns.
template <const kw_descriptor* kDescriptor>
const kw_entry* SoleEntry() {
  static constexpr const kw_descriptor* kPlugins[] = {kDescriptor};
  static constexpr kw_entry kEntry = {sizeof(kw_entry), KW_ABI_MAJOR, KW_ABI_MINOR, kPlugins, 1};
  return &kEntry;
}

}  // namespace keyway
