// SPDX-License-Identifier: Apache-2.0
//
// Members that speak TLS, with an authority and certificates made for the test.
#include <gtest/gtest.h>
#include <openssl/x509v3.h>

#include <cstring>
#include <list>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "keyway/slice.hpp"
#include "keyway/testing/pki.hpp"
#include "tests/abi/transport_host.h"

extern "C" const kw_entry* kw_plugin_entry_transport_tcp(void);

namespace keyway::transport_test {
const kw_entry* TransportUnderTest() { return kw_plugin_entry_transport_tcp(); }
}  // namespace keyway::transport_test

namespace keyway::transport_tcp {
using namespace transport_test;
namespace {

using testing::Certificate;

// keyway.identity/1 with one certificate for both roles and settable material; it answers on threads of
// its own.
class Identity {
 public:
  Identity(const Certificate& own, const Certificate& roots, std::string refused_name = "")
      : refused_(refused_name) {
    table_ = {sizeof(table_), 0, &Identity::Authenticate, &Identity::Tls};
    current_ = this;
    Set(own, roots.CertificatePem());
  }
  ~Identity() {
    for (std::thread& thread : threads_) thread.join();
  }
  const kw_identity* table() const { return &table_; }
  // What is handed out from now on, under a new generation.
  void Set(const Certificate& own, const std::string& roots, const std::string& lists = "") {
    std::lock_guard lock(mutex_);
    chain_ = own.CertificatePem();
    key_ = own.KeyPem();
    roots_ = roots;
    lists_ = lists;
    ++generation_;
  }
  // authenticate() answers with `reason` for this CN from now on; the material counts as new.
  void Refuse(const std::string& name, const std::string& reason) {
    std::lock_guard lock(mutex_);
    refused_ = name;
    reason_ = reason;
    ++generation_;
  }

 private:
  struct Material : kw_tls {
    std::string chain_text, key_text, roots_text, lists_text;
  };
  static int32_t Tls(const kw_host*, const char*, kw_tls** out, kw_error*) {
    Identity* self = current_;
    std::lock_guard lock(self->mutex_);
    auto* tls = new Material{{}, self->chain_, self->key_, self->roots_, self->lists_};
    tls->size = sizeof(kw_tls);
    tls->flags = KW_TLS_REQUIRE_PEER_CERTIFICATE;
    tls->generation = self->generation_;
    tls->chain = Slice(tls->chain_text);
    tls->key = Slice(tls->key_text);
    tls->roots = Slice(tls->roots_text);
    tls->crl = Slice(tls->lists_text);
    tls->kw_tls::release = [](kw_tls* released) { delete static_cast<Material*>(released); };
    *out = tls;
    return KW_OK;
  }
  static int32_t Authenticate(const kw_host*, const kw_evidence* evidence, kw_principal* out,
                              kw_completion* completion) {
    Identity* self = current_;
    std::lock_guard lock(self->mutex_);
    self->threads_.emplace_back([self, evidence, out, completion] {
      const unsigned char* der = evidence->primary.ptr;
      X509* leaf = d2i_X509(nullptr, &der, static_cast<long>(evidence->primary.len));
      char name[64] = "";
      X509_NAME_get_text_by_NID(X509_get_subject_name(leaf), NID_commonName, name, sizeof(name));
      X509_free(leaf);
      std::unique_lock lock(self->mutex_);
      if (name == self->refused_) {
        kw_error error = {};
        error.size = sizeof(error);
        error.code = KW_UNAUTHENTICATED;
        std::snprintf(error.text, sizeof(error.text), "%s%s is not a member", self->reason_.c_str(), name);
        lock.unlock();
        return completion->done(completion, KW_UNAUTHENTICATED, &error);
      }
      lock.unlock();
      out->len = static_cast<uint32_t>(std::strlen(name));
      std::memcpy(out->name, name, out->len);
      completion->done(completion, KW_OK, nullptr);
    });
    return KW_PENDING;
  }

  static inline Identity* current_ = nullptr;  // One identity a test.
  kw_identity table_;
  std::mutex mutex_;
  // Guarded by mutex_.
  std::string chain_, key_, roots_, lists_, refused_, reason_;
  uint64_t generation_ = 0;
  std::list<std::thread> threads_;
};

std::string TlsUrl() { return "https://127.0.0.1:" + std::to_string(FreePort()); }

TEST(Tls, FramesArriveAndThePrincipalIsKnown) {
  Certificate authority("authority");
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
  Certificate authority("authority");
  Certificate stranger_authority("stranger");
  Certificate stranger("node.example", &stranger_authority);
  Identity identity(stranger, authority);
  Member one(1, TlsUrl(), "token", identity.table());
  Member two(2, TlsUrl(), "token", identity.table());
  one.SetPeers({{2, {two.url()}}});
  EXPECT_TRUE(one.host().WaitForLog("peer_unreachable"));
  EXPECT_GT(one.host().CountLog("reason=unknown_ca"), 0);
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_UP), 0);
}

TEST(Tls, RefusalOfTheAuthenticatorEndsTheConnection) {
  Certificate authority("authority");
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

TEST(Tls, RevokedCertificateDoesNotGetIn) {
  Certificate authority("authority");
  Certificate node("node.example", &authority);
  Identity identity(node, authority);
  identity.Set(node, authority.CertificatePem(), authority.ListPem({&node}));
  Member one(1, TlsUrl(), "token", identity.table());
  Member two(2, TlsUrl(), "token", identity.table());
  one.SetPeers({{2, {two.url()}}});
  EXPECT_TRUE(one.host().WaitForLog("reason=revoked"));
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_UP), 0);
  EXPECT_GE(one.host().Metric("keyway_tls_refusals_total{port=peer}{reason=revoked}"), 1u);
}

TEST(Tls, OpenConnectionsAreAuthenticatedAgainWhenTheMaterialMoves) {
  Certificate authority("authority");
  Certificate node("node.example", &authority);
  Identity identity(node, authority);
  Member one(1, TlsUrl(), "token", identity.table());
  Member two(2, TlsUrl(), "token", identity.table());
  one.SetPeers({{2, {two.url()}}});
  two.SetPeers({{1, {one.url()}}});
  ASSERT_TRUE(one.sink().WaitForState(2, KW_PEER_UP));
  ASSERT_TRUE(two.sink().WaitForState(1, KW_PEER_UP));

  // New material of the same authority changes nothing for them.
  Certificate renewed("node.example", &authority);
  identity.Set(renewed, authority.CertificatePem());
  const uint64_t since = TestHost::Now();
  identity.Refuse("node.example", "revoked: ");
  ASSERT_TRUE(one.sink().WaitForState(2, KW_PEER_DOWN));
  ASSERT_TRUE(two.sink().WaitForState(1, KW_PEER_DOWN));
  EXPECT_LT(TestHost::Now() - since, 5'000'000'000u);
  EXPECT_TRUE(two.host().WaitForLog("reason=revoked"));
  identity.Refuse("", "");
  EXPECT_TRUE(one.sink().WaitForState(2, KW_PEER_UP));
  EXPECT_TRUE(two.sink().WaitForState(1, KW_PEER_UP));
}

TEST(Tls, RotationThroughAnOverlapKeepsConnections) {
  Certificate old_authority("old authority"), new_authority("new authority");
  Certificate old_node("node", &old_authority), new_node("node", &new_authority);
  Identity identity(old_node, old_authority);
  Member one(1, TlsUrl(), "token", identity.table());
  Member two(2, TlsUrl(), "token", identity.table());
  one.SetPeers({{2, {two.url()}}});
  two.SetPeers({{1, {one.url()}}});
  ASSERT_TRUE(one.sink().WaitForState(2, KW_PEER_UP));
  const std::string both = old_authority.CertificatePem() + new_authority.CertificatePem();
  identity.Set(old_node, both);
  identity.Set(new_node, both);
  // A third member sees when the new material is in use.
  Member three(3, TlsUrl(), "token", identity.table());
  three.SetPeers({{2, {two.url()}}});
  ASSERT_TRUE(three.sink().WaitForState(2, KW_PEER_UP));
  EXPECT_TRUE(one.Send(2, "still here"));
  EXPECT_TRUE(two.sink().WaitForFrames(1));
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_DOWN), 0);
}

TEST(Tls, AcceptorMustHaveTheNameThatIsDialled) {
  Certificate authority("authority");
  Certificate node("127.0.0.1", &authority, {.names = "DNS:elsewhere.example"});  // The CN does not count.
  Identity identity(node, authority);
  Member one(1, TlsUrl(), "token", identity.table());
  Member two(2, TlsUrl(), "token", identity.table());
  one.SetPeers({{2, {two.url()}}});
  EXPECT_TRUE(one.host().WaitForLog("reason=name_mismatch"));
  EXPECT_EQ(one.sink().StateCount(2, KW_PEER_UP), 0);
}

TEST(Tls, DialerMustHaveANameOfTheMemberThatItClaimsToBe) {
  Certificate authority("authority");
  Certificate node("node", &authority, {.names = "IP:127.0.0.1"});
  Identity identity(node, authority);
  Member one(1, TlsUrl(), "token", identity.table());
  Member two(2, TlsUrl(), "token", identity.table());
  // Unknown as yet, the member gets in; once its addresses are known, it must have one of them.
  one.SetPeers({{2, {two.url()}}});
  ASSERT_TRUE(one.sink().WaitForState(2, KW_PEER_UP));
  two.SetPeers({{1, {"https://127.0.0.7:" + std::to_string(FreePort())}}});
  EXPECT_TRUE(two.host().WaitForLog("has no name of member 1 (127.0.0.7)"));
  EXPECT_TRUE(one.sink().WaitForState(2, KW_PEER_DOWN));
  EXPECT_TRUE(one.host().WaitForLog("refused: name_mismatch"));
  two.SetPeers({{1, {"https://127.0.0.7:" + std::to_string(FreePort()), one.url()}}});
  EXPECT_TRUE(one.sink().WaitForState(2, KW_PEER_UP));
}

// Half-open handshakes take slots; a newer connection takes the slot of the oldest.
TEST(Tls, HalfOpenHandshakesDoNotKeepMembersOut) {
  Certificate authority("authority");
  Certificate node("node", &authority);
  Identity identity(node, authority);
  Member one(1, TlsUrl(), "token", identity.table());
  Member two(2, TlsUrl(), "token", identity.table());
  std::vector<int> held;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(std::stoi(two.url().substr(two.url().rfind(':') + 1))));
  for (int i = 0; i < 300; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(send(fd, "\x16\x03\x01", 3, MSG_NOSIGNAL), 3);
    held.push_back(fd);
  }
  one.SetPeers({{2, {two.url()}}});
  EXPECT_TRUE(one.sink().WaitForState(2, KW_PEER_UP, 3000));
  EXPECT_GT(two.host().Metric("keyway_tls_handshakes_evicted_total{port=peer}"), 0u);
  // The others end by their deadline.
  char byte;
  EXPECT_EQ(recv(held.back(), &byte, 1, 0), 0);
  EXPECT_TRUE(two.host().WaitForLog("reason=timeout"));
  for (const int fd : held) close(fd);
}

TEST(Tls, PlainTextToATlsPortIsClosed) {
  Certificate authority("authority");
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
