// SPDX-License-Identifier: Apache-2.0
//
// Why an encrypted connection fails. gRPC says "Endpoint read failed" of a certificate that the server
// does not accept; this asks the server once more and tells in words.
#pragma once

#include <string>

#include "context.h"

namespace keyway::ctl {

// Shakes hands with `target` ("host:port") as these flags say, for at most `limit_ms`. Empty: nothing
// is wrong with TLS. `is_tls`: what the caller had spoken; without it only a server that expects TLS is
// found.
std::string ExplainTls(const std::string& target, bool is_tls, const Flags& flags, int limit_ms);

}  // namespace keyway::ctl
