// SPDX-License-Identifier: Apache-2.0
//
// TLS: ALPN, client certificates, principals, new material while running.
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "api_fixture.h"

namespace keyway::api_etcd::testing {
namespace {

struct Identity {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = nullptr;

  // Signed by `issuer`, or by itself.
  Identity(const std::string& name, const Identity* issuer, long serial) {
    certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    const Identity* const signer = issuer == nullptr ? this : issuer;
    X509_set_issuer_name(certificate, X509_get_subject_name(signer->certificate));
    if (issuer == nullptr) {
      X509_EXTENSION* const extension =
          X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, "critical,CA:TRUE");
      X509_add_ext(certificate, extension, -1);
      X509_EXTENSION_free(extension);
    }
    X509_sign(certificate, signer->key, EVP_sha256());
  }
  ~Identity() {
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
  std::string CertificatePem() const {
    return Pem([this](BIO* bio) { PEM_write_bio_X509(bio, certificate); });
  }
  std::string KeyPem() const {
    return Pem(
        [this](BIO* bio) { PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr); });
  }

 private:
  static std::string Pem(const std::function<void(BIO*)>& write) {
    BIO* const bio = BIO_new(BIO_s_mem());
    write(bio);
    char* data = nullptr;
    const long bytes = BIO_get_mem_data(bio, &data);
    std::string text(data, static_cast<size_t>(bytes));
    BIO_free(bio);
    return text;
  }
};

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
    SSL_CTX_use_certificate(context, client->certificate);
    SSL_CTX_use_PrivateKey(context, client->key);
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
  TlsTest() : authority("authority", nullptr, 1), server("server-1", &authority, 2) {
    signal(SIGPIPE, SIG_IGN);  // Of this client; the plugin must not need it.
  }
  std::unique_ptr<Api> StartApi(bool requires_certificate) {
    port = FreePort();
    auto api = std::make_unique<Api>(ApiOptions{{"listen", "https://127.0.0.1:" + std::to_string(port)}});
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
  const Identity stranger("stranger", nullptr, 3);
  EXPECT_FALSE(Ask(port, &stranger, kLivez).is_connected);
  const Identity client("alice-cert", &authority, 4);
  EXPECT_TRUE(Ask(port, &client, kLivez).is_connected);
}

TEST_F(TlsTest, RequestsCarryThePrincipalOfTheCertificate) {
  const auto api = StartApi(true);
  const Identity client("alice-cert", &authority, 4);
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
  const Identity renewed("server-2", &authority, 5);
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

TEST_F(TlsTest, HttpsWithoutMaterialIsRefusedByName) {
  Api api(ApiOptions{{"listen", "https://127.0.0.1:" + std::to_string(FreePort())}});
  kw_error error = {};
  error.size = sizeof error;
  EXPECT_EQ(api.Start(&error), KW_FAILED_PRECONDITION);
  EXPECT_NE(std::string(error.text).find("client-server"), std::string::npos);
}

}  // namespace
}  // namespace keyway::api_etcd::testing
