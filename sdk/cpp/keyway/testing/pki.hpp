// SPDX-License-Identifier: Apache-2.0
//
// Authorities, certificates and revocation lists for unit tests, made in memory.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <atomic>
#include <string>
#include <vector>

namespace keyway::testing {

template <typename Write>
std::string ToPem(Write write) {
  BIO* const bio = BIO_new(BIO_s_mem());
  write(bio);
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio, &bytes);
  std::string text(bytes, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

// An authority, or what one signs.
class Certificate {
 public:
  struct Form {
    const char* names = "IP:127.0.0.1";  // The SANs; NULL: none.
    long starts_s = -3600;               // From now.
    long ends_s = 3600;
    bool is_authority = false;
    const char* usage = nullptr;  // Extended key usage; NULL: any.
  };

  // Without an issuer it is an authority, signed by itself. An empty name makes no CN.
  explicit Certificate(const std::string& name, const Certificate* maybe_issuer = nullptr)
      : Certificate(name, maybe_issuer, Form()) {}
  Certificate(const std::string& name, const Certificate* maybe_issuer, const Form& form)
      : key_(EVP_EC_gen("P-256")), x509_(X509_new()) {
    X509_set_version(x509_, 2);
    static std::atomic<long> serial{1};
    ASN1_INTEGER_set(X509_get_serialNumber(x509_), serial++);
    X509_gmtime_adj(X509_getm_notBefore(x509_), form.starts_s);
    X509_gmtime_adj(X509_getm_notAfter(x509_), form.ends_s);
    X509_set_pubkey(x509_, key_);
    if (!name.empty()) {
      X509_NAME_add_entry_by_txt(X509_get_subject_name(x509_), "CN", MBSTRING_ASC,
                                 reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    }
    const Certificate& issuer = maybe_issuer == nullptr ? *this : *maybe_issuer;
    const bool is_authority = maybe_issuer == nullptr || form.is_authority;
    X509_set_issuer_name(x509_, X509_get_subject_name(issuer.x509_));
    Extend(NID_basic_constraints, is_authority ? "critical,CA:TRUE" : "CA:FALSE");
    if (!is_authority && form.names != nullptr) Extend(NID_subject_alt_name, form.names);
    if (!is_authority && form.usage != nullptr) Extend(NID_ext_key_usage, form.usage);
    X509_sign(x509_, issuer.key_, EVP_sha256());
  }
  ~Certificate() {
    X509_free(x509_);
    EVP_PKEY_free(key_);
  }
  Certificate(const Certificate&) = delete;
  Certificate& operator=(const Certificate&) = delete;

  std::string CertificatePem() const {
    return ToPem([this](BIO* bio) { PEM_write_bio_X509(bio, x509_); });
  }
  std::string KeyPem() const {
    return ToPem(
        [this](BIO* bio) { PEM_write_bio_PrivateKey(bio, key_, nullptr, nullptr, 0, nullptr, nullptr); });
  }
  std::string EncryptedKeyPem(std::string password) const {
    return ToPem([&](BIO* bio) {
      PEM_write_bio_PrivateKey(bio, key_, EVP_aes_128_cbc(), nullptr, 0, nullptr, password.data());
    });
  }
  std::string Der() const {
    unsigned char* der = nullptr;
    const int size = i2d_X509(x509_, &der);
    std::string bytes(reinterpret_cast<char*>(der), static_cast<size_t>(size));
    OPENSSL_free(der);
    return bytes;
  }
  // A revocation list of this authority; `due_s`: its next update, from now.
  std::string ListPem(const std::vector<const Certificate*>& revoked, long due_s = 3600) const {
    X509_CRL* const list = X509_CRL_new();
    X509_CRL_set_version(list, 1);
    X509_CRL_set_issuer_name(list, X509_get_subject_name(x509_));
    ASN1_TIME* const time = X509_gmtime_adj(nullptr, -7200);
    X509_CRL_set1_lastUpdate(list, time);
    X509_gmtime_adj(time, due_s);
    X509_CRL_set1_nextUpdate(list, time);
    X509_gmtime_adj(time, -60);
    for (const Certificate* certificate : revoked) {
      X509_REVOKED* const entry = X509_REVOKED_new();
      X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(certificate->x509_));
      X509_REVOKED_set_revocationDate(entry, time);
      X509_CRL_add0_revoked(list, entry);
    }
    ASN1_TIME_free(time);
    X509_CRL_sort(list);
    X509_CRL_sign(list, key_, EVP_sha256());
    const std::string pem = ToPem([&](BIO* bio) { PEM_write_bio_X509_CRL(bio, list); });
    X509_CRL_free(list);
    return pem;
  }

  X509* x509() const { return x509_; }
  EVP_PKEY* key() const { return key_; }

 private:
  void Extend(int id, const char* value) {
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, id, value);
    X509_add_ext(x509_, extension, -1);
    X509_EXTENSION_free(extension);
  }

  EVP_PKEY* const key_;
  X509* const x509_;
};

}  // namespace keyway::testing
