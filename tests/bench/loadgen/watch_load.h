// SPDX-License-Identifier: Apache-2.0
// The watch fan-out load: many watchers of one key on a few streams, and one connection that puts.
//
// Every value starts with the time of the put, so each delivered message tells its lag. The run is
// over when every watcher got every event; one that is missing or doubled fails the run.
#ifndef KEYWAY_TESTS_BENCH_LOADGEN_WATCH_LOAD_H_
#define KEYWAY_TESTS_BENCH_LOADGEN_WATCH_LOAD_H_

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "connection.h"
#include "histogram.h"
#include "options.h"

namespace keyway::loadgen {

class WatchLoad : public Events {
 public:
  explicit WatchLoad(const Options& options);
  ~WatchLoad() override;

  int Run();  // Prints JSON; returns the exit code of the program.

  void OnConnected(Connection* connection) override;
  void OnBody(Call* call) override;
  void OnClose(Call* call, bool lost) override;
  void OnLost(Connection* connection, const std::string& why) override;

 private:
  void OnWatchResponse(uint32_t stream, std::string_view message);
  void IssuePut(Call* call);
  bool Done() const;
  void Fail(const std::string& why);
  int Report(uint64_t end_ns);

  const Options options_;
  const int epoll_;
  std::vector<std::unique_ptr<Connection>> watch_connections_;
  std::vector<std::unique_ptr<Call>> watch_calls_;
  std::unique_ptr<Connection> writer_;
  std::vector<std::unique_ptr<Call>> put_calls_;
  std::vector<uint64_t> delivered_by_stream_;
  std::vector<std::map<uint64_t, uint64_t>> delivered_by_watcher_;  // Per stream: watch id, events.

  bool writing_ = false;
  bool failed_ = false;
  std::string failure_;
  uint64_t created_ = 0;
  uint64_t issued_ = 0;
  uint64_t acknowledged_ = 0;
  uint64_t delivered_ = 0;
  uint64_t messages_ = 0;
  uint64_t next_due_ns_ = 0;
  uint64_t start_ns_ = 0;
  uint64_t server_cpu_start_ = 0;
  std::vector<Call*> free_puts_;
  Histogram lag_ns_;
  Histogram put_ns_;
};

}  // namespace keyway::loadgen

#endif  // KEYWAY_TESTS_BENCH_LOADGEN_WATCH_LOAD_H_
