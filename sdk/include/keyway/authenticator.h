/* SPDX-License-Identifier: Apache-2.0
 *
 * keyway.authenticator/1: who is at the other end, and the TLS material of this node. Decisions about
 * permissions stay in the kernel, since they must be the same on every member. */
#ifndef KEYWAY_AUTHENTICATOR_H
#define KEYWAY_AUTHENTICATOR_H

#include "keyway/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KW_AUTHENTICATOR "keyway.authenticator/1"

enum { KW_EVIDENCE_X509 = 1 /* primary: leaf DER; secondary: the rest of the chain, DER after DER */ };
typedef struct kw_evidence {
  uint32_t size, kind;
  kw_slice role;      /* "client" or "peer" */
  kw_slice primary;   /* by kind */
  kw_slice secondary; /* by kind */
  kw_slice address;   /* "127.0.0.1:40312" */
} kw_evidence;

typedef struct kw_principal {
  uint32_t size;
  uint32_t len;
  char name[248]; /* not NUL-terminated */
} kw_principal;

enum { KW_TLS_REQUIRE_PEER_CERTIFICATE = 1 };

/* PEM material; a user asks again from time to time and takes it over when `generation` moved. */
typedef struct kw_tls kw_tls;
struct kw_tls {
  uint32_t size, flags; /* KW_TLS_ */
  uint64_t generation;
  kw_slice chain, key, roots, crl; /* [release] PEM */
  kw_slice min_version;            /* [release] "1.2" or "1.3" */
  kw_slice ciphers;                /* [release] OpenSSL list, empty: default */
  void (*release)(kw_tls *tls);    /* [any] */
};

typedef struct kw_authenticator {
  uint32_t size, caps;
  /* [any] *evidence and *out are [done]. UNAUTHENTICATED with the reason in the text, one of these words
   * and a colon first: expired, not_yet_valid, unknown_ca, revoked, no_identity (no such name in it),
   * bad_certificate, other. A user asks again about open connections when `generation` moved, and closes
   * those that are refused then. */
  int32_t (*authenticate)(kw_plugin *plugin, const kw_evidence *evidence, kw_principal *out,
                          kw_completion *completion);
  /* [any] Material for `role`: "client-server", "peer-server", "peer-client". *out == NULL: this role
   * speaks plain text. */
  int32_t (*tls)(kw_plugin *plugin, const char *role, kw_tls **out, kw_error *error);
} kw_authenticator;

#ifdef __cplusplus
}
#endif
#endif /* KEYWAY_AUTHENTICATOR_H */
