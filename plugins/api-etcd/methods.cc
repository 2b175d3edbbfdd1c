// SPDX-License-Identifier: Apache-2.0
//
// The table of RPCs and its lookup.
#include "methods.h"

#include <algorithm>
#include <array>

namespace keyway::api_etcd {
namespace {

#define KW_METHOD(rpc, type, limited, learner, service, name) \
  Method { Rpc::rpc, RpcType::type, limited, learner, service, name, "/" service "/" name }

constexpr std::array<Method, kRpcCount> kMethods = {
    KW_METHOD(kRange, kUnary, false, true, "etcdserverpb.KV", "Range"),
    KW_METHOD(kRangeStream, kServerStream, false, false, "etcdserverpb.KV", "RangeStream"),
    KW_METHOD(kPut, kUnary, true, false, "etcdserverpb.KV", "Put"),
    KW_METHOD(kDeleteRange, kUnary, true, false, "etcdserverpb.KV", "DeleteRange"),
    KW_METHOD(kTxn, kUnary, true, false, "etcdserverpb.KV", "Txn"),
    KW_METHOD(kCompact, kUnary, true, false, "etcdserverpb.KV", "Compact"),
    KW_METHOD(kWatch, kBidiStream, false, false, "etcdserverpb.Watch", "Watch"),
    KW_METHOD(kLeaseGrant, kUnary, true, false, "etcdserverpb.Lease", "LeaseGrant"),
    KW_METHOD(kLeaseRevoke, kUnary, true, false, "etcdserverpb.Lease", "LeaseRevoke"),
    KW_METHOD(kLeaseKeepAlive, kBidiStream, false, false, "etcdserverpb.Lease", "LeaseKeepAlive"),
    KW_METHOD(kLeaseTimeToLive, kUnary, false, false, "etcdserverpb.Lease", "LeaseTimeToLive"),
    KW_METHOD(kLeaseLeases, kUnary, false, false, "etcdserverpb.Lease", "LeaseLeases"),
    KW_METHOD(kMemberAdd, kUnary, true, false, "etcdserverpb.Cluster", "MemberAdd"),
    KW_METHOD(kMemberRemove, kUnary, true, false, "etcdserverpb.Cluster", "MemberRemove"),
    KW_METHOD(kMemberUpdate, kUnary, true, false, "etcdserverpb.Cluster", "MemberUpdate"),
    KW_METHOD(kMemberList, kUnary, false, false, "etcdserverpb.Cluster", "MemberList"),
    KW_METHOD(kMemberPromote, kUnary, true, false, "etcdserverpb.Cluster", "MemberPromote"),
    KW_METHOD(kAlarm, kUnary, true, false, "etcdserverpb.Maintenance", "Alarm"),
    KW_METHOD(kStatus, kUnary, false, true, "etcdserverpb.Maintenance", "Status"),
    KW_METHOD(kHashKV, kUnary, false, false, "etcdserverpb.Maintenance", "HashKV"),
    KW_METHOD(kMoveLeader, kUnary, false, false, "etcdserverpb.Maintenance", "MoveLeader"),
    KW_METHOD(kAuthStatus, kUnary, false, false, "etcdserverpb.Auth", "AuthStatus"),
    KW_METHOD(kHealthCheck, kUnary, false, true, "grpc.health.v1.Health", "Check"),
    KW_METHOD(kHealthList, kUnary, false, true, "grpc.health.v1.Health", "List"),
    KW_METHOD(kHealthWatch, kServerStream, false, true, "grpc.health.v1.Health", "Watch"),
};
#undef KW_METHOD

constexpr bool IndexedByRpc() {
  for (size_t i = 0; i < kMethods.size(); ++i) {
    if (static_cast<size_t>(kMethods[i].rpc) != i) return false;
  }
  return true;
}
static_assert(IndexedByRpc(), "the table is indexed by Rpc");

// A perfect enough hash: paths differ in length and in these two characters, so a bucket holds at
// most a few.
constexpr size_t kBucketCount = 64;
constexpr size_t Bucket(std::string_view path) {
  const auto last = static_cast<uint8_t>(path[path.size() - 1]);
  const auto third = static_cast<uint8_t>(path[path.size() - 3]);
  return (path.size() * 7 + last * 3 + third) % kBucketCount;
}
struct Buckets {
  std::array<std::array<int8_t, 8>, kBucketCount> methods;
};
constexpr Buckets MakeBuckets() {
  Buckets buckets{};
  for (auto& bucket : buckets.methods) bucket.fill(-1);
  for (size_t i = 0; i < kMethods.size(); ++i) {
    auto& bucket = buckets.methods[Bucket(kMethods[i].path)];
    size_t slot = 0;
    while (bucket[slot] >= 0) ++slot;  // Out of bounds would not compile.
    bucket[slot] = static_cast<int8_t>(i);
  }
  return buckets;
}
constexpr Buckets kBuckets = MakeBuckets();

}  // namespace

const Method& MethodOf(Rpc rpc) { return kMethods[static_cast<size_t>(rpc)]; }

const Method* FindMethod(std::string_view path) {
  if (path.size() < 4) return nullptr;
  for (const int8_t index : kBuckets.methods[Bucket(path)]) {
    if (index < 0) return nullptr;
    const Method& method = kMethods[static_cast<size_t>(index)];
    if (method.path == path) return &method;
  }
  return nullptr;
}

std::string UnknownMethodText(std::string_view path) {
  const std::string_view name = path.empty() || path[0] != '/' ? path : path.substr(1);
  const size_t slash = name.rfind('/');
  if (slash == std::string_view::npos) {
    return "malformed method name: \"" + std::string(path) + "\"";
  }
  const std::string service(name.substr(0, slash));
  const bool is_known = std::any_of(kMethods.begin(), kMethods.end(),
                                    [&](const Method& method) { return method.service == service; });
  if (!is_known) return "unknown service " + service;
  return "unknown method " + std::string(name.substr(slash + 1)) + " for service " + service;
}

std::string_view RpcTypeName(RpcType type) {
  switch (type) {
    case RpcType::kUnary:
      return "unary";
    case RpcType::kServerStream:
      return "server_stream";
    case RpcType::kBidiStream:
      return "bidi_stream";
  }
  return "unary";
}

}  // namespace keyway::api_etcd
