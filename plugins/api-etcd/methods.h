// SPDX-License-Identifier: Apache-2.0
//
// The RPCs that are served, by path.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace keyway::api_etcd {

enum class Rpc : uint8_t {
  kRange,
  kRangeStream,
  kPut,
  kDeleteRange,
  kTxn,
  kCompact,
  kWatch,
  kLeaseGrant,
  kLeaseRevoke,
  kLeaseKeepAlive,
  kLeaseTimeToLive,
  kLeaseLeases,
  kMemberAdd,
  kMemberRemove,
  kMemberUpdate,
  kMemberList,
  kMemberPromote,
  kAlarm,
  kStatus,
  kHashKV,
  kMoveLeader,
  kAuthStatus,
  kHealthCheck,
  kHealthList,
  kHealthWatch,
};
inline constexpr size_t kRpcCount = static_cast<size_t>(Rpc::kHealthWatch) + 1;

enum class RpcType : uint8_t { kUnary, kServerStream, kBidiStream };

struct Method {
  Rpc rpc;
  RpcType type;
  bool is_limited;         // messages above max_request_bytes are refused: what is proposed to Raft
  bool serves_on_learner;  // a learner answers it too
  std::string_view service;
  std::string_view name;
  std::string_view path;  // "/service/name"
};

// The method of index `rpc`, and the one with `path`, NULL if it is not served.
const Method& MethodOf(Rpc rpc);
const Method* FindMethod(std::string_view path);

// Why `path` is not served, as grpc-go says it: "unknown service X", "unknown method Y for service
// Z", or that the name is malformed.
std::string UnknownMethodText(std::string_view path);

// "unary", "server_stream", "bidi_stream": the label grpc_type.
std::string_view RpcTypeName(RpcType type);

}  // namespace keyway::api_etcd
