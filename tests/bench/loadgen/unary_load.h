// SPDX-License-Identifier: Apache-2.0
// The load of unary calls: puts, reads, lists and transactions, in closed or in open loop.
#ifndef KEYWAY_TESTS_BENCH_LOADGEN_UNARY_LOAD_H_
#define KEYWAY_TESTS_BENCH_LOADGEN_UNARY_LOAD_H_

#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "connection.h"
#include "histogram.h"
#include "options.h"

namespace keyway::loadgen {

uint64_t CpuMicros(const std::vector<int>& pids);  // utime + stime of the processes, from /proc.
uint64_t OwnCpuMicros();

class UnaryLoad : public Events {
 public:
  explicit UnaryLoad(const Options& options);
  ~UnaryLoad() override;

  // Runs the whole load and prints the result as JSON. Returns the exit code of the program.
  int Run();

  void OnConnected(Connection* connection) override;
  void OnBody(Call* call) override;
  void OnClose(Call* call, bool lost) override;
  void OnLost(Connection* connection, const std::string& why) override;

 private:
  struct Pending {
    Call* call;
    uint64_t start_ns;
  };
  struct Gap {
    uint64_t end_ns;
    uint64_t length_ns;
  };

  bool open_loop() const { return options_.rate > 0; }
  void Issue(Connection* connection, Call* call);
  bool MayIssue() const;
  void BuildRequest(Call* call);
  std::string KeyName(uint64_t number) const;
  void Acknowledged(Call* call, uint64_t now);
  void Error(const std::string& text);
  void StartWindow(uint64_t now);
  void IssueDue(uint64_t now);
  void ResetOverdue(uint64_t now);
  void Retry(uint64_t now);
  int Report(uint64_t end_ns);

  const Options options_;
  const int epoll_;
  std::string path_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Call>> calls_;
  std::vector<Call*> free_calls_;               // Open loop only.
  std::multimap<uint64_t, Call*> retry_calls_;  // Closed loop, after an error.
  std::multimap<uint64_t, Connection*> retry_connections_;
  std::deque<Pending> deadlines_;
  std::mt19937_64 random_{1};
  FILE* ack_log_ = nullptr;

  uint64_t start_ns_ = 0;
  uint64_t window_start_ns_ = 0;  // 0: still warming up.
  uint64_t next_due_ns_ = 0;
  uint64_t next_key_ = 0;
  uint64_t issued_in_window_ = 0;
  uint32_t next_connection_ = 0;
  uint64_t in_flight_ = 0;
  bool stopping_ = false;
  bool failed_ = false;

  Histogram latency_ns_;
  uint64_t acknowledged_ = 0;  // In the window.
  uint64_t acknowledged_total_ = 0;
  uint64_t errors_ = 0;
  uint64_t dropped_ = 0;  // Open loop: due, but no connection or no free call.
  uint64_t reply_bytes_ = 0;
  uint64_t revision_regressions_ = 0;
  uint64_t lost_connections_ = 0;
  int64_t revision_max_ = 0;
  int64_t revision_first_ = 0;
  uint64_t last_ack_ns_ = 0;
  std::vector<Gap> gaps_;
  std::map<std::string, uint64_t> error_texts_;
  uint64_t server_cpu_start_ = 0;
  uint64_t own_cpu_start_ = 0;
};

}  // namespace keyway::loadgen

#endif  // KEYWAY_TESTS_BENCH_LOADGEN_UNARY_LOAD_H_
