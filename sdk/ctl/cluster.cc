// SPDX-License-Identifier: Apache-2.0
//
// member ..., endpoint ..., move-leader.
#include <algorithm>
#include <future>
#include <set>

#include "client.h"
#include "commands.h"
#include "etcd/rpc.grpc.pb.h"
#include "json.h"
#include "output.h"

namespace keyway::ctl {
namespace {

std::string Joined(const google::protobuf::RepeatedPtrField<std::string>& texts) {
  std::string out;
  for (const std::string& text : texts) out += (out.empty() ? "" : ",") + text;
  return out;
}

void PrintTable(const Context& context, const Table& table) {
  Print(context.flags.wants_table(true) ? table.ToString() : table.ToLines());
}

// ---- members -----------------------------------------------------------------------------------

int RunMemberList(const Context& context, bool serializable) {
  Client client(context);
  etcdserverpb::MemberListRequest request;
  request.set_linearizable(!serializable);
  etcdserverpb::MemberListResponse response;
  const int code = KW_CTL_CALL(client, Cluster, MemberList, request, &response);
  if (code != kOk) return client.Report(code);
  if (context.flags.is_json()) {
    PrintJson(HeaderAndMembers(response));
    return kOk;
  }
  Table table({"ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"});
  for (const auto& member : response.members()) {
    table.Add({HexId(member.id()), member.name().empty() ? "unstarted" : "started", member.name(),
               Joined(member.peerurls()), Joined(member.clienturls()),
               member.islearner() ? "true" : "false"});
  }
  PrintTable(context, table);
  return kOk;
}

int RunMemberAdd(const Context& context, const std::string& name, const std::string& peer_urls,
                 bool learner) {
  Client client(context);
  etcdserverpb::MemberAddRequest request;
  for (const std::string& url : SplitCommas(peer_urls)) request.add_peerurls(url);
  request.set_islearner(learner);
  etcdserverpb::MemberAddResponse response;
  const int code = KW_CTL_CALL(client, Cluster, MemberAdd, request, &response);
  if (code != kOk) return client.Report(code);
  if (context.flags.is_json()) {
    Json out = {{"header", ToJson(response.header())}, {"member", ToJson(response.member())}};
    for (const auto& member : response.members()) out["members"].push_back(ToJson(member));
    PrintJson(out);
    return kOk;
  }
  PrintLine("Member " + HexId(response.member().id()) + " added to cluster " +
            HexId(response.header().cluster_id()));
  std::string cluster;
  for (const auto& member : response.members()) {
    for (const auto& url : member.peerurls()) {
      const std::string& shown = member.id() == response.member().id() ? name : member.name();
      cluster += (cluster.empty() ? "" : ",") + shown + "=" + url;
    }
  }
  PrintLine("");
  PrintLine("ETCD_NAME=\"" + name + "\"");
  PrintLine("ETCD_INITIAL_CLUSTER=\"" + cluster + "\"");
  PrintLine("ETCD_INITIAL_ADVERTISE_PEER_URLS=\"" + peer_urls + "\"");
  PrintLine("ETCD_INITIAL_CLUSTER_STATE=\"existing\"");
  return kOk;
}

template <typename Response>
int PrintMembersChange(const Context& context, uint64_t id, const char* what, const Response& response) {
  if (context.flags.is_json()) {
    PrintJson(HeaderAndMembers(response));
  } else {
    PrintLine("Member " + HexId(id) + " " + what + " cluster " + HexId(response.header().cluster_id()));
  }
  return kOk;
}

int RunMemberRemove(const Context& context, uint64_t id) {
  Client client(context);
  etcdserverpb::MemberRemoveRequest request;
  request.set_id(id);
  etcdserverpb::MemberRemoveResponse response;
  const int code = KW_CTL_CALL(client, Cluster, MemberRemove, request, &response);
  return code == kOk ? PrintMembersChange(context, id, "removed from", response) : client.Report(code);
}

int RunMemberUpdate(const Context& context, uint64_t id, const std::string& peer_urls) {
  Client client(context);
  etcdserverpb::MemberUpdateRequest request;
  request.set_id(id);
  for (const std::string& url : SplitCommas(peer_urls)) request.add_peerurls(url);
  etcdserverpb::MemberUpdateResponse response;
  const int code = KW_CTL_CALL(client, Cluster, MemberUpdate, request, &response);
  return code == kOk ? PrintMembersChange(context, id, "updated in", response) : client.Report(code);
}

int RunMemberPromote(const Context& context, uint64_t id) {
  Client client(context);
  etcdserverpb::MemberPromoteRequest request;
  request.set_id(id);
  etcdserverpb::MemberPromoteResponse response;
  const int code = KW_CTL_CALL(client, Cluster, MemberPromote, request, &response);
  return code == kOk ? PrintMembersChange(context, id, "promoted in", response) : client.Report(code);
}

// ---- endpoints ---------------------------------------------------------------------------------

struct EndpointFlags {
  bool cluster = false;
  int64_t revision = 0;
};

// The endpoints given, or all client URLs of the cluster. kOk, or the exit code of a reported error.
int Endpoints(const Context& context, bool cluster, std::vector<std::string>* out) {
  *out = context.flags.endpoints;
  if (!cluster) return kOk;
  Client client(context);
  etcdserverpb::MemberListResponse response;
  const int code = KW_CTL_CALL(client, Cluster, MemberList, etcdserverpb::MemberListRequest(), &response);
  if (code != kOk) return client.Report(code);
  out->clear();
  std::set<std::string> seen;
  for (const auto& member : response.members()) {
    for (const auto& url : member.clienturls()) {
      if (seen.insert(url).second) out->push_back(url);
    }
  }
  return kOk;
}

template <typename Response>
struct Answer {
  std::string endpoint, error;
  int code = kOk;
  Response response;
  std::chrono::nanoseconds took{0};
};

// Asks all endpoints at the same time; the answers are in their order.
template <typename Response, typename Ask>
std::vector<Answer<Response>> AskAll(const Context& context, const std::vector<std::string>& endpoints,
                                     Ask ask) {
  std::vector<std::future<Answer<Response>>> asked;
  for (const std::string& endpoint : endpoints) {
    asked.push_back(std::async(std::launch::async, [&context, endpoint, ask] {
      Answer<Response> answer;
      answer.endpoint = endpoint;
      Client client(context);
      const auto begin = std::chrono::steady_clock::now();
      answer.code = ask(&client, endpoint, &answer.response);
      answer.took = std::chrono::steady_clock::now() - begin;
      answer.error = client.error();
      return answer;
    }));
  }
  std::vector<Answer<Response>> answers;
  for (auto& one : asked) answers.push_back(one.get());
  return answers;
}

// Reports the failed ones; the exit code is that of the last.
template <typename Response>
int ReportFailed(const std::vector<Answer<Response>>& answers) {
  int code = kOk;
  for (const auto& answer : answers) {
    if (answer.code != kOk) code = Fail(static_cast<ExitCode>(answer.code), answer.error);
  }
  return code;
}

int RunStatus(const Context& context, const EndpointFlags& flags) {
  std::vector<std::string> endpoints;
  const int code = Endpoints(context, flags.cluster, &endpoints);
  if (code != kOk) return code;
  const auto answers = AskAll<etcdserverpb::StatusResponse>(
      context, endpoints,
      [](Client* client, const std::string& endpoint, etcdserverpb::StatusResponse* response) {
        return KW_CTL_CALL_ONE(*client, endpoint, Maintenance, Status, etcdserverpb::StatusRequest(),
                               response);
      });
  Json json = Json::array();
  Table table({"ENDPOINT", "ID", "VERSION", "DB SIZE", "IN USE", "QUOTA", "IS LEADER", "IS LEARNER",
               "RAFT TERM", "RAFT INDEX", "RAFT APPLIED INDEX", "ERRORS"});
  for (const auto& answer : answers) {
    if (answer.code != kOk) continue;
    const auto& status = answer.response;
    json.push_back({{"Endpoint", answer.endpoint}, {"Status", ToJson(status)}});
    table.Add({answer.endpoint, HexId(status.header().member_id()), status.version(),
               ByteSize(static_cast<uint64_t>(status.dbsize())),
               ByteSize(static_cast<uint64_t>(status.dbsizeinuse())),
               ByteSize(static_cast<uint64_t>(status.dbsizequota())),
               status.leader() == status.header().member_id() ? "true" : "false",
               status.islearner() ? "true" : "false", std::to_string(status.raftterm()),
               std::to_string(status.raftindex()), std::to_string(status.raftappliedindex()),
               Joined(status.errors())});
  }
  if (context.flags.is_json()) {
    PrintJson(json);
  } else {
    PrintTable(context, table);
  }
  return ReportFailed(answers);
}

int RunHashKv(const Context& context, const EndpointFlags& flags) {
  std::vector<std::string> endpoints;
  const int code = Endpoints(context, flags.cluster, &endpoints);
  if (code != kOk) return code;
  etcdserverpb::HashKVRequest request;
  request.set_revision(flags.revision);
  const auto answers = AskAll<etcdserverpb::HashKVResponse>(
      context, endpoints,
      [&request](Client* client, const std::string& endpoint, etcdserverpb::HashKVResponse* response) {
        return KW_CTL_CALL_ONE(*client, endpoint, Maintenance, HashKV, request, response);
      });
  Json json = Json::array();
  Table table({"ENDPOINT", "HASH", "HASH REVISION"});
  for (const auto& answer : answers) {
    if (answer.code != kOk) continue;
    json.push_back({{"Endpoint", answer.endpoint}, {"HashKV", ToJson(answer.response)}});
    table.Add({answer.endpoint, std::to_string(answer.response.hash()),
               std::to_string(answer.response.hash_revision())});
  }
  if (context.flags.is_json()) {
    PrintJson(json);
  } else {
    PrintTable(context, table);
  }
  return ReportFailed(answers);
}

int RunHealth(const Context& context, const EndpointFlags& flags) {
  std::vector<std::string> endpoints;
  const int code = Endpoints(context, flags.cluster, &endpoints);
  if (code != kOk) return code;
  // A linearizable read goes through a quorum: a member that answers it can serve.
  etcdserverpb::RangeRequest request;
  request.set_key("health");
  const auto answers = AskAll<etcdserverpb::RangeResponse>(
      context, endpoints,
      [&request](Client* client, const std::string& endpoint, etcdserverpb::RangeResponse* response) {
        return KW_CTL_CALL_ONE(*client, endpoint, KV, Range, request, response);
      });
  Json json = Json::array();
  Table table({"ENDPOINT", "HEALTH", "TOOK", "ERROR"});
  std::string lines;
  bool all_healthy = true;
  for (const auto& answer : answers) {
    const bool healthy = answer.code == kOk;
    all_healthy = all_healthy && healthy;
    Json one = {{"endpoint", answer.endpoint}, {"health", healthy}, {"took", Duration(answer.took)}};
    if (!healthy) one["error"] = answer.error;
    json.push_back(one);
    table.Add({answer.endpoint, healthy ? "true" : "false", Duration(answer.took), answer.error});
    lines += answer.endpoint +
             (healthy ? " is healthy: successfully committed proposal: took = " + Duration(answer.took)
                      : " is unhealthy: " + answer.error) +
             "\n";
  }
  if (context.flags.is_json()) {
    PrintJson(json);
  } else {
    Print(context.flags.wants_table(true) ? table.ToString() : lines);
  }
  return all_healthy ? kOk : Fail(kError, "unhealthy cluster");
}

int RunMoveLeader(const Context& context, uint64_t target) {
  // Only the leader can hand over: it is looked for among all endpoints.
  Client client(context);
  uint64_t leader = 0;
  std::string leader_endpoint, last_error;
  int last_code = kBadConnection;
  for (const std::string& endpoint : context.flags.endpoints) {
    etcdserverpb::StatusResponse status;
    last_code =
        KW_CTL_CALL_ONE(client, endpoint, Maintenance, Status, etcdserverpb::StatusRequest(), &status);
    if (last_code != kOk) {
      last_error = client.error();
      continue;
    }
    if (status.leader() != 0) leader = status.leader();
    if (status.leader() != 0 && status.leader() == status.header().member_id()) leader_endpoint = endpoint;
  }
  if (leader_endpoint.empty()) {
    if (leader == 0 && !last_error.empty()) return Fail(static_cast<ExitCode>(last_code), last_error);
    return Fail(kBadArguments, leader == 0 ? std::string("the cluster has no leader")
                                           : "no leader endpoint is given: the leader is " + HexId(leader));
  }
  etcdserverpb::MoveLeaderRequest request;
  request.set_targetid(target);
  etcdserverpb::MoveLeaderResponse response;
  const int code = KW_CTL_CALL_ONE(client, leader_endpoint, Maintenance, MoveLeader, request, &response);
  if (code != kOk) return client.Report(code);
  if (context.flags.is_json()) {
    PrintJson({{"header", ToJson(response.header())}});
  } else {
    PrintLine("Leadership transferred from " + HexId(leader) + " to " + HexId(target));
  }
  return kOk;
}

// A command with one member id as its argument.
CLI::App* AddWithId(CLI::App* parent, Context* context, const char* name, const char* help,
                    std::function<int(uint64_t)> run) {
  CLI::App* command = parent->add_subcommand(name, help);
  auto text = std::make_shared<std::string>();
  command->add_option("member", *text, "the member, in hexadecimal")->required();
  command->callback([context, text, run] {
    context->command = [text, run] {
      uint64_t id = 0;
      if (!ParseHexId(*text, &id))
        return Fail(kBadArguments, "member \"" + *text + "\" is not a hexadecimal number");
      return run(id);
    };
  });
  return command;
}

void AddEndpointCommand(CLI::App* parent, Context* context, const char* name, const char* help,
                        int (*run)(const Context&, const EndpointFlags&), bool with_revision) {
  CLI::App* command = parent->add_subcommand(name, help);
  auto flags = std::make_shared<EndpointFlags>();
  command->add_flag("--cluster", flags->cluster, "all members of the cluster");
  if (with_revision) command->add_option("--rev", flags->revision, "up to this revision");
  command->callback([=] { context->command = [=] { return run(*context, *flags); }; });
}

}  // namespace

void AddClusterCommands(CLI::App* app, Context* context) {
  CLI::App* member = app->add_subcommand("member", "Show and change the members of the cluster");
  member->require_subcommand(1);
  CLI::App* list = member->add_subcommand("list", "List all members");
  auto serializable = std::make_shared<bool>(false);
  list->add_flag("--serializable", *serializable, "what this member knows, maybe not the latest");
  list->callback([=] { context->command = [=] { return RunMemberList(*context, *serializable); }; });
  CLI::App* add = member->add_subcommand("add", "Add a member");
  auto name = std::make_shared<std::string>();
  auto add_urls = std::make_shared<std::string>();
  auto learner = std::make_shared<bool>(false);
  add->add_option("name", *name, "its name")->required();
  add->add_option("--peer-urls", *add_urls, "its peer URLs, with commas between")->required();
  add->add_flag("--learner", *learner, "without a vote until it is promoted");
  add->callback(
      [=] { context->command = [=] { return RunMemberAdd(*context, *name, *add_urls, *learner); }; });
  AddWithId(member, context, "remove", "Remove a member",
            [context](uint64_t id) { return RunMemberRemove(*context, id); });
  auto update_urls = std::make_shared<std::string>();
  AddWithId(member, context, "update", "Change the peer URLs of a member",
            [=](uint64_t id) { return RunMemberUpdate(*context, id, *update_urls); })
      ->add_option("--peer-urls", *update_urls, "its new peer URLs, with commas between")
      ->required();
  AddWithId(member, context, "promote", "Give a learner a vote",
            [context](uint64_t id) { return RunMemberPromote(*context, id); });

  CLI::App* endpoint = app->add_subcommand("endpoint", "Ask the members themselves");
  endpoint->require_subcommand(1);
  AddEndpointCommand(endpoint, context, "status", "State of each endpoint", RunStatus, false);
  AddEndpointCommand(endpoint, context, "health", "Whether each endpoint can serve", RunHealth, false);
  AddEndpointCommand(endpoint, context, "hashkv", "Hash of the keys of each endpoint", RunHashKv, true);
  AddWithId(app, context, "move-leader", "Hand the leadership over to a member",
            [context](uint64_t id) { return RunMoveLeader(*context, id); });
}

}  // namespace keyway::ctl
