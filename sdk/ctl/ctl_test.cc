// SPDX-License-Identifier: Apache-2.0
#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <sstream>

#include "commands.h"
#include "json.h"
#include "manifest.h"
#include "output.h"
#include "plugin_options.h"
#include "txn_text.h"

namespace keyway::ctl {
namespace {

TEST(Flags, DurationsAreThoseOfGo) {
  std::chrono::nanoseconds out{0};
  ASSERT_TRUE(ParseDuration("1m30s", &out));
  EXPECT_EQ(out, std::chrono::seconds(90));
  ASSERT_TRUE(ParseDuration("1.5s", &out));
  EXPECT_EQ(out, std::chrono::milliseconds(1500));
  ASSERT_TRUE(ParseDuration("100ms", &out));
  EXPECT_EQ(out, std::chrono::milliseconds(100));
  for (const char* text : {"", "s", "5x", "-1s", "0s", "1e99s", "5 s"})
    EXPECT_FALSE(ParseDuration(text, &out)) << text;
}

TEST(Flags, IdsAreHexadecimal) {
  uint64_t id = 0;
  ASSERT_TRUE(ParseHexId("8211f1d0f64f3269", &id));
  EXPECT_EQ(id, 0x8211f1d0f64f3269u);
  EXPECT_EQ(HexId(id), "8211f1d0f64f3269");
  for (const char* text : {"", "zz", "0x", "12 ", "11111111111111111"})
    EXPECT_FALSE(ParseHexId(text, &id)) << text;
}

TEST(Flags, PrefixEndIsTheNextPrefix) {
  EXPECT_EQ(PrefixEnd("a"), "b");
  EXPECT_EQ(PrefixEnd("a\xff"), "b");
  EXPECT_EQ(PrefixEnd("\xff\xff"), std::string(1, '\0'));
}

TEST(PluginOptions, AreCheckedAsTheHostChecksThem) {
  std::string out;
  EXPECT_EQ(ConvertOption("bytes(1..1048576)", "0.5MiB", &out), "");
  EXPECT_EQ(out, "524288");
  EXPECT_EQ(ConvertOption("duration(1..60000)", "1.5s", &out), "");
  EXPECT_EQ(out, "1500");
  EXPECT_EQ(ConvertOption("enum(none|lz4)", "lz4", &out), "");
  EXPECT_EQ(ConvertOption("bool", "true", &out), "");
  for (const auto& [type, text] :
       std::vector<std::pair<std::string, std::string>>{{"bytes(1..1048576)", "2MiB"},
                                                        {"bytes(1..9)", "1.5"},
                                                        {"bytes(1..9)", "x"},
                                                        {"int(1..9)", "10"},
                                                        {"int(1..9)", "1x"},
                                                        {"enum(none|lz4)", "lz"},
                                                        {"bool", "yes"},
                                                        {"path", ""},
                                                        {"odd", "1"}}) {
    EXPECT_NE(ConvertOption(type, text, &out), "") << type << " " << text;
  }
}

TEST(PluginOptions, TakeDefaultsOfTheSchema) {
  constexpr kw_config_field kFields[] = {{"dir", "path", nullptr, "Where."},
                                         {"size", "bytes(1..1099511627776)", "64GiB", "How much."},
                                         {"names", "strings", "[\"a\", \"b\"]", "Who."}};
  kw_descriptor plugin = {};
  plugin.id = "some";
  plugin.fields = kFields;
  plugin.field_count = std::size(kFields);
  PluginOptions options;

  ASSERT_EQ(ReadOptions(plugin, {"dir=/a=b"}, &options), "");

  EXPECT_EQ(options,
            (PluginOptions{{"dir", "/a=b"}, {"size", "68719476736"}, {"names", "a"}, {"names", "b"}}));
  EXPECT_NE(ReadOptions(plugin, {"size=1"}, &options), "") << "dir is missing";
  EXPECT_NE(ReadOptions(plugin, {"dir=a", "dir=b"}, &options), "");
  EXPECT_NE(ReadOptions(plugin, {"dir=a", "sise=1"}, &options).find("size"), std::string::npos);
  EXPECT_NE(ReadOptions(plugin, {"dir"}, &options), "");
}

TEST(Output, TableAlignsTextLeftAndNumbersRight) {
  Table table({"NAME", "SIZE"});
  table.Add({"a", "7"});
  table.Add({"longer", "1234567"});
  EXPECT_EQ(table.ToString(),
            "+--------+---------+\n"
            "| NAME   | SIZE    |\n"
            "+--------+---------+\n"
            "| a      |       7 |\n"
            "| longer | 1234567 |\n"
            "+--------+---------+\n");
  EXPECT_EQ(table.ToLines(), "a, 7\nlonger, 1234567\n");
}

TEST(Output, Base64IsThatOfRfc4648) {
  EXPECT_EQ(Base64(""), "");
  EXPECT_EQ(Base64("f"), "Zg==");
  EXPECT_EQ(Base64("fo"), "Zm8=");
  EXPECT_EQ(Base64("foo"), "Zm9v");
  EXPECT_EQ(Base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(Base64("\xff\xfe"), "//4=");
}

TEST(Output, BytesAreShownSafelyInCells) {
  EXPECT_EQ(HexBytes("fo"), "\\x66\\x6f");
  EXPECT_EQ(ShownInCell("a\nb", false), "a\\x0ab");
  EXPECT_EQ(ShownInCell(std::string(100, 'x'), false).size(), 67u);
}

TEST(Output, SizesAreRounded) {
  EXPECT_EQ(ByteSize(999), "999 B");
  EXPECT_EQ(ByteSize(20480), "20 kB");
  EXPECT_EQ(ByteSize(2147483648u), "2.1 GB");
}

// The shapes are those that etcdctl 3.7 prints.
TEST(Json, HasTheShapeOfEtcdctl) {
  etcdserverpb::RangeResponse response;
  response.mutable_header()->set_cluster_id(7801232528081817440u);
  response.mutable_header()->set_member_id(13458989633860879742u);
  response.mutable_header()->set_revision(4);
  response.mutable_header()->set_raft_term(2);
  auto* pair = response.add_kvs();
  pair->set_key("foo");
  pair->set_create_revision(2);
  pair->set_mod_revision(4);
  pair->set_version(3);
  pair->set_value("bar2");
  response.set_count(1);
  EXPECT_EQ(ToJson(response).dump(),
            R"({"header":{"cluster_id":7801232528081817440,"member_id":13458989633860879742,"revision":4,)"
            R"("raft_term":2},"kvs":[{"key":"Zm9v","create_revision":2,"mod_revision":4,"version":3,)"
            R"("value":"YmFyMg=="}],"count":1})");

  etcdserverpb::TxnResponse txn;
  txn.mutable_header()->set_revision(15);
  txn.set_succeeded(true);
  txn.add_responses()->mutable_response_put()->mutable_header()->set_revision(15);
  EXPECT_EQ(ToJson(txn).dump(), R"({"header":{"revision":15},"succeeded":true,"responses":[)"
                                R"({"Response":{"response_put":{"header":{"revision":15}}}}]})");
}

TEST(TxnText, ReadsThreeBlocks) {
  std::istringstream input(
      "mod(\"key1\") > \"0\"\n"
      "value(\"a b\\\"c\") != \"x\\ny\"\n"
      "lease(\"k\") = \"1f\"\n"
      "\n"
      "put key1 \"overwrote key1\" --prev-kv\n"
      "get key1 --limit 5 --keys-only\n"
      "\n"
      "del key1 --prefix\n");
  etcdserverpb::TxnRequest request;
  ASSERT_EQ(ParseTxn(&input, &request), "");
  ASSERT_EQ(request.compare_size(), 3);
  EXPECT_EQ(request.compare(0).target(), etcdserverpb::Compare::MOD);
  EXPECT_EQ(request.compare(0).result(), etcdserverpb::Compare::GREATER);
  EXPECT_EQ(request.compare(1).key(), "a b\"c");
  EXPECT_EQ(request.compare(1).value(), "x\ny");
  EXPECT_EQ(request.compare(2).lease(), 0x1f);
  ASSERT_EQ(request.success_size(), 2);
  EXPECT_EQ(request.success(0).request_put().value(), "overwrote key1");
  EXPECT_TRUE(request.success(0).request_put().prev_kv());
  EXPECT_EQ(request.success(1).request_range().limit(), 5);
  ASSERT_EQ(request.failure_size(), 1);
  EXPECT_EQ(request.failure(0).request_delete_range().range_end(), "key2");
}

TEST(TxnText, MalformedLinesAreRefusedByName) {
  for (const char* line :
       {"mod", "mod(key) > \"0\"", "mod(\"k\" > \"0\"", "mod(\"k\") ~ \"0\"", "mod(\"k\") > \"x\"",
        "size(\"k\") > \"1\"", "mod(\"k\") > \"1\" x", "mod(\"\") > \"0\""}) {
    etcdserverpb::Compare compare;
    EXPECT_NE(ParseCompare(line, &compare).find(line), std::string::npos) << line;
  }
  for (const char* line :
       {"put", "put k", "put \"k", "get", "get k --nosuch", "frob k", "get a b --prefix"}) {
    etcdserverpb::RequestOp op;
    EXPECT_NE(ParseOperation(line, &op), "") << line;
  }
}

TEST(TxnText, WordsAreSplitAsByAShell) {
  std::vector<std::string> words;
  ASSERT_TRUE(SplitWords("put  'a b' \"c\\x41\" d\\ e ''", &words));
  EXPECT_EQ(words, (std::vector<std::string>{"put", "a b", "cA", "d e", ""}));
  EXPECT_FALSE(SplitWords("put 'a", &words));
}

constexpr char kText[] = "id=x;version=1.0.0;abi=1.0;license=MIT;stability=beta;provides=a/1,b/1;needs=";

// An ELF file of one segment of notes: a foreign one, then a manifest.
std::string ElfWithManifest() {
  std::string file(sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr), '\0');
  const auto put_note = [&file](uint32_t type, std::string name, std::string text) {
    const Elf64_Nhdr note = {static_cast<uint32_t>(name.size()), static_cast<uint32_t>(text.size()), type};
    file.append(reinterpret_cast<const char*>(&note), sizeof(note));
    name.resize((name.size() + 3) & ~size_t{3});
    text.resize((text.size() + 3) & ~size_t{3});
    file += name + text;
  };
  put_note(3, std::string("GNU\0", 4), "12345");
  put_note(1, std::string("Keyway\0", 7), std::string(kText, sizeof(kText)));
  Elf64_Ehdr header = {};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_phoff = sizeof(header);
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 1;
  Elf64_Phdr segment = {};
  segment.p_type = PT_NOTE;
  segment.p_offset = sizeof(header) + sizeof(segment);
  segment.p_filesz = file.size() - segment.p_offset;
  std::memcpy(file.data(), &header, sizeof(header));
  std::memcpy(file.data() + sizeof(header), &segment, sizeof(segment));
  return file;
}

TEST(Manifest, IsFoundAmongOtherNotes) {
  Manifest manifest;
  ASSERT_EQ(FindManifest(ElfWithManifest(), &manifest), "");
  EXPECT_EQ(manifest.id, "x");
  EXPECT_EQ(manifest.abi, "1.0");
  EXPECT_EQ(manifest.provides, (std::vector<std::string>{"a/1", "b/1"}));
  EXPECT_TRUE(manifest.needs.empty());
}

TEST(Manifest, AnyOtherFileIsRefusedAndNothingIsReadBeyondIt) {
  const std::string file = ElfWithManifest();
  Manifest manifest;
  EXPECT_EQ(FindManifest("", &manifest), "not an ELF file");
  for (size_t size = 0; size < file.size(); ++size) {
    Manifest ignored;
    // A copy of its own, so that a sanitizer sees a read beyond it.
    const std::string cut(file.data(), size);
    FindManifest(cut, &ignored);
  }
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string changed = file;
    for (int j = 0; j < 4; ++j) changed[random() % changed.size()] = static_cast<char>(random());
    Manifest ignored;
    FindManifest(changed, &ignored);
  }
}

}  // namespace
}  // namespace keyway::ctl
