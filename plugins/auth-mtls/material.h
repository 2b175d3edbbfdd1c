// SPDX-License-Identifier: Apache-2.0
//
// Material: the PEM files of one port, read and checked as a set. Immutable once made.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "keyway/tls.hpp"
#include "options.h"

namespace keyway::auth_mtls {

// The contents of the four files; empty where none is configured.
struct PemSet {
  std::string chain, key, roots, lists;
  bool operator==(const PemSet&) const = default;
};

inline constexpr size_t kPemBytesMax = 4 << 20;  // Of one file.

// Reads all files of a port. False: `*error` names option, line, file and reason.
bool ReadPemSet(const Files& files, PemSet* out, std::string* error);

struct Material {
  uint64_t generation = 0;
  PemSet pem;
  tls::StorePtr store;      // Roots and lists; NULL without roots.
  int64_t expires_s = 0;    // Since 1970: the end of the leaf,
  int64_t lists_due_s = 0;  // and the earliest next update of a list, 0 if none.
  std::string description;  // Of the leaf.
};

// Checks that the set is whole and fits together. NULL: `*error` names option, line, file and reason.
std::shared_ptr<Material> MakeMaterial(const Files& files, PemSet pem, std::string* error);

// What an operator should mend although the material is used: an expired leaf, a stale list, a key that
// everybody can read.
std::vector<std::string> WarningsOf(const Files& files, const Material& material, int64_t now_s);

// Seconds since 1970.
int64_t SecondsOf(const ASN1_TIME* time);

}  // namespace keyway::auth_mtls
