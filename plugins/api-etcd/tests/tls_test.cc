// SPDX-License-Identifier: Apache-2.0
//
// TLS: ALPN, client certificates, principals, new material while running.
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "api_fixture.h"
#include "keyway/testing/pki.hpp"

namespace keyway::api_etcd::testing {
namespace {

using Identity = keyway::testing::Certificate;

struct TlsAnswer {
  bool is_connected = false;
  std::string server_name;  // CN of the server's certificate
  std::string alpn;
  std::string response;
};

TlsAnswer Ask(int port, const Identity* client, const std::string& request, int max_version = 0) {
  TlsAnswer answer;
  SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
  if (max_version != 0) SSL_CTX_set_max_proto_version(context, max_version);
  SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>("\x08http/1.1"), 9);
  if (client != nullptr) {
    SSL_CTX_use_certificate(context, client->x509());
    SSL_CTX_use_PrivateKey(context, client->key());
  }
  const int fd = Connect(port);
  SSL* const ssl = SSL_new(context);
  SSL_set_fd(ssl, fd);
  if (SSL_connect(ssl) == 1) {
    X509* const peer = SSL_get1_peer_certificate(ssl);
    char name[64] = "";
    X509_NAME_get_text_by_NID(X509_get_subject_name(peer), NID_commonName, name, sizeof name);
    answer.server_name = name;
    X509_free(peer);
    const unsigned char* protocol = nullptr;
    unsigned int bytes = 0;
    SSL_get0_alpn_selected(ssl, &protocol, &bytes);
    answer.alpn.assign(reinterpret_cast<const char*>(protocol), bytes);
    SSL_write(ssl, request.data(), static_cast<int>(request.size()));
    char buffer[4096];
    int count = 0;
    while ((count = SSL_read(ssl, buffer, sizeof buffer)) > 0) {
      answer.response.append(buffer, static_cast<size_t>(count));
    }
    // With TLS 1.3 a refused certificate shows only now.
    answer.is_connected = !answer.response.empty();
  }
  ERR_clear_error();
  SSL_free(ssl);
  SSL_CTX_free(context);
  close(fd);
  return answer;
}

const char kLivez[] = "GET /livez HTTP/1.0\r\n\r\n";

class TlsTest : public ::testing::Test {
 protected:
  TlsTest() : authority("authority"), server("server-1", &authority) {
    signal(SIGPIPE, SIG_IGN);  // Of this client; the plugin must not need it.
  }
  std::unique_ptr<Api> StartApi(bool requires_certificate, ApiOptions options = {}) {
    port = FreePort();
    options.push_back({"listen", "https://127.0.0.1:" + std::to_string(port)});
    auto api = std::make_unique<Api>(options);
    api->kernel().authenticate_principal = "alice";
    api->kernel().SetTls(server.CertificatePem(), server.KeyPem(), authority.CertificatePem(),
                         requires_certificate);
    kw_error error = {};
    error.size = sizeof error;
    const int32_t code = api->Start(&error);
    EXPECT_EQ(code, KW_OK) << error.text;
    return api;
  }

  Identity authority;
  Identity server;
  int port = 0;
};

TEST_F(TlsTest, ServesHttpAndNegotiatesTheProtocol) {
  const auto api = StartApi(false);
  const TlsAnswer answer = Ask(port, nullptr, kLivez);
  ASSERT_TRUE(answer.is_connected);
  EXPECT_EQ(answer.alpn, "http/1.1");
  EXPECT_TRUE(answer.response.ends_with("ok\n"));
  EXPECT_FALSE(Ask(port, nullptr, kLivez, TLS1_1_VERSION).is_connected);
}

TEST_F(TlsTest, RequiresACertificateOfTheAuthorityIfToldTo) {
  const auto api = StartApi(true);
  EXPECT_FALSE(Ask(port, nullptr, kLivez).is_connected);
  const Identity stranger("stranger");
  EXPECT_FALSE(Ask(port, &stranger, kLivez).is_connected);
  const Identity client("alice-cert", &authority);
  EXPECT_TRUE(Ask(port, &client, kLivez).is_connected);
}

TEST_F(TlsTest, RequestsCarryThePrincipalOfTheCertificate) {
  const auto api = StartApi(true);
  const Identity client("alice-cert", &authority);
  // gRPC over TLS needs ALPN on the real client; prior knowledge of HTTP/2 is served as well.
  std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  preface += std::string("\0\0\0\4\0\0\0\0\0", 9);
  nghttp2_hd_deflater* deflater = nullptr;
  nghttp2_hd_deflate_new(&deflater, 4096);
  const std::pair<std::string, std::string> fields[] = {{":method", "POST"},
                                                        {":scheme", "https"},
                                                        {":path", "/etcdserverpb.KV/Range"},
                                                        {":authority", "x"},
                                                        {"content-type", "application/grpc"},
                                                        {"te", "trailers"}};
  std::vector<nghttp2_nv> list;
  for (const auto& [name, value] : fields) {
    list.push_back({reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
                    reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
                    0});
  }
  uint8_t block[512];
  const ssize_t bytes = nghttp2_hd_deflate_hd(deflater, block, sizeof block, list.data(), list.size());
  nghttp2_hd_deflate_del(deflater);
  ASSERT_GT(bytes, 0);
  preface += std::string({'\0', '\0', static_cast<char>(bytes), 1, 4, 0, 0, 0, 1});
  preface.append(reinterpret_cast<char*>(block), static_cast<size_t>(bytes));
  etcdserverpb::RangeRequest request;
  request.set_key("a");
  const std::string body = Frame(request.SerializeAsString());
  preface += std::string({'\0', '\0', static_cast<char>(body.size()), 0, 1, 0, 0, 0, 1}) + body;
  // A GOAWAY makes the server end the connection after the answer.
  preface += std::string("\0\0\x08\7\0\0\0\0\0\0\0\0\0\0\0\0\0", 17);
  Ask(port, &client, preface);
  for (int i = 0; i < 1000 && api->kernel().last_principal().empty(); ++i) usleep(10000);
  EXPECT_EQ(api->kernel().last_principal(), "alice");
}

TEST_F(TlsTest, NewMaterialIsTakenOverWhileRunning) {
  const auto api = StartApi(false);
  EXPECT_EQ(Ask(port, nullptr, kLivez).server_name, "server-1");
  const Identity renewed("server-2", &authority);
  api->kernel().SetTls(renewed.CertificatePem(), renewed.KeyPem(), "", false);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  std::string name;
  while (name != "server-2" && std::chrono::steady_clock::now() < deadline) {
    name = Ask(port, nullptr, kLivez).server_name;
    usleep(50000);
  }
  EXPECT_EQ(name, "server-2");
  // Broken material leaves the last good one in use.
  api->kernel().SetTls("broken", "broken", "", false);
  while (api->kernel().Lines("tls_refresh_failed") == 0 && std::chrono::steady_clock::now() < deadline) {
    usleep(10000);
  }
  EXPECT_GE(api->kernel().Lines("tls_refresh_failed"), 1u);
  EXPECT_EQ(Ask(port, nullptr, kLivez).server_name, "server-2");
}

TEST_F(TlsTest, PlainTextOnATlsPortIsClosed) {
  const auto api = StartApi(false);
  const std::string answer = Http1(port, kLivez);
  EXPECT_EQ(answer.find("ok\n"), std::string::npos);
  EXPECT_TRUE(Ask(port, nullptr, kLivez).is_connected);
}

// The names of client_refused lines and of the metric.
std::string RefusalCell(const std::string& reason) {
  return "keyway_tls_refusals_total{port=client,reason=" + reason + "}";
}
bool WaitForCell(Api* api, const std::string& name) {
  for (int i = 0; i < 1000 && api->kernel().Cell(name) == 0; ++i) usleep(10000);
  return api->kernel().Cell(name) != 0;
}

TEST_F(TlsTest, ReasonOfARefusedCertificateIsCounted) {
  const auto api = StartApi(true);
  const Identity stranger_authority("stranger");
  const Identity stranger("alice", &stranger_authority);
  const Identity expired("alice", &authority, {.starts_s = -7200, .ends_s = -60});
  const Identity early("alice", &authority, {.starts_s = 60, .ends_s = 7200});
  const Identity revoked("alice", &authority);
  api->kernel().SetTls(server.CertificatePem(), server.KeyPem(), authority.CertificatePem(), true,
                       authority.ListPem({&revoked}));
  while (Ask(port, &revoked, kLivez).is_connected) usleep(50000);
  const std::pair<const Identity*, const char*> cases[] = {{&stranger, "unknown_ca"},
                                                           {&expired, "expired"},
                                                           {&early, "not_yet_valid"},
                                                           {&revoked, "revoked"},
                                                           {nullptr, "no_certificate"}};
  for (const auto& [certificate, reason] : cases) {
    EXPECT_FALSE(Ask(port, certificate, kLivez).is_connected) << reason;
    EXPECT_TRUE(WaitForCell(api.get(), RefusalCell(reason))) << reason;
  }
  EXPECT_GE(api->kernel().Lines("client_refused"), 5u);
  const Identity alice("alice", &authority);
  EXPECT_TRUE(Ask(port, &alice, kLivez).is_connected);
}

// A TLS connection that stays open.
class OpenTls {
 public:
  OpenTls(int port, const Identity& client) : context_(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_use_certificate(context_, client.x509());
    SSL_CTX_use_PrivateKey(context_, client.key());
    fd_ = Connect(port);
    ssl_ = SSL_new(context_);
    SSL_set_fd(ssl_, fd_);
    is_open_ = SSL_connect(ssl_) == 1;
  }
  ~OpenTls() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
    close(fd_);
  }
  bool Serves() {
    static constexpr std::string_view kRequest = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    char buffer[4096];
    return is_open_ && SSL_write(ssl_, kRequest.data(), static_cast<int>(kRequest.size())) > 0 &&
           SSL_read(ssl_, buffer, sizeof buffer) > 0;
  }
  // Blocks until the server ends the connection.
  bool WaitForEnd() {
    char byte;
    return SSL_read(ssl_, &byte, 1) <= 0;
  }

 private:
  SSL_CTX* const context_;
  SSL* ssl_ = nullptr;
  int fd_ = -1;
  bool is_open_ = false;
};

TEST_F(TlsTest, OpenConnectionsAreAuthenticatedAgainWhenTheMaterialMoves) {
  const auto api = StartApi(true, {{"io_threads", "2"}});
  const Identity alice("alice", &authority);
  std::vector<std::unique_ptr<OpenTls>> open;
  for (int i = 0; i < 100; ++i) {
    open.push_back(std::make_unique<OpenTls>(port, alice));
    ASSERT_TRUE(open.back()->Serves());
  }
  // New material under which they are accepted still does not disturb them.
  const Identity renewed("server-2", &authority);
  api->kernel().SetTls(renewed.CertificatePem(), renewed.KeyPem(), authority.CertificatePem(), true);
  while (Ask(port, &alice, kLivez).server_name != "server-2") usleep(50000);
  for (const auto& each : open) ASSERT_TRUE(each->Serves());

  const auto since = std::chrono::steady_clock::now();
  api->kernel().RefuseCertificates("revoked: certificate CN=alice");
  for (const auto& each : open) EXPECT_TRUE(each->WaitForEnd());
  EXPECT_LT(std::chrono::steady_clock::now() - since, std::chrono::seconds(5));
  EXPECT_EQ(api->kernel().Cell(RefusalCell("revoked")), 100u);
}

TEST_F(TlsTest, RefusalByTheAuthenticatorIsToldToTheClient) {
  const auto api = StartApi(true);
  api->kernel().RefuseCertificates("no_identity: certificate without a CN");
  const Identity alice("alice", &authority);
  EXPECT_TRUE(Ask(port, &alice, kLivez).is_connected);
  EXPECT_TRUE(WaitForCell(api.get(), RefusalCell("no_identity")));
}

TEST_F(TlsTest, HalfOpenHandshakesMakeRoomForNewerOnes) {
  const auto api = StartApi(true, {{"handshake_slots", "8"}, {"handshake_timeout", "1000"}});
  const Identity alice("alice", &authority);
  OpenTls before(port, alice);
  ASSERT_TRUE(before.Serves());
  std::vector<int> held;
  for (int i = 0; i < 100; ++i) {
    held.push_back(Connect(port));
    ASSERT_EQ(send(held.back(), "\x16\x03\x01", 3, MSG_NOSIGNAL), 3);
  }
  EXPECT_TRUE(Ask(port, &alice, kLivez).is_connected);
  EXPECT_TRUE(before.Serves());
  EXPECT_GE(api->kernel().Cell("keyway_tls_handshakes_evicted_total{port=client}"), 92u);
  // Those that kept their slot end by the deadline.
  char byte;
  EXPECT_EQ(recv(held.back(), &byte, 1, 0), 0);
  EXPECT_TRUE(WaitForCell(api.get(), RefusalCell("timeout")));
  for (const int fd : held) close(fd);
}

TEST_F(TlsTest, FirstBytesOfAPlainConnectionHaveADeadline) {
  Api api(ApiOptions{{"handshake_timeout", "500"}});
  const int fd = Connect(api.port());
  char byte;
  EXPECT_EQ(recv(fd, &byte, 1, 0), 0);
  close(fd);
}

TEST_F(TlsTest, UnknownHostToListenOnIsNamed) {
  Api api(ApiOptions{{"listen", "http://no-such-host.invalid:2379"}});
  kw_error error = {};
  error.size = sizeof error;
  EXPECT_EQ(api.Start(&error), KW_INVALID_ARGUMENT);
  EXPECT_NE(std::string(error.text).find("host \"no-such-host.invalid\""), std::string::npos) << error.text;
}

TEST_F(TlsTest, NameOfThisMachineIsListenedOn) {
  const int free_port = FreePort();
  Api api(ApiOptions{{"listen", "http://localhost:" + std::to_string(free_port)}});
  kw_error error = {};
  error.size = sizeof error;
  ASSERT_EQ(api.Start(&error), KW_OK) << error.text;
}

TEST_F(TlsTest, HttpsWithoutMaterialIsRefusedByName) {
  Api api(ApiOptions{{"listen", "https://127.0.0.1:" + std::to_string(FreePort())}});
  kw_error error = {};
  error.size = sizeof error;
  EXPECT_EQ(api.Start(&error), KW_FAILED_PRECONDITION);
  EXPECT_NE(std::string(error.text).find("client-server"), std::string::npos);
}

}  // namespace
}  // namespace keyway::api_etcd::testing
