// SPDX-License-Identifier: Apache-2.0
//
// lease grant, revoke, timetolive, list, keep-alive.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <thread>

#include "client.h"
#include "commands.h"
#include "etcd/rpc.grpc.pb.h"
#include "json.h"
#include "output.h"

namespace keyway::ctl {
namespace {

std::string LeaseText(int64_t id) { return HexId(static_cast<uint64_t>(id)); }

int RunGrant(const Context& context, int64_t ttl_s) {
  Client client(context);
  etcdserverpb::LeaseGrantRequest request;
  request.set_ttl(ttl_s);
  etcdserverpb::LeaseGrantResponse response;
  const int code = KW_CTL_CALL(client, Lease, LeaseGrant, request, &response);
  if (code != kOk) return client.Report(code);
  if (context.flags.is_json()) {
    PrintJson(ToJson(response));
  } else {
    PrintLine("lease " + LeaseText(response.id()) + " granted with TTL(" + std::to_string(response.ttl()) +
              "s)");
  }
  return kOk;
}

int RunRevoke(const Context& context, int64_t id) {
  Client client(context);
  etcdserverpb::LeaseRevokeRequest request;
  request.set_id(id);
  etcdserverpb::LeaseRevokeResponse response;
  const int code = KW_CTL_CALL(client, Lease, LeaseRevoke, request, &response);
  if (code != kOk) return client.Report(code);
  if (context.flags.is_json()) {
    PrintJson({{"header", ToJson(response.header())}});
  } else {
    PrintLine("lease " + LeaseText(id) + " revoked");
  }
  return kOk;
}

int RunTimeToLive(const Context& context, int64_t id, bool with_keys) {
  Client client(context);
  etcdserverpb::LeaseTimeToLiveRequest request;
  request.set_id(id);
  request.set_keys(with_keys);
  etcdserverpb::LeaseTimeToLiveResponse response;
  const int code = KW_CTL_CALL(client, Lease, LeaseTimeToLive, request, &response);
  if (code != kOk) return client.Report(code);
  if (context.flags.is_json()) {
    PrintJson(ToJson(response));
    return kOk;
  }
  if (response.grantedttl() == 0 && response.ttl() == -1) {
    PrintLine("lease " + LeaseText(id) + " already expired");
    return kOk;
  }
  std::string line = "lease " + LeaseText(id) + " granted with TTL(" + std::to_string(response.grantedttl()) +
                     "s), remaining(" + std::to_string(response.ttl()) + "s)";
  if (with_keys) {
    line += ", attached keys([";
    for (int i = 0; i < response.keys_size(); ++i) {
      line += (i == 0 ? "" : " ") + Shown(response.keys(i), context.flags.hex);
    }
    line += "])";
  }
  PrintLine(line);
  return kOk;
}

int RunList(const Context& context) {
  Client client(context);
  etcdserverpb::LeaseLeasesResponse response;
  const int code = KW_CTL_CALL(client, Lease, LeaseLeases, etcdserverpb::LeaseLeasesRequest(), &response);
  if (code != kOk) return client.Report(code);
  if (context.flags.is_json()) {
    PrintJson(ToJson(response));
  } else if (context.flags.wants_table(true)) {
    Table table({"LEASE"});
    for (const auto& lease : response.leases()) table.Add({LeaseText(lease.id())});
    Print(table.ToString());
  } else {
    PrintLine("found " + std::to_string(response.leases_size()) + " leases");
    for (const auto& lease : response.leases()) PrintLine(LeaseText(lease.id()));
  }
  return kOk;
}

// Keeps alive over one connection, until an error or, if `once`, the first answer.
int KeepAlive(const Context& context, Client* client, int64_t id, bool once, bool* has_worked) {
  const std::shared_ptr<grpc::Channel> channel = client->Connect();
  if (channel == nullptr) return kBadConnection;
  const auto stub = etcdserverpb::Lease::NewStub(channel);
  grpc::ClientContext call;
  if (once) client->SetDeadline(&call);
  const auto stream = stub->LeaseKeepAlive(&call);
  etcdserverpb::LeaseKeepAliveRequest request;
  request.set_id(id);
  etcdserverpb::LeaseKeepAliveResponse response;
  while (stream->Write(request) && stream->Read(&response)) {
    *has_worked = true;
    if (response.ttl() <= 0) {
      call.TryCancel();
      return Fail(kError, "lease " + LeaseText(id) + " expired or revoked");
    }
    if (context.flags.is_json()) {
      PrintJson(ToJson(response));
    } else {
      PrintLine("lease " + LeaseText(id) + " keepalived with TTL(" + std::to_string(response.ttl()) + ")");
    }
    std::fflush(stdout);
    if (once) {
      call.TryCancel();
      return kOk;
    }
    // A third of the time to live leaves room for two failed rounds.
    std::this_thread::sleep_for(std::chrono::milliseconds(std::max<int64_t>(response.ttl() * 1000 / 3, 100)));
  }
  const int code = client->Keep(stream->Finish(), client->endpoint());
  return code == kOk ? kBadConnection : code;
}

int RunKeepAlive(const Context& context, int64_t id, bool once) {
  Client client(context);
  bool has_worked = false;
  while (true) {
    const int code = KeepAlive(context, &client, id, once, &has_worked);
    if (code == kOk || (code == kError && client.error().empty())) return code;
    if (code != kBadConnection || once || !has_worked) return client.Report(code);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

// A subcommand with one lease id as its argument.
CLI::App* AddWithId(CLI::App* parent, Context* context, const char* name, const char* help,
                    std::function<int(int64_t)> run) {
  CLI::App* command = parent->add_subcommand(name, help);
  auto text = std::make_shared<std::string>();
  command->add_option("lease", *text, "the lease, in hexadecimal")->required();
  command->callback([context, text, run] {
    context->command = [text, run] {
      uint64_t id = 0;
      if (!ParseHexId(*text, &id))
        return Fail(kBadArguments, "lease \"" + *text + "\" is not a hexadecimal number");
      return run(static_cast<int64_t>(id));
    };
  });
  return command;
}

}  // namespace

void AddLeaseCommands(CLI::App* app, Context* context) {
  CLI::App* lease = app->add_subcommand("lease", "Grant, keep and revoke leases");
  lease->require_subcommand(1);
  CLI::App* grant = lease->add_subcommand("grant", "Make a lease");
  auto ttl_s = std::make_shared<int64_t>(0);
  grant->add_option("ttl", *ttl_s, "its time to live, in seconds")->required();
  grant->callback([=] { context->command = [=] { return RunGrant(*context, *ttl_s); }; });
  AddWithId(lease, context, "revoke", "End a lease and delete its keys",
            [context](int64_t id) { return RunRevoke(*context, id); });
  auto with_keys = std::make_shared<bool>(false);
  AddWithId(lease, context, "timetolive", "Show what is left of a lease", [=](int64_t id) {
    return RunTimeToLive(*context, id, *with_keys);
  })->add_flag("--keys", *with_keys, "the keys that are attached to it");
  CLI::App* list = lease->add_subcommand("list", "List all leases");
  list->callback([context] { context->command = [context] { return RunList(*context); }; });
  auto once = std::make_shared<bool>(false);
  AddWithId(lease, context, "keep-alive", "Keep a lease alive until interrupted", [=](int64_t id) {
    return RunKeepAlive(*context, id, *once);
  })->add_flag("--once", *once, "only once");
}

}  // namespace keyway::ctl
