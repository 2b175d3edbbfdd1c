// SPDX-License-Identifier: Apache-2.0
//
// The routes, with etcd's bodies.
#include "http_routes.h"

#include <algorithm>

#include "io_thread.h"

namespace keyway::api_etcd {
namespace {

constexpr uint64_t kProbeTimeoutNs = 5'000'000'000;
constexpr std::string_view kProbeKey = "health";
constexpr const char* kNonLearner = "non_learner";
constexpr const char* kDataCorruption = "data_corruption";
constexpr const char* kSerializableRead = "serializable_read";
constexpr const char* kLinearizableRead = "linearizable_read";

HttpResponse NotFound() {
  HttpResponse response;
  response.status = 404;
  response.is_nosniff = true;
  response.body = "404 page not found\n";
  return response;
}
HttpResponse MethodNotAllowed() {
  HttpResponse response;
  response.status = 405;
  response.is_nosniff = true;
  response.allows_get_only = true;
  response.body = "Method Not Allowed\n";
  return response;
}

int32_t AppendToString(void* self, kw_slice bytes) {
  static_cast<std::string*>(self)->append(View(bytes));
  return KW_OK;
}

std::string Major(std::string_view version) {
  const size_t dot = version.find('.');
  const size_t second = dot == std::string_view::npos ? dot : version.find('.', dot + 1);
  return std::string(version.substr(0, second)) + ".0";
}

}  // namespace

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Error";
  }
}

bool QueryHas(std::string_view query, std::string_view name, std::vector<std::string>* out) {
  bool found = false;
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view pair = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    const size_t equals = pair.find('=');
    if (pair.substr(0, equals) != name) continue;
    found = true;
    if (out != nullptr) {
      out->emplace_back(equals == std::string_view::npos ? "" : pair.substr(equals + 1));
    }
  }
  return found;
}

HttpQuery::~HttpQuery() {
  if (maybe_call_ != nullptr) maybe_call_->maybe_owner = nullptr;
}

void HttpQuery::Start(std::string_view method, std::string_view target) {
  const size_t question = std::min(target.find('?'), target.size());
  const std::string_view path = target.substr(0, question);
  const std::string_view query = question < target.size() ? target.substr(question + 1) : std::string_view();
  const auto is_under = [&](std::string_view root) {
    return path == root || (path.starts_with(root) && path[root.size()] == '/');
  };
  const bool is_known = path == "/health" || path == "/version" || path == "/metrics" ||
                        path == "/keyway/plugins" || is_under("/livez") || is_under("/readyz");
  if (!is_known) return exchange_->Respond(NotFound());
  if (path == "/metrics") return Metrics();  // Any method, as etcd does.
  if (method != "GET") return exchange_->Respond(MethodNotAllowed());
  if (path == "/version") return Version();
  if (path == "/keyway/plugins") return Plugins();
  if (path == "/health") return StartHealth(query);
  if (is_under("/livez")) return StartChecks("livez", path, query);
  StartChecks("readyz", path, query);
}

void HttpQuery::Version() {
  const std::string& version = io_->server().options.etcd_version;
  const std::string cluster = Major(version);
  HttpResponse response;
  response.content_type = "application/json";
  response.body = "{\"etcdserver\":\"" + version + "\",\"etcdcluster\":\"" + cluster + "\",\"storage\":\"" +
                  cluster + "\"}";
  exchange_->Respond(std::move(response));
}

void HttpQuery::Metrics() {
  const kw_exposition* const exposition = io_->server().exposition;
  HttpResponse response;
  kw_writer writer = {&response.body, &AppendToString};
  kw_error error = NoError();
  const int32_t code =
      exposition == nullptr ? KW_NOT_FOUND : exposition->render(io_->server().host, &writer, &error);
  if (code == KW_NOT_FOUND) return exchange_->Respond(NotFound());
  if (code != KW_OK) {
    response.status = 503;
    response.body = std::string(error.text) + "\n";
  } else {
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  }
  exchange_->Respond(std::move(response));
}

void HttpQuery::Plugins() {
  const kw_kernel* const kernel = io_->server().kernel;
  constexpr size_t kEnd = offsetof(kw_kernel, plugins) + sizeof(kernel->plugins);
  if (kernel->size < kEnd || kernel->plugins == nullptr) return exchange_->Respond(NotFound());
  HttpResponse response;
  response.content_type = "application/json";
  kw_writer writer = {&response.body, &AppendToString};
  if (kernel->plugins(io_->server().host, &writer) != KW_OK) response.status = 503;
  exchange_->Respond(std::move(response));
}

void HttpQuery::StartHealth(std::string_view query) {
  kind_ = Kind::kHealth;
  std::vector<std::string> values;
  const bool is_serializable =
      QueryHas(query, "serializable", &values) && std::count(values.begin(), values.end(), "true") > 0;
  if (!is_serializable && io_->server().leader_id() == 0) return FinishHealth("RAFT NO LEADER");
  ReadKey(is_serializable);
}

void HttpQuery::ReadKey(bool is_serializable) {
  Call* const call = io_->NewCall(this, Rpc::kRange);
  kw_range_request* const request = call->Init(&call->range, KW_REQ_RANGE, io_->now_ns() + kProbeTimeoutNs);
  request->req.flags = is_serializable ? KW_REQ_SERIALIZABLE : 0;
  call->input.Append(kProbeKey);
  request->range.key = call->input.slice();
  request->range.limit = 1;
  maybe_call_ = call;
  io_->Submit(call);
}

void HttpQuery::OnCallDone(Call* call) {
  maybe_call_ = nullptr;
  Status status = call->status();
  // A probe has no user: that the question came far enough to be refused is healthy.
  if (status.code == KW_PERMISSION_DENIED || status.code == KW_UNAUTHENTICATED) status = {};
  if (kind_ == Kind::kHealth) {
    FinishHealth(status.code == KW_OK ? "" : "RANGE ERROR:" + status.text);
    return;
  }
  Check& check = checks_[check_index_++];
  check.is_done = true;
  if (status.code != KW_OK) check.failure = "range error: " + status.text;
  NextCheck();
}

void HttpQuery::FinishHealth(std::string_view reason) {
  HttpResponse response;
  response.status = reason.empty() ? 200 : 503;
  response.body = reason.empty() ? "{\"health\":\"true\",\"reason\":\"\"}"
                                 : "{\"health\":\"false\",\"reason\":\"" + std::string(reason) + "\"}";
  exchange_->Respond(std::move(response));
}

void HttpQuery::StartChecks(std::string_view root, std::string_view path, std::string_view query) {
  kind_ = Kind::kChecks;
  root_ = root;
  is_verbose_ = QueryHas(query, "verbose", nullptr);
  std::vector<std::string> excluded;
  QueryHas(query, "exclude", &excluded);
  const std::string_view wanted =
      path.size() > root.size() + 2 ? path.substr(root.size() + 2) : std::string_view();
  std::vector<const char*> names = {kSerializableRead};
  if (root == "readyz") names = {kNonLearner, kDataCorruption, kSerializableRead, kLinearizableRead};
  for (const char* name : names) {
    if (!wanted.empty() && wanted != name) continue;
    if (std::find(excluded.begin(), excluded.end(), name) != excluded.end()) continue;
    checks_.push_back({name, "", false});
  }
  if (!wanted.empty() && checks_.empty()) return exchange_->Respond(NotFound());
  NextCheck();
}

void HttpQuery::NextCheck() {
  while (check_index_ < checks_.size()) {
    Check& check = checks_[check_index_];
    const std::string_view name = check.name;
    if (name == kSerializableRead) return ReadKey(true);
    if (name == kLinearizableRead) return ReadKey(false);
    if (name == kNonLearner && io_->server().is_learner()) {
      check.failure = "node is a learner";
    }
    check.is_done = true;  // There are no alarms yet that data_corruption could report.
    ++check_index_;
  }
  FinishChecks();
}

void HttpQuery::FinishChecks() {
  HttpResponse response;
  response.is_nosniff = true;
  bool has_failed = false;
  std::string lines;
  for (const Check& check : checks_) {
    if (check.failure.empty()) {
      lines += "[+]" + std::string(check.name) + " ok\n";
    } else {
      lines += "[-]" + std::string(check.name) + " failed: " + check.failure + "\n";
      has_failed = true;
    }
  }
  if (has_failed) {
    response.status = 503;
    response.body = lines + "\n";
  } else {
    response.body = (is_verbose_ ? lines : "") + "ok\n";
  }
  exchange_->Respond(std::move(response));
}

}  // namespace keyway::api_etcd
