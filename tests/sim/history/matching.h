// SPDX-License-Identifier: Apache-2.0
//
// A matching that gives each of `choices` one of its subjects, no subject twice (augmenting paths).
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace keyway::sim {

// `chosen` receives the subject of each choice. Returns a choice that gets none, if there is one.
inline std::optional<size_t> MatchAll(const std::vector<std::vector<size_t>>& choices, size_t subjects,
                                      std::vector<size_t>* chosen) {
  constexpr size_t kFree = static_cast<size_t>(-1);
  std::vector<size_t> owner(subjects, kFree), visited(subjects, kFree);
  chosen->assign(choices.size(), kFree);
  for (size_t start = 0; start < choices.size(); ++start) {
    // A path of choices, each of which wants the subject that the one after it holds.
    struct Step {
      size_t choice, next;
    };
    std::vector<Step> path = {{start, 0}};
    bool found = false;
    while (!path.empty() && !found) {
      Step& step = path.back();
      if (step.next == choices[step.choice].size()) {
        path.pop_back();
        continue;
      }
      const size_t subject = choices[step.choice][step.next++];
      if (visited[subject] == start) continue;
      visited[subject] = start;
      if (owner[subject] == kFree) {
        found = true;
      } else {
        path.push_back({owner[subject], 0});
      }
    }
    if (!found) return start;
    for (const Step& step : path) {
      const size_t subject = choices[step.choice][step.next - 1];
      owner[subject] = step.choice;
      (*chosen)[step.choice] = subject;
    }
  }
  return std::nullopt;
}

}  // namespace keyway::sim
