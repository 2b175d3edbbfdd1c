// SPDX-License-Identifier: Apache-2.0
//
// The verdict of the checking host: a plugin broke a rule of the ABI. Start here; every wrapper of this
// folder ends in Condemn().
//
//   plugin storage-x broke the contract: kv-store.cursor_next gave 70 pairs for a capacity of 64
//   (rule count-within-capacity)
//
// What a plugin that breaks a rule says next cannot be trusted, so a verdict ends the process at once,
// with kExitBrokenPlugin. That is as safe as a kill -9, which the node withstands at any moment.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "kernel/base/thread_role.h"
#include "kernel/plugin/check/call_stack.h"
#include "kernel/plugin/log.h"
#include "keyway/abi.h"

namespace keyway::check {

inline constexpr int kExitBrokenPlugin = 3;

// off: the kernel calls the plugin's own tables. cheap: everything that needs no copy and no memory of
// what was written. full: arguments are copied and poisoned, results remembered and compared.
enum class Level : uint8_t { kOff, kCheap, kFull };

// One plugin instance under check. Never freed once made: its threads may call after its end.
class Subject {
 public:
  // `logger` outlives the process's plugins.
  static Subject* Make(std::string plugin, Level level, Logger* logger);

  const std::string& plugin() const { return plugin_; }
  Level level() const { return level_; }
  bool is_full() const { return level_ == Level::kFull; }
  Logger* logger() const { return logger_; }

  // Set when stop() has returned; from then on every call of the plugin is one too many.
  void SetStopped() { is_stopped_.store(true, std::memory_order_release); }
  bool is_stopped() const { return is_stopped_.load(std::memory_order_acquire); }

  // Ends the process. `what` completes the sentence that starts with the function's name.
  [[noreturn]] void Condemn(const char* function, const char* rule, std::string_view what) const;
  // The same for a fault of the caller: the kernel itself, or what drives it in a test.
  [[noreturn]] void CondemnKernel(const char* function, const char* rule, std::string_view what) const;

 private:
  Subject(std::string plugin, Level level, Logger* logger)
      : plugin_(std::move(plugin)), level_(level), logger_(logger) {}

  const std::string plugin_;
  const Level level_;
  Logger* const logger_;
  std::atomic<bool> is_stopped_{false};
};

// Condemns unless the calling thread has the role of `function`, or the control thread plays it (before
// the other threads begin and after they have ended).
void CheckThread(const Subject& subject, const Function& function);
// Of what a plugin calls: condemns after its stop().
inline void CheckNotStopped(const Subject& subject, const char* function) {
  if (subject.is_stopped()) [[unlikely]] {
    subject.Condemn(function, "no-call-after-stop", "was called after stop() had returned");
  }
}
// A final code: KW_OK or one of the errors; never KW_PENDING, never a number outside of the enum.
void CheckCode(const Subject& subject, const char* function, int32_t code);
// After an error code: `error` names the code, and its text is terminated.
void CheckError(const Subject& subject, const char* function, int32_t code, const kw_error* maybe_error);
// Absent bytes have no length.
inline bool IsSound(kw_slice slice) { return slice.ptr != nullptr || slice.len == 0; }

// Runs one call into the plugin: known to the watchdog, and an exception is a verdict.
template <typename Call>
auto Guarded(const Subject& subject, const Function& function, Call&& call) {
  CallScope scope(subject, function);
  try {
    return call();
  } catch (const std::exception& exception) {
    subject.Condemn(function.name, "no-exception", absl::StrCat("threw: ", exception.what()));
  } catch (...) {
    subject.Condemn(function.name, "no-exception", "threw something that is not a std::exception");
  }
}
// The same with the thread, the code and the error checked.
template <typename Call>
int32_t CheckedCall(const Subject& subject, const Function& function, const kw_error* maybe_error,
                    Call&& call) {
  CheckThread(subject, function);
  const int32_t code = Guarded(subject, function, call);
  if (code != KW_OK) [[unlikely]] {
    CheckCode(subject, function.name, code);
    CheckError(subject, function.name, code, maybe_error);
  }
  return code;
}

// Holds a lane of serial functions: a second caller at the same time is the kernel's fault.
class SerialLane {
 public:
  class Scope {
   public:
    Scope(SerialLane* lane, const Subject& subject, const Function& function) : lane_(*lane) {
      if (lane_.is_busy_.exchange(true, std::memory_order_acquire)) [[unlikely]] {
        subject.CondemnKernel(function.name, "serial-on-its-thread", "was called while its lane was busy");
      }
    }
    ~Scope() { lane_.is_busy_.store(false, std::memory_order_release); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    SerialLane& lane_;
  };

 private:
  std::atomic<bool> is_busy_{false};
};

// FNV-1a with 64 bits: to see a change, not to withstand an attacker.
uint64_t HashOf(const void* bytes, size_t count, uint64_t seed = 0xcbf29ce484222325u);
inline uint64_t HashOf(kw_slice slice) { return HashOf(slice.ptr, slice.len); }

}  // namespace keyway::check
