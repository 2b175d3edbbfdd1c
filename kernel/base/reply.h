// SPDX-License-Identifier: Apache-2.0
//
// Reply: a kw_reply with the memory behind it. Built on [core], then handed to an API plugin, whose
// release() (any thread) frees it. Records are shared, everything else lives in the reply's arena.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <type_traits>
#include <vector>

#include "kernel/base/bytes.h"
#include "keyway/kernel.h"

namespace keyway {

// Bump allocation, freed as a whole. Only for types without a destructor.
class Arena {
 public:
  template <typename T>
  T* NewArray(size_t count) {
    static_assert(std::is_trivially_destructible_v<T>);
    T* array = static_cast<T*>(Allocate(sizeof(T) * count));
    for (size_t i = 0; i < count; ++i) new (&array[i]) T{};
    return array;
  }
  template <typename T>
  T* New() {
    return NewArray<T>(1);
  }
  kw_slice CopyOf(std::string_view bytes);

 private:
  void* Allocate(size_t bytes);

  static constexpr size_t kInlineBytes = 256;
  static constexpr size_t kBlockBytes = 4096;
  alignas(16) char inline_[kInlineBytes];
  char* at_ = inline_;
  size_t left_ = kInlineBytes;
  std::vector<std::unique_ptr<char[]>> blocks_;
};

class Reply : public kw_reply {
 public:
  static Reply* New() { return new Reply; }
  static void Free(kw_reply* reply) { delete static_cast<Reply*>(reply); }

  Arena arena;
  // Keeps alive what slices of this reply point to.
  std::vector<SharedBytes> held;

 private:
  Reply() : kw_reply{} {
    size = sizeof(kw_reply);
    release = &Reply::Free;
  }
  ~Reply() = default;
};

struct ReplyDeleter {
  void operator()(Reply* reply) const { Reply::Free(reply); }
};
using ReplyPtr = std::unique_ptr<Reply, ReplyDeleter>;

}  // namespace keyway
