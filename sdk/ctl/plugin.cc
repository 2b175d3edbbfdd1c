// SPDX-License-Identifier: Apache-2.0
//
// plugin list, plugin inspect: of files, and of a running node. Of files, nothing is loaded without --load, and then in a child process: a library
// that crashes or hangs while it is loaded is reported, not suffered.
#include <dirent.h>
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "commands.h"
#include "http_get.h"
#include "json.h"
#include "keyway/abi.h"
#include "manifest.h"
#include "output.h"

namespace keyway::ctl {
namespace {

constexpr int kLoadTimeoutMs = 5000;
constexpr size_t kSchemaBytesMax = 1 << 20;

std::string Joined(const std::vector<std::string>& texts) {
  std::string out;
  for (const std::string& text : texts) out += (out.empty() ? "" : ", ") + text;
  return out;
}

Json ToJson(const std::string& path, const Manifest& manifest) {
  return {{"file", path},
          {"id", manifest.id},
          {"version", manifest.version},
          {"abi", manifest.abi},
          {"license", manifest.license},
          {"stability", manifest.stability},
          {"provides", manifest.provides},
          {"needs", manifest.needs}};
}

int RunList(const Context& context, const std::string& given) {
  const std::string directory = given.empty() ? DefaultPluginDirectory() : given;
  DIR* open_directory = opendir(directory.c_str());
  if (open_directory == nullptr) {
    return Fail(kError, "cannot read the directory \"" + directory + "\": " + std::strerror(errno));
  }
  std::vector<std::string> names;
  while (const dirent* entry = readdir(open_directory)) {
    const std::string name = entry->d_name;
    if (name.size() > 3 && name.substr(name.size() - 3) == ".so") names.push_back(name);
  }
  closedir(open_directory);
  std::sort(names.begin(), names.end());
  Json json = Json::array();
  Table table({"ID", "VERSION", "ABI", "STABILITY", "LICENSE", "PROVIDES", "FILE"});
  int code = kOk;
  for (const std::string& name : names) {
    Manifest manifest;
    const std::string path = directory + "/" + name;
    const std::string error = ReadManifest(path, &manifest);
    if (!error.empty()) {
      code = Fail(kError, path + ": " + error);
      continue;
    }
    json.push_back(ToJson(path, manifest));
    table.Add({manifest.id, manifest.version, manifest.abi, manifest.stability, manifest.license,
               Joined(manifest.provides), name});
  }
  if (context.flags.is_json()) {
    PrintJson(json);
  } else {
    Print(context.flags.wants_table(true) ? table.ToString() : table.ToLines());
  }
  return code;
}

std::string Text(const char* maybe_text) { return maybe_text == nullptr ? "" : maybe_text; }

// In the child: loads the library and describes the options of its plugins.
Json LoadSchema(const std::string& path) {
  // A name without a slash would be looked for in the library path.
  const std::string file = path.find('/') == std::string::npos ? "./" + path : path;
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return {{"error", dlerror()}};
  using Entry = const kw_entry* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(library, KW_PLUGIN_ENTRY_SYMBOL));
  if (entry == nullptr) return {{"error", "the library has no " KW_PLUGIN_ENTRY_SYMBOL}};
  const kw_entry* table = entry();
  if (table == nullptr || table->size < sizeof(kw_entry))
    return {{"error", "the entry function gives no table"}};
  if (table->abi_major != KW_ABI_MAJOR) {
    return {{"error", "the library has ABI major " + std::to_string(table->abi_major) + ", this tool " +
                          std::to_string(KW_ABI_MAJOR)}};
  }
  Json plugins = Json::array();
  for (size_t i = 0; i < table->plugin_count && i < 64; ++i) {
    const kw_descriptor& descriptor = *table->plugins[i];
    Json fields = Json::array();
    for (size_t j = 0; j < descriptor.field_count && j < 1024; ++j) {
      const kw_config_field& field = descriptor.fields[j];
      Json one = {{"key", Text(field.key)}, {"type", Text(field.type)}};
      one["default"] = field.fallback == nullptr ? Json(nullptr) : Json(field.fallback);
      one["doc"] = Text(field.doc);
      fields.push_back(one);
    }
    plugins.push_back(
        {{"id", Text(descriptor.id)}, {"version", Text(descriptor.version)}, {"options", fields}});
  }
  return {{"plugins", plugins}};
}

// Runs LoadSchema in a child. An error text, or the child's answer.
std::string LoadInChild(const std::string& path, Json* out) {
  int pipe_fds[2];
  if (pipe(pipe_fds) != 0) return std::strerror(errno);
  const pid_t child = fork();
  if (child < 0) return std::strerror(errno);
  if (child == 0) {
    close(pipe_fds[0]);
    const std::string text = LoadSchema(path).dump(-1, ' ', false, Json::error_handler_t::replace);
    for (size_t at = 0; at < text.size();) {
      const ssize_t written = write(pipe_fds[1], text.data() + at, text.size() - at);
      if (written <= 0) break;
      at += static_cast<size_t>(written);
    }
    _exit(0);
  }
  close(pipe_fds[1]);
  std::string text;
  bool in_time = true;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kLoadTimeoutMs);
  while (text.size() < kSchemaBytesMax) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd polled = {pipe_fds[0], POLLIN, 0};
    in_time = left.count() > 0 && poll(&polled, 1, static_cast<int>(left.count())) > 0;
    char bytes[4096];
    const ssize_t got = in_time ? read(pipe_fds[0], bytes, sizeof(bytes)) : 0;
    if (got <= 0) break;
    text.append(bytes, static_cast<size_t>(got));
  }
  close(pipe_fds[0]);
  if (!in_time) kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  if (!in_time) return "loading it took longer than 5 s";
  if (WIFSIGNALED(status)) return std::string("loading it crashed: ") + strsignal(WTERMSIG(status));
  *out = Json::parse(text, nullptr, false);
  if (out->is_discarded()) return "loading it ended the process";
  if (out->contains("error")) return (*out)["error"].get<std::string>();
  return "";
}

int RunInspect(const Context& context, const std::string& path, bool load) {
  Manifest manifest;
  const std::string error = ReadManifest(path, &manifest);
  if (!error.empty()) return Fail(kError, path + ": " + error);
  Json schema;
  if (load) {
    const std::string load_error = LoadInChild(path, &schema);
    if (!load_error.empty()) return Fail(kError, path + ": " + load_error);
  }
  if (context.flags.is_json()) {
    Json out = ToJson(path, manifest);
    if (load) out["plugins"] = schema["plugins"];
    PrintJson(out);
    return kOk;
  }
  Table table({"FIELD", "VALUE"});
  table.Add({"id", manifest.id});
  table.Add({"version", manifest.version});
  table.Add({"abi", manifest.abi});
  table.Add({"license", manifest.license});
  table.Add({"stability", manifest.stability});
  table.Add({"provides", Joined(manifest.provides)});
  table.Add({"needs", Joined(manifest.needs)});
  const bool as_table = context.flags.wants_table(true);
  Print(as_table ? table.ToString() : table.ToLines());
  if (!load) return kOk;
  for (const Json& plugin : schema["plugins"]) {
    Table options({"OPTION", "TYPE", "DEFAULT", "MEANING"});
    for (const Json& field : plugin["options"]) {
      options.Add({field["key"], field["type"],
                   field["default"].is_null() ? "(required)" : field["default"].get<std::string>(),
                   field["doc"]});
    }
    PrintLine("");
    PrintLine("options of " + plugin["id"].get<std::string>() + ":");
    Print(as_table ? options.ToString() : options.ToLines());
  }
  return kOk;
}

// ---- of a running node -----------------------------------------------------------------------------

// Fetches GET /keyway/plugins of the first endpoint that answers.
int FetchRunning(const Context& context, Json* out) {
  std::string reasons;
  for (const std::string& endpoint : context.flags.endpoints) {
    std::string body, error;
    const int code = HttpGet(context, endpoint, "/keyway/plugins", &body, &error);
    if (code == kOk) {
      *out = Json::parse(body, nullptr, false);
      if (out->is_object() && (*out)["plugins"].is_array()) return kOk;
      return Fail(kError, "endpoint " + endpoint + ": /keyway/plugins is not what this tool understands");
    }
    reasons += (reasons.empty() ? "" : "; ") + error;
  }
  return Fail(kBadConnection, reasons);
}

std::string JoinedJson(const Json& texts) {
  if (!texts.is_array()) return texts.is_string() ? texts.get<std::string>() : texts.dump();
  return Joined(texts.get<std::vector<std::string>>());
}

int RunListRunning(const Context& context) {
  Json json;
  if (const int code = FetchRunning(context, &json); code != kOk) return code;
  if (context.flags.is_json()) {
    PrintJson(json);
    return kOk;
  }
  Table table({"SECTION", "ID", "VERSION", "ABI", "STABILITY", "LICENSE", "PROVIDES"});
  for (const Json& plugin : json["plugins"]) {
    table.Add({plugin.value("section", ""), plugin.value("id", ""), plugin.value("version", ""),
               plugin.value("abi", ""), plugin.value("stability", ""), plugin.value("license", ""),
               JoinedJson(plugin["provides"])});
  }
  Print(context.flags.wants_table(true) ? table.ToString() : table.ToLines());
  return kOk;
}

// `name` is a section such as "storage" or "api[1]", or an id.
int RunInspectRunning(const Context& context, const std::string& name) {
  Json json;
  if (const int code = FetchRunning(context, &json); code != kOk) return code;
  const bool as_table = context.flags.wants_table(true);
  std::string names;
  for (const Json& plugin : json["plugins"]) {
    const std::string section = plugin.value("section", ""), id = plugin.value("id", "");
    names += (names.empty() ? "" : ", ") + section + " (" + id + ")";
    if (name != section && name != id) continue;
    if (context.flags.is_json()) {
      PrintJson(plugin);
      return kOk;
    }
    Table table({"FIELD", "VALUE"});
    for (const char* key : {"section", "id", "version", "abi", "license", "stability", "provides", "needs"}) {
      table.Add({key, plugin.contains(key) ? JoinedJson(plugin[key]) : ""});
    }
    Print(as_table ? table.ToString() : table.ToLines());
    Table options({"OPTION", "VALUE", "FROM"});
    for (const Json& option : plugin["options"]) {
      const uint64_t line = option.value("line", uint64_t{0});
      options.Add({option.value("key", ""), JoinedJson(option["value"]),
                   line == 0 ? "default" : "line " + std::to_string(line)});
    }
    PrintLine("");
    PrintLine("options in effect:");
    Print(as_table ? options.ToString() : options.ToLines());
    return kOk;
  }
  return Fail(kError, "the node runs no plugin \"" + name + "\"; it runs " + names);
}

}  // namespace

std::string DefaultPluginDirectory() {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof(path));
  std::string directory(path, size > 0 ? static_cast<size_t>(size) : 0);
  for (int i = 0; i < 2; ++i) directory = directory.substr(0, directory.rfind('/'));
  return directory + "/lib/keyway/plugins";
}

void AddPluginCommands(CLI::App* app, Context* context) {
  CLI::App* plugin = app->add_subcommand("plugin", "What plugin libraries say about themselves");
  plugin->require_subcommand(1);
  CLI::App* list = plugin->add_subcommand("list", "List the plugins of a directory");
  auto directory = std::make_shared<std::string>();
  list->add_option("directory", *directory, "default: ../lib/keyway/plugins beside this tool");
  auto list_running = std::make_shared<bool>(false);
  list->add_flag("--running", *list_running, "those of the node behind --endpoints");
  list->callback([=] {
    context->command = [=] {
      return *list_running ? RunListRunning(*context) : RunList(*context, *directory);
    };
  });
  CLI::App* inspect = plugin->add_subcommand("inspect", "Show one plugin");
  auto path = std::make_shared<std::string>();
  auto load = std::make_shared<bool>(false);
  inspect->add_option("file", *path, "the library; with --running a section or an id")->required();
  auto inspect_running = std::make_shared<bool>(false);
  inspect->add_flag("--running", *inspect_running, "of the node behind --endpoints, with options in effect");
  inspect->add_flag("--load", *load, "load it, in a child process, and show its options too");
  inspect->callback([=] {
    context->command = [=] {
      return *inspect_running ? RunInspectRunning(*context, *path) : RunInspect(*context, *path, *load);
    };
  });
}

}  // namespace keyway::ctl
