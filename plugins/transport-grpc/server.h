// SPDX-License-Identifier: Apache-2.0
//
// Server: gRPC's listeners, and the calls that arrive on them.
#pragma once

#include <grpc/grpc.h>

#include <memory>
#include <string>
#include <vector>

#include "stream.h"
#include "url.h"

namespace keyway::transport_grpc {

class Io;

class Server {
 public:
  explicit Server(Io* io);
  // After IsIdle() of a server that was run.
  ~Server();

  // [control] Binds the addresses of the URL. False: `*error` names the address and the fault.
  bool Listen(const Url& url, std::string* error);
  // [control] Calls are taken from now on, by the I/O thread.
  void Run();

  // [io] No more calls; those that are open end. IsIdle(): all has been told to this object.
  void ShutDown();
  bool IsIdle() const { return is_down_.is_complete && waiting_ == 0; }

 private:
  // A place for one call to arrive at.
  class Arrival : public Tag {
   public:
    Arrival(Io* io, Server* server);
    ~Arrival() override;
    void Wait();
    void Complete(bool ok) override;

   private:
    Hello ReadHello() const;
    Io* const io_;
    Server* const server_;
    grpc_call* call_ = nullptr;
    grpc_call_details details_;
    grpc_metadata_array metadata_;
  };
  struct Down : Tag {
    bool is_complete = false;
    void Complete(bool) override { is_complete = true; }
  };
  bool AddPort(const std::string& address, bool is_tls, std::string* error);

  Io* const io_;
  grpc_server* const server_;
  bool is_running_ = false;
  bool is_shut_down_ = false;
  size_t waiting_ = 0;
  std::vector<std::unique_ptr<Arrival>> arrivals_;
  Down is_down_;
};

}  // namespace keyway::transport_grpc
