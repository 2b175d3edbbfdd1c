/* SPDX-License-Identifier: Apache-2.0
 *
 * CRC-32C (Castagnoli, reflected 0x82F63B78), as in RFC 3720: kw_crc32c(0, "123456789", 9) is
 * 0xE3069283. With SSE4.2 where the processor has it, decided once at run time. */
#ifndef KEYWAY_CRC32C_H
#define KEYWAY_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

static inline uint32_t kw_crc32c_portable(uint32_t state, const uint8_t *at, size_t size) {
  for (size_t i = 0; i < size; ++i) {
    state ^= at[i];
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ (0x82F63B78u & (0u - (state & 1u)));
  }
  return state;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static inline uint32_t kw_crc32c_sse42(uint32_t state, const uint8_t *at,
                                                                         size_t size) {
  uint64_t wide = state;
  for (; size >= 8; size -= 8, at += 8) {
    uint64_t word;
    memcpy(&word, at, 8);
    wide = __builtin_ia32_crc32di(wide, word);
  }
  state = (uint32_t)wide;
  for (; size > 0; --size, ++at) state = __builtin_ia32_crc32qi(state, *at);
  return state;
}
#endif

/* Continues `crc` (0 to start) over `size` bytes. */
static inline uint32_t kw_crc32c(uint32_t crc, const void *bytes, size_t size) {
  const uint8_t *at = (const uint8_t *)bytes;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return ~kw_crc32c_sse42(~crc, at, size);
#endif
  return ~kw_crc32c_portable(~crc, at, size);
}

#ifdef __cplusplus
}
#endif
#endif /* KEYWAY_CRC32C_H */
