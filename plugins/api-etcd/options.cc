// SPDX-License-Identifier: Apache-2.0
//
// The schema of the options, and reading them.
#include "options.h"

namespace keyway::api_etcd {

const kw_config_field kOptionFields[] = {
    {"listen", "strings", "[\"http://127.0.0.1:2379\"]",
     "Where clients connect: http://HOST:PORT, https://HOST:PORT (needs an authenticator with TLS "
     "material for client-server), unix://PATH or unixs://PATH."},
    {"io_threads", "int(1..64)", "1", "Threads that serve connections."},
    {"max_request_bytes", "bytes(1KiB..512MiB)", "1536KiB",
     "The largest request that is proposed; a message of 512 KiB more is not read at all."},
    {"max_concurrent_streams", "int(1..1000000)", "100000", "Open HTTP/2 streams a connection."},
    {"max_connections", "int(1..1000000)", "20000", "Open client connections; one more is closed at once."},
    {"handshake_slots", "int(1..65536)", "256",
     "TLS handshakes at a time; one more ends the oldest that has not finished."},
    {"handshake_timeout", "duration(100..60000)", "5s",
     "From the connection to the end of its TLS handshake, and from there to the first bytes of a request."},
    {"watch_progress_notify_interval", "duration(100ms..24h)", "10m",
     "How often an idle watch that asks for it is told the revision."},
    {"watch_buffer_bytes", "bytes(64KiB..256MiB)", "4MiB", "Bytes of events on their way to one watch."},
    {"shutdown_grace", "duration(0ms..60s)", "300ms",
     "How long running requests may take to finish when the plugin stops."},
    {"etcd_version", "string", "3.7.1", "The etcd version that clients are told."},
};
const size_t kOptionFieldCount = sizeof kOptionFields / sizeof kOptionFields[0];

Options ReadOptions(const ConfigReader& config) {
  Options options;
  options.listen = config.Strings("listen");
  if (!config.Has("listen")) options.listen = {"http://127.0.0.1:2379"};
  options.io_threads = static_cast<uint32_t>(config.Int("io_threads", 1));
  options.max_request_bytes = static_cast<size_t>(config.Int("max_request_bytes", 1572864));
  options.max_concurrent_streams = static_cast<uint32_t>(config.Int("max_concurrent_streams", 100000));
  options.max_connections = static_cast<uint32_t>(config.Int("max_connections", 20000));
  options.handshake_slots = static_cast<uint32_t>(config.Int("handshake_slots", 256));
  options.handshake_timeout_ns = static_cast<uint64_t>(config.Int("handshake_timeout", 5000)) * 1'000'000;
  options.watch_progress_notify_interval_ns =
      static_cast<uint64_t>(config.Int("watch_progress_notify_interval", 600000)) * 1'000'000;
  options.watch_buffer_bytes = static_cast<size_t>(config.Int("watch_buffer_bytes", 4 << 20));
  options.shutdown_grace_ns = static_cast<uint64_t>(config.Int("shutdown_grace", 300)) * 1'000'000;
  options.etcd_version = config.String("etcd_version", "3.7.1");
  return options;
}

}  // namespace keyway::api_etcd
