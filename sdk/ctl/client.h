// SPDX-License-Identifier: Apache-2.0
//
// Client: connections to the endpoints, and calls with a deadline and an error that names the endpoint.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "context.h"

namespace keyway::ctl {

class Client {
 public:
  explicit Client(const Context& context) : context_(context) {}

  // The first of the endpoints that can be connected, asked again if it is not any more. NULL: none;
  // error() says why for each of them. The endpoint is then endpoint().
  std::shared_ptr<grpc::Channel> Connect();
  // Connects one endpoint. NULL: `*why` says why not.
  std::shared_ptr<grpc::Channel> ConnectTo(const std::string& endpoint, std::string* why) const;

  // One call to any endpoint. kOk, or the exit code after an error was kept in error().
  template <typename Stub, typename Request, typename Response>
  int Call(std::unique_ptr<Stub> (*new_stub)(std::shared_ptr<grpc::Channel> channel),
           grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
           const Request& request, Response* response) {
    const std::shared_ptr<grpc::Channel> channel = Connect();
    if (channel == nullptr) return kBadConnection;
    grpc::ClientContext call;
    SetDeadline(&call);
    return Keep((new_stub(channel).get()->*method)(&call, request, response), endpoint_);
  }
  // The same to one endpoint.
  template <typename Stub, typename Request, typename Response>
  int CallOne(const std::string& endpoint,
              std::unique_ptr<Stub> (*new_stub)(std::shared_ptr<grpc::Channel> channel),
              grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
              const Request& request, Response* response) {
    const std::shared_ptr<grpc::Channel> channel = ConnectTo(endpoint, &error_);
    if (channel == nullptr) return kBadConnection;
    grpc::ClientContext call;
    SetDeadline(&call);
    return Keep((new_stub(channel).get()->*method)(&call, request, response), endpoint);
  }

  void SetDeadline(grpc::ClientContext* call) const;
  // Turns a status into an exit code and keeps its text, with the endpoint.
  int Keep(const grpc::Status& status, const std::string& endpoint);
  // Prints error() and returns `code`.
  int Report(int code) const { return Fail(static_cast<ExitCode>(code), error_); }

  const std::string& endpoint() const { return endpoint_; }
  const std::string& error() const { return error_; }

 private:
  const Context& context_;
  std::shared_ptr<grpc::Channel> channel_;
  std::string endpoint_;
  std::string error_;
};

// Sends `request` to any endpoint with `Service::method`; on an error reports it.
#define KW_CTL_NEW_STUB(Service)                                                                \
  +[](std::shared_ptr<grpc::Channel> channel) -> std::unique_ptr<etcdserverpb::Service::Stub> { \
    return etcdserverpb::Service::NewStub(channel);                                             \
  }
#define KW_CTL_CALL(client, Service, Method, request, response) \
  (client).Call(KW_CTL_NEW_STUB(Service), &etcdserverpb::Service::Stub::Method, request, response)
#define KW_CTL_CALL_ONE(client, endpoint, Service, Method, request, response)                         \
  (client).CallOne(endpoint, KW_CTL_NEW_STUB(Service), &etcdserverpb::Service::Stub::Method, request, \
                   response)

}  // namespace keyway::ctl
