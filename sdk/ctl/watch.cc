// SPDX-License-Identifier: Apache-2.0
//
// watch: prints changes until it is ended. A lost connection is opened again at the next revision.
#include <algorithm>
#include <cstdio>
#include <thread>

#include "client.h"
#include "commands.h"
#include "etcd/rpc.grpc.pb.h"
#include "json.h"
#include "output.h"

namespace keyway::ctl {
namespace {

struct WatchFlags {
  std::string key, end;
  bool prefix = false, from_key = false, prev_kv = false, progress = false;
  int64_t revision = 0;
};

void PrintEvents(const Context& context, const etcdserverpb::WatchResponse& response) {
  const bool hex = context.flags.hex;
  if (context.flags.is_json()) {
    PrintJson(ToJson(response));
  } else if (response.events().empty()) {
    PrintLine("progress notify: " + std::to_string(response.header().revision()));
  } else {
    for (const auto& event : response.events()) {
      PrintLine(event.type() == mvccpb::Event::DELETE ? "DELETE" : "PUT");
      if (event.has_prev_kv()) {
        PrintLine(Shown(event.prev_kv().key(), hex));
        PrintLine(Shown(event.prev_kv().value(), hex));
      }
      PrintLine(Shown(event.kv().key(), hex));
      PrintLine(Shown(event.kv().value(), hex));
    }
  }
  std::fflush(stdout);
}

// One connection's worth of a watch. kOk: the connection was lost after it had worked.
int RunOnce(const Context& context, Client* client, etcdserverpb::WatchCreateRequest* create,
            bool* has_worked) {
  const std::shared_ptr<grpc::Channel> channel = client->Connect();
  if (channel == nullptr) return kBadConnection;
  const auto stub = etcdserverpb::Watch::NewStub(channel);
  grpc::ClientContext call;
  const auto stream = stub->Watch(&call);
  etcdserverpb::WatchRequest request;
  *request.mutable_create_request() = *create;
  stream->Write(request);
  etcdserverpb::WatchResponse response;
  while (stream->Read(&response)) {
    *has_worked = true;
    if (response.canceled()) {
      std::string reason = response.cancel_reason();
      if (response.compact_revision() != 0) {
        if (reason.empty()) reason = "etcdserver: mvcc: required revision has been compacted";
        reason += " (compacted up to revision " + std::to_string(response.compact_revision()) + ")";
      }
      call.TryCancel();
      return Fail(kError, client->endpoint() + ": watch was canceled: " + reason);
    }
    if (response.created()) {
      // From here on nothing may be missed, even if the connection goes before the first event.
      if (create->start_revision() == 0) create->set_start_revision(response.header().revision() + 1);
      continue;
    }
    PrintEvents(context, response);
    if (!response.fragment()) {
      create->set_start_revision(std::max(create->start_revision(), response.header().revision() + 1));
    }
    if (std::ferror(stdout)) {
      call.TryCancel();
      return kError;
    }
  }
  const int code = client->Keep(stream->Finish(), client->endpoint());
  return *has_worked && code == kBadConnection ? static_cast<int>(kOk)
                                               : (code == kOk ? kOk : client->Report(code));
}

int RunWatch(const Context& context, const WatchFlags& flags) {
  etcdserverpb::WatchCreateRequest create;
  if (flags.prefix + flags.from_key + !flags.end.empty() > 1) {
    return Fail(kInvalidInput, "only one of range_end, --prefix and --from-key may be given");
  }
  const std::string zero(1, '\0');
  create.set_key(flags.key.empty() ? zero : flags.key);
  create.set_range_end(flags.prefix ? PrefixEnd(flags.key) : flags.from_key ? zero : flags.end);
  create.set_start_revision(flags.revision);
  create.set_prev_kv(flags.prev_kv);
  create.set_progress_notify(flags.progress);
  Client client(context);
  bool has_worked = false;
  auto pause = std::chrono::milliseconds(50);
  while (true) {
    bool worked_now = false;
    const int code = RunOnce(context, &client, &create, &worked_now);
    if (code == kBadConnection && !has_worked && !worked_now) return client.Report(code);
    if (code != kOk && code != kBadConnection) return code;
    has_worked |= worked_now;
    if (worked_now) {
      std::fprintf(stderr, "Connection lost (%s); watching again from revision %lld\n",
                   client.error().c_str(), static_cast<long long>(create.start_revision()));
      pause = std::chrono::milliseconds(50);
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::milliseconds(1000));
  }
}

}  // namespace

void AddWatchCommand(CLI::App* app, Context* context) {
  CLI::App* watch = app->add_subcommand("watch", "Print changes of a key or a range of keys as they come");
  auto flags = std::make_shared<WatchFlags>();
  watch->add_option("key", flags->key, "the key, or the first of a range")->required();
  watch->add_option("range_end", flags->end, "the end of the range, which is not part of it");
  watch->add_flag("--prefix", flags->prefix, "all keys that start with the key");
  watch->add_flag("--from-key", flags->from_key, "all keys from the key on, by bytes");
  watch->add_option("--rev", flags->revision, "start with the changes of this revision");
  watch->add_flag("--prev-kv", flags->prev_kv, "show the pair that was there before");
  watch->add_flag("--progress-notify", flags->progress, "show revisions that passed without a change");
  watch->callback([=] { context->command = [=] { return RunWatch(*context, *flags); }; });
}

}  // namespace keyway::ctl
