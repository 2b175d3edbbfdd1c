// SPDX-License-Identifier: Apache-2.0
//
// What helps a member whose data cannot be trusted any more.
#pragma once

namespace keyway::core {

inline constexpr const char* kReplaceHint =
    "; replace this member: `keywayctl member remove`, `keywayctl member add`, then start it with an "
    "empty data directory and [cluster] state = \"existing\"";

}  // namespace keyway::core
