// SPDX-License-Identifier: Apache-2.0
//
// Sleep until a word changes. std::atomic::wait of libstdc++ yields the processor a few times before it
// sleeps; on a busy machine each yield costs a scheduler slice, so hand-overs between threads use the
// system call itself.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace keyway {

static_assert(sizeof(std::atomic<int32_t>) == 4 && std::atomic<int32_t>::is_always_lock_free);

// Returns when *word != expected was seen or a wake came; may return early: look again. [any]
inline void FutexWait(std::atomic<int32_t>* word, int32_t expected) {
  syscall(SYS_futex, reinterpret_cast<int32_t*>(word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}
inline void FutexWakeOne(std::atomic<int32_t>* word) {
  syscall(SYS_futex, reinterpret_cast<int32_t*>(word), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

}  // namespace keyway
