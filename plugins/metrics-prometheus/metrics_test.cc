// SPDX-License-Identifier: Apache-2.0
//
// The text is checked by a small parser of the format, written from its specification, not by strings.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "http_listener.h"
#include "keyway/observer.h"
#include "render.h"

extern "C" const kw_entry* kw_plugin_entry_metrics_prometheus(void);

namespace keyway::metrics_prometheus {
namespace {

struct Family {
  std::string type, help;
  std::map<std::string, double> series;  // "name{k=v}{k=v}" with unescaped values.
};

// Parses the text; an ADD_FAILURE names the line that is wrong.
class Parsed {
 public:
  explicit Parsed(const std::string& text) {
    EXPECT_TRUE(text.empty() || text.back() == '\n');
    size_t begin = 0;
    while (begin < text.size()) {
      size_t end = text.find('\n', begin);
      if (end == std::string::npos) end = text.size();
      Line(text.substr(begin, end - begin));
      begin = end + 1;
    }
    for (const auto& [name, family] : families_) {
      if (family.type == "histogram") CheckHistogram(name, family);
    }
  }
  const Family& operator[](const std::string& name) { return families_[name]; }
  bool Has(const std::string& name) const { return families_.count(name) != 0; }

 private:
  static bool IsName(const std::string& name, bool colon) {
    if (name.empty() || std::isdigit(static_cast<unsigned char>(name[0]))) return false;
    for (const char c : name) {
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && !(colon && c == ':')) return false;
    }
    return true;
  }
  static std::string Unescape(const std::string& text, bool quotes, const std::string& line) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        out.push_back(text[i]);
        continue;
      }
      const char c = ++i < text.size() ? text[i] : '\0';
      if (c != '\\' && c != 'n' && !(quotes && c == '"')) ADD_FAILURE() << "bad escape: " << line;
      out.push_back(c == 'n' ? '\n' : c);
    }
    return out;
  }
  void Line(const std::string& line) {
    if (line.rfind("# HELP ", 0) == 0 || line.rfind("# TYPE ", 0) == 0) {
      const size_t name_end = line.find(' ', 7);
      ASSERT_NE(name_end, std::string::npos) << line;
      const std::string name = line.substr(7, name_end - 7);
      const std::string rest = line.substr(name_end + 1);
      EXPECT_TRUE(IsName(name, true)) << line;
      if (name != current_) {
        EXPECT_EQ(families_.count(name), 0u) << "a second group: " << line;
        current_ = name;
      }
      std::string& field = line[2] == 'H' ? families_[name].help : families_[name].type;
      EXPECT_EQ(field, "") << "twice: " << line;
      EXPECT_TRUE(families_[name].series.empty()) << "after a sample: " << line;
      field = line[2] == 'H' ? Unescape(rest, false, line) : rest;
      return;
    }
    const size_t name_end = line.find_first_of("{ ");
    ASSERT_NE(name_end, std::string::npos) << line;
    const std::string name = line.substr(0, name_end);
    EXPECT_TRUE(IsName(name, true)) << line;
    std::string series = name;
    size_t at = name_end;
    if (line[at] == '{') {
      do {
        const size_t equals = line.find('=', at);
        ASSERT_NE(equals, std::string::npos) << line;
        const std::string key = line.substr(at + 1, equals - at - 1);
        EXPECT_TRUE(IsName(key, false)) << line;
        ASSERT_EQ(line[equals + 1], '"') << line;
        size_t end = equals + 2;
        while (end < line.size() && line[end] != '"') end += line[end] == '\\' ? 2 : 1;
        ASSERT_LT(end, line.size()) << line;
        series += "{" + key + "=" + Unescape(line.substr(equals + 2, end - equals - 2), true, line) + "}";
        at = end + 1;
      } while (line[at] == ',');
      ASSERT_EQ(line[at], '}') << line;
      ++at;
    }
    ASSERT_EQ(line[at], ' ') << line;
    const std::string value = line.substr(at + 1);
    char* end = nullptr;
    const double number = std::strtod(value.c_str(), &end);
    EXPECT_EQ(*end, '\0') << line;
    Family& family = families_[current_];
    if (family.type == "histogram") {
      EXPECT_TRUE(name == current_ + "_bucket" || name == current_ + "_sum" || name == current_ + "_count")
          << line;
    } else {
      EXPECT_EQ(name, current_) << line;
    }
    EXPECT_TRUE(family.series.emplace(series, number).second) << "twice: " << line;
  }
  static void CheckHistogram(const std::string& name, const Family& family) {
    size_t infinite = 0;
    for (const auto& [series, value] : family.series) {
      const size_t at = series.find("{le=+Inf}");
      if (at == std::string::npos) continue;
      ++infinite;
      const std::string labels = series.substr(name.size() + 7, at - name.size() - 7);
      EXPECT_EQ(family.series.at(name + "_count" + labels), value);
      EXPECT_EQ(family.series.count(name + "_sum" + labels), 1u);
    }
    EXPECT_GT(infinite, 0u);
  }

  std::string current_;
  std::map<std::string, Family> families_;
};

kw_slice Slice(std::string_view text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

kw_sample Sample(const char* name, const char* help, uint32_t kind, double value,
                 const std::vector<kw_field>* maybe_labels = nullptr) {
  kw_sample sample = {};
  sample.name = name;
  sample.help = help;
  sample.kind = kind;
  sample.value = value;
  if (maybe_labels != nullptr) {
    sample.labels = maybe_labels->data();
    sample.label_count = maybe_labels->size();
  }
  return sample;
}

std::string Text(const std::vector<kw_sample>& samples) {
  std::string text;
  Render(samples.data(), samples.size(), &text);
  return text;
}

TEST(Render, LabelsAndHelpAreEscaped) {
  const std::vector<kw_field> labels = {{"path", Slice("C:\\dir\n\"x\"")}, {"To", Slice("8211f1d0f64f3269")}};
  Parsed parsed(Text({Sample("a_total", "a \\ and\na \"line\"", KW_METRIC_COUNTER, 3, &labels)}));

  EXPECT_EQ(parsed["a_total"].help, "a \\ and\na \"line\"");
  EXPECT_EQ(parsed["a_total"].type, "counter");
  EXPECT_EQ(parsed["a_total"].series.at("a_total{path=C:\\dir\n\"x\"}{To=8211f1d0f64f3269}"), 3);
}

TEST(Render, HeadComesOncePerNameEvenIfSamplesAreApart) {
  const std::vector<kw_field> one = {{"n", Slice("1")}};
  const std::vector<kw_field> two = {{"n", Slice("2")}};
  Parsed parsed(Text({Sample("x", "x", KW_METRIC_GAUGE, 1, &one), Sample("y", "", KW_METRIC_GAUGE, 2),
                      Sample("x", "x", KW_METRIC_GAUGE, 3, &two), Sample("x", "x", KW_METRIC_COUNTER, 4)}));
  EXPECT_EQ(parsed["x"].series.size(), 2u);  // The one of another kind is left out.
  EXPECT_EQ(parsed["y"].series.at("y"), 2);
}

TEST(Render, HistogramIsCumulative) {
  const double bounds[] = {0.001, 0.002, 8.192};
  const uint64_t buckets[] = {1, 2, 3, 4};
  const std::vector<kw_field> labels = {{"op", Slice("put")}};
  kw_sample sample = Sample("h_seconds", "h", kKindHistogram, 0, &labels);
  sample.bounds = bounds;
  sample.buckets = buckets;
  sample.bound_count = 3;
  sample.sum = 1.5;

  Parsed parsed(Text({sample}));

  const auto& series = parsed["h_seconds"].series;
  EXPECT_EQ(series.at("h_seconds_bucket{op=put}{le=0.001}"), 1);
  EXPECT_EQ(series.at("h_seconds_bucket{op=put}{le=0.002}"), 3);
  EXPECT_EQ(series.at("h_seconds_bucket{op=put}{le=8.192}"), 6);
  EXPECT_EQ(series.at("h_seconds_bucket{op=put}{le=+Inf}"), 10);
  EXPECT_EQ(series.at("h_seconds_sum{op=put}"), 1.5);
  EXPECT_EQ(series.at("h_seconds_count{op=put}"), 10);
}

TEST(Render, NumbersKeepTheirValue) {
  const double values[] = {0, -1, 1e300, 0.1, 18446744073709551615.0, INFINITY, -INFINITY};
  for (const double value : values) {
    Parsed parsed(Text({Sample("v", "", KW_METRIC_GAUGE, value)}));
    EXPECT_EQ(parsed["v"].series.at("v"), value);
  }
  Parsed parsed(Text({Sample("v", "", KW_METRIC_GAUGE, NAN)}));
  EXPECT_TRUE(std::isnan(parsed["v"].series.at("v")));
}

TEST(Render, CharactersThatANameMustNotHaveAreReplaced) {
  Parsed parsed(Text({Sample("9 bad-name", "", KW_METRIC_GAUGE, 1)}));
  EXPECT_TRUE(parsed.Has("__bad_name"));
}

TEST(Render, ProcessMetricsArePlausible) {
  Parsed parsed(Text({Sample("os_fd_limit", "the host's own", KW_METRIC_GAUGE, 7)}));

  EXPECT_EQ(parsed["os_fd_limit"].series.at("os_fd_limit"), 7);
  EXPECT_GT(parsed["process_resident_memory_bytes"].series.at("process_resident_memory_bytes"), 1 << 20);
  EXPECT_EQ(parsed["process_cpu_seconds_total"].type, "counter");
  const double fds = parsed["process_open_fds"].series.at("process_open_fds");
  EXPECT_GE(fds, 3);
  EXPECT_LT(fds, parsed["process_max_fds"].series.at("process_max_fds"));
  const double start = parsed["process_start_time_seconds"].series.at("process_start_time_seconds");
  EXPECT_NEAR(start, static_cast<double>(time(nullptr)), 3600);
}

// The listener, through the ABI.
class ListenerTest : public ::testing::Test {
 protected:
  ListenerTest() {
    host_ = {sizeof(kw_host),
             KW_ABI_MAJOR,
             KW_ABI_MINOR,
             this,
             "keyway test",
             [](const kw_host* host, const char* service) -> const void* {
               auto* self = static_cast<ListenerTest*>(host->self);
               if (std::string(service) == KW_CLOCK) return &self->clock_;
               if (std::string(service) == KW_SAMPLES) return &self->samples_;
               return nullptr;
             }};
    clock_ = {};
    clock_.size = sizeof(clock_);
    clock_.mono_ns = [](const kw_host*) {
      timespec now;
      clock_gettime(CLOCK_MONOTONIC, &now);
      return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
    };
    samples_ = {sizeof(samples_), 0,
                [](const kw_host*, void* self, void (*visit)(void*, const kw_sample*, size_t)) {
                  const kw_sample sample = Sample("answer", "", KW_METRIC_GAUGE, 42);
                  visit(self, &sample, 1);
                }};
    error_.size = sizeof(error_);
  }
  ~ListenerTest() override {
    if (plugin_ == nullptr) return;
    plugin_->stop(plugin_);
    plugin_->destroy(plugin_);
  }
  int32_t Start(const std::string& url) {
    const kw_config_item item = {"listen", Slice(url), 0, 0};
    EXPECT_EQ(kw_plugin_entry_metrics_prometheus()->plugins[0]->create(&host_, &item, 1, &plugin_, &error_),
              KW_OK);
    return plugin_->start(plugin_, &error_);
  }
  // Starts on a free port.
  void StartAnywhere() {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    address_.sin_family = AF_INET;
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address_);
    bind(fd, reinterpret_cast<sockaddr*>(&address_), size);
    getsockname(fd, reinterpret_cast<sockaddr*>(&address_), &size);
    close(fd);
    ASSERT_EQ(Start("http://127.0.0.1:" + std::to_string(ntohs(address_.sin_port))), KW_OK) << error_.text;
  }
  int Connect() {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address_), sizeof(address_)), 0);
    const timeval timeout = {10, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    return fd;
  }
  std::string Ask(const std::string& request) {
    const int fd = Connect();
    send(fd, request.data(), request.size(), MSG_NOSIGNAL);
    std::string all;
    char bytes[4096];
    for (ssize_t got; (got = read(fd, bytes, sizeof(bytes))) > 0;)
      all.append(bytes, static_cast<size_t>(got));
    close(fd);
    return all;
  }

  kw_host host_;
  kw_clock clock_;
  kw_samples samples_;
  kw_error error_ = {};
  kw_plugin* plugin_ = nullptr;
  sockaddr_in address_ = {};
};

TEST_F(ListenerTest, ServesMetricsAndNothingElse) {
  StartAnywhere();
  const std::string answer = Ask("GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(answer.rfind("HTTP/1.1 200 OK\r\n", 0), 0u) << answer;
  EXPECT_NE(answer.find("Content-Type: text/plain; version=0.0.4"), std::string::npos);
  Parsed parsed(answer.substr(answer.find("\r\n\r\n") + 4));
  EXPECT_EQ(parsed["answer"].series.at("answer"), 42);

  EXPECT_EQ(Ask("GET / HTTP/1.1\r\n\r\n").rfind("HTTP/1.1 404", 0), 0u);
  EXPECT_EQ(Ask("POST /metrics HTTP/1.1\r\n\r\n").rfind("HTTP/1.1 405", 0), 0u);
  EXPECT_EQ(Ask("nonsense\r\n\r\n").rfind("HTTP/1.1 400", 0), 0u);
  EXPECT_EQ(Ask("GET /metrics HTTP/1.1\r\nX: " + std::string(20000, 'x')).rfind("HTTP/1.1 431", 0), 0u);
}

TEST_F(ListenerTest, ConnectionsAreBoundedAndSlowOnesHarmNobody) {
  StartAnywhere();
  std::vector<int> idle;
  for (size_t i = 0; i < HttpListener::kConnectionsMax - 1; ++i) idle.push_back(Connect());
  EXPECT_EQ(Ask("GET /metrics HTTP/1.1\r\n\r\n").rfind("HTTP/1.1 200", 0), 0u);
  idle.push_back(Connect());
  const int over = Connect();
  char byte;
  EXPECT_LE(read(over, &byte, 1), 0);
  close(over);
  for (const int fd : idle) close(fd);
}

TEST_F(ListenerTest, WrongUrlIsInvalidAndATakenPortUnavailable) {
  EXPECT_EQ(Start("https://127.0.0.1:1"), KW_INVALID_ARGUMENT);
  EXPECT_NE(std::string(error_.text).find("https://127.0.0.1:1"), std::string::npos);
  plugin_->destroy(plugin_);
  plugin_ = nullptr;

  StartAnywhere();
  kw_plugin* first = plugin_;
  EXPECT_EQ(Start("http://127.0.0.1:" + std::to_string(ntohs(address_.sin_port))), KW_UNAVAILABLE);
  EXPECT_NE(std::string(error_.text).find("in use"), std::string::npos) << error_.text;
  plugin_->destroy(plugin_);
  plugin_ = first;
}

TEST_F(ListenerTest, RenderWritesThroughTheAbi) {
  StartAnywhere();
  const auto* table = static_cast<const kw_observer*>(plugin_->get(plugin_, KW_OBSERVER));
  ASSERT_NE(table, nullptr);
  std::string text;
  kw_writer writer = {&text, [](void* self, kw_slice bytes) -> int32_t {
                        static_cast<std::string*>(self)->append(reinterpret_cast<const char*>(bytes.ptr),
                                                                bytes.len);
                        return KW_OK;
                      }};
  const kw_sample sample = Sample("answer", "", KW_METRIC_GAUGE, 42);
  ASSERT_EQ(table->render(plugin_, &sample, 1, &writer, &error_), KW_OK);
  Parsed parsed(text);
  EXPECT_EQ(parsed["answer"].series.at("answer"), 42);
}

}  // namespace
}  // namespace keyway::metrics_prometheus
