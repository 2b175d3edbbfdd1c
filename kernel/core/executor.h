// SPDX-License-Identifier: Apache-2.0
//
// Executor: where work that may block runs. [core] submits a job to a lane; the lane's thread executes
// it; then [core] completes it. The daemon has real threads (threads.h), the simulator runs jobs when
// its schedule says so. Jobs of the log lane and of the store lane run one after another in the order
// submitted; jobs of the read lane run at the same time and end in any order.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "kernel/core/inbox.h"

namespace keyway::core {

enum class Lane : uint8_t { kLog, kStore, kRead };

// Kinds of nodes in the core's inbox.
enum class InboxKind : uint64_t {
  kRequest = 1,  // A kw_request, through its `kernel` words.
  kJob = 2,      // A Job that was executed.
  kCommand = 3,  // A Command.
};

class Job : public InboxNode {
 public:
  Job() { kind = static_cast<uint64_t>(InboxKind::kJob); }
  virtual ~Job() = default;
  virtual void Execute() = 0;   // On the lane's thread.
  virtual void Complete() = 0;  // On [core].
};

// A job from two functions.
class FunctionJob : public Job {
 public:
  FunctionJob(std::function<void()> execute, std::function<void()> complete)
      : execute_(std::move(execute)), complete_(std::move(complete)) {}
  void Execute() override { execute_(); }
  void Complete() override { complete_(); }

 private:
  std::function<void()> execute_, complete_;
};

// A function to be run on [core], from any thread.
class Command : public InboxNode {
 public:
  explicit Command(std::function<void()> run) : run_(std::move(run)) {
    kind = static_cast<uint64_t>(InboxKind::kCommand);
  }
  void Run() { run_(); }

 private:
  std::function<void()> run_;
};

class Executor {
 public:
  virtual ~Executor() = default;
  virtual void Submit(Lane lane, std::unique_ptr<Job> job) = 0;
};

}  // namespace keyway::core
