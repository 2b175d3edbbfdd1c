// SPDX-License-Identifier: Apache-2.0
//
// The unary RPCs: from the message to the kernel's request, and from its reply to the response.
#pragma once

#include "call.h"

namespace keyway::api_etcd {

class Stream;

// Fills the call's request from `message`, which lies in call->input. OK: submit the call, unless the
// stream was finished meanwhile because no kernel was needed. Else: the error for the client.
Status StartUnaryCall(Stream* stream, Call* call, kw_slice message);

// Writes the response of a call that succeeded (call->reply is set) and finishes the stream.
void FinishUnaryCall(Stream* stream, Call* call);

Status MalformedRequest();

}  // namespace keyway::api_etcd
