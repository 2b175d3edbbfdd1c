// SPDX-License-Identifier: Apache-2.0
// keyway-loadgen: a light load generator for servers that speak etcd's v3 API.
//
// One thread, raw HTTP/2 by nghttp2 (a Go or gRPC client would cost more than the servers it is to
// measure). Every reply's grpc-status, size and revision are checked. The result is JSON on stdout.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "connection.h"
#include "options.h"
#include "unary_load.h"
#include "watch_load.h"

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  keyway::loadgen::Options options;
  options.endpoints = {"127.0.0.1:2379"};
  CLI::App app{"Load generator for servers that speak etcd's v3 API; prints JSON."};
  app.add_option("--endpoints", options.endpoints, "IPV4:PORT, several by comma")->delimiter(',');
  app.add_option("--mode", options.mode, "what to do")
      ->check(CLI::IsMember({"put", "range", "srange", "txn", "list", "watch"}));
  app.add_option("--connections,-c", options.connections, "connections")->check(CLI::Range(1, 10000));
  app.add_option("--streams,-m", options.streams, "concurrent calls on each connection")
      ->check(CLI::Range(1, 10000));
  app.add_option("--order", options.order, "order of the keys")
      ->check(CLI::IsMember({"fixed", "sequential", "random"}));
  app.add_option("--key-space", options.key_space, "number of keys of a random order");
  app.add_option("--first-key", options.first_key, "first key number of a sequential order");
  app.add_option("--key-digits", options.key_digits, "digits of the key number");
  app.add_option("--prefix", options.prefix, "prefix of all keys");
  app.add_option("--value-size", options.value_bytes, "bytes of a value");
  app.add_option("--duration", options.duration_s, "measured seconds");
  app.add_option("--warmup", options.warmup_s, "seconds before the measured ones");
  app.add_option("--count", options.count, "measured operations, instead of --duration");
  app.add_option("--rate", options.rate, "operations a second in open loop; 0: closed loop");
  app.add_option("--timeout-ms", options.timeout_ms, "reset calls that are older");
  app.add_flag("--tolerate-errors", options.tolerate_errors, "count errors and go on; reconnect");
  app.add_option("--gap-ms", options.gap_ms, "list times without acknowledgement longer than this");
  app.add_option("--ack-log", options.ack_log, "file for 'key-number revision' of acknowledged puts");
  app.add_option("--server-pid", options.server_pids, "processes whose CPU time is reported")->delimiter(',');
  app.add_option("--list-limit", options.list_limit, "keys that a list call asks for");
  app.add_option("--watchers", options.watchers, "watchers in all");
  app.add_option("--watch-streams", options.watch_streams, "streams (each on its connection)");
  app.add_flag("--watch-prev-kv", options.watch_prev_kv, "watch with prev_kv");
  app.add_option("--cacert", options.ca_file, "speak TLS and verify the servers with these roots (PEM)");
  app.add_option("--cert", options.certificate_file, "the client's certificate chain (PEM)");
  app.add_option("--key", options.key_file, "the client's key (PEM)");
  CLI11_PARSE(app, argc, argv);
  if (!options.ca_file.empty()) {
    keyway::loadgen::Connection::UseTls(options.ca_file, options.certificate_file, options.key_file);
  }
  if (options.mode == "watch") {
    if (options.count == 0) options.count = 1000;
    return keyway::loadgen::WatchLoad(options).Run();
  }
  return keyway::loadgen::UnaryLoad(options).Run();
}
