// SPDX-License-Identifier: Apache-2.0
//
// Process-wide set-up of gRPC.
#include "grpc_runtime.h"

#include <absl/synchronization/mutex.h>
#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

#include "muffler.h"

namespace keyway::transport_grpc {
namespace {

std::mutex log_mutex;
const Logger* maybe_log = nullptr;  // Guarded by log_mutex, as the rest.
const GrpcRuntime* log_owner = nullptr;
Logger log_copy;
Muffler muffler;

// A failed assertion ends the process right after this, so it is written out here.
void WriteLine(const char* text) {
  const std::string line = std::string("transport-grpc: ") + text + "\n";
  const ssize_t ignored = write(STDERR_FILENO, line.data(), line.size());
  static_cast<void>(ignored);
}

void OnGrpcLog(gpr_log_func_args* args) {
  if (std::strncmp(args->message, "assertion failed", 16) == 0) WriteLine(args->message);
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  std::lock_guard lock(log_mutex);
  if (maybe_log == nullptr) return;
  const uint64_t now_ns =
      static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  if (!muffler.Allow(now_ns)) return;
  maybe_log->Warn("grpc_error", {{"reason", args->message}, {"suppressed", muffler.TakeSuppressed()}});
}

}  // namespace

void PrepareGrpc() {
  // Debian's Abseil ends the process at a lock order that it takes for a deadlock.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // Names go through c-ares, which does not block a thread; that is gRPC's own choice unless told else.
  const char* resolver = std::getenv("GRPC_DNS_RESOLVER");
  if (resolver != nullptr && strcasecmp(resolver, "ares") != 0) setenv("GRPC_DNS_RESOLVER", "ares", 1);
}

void GrpcRuntime::Start(const Logger& log) {
  {
    std::lock_guard lock(log_mutex);
    log_copy = log;
    maybe_log = &log_copy;
    log_owner = this;
  }
  gpr_set_log_function(&OnGrpcLog);
  grpc_init();
  is_started_ = true;
}

void GrpcRuntime::Stop() {
  if (!is_started_) return;
  is_started_ = false;
  grpc_shutdown();
  std::lock_guard lock(log_mutex);
  if (log_owner == this) maybe_log = nullptr;
}

}  // namespace keyway::transport_grpc
