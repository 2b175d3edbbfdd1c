// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/verdict.h"

#include <unistd.h>

#include <cstring>
#include <mutex>
#include <vector>

namespace keyway::check {
namespace {

// The first verdict counts. Other threads that find something wait for the end of the process.
void End(const Subject& subject, const char* function, const char* rule, const std::string& text) {
  static std::atomic<bool> is_ending{false};
  if (is_ending.exchange(true)) {
    while (true) pause();
  }
  Log(subject.logger(), KW_LOG_ERROR, "plugin_broke_contract",
      {{"verdict", text}, {"plugin", subject.plugin()}, {"function", function}, {"rule", rule}});
  // The log may be filtered or shared with much else; this line is not.
  const std::string line = text + "\n";
  [[maybe_unused]] ssize_t written = write(STDERR_FILENO, line.data(), line.size());
  _exit(kExitBrokenPlugin);
}

const char* NameOf(ThreadRole role) {
  constexpr const char* kNames[] = {"another", "the control", "the core", "the log", "the store", "a reader"};
  return kNames[static_cast<size_t>(role)];
}

}  // namespace

Subject* Subject::Make(std::string plugin, Level level, Logger* logger) {
  static std::mutex mutex;
  static auto* all = new std::vector<Subject*>;  // Keeps them reachable.
  auto* subject = new Subject(std::move(plugin), level, logger);
  std::lock_guard lock(mutex);
  all->push_back(subject);
  return subject;
}

void Subject::Condemn(const char* function, const char* rule, std::string_view what) const {
  End(*this, function, rule,
      absl::StrCat("plugin ", plugin_, " broke the contract: ", function, " ", std::string(what), " (rule ",
                   rule, ")"));
  __builtin_unreachable();
}

void Subject::CondemnKernel(const char* function, const char* rule, std::string_view what) const {
  End(*this, function, rule,
      absl::StrCat("the kernel broke the contract with plugin ", plugin_, ": ", function, " ",
                   std::string(what), " (rule ", rule, ")"));
  __builtin_unreachable();
}

void CheckThread(const Subject& subject, const Function& function) {
  const ThreadRole role = thread_role;
  bool fits = true;
  switch (function.tag) {
    case ThreadTag::kAny:
      return;
    case ThreadTag::kControl:
      fits = role == ThreadRole::kControl;
      break;
    case ThreadTag::kCore:
      fits = role == ThreadRole::kCore || role == ThreadRole::kControl;
      break;
    case ThreadTag::kLog:
      fits = role == ThreadRole::kLog || role == ThreadRole::kControl;
      break;
    case ThreadTag::kStore:
      fits = role == ThreadRole::kStore || role == ThreadRole::kControl;
      break;
    case ThreadTag::kRead:
      fits = role == ThreadRole::kRead || role == ThreadRole::kControl;
      break;
  }
  if (!fits) [[unlikely]] {
    subject.CondemnKernel(function.name, "called-on-its-thread",
                          absl::StrCat("was called on ", NameOf(role), " thread"));
  }
}

void CheckCode(const Subject& subject, const char* function, int32_t code) {
  if (code >= KW_OK && code <= KW_UNAUTHENTICATED) return;
  if (code == KW_PENDING) {
    subject.Condemn(function, "code-of-the-enum", "answered KW_PENDING where nothing can complete");
  }
  subject.Condemn(function, "code-of-the-enum", absl::StrCat("answered ", code, ", which is no result code"));
}

void CheckError(const Subject& subject, const char* function, int32_t code, const kw_error* maybe_error) {
  if (maybe_error == nullptr || code == KW_OK) return;
  if (std::memchr(maybe_error->text, '\0', sizeof maybe_error->text) == nullptr) {
    subject.Condemn(function, "error-filled", "left an error text that is not terminated");
  }
  if (maybe_error->code != code) {
    subject.Condemn(function, "error-filled",
                    absl::StrCat("answered ", code, " but filled the error with ", maybe_error->code));
  }
}

uint64_t HashOf(const void* bytes, size_t count, uint64_t seed) {
  const auto* at = static_cast<const uint8_t*>(bytes);
  uint64_t hash = seed;
  // Eight bytes a step: this runs over whole values.
  while (count >= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
    at += 8;
    count -= 8;
  }
  for (size_t i = 0; i < count; ++i) hash = (hash ^ at[i]) * 0x100000001b3u;
  return hash ^ (hash >> 32);
}

}  // namespace keyway::check
