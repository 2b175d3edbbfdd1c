// SPDX-License-Identifier: Apache-2.0
//
// The table keyway.kernel/1 in front of a core::Node: what API plugins get from their host.
#pragma once

#include "keyway/kernel.h"

namespace keyway {

// Its functions find the node, a core::Node, with KernelSelf(): set NodeServices::kernel_self before.
const kw_kernel* KernelTable();

}  // namespace keyway
