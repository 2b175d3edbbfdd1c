// SPDX-License-Identifier: Apache-2.0
//
// Material in PEM to gRPC's credentials. gRPC proves that the other end has the key of the certificate
// that it shows; whether that certificate is good is decided by CheckChain, on the client inside of the
// handshake, on the server before a call is answered.
#include "tls.h"

#include <grpc/support/string_util.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

namespace keyway::transport_grpc {
namespace {

struct BioDeleter {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using BioPtr = std::unique_ptr<BIO, BioDeleter>;

BioPtr Memory(std::string_view pem) {
  return BioPtr(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

std::string LastError() {
  char text[160] = "unknown";
  const unsigned long code = ERR_get_error();
  if (code != 0) ERR_error_string_n(code, text, sizeof(text));
  ERR_clear_error();
  return text;
}

// Adds all certificates and lists. False: none, or one that cannot be read.
bool FillStore(X509_STORE* store, std::string_view roots, std::string_view lists) {
  size_t count = 0;
  BioPtr bio = Memory(roots);
  for (X509* next; (next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) != nullptr; ++count) {
    const bool ok = X509_STORE_add_cert(store, next) == 1;
    X509_free(next);
    if (!ok) return false;
  }
  if (count == 0) return false;
  X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);  // Each of them is an anchor.
  ERR_clear_error();
  if (lists.empty()) return true;
  count = 0;
  bio = Memory(lists);
  for (X509_CRL* next; (next = PEM_read_bio_X509_CRL(bio.get(), nullptr, nullptr, nullptr)) != nullptr;
       ++count) {
    const bool ok = X509_STORE_add_crl(store, next) == 1;
    X509_CRL_free(next);
    if (!ok) return false;
  }
  ERR_clear_error();
  return count > 0 && X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) == 1;
}

// An authority without a revocation list revokes nothing (others of the bundle may have one), and a list
// past its next update still counts: to refuse every member because a job did not run is the greater harm.
int OnVerify(int ok, X509_STORE_CTX* context) {
  const int error = X509_STORE_CTX_get_error(context);
  if (ok == 1) return 1;
  if (error != X509_V_ERR_UNABLE_TO_GET_CRL && error != X509_V_ERR_CRL_HAS_EXPIRED) return 0;
  X509_STORE_CTX_set_error(context, X509_V_OK);
  return 1;
}

// The word before the colon of a refusal, the same in every plugin.
const char* RefusalName(int error) {
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "expired";
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return "not_yet_valid";
    case X509_V_ERR_CERT_REVOKED:
      return "revoked";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_CERT_UNTRUSTED:
      return "unknown_ca";
    default:
      return "bad_certificate";
  }
}

// Whether the key is that of the chain's first certificate.
bool KeyFits(const std::string& chain, const std::string& key) {
  BioPtr bio = Memory(chain);
  const X509Ptr leaf(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  bio = Memory(key);
  EVP_PKEY* private_key = PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr);
  const bool fits =
      leaf != nullptr && private_key != nullptr && X509_check_private_key(leaf.get(), private_key) == 1;
  EVP_PKEY_free(private_key);
  return fits;
}

std::string Der(X509* certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate, &der);
  if (size <= 0) return "";
  std::string out(reinterpret_cast<char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return out;
}

// What gRPC's verifier of one connection needs. Freed by gRPC.
struct Verifier {
  grpc_tls_certificate_verifier_external table = {};
  std::shared_ptr<const Material> material;
  std::string host;

  static int Verify(void* self, grpc_tls_custom_verification_check_request* request,
                    grpc_tls_on_custom_verification_check_done_cb, void*, grpc_status_code* status,
                    char** reason) {
    const auto* verifier = static_cast<Verifier*>(self);
    const auto text = [](const char* pem) { return std::string_view(pem == nullptr ? "" : pem); };
    const PeerChain peer(text(request->peer_info.peer_cert), text(request->peer_info.peer_cert_full_chain));
    std::string refusal = CheckChain(*verifier->material, peer, true);
    if (refusal.empty() && !peer.IsFor(verifier->host)) {
      refusal = "name_mismatch: the certificate is for " + peer.Names() + ", not for " + verifier->host;
    }
    *status = refusal.empty() ? GRPC_STATUS_OK : GRPC_STATUS_UNAUTHENTICATED;
    if (!refusal.empty()) *reason = gpr_strdup(refusal.c_str());
    return 1;  // Done.
  }
};

}  // namespace

PeerChain::PeerChain(std::string_view leaf, std::string_view chain) {
  constexpr size_t kCertificatesMax = 8;
  BioPtr bio = Memory(leaf);
  X509Ptr first(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (first != nullptr) {
    certificates.push_back(std::move(first));
    bio = Memory(chain);
    while (certificates.size() < kCertificatesMax) {
      X509Ptr next(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
      if (next == nullptr) break;
      if (X509_cmp(next.get(), certificates.front().get()) != 0) certificates.push_back(std::move(next));
    }
  }
  ERR_clear_error();
}

std::string PeerChain::LeafDer() const { return empty() ? "" : Der(certificates.front().get()); }

std::string PeerChain::RestDer() const {
  std::string out;
  for (size_t i = 1; i < certificates.size(); ++i) out += Der(certificates[i].get());
  return out;
}

bool PeerChain::IsFor(const std::string& host) const {
  if (empty()) return false;
  X509* leaf = certificates.front().get();
  return X509_check_ip_asc(leaf, host.c_str(), 0) == 1 ||  // False for a name.
         X509_check_host(leaf, host.data(), host.size(), X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, nullptr) == 1;
}

std::string PeerChain::Names() const {
  std::string out;
  if (empty()) return "nothing";
  auto* names = static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificates.front().get(), NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names) && out.size() < 200; ++i) {
    BioPtr bio(BIO_new(BIO_s_mem()));
    GENERAL_NAME_print(bio.get(), sk_GENERAL_NAME_value(names, i));
    char* text = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &text);
    out += (out.empty() ? "" : ", ") + std::string(text, static_cast<size_t>(size));
  }
  GENERAL_NAMES_free(names);
  return out.empty() ? "no name" : out;
}

std::string CheckChain(const Material& material, const PeerChain& peer, bool is_server) {
  if (peer.empty()) {
    return material.must_show_certificate || is_server ? "no_certificate: none was shown" : "";
  }
  if (material.store == nullptr) {
    return is_server ? "unknown_ca: there are no roots to verify it with" : "";
  }
  struct Context {
    X509_STORE_CTX* context = X509_STORE_CTX_new();
    STACK_OF(X509) * rest = sk_X509_new_null();
    ~Context() {
      X509_STORE_CTX_free(context);
      sk_X509_free(rest);
    }
  } check;
  for (size_t i = 1; i < peer.certificates.size(); ++i) sk_X509_push(check.rest, peer.certificates[i].get());
  X509* leaf = peer.certificates.front().get();
  if (X509_STORE_CTX_init(check.context, material.store, leaf, check.rest) != 1) return LastError();
  X509_STORE_CTX_set_default(check.context, is_server ? "ssl_server" : "ssl_client");
  X509_STORE_CTX_set_verify_cb(check.context, &OnVerify);
  const bool is_good = X509_verify_cert(check.context) == 1;
  const int error = X509_STORE_CTX_get_error(check.context);
  ERR_clear_error();
  if (is_good) return "";
  char subject[128] = "";
  X509_NAME_oneline(X509_get_subject_name(leaf), subject, sizeof(subject));
  return std::string(RefusalName(error)) + ": " + X509_verify_cert_error_string(error) + " (" + subject + ")";
}

std::shared_ptr<const Material> TlsRole::current() {
  std::lock_guard lock(mutex_);
  return current_;
}

std::shared_ptr<const Material> TlsRole::Refresh(std::string* error) {
  if (maybe_identity_ == nullptr) {
    *error = "https:// needs an [auth] plugin that has TLS material; none is granted to this transport";
    return nullptr;
  }
  kw_tls* given = nullptr;
  kw_error failure = NoError();
  const int32_t code = maybe_identity_->tls(host_, role_, &given, &failure);
  std::lock_guard lock(mutex_);
  if (code != KW_OK) {
    *error = std::string("no TLS material for ") + role_ + ": " + failure.text;
    return current_;
  }
  if (given == nullptr) {
    *error = std::string("https:// needs TLS material for ") + role_ + "; the [auth] plugin has none";
    return current_;
  }
  if (current_ == nullptr || current_->generation != given->generation) {
    if (refused_reason_.empty() || refused_generation_ != given->generation) {
      refused_reason_.clear();
      std::shared_ptr<Material> next = Build(*given, &refused_reason_);
      refused_generation_ = given->generation;
      if (next != nullptr) current_ = std::move(next);
    }
    *error = refused_reason_;
  }
  given->release(given);
  return current_;
}

std::shared_ptr<Material> TlsRole::Build(const kw_tls& given, std::string* error) const {
  const bool is_server = std::string_view(role_) == "peer-server";
  auto material = std::make_shared<Material>();
  const auto fail = [&](const std::string& why) {
    *error = std::string(role_) + ": " + why;
    return nullptr;
  };
  material->generation = given.generation;
  material->must_show_certificate = (given.flags & KW_TLS_REQUIRE_PEER_CERTIFICATE) != 0;
  material->chain = View(given.chain);
  material->key = View(given.key);
  material->roots = View(given.roots);
  if (View(given.min_version) == "1.3") {
    return fail(
        "min_version 1.3 cannot be enforced by this gRPC; use 1.2 (members still agree on 1.3) or "
        "transport-tcp");
  }
  if (given.ciphers.len > 0) {
    return fail(
        "a list of ciphers cannot be given to this gRPC (its own is strict); leave it empty or use "
        "transport-tcp");
  }
  if (!material->chain.empty() ? !KeyFits(material->chain, material->key) : is_server) {
    return fail(material->chain.empty() ? "no certificate chain"
                                        : "the private key does not fit the certificate: " + LastError());
  }
  const bool must_verify = !is_server || material->must_show_certificate;
  if (must_verify && given.roots.len == 0) return fail("no roots to verify the other end with");
  if (given.roots.len > 0) {
    material->store = X509_STORE_new();
    if (!FillStore(material->store, View(given.roots), View(given.crl))) {
      return fail("the roots or the revocation list cannot be read: " + LastError());
    }
  }
  return material;
}

grpc_ssl_certificate_config_reload_status TlsRole::Fetch(void* raw,
                                                         grpc_ssl_server_certificate_config** config) {
  auto* served = static_cast<Served*>(raw);
  TlsRole* self = served->role;
  std::string ignored;
  const std::shared_ptr<const Material> material = self->Refresh(&ignored);
  if (material == nullptr) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_FAIL;
  std::lock_guard lock(self->mutex_);
  if (served->is_any && served->generation == material->generation) {
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  }
  const grpc_ssl_pem_key_cert_pair pair = {material->key.c_str(), material->chain.c_str()};
  // gRPC insists on roots. It only names them to clients, to help them choose a certificate.
  const std::string& named = material->roots.empty() ? material->chain : material->roots;
  *config = grpc_ssl_server_certificate_config_create(named.c_str(), &pair, 1);
  served->is_any = true;
  served->generation = material->generation;
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

grpc_server_credentials* TlsRole::NewServerCredentials() {
  std::lock_guard lock(mutex_);
  served_.push_back({this, false, 0});
  // Always asked for and never verified by gRPC: see the top. Required or not is CheckChain's, too.
  return grpc_ssl_server_credentials_create_with_options(
      grpc_ssl_server_credentials_create_options_using_config_fetcher(
          GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_BUT_DONT_VERIFY, &TlsRole::Fetch, &served_.back()));
}

grpc_channel_credentials* TlsRole::NewChannelCredentials(const std::string& host, std::string* error) {
  std::shared_ptr<const Material> material = Refresh(error);
  if (material == nullptr) return nullptr;
  grpc_tls_credentials_options* options = grpc_tls_credentials_options_create();
  if (!material->chain.empty()) {
    grpc_tls_identity_pairs* pairs = grpc_tls_identity_pairs_create();
    grpc_tls_identity_pairs_add_pair(pairs, material->key.c_str(), material->chain.c_str());
    grpc_tls_certificate_provider* provider =
        grpc_tls_certificate_provider_static_data_create(nullptr, pairs);
    grpc_tls_credentials_options_set_certificate_provider(options, provider);
    grpc_tls_credentials_options_watch_identity_key_cert_pairs(options);
    grpc_tls_certificate_provider_release(provider);
  }
  auto* verifier = new Verifier;
  verifier->material = std::move(material);
  verifier->host = host;
  verifier->table.user_data = verifier;
  verifier->table.verify = &Verifier::Verify;
  verifier->table.cancel = [](void*, grpc_tls_custom_verification_check_request*) {};
  verifier->table.destruct = [](void* self) { delete static_cast<Verifier*>(self); };
  grpc_tls_certificate_verifier* handle = grpc_tls_certificate_verifier_external_create(&verifier->table);
  grpc_tls_credentials_options_set_certificate_verifier(options, handle);
  grpc_tls_certificate_verifier_release(handle);
  grpc_tls_credentials_options_set_verify_server_cert(options, 0);
  grpc_tls_credentials_options_set_check_call_host(options, 0);
  return grpc_tls_credentials_create(options);
}

}  // namespace keyway::transport_grpc
