// SPDX-License-Identifier: Apache-2.0
//
// A history as JSON lines, for programs of others. The first line is
//   {"type":"history","settled":bool,"end_ns":n, ...notes}
// then one line for each operation (type "operation"), watch ("watch") and lease that ended by itself
// ("expiry"). Strings are bytes: U+0000 to U+00FF stand for the bytes 0 to 255. Zeros, empty strings and
// empty lists are left out; enumerations are the numbers of keyway/kernel.h.
#pragma once

#include <map>
#include <string>

#include "tests/sim/history/order.h"
#include "tests/sim/history/types.h"

namespace keyway::sim {

// `notes` go into the first line as strings. `maybe_order` may be null: then no expiries are written.
std::string ToJsonLines(const History& history, const Order* maybe_order,
                        const std::map<std::string, std::string>& notes);

}  // namespace keyway::sim
