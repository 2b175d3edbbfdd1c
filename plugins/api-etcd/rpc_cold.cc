// SPDX-License-Identifier: Apache-2.0
//
// The rare RPCs.
#include "rpc_cold.h"

#include <algorithm>

#include "etcd/health.pb.h"
#include "etcd/rpc.pb.h"
#include "io_thread.h"
#include "rpc_unary.h"
#include "stream.h"

namespace keyway::api_etcd {
namespace {

namespace pb = ::etcdserverpb;

template <typename Message>
bool Parse(kw_slice bytes, Message* out) {
  return out->ParseFromArray(bytes.ptr, static_cast<int>(bytes.len));
}

template <typename Message>
void Send(Stream* stream, const Message& message) {
  const size_t bytes = message.ByteSizeLong();
  message.SerializeToArray(stream->BeginMessage(bytes), static_cast<int>(bytes));
  stream->EndMessage();
  stream->FinishOk();
}

void FillHeader(const kw_reply& reply, pb::ResponseHeader* out) {
  out->set_cluster_id(reply.cluster_id);
  out->set_member_id(reply.member_id);
  out->set_revision(reply.revision);
  out->set_raft_term(reply.raft_term);
}
void FillHeader(const Server& server, pb::ResponseHeader* out) {
  out->set_cluster_id(server.cluster_id());
  out->set_member_id(server.member_id());
  out->set_revision(server.revision());
  out->set_raft_term(server.raft_term());
}

void FillMember(const kw_member& member, pb::Member* out) {
  out->set_id(member.id);
  out->set_name(std::string(View(member.name)));
  for (size_t i = 0; i < member.peer_url_count; ++i) {
    out->add_peerurls(std::string(View(member.peer_urls[i])));
  }
  for (size_t i = 0; i < member.client_url_count; ++i) {
    out->add_clienturls(std::string(View(member.client_urls[i])));
  }
  out->set_islearner(member.is_learner != 0);
}

template <typename Response>
Response MembersResponse(const kw_reply& reply) {
  Response response;
  FillHeader(reply, response.mutable_header());
  for (size_t i = 0; i < reply.member_count; ++i) {
    FillMember(reply.members[i], response.add_members());
  }
  return response;
}

// Copies the URLs into the call, since the parsed message does not live as long.
template <typename Strings>
void CopyUrls(const Strings& urls, Call* call, kw_member_request* request) {
  auto* const slices = call->arena.Array<kw_slice>(static_cast<size_t>(urls.size()));
  for (int i = 0; i < urls.size(); ++i) {
    auto* const copy = call->arena.Array<uint8_t>(urls[i].size());
    std::copy(urls[i].begin(), urls[i].end(), copy);
    slices[i] = {copy, urls[i].size()};
  }
  request->peer_urls = slices;
  request->peer_url_count = static_cast<size_t>(urls.size());
}

Status StartLease(Call* call, kw_slice message, uint64_t deadline_ns) {
  switch (call->rpc) {
    case Rpc::kLeaseGrant: {
      pb::LeaseGrantRequest parsed;
      if (!Parse(message, &parsed)) return MalformedRequest();
      kw_lease_request* const request = call->Init(&call->lease, KW_REQ_LEASE_GRANT, deadline_ns);
      request->id = parsed.id();
      request->ttl_s = parsed.ttl();
      return {};
    }
    case Rpc::kLeaseRevoke: {
      pb::LeaseRevokeRequest parsed;
      if (!Parse(message, &parsed)) return MalformedRequest();
      call->Init(&call->lease, KW_REQ_LEASE_REVOKE, deadline_ns)->id = parsed.id();
      return {};
    }
    case Rpc::kLeaseTimeToLive: {
      pb::LeaseTimeToLiveRequest parsed;
      if (!Parse(message, &parsed)) return MalformedRequest();
      kw_lease_request* const request = call->Init(&call->lease, KW_REQ_LEASE_TIME_TO_LIVE, deadline_ns);
      request->id = parsed.id();
      request->lease_flags = parsed.keys() ? KW_LEASE_WITH_KEYS : 0;
      return {};
    }
    default:
      call->Init(&call->request, KW_REQ_LEASE_LIST, deadline_ns);
      return {};
  }
}

Status StartCluster(Call* call, kw_slice message, uint64_t deadline_ns) {
  switch (call->rpc) {
    case Rpc::kMemberAdd: {
      pb::MemberAddRequest parsed;
      if (!Parse(message, &parsed)) return MalformedRequest();
      kw_member_request* const request = call->Init(&call->member, KW_REQ_MEMBER_ADD, deadline_ns);
      CopyUrls(parsed.peerurls(), call, request);
      request->is_learner = parsed.islearner();
      return {};
    }
    case Rpc::kMemberUpdate: {
      pb::MemberUpdateRequest parsed;
      if (!Parse(message, &parsed)) return MalformedRequest();
      kw_member_request* const request = call->Init(&call->member, KW_REQ_MEMBER_UPDATE, deadline_ns);
      request->id = parsed.id();
      CopyUrls(parsed.peerurls(), call, request);
      return {};
    }
    case Rpc::kMemberRemove: {
      pb::MemberRemoveRequest parsed;
      if (!Parse(message, &parsed)) return MalformedRequest();
      call->Init(&call->member, KW_REQ_MEMBER_REMOVE, deadline_ns)->id = parsed.id();
      return {};
    }
    case Rpc::kMemberPromote: {
      pb::MemberPromoteRequest parsed;
      if (!Parse(message, &parsed)) return MalformedRequest();
      call->Init(&call->member, KW_REQ_MEMBER_PROMOTE, deadline_ns)->id = parsed.id();
      return {};
    }
    default: {
      pb::MemberListRequest parsed;
      if (!Parse(message, &parsed)) return MalformedRequest();
      call->Init(&call->request, KW_REQ_MEMBER_LIST, deadline_ns)->flags =
          parsed.linearizable() ? 0 : KW_REQ_SERIALIZABLE;
      return {};
    }
  }
}

Status StartAlarm(Stream* stream, kw_slice message) {
  pb::AlarmRequest parsed;
  if (!Parse(message, &parsed)) return MalformedRequest();
  if (parsed.action() != pb::AlarmRequest::GET) {
    return {KW_UNIMPLEMENTED, "alarms are not raised by this server"};
  }
  pb::AlarmResponse response;
  FillHeader(stream->io()->server(), response.mutable_header());
  Send(stream, response);
  return {};
}

Status StartHealth(Stream* stream, Rpc rpc, kw_slice message) {
  if (rpc == Rpc::kHealthList) {
    grpc::health::v1::HealthListResponse response;
    (*response.mutable_statuses())[""].set_status(grpc::health::v1::HealthCheckResponse::SERVING);
    Send(stream, response);
    return {};
  }
  grpc::health::v1::HealthCheckRequest parsed;
  if (!Parse(message, &parsed)) return MalformedRequest();
  if (!parsed.service().empty()) return {KW_NOT_FOUND, "unknown service"};
  grpc::health::v1::HealthCheckResponse response;
  response.set_status(grpc::health::v1::HealthCheckResponse::SERVING);
  Send(stream, response);
  return {};
}

void FinishMemberAdd(Stream* stream, const kw_reply& reply) {
  auto response = MembersResponse<pb::MemberAddResponse>(reply);
  for (size_t i = 0; i < reply.member_count; ++i) {
    if (reply.members[i].id == reply.new_member_id) {
      FillMember(reply.members[i], response.mutable_member());
    }
  }
  Send(stream, response);
}

void FinishStatus(Stream* stream, const kw_reply& reply) {
  pb::StatusResponse response;
  FillHeader(reply, response.mutable_header());
  const std::string& version = stream->io()->server().options.etcd_version;
  response.set_version(version);
  response.set_storageversion(version.substr(0, version.find('.', version.find('.') + 1)) + ".0");
  response.mutable_downgradeinfo()->set_enabled(false);
  if (const kw_status* const status = reply.status; status != nullptr) {
    response.set_dbsize(static_cast<int64_t>(status->db_bytes));
    response.set_dbsizeinuse(static_cast<int64_t>(status->db_bytes_in_use));
    response.set_dbsizequota(static_cast<int64_t>(status->db_bytes_quota));
    response.set_leader(status->leader);
    response.set_raftindex(status->raft_index);
    response.set_raftterm(status->raft_term);
    response.set_raftappliedindex(status->raft_applied_index);
    response.set_islearner(status->is_learner != 0);
    for (size_t i = 0; i < status->error_count; ++i) {
      response.add_errors(std::string(View(status->errors[i])));
    }
  }
  Send(stream, response);
}

void FinishLease(Stream* stream, Rpc rpc, int64_t id, const kw_reply& reply) {
  const kw_lease_info none = {};
  const kw_lease_info& lease = reply.lease == nullptr ? none : *reply.lease;
  if (rpc == Rpc::kLeaseGrant) {
    pb::LeaseGrantResponse response;
    FillHeader(reply, response.mutable_header());
    response.set_id(lease.id);
    response.set_ttl(lease.ttl_s);
    return Send(stream, response);
  }
  if (rpc == Rpc::kLeaseTimeToLive) {
    pb::LeaseTimeToLiveResponse response;
    FillHeader(reply, response.mutable_header());
    response.set_id(id);
    response.set_ttl(lease.ttl_s);
    response.set_grantedttl(lease.granted_ttl_s);
    for (size_t i = 0; i < lease.key_count; ++i) {
      response.add_keys(std::string(View(lease.keys[i])));
    }
    return Send(stream, response);
  }
  pb::LeaseLeasesResponse response;
  FillHeader(reply, response.mutable_header());
  for (size_t i = 0; i < lease.id_count; ++i) response.add_leases()->set_id(lease.ids[i]);
  Send(stream, response);
}

template <typename Response>
void SendHeaderOnly(Stream* stream, const kw_reply& reply) {
  Response response;
  FillHeader(reply, response.mutable_header());
  Send(stream, response);
}

}  // namespace

Status StartColdCall(Stream* stream, Call* call, kw_slice message) {
  const uint64_t deadline_ns = stream->deadline_ns();
  switch (call->rpc) {
    case Rpc::kCompact: {
      pb::CompactionRequest parsed;
      if (!Parse(message, &parsed)) return MalformedRequest();
      kw_compact_request* const request = call->Init(&call->compact, KW_REQ_COMPACT, deadline_ns);
      request->revision = parsed.revision();
      if (parsed.physical()) request->req.flags |= KW_REQ_PHYSICAL;
      return {};
    }
    case Rpc::kLeaseGrant:
    case Rpc::kLeaseRevoke:
    case Rpc::kLeaseTimeToLive:
    case Rpc::kLeaseLeases:
      return StartLease(call, message, deadline_ns);
    case Rpc::kMemberAdd:
    case Rpc::kMemberRemove:
    case Rpc::kMemberUpdate:
    case Rpc::kMemberPromote:
    case Rpc::kMemberList:
      return StartCluster(call, message, deadline_ns);
    case Rpc::kStatus:
      call->Init(&call->request, KW_REQ_STATUS, deadline_ns);
      return {};
    case Rpc::kHashKV: {
      pb::HashKVRequest parsed;
      if (!Parse(message, &parsed)) return MalformedRequest();
      call->Init(&call->compact, KW_REQ_HASH_KV, deadline_ns)->revision = parsed.revision();
      return {};
    }
    case Rpc::kMoveLeader: {
      pb::MoveLeaderRequest parsed;
      if (!Parse(message, &parsed)) return MalformedRequest();
      call->Init(&call->member, KW_REQ_MOVE_LEADER, deadline_ns)->id = parsed.targetid();
      return {};
    }
    case Rpc::kAlarm:
      return StartAlarm(stream, message);
    case Rpc::kAuthStatus: {
      pb::AuthStatusResponse response;
      FillHeader(stream->io()->server(), response.mutable_header());
      response.set_authrevision(1);
      Send(stream, response);
      return {};
    }
    default:
      return StartHealth(stream, call->rpc, message);
  }
}

void FinishColdCall(Stream* stream, Call* call) {
  const kw_reply& reply = *call->reply;
  switch (call->rpc) {
    case Rpc::kCompact:
      return SendHeaderOnly<pb::CompactionResponse>(stream, reply);
    case Rpc::kLeaseRevoke:
      return SendHeaderOnly<pb::LeaseRevokeResponse>(stream, reply);
    case Rpc::kMoveLeader:
      return SendHeaderOnly<pb::MoveLeaderResponse>(stream, reply);
    case Rpc::kLeaseGrant:
    case Rpc::kLeaseTimeToLive:
    case Rpc::kLeaseLeases: {
      const bool has_id = call->rpc == Rpc::kLeaseTimeToLive;
      return FinishLease(stream, call->rpc, has_id ? call->lease.id : 0, reply);
    }
    case Rpc::kMemberAdd:
      return FinishMemberAdd(stream, reply);
    case Rpc::kMemberRemove:
      return Send(stream, MembersResponse<pb::MemberRemoveResponse>(reply));
    case Rpc::kMemberUpdate:
      return Send(stream, MembersResponse<pb::MemberUpdateResponse>(reply));
    case Rpc::kMemberPromote:
      return Send(stream, MembersResponse<pb::MemberPromoteResponse>(reply));
    case Rpc::kMemberList:
      return Send(stream, MembersResponse<pb::MemberListResponse>(reply));
    case Rpc::kStatus:
      return FinishStatus(stream, reply);
    case Rpc::kHashKV: {
      pb::HashKVResponse response;
      FillHeader(reply, response.mutable_header());
      if (reply.hash != nullptr) {
        response.set_hash(reply.hash->hash);
        response.set_compact_revision(reply.hash->compact_revision);
        response.set_hash_revision(reply.hash->hash_revision);
      }
      return Send(stream, response);
    }
    default:
      stream->Finish({KW_INTERNAL, "unexpected reply"});
      return;
  }
}

}  // namespace keyway::api_etcd
