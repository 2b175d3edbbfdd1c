// SPDX-License-Identifier: Apache-2.0
//
// Members that speak TLS, with an authority and certificates made for the test.
#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <atomic>
#include <cstring>
#include <list>
#include <random>
#include <string>
#include <thread>

#include "tests/abi/transport_host.h"

extern "C" const kw_entry* kw_plugin_entry_transport_tcp(void);

namespace keyway::transport_test {
const kw_entry* TransportUnderTest() { return kw_plugin_entry_transport_tcp(); }
}  // namespace keyway::transport_test

namespace keyway::transport_tcp {
using namespace transport_test;
namespace {

template <typename Write>
std::string ToPem(Write write) {
  BIO* bio = BIO_new(BIO_s_mem());
  write(bio);
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio, &bytes);
  const std::string text(bytes, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

// An authority, or what one signs: a certificate for 127.0.0.1.
class Certificate {
 public:
  Certificate(const std::string& name, const Certificate* maybe_issuer) {
    key_ = EVP_EC_gen("P-256");
    x509_ = X509_new();
    X509_set_version(x509_, 2);
    static std::atomic<long> serial{1};
    ASN1_INTEGER_set(X509_get_serialNumber(x509_), serial++);
    X509_gmtime_adj(X509_getm_notBefore(x509_), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x509_), 3600);
    X509_set_pubkey(x509_, key_);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x509_), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    const Certificate& issuer = maybe_issuer == nullptr ? *this : *maybe_issuer;
    X509_set_issuer_name(x509_, X509_get_subject_name(issuer.x509_));
    Extend(NID_basic_constraints, maybe_issuer == nullptr ? "critical,CA:TRUE" : "CA:FALSE");
    if (maybe_issuer != nullptr) Extend(NID_subject_alt_name, "IP:127.0.0.1");
    X509_sign(x509_, issuer.key_, EVP_sha256());
  }
  ~Certificate() {
    X509_free(x509_);
    EVP_PKEY_free(key_);
  }
  std::string CertificatePem() const {
    return ToPem([this](BIO* bio) { PEM_write_bio_X509(bio, x509_); });
  }
  std::string KeyPem() const {
    return ToPem(
        [this](BIO* bio) { PEM_write_bio_PrivateKey(bio, key_, nullptr, nullptr, 0, nullptr, nullptr); });
  }

 private:
  void Extend(int id, const char* value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, id, value);
    X509_add_ext(x509_, extension, -1);
    X509_EXTENSION_free(extension);
  }
  EVP_PKEY* key_;
  X509* x509_;
};

// keyway.identity/1 with one certificate for both roles; it answers on a thread of its own.
class Identity {
 public:
  Identity(const Certificate& own, const Certificate& roots, std::string refused_name = "")
      : chain_(own.CertificatePem()),
        key_(own.KeyPem()),
        roots_(roots.CertificatePem()),
        refused_(refused_name) {
    table_ = {sizeof(table_), 0, &Identity::Authenticate, &Identity::Tls};
    current_ = this;
  }
  ~Identity() {
    for (std::thread& thread : threads_) thread.join();
  }
  const kw_identity* table() const { return &table_; }

 private:
  static Identity* Of(const kw_host*) { return current_; }  // One identity a test.
  static kw_slice Slice(const std::string& text) {
    return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
  }
  static int32_t Tls(const kw_host* host, const char*, kw_tls** out, kw_error*) {
    Identity* self = Of(host);
    auto* tls = new kw_tls{};
    tls->size = sizeof(kw_tls);
    tls->flags = KW_TLS_REQUIRE_PEER_CERTIFICATE;
    tls->generation = 1;
    tls->chain = Slice(self->chain_);
    tls->key = Slice(self->key_);
    tls->roots = Slice(self->roots_);
    tls->release = [](kw_tls* released) { delete released; };
    *out = tls;
    return KW_OK;
  }
  static int32_t Authenticate(const kw_host* host, const kw_evidence* evidence, kw_principal* out,
                              kw_completion* completion) {
    Identity* self = Of(host);
    std::lock_guard lock(self->mutex_);
    self->threads_.emplace_back([self, evidence, out, completion] {
      const unsigned char* der = evidence->primary.ptr;
      X509* leaf = d2i_X509(nullptr, &der, static_cast<long>(evidence->primary.len));
      char name[64] = "";
      X509_NAME_get_text_by_NID(X509_get_subject_name(leaf), NID_commonName, name, sizeof(name));
      X509_free(leaf);
      if (name == self->refused_) {
        kw_error error = {};
        error.size = sizeof(error);
        error.code = KW_UNAUTHENTICATED;
        std::snprintf(error.text, sizeof(error.text), "%s is not a member", name);
        return completion->done(completion, KW_UNAUTHENTICATED, &error);
      }
      out->len = static_cast<uint32_t>(std::strlen(name));
      std::memcpy(out->name, name, out->len);
      completion->done(completion, KW_OK, nullptr);
    });
    return KW_PENDING;
  }

  static inline Identity* current_ = nullptr;
  const std::string chain_, key_, roots_, refused_;
  kw_identity table_;
  std::mutex mutex_;
  std::list<std::thread> threads_;
};

std::string TlsUrl() { return "https://127.0.0.1:" + std::to_string(FreePort()); }

TEST(Tls, FramesArriveAndThePrincipalIsKnown) {
  Certificate authority("authority", nullptr);
  Certificate node("node.example", &authority);
  Identity identity(node, authority);
  Member one(1, TlsUrl(), "token", identity.table());
  Member two(2, TlsUrl(), "token", identity.table());
  ASSERT_EQ(one.listen_code(), KW_OK) << one.error();
  one.SetPeers({{2, {two.url()}}});
  two.SetPeers({{1, {one.url()}}});
  ASSERT_TRUE(one.sink().WaitForState(2, KW_PEER_UP));
  ASSERT_TRUE(two.sink().WaitForState(1, KW_PEER_UP));
  EXPECT_EQ(one.sink().Principal(2), "node.example");

  std::mt19937 random(3);
  std::vector<std::string> sent;
  for (int i = 0; i < 300; ++i) {
    sent.push_back(
        std::string(random() % (i % 50 == 0 ? 3'000'000 : 20'000), static_cast<char>('a' + i % 26)));
    while (!one.Send(2, sent.back())) two.sink().WaitForFrames(SIZE_MAX, 1);
    if (i % 10 == 0) {
      EXPECT_TRUE(two.Send(1, "back"));
    }
  }
  ASSERT_TRUE(two.sink().WaitForFrames(sent.size()));
  ASSERT_TRUE(one.sink().WaitForFrames(30));
  const std::vector<Received> got = two.sink().TakeFrames();
  for (size_t i = 0; i < sent.size(); ++i) ASSERT_TRUE(got[i].bytes == sent[i]) << i;
}

TEST(Tls, CertificateOfAnotherAuthorityIsRefused) {
  Certificate authority("authority", nullptr);
  Certificate stranger_authority("stranger", nullptr);
  Certificate stranger("node.example", &stranger_authority);
  Identity identity(stranger, authority);
  Member one(1, TlsUrl(), "token", identity.table());
  Member two(2, TlsUrl(), "token", identity.table());
  one.SetPeers({{2, {two.url()}}});
  EXPECT_TRUE(one.host().WaitForLog("peer_unreachable"));
  EXPECT_GT(one.host().CountLog("certificate:"), 0);
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_UP), 0);
}

TEST(Tls, RefusalOfTheAuthenticatorEndsTheConnection) {
  Certificate authority("authority", nullptr);
  Certificate node("mallory", &authority);
  Identity identity(node, authority, "mallory");
  Member one(1, TlsUrl(), "token", identity.table());
  Member two(2, TlsUrl(), "token", identity.table());
  one.SetPeers({{2, {two.url()}}});
  // Both sides ask the authenticator; the one whose answer comes first ends the connection.
  const std::string refusal = "not authenticated: mallory is not a member";
  bool is_refused = false;
  for (int i = 0; i < 50 && !is_refused; ++i) {
    is_refused = one.host().WaitForLog(refusal, 50) || two.host().WaitForLog(refusal, 50);
  }
  EXPECT_TRUE(is_refused);
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_UP), 0);
}

TEST(Tls, PlainTextToATlsPortIsClosed) {
  Certificate authority("authority", nullptr);
  Certificate node("node.example", &authority);
  Identity identity(node, authority);
  Member one(1, LocalUrl(FreePort()), "token", identity.table());
  Member two(2, TlsUrl(), "token", identity.table());
  one.SetPeers({{2, {"http" + two.url().substr(5)}}});
  EXPECT_TRUE(one.host().WaitForLog("peer_unreachable"));
  EXPECT_TRUE(two.host().WaitForLog("connection_rejected"));
}

}  // namespace
}  // namespace keyway::transport_tcp
