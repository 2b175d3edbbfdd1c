// SPDX-License-Identifier: Apache-2.0
// What the command line of keyway-loadgen asks for.
#ifndef KEYWAY_TESTS_BENCH_LOADGEN_OPTIONS_H_
#define KEYWAY_TESTS_BENCH_LOADGEN_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace keyway::loadgen {

struct Options {
  std::vector<std::string> endpoints;  // "127.0.0.1:2379"; connections go round-robin over them.
  std::string mode = "put";            // put, range, srange, txn, list or watch.
  std::string order = "fixed";         // fixed, sequential or random.
  std::string prefix = "bench/";
  std::string ca_file, certificate_file, key_file;  // TLS if the first one is set.
  std::string ack_log;           // File for "key-number revision" lines of acknowledged puts.
  std::vector<int> server_pids;  // Their CPU time over the measured window is reported.
  uint32_t connections = 1;
  uint32_t streams = 1;
  uint64_t key_space = 100'000;
  uint64_t first_key = 0;    // Number of the first key of `sequential`.
  uint32_t key_digits = 10;  // Keys are prefix + zero-padded number.
  uint32_t value_bytes = 256;
  double duration_s = 5;
  double warmup_s = 0;
  uint64_t count = 0;            // Measured operations; 0: run for duration_s.
  double rate = 0;               // Operations a second in open loop; 0: closed loop.
  uint32_t timeout_ms = 0;       // A call older than this is reset; 0: never.
  bool tolerate_errors = false;  // Errors and lost connections are counted and retried.
  uint32_t gap_ms = 50;          // Times without an acknowledgement longer than this are listed.
  uint64_t list_limit = 10'000;  // Keys a list call asks for.
  uint32_t watchers = 1000;      // Watch mode: watchers, spread over the streams.
  uint32_t watch_streams = 10;
  bool watch_prev_kv = false;
};

}  // namespace keyway::loadgen

#endif  // KEYWAY_TESTS_BENCH_LOADGEN_OPTIONS_H_
