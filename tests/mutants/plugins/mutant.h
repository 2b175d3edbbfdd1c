// SPDX-License-Identifier: Apache-2.0
//
// What the mutant plugins share. Each loads the real plugin of its kind (option `real`, a path) and
// passes everything through, but for the one defect that the option `mutant` names; "none" has none.
// There is one instance of each in a process, so its state is global to the library.
#pragma once

#include <dlfcn.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "keyway/plugin.hpp"

namespace keyway::mutants {

struct Mutant {
  kw_plugin plugin{};
  kw_plugin* inner = nullptr;  // NULL: there is no real plugin of this kind.
  const kw_host* host = nullptr;
  std::string defect = "none";
  bool is(std::string_view name) const { return defect == name; }
};
inline Mutant me;

template <typename Table>
const Table& Real(const char* interface_id) {
  return *static_cast<const Table*>(me.inner->get(me.inner, interface_id));
}

// create() of every mutant: takes its two options away and creates the real plugin with the rest.
inline int32_t Create(const kw_host* host, const kw_config_item* items, size_t item_count, kw_plugin** out,
                      kw_error* error) {
  std::vector<kw_config_item> rest;
  std::string real;
  for (size_t i = 0; i < item_count; ++i) {
    const std::string_view key = items[i].key;
    if (key == "mutant") {
      me.defect = View(items[i].value);
    } else if (key == "real") {
      real = View(items[i].value);
    } else {
      rest.push_back(items[i]);
    }
  }
  if (me.is("throws-in-create")) throw std::runtime_error("a mutant's create");
  me.host = host;
  if (!real.empty()) {
    void* library = dlopen(real.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return Fail(error, KW_NOT_FOUND, std::string_view(dlerror()));
    const auto entry = reinterpret_cast<const kw_entry* (*)()>(dlsym(library, KW_PLUGIN_ENTRY_SYMBOL));
    const kw_descriptor& descriptor = *entry()->plugins[0];
    const int32_t code = descriptor.create(host, rest.data(), rest.size(), &me.inner, error);
    if (code != KW_OK) return code;
  }
  *out = &me.plugin;
  return KW_OK;
}

}  // namespace keyway::mutants
