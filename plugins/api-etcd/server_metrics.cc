// SPDX-License-Identifier: Apache-2.0
//
// Makes the cells.
#include "server_metrics.h"

#include "errors.h"

namespace keyway::api_etcd {

ServerMetrics::ServerMetrics(const kw_host* host) {
  for (size_t i = 0; i < kRpcCount; ++i) {
    const Method& method = MethodOf(static_cast<Rpc>(i));
    const LogField type("grpc_type", RpcTypeName(method.type));
    const LogField service("grpc_service", method.service);
    const LogField name("grpc_method", method.name);
    started[i] = Counter(host, "grpc_server_started_total", "Total number of RPCs started on the server.",
                         {type, service, name});
    for (int32_t code = 0; code <= KW_UNAUTHENTICATED; ++code) {
      handled[i][static_cast<size_t>(code)] =
          Counter(host, "grpc_server_handled_total",
                  "Total number of RPCs completed on the server, regardless of success or failure.",
                  {type, service, name, LogField("grpc_code", CodeName(code))});
    }
  }
  received_bytes = Counter(host, "etcd_network_client_grpc_received_bytes_total",
                           "The total number of bytes received from grpc clients.");
  sent_bytes = Counter(host, "etcd_network_client_grpc_sent_bytes_total",
                       "The total number of bytes sent to grpc clients.");
  connections = Gauge(host, "keyway_client_connections", "Open client connections.");
  watch_streams = Gauge(host, "etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.");
  connections_refused = Counter(host, "keyway_client_connections_refused_total",
                                "Client connections closed at once because too many were open.");
  connections_abusive =
      Counter(host, "keyway_client_connections_abusive_total", "Client connections closed for flooding.");
}

}  // namespace keyway::api_etcd
