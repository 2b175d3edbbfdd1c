// SPDX-License-Identifier: Apache-2.0
#include "kernel/watch/interval_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

namespace keyway::watch {
namespace {

std::vector<const IntervalNode*> Stab(const IntervalIndex& index, std::string_view key) {
  std::vector<const IntervalNode*> found;
  index.Stab(key, [&](IntervalNode* node) { found.push_back(node); });
  return found;
}

TEST(IntervalIndex, HalfOpenAndUnbounded) {
  IntervalIndex index;
  IntervalNode range("b", "d", false), rest("c", "ignored", true);
  index.Insert(&range);
  index.Insert(&rest);

  EXPECT_TRUE(Stab(index, "a").empty());
  EXPECT_EQ(Stab(index, "b"), (std::vector<const IntervalNode*>{&range}));
  EXPECT_EQ(Stab(index, "c"), (std::vector<const IntervalNode*>{&range, &rest}));
  EXPECT_EQ(Stab(index, "d"), (std::vector<const IntervalNode*>{&rest}));
  EXPECT_EQ(index.Find("c", "", true), &rest);
  EXPECT_EQ(index.Find("c", "", false), nullptr);
  index.Erase(&rest);
  EXPECT_TRUE(Stab(index, "d").empty());
  index.Erase(&range);
  EXPECT_TRUE(index.empty());
}

TEST(IntervalIndex, AgreesWithBruteForce) {
  for (uint32_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    auto key = [&] {
      std::string text;
      size_t length = random() % 4;
      for (size_t i = 0; i < length; ++i) text.push_back(static_cast<char>("\0ab\xff"[random() % 4]));
      return text;
    };
    IntervalIndex index;
    std::vector<std::unique_ptr<IntervalNode>> nodes;
    for (int step = 0; step < 600; ++step) {
      if (random() % 3 != 0 || nodes.empty()) {
        std::string start = key(), end = key();
        bool unbounded = random() % 8 == 0;
        if (!unbounded && end <= start) continue;
        if (index.Find(start, end, unbounded) != nullptr) continue;
        nodes.push_back(std::make_unique<IntervalNode>(start, end, unbounded));
        index.Insert(nodes.back().get());
      } else {
        size_t victim = random() % nodes.size();
        index.Erase(nodes[victim].get());
        std::swap(nodes[victim], nodes.back());
        nodes.pop_back();
      }
      ASSERT_EQ(index.size(), nodes.size());
      std::string probe = key();
      std::vector<const IntervalNode*> expected;
      for (const auto& node : nodes) {
        ASSERT_EQ(index.Find(node->start(), node->end(), node->unbounded()), node.get());
        if (node->start() <= probe && (node->unbounded() || probe < node->end())) {
          expected.push_back(node.get());
        }
      }
      std::vector<const IntervalNode*> found = Stab(index, probe);
      for (size_t i = 1; i < found.size(); ++i) ASSERT_LE(found[i - 1]->start(), found[i]->start());
      std::sort(found.begin(), found.end());
      std::sort(expected.begin(), expected.end());
      ASSERT_EQ(found, expected);
    }
  }
}

}  // namespace
}  // namespace keyway::watch
