// SPDX-License-Identifier: Apache-2.0
//
// Authenticator: one instance of the plugin. A thread of its own reads the files again and judges
// certificates, so that neither costs an I/O thread anything.
//
// A change is taken over when two looks in a row saw the same contents and the set fits together: a
// file that is being written, or a certificate whose key has not been replaced yet, leaves the last good
// set in use. `generation` moves only with contents.
#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "keyway/authenticator.h"
#include "material.h"
#include "options.h"
#include "verifier.h"

namespace keyway::auth_mtls {

class Authenticator {
 public:
  Authenticator(const kw_host* host, Options options) : host_(host), options_(std::move(options)) {}

  static int32_t Create(const kw_host* host, const ConfigReader& config, std::unique_ptr<Authenticator>* out,
                        kw_error* error);
  int32_t Start(kw_error* error);
  void Stop();
  static const void* Get(std::string_view interface_id);

  // These follow keyway/authenticator.h.
  int32_t Authenticate(const kw_evidence* evidence, kw_principal* out, kw_completion* completion);
  int32_t Tls(std::string_view role, kw_tls** out, kw_error* error);

 private:
  static constexpr size_t kQuestionsMax = 1 << 16;
  static constexpr size_t kVerdictsMax = 4096;
  static constexpr size_t kEvidenceBytesMax = 256 << 10;

  // The files of one port.
  struct Port {
    const char* name = "";                    // [static] "client" or "peer"
    const Files* files = nullptr;             // NULL: plain text.
    PemSet seen;                              // Of the thread: what the last look read,
    bool is_settled = true;                   // and whether it has been judged.
    std::string logged_error;                 // Of the thread.
    std::shared_ptr<const Material> current;  // Guarded by mutex_.
    std::map<std::string, Verdict> verdicts;  // Of the thread: of the current material, by digest.
    uint64_t verdict_generation = 0;
    Gauge expiry, lists_due;
    Counter reloads, reload_failures;
    std::array<Counter, tls::kRefusalCount> refusals;
  };
  struct Question {
    const kw_evidence* evidence;
    kw_principal* out;
    kw_completion* completion;
  };

  int32_t StartPort(Port* port, const char* name, const Files& files, kw_error* error);
  void Publish(Port* port, std::shared_ptr<Material> material);
  void Look(Port* port);
  void ReportTrouble(Port* port, const std::string& reason);
  void ThreadMain();
  void Answer(const Question& question);
  const Verdict& VerdictOf(Port* port, const kw_evidence& evidence, bool is_peer);

  const kw_host* const host_;
  const Options options_;
  Logger log_;
  Clock clock_;
  Port client_, peer_;
  std::thread thread_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<Question> questions_;
  bool is_running_ = false;
};

}  // namespace keyway::auth_mtls
