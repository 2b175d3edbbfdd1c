// SPDX-License-Identifier: Apache-2.0
//
// txn.
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "client.h"
#include "commands.h"
#include "etcd/rpc.grpc.pb.h"
#include "json.h"
#include "output.h"
#include "txn_text.h"

namespace keyway::ctl {
namespace {

int RunTxn(const Context& context) {
  if (isatty(STDIN_FILENO)) {
    std::fputs("compares, an empty line, requests on success, an empty line, requests on failure:\n", stderr);
  }
  etcdserverpb::TxnRequest request;
  const std::string error = ParseTxn(&std::cin, &request);
  if (!error.empty()) return Fail(kInvalidInput, error);
  Client client(context);
  etcdserverpb::TxnResponse response;
  const int code = KW_CTL_CALL(client, KV, Txn, request, &response);
  if (code != kOk) return client.Report(code);
  const Flags& flags = context.flags;
  if (flags.is_json()) {
    PrintJson(ToJson(response));
    return kOk;
  }
  PrintLine(response.succeeded() ? "SUCCESS" : "FAILURE");
  for (const auto& op : response.responses()) {
    PrintLine("");
    if (op.has_response_range()) PrintSimple(op.response_range(), GetView{}, flags.hex);
    if (op.has_response_put()) PrintSimple(op.response_put(), flags.hex);
    if (op.has_response_delete_range()) PrintSimple(op.response_delete_range(), flags.hex);
  }
  return kOk;
}

}  // namespace

void AddTxnCommand(CLI::App* app, Context* context) {
  CLI::App* txn = app->add_subcommand("txn", "Run a transaction that is read from stdin");
  txn->footer(
      "Input: compares, an empty line, requests on success, an empty line, requests on failure.\n"
      "  mod(\"key\") > \"0\"\n"
      "  value(\"key\") = \"text\"\n"
      "\n"
      "  put key \"new text\"\n"
      "  get key\n"
      "\n"
      "  del key");
  txn->callback([context] { context->command = [context] { return RunTxn(*context); }; });
}

}  // namespace keyway::ctl
