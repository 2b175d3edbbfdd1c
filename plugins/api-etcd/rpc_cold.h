// SPDX-License-Identifier: Apache-2.0
//
// The unary RPCs that are rare, through generated protobuf code: leases, members, maintenance, auth
// status, health. Used by rpc_unary.cc.
#pragma once

#include "call.h"

namespace keyway::api_etcd {

class Stream;

Status StartColdCall(Stream* stream, Call* call, kw_slice message);
void FinishColdCall(Stream* stream, Call* call);

}  // namespace keyway::api_etcd
