// SPDX-License-Identifier: Apache-2.0
//
// A deep copy of a kernel's reply into pages that fault after its release.
#pragma once

#include "kernel/plugin/check/poison.h"
#include "keyway/kernel.h"

namespace keyway::check {

// Fills `*out`, all but its release, with pointers into the pages that are returned.
PoisonedCopy CopyReply(const Subject& subject, const Function& function, const kw_reply& reply,
                       kw_reply** out);

}  // namespace keyway::check
