// SPDX-License-Identifier: Apache-2.0
//
// The options of the plugin, as its schema names them.
#pragma once

#include <cstdint>
#include <string>

#include "keyway/plugin.hpp"

namespace keyway::auth_mtls {

// The PEM files of one port, with the place of each option for messages.
struct File {
  std::string path;         // Empty: not given.
  const char* option = "";  // [static]
  uint32_t line = 0;        // Of the configuration file; 0: not in it.

  bool is_set() const { return !path.empty(); }
  // "cert_file (line 12) /etc/keyway/node.pem"
  std::string Text() const;
};
struct Files {
  File chain, key, roots, lists;
};

enum class IdentityKind { kCommonName, kDnsName, kUri };

struct Options {
  Files client;  // Of the port for clients; without a chain that port speaks plain text.
  Files peer;    // Of the port for members.
  bool requires_client_certificate = true;
  IdentityKind identity = IdentityKind::kCommonName;
  std::string min_version = "1.2";
  std::string ciphers;
  uint64_t poll_interval_ms = 500;
};

extern const kw_config_field kOptionFields[];
extern const size_t kOptionFieldCount;

// Reads and checks what can be checked without a file. INVALID_ARGUMENT names the option and its line.
int32_t ReadOptions(const ConfigReader& config, Options* out, kw_error* error);

}  // namespace keyway::auth_mtls
