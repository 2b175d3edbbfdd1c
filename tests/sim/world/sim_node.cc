// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/sim_node.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace keyway::sim {
namespace {

// Log lines into the trace's text.
class TraceLogger final : public Logger {
 public:
  TraceLogger(Scheduler* scheduler, Trace* trace, size_t slot)
      : scheduler_(scheduler), trace_(trace), slot_(slot) {}
  bool Enabled(uint32_t) const override { return trace_->is_text(); }
  void Write(uint32_t, std::string_view, std::string_view event, std::span<const kw_field> fields) override {
    std::string line(event);
    for (const kw_field& field : fields)
      line.append(" ").append(field.key).append("=").append(ToView(field.value));
    trace_->Note(scheduler_->now_ns(), slot_ + 1, line);
  }

 private:
  Scheduler* const scheduler_;
  Trace* const trace_;
  const size_t slot_;
};

}  // namespace

SimNode::SimNode(size_t slot, const Services& services, Hooks hooks, SimStore::Engine engine,
                 uint64_t segment_bytes, uint64_t seed)
    : slot_(slot),
      scheduler_(services.scheduler),
      trace_(services.trace),
      network_(services.network),
      hooks_(std::move(hooks)),
      segment_bytes_(segment_bytes),
      random_(seed),
      disk_(random_.Next()),
      store_(engine, random_.Next()) {
  clock_world_ns_ = scheduler_->now_ns();
  clock_local_ns_ = random_.Between(1, 1000) * kSecond;
}

SimNode::~SimNode() {
  if (log_writer_ != nullptr) TearDown();
}

uint64_t SimNode::NowNs() const {
  const uint64_t passed = scheduler_->now_ns() - clock_world_ns_;
  return clock_local_ns_ + passed / 1'000'000 * clock_rate_ppm_ +
         passed % 1'000'000 * clock_rate_ppm_ / 1'000'000;
}

void SimNode::SetClockRate(uint64_t ppm) {
  clock_local_ns_ = NowNs();
  clock_world_ns_ = scheduler_->now_ns();
  clock_rate_ppm_ = ppm;
}

// ---- the boundary --------------------------------------------------------------------------------------

int32_t SimNode::Cross(Call call) {
  if (dying_) return KW_UNAVAILABLE;
  ++calls_;
  const uint64_t count = ++calls_of_[static_cast<size_t>(call)];
  if (calls_ == die_at_call_ || (call == die_call_ && count == die_at_call_of_)) {
    trace_->Add(scheduler_->now_ns(), "dies", slot_ + 1, static_cast<uint64_t>(call), calls_);
    dying_ = true;
    scheduler_->After(0, [this, life = life_] {
      if (life == life_ && dying_) hooks_.died(slot_);
    });
    return KW_UNAVAILABLE;
  }
  if (call == fail_call_ && count == fail_at_) {
    trace_->Add(scheduler_->now_ns(), "fails", slot_ + 1, static_cast<uint64_t>(call),
                static_cast<uint64_t>(fail_code_));
    had_fault_ = true;
    return fail_code_;
  }
  if (store_error_ppm != 0 && call <= Call::kStoreStats && random_.Chance(store_error_ppm)) {
    had_fault_ = true;
    return KW_INTERNAL;
  }
  return KW_OK;
}

// ---- life ----------------------------------------------------------------------------------------------

uint64_t SimNode::IoDelay(uint64_t min_ns, uint64_t max_ns) {
  uint64_t delay = random_.Between(min_ns, max_ns) * slow_factor;
  if (disks_hang_until_ns > scheduler_->now_ns()) delay += disks_hang_until_ns - scheduler_->now_ns();
  return delay;
}

bool SimNode::Start(core::CoreConfig config) {
  KW_CHECK(log_writer_ == nullptr);
  ++life_;
  trace_->Add(scheduler_->now_ns(), "start", slot_ + 1, life_);
  dying_ = had_fault_ = false;
  disk_faults_before_ = disk_.faults_injected();
  failure_.clear();
  turn_scheduled_ = log_lane_scheduled_ = flushing_ = store_lane_scheduled_ = in_turn_ = false;
  paused_until_ns_ = 0;
  tick_ns_ = config.tick_ms * kMillisecond;
  config.random_seed = random_.Next();
  store_.SetBoundary(this);
  metrics_ = std::make_unique<MetricsRegistry>();
  logger_ = std::make_unique<TraceLogger>(scheduler_, trace_, slot_);
  inbox_ = std::make_unique<core::Inbox>();
  log_ = std::make_unique<SimLog>(&disk_, segment_bytes_, random_.Next(), &log_record_, this,
                                  [this] { ScheduleFlush(); });
  log_->on_entry = [this](uint64_t index, uint64_t term, uint64_t before, uint32_t crc) {
    hooks_.entry(slot_, index, term, before, crc);
  };
  log_->on_loss = [this](uint64_t base_index) { hooks_.loss(slot_, base_index); };
  log_->on_configuration = [this](uint64_t index, uint64_t term) {
    hooks_.configuration(slot_, index, term);
  };
  log_writer_ = std::make_unique<core::LogWriter>(log_->plugin(), log_->table(), [this](core::LogJob* job) {
    inbox_->Push(job);
    ScheduleTurn();
  });
  core::CoreDeps deps;
  deps.store_plugin = store_.plugin();
  deps.store = store_.table();
  deps.log_plugin = log_->plugin();
  deps.log = log_->table();
  deps.transport_plugin = network_->Open(slot_, this);
  deps.transport = network_->table();
  deps.executor = this;
  deps.logger = logger_.get();
  deps.metrics = metrics_.get();
  deps.on_applied = [this](uint64_t index) {
    if (!dying_) hooks_.applied(slot_, index);
  };
  const std::string token = config.cluster_token;
  core_ = std::make_unique<core::Core>(std::move(config), deps, inbox_.get());
  std::string error;
  bool up = log_->Open(&error) && core_->Recover(&error);
  if (!log_->violation().empty()) log_violation_ = log_->violation();
  if (up) {
    sink_ = {};
    sink_.size = sizeof sink_;
    sink_.self = this;
    sink_.frames = [](void* self, const kw_frame* frames, size_t count) {
      for (size_t i = 0; i < count; ++i) {
        static_cast<SimNode*>(self)->Post(
            [peer = frames[i].peer, bytes = std::string(ToView(frames[i].head))](core::Core& core) {
              core.OnFrame(peer, bytes);
            });
      }
    };
    sink_.peer_state = [](void* self, uint64_t peer, uint32_t state, kw_slice) {
      static_cast<SimNode*>(self)->Post(
          [peer, state](core::Core& core) { core.OnPeerState(peer, state == KW_PEER_UP); });
    };
    kw_error failure{};
    failure.size = sizeof failure;
    const std::string url = SimNetwork::UrlOf(slot_);
    const char* urls[] = {url.c_str()};
    up = network_->table()->listen(deps.transport_plugin, core_->member_id(), token.c_str(), urls, 1, &sink_,
                                   &failure) == KW_OK;
    if (!up) error = failure.text;
  }
  if (!up || dying_) {
    failure_ = up ? "died while it started" : error;
    trace_->Note(scheduler_->now_ns(), slot_ + 1, "did not start: " + failure_);
    return false;
  }
  log_->SetFlushLater();
  in_turn_ = true;
  core_->Begin(NowNs());
  in_turn_ = false;
  if (!dying_) hooks_.turned(slot_);
  ScheduleTurn();
  ScheduleTick();
  return true;
}

void SimNode::Kill(bool power_loss) {
  if (log_writer_ == nullptr) return;
  trace_->Add(scheduler_->now_ns(), "kill", slot_ + 1, power_loss ? 1 : 0);
  dying_ = true;
  // What was being written is written in part.
  disk_.DieAfter(random_.Below(6));
  TearDown();
  if (power_loss) {
    disk_.PowerLoss();
  } else {
    disk_.Revive();
  }
  store_.Crash();
}

void SimNode::TearDown() {
  dying_ = true;
  ++life_;
  network_->Close(slot_);
  log_->Close();  // Completes all that is under way.
  log_jobs_.clear();
  store_jobs_.clear();
  read_jobs_.clear();
  DrainInbox();
  core_.reset();
  log_writer_.reset();
  log_.reset();
  inbox_.reset();
  metrics_.reset();
  logger_.reset();
  KW_CHECK(store_.views_open() == 0);
}

// Frees what nobody will take any more. Requests belong to the clients.
void SimNode::DrainInbox() {
  for (core::InboxNode* node = inbox_->Take(); node != nullptr;) {
    core::InboxNode* next = node->next;
    switch (static_cast<core::InboxKind>(node->kind)) {
      case core::InboxKind::kRequest:
        break;
      case core::InboxKind::kJob:
        delete static_cast<core::Job*>(node);
        break;
      case core::InboxKind::kCommand:
        delete static_cast<core::Command*>(node);
        break;
    }
    node = next;
  }
}

void SimNode::Stop() {
  if (log_writer_ == nullptr || dying_) return;
  trace_->Add(scheduler_->now_ns(), "stop", slot_ + 1);
  in_turn_ = true;
  core_->Finish();
  for (std::unique_ptr<core::Job>& job : store_jobs_) job->Execute();
  in_turn_ = false;
  if (dying_) return;  // Its owner hears of it.
  log_->Close();
  dying_ = true;
  TearDown();
  store_.Crash();
}

void SimNode::Wipe() {
  KW_CHECK(log_writer_ == nullptr);
  disk_.Wipe();
  store_.Wipe();
  log_record_ = {};
}

// ---- turns ---------------------------------------------------------------------------------------------

void SimNode::Submit(kw_request* request) {
  if (core_ == nullptr || dying_) return;
  auto* node = new (static_cast<void*>(request->kernel)) core::InboxNode;
  node->kind = static_cast<uint64_t>(core::InboxKind::kRequest);
  inbox_->Push(node);
  ScheduleTurn();
}

void SimNode::ScheduleTurn() {
  if (turn_scheduled_ || dying_) return;
  turn_scheduled_ = true;
  Later(random_.Between(timing.turn_min_ns, timing.turn_max_ns), [this] { Turn(); });
}

void SimNode::Turn() {
  turn_scheduled_ = false;
  in_turn_ = true;
  const bool more = core_->Turn(NowNs());
  in_turn_ = false;
  if (dying_) return;
  hooks_.turned(slot_);
  if (core_->failed()) return Fail(core_->failure());
  if (more) ScheduleTurn();
}

// The core has stopped for a reason of its own: the daemon exits then.
void SimNode::Fail(std::string why) {
  failure_ = std::move(why);
  trace_->Note(scheduler_->now_ns(), slot_ + 1, "failed: " + failure_);
  scheduler_->After(0, [this, life = life_] {
    if (life == life_) hooks_.died(slot_);
  });
}

void SimNode::ScheduleTick() {
  // A frozen clock does not fire timers; look again later.
  const bool frozen = clock_rate_ppm_ == 0;
  const uint64_t delay = frozen ? tick_ns_ : tick_ns_ * 1000 / std::max<uint64_t>(clock_rate_ppm_ / 1000, 1);
  Later(delay, [this, frozen] {
    if (!frozen) {
      Post([](core::Core& core) { core.Tick(); });
      if (++ticks_ % 2 == 0 && !flushing_ && log_->Mark()) ScheduleFlush();
      if (ticks_ % 4 == 0) log_->MakeSegments();
    }
    ScheduleTick();
  });
}

// ---- lanes ---------------------------------------------------------------------------------------------

void SimNode::Submit(core::Lane lane, std::unique_ptr<core::Job> job) {
  if (dying_) return;
  switch (lane) {
    case core::Lane::kLog: {
      auto* log_job = static_cast<core::LogJob*>(job.get());
      if (log_jobs_.empty() && log_writer_->TrySubmit(log_job)) {
        job.release();
        return;
      }
      job.release();
      log_jobs_.emplace_back(log_job);
      if (log_lane_scheduled_) return;
      log_lane_scheduled_ = true;
      Later(random_.Between(timing.turn_min_ns, timing.turn_max_ns), [this] { RunLogLane(); });
      return;
    }
    case core::Lane::kStore:
      store_jobs_.push_back(std::move(job));
      if (store_jobs_.size() == 1) RunStoreLane();
      return;
    case core::Lane::kRead: {
      const uint64_t id = next_read_++;
      read_jobs_.emplace(id, std::move(job));
      uint64_t delay_ns = IoDelay(timing.read_min_ns, timing.read_max_ns);
      if (reads_hang_until_ns > scheduler_->now_ns()) delay_ns += reads_hang_until_ns - scheduler_->now_ns();
      const bool stalls = timing.read_stall_ppm != 0 && random_.Chance(timing.read_stall_ppm);
      if (stalls) {
        delay_ns += random_.Between(50, 3000) * kMillisecond;
        hooks_.stalled();
      }
      Later(delay_ns, [this, id, stalls] {
        if (stalls) hooks_.stalled();
        const auto at = read_jobs_.find(id);
        at->second->Execute();
        if (dying_) return;
        inbox_->Push(at->second.release());
        read_jobs_.erase(at);
        ScheduleTurn();
      });
      return;
    }
  }
}

void SimNode::RunLogLane() {
  log_lane_scheduled_ = false;
  std::vector<core::LogJob*> jobs;
  for (auto& job : log_jobs_) jobs.push_back(job.release());
  log_jobs_.clear();
  log_writer_->Submit(jobs);
}

void SimNode::ScheduleFlush() {
  if (flushing_ || dying_ || !log_->BeginFlush()) return;
  flushing_ = true;
  uint64_t delay_ns = IoDelay(timing.flush_min_ns, timing.flush_max_ns);
  if (log_hangs_until_ns > scheduler_->now_ns()) {
    delay_ns = std::max(delay_ns, log_hangs_until_ns - scheduler_->now_ns() + timing.flush_min_ns);
  }
  Later(delay_ns, [this] {
    log_->EndFlush();
    flushing_ = false;
    ScheduleFlush();
  });
}

void SimNode::RunStoreLane() {
  Later(IoDelay(timing.store_min_ns, timing.store_max_ns), [this] {
    std::unique_ptr<core::Job> job = std::move(store_jobs_.front());
    job->Execute();
    if (dying_) return;
    store_jobs_.pop_front();
    inbox_->Push(job.release());
    ScheduleTurn();
    if (!store_jobs_.empty()) RunStoreLane();
  });
}

}  // namespace keyway::sim
