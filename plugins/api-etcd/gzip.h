// SPDX-License-Identifier: Apache-2.0
//
// gRPC's message compression.
#pragma once

#include "buffer.h"

namespace keyway::api_etcd {

// Appends `input` compressed.
void GzipCompress(kw_slice input, Buffer* out);

enum class Inflated { kOk, kCorrupt, kTooLarge };
// Appends `input` decompressed, at most `bytes_max` bytes.
Inflated GzipDecompress(kw_slice input, size_t bytes_max, Buffer* out);

}  // namespace keyway::api_etcd
