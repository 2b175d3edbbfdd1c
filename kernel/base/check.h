// SPDX-License-Identifier: Apache-2.0
//
// Assertions that stay on in release: a broken invariant stops the node rather than guess.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace keyway {

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace keyway

#define KW_CHECK(condition) \
  (__builtin_expect(!!(condition), 1) ? (void)0 : ::keyway::CheckFailed(__FILE__, __LINE__, #condition))
#ifdef NDEBUG
#define KW_DCHECK(condition) ((void)sizeof(condition))
#else
#define KW_DCHECK(condition) KW_CHECK(condition)
#endif
#define KW_UNREACHABLE() ::keyway::CheckFailed(__FILE__, __LINE__, "unreachable")
