// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/crash.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <string_view>

#include "kernel/plugin/check/call_stack.h"
#include "kernel/plugin/check/poison.h"
#include "kernel/plugin/check/verdict.h"

namespace keyway::check {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
struct sigaction previous[sizeof kSignals / sizeof kSignals[0]];

// A line put together without memory of the heap.
class Line {
 public:
  Line& operator<<(std::string_view text) {
    const size_t taken = text.size() < sizeof text_ - used_ ? text.size() : sizeof text_ - used_;
    std::memcpy(text_ + used_, text.data(), taken);
    used_ += taken;
    return *this;
  }
  void Write() const { [[maybe_unused]] ssize_t written = write(STDERR_FILENO, text_, used_); }

 private:
  char text_[1024];
  size_t used_ = 0;
};

// The innermost wrapped call of this thread, if it is in one.
const CallFrame* OwnFrame() {
  const CallStack* stack = OwnCallStackIfAny();
  if (stack == nullptr) return nullptr;
  const uint32_t depth = stack->depth.load(std::memory_order_relaxed);
  return depth == 0 || depth > kFramesMax ? nullptr : &stack->frames[depth - 1];
}

void OnSignal(int number, siginfo_t* info, void* context) {
  const SealedOwner owner = number == SIGSEGV || number == SIGBUS ? FindSealed(info->si_addr) : SealedOwner{};
  if (owner.subject != nullptr) {
    Line line;
    line << "plugin " << owner.subject->plugin() << " broke the contract: " << owner.function->name
         << " used an argument after its lifetime had ended (rule argument-lifetime)\n";
    line.Write();
    _exit(kExitBrokenPlugin);
  }
  if (const CallFrame* frame = OwnFrame()) {
    Line line;
    line << "plugin " << frame->subject.load()->plugin()
         << " broke the contract: " << frame->function.load()->name << " crashed with "
         << (number == SIGSEGV  ? "SIGSEGV"
             : number == SIGBUS ? "SIGBUS"
             : number == SIGILL ? "SIGILL"
                                : "SIGFPE")
         << " (rule no-crash)\n";
    line.Write();
  }
  // Then as if there had been no handler: a core file, or a sanitizer's report.
  for (size_t i = 0; i < sizeof kSignals / sizeof kSignals[0]; ++i) {
    if (kSignals[i] != number) continue;
    if ((previous[i].sa_flags & SA_SIGINFO) != 0 && previous[i].sa_sigaction != nullptr) {
      return previous[i].sa_sigaction(number, info, context);
    }
    sigaction(number, &previous[i], nullptr);
  }
}

// The first library on the stack that has a plugin's entry function.
std::string_view Culprit() {
  void* addresses[64];
  const int count = backtrace(addresses, 64);
  for (int i = 0; i < count; ++i) {
    Dl_info info;
    if (dladdr(addresses[i], &info) == 0 || info.dli_fname == nullptr) continue;
    void* library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (library != nullptr && dlsym(library, KW_PLUGIN_ENTRY_SYMBOL) != nullptr) return info.dli_fname;
  }
  return {};
}

[[noreturn]] void OnTerminate() {
  const char* what = "something that is not a std::exception";
  if (const std::exception_ptr exception = std::current_exception()) {
    try {
      std::rethrow_exception(exception);
    } catch (const std::exception& caught) {
      what = caught.what();
    } catch (...) {
    }
  } else {
    what = "no exception";
  }
  if (const CallFrame* frame = OwnFrame()) {
    frame->subject.load()->Condemn(frame->function.load()->name, "no-exception",
                                   absl::StrCat("ended in std::terminate: ", what));
  }
  const std::string_view culprit = Culprit();
  Line line;
  line << "std::terminate: " << what;
  if (!culprit.empty()) line << "; the plugin library " << culprit << " is on the stack (rule no-exception)";
  line << "\n";
  line.Write();
  if (!culprit.empty()) _exit(kExitBrokenPlugin);
  std::abort();
}

}  // namespace

void InstallCrashHandlers() {
  static bool is_installed = false;
  if (is_installed) return;
  is_installed = true;
  for (size_t i = 0; i < sizeof kSignals / sizeof kSignals[0]; ++i) {
    struct sigaction action = {};
    action.sa_sigaction = &OnSignal;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigaction(kSignals[i], &action, &previous[i]);
  }
}

void InstallTerminateHandler() { std::set_terminate(&OnTerminate); }

}  // namespace keyway::check
