// SPDX-License-Identifier: Apache-2.0
//
// Which of a set of key ranges contain a key: a treap ordered by (start, end), each node of which knows
// the furthest end below it. Insert, Erase, Find: O(log n). Stab: O(log n + ranges found).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace keyway::watch {

// One range [start, end), or [start, infinity). The user embeds it; the index only links it.
class IntervalNode {
 public:
  IntervalNode(std::string_view start, std::string_view end, bool unbounded)
      : start_(start), end_(unbounded ? std::string_view() : end), unbounded_(unbounded) {}
  IntervalNode(const IntervalNode&) = delete;
  IntervalNode& operator=(const IntervalNode&) = delete;

  const std::string& start() const { return start_; }
  const std::string& end() const { return end_; }
  bool unbounded() const { return unbounded_; }

 private:
  friend class IntervalIndex;
  const std::string start_, end_;
  const bool unbounded_;
  uint32_t priority_ = 0;
  IntervalNode* left_ = nullptr;
  IntervalNode* right_ = nullptr;
  const IntervalNode* furthest_ = nullptr;  // Of this subtree, the node with the greatest end.
};

class IntervalIndex {
 public:
  // The node with exactly this range, or null.
  IntervalNode* Find(std::string_view start, std::string_view end, bool unbounded) const;
  // `node` is linked until Erase(); no other node has its range.
  void Insert(IntervalNode* node);
  void Erase(IntervalNode* node);
  bool empty() const { return root_ == nullptr; }
  size_t size() const { return size_; }

  // Calls visit(IntervalNode*) for every range that contains `key`, ordered by (start, end).
  template <typename Visit>
  void Stab(std::string_view key, Visit&& visit) const {
    StabBelow(root_, key, visit);
  }

 private:
  template <typename Visit>
  static void StabBelow(IntervalNode* node, std::string_view key, Visit& visit) {
    while (node != nullptr && EndsAfter(*node->furthest_, key)) {
      StabBelow(node->left_, key, visit);
      if (key < node->start_) return;  // So is every start to the right.
      IntervalNode* right = node->right_;
      if (EndsAfter(*node, key)) visit(node);
      node = right;
    }
  }
  static bool EndsAfter(const IntervalNode& node, std::string_view key) {
    return node.unbounded_ || key < node.end_;
  }
  static int Compare(const IntervalNode& node, std::string_view start, std::string_view end, bool unbounded);
  static void Update(IntervalNode* node);
  static IntervalNode* Merge(IntervalNode* left, IntervalNode* right);
  static IntervalNode* InsertBelow(IntervalNode* root, IntervalNode* node);
  static IntervalNode* EraseBelow(IntervalNode* root, IntervalNode* node);
  // All before `node` go to `left`, all after it to `right`.
  static void Split(IntervalNode* root, const IntervalNode& node, IntervalNode** left, IntervalNode** right);

  IntervalNode* root_ = nullptr;
  size_t size_ = 0;
  uint32_t random_ = 0x9e3779b9;  // Of the priorities: the same sequence in every run.
};

}  // namespace keyway::watch
