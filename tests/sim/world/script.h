// SPDX-License-Identifier: Apache-2.0
//
// One client that does one thing after another, for tests that know what they want to ask. It stays with a
// request until it has an answer or the node is gone, and remembers every write that was acknowledged.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "tests/sim/history/convert.h"
#include "tests/sim/world/cluster.h"

namespace keyway::sim {

class Script final : public Clients {
 public:
  explicit Script(Cluster* cluster) : cluster_(cluster) { cluster->SetClients(this); }

  // Each runs the world until there is an answer, at most for `limit_ns`. True if it was OK.
  bool Put(size_t node, const std::string& key, const std::string& value, uint64_t limit_ns = 20 * kSecond);
  bool Remove(size_t node, const std::string& key);
  bool Compact(size_t node, int64_t revision);
  // Adds a learner that will listen there.
  bool AddLearner(size_t node, const std::string& peer_url);
  // A linearizable read of all keys; what is there by key.
  std::optional<std::map<std::string, std::string>> ReadAll(size_t node, uint64_t limit_ns = 20 * kSecond);
  // What acknowledged writes have made of the keys. A key with a write of unknown outcome has none.
  const std::map<std::string, std::string>& acknowledged() const { return acknowledged_; }
  // "" or the acknowledged key that `found` does not have, or has with another value.
  std::string Missing(const std::map<std::string, std::string>& found) const;
  int64_t last_revision() const { return last_revision_; }

  void OnNodeDown(size_t slot) override;
  void BeginSettle() override {}
  bool IsSettled() const override { return true; }
  std::string Unsettled() const override { return ""; }

 private:
  struct Flight {
    std::unique_ptr<RequestHolder> holder;
    size_t node = 0;
    bool has_answer = false, is_lost = false;
    int32_t code = KW_OK;
    Response response;
  };
  // The answer, or null: the node died, or the limit passed.
  std::shared_ptr<Flight> Ask(size_t node, Request request, uint64_t limit_ns);

  Cluster* const cluster_;
  std::map<uint64_t, std::shared_ptr<Flight>> flights_;  // With those that nobody waits for any more.
  uint64_t next_flight_ = 1;
  std::map<std::string, std::string> acknowledged_;
  int64_t last_revision_ = 0;
};

}  // namespace keyway::sim
