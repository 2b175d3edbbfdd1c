// SPDX-License-Identifier: Apache-2.0
//
// Each of these adds its commands to the tool. A parsed command sets Context::command.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "context.h"
#include "etcd/rpc.pb.h"

namespace keyway::ctl {

void AddKvCommands(CLI::App* app, Context* context);         // get, put, del, compact
void AddTxnCommand(CLI::App* app, Context* context);         // txn
void AddWatchCommand(CLI::App* app, Context* context);       // watch
void AddLeaseCommands(CLI::App* app, Context* context);      // lease ...
void AddClusterCommands(CLI::App* app, Context* context);    // member ..., endpoint ..., move-leader
void AddPluginCommands(CLI::App* app, Context* context);     // plugin ...
void AddStoreCommands(CLI::App* app, Context* context);      // store ...
void AddCompletionCommand(CLI::App* app, Context* context);  // completion bash

// The plugins of a build or an installation, beside this executable.
std::string DefaultPluginDirectory();

// The end of the range of all keys that start with `prefix`.
std::string PrefixEnd(const std::string& prefix);

// The options of get, put and del, which a line of a transaction takes too. Each adds them to `app` and
// returns a function that makes the request after the parse; an error text means invalid input.
template <typename Request>
using MakeRequest = std::function<std::string(Request*)>;

struct GetView {
  bool keys_only = false, count_only = false, values_only = false;
};
MakeRequest<etcdserverpb::RangeRequest> AddGetOptions(CLI::App* app, std::shared_ptr<GetView> view);
MakeRequest<etcdserverpb::PutRequest> AddPutOptions(CLI::App* app, bool value_from_stdin);
MakeRequest<etcdserverpb::DeleteRangeRequest> AddDeleteOptions(CLI::App* app);

// The plain form of a response, as etcdctl prints it.
void PrintSimple(const etcdserverpb::RangeResponse& response, const GetView& view, bool hex);
void PrintSimple(const etcdserverpb::PutResponse& response, bool hex);
void PrintSimple(const etcdserverpb::DeleteRangeResponse& response, bool hex);

}  // namespace keyway::ctl
