// SPDX-License-Identifier: Apache-2.0
#include "unary_load.h"

#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <csignal>
#include <cstring>

#include "wire.h"

namespace keyway::loadgen {
namespace {

constexpr uint64_t kRetryNs = 2'000'000;
constexpr uint64_t kReconnectNs = 5'000'000;
constexpr size_t kOpenCallsMax = 8192;
constexpr size_t kErrorTextsMax = 32;
constexpr size_t kGapsMax = 1000;

volatile sig_atomic_t g_asked_to_stop = 0;  // SIGTERM and SIGINT end the run with its report.

std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

std::string JsonText(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<uint8_t>(c) >= 0x20) out += c;
  }
  return out + '"';
}

}  // namespace

uint64_t CpuMicros(const std::vector<int>& pids) {
  uint64_t ticks = 0;
  for (const int pid : pids) {
    const std::string path = "/proc/" + std::to_string(pid) + "/stat";
    FILE* const file = fopen(path.c_str(), "r");
    if (file == nullptr) continue;  // A killed server has no more CPU time to report.
    char line[1024];
    const size_t size = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[size] = 0;
    const char* const after_name = strrchr(line, ')');
    unsigned long user = 0, system = 0;
    if (after_name != nullptr &&
        sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2) {
      ticks += user + system;
    }
  }
  return ticks * 1'000'000u / static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
}

uint64_t OwnCpuMicros() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000u +
         static_cast<uint64_t>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

UnaryLoad::UnaryLoad(const Options& options)
    : options_(options), epoll_(epoll_create1(EPOLL_CLOEXEC)), next_key_(options.first_key) {
  path_ = options_.mode == "put"   ? "/etcdserverpb.KV/Put"
          : options_.mode == "txn" ? "/etcdserverpb.KV/Txn"
                                   : "/etcdserverpb.KV/Range";
  if (!options_.ack_log.empty()) {
    ack_log_ = fopen(options_.ack_log.c_str(), "w");
    if (ack_log_ == nullptr) {
      perror(options_.ack_log.c_str());
      exit(2);
    }
  }
  for (uint32_t i = 0; i < options_.connections; ++i) {
    connections_.push_back(
        std::make_unique<Connection>(epoll_, options_.endpoints[i % options_.endpoints.size()], i, this));
  }
  const size_t calls =
      open_loop() ? kOpenCallsMax : static_cast<size_t>(options_.connections) * options_.streams;
  for (size_t i = 0; i < calls; ++i) {
    calls_.push_back(std::make_unique<Call>());
    calls_.back()->slot = static_cast<uint32_t>(i);
    if (open_loop()) free_calls_.push_back(calls_.back().get());
  }
}

UnaryLoad::~UnaryLoad() {
  connections_.clear();
  if (ack_log_ != nullptr) fclose(ack_log_);
  close(epoll_);
}

std::string UnaryLoad::KeyName(uint64_t number) const {
  std::string digits = std::to_string(number);
  if (digits.size() < options_.key_digits) digits.insert(0, options_.key_digits - digits.size(), '0');
  return options_.prefix + digits;
}

void UnaryLoad::BuildRequest(Call* call) {
  if (options_.order == "sequential") {
    call->key = next_key_++;
  } else if (options_.order == "random") {
    call->key = random_() % options_.key_space;
  } else {
    call->key = 0;
  }
  const std::string key = KeyName(call->key);
  std::string message;
  if (options_.mode == "put" || options_.mode == "txn") {
    std::string put;
    std::string value(options_.value_bytes, 'v');
    // The key number opens the value, so a reader can tell whose value it is.
    const std::string number = std::to_string(call->key);
    value.replace(0, std::min(number.size(), value.size()), number, 0, value.size());
    PutBytes(&put, 1, key);
    PutBytes(&put, 2, value);
    if (options_.mode == "put") {
      message = std::move(put);
    } else {  // If version(key) > -1 then put: one compare, one write.
      std::string compare;
      PutInteger(&compare, 1, 1);
      PutBytes(&compare, 3, key);
      PutInteger(&compare, 4, UINT64_MAX);
      std::string operation;
      PutBytes(&operation, 2, put);
      PutBytes(&message, 1, compare);
      PutBytes(&message, 2, operation);
    }
  } else if (options_.mode == "list") {
    PutBytes(&message, 1, options_.prefix);
    PutBytes(&message, 2, PrefixEnd(options_.prefix));
    PutInteger(&message, 3, options_.list_limit);
  } else {
    PutBytes(&message, 1, key);
    PutInteger(&message, 7, options_.mode == "srange");
  }
  call->request.clear();
  AppendGrpcFrame(&call->request, message);
}

bool UnaryLoad::MayIssue() const {
  return !stopping_ && (options_.count == 0 || issued_in_window_ < options_.count);
}

void UnaryLoad::Issue(Connection* connection, Call* call) {
  BuildRequest(call);
  call->floor_revision = revision_max_;
  if (window_start_ns_ != 0) ++issued_in_window_;
  ++in_flight_;
  connection->Start(call, path_);
  if (options_.timeout_ms != 0) deadlines_.push_back({call, call->start_ns});
}

void UnaryLoad::OnConnected(Connection* connection) {
  if (open_loop()) return;
  for (uint32_t i = 0; i < options_.streams && MayIssue(); ++i) {
    Call* const call = calls_[connection->number() * options_.streams + i].get();
    if (!call->open) Issue(connection, call);
  }
}

void UnaryLoad::OnBody(Call*) {}

void UnaryLoad::OnClose(Call* call, bool lost) {
  const uint64_t now = NowNs();
  --in_flight_;
  Connection* const connection = call->connection;
  if (!lost && call->grpc_status == 0) {
    Acknowledged(call, now);
  } else if (lost) {
    Error("stream or connection lost");
  } else {
    Error(std::to_string(call->grpc_status) + " " + call->message);
  }
  if (open_loop()) {
    free_calls_.push_back(call);
  } else if (connection->connected() && MayIssue()) {
    if (call->grpc_status == 0) {
      Issue(connection, call);
    } else {
      retry_calls_.emplace(now + kRetryNs, call);
    }
  }
}

void UnaryLoad::Acknowledged(Call* call, uint64_t now) {
  const size_t head = std::min(call->reply_bytes, call->head.size());
  const std::string_view message =
      head > 5 ? std::string_view(call->head.data() + 5, head - 5) : std::string_view();
  const int64_t revision = ReplyRevision(message);
  const bool write = options_.mode == "put" || options_.mode == "txn";
  size_t reply_min = 5;
  if (options_.mode == "range" || options_.mode == "srange") reply_min += options_.value_bytes;
  if (options_.mode == "list") reply_min += options_.list_limit * options_.value_bytes;
  if (call->reply_bytes < reply_min || revision == 0) {
    return Error("reply of " + std::to_string(call->reply_bytes) + " bytes is too short");
  }
  // A write is newer than all that was acknowledged before it started; a linearizable read sees it.
  if (write ? revision <= call->floor_revision
            : options_.mode != "srange" && revision < call->floor_revision) {
    ++revision_regressions_;
  }
  if (revision_first_ == 0) revision_first_ = revision;
  revision_max_ = std::max(revision_max_, revision);
  if (ack_log_ != nullptr) fprintf(ack_log_, "%" PRIu64 " %" PRId64 "\n", call->key, revision);
  ++acknowledged_total_;
  if (last_ack_ns_ != 0 && now - last_ack_ns_ > options_.gap_ms * 1'000'000ull && gaps_.size() < kGapsMax) {
    gaps_.push_back({now, now - last_ack_ns_});
  }
  last_ack_ns_ = now;
  if (window_start_ns_ == 0) return;
  ++acknowledged_;
  reply_bytes_ += call->reply_bytes;
  latency_ns_.Add(now - call->start_ns);
}

void UnaryLoad::Error(const std::string& text) {
  if (stopping_) return;  // Calls cut off at the end are nobody's fault.
  ++errors_;
  if (error_texts_.size() < kErrorTextsMax || error_texts_.count(text) != 0) ++error_texts_[text];
  if (!options_.tolerate_errors) failed_ = true;
}

void UnaryLoad::OnLost(Connection* connection, const std::string& why) {
  if (stopping_) return;
  ++lost_connections_;
  Error(connection->endpoint() + ": " + why);
  if (options_.tolerate_errors) retry_connections_.emplace(NowNs() + kReconnectNs, connection);
}

void UnaryLoad::StartWindow(uint64_t now) {
  window_start_ns_ = now;
  server_cpu_start_ = CpuMicros(options_.server_pids);
  own_cpu_start_ = OwnCpuMicros();
}

void UnaryLoad::IssueDue(uint64_t now) {
  const uint64_t step_ns = static_cast<uint64_t>(1e9 / options_.rate);
  for (; next_due_ns_ <= now && MayIssue(); next_due_ns_ += step_ns) {
    Connection* connection = nullptr;
    for (size_t tried = 0; tried < connections_.size() && connection == nullptr; ++tried) {
      Connection* const candidate = connections_[next_connection_++ % connections_.size()].get();
      if (candidate->connected()) connection = candidate;
    }
    if (connection == nullptr || free_calls_.empty()) {
      ++dropped_;
      continue;
    }
    Call* const call = free_calls_.back();
    free_calls_.pop_back();
    Issue(connection, call);
  }
  for (auto& connection : connections_) connection->Flush();
}

void UnaryLoad::ResetOverdue(uint64_t now) {
  const uint64_t limit = options_.timeout_ms * 1'000'000ull;
  while (!deadlines_.empty() && deadlines_.front().start_ns + limit < now) {
    const Pending pending = deadlines_.front();
    deadlines_.pop_front();
    if (pending.call->open && pending.call->start_ns == pending.start_ns) {
      Connection* const connection = pending.call->connection;
      connection->Reset(pending.call);
      connection->Flush();
    }
  }
}

void UnaryLoad::Retry(uint64_t now) {
  while (!retry_connections_.empty() && retry_connections_.begin()->first <= now) {
    Connection* const connection = retry_connections_.begin()->second;
    retry_connections_.erase(retry_connections_.begin());
    connection->Connect();
  }
  while (!retry_calls_.empty() && retry_calls_.begin()->first <= now) {
    Call* const call = retry_calls_.begin()->second;
    retry_calls_.erase(retry_calls_.begin());
    if (call->open || !call->connection->connected() || !MayIssue()) continue;
    Issue(call->connection, call);
    call->connection->Flush();
  }
}

int UnaryLoad::Run() {
  signal(SIGTERM, [](int) { g_asked_to_stop = 1; });
  signal(SIGINT, [](int) { g_asked_to_stop = 1; });
  start_ns_ = NowNs();
  next_due_ns_ = start_ns_;
  if (options_.warmup_s <= 0) StartWindow(start_ns_);
  const uint64_t warm_ns = start_ns_ + static_cast<uint64_t>(options_.warmup_s * 1e9);
  const uint64_t stop_ns = warm_ns + static_cast<uint64_t>(options_.duration_s * 1e9);
  for (auto& connection : connections_) connection->Connect();
  const bool timers = open_loop() || options_.timeout_ms != 0 || options_.tolerate_errors;
  while (!failed_ && g_asked_to_stop == 0) {
    uint64_t now = NowNs();
    if (window_start_ns_ == 0 && now >= warm_ns) StartWindow(now);
    if (options_.count == 0 && now >= stop_ns) break;
    if (options_.count != 0 && issued_in_window_ >= options_.count && in_flight_ == 0) break;
    epoll_event events[128];
    const int ready = epoll_wait(epoll_, events, 128, timers ? 1 : 20);
    for (int i = 0; i < ready; ++i) {
      static_cast<Connection*>(events[i].data.ptr)->OnReady(events[i].events);
    }
    if (!timers) continue;
    now = NowNs();
    if (open_loop()) IssueDue(now);
    ResetOverdue(now);
    Retry(now);
  }
  const uint64_t end_ns = NowNs();
  stopping_ = true;
  return Report(end_ns);
}

int UnaryLoad::Report(uint64_t end_ns) {
  // The server's CPU first: it goes on working on what is in flight.
  const double server_cpu = static_cast<double>(CpuMicros(options_.server_pids) - server_cpu_start_);
  const double own_cpu = static_cast<double>(OwnCpuMicros() - own_cpu_start_);
  if (last_ack_ns_ != 0 && end_ns - last_ack_ns_ > options_.gap_ms * 1'000'000ull) {
    gaps_.push_back({end_ns, end_ns - last_ack_ns_});  // Still open at the end.
  }
  const double seconds = static_cast<double>(end_ns - window_start_ns_) / 1e9;
  const double operations = static_cast<double>(std::max<uint64_t>(acknowledged_, 1));
  printf("{\"mode\": \"%s\", \"connections\": %u, \"streams\": %u, \"seconds\": %.3f,\n",
         options_.mode.c_str(), options_.connections, options_.streams, seconds);
  printf(" \"operations\": %" PRIu64 ", \"operations_total\": %" PRIu64
         ", \"operations_per_second\": %.1f, \"errors\": %" PRIu64 ", \"dropped\": %" PRIu64 ",\n",
         acknowledged_, acknowledged_total_, static_cast<double>(acknowledged_) / seconds, errors_, dropped_);
  printf(
      " \"latency_us\": {\"mean\": %.1f, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, "
      "\"max\": %.1f},\n",
      latency_ns_.mean() / 1e3, static_cast<double>(latency_ns_.Quantile(0.5)) / 1e3,
      static_cast<double>(latency_ns_.Quantile(0.9)) / 1e3,
      static_cast<double>(latency_ns_.Quantile(0.99)) / 1e3, static_cast<double>(latency_ns_.max()) / 1e3);
  printf(
      " \"server_cpu_us_per_operation\": %.2f, \"own_cpu_us_per_operation\": %.2f, "
      "\"reply_bytes_mean\": %.1f,\n",
      server_cpu / operations, own_cpu / operations, static_cast<double>(reply_bytes_) / operations);
  printf(" \"revision_first\": %" PRId64 ", \"revision_max\": %" PRId64 ", \"revision_regressions\": %" PRIu64
         ", \"next_key\": %" PRIu64 ", \"lost_connections\": %" PRIu64 ",\n \"gaps_ms\": [",
         revision_first_, revision_max_, revision_regressions_, next_key_, lost_connections_);
  for (size_t i = 0; i < gaps_.size(); ++i) {
    printf("%s{\"end\": %.1f, \"length\": %.1f}", i == 0 ? "" : ", ",
           static_cast<double>(gaps_[i].end_ns - start_ns_) / 1e6,
           static_cast<double>(gaps_[i].length_ns) / 1e6);
  }
  printf("],\n \"error_texts\": {");
  bool first = true;
  for (const auto& [text, count] : error_texts_) {
    printf("%s%s: %" PRIu64, first ? "" : ", ", JsonText(text).c_str(), count);
    first = false;
  }
  printf("}}\n");
  if (revision_regressions_ != 0) return 1;
  return failed_ || acknowledged_total_ == 0 ? 1 : 0;
}

}  // namespace keyway::loadgen
