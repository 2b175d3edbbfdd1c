// SPDX-License-Identifier: Apache-2.0
#include "kernel/daemon/signals.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <thread>

#include "kernel/base/check.h"

namespace keyway {
namespace {

sigset_t Watched() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  return signals;
}

std::string NameOf(int signal) {
  const char* name = sigabbrev_np(signal);
  return name == nullptr ? std::to_string(signal) : std::string("SIG") + name;
}

void Wait(Logger* logger, int limit_s, const std::function<void()>& on_terminate) {
  const sigset_t signals = Watched();
  bool is_ending = false;
  timespec end_time = {};
  for (;;) {
    int signal = 0;
    if (is_ending) {
      timespec now;
      KW_CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
      const timespec left = {end_time.tv_sec > now.tv_sec ? end_time.tv_sec - now.tv_sec : 0, 0};
      signal = sigtimedwait(&signals, nullptr, &left);
      if (signal < 0 && errno == EAGAIN) {
        Log(logger, KW_LOG_ERROR, "shutdown_timed_out", {{"limit_s", limit_s}});
        _exit(1);
      }
    } else {
      signal = sigwaitinfo(&signals, nullptr);
    }
    if (signal < 0) continue;  // EINTR
    if (signal == SIGHUP) {
      Log(logger, KW_LOG_WARN, "signal_ignored",
          {{"signal", "SIGHUP"}, {"hint", "a new configuration is taken over by a restart"}});
      continue;
    }
    Log(logger, KW_LOG_INFO, "signal_received", {{"signal", NameOf(signal)}});
    if (is_ending) _exit(1);
    is_ending = true;
    KW_CHECK(clock_gettime(CLOCK_MONOTONIC, &end_time) == 0);
    end_time.tv_sec += limit_s;
    on_terminate();
  }
}

}  // namespace

void BlockSignals() {
  const sigset_t signals = Watched();
  KW_CHECK(pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0);
  // A closed connection or log pipe is an error of its write, not the end of the node.
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  KW_CHECK(sigaction(SIGPIPE, &ignore, nullptr) == 0);
}

void WatchSignals(Logger* logger, int limit_s, std::function<void()> on_terminate) {
  std::thread([=] {
    pthread_setname_np(pthread_self(), "signals");
    Wait(logger, limit_s, on_terminate);
  }).detach();
}

}  // namespace keyway
