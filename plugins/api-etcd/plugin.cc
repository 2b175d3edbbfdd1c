// SPDX-License-Identifier: Apache-2.0
//
// The plugin "api-etcd": etcd's v3 client API over gRPC and HTTP/1.1 on one port. Descriptor,
// options, start and stop.
#include "keyway/plugin.hpp"

#include <memory>
#include <string>
#include <vector>

#include "io_thread.h"
#include "listener.h"
#include "server.h"
#include "tls.h"

KW_PLUGIN_MANIFEST(
    "id=api-etcd;version=0.1.0;abi=1.0;license=Apache-2.0;stability=alpha;provides=keyway.api/1;"
    "needs=keyway.kernel/1,keyway.clock/1,keyway.log/1,keyway.metrics/1,keyway.exposition/1,"
    "keyway.identity/1");

namespace keyway::api_etcd {
namespace {

class ApiPlugin {
 public:
  ApiPlugin(const kw_host* host, Options options) : tls_(&server_) {
    server_.host = host;
    server_.options = std::move(options);
  }

  static int32_t Create(const kw_host* host, const ConfigReader& config, std::unique_ptr<ApiPlugin>* out,
                        kw_error*) {
    *out = std::make_unique<ApiPlugin>(host, ReadOptions(config));
    return KW_OK;
  }

  int32_t Start(kw_error* error) {
    const int32_t code = TryStart(error);
    if (code != KW_OK) Stop();
    return code;
  }

  void Stop() {
    for (const auto& thread : threads_) thread->RequestStop();
    for (const auto& thread : threads_) thread->Join();
    listeners_.clear();
    // The one of the handshakes last made sockets for the others.
    while (!threads_.empty()) threads_.pop_back();
    server_.io_threads.clear();
  }

  static const void* Get(std::string_view interface_id) {
    static constexpr uint64_t kEmptyTable = sizeof(uint64_t);
    return interface_id == KW_API ? &kEmptyTable : nullptr;
  }

 private:
  int32_t TryStart(kw_error* error) {
    const kw_host* const host = server_.host;
    server_.kernel = HostService<kw_kernel>(host, KW_KERNEL);
    if (server_.kernel == nullptr) return Fail(error, KW_FAILED_PRECONDITION, "no kernel service");
    server_.state = server_.kernel->state(host);
    server_.exposition = HostService<kw_exposition>(host, KW_EXPOSITION);
    server_.identity = HostService<kw_identity>(host, KW_IDENTITY);
    if (HostService<kw_clock>(host, KW_CLOCK) == nullptr) {
      return Fail(error, KW_FAILED_PRECONDITION, "no clock service");
    }
    server_.clock = Clock(host);
    server_.log = Logger(host);
    server_.metrics = ServerMetrics(host);
    bool has_tls = false;
    for (const std::string& url : server_.options.listen) {
      std::unique_ptr<Listener> listener;
      const int32_t code = Listener::Open(&server_, url, &listener, error);
      if (code != KW_OK) return code;
      has_tls = has_tls || listener->is_tls();
      listeners_.push_back(std::move(listener));
    }
    if (has_tls) {
      const int32_t code = tls_.Refresh(error);
      if (code != KW_OK) return code;
      tls_.Start();
      server_.tls = &tls_;
    }
    for (uint32_t i = 0; i < server_.options.io_threads; ++i) {
      threads_.push_back(std::make_unique<IoThread>(&server_, i));
    }
    for (const auto& thread : threads_) server_.io_threads.push_back(thread.get());
    // Handshakes cost a thousand requests each: they have a thread of their own, which also accepts.
    IoThread* handshakes = nullptr;
    if (has_tls) {
      threads_.push_back(std::make_unique<IoThread>(&server_, server_.options.io_threads, true));
      handshakes = threads_.back().get();
    }
    for (const auto& listener : listeners_) {
      if (listener->is_tls()) {
        listener->Attach(handshakes, {handshakes});
      } else {
        listener->Attach(threads_[0].get(), server_.io_threads);
      }
    }
    // The first one accepts, so it starts last.
    for (size_t i = threads_.size(); i-- > 0;) {
      const int32_t code = threads_[i]->Start(error);
      if (code != KW_OK) return code;
    }
    for (const std::string& url : server_.options.listen) {
      server_.log.Info("api_listening", {{"url", url}});
    }
    return KW_OK;
  }

  Server server_;
  TlsProvider tls_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<IoThread>> threads_;
};

constexpr const char* kProvides[] = {KW_API, nullptr};
constexpr const char* kNeeds[] = {KW_KERNEL,     KW_CLOCK,    KW_LOG, KW_METRICS,
                                  KW_EXPOSITION, KW_IDENTITY, nullptr};

const kw_descriptor kDescriptor = {sizeof(kw_descriptor),
                                   KW_ABI_MAJOR,
                                   KW_ABI_MINOR,
                                   "api-etcd",
                                   "0.1.0",
                                   "Apache-2.0",
                                   "alpha",
                                   kProvides,
                                   kNeeds,
                                   kOptionFields,
                                   kOptionFieldCount,
                                   Lifecycle<ApiPlugin>::Create};

}  // namespace
}  // namespace keyway::api_etcd

KW_PLUGIN_ENTRY(api_etcd) { return keyway::SoleEntry<&keyway::api_etcd::kDescriptor>(); }
