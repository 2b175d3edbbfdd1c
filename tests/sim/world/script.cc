// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/script.h"

#include <utility>

#include "kernel/base/bytes.h"
#include "keyway/kernel.h"

namespace keyway::sim {

std::shared_ptr<Script::Flight> Script::Ask(size_t node, Request request, uint64_t limit_ns) {
  auto flight = std::make_shared<Flight>();
  flight->node = node;
  flight->holder = std::make_unique<RequestHolder>(std::move(request));
  flights_.emplace(next_flight_++, flight);
  kw_request* raw = flight->holder->get();
  raw->ctx = flight.get();
  raw->done = [](kw_request* self, int32_t code, const kw_error*, kw_reply* reply) {
    auto* own = static_cast<Flight*>(self->ctx);
    own->has_answer = true;
    own->code = code;
    if (reply != nullptr) {
      own->response = ToResponse(*reply);
      reply->release(reply);
    }
  };
  if (!cluster_->IsUp(node)) return nullptr;
  cluster_->Submit(node, raw);
  cluster_->RunUntil(cluster_->scheduler().now_ns() + limit_ns,
                     [&] { return flight->has_answer || flight->is_lost; });
  if (!flight->has_answer) return nullptr;
  if (flight->code == KW_OK) last_revision_ = std::max(last_revision_, flight->response.revision);
  return flight;
}

void Script::OnNodeDown(size_t slot) {
  for (auto& [id, flight] : flights_) {
    if (flight->node == slot && !flight->has_answer) flight->is_lost = true;
  }
}

bool Script::Put(size_t node, const std::string& key, const std::string& value, uint64_t limit_ns) {
  Request request;
  request.kind = Kind::kPut;
  request.txn.then_ops.push_back({KW_OP_PUT, 0, key, "", value});
  acknowledged_.erase(key);
  const auto flight = Ask(node, std::move(request), limit_ns);
  if (flight == nullptr || flight->code != KW_OK) return false;
  acknowledged_[key] = value;
  return true;
}

bool Script::Remove(size_t node, const std::string& key) {
  Request request;
  request.kind = Kind::kDelete;
  request.txn.then_ops.push_back({KW_OP_DELETE, 0, key});
  acknowledged_.erase(key);
  const auto flight = Ask(node, std::move(request), 20 * kSecond);
  return flight != nullptr && flight->code == KW_OK;
}

bool Script::Compact(size_t node, int64_t revision) {
  Request request;
  request.kind = Kind::kCompact;
  request.revision = revision;
  const auto flight = Ask(node, std::move(request), 20 * kSecond);
  return flight != nullptr && flight->code == KW_OK;
}

bool Script::AddLearner(size_t node, const std::string& peer_url) {
  const kw_slice url = ToSlice(peer_url);
  std::optional<int32_t> answer;
  kw_member_request request{};
  request.req.size = sizeof request;
  request.req.kind = KW_REQ_MEMBER_ADD;
  request.peer_urls = &url;
  request.peer_url_count = 1;
  request.is_learner = 1;
  request.req.ctx = &answer;
  request.req.done = [](kw_request* self, int32_t code, const kw_error*, kw_reply* reply) {
    *static_cast<std::optional<int32_t>*>(self->ctx) = code;
    if (reply != nullptr) reply->release(reply);
  };
  cluster_->Submit(node, &request.req);
  cluster_->RunUntil(UINT64_MAX, [&] { return answer.has_value(); });  // It is ours until then.
  return answer == KW_OK;
}

std::optional<std::map<std::string, std::string>> Script::ReadAll(size_t node, uint64_t limit_ns) {
  Request request;
  request.kind = Kind::kRange;
  request.txn.then_ops.push_back({KW_OP_RANGE, 0, std::string(1, '\0'), std::string(1, '\0')});
  const auto flight = Ask(node, std::move(request), limit_ns);
  if (flight == nullptr || flight->code != KW_OK || flight->response.results.empty()) return std::nullopt;
  std::map<std::string, std::string> found;
  for (const KeyValue& pair : flight->response.results[0].pairs) found[pair.key] = pair.value;
  return found;
}

std::string Script::Missing(const std::map<std::string, std::string>& found) const {
  for (const auto& [key, value] : acknowledged_) {
    const auto at = found.find(key);
    if (at == found.end()) return key + " is gone";
    if (at->second != value) return key + " is " + at->second + " instead of " + value;
  }
  return "";
}

}  // namespace keyway::sim
