// SPDX-License-Identifier: Apache-2.0
//
// The shapes of `-w json`: those of etcdctl, so that a program can read either. Bytes are base64, zero
// fields are left out where etcdctl leaves them out.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "etcd/rpc.pb.h"

namespace keyway::ctl {

using Json = nlohmann::ordered_json;

Json ToJson(const etcdserverpb::ResponseHeader& header);
Json ToJson(const mvccpb::KeyValue& pair);
Json ToJson(const mvccpb::Event& event);
Json ToJson(const etcdserverpb::RangeResponse& response);
Json ToJson(const etcdserverpb::PutResponse& response);
Json ToJson(const etcdserverpb::DeleteRangeResponse& response);
Json ToJson(const etcdserverpb::ResponseOp& op);
Json ToJson(const etcdserverpb::TxnResponse& response);
Json ToJson(const etcdserverpb::WatchResponse& response);
Json ToJson(const etcdserverpb::LeaseGrantResponse& response);
Json ToJson(const etcdserverpb::LeaseKeepAliveResponse& response);
Json ToJson(const etcdserverpb::LeaseTimeToLiveResponse& response);
Json ToJson(const etcdserverpb::LeaseLeasesResponse& response);
Json ToJson(const etcdserverpb::Member& member);
Json ToJson(const etcdserverpb::StatusResponse& response);
Json ToJson(const etcdserverpb::HashKVResponse& response);

// A response that is a header, and members if it has any.
template <typename Response>
Json HeaderAndMembers(const Response& response) {
  Json out = {{"header", ToJson(response.header())}};
  for (const auto& member : response.members()) out["members"].push_back(ToJson(member));
  return out;
}

// One line on stdout.
void PrintJson(const Json& json);

}  // namespace keyway::ctl
