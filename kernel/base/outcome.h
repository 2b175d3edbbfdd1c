// SPDX-License-Identifier: Apache-2.0
//
// The outcome of a request: a code of keyway/abi.h and the exact reason of keyway/detail.h. Two
// words, no text: it is decided on every replica and travels on the hot path.
#pragma once

#include <cstdint>

#include "keyway/abi.h"
#include "keyway/detail.h"

namespace keyway {

struct [[nodiscard]] Outcome {
  int32_t code = KW_OK;
  uint32_t detail = KW_DETAIL_NONE;

  bool ok() const { return code == KW_OK; }
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

// The outcome that belongs to a detail (its code is etcd's, reference: api/v3rpc/rpctypes).
constexpr Outcome Failure(uint32_t detail) {
  switch (detail) {
    case KW_DETAIL_COMPACTED:
    case KW_DETAIL_FUTURE_REVISION:
    case KW_DETAIL_LEASE_TTL_TOO_LARGE:
      return {KW_OUT_OF_RANGE, detail};
    case KW_DETAIL_NO_SPACE:
    case KW_DETAIL_TOO_MANY_REQUESTS:
      return {KW_RESOURCE_EXHAUSTED, detail};
    case KW_DETAIL_LEASE_NOT_FOUND:
    case KW_DETAIL_MEMBER_NOT_FOUND:
      return {KW_NOT_FOUND, detail};
    case KW_DETAIL_LEASE_EXISTS:
    case KW_DETAIL_MEMBER_EXISTS:
    case KW_DETAIL_PEER_URL_EXISTS:
    case KW_DETAIL_MEMBER_NOT_LEARNER:
    case KW_DETAIL_LEARNER_NOT_READY:
    case KW_DETAIL_TOO_MANY_LEARNERS:
    case KW_DETAIL_NOT_ENOUGH_STARTED_MEMBERS:
    case KW_DETAIL_NOT_SUPPORTED_FOR_LEARNER:
    case KW_DETAIL_NOT_LEADER:
    case KW_DETAIL_BAD_LEADER_TRANSFEREE:
      return {KW_FAILED_PRECONDITION, detail};
    case KW_DETAIL_UNHEALTHY_CLUSTER:
    case KW_DETAIL_NO_LEADER:
    case KW_DETAIL_LEADER_CHANGED:
    case KW_DETAIL_TIMEOUT:
    case KW_DETAIL_TIMEOUT_LEADER_FAILED:
    case KW_DETAIL_STOPPED:
      return {KW_UNAVAILABLE, detail};
    case KW_DETAIL_CORRUPT:
      return {KW_DATA_LOSS, detail};
    case KW_DETAIL_NOT_PRIMARY_LESSOR:
      return {KW_UNKNOWN, detail};
    default:
      return {KW_INVALID_ARGUMENT, detail};
  }
}

}  // namespace keyway
