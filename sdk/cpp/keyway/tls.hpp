// SPDX-License-Identifier: Apache-2.0
//
// TLS on OpenSSL for plugins that carry connections: contexts from the material of keyway.identity/1,
// names of certificates, and one vocabulary for the reasons of a refusal. For plugins that link
// OpenSSL; nothing else of the SDK includes it.
//
// What every context has: TLS 1.2 or newer, no renegotiation, no compression. No session is resumed: a
// resumed handshake would skip the check of a certificate that was revoked meanwhile, and the clients
// of this system keep their connections for hours.
#pragma once

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "keyway/authenticator.h"
#include "keyway/slice.hpp"

namespace keyway::tls {

template <auto kFree>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using BioPtr = std::unique_ptr<BIO, Deleter<BIO_free>>;
using X509Ptr = std::unique_ptr<X509, Deleter<X509_free>>;
using CrlPtr = std::unique_ptr<X509_CRL, Deleter<X509_CRL_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using StorePtr = std::unique_ptr<X509_STORE, Deleter<X509_STORE_free>>;
using ContextPtr = std::unique_ptr<SSL_CTX, Deleter<SSL_CTX_free>>;

// ---- reasons ------------------------------------------------------------------------------------

// Why a connection was refused. The names stand in logs and metrics, and before the first colon of an
// authenticator's error text.
enum class Refusal {
  kExpired,
  kNotYetValid,
  kUnknownAuthority,
  kRevoked,
  kNameMismatch,
  kNoCertificate,
  kNoIdentity,
  kBadCertificate,
  kRefusedRemotely,
  kNotTls,
  kTimeout,
  kOther
};
inline constexpr const char* kRefusalNames[] = {
    "expired",     "not_yet_valid",   "unknown_ca",       "revoked", "name_mismatch", "no_certificate",
    "no_identity", "bad_certificate", "refused_remotely", "not_tls", "timeout",       "other"};
inline constexpr size_t kRefusalCount = std::size(kRefusalNames);
static_assert(kRefusalCount == static_cast<size_t>(Refusal::kOther) + 1);

inline const char* Name(Refusal refusal) { return kRefusalNames[static_cast<size_t>(refusal)]; }

// Of a text such as "revoked: certificate ...".
inline Refusal RefusalOfText(std::string_view text) {
  const std::string_view word = text.substr(0, text.find(':'));
  for (size_t i = 0; i < kRefusalCount; ++i) {
    if (word == kRefusalNames[i]) return static_cast<Refusal>(i);
  }
  return Refusal::kOther;
}

// Of an X509_V_ERR_ code.
inline Refusal RefusalOfVerify(long code) {
  switch (code) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return Refusal::kExpired;
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return Refusal::kNotYetValid;
    case X509_V_ERR_CERT_REVOKED:
      return Refusal::kRevoked;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_CERT_UNTRUSTED:
      return Refusal::kUnknownAuthority;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return Refusal::kNameMismatch;
    default:
      return Refusal::kBadCertificate;
  }
}

// "certificate CN=alice, serial 1A"
inline std::string Describe(X509* certificate) {
  if (certificate == nullptr) return "no certificate";
  char name[128] = "";
  const int length =
      X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, sizeof name);
  std::string text = "certificate ";
  text += length > 0 ? "CN=" + std::string(name) : "without a CN";
  BIGNUM* const number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr);
  char* const hex = number == nullptr ? nullptr : BN_bn2hex(number);
  if (hex != nullptr) text += std::string(", serial ") + hex;
  OPENSSL_free(hex);
  BN_free(number);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20) c = '?';
  }
  return text;
}

inline std::string LastError() {
  char text[160] = "no detail";
  const unsigned long code = ERR_peek_last_error();
  if (code != 0) {
    const char* const reason = ERR_reason_error_string(code);
    if (reason != nullptr) {
      ERR_clear_error();
      return reason;
    }
    ERR_error_string_n(code, text, sizeof text);
  }
  ERR_clear_error();
  return text;
}

struct Failure {
  Refusal refusal = Refusal::kOther;
  std::string text;
};

// Why the last call on `ssl` failed. Empties OpenSSL's queue of errors.
inline Failure FailureOf(SSL* ssl) {
  const unsigned long code = ERR_peek_last_error();
  const int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
  const long verified = SSL_get_verify_result(ssl);
  Failure failure;
  if (verified != X509_V_OK && SSL_is_init_finished(ssl) == 0) {
    failure.refusal = RefusalOfVerify(verified);
    ERR_clear_error();
    failure.text = X509_verify_cert_error_string(verified);
    return failure;
  }
  failure.text = LastError();
  if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
    failure.refusal = Refusal::kNoCertificate;
  } else if (reason >= SSL_AD_REASON_OFFSET) {
    failure.refusal = Refusal::kRefusedRemotely;
    failure.text = "the other side answered: " + failure.text;
  } else if (reason == SSL_R_HTTP_REQUEST || reason == SSL_R_WRONG_VERSION_NUMBER ||
             reason == SSL_R_HTTPS_PROXY_REQUEST || reason == SSL_R_PACKET_LENGTH_TOO_LONG ||
             reason == SSL_R_BAD_PACKET_LENGTH) {
    failure.refusal = Refusal::kNotTls;
  }
  return failure;
}

// ---- PEM ----------------------------------------------------------------------------------------

inline BioPtr Memory(kw_slice bytes) {
  return BioPtr(BIO_new_mem_buf(bytes.ptr, static_cast<int>(bytes.len)));
}

// For keys: a password is never asked for on a terminal.
inline int NoPassword(char*, int, int, void*) { return -1; }

// All certificates of a bundle, each handed to `take`; the count, or -1 if `take` refused one.
template <typename Take>
int ForEachCertificate(kw_slice pem, Take take) {
  const BioPtr bio = Memory(pem);
  int count = 0;
  while (X509* const next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    if (!take(X509Ptr(next))) return -1;
    ++count;
  }
  return count;
}

// ---- verification ---------------------------------------------------------------------------------

// An authority without a revocation list revokes nothing (others of the bundle may have one), and a
// list that is past its next update still counts: refusing every member at once because a job did not
// run would be the greater harm. The authenticator warns of it.
inline int VerifyCallback(int is_ok, X509_STORE_CTX* context) {
  const int error = X509_STORE_CTX_get_error(context);
  if (is_ok == 1) return 1;
  if (error != X509_V_ERR_UNABLE_TO_GET_CRL && error != X509_V_ERR_CRL_HAS_EXPIRED) return 0;
  X509_STORE_CTX_set_error(context, X509_V_OK);
  return 1;
}

// Roots and revocation lists. Every certificate of the bundle is an anchor, as in Go.
inline bool FillStore(X509_STORE* store, kw_slice roots, kw_slice lists, std::string* error) {
  ERR_clear_error();
  const int count = ForEachCertificate(
      roots, [&](X509Ptr certificate) { return X509_STORE_add_cert(store, certificate.get()) == 1; });
  if (count <= 0) {
    *error = "roots: " + (count == 0 ? std::string("no certificate") : LastError());
    return false;
  }
  X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
  if (lists.len == 0) {
    ERR_clear_error();
    return true;
  }
  const BioPtr bio = Memory(lists);
  size_t list_count = 0;
  while (X509_CRL* const next = PEM_read_bio_X509_CRL(bio.get(), nullptr, nullptr, nullptr)) {
    const CrlPtr list(next);
    if (X509_STORE_add_crl(store, next) != 1) {
      *error = "revocation list: " + LastError();
      return false;
    }
    ++list_count;
  }
  ERR_clear_error();
  if (list_count == 0) {
    *error = "revocation list: nothing in it";
    return false;
  }
  X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
  return true;
}

// ---- contexts -------------------------------------------------------------------------------------

// `list` mixes TLS 1.2 names of OpenSSL and TLS 1.3 suites ("TLS_..."); a group without a name keeps
// its default. False: `*error` holds the name that is not known.
inline bool SetCiphers(SSL_CTX* context, std::string_view list, std::string* error) {
  std::string old_names, suites;
  for (size_t at = 0; at < list.size();) {
    const size_t end = std::min(list.find(':', at), list.size());
    const std::string name(list.substr(at, end - at));
    at = end + 1;
    if (name.empty()) continue;
    const bool is_suite = name.rfind("TLS_", 0) == 0;
    const int known = is_suite ? SSL_CTX_set_ciphersuites(context, name.c_str())
                               : SSL_CTX_set_cipher_list(context, name.c_str());
    if (known != 1) {
      ERR_clear_error();
      *error = "\"" + name + "\" is not a cipher that OpenSSL knows";
      return false;
    }
    std::string& group = is_suite ? suites : old_names;
    group += (group.empty() ? "" : ":") + name;
  }
  if (!suites.empty()) SSL_CTX_set_ciphersuites(context, suites.c_str());
  if (!old_names.empty()) SSL_CTX_set_cipher_list(context, old_names.c_str());
  return true;
}

inline bool SetChain(SSL_CTX* context, kw_slice pem) {
  bool is_leaf = true;
  const int count = ForEachCertificate(pem, [&](X509Ptr certificate) {
    if (std::exchange(is_leaf, false)) return SSL_CTX_use_certificate(context, certificate.get()) == 1;
    return SSL_CTX_add0_chain_cert(context, certificate.get()) == 1 &&
           (static_cast<void>(certificate.release()), true);
  });
  return count > 0;
}

// A context for the accepting or the dialing end. NULL: `*error` says what is wrong with the material.
inline ContextPtr NewContext(const kw_tls& material, bool is_server, std::string* error) {
  ERR_clear_error();
  ContextPtr context(SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method()));
  SSL_CTX* const raw = context.get();
  const auto fail = [&](std::string what) {
    *error = std::move(what);
    return ContextPtr();
  };
  if (raw == nullptr) return fail("context: " + LastError());
  SSL_CTX_set_min_proto_version(raw, View(material.min_version) == "1.3" ? TLS1_3_VERSION : TLS1_2_VERSION);
  SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(raw, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(raw, 0);
  // One system call for many records: users read until there is nothing, or ask SSL_has_pending().
  SSL_CTX_set_read_ahead(raw, 1);
  std::string unknown;
  if (material.ciphers.len != 0 && !SetCiphers(raw, View(material.ciphers), &unknown)) {
    return fail("ciphers: " + unknown);
  }
  if (material.chain.len != 0) {
    if (!SetChain(raw, material.chain)) return fail("certificate chain: " + LastError());
    const BioPtr bio = Memory(material.key);
    const KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, &NoPassword, nullptr));
    if (key == nullptr || SSL_CTX_use_PrivateKey(raw, key.get()) != 1 ||
        SSL_CTX_check_private_key(raw) != 1) {
      return fail("private key: " + LastError());
    }
  } else if (is_server) {
    return fail("no certificate chain");
  }
  const bool is_required = !is_server || (material.flags & KW_TLS_REQUIRE_PEER_CERTIFICATE) != 0;
  if (material.roots.len != 0) {
    if (!FillStore(SSL_CTX_get_cert_store(raw), material.roots, material.crl, error)) return ContextPtr();
    if (is_server) {
      ForEachCertificate(material.roots,
                         [&](X509Ptr root) { return SSL_CTX_add_client_CA(raw, root.get()) == 1; });
    }
    SSL_CTX_set_verify(raw, SSL_VERIFY_PEER | (is_required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                       &VerifyCallback);
  } else if (is_required) {
    return fail("certificates of the other end are required, but there are no roots");
  }
  ERR_clear_error();
  return context;
}

// ---- certificates ---------------------------------------------------------------------------------

// What an authenticator wants to see of the other end.
struct Evidence {
  std::string leaf;   // DER; empty: it showed none.
  std::string chain;  // The rest, DER after DER.
};
inline constexpr int kChainLengthMax = 8;

inline Evidence EvidenceOf(SSL* ssl) {
  const auto append = [](X509* certificate, std::string* out) {
    unsigned char* der = nullptr;
    const int bytes = i2d_X509(certificate, &der);
    if (bytes > 0) out->append(reinterpret_cast<const char*>(der), static_cast<size_t>(bytes));
    OPENSSL_free(der);
  };
  Evidence evidence;
  X509* const leaf = SSL_get0_peer_certificate(ssl);
  if (leaf == nullptr) return evidence;
  append(leaf, &evidence.leaf);
  STACK_OF(X509)* const chain = SSL_get_peer_cert_chain(ssl);
  // The dialer's view of the chain starts with the leaf, the acceptor's does not.
  for (int i = SSL_is_server(ssl) != 0 ? 0 : 1;
       chain != nullptr && i < sk_X509_num(chain) && i < kChainLengthMax; ++i) {
    append(sk_X509_value(chain, i), &evidence.chain);
  }
  return evidence;
}

inline X509Ptr LeafOf(const Evidence& evidence) {
  const auto* der = reinterpret_cast<const unsigned char*>(evidence.leaf.data());
  return X509Ptr(d2i_X509(nullptr, &der, static_cast<long>(evidence.leaf.size())));
}

inline bool IsIpAddress(const std::string& host) {
  unsigned char scratch[16];
  return inet_pton(AF_INET, host.c_str(), scratch) == 1 || inet_pton(AF_INET6, host.c_str(), scratch) == 1;
}

// Whether the certificate is for `host`: an IP SAN for an address, else a DNS SAN. A CN does not count.
inline bool IsFor(X509* certificate, const std::string& host) {
  if (IsIpAddress(host)) return X509_check_ip_asc(certificate, host.c_str(), 0) == 1;
  return X509_check_host(certificate, host.data(), host.size(), X509_CHECK_FLAG_NEVER_CHECK_SUBJECT,
                         nullptr) == 1;
}

// The dialing end accepts a certificate of `host` only.
inline void ExpectHost(SSL* ssl, const std::string& host) {
  if (IsIpAddress(host)) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str());
    return;
  }
  SSL_set_tlsext_host_name(ssl, host.c_str());
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  SSL_set1_host(ssl, host.c_str());
}

}  // namespace keyway::tls
