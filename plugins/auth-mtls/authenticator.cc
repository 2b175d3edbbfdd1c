// SPDX-License-Identifier: Apache-2.0
//
// The thread, the questions, and the material that is handed out.
#include "authenticator.h"

#include <openssl/sha.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>

namespace keyway::auth_mtls {
namespace {

int64_t NowS(const Clock& clock) { return static_cast<int64_t>(clock.WallNs() / 1'000'000'000); }

// A kw_tls with what its slices point into.
struct HandedOut final : kw_tls {
  std::shared_ptr<const Material> material;
  std::string min_version_text;
  std::string ciphers_text;
};

// Of the certificates shown: equal digests, equal certificates.
std::string DigestOf(const kw_evidence& evidence) {
  std::string digests(2 * SHA256_DIGEST_LENGTH, '\0');
  auto* const at = reinterpret_cast<unsigned char*>(digests.data());
  SHA256(evidence.primary.ptr, evidence.primary.len, at);
  SHA256(evidence.secondary.ptr, evidence.secondary.len, at + SHA256_DIGEST_LENGTH);
  return digests;
}

}  // namespace

int32_t Authenticator::Create(const kw_host* host, const ConfigReader& config,
                              std::unique_ptr<Authenticator>* out, kw_error* error) {
  Options options;
  const int32_t code = ReadOptions(config, &options, error);
  if (code == KW_OK) *out = std::make_unique<Authenticator>(host, std::move(options));
  return code;
}

int32_t Authenticator::Start(kw_error* error) {
  log_ = Logger(host_);
  clock_ = Clock(host_);
  if (HostService<kw_clock>(host_, KW_CLOCK) == nullptr) {
    return Fail(error, KW_FAILED_PRECONDITION, "no clock service");
  }
  int32_t code = StartPort(&client_, "client", options_.client, error);
  if (code == KW_OK) code = StartPort(&peer_, "peer", options_.peer, error);
  if (code != KW_OK) return code;
  is_running_ = true;
  // Signals are the daemon's.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { ThreadMain(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return KW_OK;
}

int32_t Authenticator::StartPort(Port* port, const char* name, const Files& files, kw_error* error) {
  port->name = name;
  for (size_t i = 0; i < tls::kRefusalCount; ++i) {
    port->refusals[i] =
        Counter(host_, "keyway_auth_refusals_total", "Certificates that the authenticator refused.",
                {LogField("role", name), LogField("reason", tls::kRefusalNames[i])});
  }
  if (!files.chain.is_set()) return KW_OK;
  port->files = &files;
  const LogField label("port", name);
  port->expiry = Gauge(host_, "keyway_tls_certificate_expiry_timestamp_seconds",
                       "End of this node's certificate, since 1970.", {label});
  port->lists_due = Gauge(host_, "keyway_tls_crl_next_update_timestamp_seconds",
                          "Earliest next update of a revocation list, since 1970; 0: no list.", {label});
  port->reloads = Counter(host_, "keyway_tls_reloads_total", "Changed files that were taken over.", {label});
  port->reload_failures = Counter(host_, "keyway_tls_reload_failures_total",
                                  "Changed files that were not usable; the last good ones stay.", {label});
  std::string why;
  PemSet pem;
  if (!ReadPemSet(files, &pem, &why)) return Fail(error, KW_INVALID_ARGUMENT, std::string_view(why));
  port->seen = pem;
  std::shared_ptr<Material> material = MakeMaterial(files, std::move(pem), &why);
  if (material == nullptr) return Fail(error, KW_INVALID_ARGUMENT, std::string_view(why));
  Publish(port, std::move(material));
  return KW_OK;
}

void Authenticator::Publish(Port* port, std::shared_ptr<Material> material) {
  port->expiry.Set(static_cast<uint64_t>(std::max<int64_t>(material->expires_s, 0)));
  port->lists_due.Set(static_cast<uint64_t>(material->lists_due_s));
  for (const std::string& warning : WarningsOf(*port->files, *material, NowS(clock_))) {
    log_.Warn("tls_material_warning", {{"port", port->name}, {"warning", warning}});
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  material->generation = port->current == nullptr ? 1 : port->current->generation + 1;
  log_.Info("tls_material_loaded", {{"port", port->name},
                                    {"generation", material->generation},
                                    {"certificate", material->description},
                                    {"expires_s", material->expires_s}});
  port->current = std::move(material);
}

void Authenticator::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_running_ = false;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Authenticator::ThreadMain() {
  pthread_setname_np(pthread_self(), "auth-mtls");
  auto next_look = std::chrono::steady_clock::now();
  std::unique_lock<std::mutex> lock(mutex_);
  while (is_running_) {
    if (questions_.empty()) {
      changed_.wait_until(lock, next_look, [this] { return !is_running_ || !questions_.empty(); });
    }
    std::deque<Question> questions;
    questions.swap(questions_);
    const bool is_ending = !is_running_;
    lock.unlock();
    for (const Question& question : questions) {
      if (is_ending) {
        kw_error error = NoError();
        Fail(&error, KW_UNAVAILABLE, "the authenticator is stopping");
        Complete(question.completion, KW_UNAVAILABLE, &error);
      } else {
        Answer(question);
      }
    }
    if (!is_ending && std::chrono::steady_clock::now() >= next_look) {
      Look(&client_);
      Look(&peer_);
      next_look = std::chrono::steady_clock::now() + std::chrono::milliseconds(options_.poll_interval_ms);
    }
    lock.lock();
  }
  // Nothing is taken any more; what came in between is told so.
  for (const Question& question : questions_) {
    kw_error error = NoError();
    Fail(&error, KW_UNAVAILABLE, "the authenticator is stopping");
    Complete(question.completion, KW_UNAVAILABLE, &error);
  }
  questions_.clear();
}

void Authenticator::Look(Port* port) {
  if (port->files == nullptr) return;
  PemSet pem;
  std::string why;
  if (!ReadPemSet(*port->files, &pem, &why)) return ReportTrouble(port, why);
  if (pem != port->seen) {
    port->seen = std::move(pem);
    port->is_settled = false;
    return;
  }
  if (std::exchange(port->is_settled, true)) return;
  std::shared_ptr<const Material> current;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    current = port->current;
  }
  if (pem == current->pem) {
    port->logged_error.clear();
    return;
  }
  std::shared_ptr<Material> material = MakeMaterial(*port->files, std::move(pem), &why);
  if (material == nullptr) return ReportTrouble(port, why);
  Publish(port, std::move(material));
  port->reloads.Add();
  port->logged_error.clear();
}

// Once for each kind of trouble, not twice a second.
void Authenticator::ReportTrouble(Port* port, const std::string& reason) {
  if (reason == port->logged_error) return;
  port->logged_error = reason;
  port->reload_failures.Add();
  log_.Error("tls_material_rejected",
             {{"port", port->name}, {"reason", reason}, {"hint", "the last good files stay in use"}});
}

int32_t Authenticator::Authenticate(const kw_evidence* evidence, kw_principal* out,
                                    kw_completion* completion) {
  if (evidence->kind != KW_EVIDENCE_X509) return KW_INVALID_ARGUMENT;
  out->len = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!is_running_) return KW_UNAVAILABLE;
    if (questions_.size() >= kQuestionsMax) return KW_RESOURCE_EXHAUSTED;
    questions_.push_back({evidence, out, completion});
  }
  changed_.notify_one();
  return KW_PENDING;
}

void Authenticator::Answer(const Question& question) {
  const bool is_peer = View(question.evidence->role) == "peer";
  Port* const port = is_peer ? &peer_ : &client_;
  const Verdict& verdict = VerdictOf(port, *question.evidence, is_peer);
  if (verdict.is_accepted) {
    question.out->len = static_cast<uint32_t>(verdict.principal.size());
    std::memcpy(question.out->name, verdict.principal.data(), verdict.principal.size());
    return Complete(question.completion, KW_OK);
  }
  port->refusals[static_cast<size_t>(verdict.refusal)].Add();
  kw_error error = NoError();
  Fail(&error, KW_UNAUTHENTICATED, std::string_view(verdict.text));
  Complete(question.completion, KW_UNAUTHENTICATED, &error);
}

const Verdict& Authenticator::VerdictOf(Port* port, const kw_evidence& evidence, bool is_peer) {
  std::shared_ptr<const Material> material;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    material = port->current;
  }
  const uint64_t generation = material == nullptr ? 0 : material->generation;
  if (port->verdict_generation != generation || port->verdicts.size() >= kVerdictsMax) {
    port->verdicts.clear();
    port->verdict_generation = generation;
  }
  const int64_t now_s = NowS(clock_);
  Verdict& verdict = port->verdicts[DigestOf(evidence)];
  // A refusal is judged anew: one that is not valid yet becomes so.
  if (verdict.is_accepted && now_s < verdict.valid_until_s) return verdict;
  if (evidence.primary.len + evidence.secondary.len > kEvidenceBytesMax) {
    verdict = Verdict();
    verdict.text = "other: the certificates are larger than 256 KiB";
    return verdict;
  }
  verdict = Judge(material == nullptr ? nullptr : material->store.get(), View(evidence.primary),
                  View(evidence.secondary), is_peer, options_.identity, now_s);
  return verdict;
}

int32_t Authenticator::Tls(std::string_view role, kw_tls** out, kw_error* error) {
  const bool is_client_port = role == "client-server";
  if (!is_client_port && role != "peer-server" && role != "peer-client") {
    return Fail(error, KW_INVALID_ARGUMENT, "role \"", role,
                "\": expected client-server, peer-server or peer-client");
  }
  auto handed_out = std::make_unique<HandedOut>();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    handed_out->material = (is_client_port ? client_ : peer_).current;
  }
  *out = nullptr;
  if (handed_out->material == nullptr) return KW_OK;
  const Material& material = *handed_out->material;
  handed_out->min_version_text = options_.min_version;
  handed_out->ciphers_text = options_.ciphers;
  handed_out->size = sizeof(kw_tls);
  handed_out->flags =
      !is_client_port || options_.requires_client_certificate ? KW_TLS_REQUIRE_PEER_CERTIFICATE : 0;
  handed_out->generation = material.generation;
  handed_out->chain = Slice(material.pem.chain);
  handed_out->key = Slice(material.pem.key);
  handed_out->roots = Slice(material.pem.roots);
  handed_out->crl = Slice(material.pem.lists);
  handed_out->min_version = Slice(handed_out->min_version_text);
  handed_out->ciphers = Slice(handed_out->ciphers_text);
  handed_out->kw_tls::release = [](kw_tls* tls) { delete static_cast<HandedOut*>(tls); };
  *out = handed_out.release();
  return KW_OK;
}

}  // namespace keyway::auth_mtls
