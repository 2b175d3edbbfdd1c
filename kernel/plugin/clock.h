// SPDX-License-Identifier: Apache-2.0
//
// Clock: the only source of time of the kernel and of every plugin. The daemon gives the real one
// (kernel/daemon/real_clock.h), the simulator a virtual one.
#pragma once

#include <cstdint>

#include "keyway/abi.h"

namespace keyway {
inline namespace host {

class Clock {
 public:
  virtual ~Clock() = default;

  // Nanoseconds since some fixed point; never goes back. [any]
  virtual uint64_t MonoNs() = 0;
  // Nanoseconds since 1970, UTC. [any]
  virtual uint64_t WallNs() = 0;
  // Fires completion->done(KW_OK) on the clock's thread once `delay_ns` have passed. The completion is
  // pinned until done() returns; done() only hands over. [any]
  virtual void After(uint64_t delay_ns, kw_completion* completion) = 0;
  // Fires done(KW_CANCELLED) soon, on the clock's thread, unless it has fired already. [any]
  virtual void Cancel(kw_completion* completion) = 0;
};

}  // namespace host
}  // namespace keyway
