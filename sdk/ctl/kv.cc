// SPDX-License-Identifier: Apache-2.0
//
// get, put, del, compact.
#include <cstdio>
#include <iostream>
#include <iterator>

#include "client.h"
#include "commands.h"
#include "etcd/rpc.grpc.pb.h"
#include "json.h"
#include "output.h"

namespace keyway::ctl {
namespace {

const std::string kAllKeys(1, '\0');

struct RangeFlags {
  std::string key, end;
  bool prefix = false, from_key = false;

  void AddTo(CLI::App* app) {
    app->add_option("key", key, "the key, or the first of a range")->required();
    app->add_option("range_end", end, "the end of the range, which is not part of it");
    app->add_option("--range-end", end, "the same as a flag");
    app->add_flag("--prefix", prefix, "all keys that start with the key");
    app->add_flag("--from-key", from_key, "all keys from the key on, by bytes");
  }
  // Empty, or what is wrong.
  std::string Resolve(std::string* out_key, std::string* out_end) const {
    if (prefix + from_key + !end.empty() > 1)
      return "only one of range_end, --prefix and --from-key may be given";
    *out_key = key;
    *out_end = end;
    if (prefix) {
      *out_end = key.empty() ? kAllKeys : PrefixEnd(key);
    } else if (from_key) {
      *out_end = kAllKeys;
    }
    if (out_key->empty()) {
      if (out_end->empty()) return "the key is empty";
      *out_key = kAllKeys;  // The smallest key there can be.
    }
    return "";
  }
};

int RunGet(const Context& context, const etcdserverpb::RangeRequest& request, const GetView& view) {
  Client client(context);
  etcdserverpb::RangeResponse response;
  const int code = KW_CTL_CALL(client, KV, Range, request, &response);
  if (code != kOk) return client.Report(code);
  const Flags& flags = context.flags;
  if (flags.is_json()) {
    PrintJson(ToJson(response));
  } else if (flags.wants_table(false) && !view.count_only) {
    Table table({"KEY", "VALUE", "CREATE REVISION", "MOD REVISION", "VERSION", "LEASE"});
    for (const auto& pair : response.kvs()) {
      table.Add({ShownInCell(pair.key(), flags.hex), ShownInCell(pair.value(), flags.hex),
                 std::to_string(pair.create_revision()), std::to_string(pair.mod_revision()),
                 std::to_string(pair.version()),
                 pair.lease() == 0 ? "" : HexId(static_cast<uint64_t>(pair.lease()))});
    }
    Print(table.ToString());
  } else {
    PrintSimple(response, view, flags.hex);
  }
  return kOk;
}

int RunPut(const Context& context, const etcdserverpb::PutRequest& request) {
  Client client(context);
  etcdserverpb::PutResponse response;
  const int code = KW_CTL_CALL(client, KV, Put, request, &response);
  if (code != kOk) return client.Report(code);
  if (context.flags.is_json()) {
    PrintJson(ToJson(response));
  } else {
    PrintSimple(response, context.flags.hex);
  }
  return kOk;
}

int RunDelete(const Context& context, const etcdserverpb::DeleteRangeRequest& request) {
  Client client(context);
  etcdserverpb::DeleteRangeResponse response;
  const int code = KW_CTL_CALL(client, KV, DeleteRange, request, &response);
  if (code != kOk) return client.Report(code);
  if (context.flags.is_json()) {
    PrintJson(ToJson(response));
  } else {
    PrintSimple(response, context.flags.hex);
  }
  return kOk;
}

int RunCompact(const Context& context, int64_t revision, bool physical) {
  Client client(context);
  etcdserverpb::CompactionRequest request;
  request.set_revision(revision);
  request.set_physical(physical);
  etcdserverpb::CompactionResponse response;
  const int code = KW_CTL_CALL(client, KV, Compact, request, &response);
  if (code != kOk) return client.Report(code);
  if (context.flags.is_json()) {
    PrintJson({{"header", ToJson(response.header())}});
  } else {
    PrintLine("compacted revision " + std::to_string(revision));
  }
  return kOk;
}

// Runs `run(request)` once the options were parsed and make a request.
template <typename Request, typename Run>
void OnParsed(CLI::App* app, Context* context, MakeRequest<Request> make, Run run) {
  app->callback([context, make, run] {
    context->command = [make, run] {
      Request request;
      const std::string error = make(&request);
      return error.empty() ? run(request) : Fail(kInvalidInput, error);
    };
  });
}

void PrintPair(const mvccpb::KeyValue& pair, bool hex) {
  PrintLine(Shown(pair.key(), hex));
  PrintLine(Shown(pair.value(), hex));
}

}  // namespace

std::string PrefixEnd(const std::string& prefix) {
  std::string end = prefix;
  while (!end.empty() && static_cast<uint8_t>(end.back()) == 0xff) end.pop_back();
  if (end.empty()) return kAllKeys;
  end.back() = static_cast<char>(end.back() + 1);
  return end;
}

MakeRequest<etcdserverpb::RangeRequest> AddGetOptions(CLI::App* app, std::shared_ptr<GetView> view) {
  struct Options {
    RangeFlags range;
    int64_t revision = 0, limit = 0;
    std::string sort_by, order, consistency = "l";
    bool serializable = false;
  };
  auto options = std::make_shared<Options>();
  options->range.AddTo(app);
  app->add_option("--rev", options->revision, "read at this revision");
  app->add_option("--limit", options->limit, "at most this many keys");
  app->add_option("--sort-by", options->sort_by, "CREATE, KEY, MODIFY, VALUE or VERSION");
  app->add_option("--order", options->order, "ASCEND or DESCEND");
  app->add_option("--consistency", options->consistency, "l (linearizable) or s (serializable)");
  app->add_flag("--serializable", options->serializable, "what this member knows, maybe not the latest");
  app->add_flag("--keys-only", view->keys_only, "only the keys");
  app->add_flag("--count-only", view->count_only, "only the number of keys");
  app->add_flag("--print-value-only", view->values_only, "only the values");
  return [options, view](etcdserverpb::RangeRequest* request) -> std::string {
    using Request = etcdserverpb::RangeRequest;
    const std::string error = options->range.Resolve(request->mutable_key(), request->mutable_range_end());
    if (!error.empty()) return error;
    request->set_revision(options->revision);
    request->set_limit(options->limit);
    request->set_keys_only(view->keys_only);
    request->set_count_only(view->count_only);
    if (options->consistency != "l" && options->consistency != "s") return "--consistency is neither l nor s";
    request->set_serializable(options->serializable || options->consistency == "s");
    const std::string by = CLI::detail::to_lower(options->sort_by);
    const std::string order = CLI::detail::to_lower(options->order);
    if (by == "create")
      request->set_sort_target(Request::CREATE);
    else if (by == "modify" || by == "mod")
      request->set_sort_target(Request::MOD);
    else if (by == "value")
      request->set_sort_target(Request::VALUE);
    else if (by == "version")
      request->set_sort_target(Request::VERSION);
    else if (!by.empty() && by != "key")
      return "--sort-by is not one of CREATE, KEY, MODIFY, VALUE, VERSION";
    if (order == "descend")
      request->set_sort_order(Request::DESCEND);
    else if (order == "ascend" || (order.empty() && !by.empty()))
      request->set_sort_order(Request::ASCEND);
    else if (!order.empty())
      return "--order is neither ASCEND nor DESCEND";
    return "";
  };
}

MakeRequest<etcdserverpb::PutRequest> AddPutOptions(CLI::App* app, bool value_from_stdin) {
  struct Options {
    std::string key, value, lease;
    CLI::Option* value_option = nullptr;
    bool prev_kv = false, ignore_value = false, ignore_lease = false;
  };
  auto options = std::make_shared<Options>();
  app->add_option("key", options->key, "the key")->required();
  options->value_option = app->add_option("value", options->value,
                                          value_from_stdin ? "the value; without it, stdin" : "the value");
  app->add_option("--lease", options->lease, "the lease to attach, in hexadecimal");
  app->add_flag("--prev-kv", options->prev_kv, "show the pair that was there before");
  app->add_flag("--ignore-value", options->ignore_value, "keep the value that is there");
  app->add_flag("--ignore-lease", options->ignore_lease, "keep the lease that is there");
  return [options, value_from_stdin](etcdserverpb::PutRequest* request) -> std::string {
    if (options->key.empty()) return "the key is empty";
    request->set_key(options->key);
    const bool has_value = options->value_option->count() > 0;
    if (has_value && options->ignore_value) return "a value and --ignore-value are given";
    if (has_value) {
      request->set_value(options->value);
    } else if (!options->ignore_value) {
      if (!value_from_stdin) return "put needs a value";
      request->set_value(std::string(std::istreambuf_iterator<char>(std::cin), {}));
    }
    uint64_t lease = 0;
    if (!options->lease.empty() && !ParseHexId(options->lease, &lease)) {
      return "lease \"" + options->lease + "\" is not a hexadecimal number";
    }
    request->set_lease(static_cast<int64_t>(lease));
    request->set_prev_kv(options->prev_kv);
    request->set_ignore_value(options->ignore_value);
    request->set_ignore_lease(options->ignore_lease);
    return "";
  };
}

MakeRequest<etcdserverpb::DeleteRangeRequest> AddDeleteOptions(CLI::App* app) {
  struct Options {
    RangeFlags range;
    bool prev_kv = false, is_range = false;
  };
  auto options = std::make_shared<Options>();
  options->range.AddTo(app);
  app->add_flag("--prev-kv", options->prev_kv, "show the pairs that are deleted");
  app->add_flag("--range", options->is_range, "delete a range without asking whether that was meant");
  return [options](etcdserverpb::DeleteRangeRequest* request) -> std::string {
    request->set_prev_kv(options->prev_kv);
    return options->range.Resolve(request->mutable_key(), request->mutable_range_end());
  };
}

void PrintSimple(const etcdserverpb::RangeResponse& response, const GetView& view, bool hex) {
  if (view.count_only) return PrintLine(std::to_string(response.count()));
  for (const auto& pair : response.kvs()) {
    if (view.values_only) {
      PrintLine(Shown(pair.value(), hex));
    } else if (view.keys_only) {
      PrintLine(Shown(pair.key(), hex));
      PrintLine("");
    } else {
      PrintPair(pair, hex);
    }
  }
}

void PrintSimple(const etcdserverpb::PutResponse& response, bool hex) {
  PrintLine("OK");
  if (response.has_prev_kv()) PrintPair(response.prev_kv(), hex);
}

void PrintSimple(const etcdserverpb::DeleteRangeResponse& response, bool hex) {
  PrintLine(std::to_string(response.deleted()));
  for (const auto& pair : response.prev_kvs()) PrintPair(pair, hex);
}

void AddKvCommands(CLI::App* app, Context* context) {
  CLI::App* get = app->add_subcommand("get", "Read a key or a range of keys");
  auto view = std::make_shared<GetView>();
  OnParsed<etcdserverpb::RangeRequest>(get, context, AddGetOptions(get, view),
                                       [context, view](const etcdserverpb::RangeRequest& request) {
                                         return RunGet(*context, request, *view);
                                       });
  CLI::App* put = app->add_subcommand("put", "Write a key");
  OnParsed<etcdserverpb::PutRequest>(
      put, context, AddPutOptions(put, true),
      [context](const etcdserverpb::PutRequest& request) { return RunPut(*context, request); });
  CLI::App* del = app->add_subcommand("del", "Delete a key or a range of keys");
  OnParsed<etcdserverpb::DeleteRangeRequest>(
      del, context, AddDeleteOptions(del),
      [context](const etcdserverpb::DeleteRangeRequest& request) { return RunDelete(*context, request); });
  CLI::App* compact = app->add_subcommand("compact", "Forget the versions before a revision");
  compact->alias("compaction");
  auto revision = std::make_shared<int64_t>(0);
  auto physical = std::make_shared<bool>(false);
  compact->add_option("revision", *revision, "the revision")->required();
  compact->add_flag("--physical", *physical, "wait until they are gone from the store");
  compact->callback([=] { context->command = [=] { return RunCompact(*context, *revision, *physical); }; });
}

}  // namespace keyway::ctl
