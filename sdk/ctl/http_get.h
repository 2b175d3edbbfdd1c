// SPDX-License-Identifier: Apache-2.0
//
// One GET of a plain HTTP page of a node, for what gRPC does not offer. TLS as for all other commands.
#pragma once

#include <string>

#include "context.h"

namespace keyway::ctl {

// Fetches http(s)://ENDPOINT`path` into `body`. kOk; kBadConnection or kError with the reason in `error`.
// Waits at most the context's dial and command timeouts; the body is bounded to 4 MiB.
int HttpGet(const Context& context, const std::string& endpoint, const std::string& path, std::string* body,
            std::string* error);

}  // namespace keyway::ctl
