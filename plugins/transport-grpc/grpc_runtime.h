// SPDX-License-Identifier: Apache-2.0
//
// gRPC as a library of the process: set up while an instance runs, with its messages in our log.
#pragma once

#include "keyway/log.hpp"

namespace keyway::transport_grpc {

// [control] Before anything else of gRPC in the process: the settings that it reads once.
void PrepareGrpc();

// Owned by a started instance. The last one in the process ends gRPC's own threads.
class GrpcRuntime {
 public:
  ~GrpcRuntime() { Stop(); }
  // [control] What gRPC reports as an error goes to the log of the instance that started last.
  void Start(const Logger& log);
  // [control] After everything of gRPC was freed.
  void Stop();

 private:
  bool is_started_ = false;
};

}  // namespace keyway::transport_grpc
