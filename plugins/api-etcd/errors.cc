// SPDX-License-Identifier: Apache-2.0
//
// The table of error texts.
#include "errors.h"

namespace keyway::api_etcd {
namespace {

struct Entry {
  uint32_t detail;
  int32_t code;
  std::string_view text;
};

// etcd 3.7 sends two of its errors without a gRPC status (too many requests, not enough started
// members), so their code on the wire is UNKNOWN.
constexpr Entry kEntries[] = {
    {KW_DETAIL_EMPTY_KEY, KW_INVALID_ARGUMENT, "etcdserver: key is not provided"},
    {KW_DETAIL_KEY_NOT_FOUND, KW_INVALID_ARGUMENT, "etcdserver: key not found"},
    {KW_DETAIL_VALUE_PROVIDED, KW_INVALID_ARGUMENT, "etcdserver: value is provided"},
    {KW_DETAIL_LEASE_PROVIDED, KW_INVALID_ARGUMENT, "etcdserver: lease is provided"},
    {KW_DETAIL_TOO_MANY_OPS, KW_INVALID_ARGUMENT, "etcdserver: too many operations in txn request"},
    {KW_DETAIL_DUPLICATE_KEY, KW_INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request"},
    {KW_DETAIL_INVALID_SORT_OPTION, KW_INVALID_ARGUMENT, "etcdserver: invalid sort option"},
    {KW_DETAIL_COMPACTED, KW_OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"},
    {KW_DETAIL_FUTURE_REVISION, KW_OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"},
    {KW_DETAIL_NO_SPACE, KW_RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"},
    {KW_DETAIL_REQUEST_TOO_LARGE, KW_INVALID_ARGUMENT, "etcdserver: request is too large"},
    {KW_DETAIL_TOO_MANY_REQUESTS, KW_UNKNOWN, "etcdserver: too many requests"},
    {KW_DETAIL_LEASE_NOT_FOUND, KW_NOT_FOUND, "etcdserver: requested lease not found"},
    {KW_DETAIL_LEASE_EXISTS, KW_FAILED_PRECONDITION, "etcdserver: lease already exists"},
    {KW_DETAIL_LEASE_TTL_TOO_LARGE, KW_OUT_OF_RANGE, "etcdserver: too large lease TTL"},
    {KW_DETAIL_MEMBER_NOT_FOUND, KW_NOT_FOUND, "etcdserver: member not found"},
    {KW_DETAIL_MEMBER_EXISTS, KW_FAILED_PRECONDITION, "etcdserver: member ID already exist"},
    {KW_DETAIL_PEER_URL_EXISTS, KW_FAILED_PRECONDITION, "etcdserver: Peer URLs already exists"},
    {KW_DETAIL_MEMBER_BAD_URLS, KW_INVALID_ARGUMENT, "etcdserver: given member URLs are invalid"},
    {KW_DETAIL_MEMBER_NOT_LEARNER, KW_FAILED_PRECONDITION, "etcdserver: can only promote a learner member"},
    {KW_DETAIL_LEARNER_NOT_READY, KW_FAILED_PRECONDITION,
     "etcdserver: can only promote a learner member which is in sync with leader"},
    {KW_DETAIL_TOO_MANY_LEARNERS, KW_FAILED_PRECONDITION, "etcdserver: too many learner members in cluster"},
    {KW_DETAIL_NOT_ENOUGH_STARTED_MEMBERS, KW_UNKNOWN,
     "etcdserver: re-configuration failed due to not enough started members"},
    {KW_DETAIL_UNHEALTHY_CLUSTER, KW_UNAVAILABLE, "etcdserver: unhealthy cluster"},
    {KW_DETAIL_NOT_SUPPORTED_FOR_LEARNER, KW_FAILED_PRECONDITION,
     "etcdserver: rpc not supported for learner"},
    {KW_DETAIL_NO_LEADER, KW_UNAVAILABLE, "etcdserver: no leader"},
    {KW_DETAIL_NOT_LEADER, KW_FAILED_PRECONDITION, "etcdserver: not leader"},
    {KW_DETAIL_LEADER_CHANGED, KW_UNAVAILABLE, "etcdserver: leader changed"},
    {KW_DETAIL_TIMEOUT, KW_UNAVAILABLE, "etcdserver: request timed out"},
    {KW_DETAIL_TIMEOUT_LEADER_FAILED, KW_UNAVAILABLE,
     "etcdserver: request timed out, possibly due to previous leader failure"},
    {KW_DETAIL_STOPPED, KW_UNAVAILABLE, "etcdserver: server stopped"},
    {KW_DETAIL_CORRUPT, KW_DATA_LOSS, "etcdserver: corrupt cluster"},
    {KW_DETAIL_BAD_LEADER_TRANSFEREE, KW_FAILED_PRECONDITION, "etcdserver: bad leader transferee"},
    {KW_DETAIL_NOT_PRIMARY_LESSOR, KW_UNKNOWN, "not a primary lessor"},
    {KW_DETAIL_WATCH_EMPTY_RANGE, KW_INVALID_ARGUMENT, "mvcc: watcher range is empty"},
};

constexpr std::string_view kCodeNames[] = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};

}  // namespace

bool DetailStatus(uint32_t detail, int32_t* code, std::string_view* text) {
  if (detail == KW_DETAIL_NONE) return false;
  for (const Entry& entry : kEntries) {
    if (entry.detail != detail) continue;
    *code = entry.code;
    *text = entry.text;
    return true;
  }
  return false;
}

Status ToStatus(int32_t code, uint32_t detail, std::string_view text) {
  std::string_view known;
  if (DetailStatus(detail, &code, &known)) return {code, std::string(known)};
  if (code < KW_OK || code > KW_UNAUTHENTICATED) code = KW_UNKNOWN;
  return {code, std::string(text)};
}

Status FromDetail(uint32_t detail) { return ToStatus(KW_UNKNOWN, detail, {}); }

std::string_view CodeName(int32_t code) {
  if (code < KW_OK || code > KW_UNAUTHENTICATED) code = KW_UNKNOWN;
  return kCodeNames[code];
}

std::string PercentEncode(std::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char character : text) {
    const auto byte = static_cast<uint8_t>(character);
    if (byte >= 0x20 && byte <= 0x7e && byte != '%') {
      out.push_back(character);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

}  // namespace keyway::api_etcd
