// SPDX-License-Identifier: Apache-2.0
//
// The kernel's schema, and the rules between its options.
#include "kernel/config/config.h"

#include <algorithm>

namespace keyway {
namespace {

constexpr kw_config_field kNodeFields[] = {
    {"name", "string", nullptr, "this node's name, one of [cluster.members]"},
    {"data_dir", "path", "keyway-data", "where plugins keep their files"},
    {"advertise_client_urls", "strings", "[]", "told to clients; empty: what [[api]] listens on"},
};
constexpr kw_config_field kClusterFields[] = {
    {"token", "string", "keyway-cluster", "members with another token are refused"},
    {"state", "enum(new|existing)", "new", "existing: join a cluster that knows this member"},
};
constexpr kw_config_field kRaftFields[] = {
    {"heartbeat_interval", "duration(1..10000)", "100ms", "between heartbeats of the leader"},
    {"election_timeout", "duration(10..50000)", "1000ms", "without a heartbeat until an election"},
    {"log_entries_kept", "int(0..100000000)", "5000", "for followers that lag; more need a snapshot"},
};
constexpr kw_config_field kLimitsFields[] = {
    {"request_bytes_max", "bytes(1KiB..3MiB)", "1.5MiB", "largest write request"},
    {"txn_ops_max", "int(1..100000)", "128", "operations of one transaction"},
    {"quota_bytes", "bytes(0..1024TiB)", "2GiB", "size of the store that raises the alarm; 0: none"},
};
constexpr kw_config_field kCacheFields[] = {
    {"bytes", "bytes(1MiB..1TiB)", "64MiB", "memory for records that were read or written"},
};
constexpr kw_config_field kCheckFields[] = {
    {"digest_interval", "duration(0..86400000)", "60s",
     "between two comparisons of the members' state, each with a full read of the store; 0s: none"},
    {"level", "enum(off|cheap|full)", "cheap", "how closely plugins are held to the ABI; full is for tests"},
    {"deadline_core_warn", "duration(25..60000)", "50ms", "a call on the core thread that is logged"},
    {"deadline_warn", "duration(25..3600000)", "5s", "any other call or completion that is logged"},
    {"deadline_stop", "duration(100..86400000)", "60s", "a call or completion that ends the node"},
    {"deadline_control_stop", "duration(100..86400000)", "10m", "the same for start, stop and recovery"},
};
constexpr kw_config_field kTransportFields[] = {
    {"listen_urls", "strings", "[]", "where peers connect; empty: this node's URLs in the members"},
};

struct KernelSchema {
  std::string_view name;
  std::span<const kw_config_field> fields;
};
constexpr KernelSchema kKernelSchemas[] = {{"node", kNodeFields},   {"cluster", kClusterFields},
                                           {"raft", kRaftFields},   {"limits", kLimitsFields},
                                           {"cache", kCacheFields}, {"check", kCheckFields}};

// In starting order.
struct PluginKind {
  std::string_view name;
  std::string_view fallback;  // The plugin of a section that names none; empty: it must.
  bool is_list;
  bool is_required;
};
constexpr PluginKind kPluginKinds[] = {{"auth", "", false, false},
                                       {"storage", "storage-lmdb", false, true},
                                       {"log", "log-segmented", false, true},
                                       {"transport", "transport-tcp", false, true},
                                       {"metrics", "", true, false},
                                       {"api", "", true, false}};
constexpr size_t kListSectionsMax = 16;
constexpr size_t kMembersMax = 64;

const PluginKind* KindOf(std::string_view name) {
  for (const PluginKind& kind : kPluginKinds) {
    if (kind.name == name) return &kind;
  }
  return nullptr;
}

std::vector<std::string> SectionNames() {
  std::vector<std::string> names;
  for (const KernelSchema& schema : kKernelSchemas) names.emplace_back(schema.name);
  for (const PluginKind& kind : kPluginKinds) names.emplace_back(kind.name);
  return names;
}

// The bounds of names match what etcd accepts plus a length.
bool IsPeerUrl(std::string_view url) {
  for (std::string_view scheme : {"http://", "https://"}) {
    if (!url.starts_with(scheme)) continue;
    url.remove_prefix(scheme.size());
    const size_t colon = url.rfind(':');
    if (colon == std::string_view::npos || colon == 0) return false;
    std::string_view port = url.substr(colon + 1);
    if (port.empty() || port.size() > 5) return false;
    uint32_t number = 0;
    for (char c : port) {
      if (c < '0' || c > '9') return false;
      number = number * 10 + static_cast<uint32_t>(c - '0');
    }
    return number >= 1 && number <= 65535 && url.find('/') == std::string_view::npos;
  }
  return url.starts_with("unix://") || url.starts_with("unixs://");
}

class Checker {
 public:
  Checker(const Document& document, Config* config, std::vector<ConfigError>* errors)
      : document_(document), config_(*config), errors_(*errors) {}

  void Check() {
    CheckSectionNames();
    for (const KernelSchema& schema : kKernelSchemas) CheckKernelSection(schema);
    TakeValues();
    CheckPluginSections();
    CheckMembers();
    CheckRules();
  }

 private:
  void Fail(SourcePlace place, std::string message) { errors_.push_back({place, std::move(message)}); }

  const RawSection* Section(std::string_view name) const {
    for (const RawSection& section : document_.sections) {
      if (section.name == name) return &section;
    }
    return nullptr;
  }

  SourcePlace PlaceOf(std::string_view section, std::string_view key) const {
    const RawSection* raw = Section(section);
    if (raw == nullptr) return {};
    for (const RawValue& value : raw->values) {
      if (value.key == key) return value.place;
    }
    return raw->place;
  }

  // Unknown sections, and [x] where [[x]] is meant or the other way round.
  void CheckSectionNames() {
    const std::vector<std::string> names = SectionNames();
    for (const RawSection& section : document_.sections) {
      if (std::find(names.begin(), names.end(), section.name) == names.end()) {
        Fail(section.place, "unknown section [" + section.name + "]" + DidYouMean(section.name, names));
        continue;
      }
      const PluginKind* kind = KindOf(section.name);
      const bool is_list = kind != nullptr && kind->is_list;
      if (is_list != section.is_element) {
        Fail(section.place, section.name + ": expected " + Header(section.name, is_list) + ", got " +
                                Header(section.name, section.is_element));
      }
    }
  }
  static std::string Header(std::string_view name, bool is_list) {
    return (is_list ? "[[" : "[") + std::string(name) + (is_list ? "]]" : "]");
  }

  void CheckKernelSection(const KernelSchema& schema) {
    const RawSection* found = Section(schema.name);
    if (found == nullptr && schema.name == "node") {
      Fail({}, "the section [node] is missing; add:\n  [node]\n  name = \"a\"");
      return;
    }
    RawSection section;
    section.label = schema.name;
    if (found != nullptr) section = *found;
    // The members are a table of names, not of options.
    std::erase_if(section.values, [&](const RawValue& value) {
      return schema.name == "cluster" && value.path.front() == "members";
    });
    config_.kernel_sections.push_back(
        {std::string(schema.name), CheckSection(section, schema.fields, {}, {}, &errors_)});
  }

  void TakeValues() {
    auto options = [&](std::string_view label) -> const Options& {
      static const Options kNone;
      for (const Config::KernelSection& section : config_.kernel_sections) {
        if (section.label == label) return section.options;
      }
      return kNone;
    };
    auto number = [&](std::string_view label, std::string_view key) {
      return static_cast<uint64_t>(options(label).Number(key));
    };
    config_.name = options("node").Text("name");
    config_.data_dir = options("node").Text("data_dir");
    config_.advertise_client_urls = options("node").Strings("advertise_client_urls");
    config_.cluster_token = options("cluster").Text("token");
    config_.join_existing = options("cluster").Text("state") == "existing";
    config_.heartbeat_ms = number("raft", "heartbeat_interval");
    config_.election_ms = number("raft", "election_timeout");
    config_.log_entries_kept = number("raft", "log_entries_kept");
    config_.request_bytes_max = number("limits", "request_bytes_max");
    config_.txn_ops_max = number("limits", "txn_ops_max");
    config_.quota_bytes = number("limits", "quota_bytes");
    config_.cache_bytes = number("cache", "bytes");
    config_.digest_interval_ms = number("check", "digest_interval");
    config_.check_level = options("check").Text("level");
    config_.check_core_warn_ms = number("check", "deadline_core_warn");
    config_.check_warn_ms = number("check", "deadline_warn");
    config_.check_stop_ms = number("check", "deadline_stop");
    config_.check_control_stop_ms = number("check", "deadline_control_stop");
  }

  void CheckPluginSections() {
    for (const PluginKind& kind : kPluginKinds) {
      size_t count = 0;
      for (const RawSection& section : document_.sections) {
        if (section.name != kind.name) continue;
        if (++count > kListSectionsMax) {
          Fail(section.place,
               section.label + ": more than " + std::to_string(kListSectionsMax) + " sections of this kind");
          break;
        }
        AddPlugin(kind, section);
      }
      if (count == 0 && kind.is_required) {
        RawSection empty;
        empty.name = empty.label = kind.name;
        AddPlugin(kind, empty);
      }
    }
  }

  void AddPlugin(const PluginKind& kind, const RawSection& raw) {
    PluginSection section;
    section.kind = kind.name;
    section.label = raw.label;
    section.plugin = kind.fallback;
    section.place = raw.place;
    section.raw = raw;
    for (const RawValue& value : raw.values) {
      if (value.key != "plugin") continue;
      section.place = value.key_place;
      section.plugin = value.text;
      // Nothing is searched: a name is a file of the one plugin folder.
      const bool is_name = !value.text.empty() && value.text.size() <= 128 &&
                           value.text.find('/') == std::string::npos && value.text[0] != '.';
      const bool is_path = value.text.starts_with('/') && value.text.size() <= 4096;
      if (value.kind != RawValue::Kind::kString || (!is_name && !is_path) ||
          value.text.find('\0') != std::string::npos) {
        Fail(value.place,
             raw.label + ".plugin: expected a plugin's name or an absolute path, got " + value.Shown());
        return;
      }
    }
    if (section.plugin.empty()) {
      Fail(raw.place, raw.label + ".plugin: missing; expected a plugin's name or an absolute path");
      return;
    }
    config_.plugins.push_back(std::move(section));
  }

  void CheckMembers() {
    if (const RawSection* cluster = Section("cluster")) {
      for (const RawValue& value : cluster->values) {
        if (value.path.front() == "members") CheckMember(value);
      }
    }
    if (config_.name.empty()) return;
    auto self = std::find_if(config_.members.begin(), config_.members.end(),
                             [&](const MemberConfig& member) { return member.name == config_.name; });
    if (self == config_.members.end()) {
      Fail(Section("cluster") != nullptr ? Section("cluster")->place : SourcePlace{},
           "cluster.members: this node is missing; add:\n  [cluster.members]\n  " + KeyToml(config_.name) +
               " = \"http://127.0.0.1:2380\"");
      return;
    }
    config_.listen_peer_urls = ListenUrls();
    if (config_.listen_peer_urls.empty()) config_.listen_peer_urls = self->urls;
  }

  void CheckMember(const RawValue& value) {
    const std::string label = "cluster." + value.key;
    const bool is_string = value.kind == RawValue::Kind::kString;
    if (value.path.size() != 2 || (!is_string && value.kind != RawValue::Kind::kStrings)) {
      Fail(value.place,
           label + ": expected NAME = \"http://HOST:PORT\" or an array of such URLs, got " + value.Shown());
      return;
    }
    MemberConfig member;
    member.name = value.path[1];
    member.urls = is_string ? std::vector<std::string>{value.text} : value.elements;
    if (member.name.empty()) Fail(value.key_place, label + ": a member needs a name");
    if (member.urls.empty()) Fail(value.place, label + ": expected at least one URL, got []");
    for (const std::string& url : member.urls) {
      if (!IsPeerUrl(url)) {
        Fail(value.place, label + ": expected a URL such as \"http://10.0.0.1:2380\", got " + QuoteToml(url));
      }
      for (const MemberConfig& other : config_.members) {
        if (std::find(other.urls.begin(), other.urls.end(), url) != other.urls.end()) {
          Fail(value.place,
               label + ": " + QuoteToml(url) + " is also a URL of member " + QuoteToml(other.name));
        }
      }
    }
    if (config_.members.size() == kMembersMax) {
      Fail(value.key_place, label + ": more than " + std::to_string(kMembersMax) + " members");
    }
    auto at = std::lower_bound(
        config_.members.begin(), config_.members.end(), member.name,
        [](const MemberConfig& other, const std::string& name) { return other.name < name; });
    config_.members.insert(at, std::move(member));
  }

  // [transport] listen_urls, which is the kernel's own key in a plugin's section.
  std::vector<std::string> ListenUrls() {
    const RawSection* transport = Section("transport");
    if (transport == nullptr) return {};
    RawSection own = *transport;
    std::erase_if(own.values, [](const RawValue& value) { return value.key != "listen_urls"; });
    const Options options = CheckSection(own, kTransportFields, {}, {}, &errors_);
    for (const std::string& url : options.Strings("listen_urls")) {
      if (!IsPeerUrl(url)) {
        Fail(PlaceOf("transport", "listen_urls"),
             "transport.listen_urls: expected a URL such as \"http://0.0.0.0:2380\", got " + QuoteToml(url));
      }
    }
    return options.Strings("listen_urls");
  }

  void CheckRules() {
    // etcd's rule; a shorter timeout elects again because of a single late heartbeat.
    if (config_.heartbeat_ms != 0 && config_.election_ms != 0 &&
        config_.election_ms < 5 * config_.heartbeat_ms) {
      Fail(PlaceOf("raft", "election_timeout"),
           "raft.election_timeout: expected at least five times raft.heartbeat_interval (" +
               std::to_string(config_.heartbeat_ms) + "ms), got " + std::to_string(config_.election_ms) +
               "ms");
    }
    CheckTlsUrls();
  }

  // An encrypted port without a plugin that has the certificates would be noticed only at the start.
  void CheckTlsUrls() {
    if (Section("auth") != nullptr) return;
    for (const RawSection& section : document_.sections) {
      const bool is_peer = section.name == "cluster" || section.name == "transport";
      if (!is_peer && section.name != "api") continue;
      for (const RawValue& value : section.values) {
        const bool is_url = section.name == "cluster" ? value.path.front() == "members"
                                                      : value.key == "listen" || value.key == "listen_urls";
        if (!is_url) continue;
        std::vector<std::string> urls = value.elements;
        if (value.kind == RawValue::Kind::kString) urls.push_back(value.text);
        for (const std::string& url : urls) {
          if (!url.starts_with("https://") && !url.starts_with("unixs://")) continue;
          Fail(value.place, section.label + "." + value.key + ": " + QuoteToml(url) +
                                " needs certificates; add a section [auth] with plugin = \"auth-mtls\"");
        }
      }
    }
  }

  const Document& document_;
  Config& config_;
  std::vector<ConfigError>& errors_;
};

void PrintOptions(const Options& options, std::string* out) {
  for (const Option& option : options.list) {
    std::string key;
    for (std::string_view rest = option.key;;) {
      const size_t dot = rest.find('.');
      key.append(KeyToml(rest.substr(0, dot)));
      if (dot == std::string_view::npos) break;
      key.append(".");
      rest.remove_prefix(dot + 1);
    }
    out->append(key).append(" = ").append(option.literal);
    out->append(option.line == 0 ? "  # default\n" : "  # line " + std::to_string(option.line) + "\n");
  }
}

void SortErrors(std::vector<ConfigError>* errors) {
  std::stable_sort(errors->begin(), errors->end(), [](const ConfigError& a, const ConfigError& b) {
    return a.place.line != b.place.line ? a.place.line < b.place.line : a.place.column < b.place.column;
  });
}

}  // namespace

Config ParseConfig(std::string_view text, std::string_view file, std::vector<ConfigError>* errors) {
  Config config;
  config.file = file;
  const Document document = ParseDocument(text, errors);
  if (!errors->empty() && document.sections.empty()) return config;
  Checker(document, &config, errors).Check();
  SortErrors(errors);
  return config;
}

Options CheckPluginOptions(const Config& config, const PluginSection& section,
                           std::span<const kw_config_field> fields, std::vector<ConfigError>* errors) {
  constexpr std::string_view kIgnored[] = {"plugin", "listen_urls"};
  std::map<std::string, std::string> supplied;
  supplied["dir"] = config.data_dir + (config.data_dir.ends_with('/') ? "" : "/") + section.kind;
  if (section.kind == "api") supplied["max_request_bytes"] = std::to_string(config.request_bytes_max);
  const size_t ignored_count = section.kind == "transport" ? 2 : 1;
  return CheckSection(section.raw, fields, std::span(kIgnored).first(ignored_count), supplied, errors);
}

std::string PrintConfig(const Config& config, std::span<const Options> plugin_options) {
  std::string out = "# The effective configuration of " + config.file + "\n";
  for (const Config::KernelSection& section : config.kernel_sections) {
    out.append("\n[").append(section.label).append("]\n");
    PrintOptions(section.options, &out);
    if (section.label != "cluster") continue;
    out.append("\n[cluster.members]\n");
    for (const MemberConfig& member : config.members) {
      RawValue urls;
      urls.kind = RawValue::Kind::kStrings;
      urls.elements = member.urls;
      out.append(KeyToml(member.name)).append(" = ").append(urls.Literal()).append("\n");
    }
  }
  for (size_t i = 0; i < config.plugins.size(); ++i) {
    const PluginSection& section = config.plugins[i];
    const PluginKind* kind = KindOf(section.kind);
    const bool is_list = kind != nullptr && kind->is_list;
    out.append(is_list ? "\n[[" : "\n[").append(section.kind).append(is_list ? "]]\n" : "]\n");
    const bool is_set = std::any_of(section.raw.values.begin(), section.raw.values.end(),
                                    [](const RawValue& value) { return value.key == "plugin"; });
    out.append("plugin = ").append(QuoteToml(section.plugin));
    out.append(is_set ? "  # line " + std::to_string(section.place.line) + "\n" : "  # default\n");
    const bool plugin_has_urls =
        i < plugin_options.size() && plugin_options[i].Find("listen_urls") != nullptr;
    if (section.kind == "transport" && !plugin_has_urls) {
      RawValue urls;
      urls.kind = RawValue::Kind::kStrings;
      urls.elements = config.listen_peer_urls;
      uint32_t line = 0;
      for (const RawValue& value : section.raw.values) {
        if (value.key == "listen_urls") line = value.key_place.line;
      }
      out.append("listen_urls = ").append(urls.Literal());
      out.append(line != 0 ? "  # line " + std::to_string(line) + "\n" : "  # default\n");
    }
    if (i < plugin_options.size()) PrintOptions(plugin_options[i], &out);
  }
  return out;
}

std::string FormatErrors(std::string_view file, std::vector<ConfigError> errors) {
  SortErrors(&errors);
  std::string out;
  for (const ConfigError& error : errors) out.append(FormatError(file, error)).append("\n");
  return out;
}

}  // namespace keyway
