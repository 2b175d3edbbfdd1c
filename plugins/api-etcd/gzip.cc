// SPDX-License-Identifier: Apache-2.0
//
// Compression by zlib, with a bound on what a small message may unpack to.
#include "gzip.h"

#include <zlib.h>

#include <algorithm>

namespace keyway::api_etcd {
namespace {

constexpr int kGzipWindowBits = 15 + 16;

}  // namespace

void GzipCompress(kw_slice input, Buffer* out) {
  z_stream stream = {};
  if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, kGzipWindowBits, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::bad_alloc();
  }
  const size_t bound = deflateBound(&stream, input.len);
  uint8_t* const at = out->Extend(bound);
  stream.next_in = const_cast<uint8_t*>(input.ptr);
  stream.avail_in = static_cast<uInt>(input.len);
  stream.next_out = at;
  stream.avail_out = static_cast<uInt>(bound);
  deflate(&stream, Z_FINISH);
  out->Shorten(bound - stream.total_out);
  deflateEnd(&stream);
}

Inflated GzipDecompress(kw_slice input, size_t bytes_max, Buffer* out) {
  z_stream stream = {};
  if (inflateInit2(&stream, kGzipWindowBits) != Z_OK) throw std::bad_alloc();
  stream.next_in = const_cast<uint8_t*>(input.ptr);
  stream.avail_in = static_cast<uInt>(input.len);
  Inflated outcome = Inflated::kCorrupt;
  size_t total = 0;
  while (true) {
    constexpr size_t kPieceBytes = 16 << 10;
    uint8_t* const at = out->Extend(kPieceBytes);
    stream.next_out = at;
    stream.avail_out = kPieceBytes;
    const int result = inflate(&stream, Z_NO_FLUSH);
    out->Shorten(stream.avail_out);
    total += kPieceBytes - stream.avail_out;
    if (total > bytes_max) {
      outcome = Inflated::kTooLarge;
      break;
    }
    if (result == Z_STREAM_END) {
      outcome = Inflated::kOk;
      break;
    }
    if (result != Z_OK || (stream.avail_in == 0 && stream.avail_out != 0)) break;
  }
  inflateEnd(&stream);
  return outcome;
}

}  // namespace keyway::api_etcd
