// SPDX-License-Identifier: Apache-2.0
#include "json.h"

#include "output.h"

namespace keyway::ctl {
namespace {

// Sets a field unless it is zero or empty.
template <typename T>
void Put(Json* out, const char* key, const T& value) {
  if (value != T{}) (*out)[key] = value;
}

// etcdctl gives leases with the fields of the header beside their own.
Json Flat(const etcdserverpb::ResponseHeader& header) { return ToJson(header); }

}  // namespace

Json ToJson(const etcdserverpb::ResponseOp& op) {
  Json inner;
  switch (op.response_case()) {
    case etcdserverpb::ResponseOp::kResponseRange:
      inner["response_range"] = ToJson(op.response_range());
      break;
    case etcdserverpb::ResponseOp::kResponsePut:
      inner["response_put"] = ToJson(op.response_put());
      break;
    case etcdserverpb::ResponseOp::kResponseDeleteRange:
      inner["response_delete_range"] = ToJson(op.response_delete_range());
      break;
    case etcdserverpb::ResponseOp::kResponseTxn:
      inner["response_txn"] = ToJson(op.response_txn());
      break;
    case etcdserverpb::ResponseOp::RESPONSE_NOT_SET:
      break;
  }
  return {{"Response", inner}};
}

Json ToJson(const etcdserverpb::ResponseHeader& header) {
  Json out = Json::object();
  Put(&out, "cluster_id", header.cluster_id());
  Put(&out, "member_id", header.member_id());
  Put(&out, "revision", header.revision());
  Put(&out, "raft_term", header.raft_term());
  return out;
}

Json ToJson(const mvccpb::KeyValue& pair) {
  Json out = Json::object();
  Put(&out, "key", Base64(pair.key()));
  Put(&out, "create_revision", pair.create_revision());
  Put(&out, "mod_revision", pair.mod_revision());
  Put(&out, "version", pair.version());
  Put(&out, "value", Base64(pair.value()));
  Put(&out, "lease", pair.lease());
  return out;
}

Json ToJson(const mvccpb::Event& event) {
  Json out = Json::object();
  Put(&out, "type", static_cast<int>(event.type()));
  if (event.has_kv()) out["kv"] = ToJson(event.kv());
  if (event.has_prev_kv()) out["prev_kv"] = ToJson(event.prev_kv());
  return out;
}

Json ToJson(const etcdserverpb::RangeResponse& response) {
  Json out = {{"header", ToJson(response.header())}};
  for (const auto& pair : response.kvs()) out["kvs"].push_back(ToJson(pair));
  Put(&out, "more", response.more());
  Put(&out, "count", response.count());
  return out;
}

Json ToJson(const etcdserverpb::PutResponse& response) {
  Json out = {{"header", ToJson(response.header())}};
  if (response.has_prev_kv()) out["prev_kv"] = ToJson(response.prev_kv());
  return out;
}

Json ToJson(const etcdserverpb::DeleteRangeResponse& response) {
  Json out = {{"header", ToJson(response.header())}};
  Put(&out, "deleted", response.deleted());
  for (const auto& pair : response.prev_kvs()) out["prev_kvs"].push_back(ToJson(pair));
  return out;
}

Json ToJson(const etcdserverpb::TxnResponse& response) {
  Json out = {{"header", ToJson(response.header())}};
  Put(&out, "succeeded", response.succeeded());
  for (const auto& op : response.responses()) out["responses"].push_back(ToJson(op));
  return out;
}

Json ToJson(const etcdserverpb::WatchResponse& response) {
  Json events = Json::array();
  for (const auto& event : response.events()) events.push_back(ToJson(event));
  return {{"Header", ToJson(response.header())},
          {"Events", events},
          {"CompactRevision", response.compact_revision()},
          {"Canceled", response.canceled()},
          {"Created", response.created()},
          {"CancelReason", response.cancel_reason()}};
}

Json ToJson(const etcdserverpb::LeaseGrantResponse& response) {
  Json out = Flat(response.header());
  out["ID"] = response.id();
  out["TTL"] = response.ttl();
  out["Error"] = response.error();
  return out;
}

Json ToJson(const etcdserverpb::LeaseKeepAliveResponse& response) {
  Json out = Flat(response.header());
  out["ID"] = response.id();
  out["TTL"] = response.ttl();
  return out;
}

Json ToJson(const etcdserverpb::LeaseTimeToLiveResponse& response) {
  Json out = Flat(response.header());
  out["id"] = response.id();
  out["ttl"] = response.ttl();
  out["granted-ttl"] = response.grantedttl();
  out["keys"] = nullptr;
  for (const auto& key : response.keys()) out["keys"].push_back(Base64(key));
  return out;
}

Json ToJson(const etcdserverpb::LeaseLeasesResponse& response) {
  Json out = Flat(response.header());
  out["leases"] = Json::array();
  for (const auto& lease : response.leases()) out["leases"].push_back({{"id", lease.id()}});
  return out;
}

Json ToJson(const etcdserverpb::Member& member) {
  Json out = {{"ID", member.id()}};
  Put(&out, "name", member.name());
  for (const auto& url : member.peerurls()) out["peerURLs"].push_back(url);
  for (const auto& url : member.clienturls()) out["clientURLs"].push_back(url);
  Put(&out, "isLearner", member.islearner());
  return out;
}

Json ToJson(const etcdserverpb::StatusResponse& response) {
  Json out = {{"header", ToJson(response.header())}};
  Put(&out, "version", response.version());
  Put(&out, "dbSize", response.dbsize());
  Put(&out, "leader", response.leader());
  Put(&out, "raftIndex", response.raftindex());
  Put(&out, "raftTerm", response.raftterm());
  Put(&out, "raftAppliedIndex", response.raftappliedindex());
  for (const auto& error : response.errors()) out["errors"].push_back(error);
  Put(&out, "dbSizeInUse", response.dbsizeinuse());
  Put(&out, "isLearner", response.islearner());
  Put(&out, "storageVersion", response.storageversion());
  Put(&out, "dbSizeQuota", response.dbsizequota());
  if (response.has_downgradeinfo()) {
    Json info = Json::object();
    Put(&info, "enabled", response.downgradeinfo().enabled());
    Put(&info, "targetVersion", response.downgradeinfo().targetversion());
    out["downgradeInfo"] = info;
  }
  return out;
}

Json ToJson(const etcdserverpb::HashKVResponse& response) {
  Json out = {{"header", ToJson(response.header())}};
  Put(&out, "hash", response.hash());
  Put(&out, "compact_revision", response.compact_revision());
  Put(&out, "hash_revision", response.hash_revision());
  return out;
}

void PrintJson(const Json& json) { PrintLine(json.dump(-1, ' ', false, Json::error_handler_t::replace)); }

}  // namespace keyway::ctl
