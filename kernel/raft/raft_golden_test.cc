// SPDX-License-Identifier: Apache-2.0
//
// Raft by the book: the scripts in golden/ play what the Raft paper (Ongaro and Ousterhout, extended
// version) and Ongaro's dissertation describe, section by section. A script is a list of
//
//   command arguments          one or more lines
//   ----
//   what is expected           up to an empty line
//
// Expected are the messages that the command made nodes send (whether or not they arrive; `elect` and `run`
// leave them out), the outcome of reads, then each node whose state has changed.
// Between all steps the cluster harness checks the invariants of Raft. Lines that begin with # are
// comments. KEYWAY_GOLDEN_REWRITE=1 writes what comes out into the scripts: read the difference then.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernel/raft/cluster_harness.h"
#include "keyway/crc32c.h"

namespace keyway::raft {
namespace {

std::filesystem::path ScriptFolder() { return std::filesystem::path(KEYWAY_RAFT_SOURCES) / "golden"; }

// One command line: its words, and those of the form name=value.
struct Command {
  std::string name;
  std::vector<std::string> words;
  std::map<std::string, std::string> named;

  NodeId Id(size_t at) const { return Number(at); }
  uint64_t Number(size_t at) const {
    if (at >= words.size()) throw std::runtime_error(name + " needs an argument " + std::to_string(at + 1));
    return std::stoull(words[at]);
  }
  uint64_t Named(const std::string& key, uint64_t otherwise) const {
    auto found = named.find(key);
    return found == named.end() ? otherwise : std::stoull(found->second);
  }
  std::vector<uint64_t> Numbers(const std::string& key) const {
    std::vector<uint64_t> numbers;
    auto found = named.find(key);
    std::istringstream list(found == named.end() ? "" : found->second);
    for (std::string number; std::getline(list, number, ',');) numbers.push_back(std::stoull(number));
    return numbers;
  }
};

Command Parse(const std::string& line) {
  Command command;
  std::istringstream words(line);
  words >> command.name;
  for (std::string word; words >> word;) {
    const size_t at = word.find('=');
    if (at == std::string::npos) {
      command.words.push_back(word);
    } else {
      command.named[word.substr(0, at)] = word.substr(at + 1);
    }
  }
  return command;
}

std::string List(const std::vector<NodeId>& ids) {
  std::string text;
  for (NodeId id : ids) text += (text.empty() ? "" : ",") + std::to_string(id);
  return text;
}

std::string At(uint64_t index, uint64_t term) {
  return std::to_string(index) + " of term " + std::to_string(term);
}

std::string Show(const Message& message) {
  std::string text = std::to_string(message.from) + " -> " + std::to_string(message.to) + " ";
  const std::string term = " term " + std::to_string(message.term);
  switch (message.kind) {
    case MessageKind::kPreVote:
    case MessageKind::kVote:
      text += message.kind == MessageKind::kVote ? "Vote" : "PreVote";
      return text + term + ", last " + At(message.index, message.log_term) +
             (message.forced ? ", forced" : "");
    case MessageKind::kPreVoteResponse:
    case MessageKind::kVoteResponse:
      text += message.kind == MessageKind::kVoteResponse ? "VoteResponse" : "PreVoteResponse";
      return text + term + (message.reject ? " no" : " yes");
    case MessageKind::kAppend:
      text += "Append" + term + ", after " + At(message.index, message.log_term) + ", commit " +
              std::to_string(message.commit) + ":";
      for (const Entry& entry : message.entries) {
        text += " " + std::to_string(entry.index) + "/" + std::to_string(entry.term);
      }
      return text;
    case MessageKind::kAppendResponse:
      text += "AppendResponse" + term;
      if (!message.reject) return text + " matches up to " + std::to_string(message.index);
      return text + " no entry " + std::to_string(message.index) + ", try " +
             At(message.hint, message.log_term) + (message.needs_snapshot ? ", needs a snapshot" : "");
    case MessageKind::kHeartbeat:
      return text + "Heartbeat" + term + ", commit " + std::to_string(message.commit);
    case MessageKind::kHeartbeatResponse:
      return text + "HeartbeatResponse" + term;
    case MessageKind::kReadIndex:
      return text + "ReadIndex" + term;
    case MessageKind::kReadIndexResponse:
      return text + "ReadIndexResponse" + term + ", index " + std::to_string(message.index) +
             (message.reject ? " no" : "");
    case MessageKind::kTimeoutNow:
      return text + "TimeoutNow" + term;
  }
  return text;
}

class Script {
 public:
  // Runs the commands and returns what they gave.
  std::string Run(const std::string& commands) {
    std::string out;
    std::istringstream lines(commands);
    for (std::string line; std::getline(lines, line);) {
      if (line.empty() || line[0] == '#') continue;
      const Command command = Parse(line);
      sent_.clear();
      const std::string said = Do(command);
      if (!said.empty()) out += said + "\n";
      if (command.name != "run" && command.name != "elect") {
        for (const std::string& message : sent_) out += message + "\n";
      }
      out += Reads() + Changes();
    }
    return out.empty() ? "nothing\n" : out;
  }

  bool failed() const { return cluster_ != nullptr && cluster_->failed(); }

 private:
  Cluster& cluster() {
    if (cluster_ == nullptr) throw std::runtime_error("the first command must be `cluster voters=N`");
    return *cluster_;
  }

  std::string Do(const Command& command) {
    const std::string& name = command.name;
    if (name == "cluster") return Start(command);
    if (name == "campaign") return cluster().Campaign(command.Id(0)), "";
    if (name == "elect") return cluster().Campaign(command.Id(0)), cluster().Settle(), "";
    if (name == "settle") return cluster().Settle(), "";
    if (name == "run") return cluster().Run(static_cast<int>(command.Number(0))), "";
    if (name == "tick") return cluster().Tick(command.Id(0), static_cast<int>(command.Number(1))), "";
    if (name == "deliver") return Deliver(command.Number(0));
    if (name == "propose") return Propose(command);
    if (name == "read") return cluster().Read(command.Id(0)), "";
    if (name == "write") return Write(command.Id(0)), "";
    if (name == "configuration") return Configure(command);
    if (name == "transfer") {
      cluster().Do(command.Id(0), [&](Raft& raft) { raft.TransferLeadership(command.Id(1)); });
      return "";
    }
    if (name == "block") return cluster().Block(command.Id(0), command.Id(1)), "";
    if (name == "unblock") return cluster().Unblock(command.Id(0), command.Id(1)), "";
    if (name == "isolate") return cluster().Isolate(command.Id(0)), "";
    if (name == "reconnect") return cluster().Reconnect(command.Id(0)), "";
    if (name == "crash") return cluster().Crash(command.Id(0)), "";
    if (name == "restart") return cluster().Restart(command.Id(0)), "";
    if (name == "hold_disk") return cluster().held_disks.insert(command.Id(0)), "";
    if (name == "release_disk") return cluster().held_disks.erase(command.Id(0)), "";
    if (name == "checkpoint") return cluster().Checkpoint(command.Id(0), command.Number(1)), "";
    if (name == "vote" || name == "prevote") return InjectVote(command);
    if (name == "append") return InjectAppend(command);
    if (name == "heartbeat") return InjectHeartbeat(command);
    throw std::runtime_error("no command is called " + name);
  }

  std::string Start(const Command& command) {
    ClusterOptions options;
    options.voters = command.Named("voters", 3);
    options.nodes = command.Named("nodes", 0);
    options.seed = command.Named("seed", 1);
    options.append_bytes_max = command.Named("append_bytes_max", 0);
    cluster_ = std::make_unique<Cluster>(options);
    cluster_->on_send = [this](const Message& message) { sent_.push_back(Show(message)); };
    seen_.clear();
    confirmed_ = refused_ = 0;
    return "";
  }

  std::string Deliver(uint64_t count) {
    uint64_t done = 0;
    while (done < count && cluster().DeliverOne(0)) ++done;
    return done == count ? "" : "only " + std::to_string(done) + " messages are under way";
  }

  std::string Propose(const Command& command) {
    const uint64_t index = cluster().Propose(command.Id(0), command.words.at(1));
    return index == 0 ? "refused" : "entry " + std::to_string(index);
  }

  // Completes what is on its way to the disk.
  void Write(NodeId id) {
    while (cluster().CompleteWrite(id)) {
    }
  }

  std::string Configure(const Command& command) {
    Configuration configuration;
    configuration.voters = command.Numbers("voters");
    configuration.learners = command.Numbers("learners");
    const uint64_t index = cluster().ProposeConfiguration(command.Id(0), configuration);
    return index == 0 ? "refused" : "entry " + std::to_string(index);
  }

  Message Head(const Command& command, MessageKind kind) {
    Message message;
    message.kind = kind;
    message.from = command.Named("from", 0);
    message.to = command.Named("to", 0);
    message.term = command.Named("term", 0);
    message.index = command.Named("index", 0);
    message.log_term = command.Named("log_term", 0);
    message.commit = command.Named("commit", 0);
    return message;
  }

  std::string InjectVote(const Command& command) {
    Message message = Head(command, command.name == "vote" ? MessageKind::kVote : MessageKind::kPreVote);
    message.forced = command.named.contains("forced");
    return Inject(std::move(message));
  }
  std::string InjectHeartbeat(const Command& command) {
    return Inject(Head(command, MessageKind::kHeartbeat));
  }
  std::string InjectAppend(const Command& command) {
    Message message = Head(command, MessageKind::kAppend);
    uint64_t index = message.index;
    for (uint64_t term : command.Numbers("entries")) {
      Entry entry;
      entry.index = ++index;
      entry.term = term;
      entry.data = SharedBytes::Copy("t" + std::to_string(term));
      entry.crc32c = kw_crc32c(0, entry.data.data(), entry.data.size());
      message.entries.push_back(std::move(entry));
    }
    return Inject(std::move(message));
  }
  // With the writes that it causes, since answers wait for them.
  std::string Inject(Message message) {
    const NodeId to = message.to;
    cluster().Inject(std::move(message));
    Write(to);
    return "";
  }

  std::string StateOf(NodeId id) {
    if (!cluster().IsUp(id)) return "down";
    Raft& raft = cluster().raft(id);
    const char* roles[] = {"follower", "pre-candidate", "candidate", "leader"};
    std::string text = roles[static_cast<size_t>(raft.role())];
    text += " term " + std::to_string(raft.term());
    if (raft.leader() != 0 && raft.leader() != id) text += " of " + std::to_string(raft.leader());
    const NodeId vote = cluster().disk(id).hard_state.vote;
    if (vote != 0) text += ", voted for " + std::to_string(vote);
    text += ", log";
    if (raft.first_index() > 1) text += " after " + std::to_string(raft.first_index() - 1);
    for (uint64_t index = raft.first_index(); index <= raft.last_index(); ++index) {
      text += " " + std::to_string(*raft.TermAt(index));
    }
    if (raft.first_index() > raft.last_index()) text += " empty";
    text += ", durable " + std::to_string(raft.durable_index()) + ", commit " +
            std::to_string(raft.commit_index());
    const Configuration& configuration = raft.configuration();
    text += ", voters " + List(configuration.voters);
    if (!configuration.learners.empty()) text += ", learners " + List(configuration.learners);
    return text;
  }

  std::string Reads() {
    std::string out;
    for (; confirmed_ < cluster().reads_confirmed(); ++confirmed_) out += "a read is confirmed\n";
    for (; refused_ < cluster().reads_failed(); ++refused_) out += "a read has failed\n";
    return out;
  }

  std::string Changes() {
    std::string out;
    for (NodeId id = 1; id <= cluster().node_count(); ++id) {
      std::string state = StateOf(id);
      if (seen_[id] == state) continue;
      out += "  " + std::to_string(id) + ": " + state + "\n";
      seen_[id] = std::move(state);
    }
    return out;
  }

  std::unique_ptr<Cluster> cluster_;
  std::vector<std::string> sent_;
  std::map<NodeId, std::string> seen_;
  uint64_t confirmed_ = 0, refused_ = 0;  // Reads that were told of.
};

class RaftGolden : public testing::TestWithParam<std::string> {};

TEST_P(RaftGolden, DoesAsTheScriptSays) {
  const std::filesystem::path path = ScriptFolder() / (GetParam() + ".txt");
  std::ifstream file(path);
  ASSERT_TRUE(file) << path;
  const bool rewrite = std::getenv("KEYWAY_GOLDEN_REWRITE") != nullptr;
  Script script;
  std::string commands, rewritten;
  int line_number = 0, steps = 0;
  for (std::string line; std::getline(file, line);) {
    ++line_number;
    rewritten += line + "\n";
    if (line != "----") {
      commands += line + "\n";
      continue;
    }
    std::string expected;
    const int at = line_number;
    while (std::getline(file, line) && !line.empty()) {
      ++line_number;
      expected += line + "\n";
    }
    ++line_number;
    std::string actual;
    ASSERT_NO_THROW(actual = script.Run(commands)) << path << ":" << at << ": " << commands;
    ASSERT_FALSE(script.failed()) << path << ":" << at << ": an invariant is violated, see above";
    if (!rewrite) {
      EXPECT_EQ(actual, expected) << path << ":" << at << ": " << commands;
    }
    rewritten += actual + "\n";
    commands.clear();
    ++steps;
  }
  EXPECT_GT(steps, 0) << path;
  if (!rewrite) return;
  rewritten += commands;
  std::ofstream(path) << rewritten;
}

std::vector<std::string> Scripts() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(ScriptFolder())) {
    if (entry.path().extension() == ".txt") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(Book, RaftGolden, testing::ValuesIn(Scripts()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace keyway::raft
