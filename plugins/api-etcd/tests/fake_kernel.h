// SPDX-License-Identifier: Apache-2.0
//
// A host for the tests of api-etcd: a toy keyway.kernel/1 over std::map on a thread of its own, the
// steady clock, cells, and an identity with settable TLS material. Not durable, not replicated.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "keyway/host.h"
#include "keyway/kernel.h"

namespace keyway::api_etcd::testing {

struct FakeRecord {
  std::string key, value;
  int64_t create = 0, mod = 0, version = 0, lease = 0;
  std::string Encode() const;
};

class FakeKernel {
 public:
  FakeKernel();
  ~FakeKernel();

  const kw_host* host() { return &host_; }

  // Requests wait from now on; Resume() lets them go.
  void Pause();
  void Resume();
  void SetLeader(uint64_t leader, uint64_t lost_ns);
  void SetLearner(bool is_learner);
  void SetTls(const std::string& chain, const std::string& key, const std::string& roots,
              bool requires_certificate, const std::string& lists = "");
  // authenticate() answers this from now on, "revoked: ..."; the TLS material counts as new.
  void RefuseCertificates(const std::string& reason);
  std::string authenticate_principal;      // what authenticate() answers
  std::string last_principal();            // of the newest request
  uint64_t Cell(const std::string& name);  // "name{label=value,...}"
  size_t Lines(const std::string& event);  // How many lines of the log had this event.
  size_t open_watches();
  size_t requests_waiting();

 private:
  struct Version {
    int64_t revision = 0;
    bool is_deleted = false;
    std::shared_ptr<FakeRecord> record;
    std::shared_ptr<std::string> bytes;
  };
  struct Event {
    kw_event event = {};
    std::string key;
    std::shared_ptr<std::string> bytes, prev;
  };
  struct Watch {
    uint64_t id = 0;
    std::string key, end;
    uint32_t flags = 0;
    int64_t next_revision = 0;
    int64_t credit = 0;
    const kw_watch_sink* sink = nullptr;
    void* ctx = nullptr;
    size_t history_index = 0;
  };
  struct Reply;
  struct Delivery : kw_delivery {
    std::vector<kw_watch_batch> list;
    std::deque<std::vector<const kw_event*>> event_lists;
  };
  static bool Contains(const std::string& key, const std::string& end, const std::string& probe);
  struct TxnState {
    int64_t revision = 0;
    bool has_changed = false;
    uint32_t detail = 0;
  };

  void Run();
  void Post(std::function<void()> work);
  void Handle(kw_request* request);
  uint32_t Fill(kw_request* request, Reply* reply);
  uint32_t Range(const kw_range& range, Reply* reply, kw_op_result* out);
  void Txn(const kw_txn& txn, Reply* reply, TxnState* state, std::vector<kw_op_result>* out,
           uint32_t* succeeded);
  bool Holds(const kw_cmp& cmp);
  void Put(const kw_op& op, Reply* reply, TxnState* state, kw_op_result* out);
  void Delete(const std::string& key, const std::string& end, bool wants_prev, Reply* reply, TxnState* state,
              kw_op_result* out);
  uint32_t Lease(kw_lease_request* request, Reply* reply);
  uint32_t Member(kw_member_request* request, Reply* reply);
  const Version* Latest(const std::string& key) const;
  void AddEvent(uint32_t kind, const std::string& key, const Version& now, const Version* before);
  Delivery* DeliveryTo(const kw_watch_sink* sink);
  void PumpWatches();
  void OpenWatch(Watch watch);
  void Cancel(uint64_t id, int32_t code, uint32_t detail, int64_t compact_revision);

  kw_host host_ = {};
  kw_kernel kernel_ = {};
  kw_clock clock_ = {};
  kw_log log_ = {};
  kw_metrics metrics_ = {};
  kw_exposition exposition_ = {};
  kw_identity identity_ = {};
  kw_node_state state_ = {};

  std::mutex mutex_;
  std::condition_variable condition_;
  std::vector<std::function<void()>> queue_;
  std::vector<kw_request*> requests_;
  bool is_paused_ = false;
  bool is_stopping_ = false;
  uint64_t next_watch_ = 1;
  std::string last_principal_;
  std::map<std::string, std::unique_ptr<uint64_t>> cells_;
  std::map<std::string, size_t> lines_;
  size_t open_watches_ = 0;
  struct {
    std::string chain, key, roots, lists, refusal;
    uint32_t flags = 0;
    uint64_t generation = 0;
  } tls_;

  // Of the thread.
  int64_t revision_ = 1;
  int64_t compacted_ = 0;
  std::map<std::string, std::vector<Version>> keys_;
  std::deque<Event> history_;
  std::map<uint64_t, Watch> watches_;
  std::map<const kw_watch_sink*, std::unique_ptr<Delivery>> deliveries_;
  std::map<int64_t, int64_t> leases_;
  std::map<uint64_t, std::vector<std::string>> members_;
  std::thread thread_;
};

}  // namespace keyway::api_etcd::testing
