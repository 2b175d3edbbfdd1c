// SPDX-License-Identifier: Apache-2.0
//
// The plugin through its ABI, with files that change.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "keyway/authenticator.h"
#include "keyway/host.h"
#include "keyway/slice.hpp"
#include "keyway/testing/pki.hpp"

extern "C" const kw_entry* kw_plugin_entry_auth_mtls(void);

namespace keyway::auth_mtls {
namespace {

using testing::Certificate;

class Host {
 public:
  Host() {
    host_ = {sizeof(kw_host), KW_ABI_MAJOR, KW_ABI_MINOR, this, "keyway test", &Host::Get};
    log_ = {sizeof(kw_log), KW_LOG_DEBUG, &Host::Write};
    clock_.size = sizeof clock_;
    clock_.mono_ns = [](const kw_host*) { return Now(CLOCK_MONOTONIC); };
    clock_.wall_ns = [](const kw_host* host) { return Now(CLOCK_REALTIME) + Self(host)->ahead_ns; };
    metrics_ = {sizeof(kw_metrics), 0, &Host::Cell, nullptr};
  }
  const kw_host* get() const { return &host_; }
  bool WaitForLine(const std::string& text, int count = 1) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return Count(text) >= count; });
  }
  int CountLines(const std::string& text) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return Count(text);
  }
  uint64_t Metric(const std::string& name) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = cells_.find(name);
    return found == cells_.end() ? 0 : __atomic_load_n(found->second.get(), __ATOMIC_RELAXED);
  }
  std::atomic<uint64_t> ahead_ns = 0;  // Of the wall clock.

 private:
  static uint64_t Now(clockid_t id) {
    timespec now;
    clock_gettime(id, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  }
  static Host* Self(const kw_host* host) { return static_cast<Host*>(host->self); }
  static const void* Get(const kw_host* host, const char* service) {
    const std::string id = service;
    if (id == KW_LOG) return &Self(host)->log_;
    if (id == KW_CLOCK) return &Self(host)->clock_;
    if (id == KW_METRICS) return &Self(host)->metrics_;
    return nullptr;
  }
  static void Write(const kw_host* host, uint32_t, const char* event, const kw_field* fields, size_t count) {
    std::string line = event;
    for (size_t i = 0; i < count; ++i) {
      line += std::string(" ") + fields[i].key + "=" + std::string(View(fields[i].value));
    }
    const std::lock_guard<std::mutex> lock(Self(host)->mutex_);
    Self(host)->lines_.push_back(line);
    Self(host)->changed_.notify_all();
  }
  static uint64_t* Cell(const kw_host* host, uint32_t, const char* name, const char*, const kw_field* labels,
                        size_t count) {
    std::string key = name;
    for (size_t i = 0; i < count; ++i) key += "{" + std::string(View(labels[i].value)) + "}";
    const std::lock_guard<std::mutex> lock(Self(host)->mutex_);
    auto& cell = Self(host)->cells_[key];
    if (cell == nullptr) cell = std::make_unique<uint64_t>(0);
    return cell.get();
  }
  int Count(const std::string& text) const {
    int count = 0;
    for (const std::string& line : lines_) count += line.find(text) != std::string::npos;
    return count;
  }

  kw_host host_ = {};
  kw_log log_ = {};
  kw_clock clock_ = {};
  kw_metrics metrics_ = {};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
  std::map<std::string, std::unique_ptr<uint64_t>> cells_;
};

struct Answer {
  int32_t code = KW_OK;
  std::string principal, text;
};

class AuthMtls : public ::testing::Test {
 protected:
  AuthMtls() : authority_("authority"), server_("server", &authority_) {
    char name[] = "/tmp/keyway-auth-XXXXXX";
    directory_ = mkdtemp(name);
    Save("cert.pem", server_.CertificatePem());
    Save("key.pem", server_.KeyPem());
    Save("ca.pem", authority_.CertificatePem());
    Save("crl.pem", authority_.ListPem({}));
    options_ = {{"poll_interval", "100"}};
    for (const std::string prefix : {"", "peer_"}) {
      options_[prefix + "cert_file"] = Path("cert.pem");
      options_[prefix + "key_file"] = Path("key.pem");
      options_[prefix + "ca_file"] = Path("ca.pem");
      options_[prefix + "crl_file"] = Path("crl.pem");
    }
  }
  ~AuthMtls() override {
    if (plugin_ != nullptr) {
      if (is_started_) plugin_->stop(plugin_);
      plugin_->destroy(plugin_);
    }
    for (const std::string& name : saved_) unlink(Path(name).c_str());
    rmdir(directory_.c_str());
  }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  void Save(const std::string& name, const std::string& text) {
    std::ofstream(Path(name) + ".new", std::ios::binary) << text;
    chmod((Path(name) + ".new").c_str(), 0600);
    rename((Path(name) + ".new").c_str(), Path(name).c_str());
    saved_.push_back(name);
  }
  // KW_OK, or the code of create() or start(); the text is in error_.
  int32_t Start() {
    const kw_descriptor* const descriptor = kw_plugin_entry_auth_mtls()->plugins[0];
    std::vector<kw_config_item> items;
    uint32_t line = 10;
    for (const auto& [key, value] : options_) items.push_back({key.c_str(), Slice(value), ++line, 0});
    error_ = {};
    error_.size = sizeof error_;
    int32_t code = descriptor->create(host_.get(), items.data(), items.size(), &plugin_, &error_);
    if (code != KW_OK) return code;
    code = plugin_->start(plugin_, &error_);
    is_started_ = code == KW_OK;
    table_ = static_cast<const kw_authenticator*>(plugin_->get(plugin_, KW_AUTHENTICATOR));
    return code;
  }
  std::string ErrorText() const { return error_.text; }

  Answer Ask(const Certificate& leaf, const std::string& role = "client", const std::string& chain = "") {
    const std::string der = leaf.Der();
    return AskDer(der, role, chain);
  }
  Answer AskDer(const std::string& der, const std::string& role, const std::string& chain) {
    struct Call {
      kw_completion completion = {};
      std::mutex mutex;
      std::condition_variable changed;
      bool is_done = false;
      Answer answer;
    } call;
    call.completion.ctx = &call;
    call.completion.done = [](kw_completion* self, int32_t code, const kw_error* error) {
      auto* const call = static_cast<Call*>(self->ctx);
      const std::lock_guard<std::mutex> lock(call->mutex);
      call->answer.code = code;
      if (error != nullptr) call->answer.text = error->text;
      call->is_done = true;
      call->changed.notify_all();
    };
    kw_evidence evidence = {};
    evidence.size = sizeof evidence;
    evidence.kind = KW_EVIDENCE_X509;
    evidence.role = Slice(role);
    evidence.primary = Slice(der);
    evidence.secondary = Slice(chain);
    kw_principal principal = {};
    principal.size = sizeof principal;
    const int32_t code = table_->authenticate(plugin_, &evidence, &principal, &call.completion);
    if (code != KW_PENDING) return {code, "", ""};
    std::unique_lock<std::mutex> lock(call.mutex);
    EXPECT_TRUE(call.changed.wait_for(lock, std::chrono::seconds(10), [&] { return call.is_done; }));
    call.answer.principal.assign(principal.name, principal.len);
    return call.answer;
  }
  kw_tls* Material(const char* role) {
    kw_tls* out = nullptr;
    EXPECT_EQ(table_->tls(plugin_, role, &out, &error_), KW_OK) << error_.text;
    return out;
  }
  uint64_t Generation(const char* role = "client-server") {
    kw_tls* const material = Material(role);
    const uint64_t generation = material->generation;
    material->release(material);
    return generation;
  }
  bool WaitForGeneration(uint64_t generation) {
    for (int i = 0; i < 1000 && Generation() != generation; ++i) usleep(10000);
    return Generation() == generation;
  }

  Certificate authority_, server_;
  std::string directory_;
  std::vector<std::string> saved_;
  std::map<std::string, std::string> options_;
  Host host_;
  kw_plugin* plugin_ = nullptr;
  bool is_started_ = false;
  const kw_authenticator* table_ = nullptr;
  kw_error error_ = {};
};

TEST_F(AuthMtls, MaterialIsHandedOutPerRole) {
  options_["min_version"] = "1.3";
  options_["ciphers"] = "TLS_AES_128_GCM_SHA256";
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  kw_tls* const material = Material("client-server");
  EXPECT_EQ(View(material->chain), server_.CertificatePem());
  EXPECT_EQ(View(material->key), server_.KeyPem());
  EXPECT_EQ(View(material->roots), authority_.CertificatePem());
  EXPECT_EQ(View(material->min_version), "1.3");
  EXPECT_EQ(View(material->ciphers), "TLS_AES_128_GCM_SHA256");
  EXPECT_EQ(material->flags, static_cast<uint32_t>(KW_TLS_REQUIRE_PEER_CERTIFICATE));
  material->release(material);
  kw_tls* out = nullptr;
  EXPECT_EQ(table_->tls(plugin_, "nobody", &out, &error_), KW_INVALID_ARGUMENT);
}

TEST_F(AuthMtls, PortWithoutCertificateSpeaksPlainText) {
  for (const char* key : {"peer_cert_file", "peer_key_file", "peer_ca_file", "peer_crl_file"}) {
    options_.erase(key);
  }
  options_["client_certificate"] = "optional";
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  EXPECT_EQ(Material("peer-server"), nullptr);
  kw_tls* const material = Material("client-server");
  EXPECT_EQ(material->flags, 0u);
  material->release(material);
}

TEST_F(AuthMtls, ReasonsOfARefusalAreTold) {
  const Certificate alice("alice", &authority_);
  const Certificate stranger_authority("stranger");
  const Certificate stranger("alice", &stranger_authority);
  const Certificate expired("alice", &authority_, {.starts_s = -7200, .ends_s = -60});
  const Certificate early("alice", &authority_, {.starts_s = 60, .ends_s = 7200});
  const Certificate revoked("alice", &authority_);
  const Certificate nameless("", &authority_);
  Save("crl.pem", authority_.ListPem({&revoked}));
  ASSERT_EQ(Start(), KW_OK) << ErrorText();

  EXPECT_EQ(Ask(alice).code, KW_OK);
  EXPECT_EQ(Ask(alice).principal, "alice");
  const std::pair<const Certificate*, const char*> cases[] = {{&stranger, "unknown_ca: "},
                                                              {&expired, "expired: "},
                                                              {&early, "not_yet_valid: "},
                                                              {&revoked, "revoked: "},
                                                              {&nameless, "no_identity: "}};
  for (const auto& [certificate, reason] : cases) {
    const Answer answer = Ask(*certificate);
    EXPECT_EQ(answer.code, KW_UNAUTHENTICATED) << reason;
    EXPECT_EQ(answer.text.rfind(reason, 0), 0u) << answer.text;
  }
  EXPECT_NE(Ask(revoked).text.find("CN=alice, serial"), std::string::npos);
  EXPECT_GE(host_.Metric("keyway_auth_refusals_total{client}{revoked}"), 1u);
  EXPECT_EQ(AskDer("garbage", "client", "").text.rfind("bad_certificate: ", 0), 0u);
}

TEST_F(AuthMtls, IdentityIsTheConfiguredName) {
  const Certificate::Form form = {.names = "DNS:alice.example,URI:spiffe://example/alice"};
  const Certificate alice("alice", &authority_, form);
  const Certificate bare("bob", &authority_);
  options_["identity"] = "uri-san";
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  EXPECT_EQ(Ask(alice).principal, "spiffe://example/alice");
  const Answer refused = Ask(bare);
  EXPECT_EQ(refused.code, KW_UNAUTHENTICATED);
  EXPECT_NE(refused.text.find("no usable URI SAN"), std::string::npos) << refused.text;
}

TEST_F(AuthMtls, PeersNeedBothUsagesAndClientsOne) {
  const Certificate client_only("node", &authority_, {.usage = "clientAuth"});
  const Certificate server_only("node", &authority_, {.usage = "serverAuth"});
  const Certificate both("node", &authority_, {.usage = "clientAuth,serverAuth"});
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  EXPECT_EQ(Ask(client_only, "client").code, KW_OK);
  EXPECT_EQ(Ask(server_only, "client").code, KW_UNAUTHENTICATED);
  EXPECT_EQ(Ask(client_only, "peer").code, KW_UNAUTHENTICATED);
  EXPECT_EQ(Ask(server_only, "peer").code, KW_UNAUTHENTICATED);
  EXPECT_EQ(Ask(both, "peer").code, KW_OK);
}

TEST_F(AuthMtls, ChainThroughAnIntermediateIsFollowed) {
  const Certificate intermediate("intermediate", &authority_, {.is_authority = true});
  const Certificate alice("alice", &intermediate);
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  EXPECT_EQ(Ask(alice).text.rfind("unknown_ca: ", 0), 0u);
  EXPECT_EQ(Ask(alice, "client", intermediate.Der()).code, KW_OK);
}

TEST_F(AuthMtls, AcceptedCertificateExpiresInTheCacheToo) {
  const Certificate alice("alice", &authority_, {.ends_s = 1000});
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  EXPECT_EQ(Ask(alice).code, KW_OK);
  host_.ahead_ns = 1001ull * 1'000'000'000;
  EXPECT_EQ(Ask(alice).text.rfind("expired: ", 0), 0u);
}

TEST_F(AuthMtls, ChangedFilesAreTakenOverAsASet) {
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  EXPECT_EQ(Generation(), 1u);
  const Certificate renewed("renewed", &authority_);
  Save("cert.pem", renewed.CertificatePem());  // Its key is still the old one.
  // Both ports use it.
  ASSERT_TRUE(host_.WaitForLine("is not the key of the certificate in " + Path("cert.pem"), 2));
  EXPECT_EQ(host_.CountLines("tls_material_rejected"), 2);
  EXPECT_EQ(Generation(), 1u);
  Save("key.pem", renewed.KeyPem());
  ASSERT_TRUE(WaitForGeneration(2));
  kw_tls* const material = Material("client-server");
  EXPECT_EQ(View(material->chain), renewed.CertificatePem());
  material->release(material);
  EXPECT_EQ(host_.Metric("keyway_tls_reloads_total{client}"), 1u);
}

TEST_F(AuthMtls, DamagedFilesLeaveTheLastGoodOnesInUse) {
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  const Certificate second("second authority");
  const std::string bundle = authority_.CertificatePem() + second.CertificatePem();
  Save("ca.pem", bundle.substr(0, bundle.size() - 100));
  ASSERT_TRUE(host_.WaitForLine(Path("ca.pem") + ": damaged or half written"));
  unlink(Path("ca.pem").c_str());
  ASSERT_TRUE(host_.WaitForLine(Path("ca.pem") + ": No such file"));
  EXPECT_EQ(Generation(), 1u);
  Save("ca.pem", bundle);
  EXPECT_TRUE(WaitForGeneration(2));
  const Certificate bob("bob", &second);
  EXPECT_EQ(Ask(bob).code, KW_OK);
}

TEST_F(AuthMtls, RewrittenButEqualFilesDoNotMoveTheGeneration) {
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  Save("cert.pem", server_.CertificatePem());
  const Certificate revoked("alice", &authority_);
  EXPECT_EQ(Ask(revoked).code, KW_OK);
  Save("crl.pem", authority_.ListPem({&revoked}));  // What shows that a look came after the first change.
  ASSERT_TRUE(WaitForGeneration(2));
  EXPECT_EQ(Ask(revoked).text.rfind("revoked: ", 0), 0u);
}

// During a rotation the list of the old authority says nothing of the new one.
TEST_F(AuthMtls, OverlappingAuthoritiesWithOneList) {
  const Certificate second("second authority");
  const Certificate alice("alice", &authority_), bob("bob", &second), eve("eve", &authority_);
  Save("ca.pem", authority_.CertificatePem() + second.CertificatePem());
  Save("crl.pem", authority_.ListPem({&eve}));
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  EXPECT_EQ(Ask(alice).code, KW_OK);
  EXPECT_EQ(Ask(bob).code, KW_OK);
  EXPECT_EQ(Ask(eve).code, KW_UNAUTHENTICATED);
}

TEST_F(AuthMtls, StaleListCountsAndIsWarnedOf) {
  const Certificate alice("alice", &authority_), eve("eve", &authority_);
  Save("crl.pem", authority_.ListPem({&eve}, -60));
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  EXPECT_GE(host_.CountLines("past its next update"), 1);
  EXPECT_EQ(Ask(alice).code, KW_OK);
  EXPECT_EQ(Ask(eve).code, KW_UNAUTHENTICATED);
}

TEST_F(AuthMtls, StartNamesOptionLineFileAndReason) {
  const auto expect = [&](std::map<std::string, std::string> change, const std::string& text) {
    const auto before = options_;
    for (const auto& [key, value] : change) options_[key] = value;
    EXPECT_EQ(Start(), KW_INVALID_ARGUMENT) << text;
    EXPECT_NE(ErrorText().find(text), std::string::npos) << ErrorText() << " lacks " << text;
    if (plugin_ != nullptr) plugin_->destroy(plugin_);
    plugin_ = nullptr;
    options_ = before;
  };
  const Certificate other("other");
  Save("other-key.pem", other.KeyPem());
  Save("locked-key.pem", server_.EncryptedKeyPem("secret"));
  Save("empty.pem", "");
  expect({{"cert_file", Path("none.pem")}}, "cert_file (line 12) " + Path("none.pem") + ": No such file");
  expect({{"key_file", Path("other-key.pem")}}, "is not the key of the certificate in");
  expect({{"key_file", Path("locked-key.pem")}}, "protected by a password");
  expect({{"ca_file", Path("empty.pem")}},
         "ca_file (line 11) " + Path("empty.pem") + ": no certificate in it");
  expect({{"crl_file", Path("ca.pem")}}, "no revocation list in it");
  expect({{"ciphers", "AES128-SHA:NOT-A-CIPHER"}}, "\"NOT-A-CIPHER\" is not a cipher");
  expect({{"key_file", ""}}, "key_file is not");
  expect({{"ca_file", ""}, {"crl_file", ""}}, "ca_file is not");
  expect({{"cert_file", directory_}}, "not a regular file");
}

TEST_F(AuthMtls, ReadableKeyAndExpiredLeafAreWarnedOf) {
  const Certificate expired("server", &authority_, {.starts_s = -7200, .ends_s = -60});
  Save("cert.pem", expired.CertificatePem());
  Save("key.pem", expired.KeyPem());
  chmod(Path("key.pem").c_str(), 0644);
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  EXPECT_GE(host_.CountLines("the certificate has expired"), 1);
  EXPECT_GE(host_.CountLines("by everybody on this machine"), 1);
}

TEST_F(AuthMtls, QuestionsDuringTheStopAreAnswered) {
  ASSERT_EQ(Start(), KW_OK) << ErrorText();
  const Certificate alice("alice", &authority_);
  std::vector<std::thread> askers;
  std::atomic<int> answers = 0;
  for (int i = 0; i < 4; ++i) {
    askers.emplace_back([&] {
      int32_t code = KW_OK;
      while (code == KW_OK) code = Ask(alice).code;
      EXPECT_EQ(code, KW_UNAVAILABLE);
      ++answers;
    });
  }
  plugin_->stop(plugin_);
  for (std::thread& asker : askers) asker.join();
  is_started_ = false;
  EXPECT_EQ(answers, 4);
}

}  // namespace
}  // namespace keyway::auth_mtls
