// SPDX-License-Identifier: Apache-2.0
//
// The schema of the options, and the rules between them.
#include "options.h"

#include "keyway/tls.hpp"

namespace keyway::auth_mtls {

const kw_config_field kOptionFields[] = {
    {"cert_file", "string", "", "Certificate chain (PEM) of the client port, leaf first; empty: plain text."},
    {"key_file", "string", "", "Key (PEM, without a password) of cert_file."},
    {"ca_file", "string", "", "Roots (PEM bundle) that client certificates must come from."},
    {"crl_file", "string", "", "Revocation lists (PEM) of those roots."},
    {"client_certificate", "enum(required|optional)", "required",
     "Whether a client must show a certificate; one that is shown must be good."},
    {"peer_cert_file", "string", "", "Certificate chain (PEM) of this member; empty: peers in plain text."},
    {"peer_key_file", "string", "", "Key (PEM, without a password) of peer_cert_file."},
    {"peer_ca_file", "string", "", "Roots (PEM bundle) that certificates of members must come from."},
    {"peer_crl_file", "string", "", "Revocation lists (PEM) of those roots."},
    {"identity", "enum(cn|dns-san|uri-san)", "cn",
     "What names the user of a client certificate: its CN, or its first DNS or URI SAN."},
    {"min_version", "enum(1.2|1.3)", "1.2", "Oldest TLS version."},
    {"ciphers", "string", "",
     "OpenSSL names with colons between, TLS 1.2 ciphers and TLS_ suites of 1.3 mixed; empty: defaults."},
    {"poll_interval", "duration(100..60000)", "500ms",
     "How often files are looked at; a change counts when two looks saw the same."},
};
const size_t kOptionFieldCount = std::size(kOptionFields);

std::string File::Text() const {
  std::string text = option;
  if (line != 0) text += " (line " + std::to_string(line) + ")";
  return text + " " + path;
}

namespace {

File ReadFileOption(const ConfigReader& config, const char* option) {
  return {config.String(option), option, config.Line(option)};
}

template <typename... Parts>
int32_t BadOption(kw_error* error, const Parts&... parts) {
  return FailDetail(error, KW_INVALID_ARGUMENT, KW_DETAIL_BAD_CONFIG, parts...);
}

// `needs_roots`: a certificate of the other end is required.
int32_t CheckFiles(const Files& files, bool needs_roots, kw_error* error) {
  const auto wants = [&](const File& given, const File& missing) {
    return BadOption(error, given.option, " (line ", given.line, ") is set, but ", missing.option, " is not");
  };
  if (files.chain.is_set() && !files.key.is_set()) return wants(files.chain, files.key);
  for (const File* file : {&files.key, &files.roots, &files.lists}) {
    if (file->is_set() && !files.chain.is_set()) return wants(*file, files.chain);
  }
  if (files.lists.is_set() && !files.roots.is_set()) return wants(files.lists, files.roots);
  if (files.chain.is_set() && needs_roots && !files.roots.is_set()) return wants(files.chain, files.roots);
  return KW_OK;
}

}  // namespace

int32_t ReadOptions(const ConfigReader& config, Options* out, kw_error* error) {
  out->client = {ReadFileOption(config, "cert_file"), ReadFileOption(config, "key_file"),
                 ReadFileOption(config, "ca_file"), ReadFileOption(config, "crl_file")};
  out->peer = {ReadFileOption(config, "peer_cert_file"), ReadFileOption(config, "peer_key_file"),
               ReadFileOption(config, "peer_ca_file"), ReadFileOption(config, "peer_crl_file")};
  out->requires_client_certificate = config.String("client_certificate", "required") == "required";
  const std::string identity = config.String("identity", "cn");
  out->identity = identity == "uri-san"   ? IdentityKind::kUri
                  : identity == "dns-san" ? IdentityKind::kDnsName
                                          : IdentityKind::kCommonName;
  out->min_version = config.String("min_version", "1.2");
  out->ciphers = config.String("ciphers");
  out->poll_interval_ms = static_cast<uint64_t>(config.Int("poll_interval", 500));
  if (!out->client.chain.is_set() && !out->peer.chain.is_set()) {
    return BadOption(error, "neither cert_file nor peer_cert_file is set: nothing would be encrypted");
  }
  int32_t code = CheckFiles(out->client, out->requires_client_certificate, error);
  if (code == KW_OK) code = CheckFiles(out->peer, true, error);
  if (code != KW_OK) return code;
  const tls::ContextPtr scratch(SSL_CTX_new(TLS_method()));
  std::string unknown;
  if (scratch == nullptr) return Fail(error, KW_INTERNAL, "OpenSSL: ", std::string_view(tls::LastError()));
  if (!tls::SetCiphers(scratch.get(), out->ciphers, &unknown)) {
    return BadOption(error, "ciphers (line ", config.Line("ciphers"), "): ", std::string_view(unknown));
  }
  return KW_OK;
}

}  // namespace keyway::auth_mtls
