// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/loader.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace keyway {
namespace {

std::string LoadError(const std::string& plugin) {
  PluginLoader loader(FIXTURE_DIR);
  auto loaded = loader.Load(plugin);
  EXPECT_FALSE(loaded.ok());
  return std::string(loaded.status().message());
}

std::string InFolder(const std::string& text) { return FIXTURE_DIR "/" + text; }

// A folder of its own, removed at the end.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = std::filesystem::temp_directory_path() / "keyway-loader-XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  std::string CopyOf(const char* fixture, const std::string& name) {
    const std::string to = path_ + "/" + name;
    std::filesystem::copy_file(InFolder(fixture), to);
    return to;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(Loader, LoadsByNameAndTwiceGivesTheSame) {
  PluginLoader loader(FIXTURE_DIR);

  auto first = loader.Load("fixture-good");
  auto second = loader.Load("fixture-good");

  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_STREQ((*first)->id, "fixture-good");
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(*first, *second);
}

TEST(Loader, RefusesOtherAbiBeforeAnyCodeRuns) {
  // Both fixtures trap when they are loaded.
  EXPECT_EQ(LoadError("fixture-major"),
            InFolder("fixture-major.so: plugin fixture-major 0.3.0 needs ABI 2.0, this keywayd offers "
                     "1.0: use a keywayd of ABI major 2, or a fixture-major built for ABI 1.0"));
  EXPECT_EQ(LoadError("fixture-minor"),
            InFolder("fixture-minor.so: plugin fixture-minor 0.3.0 needs ABI 1.4, this keywayd offers "
                     "1.0: use a keywayd that offers ABI 1.4 or later, or a fixture-minor built for ABI "
                     "1.0"));
}

TEST(Loader, RefusesLibraryWithoutManifestBeforeAnyCodeRuns) {
  EXPECT_EQ(LoadError("fixture-noteless"),
            InFolder("fixture-noteless.so: not a plugin: it has no manifest (ELF note of owner "
                     "\"Keyway\")"));
}

TEST(Loader, RefusesManifestThatDiffersFromDescriptor) {
  EXPECT_EQ(LoadError("fixture-mismatch"),
            InFolder("fixture-mismatch.so: its manifest says version=0.2.9, its descriptor 0.3.0"));
}

TEST(Loader, RefusesLibraryWithoutEntry) {
  EXPECT_EQ(LoadError("fixture-entryless"),
            InFolder("fixture-entryless.so: has no function kw_plugin_entry"));
}

TEST(Loader, MissingFileIsNamed) {
  EXPECT_EQ(LoadError("nothing"), InFolder("nothing.so: No such file or directory"));
  EXPECT_EQ(LoadError("/nowhere/x.so"), "/nowhere/x.so: No such file or directory");
  EXPECT_NE(LoadError(FIXTURE_DIR).find("not a regular file"), std::string::npos);
}

TEST(Loader, RefusesWhatOthersCanWrite) {
  TempFolder folder;
  const std::string path = folder.CopyOf("fixture-good.so", "fixture-good.so");
  chmod(path.c_str(), 0666);
  EXPECT_EQ(LoadError(path), path +
                                 " is writable by other users, who could make this process run their "
                                 "code: chmod o-w");
  chmod(path.c_str(), 0644);
  chmod(folder.path().c_str(), 0777);
  EXPECT_EQ(LoadError(path), "the folder " + folder.path() +
                                 " is writable by other users, who could make this process run their "
                                 "code: chmod o-w");
}

TEST(Loader, RefusesSamePluginFromTwoFiles) {
  TempFolder folder;
  const std::string copy = folder.CopyOf("fixture-good.so", "copy.so");
  PluginLoader loader(FIXTURE_DIR);
  ASSERT_TRUE(loader.Load("fixture-failing").ok());
  const std::string first = folder.CopyOf("fixture-failing.so", "first.so");

  auto loaded = loader.Load(first);

  EXPECT_EQ(std::string(loaded.status().message()),
            first + ": the plugin fixture-failing is loaded already, from " + InFolder("fixture-failing.so"));
  // By path, a file of another name is fine.
  auto by_path = loader.Load(copy);
  ASSERT_TRUE(by_path.ok()) << by_path.status();
  EXPECT_STREQ((*by_path)->id, "fixture-good");
}

TEST(Loader, RefusesTextFile) {
  TempFolder folder;
  const std::string path = folder.path() + "/text.so";
  std::ofstream(path) << std::string(200, 'x');
  EXPECT_EQ(LoadError(path), path + ": not a plugin: not an ELF file");
}

int32_t NoCreate(const kw_host*, const kw_config_item*, size_t, kw_plugin**, kw_error*) {
  return KW_UNIMPLEMENTED;
}

TEST(Loader, StaticPluginsPassTheSameChecks) {
  static const char* const kProvides[] = {"keyway.api/1", nullptr};
  static const char* const kNeeds[] = {"keyway.future/1", nullptr};
  static kw_descriptor descriptor = {.size = sizeof(kw_descriptor),
                                     .abi_major = 1,
                                     .id = "static-one",
                                     .version = "1.0.0",
                                     .provides = kProvides,
                                     .needs = kNeeds,
                                     .create = &NoCreate};
  static const kw_descriptor* const kPlugins[] = {&descriptor};
  static const kw_entry kEntry = {sizeof(kw_entry), 1, 0, kPlugins, 1};
  RegisterStaticPlugin(&kEntry);

  EXPECT_EQ(LoadError("static-one"),
            "static plugin: static-one needs the host service keyway.future/1, which this keywayd does "
            "not offer");
  descriptor.needs = nullptr;
  PluginLoader loader(FIXTURE_DIR);
  auto loaded = loader.Load("static-one");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(*loaded, &descriptor);
}

}  // namespace
}  // namespace keyway
