// SPDX-License-Identifier: Apache-2.0
//
// Fills the caller's kw_error, and keeps exceptions inside of the plugin.
#pragma once

#include <charconv>
#include <concepts>
#include <cstring>
#include <exception>
#include <new>
#include <string_view>
#include <type_traits>

#include "keyway/abi.h"
#include "keyway/detail.h"

namespace keyway {

// A text of at most `capacity - 1` bytes, cut if longer, always NUL-terminated; allocates nothing.
class TextBuffer {
 public:
  TextBuffer(char* text, size_t capacity) : text_(text), capacity_(capacity) { text_[0] = '\0'; }

  void Append(std::string_view part) {
    const size_t room = capacity_ - 1 - used_;
    const size_t taken = part.size() < room ? part.size() : room;
    if (taken != 0) std::memcpy(text_ + used_, part.data(), taken);
    used_ += taken;
    text_[used_] = '\0';
  }
  template <typename Number>
  requires std::is_arithmetic_v<Number>
  void Append(Number number) {
    if constexpr (std::same_as<Number, bool>) {
      Append(std::string_view(number ? "true" : "false"));
    } else if constexpr (std::same_as<Number, char>) {
      Append(std::string_view(&number, 1));
    } else {
      char digits[40];
      const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
      Append(std::string_view(digits, static_cast<size_t>(end - digits)));
    }
  }
  size_t size() const { return used_; }

 private:
  char* const text_;
  const size_t capacity_;
  size_t used_ = 0;
};

// Fills `maybe_error` with the code, the detail and the concatenation of `parts` (text and numbers).
// Returns `code`, so that a function ends with `return Fail(error, KW_NOT_FOUND, "no file ", path);`.
template <typename... Parts>
int32_t FailDetail(kw_error* maybe_error, int32_t code, uint32_t detail, const Parts&... parts) {
  if (maybe_error != nullptr) {
    maybe_error->code = code;
    maybe_error->detail = detail;
    maybe_error->reserved = 0;
    TextBuffer text(maybe_error->text, sizeof maybe_error->text);
    (text.Append(parts), ...);
  }
  return code;
}
template <typename... Parts>
int32_t Fail(kw_error* maybe_error, int32_t code, const Parts&... parts) {
  return FailDetail(maybe_error, code, KW_DETAIL_NONE, parts...);
}

// An empty error with its size set, to be handed to a callee.
inline kw_error NoError() {
  kw_error error = {};
  error.size = sizeof error;
  return error;
}

// Runs `function` (which returns a code) and turns an exception into a code.
template <typename Function>
int32_t Guard(kw_error* maybe_error, Function&& function) noexcept {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return Fail(maybe_error, KW_RESOURCE_EXHAUSTED, "out of memory");
  } catch (const std::exception& exception) {
    return Fail(maybe_error, KW_INTERNAL, "exception: ", std::string_view(exception.what()));
  } catch (...) {
    return Fail(maybe_error, KW_INTERNAL, "unknown exception");
  }
}

}  // namespace keyway
