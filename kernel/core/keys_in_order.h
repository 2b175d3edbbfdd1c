// SPDX-License-Identifier: Apache-2.0
//
// The keys of a hash map, ascending. The map's own order differs from run to run, so nothing that can be
// seen from outside may follow it: not the order in which proposals are sent again, nor that of replies.
#pragma once

#include <algorithm>
#include <vector>

namespace keyway::core {

template <typename Map>
std::vector<typename Map::key_type> KeysInOrder(const Map& map) {
  std::vector<typename Map::key_type> keys;
  keys.reserve(map.size());
  for (const auto& item : map) keys.push_back(item.first);
  std::sort(keys.begin(), keys.end());
  return keys;
}

}  // namespace keyway::core
