// SPDX-License-Identifier: Apache-2.0
//
// The plain HTTP paths beside gRPC: /health, /livez, /readyz, /version, /metrics, and Keyway's own
// /keyway/plugins. The same over
// HTTP/1.1 and HTTP/2.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "call.h"

namespace keyway::api_etcd {

struct HttpResponse {
  int status = 200;
  std::string_view content_type = "text/plain; charset=utf-8";  // Of static storage.
  bool is_nosniff = false;
  bool allows_get_only = false;  // adds "allow: GET"
  std::string body;
};

// One request that waits for its answer. Outlives the HttpQuery that it owns.
class HttpExchange {
 public:
  virtual void Respond(HttpResponse response) = 0;

 protected:
  ~HttpExchange() = default;
};

// A request in progress; destroying it abandons the request.
class HttpQuery final : public CallOwner {
 public:
  // Answers at once or later, through `exchange`. Call Start() once.
  HttpQuery(IoThread* io, HttpExchange* exchange) : io_(io), exchange_(exchange) {}
  ~HttpQuery();
  HttpQuery(const HttpQuery&) = delete;
  HttpQuery& operator=(const HttpQuery&) = delete;

  // target: path and query as on the request line.
  void Start(std::string_view method, std::string_view target);
  void OnCallDone(Call* call) override;

 private:
  enum class Kind { kHealth, kChecks };
  struct Check {
    const char* name;
    std::string failure;  // empty: ok
    bool is_done = false;
  };

  void StartHealth(std::string_view query);
  void StartChecks(std::string_view root, std::string_view path, std::string_view query);
  void Version();
  void Metrics();
  void Plugins();
  void NextCheck();
  void ReadKey(bool is_serializable);
  void FinishHealth(std::string_view reason);
  void FinishChecks();

  IoThread* const io_;
  HttpExchange* const exchange_;
  Kind kind_ = Kind::kHealth;
  std::string root_;
  bool is_verbose_ = false;
  std::vector<Check> checks_;
  size_t check_index_ = 0;
  Call* maybe_call_ = nullptr;
};

// True if "name" or "name=..." is in the query; `out` gets every value, if not NULL.
bool QueryHas(std::string_view query, std::string_view name, std::vector<std::string>* out);

std::string_view ReasonPhrase(int status);

}  // namespace keyway::api_etcd
