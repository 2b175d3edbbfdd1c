// SPDX-License-Identifier: Apache-2.0
//
// Members that speak TLS, with authorities and certificates made for the test.
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

namespace keyway::transport_grpc {
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

// An authority, or what one signs.
class Certificate {
 public:
  struct Shape {
    const char* names = "IP:127.0.0.1";
    long valid_seconds = 3600;  // From now; negative: expired.
  };
  Certificate(const std::string& name, const Certificate* maybe_issuer)
      : Certificate(name, maybe_issuer, Shape{}) {}
  Certificate(const std::string& name, const Certificate* maybe_issuer, Shape shape) {
    key_ = EVP_EC_gen("P-256");
    x509_ = X509_new();
    X509_set_version(x509_, 2);
    static std::atomic<long> serial{1};
    ASN1_INTEGER_set(X509_get_serialNumber(x509_), serial++);
    X509_gmtime_adj(X509_getm_notBefore(x509_), -7200);
    X509_gmtime_adj(X509_getm_notAfter(x509_), shape.valid_seconds);
    X509_set_pubkey(x509_, key_);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x509_), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    const Certificate& issuer = maybe_issuer == nullptr ? *this : *maybe_issuer;
    X509_set_issuer_name(x509_, X509_get_subject_name(issuer.x509_));
    Extend(NID_basic_constraints, maybe_issuer == nullptr ? "critical,CA:TRUE" : "CA:FALSE");
    if (maybe_issuer != nullptr) Extend(NID_subject_alt_name, shape.names);
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
  // A list of this authority that revokes `revoked`.
  std::string RevocationPem(const Certificate& revoked) const {
    X509_CRL* list = X509_CRL_new();
    X509_CRL_set_version(list, 1);
    X509_CRL_set_issuer_name(list, X509_get_subject_name(x509_));
    ASN1_TIME* time = ASN1_TIME_new();
    X509_gmtime_adj(time, -60);
    X509_CRL_set1_lastUpdate(list, time);
    X509_gmtime_adj(time, 3600);
    X509_CRL_set1_nextUpdate(list, time);
    X509_REVOKED* entry = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked.x509_));
    X509_gmtime_adj(time, -30);
    X509_REVOKED_set_revocationDate(entry, time);
    X509_CRL_add0_revoked(list, entry);
    X509_CRL_sign(list, key_, EVP_sha256());
    const std::string pem = ToPem([list](BIO* bio) { PEM_write_bio_X509_CRL(bio, list); });
    ASN1_TIME_free(time);
    X509_CRL_free(list);
    return pem;
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
  Identity(const Certificate& own, const Certificate& roots) {
    table_.size = sizeof(kw_identity);
    table_.authenticate = &Identity::Authenticate;
    table_.tls = &Identity::Tls;
    table_.owner = this;
    Set(own, roots);
  }
  ~Identity() {
    for (std::thread& thread : threads_) thread.join();
  }
  const kw_identity* table() const { return &table_; }

  // A new generation.
  void Set(const Certificate& own, const Certificate& roots, const std::string& lists = "") {
    std::lock_guard lock(mutex_);
    material_ = {own.CertificatePem(), own.KeyPem(), roots.CertificatePem(), lists};
    ++generation_;
  }
  void Refuse(const std::string& name) {
    std::lock_guard lock(mutex_);
    refused_ = name;
    ++generation_;
  }
  void SetMinVersion(const char* version) { min_version_ = version; }

 private:
  struct Table : kw_identity {
    Identity* owner;
  };
  struct Material {
    std::string chain, key, roots, lists;
  };
  struct Given : kw_tls {
    Material material;
  };
  static Identity* Of(const kw_host* host) {
    return static_cast<const Table*>(static_cast<const kw_identity*>(host->get(host, KW_IDENTITY)))->owner;
  }
  static kw_slice Slice(std::string_view text) {
    return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
  }
  static int32_t Tls(const kw_host* host, const char*, kw_tls** out, kw_error*) {
    Identity* self = Of(host);
    std::lock_guard lock(self->mutex_);
    auto* given = new Given{};
    given->material = self->material_;
    given->size = sizeof(kw_tls);
    given->flags = KW_TLS_REQUIRE_PEER_CERTIFICATE;
    given->generation = self->generation_;
    given->chain = Slice(given->material.chain);
    given->key = Slice(given->material.key);
    given->roots = Slice(given->material.roots);
    given->crl = Slice(given->material.lists);
    given->min_version = Slice(self->min_version_);
    given->release = [](kw_tls* released) { delete static_cast<Given*>(released); };
    *out = given;
    return KW_OK;
  }
  static int32_t Authenticate(const kw_host* host, const kw_evidence* evidence, kw_principal* out,
                              kw_completion* completion) {
    Identity* self = Of(host);
    std::lock_guard lock(self->mutex_);
    self->threads_.emplace_back([refused = self->refused_, evidence, out, completion] {
      const unsigned char* der = evidence->primary.ptr;
      X509* leaf = d2i_X509(nullptr, &der, static_cast<long>(evidence->primary.len));
      char name[64] = "";
      X509_NAME_get_text_by_NID(X509_get_subject_name(leaf), NID_commonName, name, sizeof(name));
      X509_free(leaf);
      if (name == refused) {
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

  Table table_ = {};
  std::mutex mutex_;
  Material material_;
  uint64_t generation_ = 0;
  std::string refused_;
  const char* min_version_ = "1.2";
  std::list<std::thread> threads_;
};

std::string TlsUrl() { return "https://127.0.0.1:" + std::to_string(FreePort()); }

// Two members, each with an identity of its own.
struct Pair {
  Pair(Identity* first, Identity* second)
      : one(1, TlsUrl(), "token", first->table()), two(2, TlsUrl(), "token", second->table()) {
    EXPECT_EQ(one.listen_code(), KW_OK) << one.error();
    EXPECT_EQ(two.listen_code(), KW_OK) << two.error();
  }
  void Connect() {
    one.SetPeers({{2, {two.url()}}});
    two.SetPeers({{1, {one.url()}}});
  }
  bool WaitForUp() {
    return one.sink().WaitForState(2, KW_PEER_UP) && two.sink().WaitForState(1, KW_PEER_UP);
  }
  Member one, two;
};

class Tls : public ::testing::Test {
 protected:
  Certificate authority{"authority", nullptr};
  Certificate stranger{"stranger", nullptr};
  Certificate node{"node.example", &authority};
};

TEST_F(Tls, FramesArriveAndThePrincipalIsKnown) {
  Identity identity(node, authority);
  Pair pair(&identity, &identity);
  pair.Connect();
  ASSERT_TRUE(pair.WaitForUp());
  EXPECT_EQ(pair.one.sink().Principal(2), "node.example");

  std::mt19937 random(3);
  std::vector<std::string> sent;
  for (int i = 0; i < 200; ++i) {
    sent.push_back(
        std::string(random() % (i % 50 == 0 ? 3'000'000 : 20'000), static_cast<char>('a' + i % 26)));
    while (!pair.one.Send(2, sent.back())) pair.two.sink().WaitForFrames(SIZE_MAX, 1);
    if (i % 10 == 0) {
      EXPECT_TRUE(pair.two.Send(1, "back"));
    }
  }
  ASSERT_TRUE(pair.two.sink().WaitForFrames(sent.size()));
  ASSERT_TRUE(pair.one.sink().WaitForFrames(20));
  const std::vector<Received> got = pair.two.sink().TakeFrames();
  for (size_t i = 0; i < sent.size(); ++i) ASSERT_TRUE(got[i].bytes == sent[i]) << i;
}

// Member two's certificate is bad. Its own connections and those to it are refused, both with the reason.
void ExpectRefused(Pair* pair, const std::string& reason) {
  pair->one.SetPeers({{2, {pair->two.url()}}});
  EXPECT_TRUE(pair->one.host().WaitForLog("peer_unreachable peer=2")) << reason;
  EXPECT_GT(pair->one.host().CountLog(reason), 0) << reason;
  pair->two.SetPeers({{1, {pair->one.url()}}});
  EXPECT_TRUE(pair->one.host().WaitForLog("connection_rejected")) << reason;
  EXPECT_TRUE(pair->two.host().WaitForLog("refused: " + reason)) << reason;
  EXPECT_EQ(pair->one.sink().StateCount(2, KW_PEER_UP), 0);
  EXPECT_EQ(pair->two.sink().StateCount(1, KW_PEER_UP), 0);
}

TEST_F(Tls, CertificateOfAnotherAuthorityIsRefused) {
  Certificate bad("node.example", &stranger);
  Identity good(node, authority), other(bad, authority);
  Pair pair(&good, &other);
  ExpectRefused(&pair, "unknown_ca: ");
}

TEST_F(Tls, ExpiredCertificateIsRefused) {
  Certificate bad("node.example", &authority, {.valid_seconds = -60});
  Identity good(node, authority), other(bad, authority);
  Pair pair(&good, &other);
  ExpectRefused(&pair, "expired: ");
}

TEST_F(Tls, RevokedCertificateIsRefused) {
  Certificate bad("node.example", &authority);
  Identity good(node, authority), other(bad, authority);
  good.Set(node, authority, authority.RevocationPem(bad));
  Pair pair(&good, &other);
  ExpectRefused(&pair, "revoked: ");
}

TEST_F(Tls, CertificateOfAnotherHostIsRefused) {
  Certificate bad("node.example", &authority, {.names = "IP:127.0.0.9,DNS:other.example"});
  Identity good(node, authority), other(bad, authority);
  Pair pair(&good, &other);
  ExpectRefused(&pair, "name_mismatch: ");
}

TEST_F(Tls, RefusalOfTheAuthenticatorEndsTheConnection) {
  Certificate bad("mallory", &authority);
  Identity good(node, authority), other(bad, authority);
  good.Refuse("mallory");
  Pair pair(&good, &other);
  pair.two.SetPeers({{1, {pair.one.url()}}});
  EXPECT_TRUE(pair.two.host().WaitForLog("refused: not authenticated: mallory is not a member"));
  EXPECT_EQ(pair.two.sink().StateCount(1, KW_PEER_UP), 0);
}

TEST_F(Tls, PlainTextToATlsPortIsClosed) {
  Identity identity(node, authority);
  Member one(1, LocalUrl(FreePort()), "token", identity.table());
  Member two(2, TlsUrl(), "token", identity.table());
  one.SetPeers({{2, {"http" + two.url().substr(5)}}});
  EXPECT_TRUE(one.host().WaitForLog("peer_unreachable"));
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_UP), 0);
}

TEST_F(Tls, RenewedMaterialIsTakenOverWithoutALostConnectionOrWrite) {
  Certificate next_node("renewed.example", &authority);
  Identity first(node, authority), second(node, authority);
  Pair pair(&first, &second);
  pair.Connect();
  ASSERT_TRUE(pair.WaitForUp());

  first.Set(next_node, authority);
  second.Set(next_node, authority);
  int sent = 0;
  const uint64_t end = TestHost::Now() + 3'000'000'000;
  for (; TestHost::Now() < end; ++sent) {
    ASSERT_TRUE(pair.one.Send(2, std::to_string(sent)));
    pair.two.sink().WaitForFrames(static_cast<size_t>(sent) + 1, 1000);
  }
  ASSERT_TRUE(pair.two.sink().WaitForFrames(static_cast<size_t>(sent)));
  EXPECT_EQ(pair.one.sink().StateCount(2, KW_PEER_DOWN), 0);
  EXPECT_EQ(pair.one.host().CountLog("peer_lost"), 0);

  // A new connection shows the new certificate.
  Member three(3, TlsUrl(), "token", second.table());
  three.SetPeers({{1, {pair.one.url()}}});
  ASSERT_TRUE(three.sink().WaitForState(1, KW_PEER_UP));
  EXPECT_EQ(three.sink().Principal(1), "renewed.example");
}

TEST_F(Tls, OtherAuthorityForAllIsTakenOverToo) {
  Certificate next_node("renewed.example", &stranger);
  Identity identity(node, authority);
  Pair pair(&identity, &identity);
  pair.Connect();
  ASSERT_TRUE(pair.WaitForUp());
  identity.Set(next_node, stranger);
  // The old certificates are not good any more: the connections end and come back.
  ASSERT_TRUE(pair.one.host().WaitForLog("peer_lost"));
  EXPECT_TRUE(pair.one.sink().WaitForState(2, KW_PEER_UP));
  EXPECT_TRUE(pair.two.sink().WaitForState(1, KW_PEER_UP));
}

TEST_F(Tls, CertificateThatIsRevokedLaterIsClosedWithinFiveSeconds) {
  Certificate bad("node2.example", &authority);
  Identity good(node, authority), other(bad, authority);
  Pair pair(&good, &other);
  pair.Connect();
  ASSERT_TRUE(pair.WaitForUp());
  good.Set(node, authority, authority.RevocationPem(bad));
  EXPECT_TRUE(pair.one.sink().WaitForState(2, KW_PEER_DOWN, 5000));
  EXPECT_TRUE(pair.two.sink().WaitForState(1, KW_PEER_DOWN, 5000));
  EXPECT_TRUE(pair.one.host().WaitForLog("revoked: "));
}

TEST_F(Tls, MemberThatIsRefusedLaterIsClosed) {
  Certificate bad("mallory", &authority);
  Identity good(node, authority), other(bad, authority);
  Pair pair(&good, &other);
  pair.Connect();
  ASSERT_TRUE(pair.WaitForUp());
  good.Refuse("mallory");
  EXPECT_TRUE(pair.one.sink().WaitForState(2, KW_PEER_DOWN, 5000));
  EXPECT_TRUE(pair.one.host().WaitForLog("not authenticated: mallory is not a member"));
}

TEST_F(Tls, MaterialThatCannotBeUsedIsRefusedAtTheStart) {
  Identity identity(node, authority);
  identity.SetMinVersion("1.3");
  Member member(1, TlsUrl(), "token", identity.table());
  EXPECT_EQ(member.listen_code(), KW_UNAVAILABLE);
  EXPECT_NE(std::string(member.error()).find("min_version 1.3"), std::string::npos) << member.error();
}

}  // namespace
}  // namespace keyway::transport_grpc
