// SPDX-License-Identifier: Apache-2.0
#include "kernel/watch/interval_index.h"

#include "kernel/base/check.h"

namespace keyway::watch {

int IntervalIndex::Compare(const IntervalNode& node, std::string_view start, std::string_view end,
                           bool unbounded) {
  int order = std::string_view(node.start_).compare(start);
  if (order != 0) return order;
  if (node.unbounded_ || unbounded) return static_cast<int>(node.unbounded_) - unbounded;
  return std::string_view(node.end_).compare(end);
}

void IntervalIndex::Update(IntervalNode* node) {
  node->furthest_ = node;
  for (const IntervalNode* child : {node->left_, node->right_}) {
    if (child == nullptr || node->furthest_->unbounded_) continue;
    const IntervalNode* other = child->furthest_;
    if (other->unbounded_ || node->furthest_->end_ < other->end_) node->furthest_ = other;
  }
}

IntervalNode* IntervalIndex::Find(std::string_view start, std::string_view end, bool unbounded) const {
  IntervalNode* node = root_;
  while (node != nullptr) {
    int order = Compare(*node, start, end, unbounded);
    if (order == 0) return node;
    node = order > 0 ? node->left_ : node->right_;
  }
  return nullptr;
}

void IntervalIndex::Insert(IntervalNode* node) {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 17;
  random_ ^= random_ << 5;
  node->priority_ = random_;
  node->left_ = node->right_ = nullptr;
  Update(node);
  root_ = InsertBelow(root_, node);
  ++size_;
}

void IntervalIndex::Erase(IntervalNode* node) {
  root_ = EraseBelow(root_, node);
  node->left_ = node->right_ = nullptr;
  --size_;
}

IntervalNode* IntervalIndex::InsertBelow(IntervalNode* root, IntervalNode* node) {
  if (root == nullptr) return node;
  if (node->priority_ > root->priority_) {
    Split(root, *node, &node->left_, &node->right_);
    Update(node);
    return node;
  }
  int order = Compare(*root, node->start_, node->end_, node->unbounded_);
  KW_CHECK(order != 0);
  IntervalNode*& child = order > 0 ? root->left_ : root->right_;
  child = InsertBelow(child, node);
  Update(root);
  return root;
}

IntervalNode* IntervalIndex::EraseBelow(IntervalNode* root, IntervalNode* node) {
  KW_CHECK(root != nullptr);
  if (root == node) return Merge(root->left_, root->right_);
  int order = Compare(*root, node->start_, node->end_, node->unbounded_);
  IntervalNode*& child = order > 0 ? root->left_ : root->right_;
  child = EraseBelow(child, node);
  Update(root);
  return root;
}

IntervalNode* IntervalIndex::Merge(IntervalNode* left, IntervalNode* right) {
  if (left == nullptr) return right;
  if (right == nullptr) return left;
  if (left->priority_ > right->priority_) {
    left->right_ = Merge(left->right_, right);
    Update(left);
    return left;
  }
  right->left_ = Merge(left, right->left_);
  Update(right);
  return right;
}

void IntervalIndex::Split(IntervalNode* root, const IntervalNode& node, IntervalNode** left,
                          IntervalNode** right) {
  if (root == nullptr) {
    *left = *right = nullptr;
    return;
  }
  if (Compare(*root, node.start_, node.end_, node.unbounded_) < 0) {
    Split(root->right_, node, &root->right_, right);
    *left = root;
  } else {
    Split(root->left_, node, left, &root->left_);
    *right = root;
  }
  Update(root);
}

}  // namespace keyway::watch
