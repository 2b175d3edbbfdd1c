// SPDX-License-Identifier: Apache-2.0
#include "file_check.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <vector>

namespace keyway::storage_lmdb {
namespace {

constexpr uint16_t kBranch = 0x01, kLeaf = 0x02, kOverflow = 0x04, kMeta = 0x08;
constexpr uint16_t kKindMask = 0x0f;
constexpr uint16_t kBigData = 0x01, kSubData = 0x02;
constexpr uint64_t kNoPage = ~uint64_t{0};
constexpr size_t kPageHeaderBytes = 16, kNodeHeaderBytes = 8, kDbBytes = 48;
constexpr uint64_t kMetaReadBytes = 4096;
constexpr int kDepthMax = 32;

template <typename Number>
Number Load(const uint8_t* at) {
  Number number;
  std::memcpy(&number, at, sizeof number);
  return number;
}

class Checker {
 public:
  explicit Checker(int file) : file_(file) {}

  std::string Run() {
    struct stat info;
    if (::fstat(file_, &info) != 0) return "fstat failed";
    file_bytes_ = static_cast<uint64_t>(info.st_size);
    std::vector<uint8_t> meta;
    if (!FindMeta(&meta)) return "no meta page";
    const uint64_t last_page = Load<uint64_t>(meta.data() + 136);
    pages_left_ = last_page + 1;
    Tree(meta.data() + 40, false);
    Tree(meta.data() + 88, true);
    return problem_;
  }

 private:
  bool Read(uint64_t offset, size_t bytes, std::vector<uint8_t>* out) {
    out->resize(bytes);
    if (offset > file_bytes_ || bytes > file_bytes_ - offset) return false;
    return ::pread(file_, out->data(), bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes);
  }
  bool FindMeta(std::vector<uint8_t>* meta) {
    std::vector<uint8_t> first, second;
    if (!Read(0, kMetaReadBytes, &first)) return false;
    page_bytes_ = Load<uint32_t>(first.data() + 40);
    if (page_bytes_ < 512 || page_bytes_ > 65536) return false;
    if (!Read(page_bytes_, kMetaReadBytes, &second)) return false;
    const bool second_is_newer = Load<uint64_t>(second.data() + 144) > Load<uint64_t>(first.data() + 144);
    *meta = std::move(second_is_newer ? second : first);
    return (Load<uint16_t>(meta->data() + 10) & kMeta) != 0;
  }
  void Problem(uint64_t page, const char* what) {
    if (problem_.empty()) problem_ = "page " + std::to_string(page) + ": " + what;
  }
  void Tree(const uint8_t* db, bool holds_tables) {
    const uint64_t root = Load<uint64_t>(db + 40);
    if (root != kNoPage) Page(root, holds_tables, 0);
  }
  void Page(uint64_t number, bool holds_tables, int depth) {
    if (!problem_.empty()) return;
    if (depth > kDepthMax || pages_left_ == 0) return Problem(number, "the tree has a cycle");
    pages_left_ -= 1;
    std::vector<uint8_t> page;
    if (number > file_bytes_ / page_bytes_ || !Read(number * page_bytes_, page_bytes_, &page)) {
      return Problem(number, "behind the end of the file");
    }
    if (Load<uint64_t>(page.data()) != number) return Problem(number, "has another number");
    const uint16_t kind = Load<uint16_t>(page.data() + 10) & kKindMask;
    if (kind != kBranch && kind != kLeaf) return Problem(number, "is neither branch nor leaf");
    const uint16_t lower = Load<uint16_t>(page.data() + 12);
    if (lower < kPageHeaderBytes || lower > page_bytes_) return Problem(number, "has a wrong bound");
    for (size_t at = kPageHeaderBytes; at + 2 <= lower; at += 2) {
      const uint16_t offset = Load<uint16_t>(page.data() + at);
      if (offset < lower || offset + kNodeHeaderBytes > page_bytes_) {
        return Problem(number, "has a wrong node offset");
      }
      const uint8_t* node = page.data() + offset;
      const size_t room = page_bytes_ - offset;
      if (kind == kLeaf) {
        Node(number, node, room, holds_tables);
      } else {
        const uint64_t child = uint64_t{Load<uint32_t>(node)} | uint64_t{Load<uint16_t>(node + 4)} << 32;
        Page(child, holds_tables, depth + 1);
      }
    }
  }
  void Node(uint64_t number, const uint8_t* node, size_t room, bool holds_tables) {
    const uint64_t data_bytes = Load<uint32_t>(node);
    const uint16_t flags = Load<uint16_t>(node + 4);
    const size_t data_at = kNodeHeaderBytes + Load<uint16_t>(node + 6);
    const bool is_big = (flags & kBigData) != 0;
    const uint64_t stored = is_big ? 8 : data_bytes;
    if (data_at + stored > room) return Problem(number, "has a node that is too long");
    if (is_big) return Overflow(Load<uint64_t>(node + data_at), data_bytes);
    if (holds_tables && (flags & kSubData) != 0 && data_bytes >= kDbBytes) Tree(node + data_at, false);
  }
  void Overflow(uint64_t number, uint64_t data_bytes) {
    std::vector<uint8_t> header;
    if (number > file_bytes_ / page_bytes_ || !Read(number * page_bytes_, kPageHeaderBytes, &header)) {
      return Problem(number, "behind the end of the file");
    }
    if ((Load<uint16_t>(header.data() + 10) & kKindMask) != kOverflow) {
      return Problem(number, "is no overflow page");
    }
    const uint64_t pages = Load<uint32_t>(header.data() + 12);
    if (pages * page_bytes_ < kPageHeaderBytes + data_bytes) return Problem(number, "is too short");
    if ((number + pages) * page_bytes_ > file_bytes_) {
      Problem(number, "ends behind the end of the file");
    }
  }

  const int file_;
  uint64_t file_bytes_ = 0;
  uint32_t page_bytes_ = 0;
  uint64_t pages_left_ = 0;  // A tree visits each page at most once.
  std::string problem_;
};

}  // namespace

std::string CheckFile(int file) { return Checker(file).Run(); }

}  // namespace keyway::storage_lmdb
