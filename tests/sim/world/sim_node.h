// SPDX-License-Identifier: Apache-2.0
//
// SimNode: one machine and, while it runs, one process on it: a Core with its lanes over the simulated
// disk, engine and network, driven as kernel/core/node.cc does. Disk and engine outlive the process.
//
// Its clock may run at another rate than the world's, jump ahead and freeze. The process may pause, and die
// at any call of a plugin: what the turn did after that call has no effect.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernel/core/core.h"
#include "kernel/core/log_writer.h"
#include "tests/sim/world/boundary.h"
#include "tests/sim/world/scheduler.h"
#include "tests/sim/world/sim_disk.h"
#include "tests/sim/world/sim_log.h"
#include "tests/sim/world/sim_network.h"
#include "tests/sim/world/sim_store.h"
#include "tests/sim/world/trace.h"

namespace keyway::sim {

// How long things take, and what fails by itself.
struct NodeTiming {
  uint64_t turn_min_ns = 5 * kMicrosecond, turn_max_ns = 50 * kMicrosecond;
  uint64_t flush_min_ns = 100 * kMicrosecond, flush_max_ns = 2 * kMillisecond;
  uint64_t store_min_ns = 200 * kMicrosecond, store_max_ns = 5 * kMillisecond;
  uint64_t read_min_ns = 20 * kMicrosecond, read_max_ns = 500 * kMicrosecond;
  uint32_t read_stall_ppm = 0;  // A read of the engine that takes up to seconds; the others pass it.
};

class SimNode final : public Boundary, private core::Executor {
 public:
  struct Services {
    Scheduler* scheduler = nullptr;
    Trace* trace = nullptr;
    SimNetwork* network = nullptr;
  };
  // What the owner hears of. All called outside of a turn, but `turned`, `applied`, `entry` and `configuration`.
  struct Hooks {
    std::function<void(size_t slot)> turned;
    std::function<void(size_t slot, uint64_t index)> applied;  // Within a turn, each entry.
    std::function<void(size_t slot, uint64_t index, uint64_t term, uint64_t before, uint32_t crc)> entry;
    std::function<void(size_t slot, uint64_t index, uint64_t term)> configuration;
    std::function<void(size_t slot, uint64_t base_index)> loss;  // As SimLog::on_loss.
    std::function<void()> stalled;                               // A read does, or did.
    std::function<void(size_t slot)> died;  // At a boundary, or because the core has failed.
  };

  SimNode(size_t slot, const Services& services, Hooks hooks, SimStore::Engine engine, uint64_t segment_bytes,
          uint64_t seed);
  ~SimNode() override;

  // ---- life ----
  // Starts a process. False if it did not come up; failure() says why, dying() if it was made to die.
  bool Start(core::CoreConfig config);
  // The process dies now. With `power_loss` the machine goes with it.
  void Kill(bool power_loss);
  // The process ends in order.
  void Stop();
  void Wipe();  // An empty disk; not while it runs.
  bool is_running() const { return core_ != nullptr; }
  uint64_t paused_until_ns() const { return paused_until_ns_; }
  uint64_t clock_rate_ppm() const { return clock_rate_ppm_; }
  bool is_paused() const { return scheduler_->now_ns() < paused_until_ns_; }
  const std::string& failure() const { return failure_; }
  const core::Core* core() const { return core_.get(); }
  uint64_t life() const { return life_; }

  // ---- faults ----
  void DieAtCall(uint64_t count) { die_at_call_ = calls_ + count; }
  // At the next but `count` - 1 call of this kind, however long that takes; 0: at none.
  void DieAtCallOf(Call call, uint64_t count) {
    die_call_ = call;
    die_at_call_of_ = count == 0 ? 0 : calls_of_[static_cast<size_t>(call)] + count;
  }
  // The count-th call of this kind from now on fails with `code`.
  void FailCall(Call call, uint64_t count, int32_t code) {
    fail_call_ = call;
    fail_at_ = calls_of_[static_cast<size_t>(call)] + count;
    fail_code_ = code;
  }
  uint64_t calls(Call call) const { return calls_of_[static_cast<size_t>(call)]; }
  uint64_t calls() const { return calls_; }
  void Pause(uint64_t until_ns) { paused_until_ns_ = std::max(paused_until_ns_, until_ns); }
  // Parts per million of the world's clock; 0: frozen.
  void SetClockRate(uint64_t ppm);
  void JumpClock(uint64_t ahead_ns) { clock_local_ns_ += ahead_ns; }
  uint64_t NowNs() const;
  NodeTiming timing;
  uint64_t slow_factor = 1;  // Of the disks.
  uint64_t disks_hang_until_ns = 0;
  uint64_t log_hangs_until_ns = 0;   // The log alone has a disk that hangs.
  uint64_t reads_hang_until_ns = 0;  // Of the engine: what it writes goes on.
  uint32_t store_error_ppm = 0;      // Of each call of the engine that may fail.
  // In this life a call was made to fail.
  bool had_fault() const { return had_fault_ || disk_.faults_injected() != disk_faults_before_; }

  // ---- what goes in ----
  void Submit(kw_request* request);
  // Runs `run(core)` on [core].
  template <typename Function>
  void Post(Function run) {
    if (core_ == nullptr || dying_) return;
    inbox_->Push(new core::Command([core = core_.get(), run = std::move(run)]() mutable { run(*core); }));
    ScheduleTurn();
  }

  SimDisk& disk() { return disk_; }
  SimStore& store() { return store_; }
  const LogRecord& log_record() const { return log_record_; }
  std::string log_violation() const { return log_violation_; }

  // ---- Boundary ----
  int32_t Cross(Call call) override;
  bool dying() const override { return dying_; }

 private:
  void Submit(core::Lane lane, std::unique_ptr<core::Job> job) override;
  void ScheduleTurn();
  void Turn();
  void ScheduleTick();
  void RunLogLane();
  void ScheduleFlush();
  void RunStoreLane();
  void DrainInbox();
  void TearDown();
  void Fail(std::string why);
  // Runs `step` of this life after the delay; later if the process is paused then.
  template <typename Step>
  void Later(uint64_t delay_ns, Step step) {
    scheduler_->After(delay_ns, [this, life = life_, step = std::move(step)]() mutable {
      if (life != life_ || dying_) return;
      if (is_paused()) return Later(paused_until_ns_ - scheduler_->now_ns(), std::move(step));
      step();
    });
  }
  uint64_t IoDelay(uint64_t min_ns, uint64_t max_ns);

  const size_t slot_;
  Scheduler* const scheduler_;
  Trace* const trace_;
  SimNetwork* const network_;
  const Hooks hooks_;
  const uint64_t segment_bytes_;
  Random random_;

  // The machine.
  SimDisk disk_;
  SimStore store_;
  LogRecord log_record_;
  uint64_t clock_rate_ppm_ = 1'000'000, clock_local_ns_ = 0, clock_world_ns_ = 0;

  // The process.
  uint64_t life_ = 0;
  uint64_t paused_until_ns_ = 0;
  std::unique_ptr<MetricsRegistry> metrics_;
  std::unique_ptr<Logger> logger_;
  std::unique_ptr<core::Inbox> inbox_;
  std::unique_ptr<SimLog> log_;
  std::unique_ptr<core::LogWriter> log_writer_;
  std::unique_ptr<core::Core> core_;
  kw_transport_sink sink_{};
  std::deque<std::unique_ptr<core::LogJob>> log_jobs_;
  std::deque<std::unique_ptr<core::Job>> store_jobs_;
  std::map<uint64_t, std::unique_ptr<core::Job>> read_jobs_;
  uint64_t next_read_ = 0;
  bool turn_scheduled_ = false, log_lane_scheduled_ = false, flushing_ = false, store_lane_scheduled_ = false;
  bool in_turn_ = false;
  uint64_t tick_ns_ = 0;
  uint64_t ticks_ = 0;
  std::string failure_;
  std::string log_violation_;

  uint64_t calls_ = 0, die_at_call_ = 0;
  Call die_call_ = Call::kStoreWrite;
  uint64_t die_at_call_of_ = 0;
  std::array<uint64_t, kCallCount> calls_of_{};
  Call fail_call_ = Call::kStoreWrite;
  uint64_t fail_at_ = 0;
  int32_t fail_code_ = KW_OK;
  uint64_t disk_faults_before_ = 0;
  bool dying_ = false, had_fault_ = false;
};

}  // namespace keyway::sim
