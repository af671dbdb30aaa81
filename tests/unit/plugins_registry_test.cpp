// Finding, examining, checking and loading plugins.
#define BOOST_DLL_USE_STD_FS 1
#include <cowbird/plugin.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/dll/library_info.hpp>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "plugins/elf_image.hpp"
#include "plugins/plugin_registry.hpp"
#include "unit/poll_host_events.hpp"

using namespace cowbird;
namespace fs = std::filesystem;
using Catch::Matchers::Contains;

namespace {

const fs::path kTestPlugins = TEST_PLUGIN_DIR;
const fs::path kOwnPlugins = OWN_PLUGIN_DIR;

struct TemporaryDirectory {
  TemporaryDirectory() {
    char name[] = "/tmp/cowbird-plugins-XXXXXX";
    path = mkdtemp(name);
  }
  ~TemporaryDirectory() { fs::remove_all(path); }
  fs::path path;
};

std::vector<char> content(const fs::path &file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void write_file(const fs::path &file, const std::vector<char> &bytes) {
  std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<long>(bytes.size()));
}
void write_file(const fs::path &file, const std::string &text) {
  write_file(file, std::vector<char>(text.begin(), text.end()));
}

PluginError examine_error(const fs::path &file) {
  PluginError error;
  const auto info = examine_plugin(file, error);
  CHECK_FALSE(info);
  CHECK_THAT(error.message, Contains(file.string()));
  return error;
}

std::vector<std::string> problems_of(const PluginInfo &plugin, const ConfigTable &table) {
  std::vector<std::string> out;
  validate_config(plugin, table, {}, [&](std::string_view key, std::string_view text) {
    out.push_back(std::string(key) + "|" + std::string(text));
  });
  return out;
}

PluginInfo schema_plugin() {
  PluginError error;
  auto info = examine_plugin(kTestPlugins / "schema.so", error);
  REQUIRE(info);
  return *info;
}

}  // namespace

TEST_CASE("a plugin's file says everything about it without being run") {
  const PluginInfo info = schema_plugin();
  CHECK(info.name == "schema");
  CHECK(info.version == "2.1");
  CHECK(info.kind == PluginKind::Channel);
  CHECK(info.description == "keys of every type");
  CHECK(info.license == "Apache-2.0");
  CHECK(info.url == "https://example.org/schema");
  CHECK(info.abi_version == COWBIRD_ABI_VERSION);
  CHECK(info.capabilities == 2);
  REQUIRE(info.keys.size() == 9);
  CHECK(info.find_key("number")->has_range);
  CHECK(info.find_key("number")->min == -10);
  CHECK(info.find_key("mode")->choices == std::vector<std::string>{"listen", "connect"});
  CHECK(info.find_key("path")->required);
  CHECK(info.find_key("text")->default_text == "hello");
  CHECK_FALSE(info.find_key("optional")->default_text);
  CHECK_THAT(format_plugin_info(info), Contains("size (size 4096..1099511627776, default 1M)"));
}

TEST_CASE("examining runs no code of the plugin") {
  setenv("COWBIRD_TEST_MARK_RUN", "1", 1);
  const PluginError error = examine_error(kTestPlugins / "runtime_descriptor.so");
  CHECK(error.fault == PluginFault::BadDescriptor);
  CHECK_THAT(error.message, Contains("at compile time"));
  CHECK(getenv("COWBIRD_TEST_WAS_RUN") == nullptr);
}

TEST_CASE("each way to be no good plugin has its own message") {
  struct Case {
    const char *file;
    PluginFault fault;
    const char *text;
  };
  const Case cases[] = {
      {"other_abi", PluginFault::OtherAbi,
       "speaks version 99 of the plugin ABI; this Cowbird speaks version 1. Install a newer "
       "Cowbird"},
      {"bad_magic", PluginFault::BadDescriptor, "COWBIRD_PLUGIN_MAGIC"},
      {"small_size", PluginFault::BadDescriptor, "struct_size is 16"},
      {"bad_kind", PluginFault::BadDescriptor, "kind is 12345"},
      {"other_name", PluginFault::BadDescriptor, "somebody_else.so"},
      {"bad_key_type", PluginFault::BadDescriptor, "\"second\" has the unknown type 77"},
      {"duplicate_key", PluginFault::BadDescriptor, "\"first\" is declared twice"},
      {"reserved_key", PluginFault::BadDescriptor, "\"plugin\" belongs to the machine file"},
      {"bad_default", PluginFault::BadDescriptor, "\"plenty\" is not a size"},
      {"no_choices", PluginFault::BadDescriptor, "must have choices"},
      {"small_ops", PluginFault::BadDescriptor, "struct cowbird_channel_ops has"},
      {"other_ops_kind", PluginFault::BadDescriptor, "function table is for kind 200"},
      {"missing_function", PluginFault::BadDescriptor, "function \"write\" is missing"},
      {"no_ops", PluginFault::BadDescriptor, "\"ops\" does not point"},
      {"no_descriptor", PluginFault::NoDescriptor, "exports no data object named"},
  };
  for (const Case &c : cases) {
    INFO(c.file);
    const PluginError error = examine_error(kTestPlugins / (std::string(c.file) + ".so"));
    CHECK(error.fault == c.fault);
    CHECK_THAT(error.message, Contains(c.text));
  }
  PluginError error;
  CHECK(examine_plugin(kTestPlugins / "good.so", error));
  CHECK(error.fault == PluginFault::None);
}

TEST_CASE("files that are no shared objects are told apart") {
  TemporaryDirectory directory;
  const auto good = content(kTestPlugins / "good.so");
  const fs::path file = directory.path / "good.so";

  write_file(file, std::string("#!/bin/sh\necho hello\n"));
  CHECK(examine_error(file).fault == PluginFault::NotElf);
  write_file(file, std::string());
  CHECK(examine_error(file).fault == PluginFault::NotElf);

  auto other = good;
  other[18] = static_cast<char>(0xb7);  // e_machine: EM_AARCH64
  write_file(file, other);
  CHECK(examine_error(file).fault == PluginFault::WrongArchitecture);
  CHECK_THAT(examine_error(file).message, Contains("64-bit ARM"));
  other = good;
  other[4] = 1;   // ELFCLASS32
  other[18] = 3;  // EM_386
  write_file(file, other);
  CHECK_THAT(examine_error(file).message, Contains("32-bit x86"));
  other = good;
  other[16] = 2;  // e_type: ET_EXEC
  write_file(file, other);
  CHECK(examine_error(file).fault == PluginFault::NotShared);

  for (const std::size_t size : {5u, 30u, 80u, 1000u}) {
    write_file(file, std::vector<char>(good.begin(), good.begin() + static_cast<long>(size)));
    INFO(size);
    CHECK(examine_error(file).fault == PluginFault::Truncated);
  }
  write_file(file, std::vector<char>(good.begin(), good.end() - 40));
  CHECK(examine_error(file).fault == PluginFault::Truncated);

  CHECK(examine_error(directory.path / "absent.so").fault == PluginFault::Unreadable);
  CHECK(examine_error(directory.path).fault == PluginFault::Unreadable);
  fs::remove(file);
  mkfifo(file.c_str(), 0600);
  CHECK(examine_error(file).fault == PluginFault::Unreadable);
}

TEST_CASE("damaged plugin files never crash the examiner") {
  TemporaryDirectory directory;
  const fs::path file = directory.path / "schema.so";
  const auto good = content(kTestPlugins / "schema.so");
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    auto bad = good;
    // Headers at the front and the section table at the end are where the danger is.
    for (int i = 0; i < 6; ++i) {
      const std::size_t where = i < 2   ? random() % 600
                                : i < 4 ? bad.size() - 1 - random() % 2000
                                        : random() % bad.size();
      bad[where] = static_cast<char>(random());
    }
    write_file(file, bad);
    PluginError error;
    const auto info = examine_plugin(file, error);
    CHECK((info || !error.message.empty()));
  }
}

TEST_CASE("our own plugins export their descriptor and nothing else") {
  for (const char *name : {"channels/fd.so", "channels/null.so", "blockdev/file.so"}) {
    INFO(name);
    const fs::path file = kOwnPlugins / name;
    boost::dll::library_info symbols(file);
    CHECK(symbols.symbols() == std::vector<std::string>{COWBIRD_PLUGIN_SYMBOL});
    PluginError error;
    const auto image = ElfImage::open(file, error);
    REQUIRE(image);
    CHECK(image->find_object(COWBIRD_PLUGIN_SYMBOL)->size == sizeof(cowbird_plugin));
    PluginRegistry registry({kOwnPlugins});
    const auto info = examine_plugin(file, error);
    REQUIRE(info);
    CHECK(info->license == "Apache-2.0");
    CHECK_FALSE(info->description.empty());
    CHECK(registry.load(*info, error));
  }
}

TEST_CASE("plugins are found by kind and name, the first on the path wins") {
  TemporaryDirectory directory;
  fs::create_directories(directory.path / "channels");
  fs::copy(kTestPlugins / "schema.so", directory.path / "channels/schema.so");
  PluginRegistry registry({directory.path, kTestPlugins, kOwnPlugins});
  PluginError error;
  const PluginInfo *info = registry.find(PluginKind::Channel, "schema", error);
  REQUIRE(info);
  CHECK(info->file == directory.path / "channels/schema.so");
  CHECK(registry.find(PluginKind::Channel, "schema", error) == info);
  CHECK(registry.find(PluginKind::Block, "file", error));
  CHECK(registry.find(PluginKind::Channel, (kTestPlugins / "good.so").string(), error));

  CHECK_FALSE(registry.find(PluginKind::Block, "schema", error));
  CHECK(error.fault == PluginFault::WrongKind);
  CHECK_THAT(error.message, Contains("is a channel, but a block backend is needed"));
  CHECK_FALSE(registry.find(PluginKind::Block, "null", error));
  CHECK(error.fault == PluginFault::WrongKind);

  int shadowed = 0, broken = 0;
  for (const auto &listed : registry.list()) {
    shadowed += listed.shadowed;
    broken += !listed.info;
    if (!listed.info) CHECK_FALSE(listed.error.message.empty());
  }
  CHECK(shadowed == 1);
  CHECK(broken >= 15);

  CHECK_FALSE(registry.find(PluginKind::Channel, "other_abi", error));
  CHECK(error.fault == PluginFault::OtherAbi);
}

TEST_CASE("a plugin that is not there is named with its neighbour and the places") {
  PluginRegistry registry({"/nonexistent/plugins", kOwnPlugins});
  PluginError error;
  CHECK_FALSE(registry.find(PluginKind::Channel, "nul", error));
  CHECK(error.fault == PluginFault::NotFound);
  CHECK_THAT(error.message, Contains("There is no channel plugin \"nul\". Did you mean \"null\"?"));
  CHECK_THAT(error.message, Contains("/nonexistent/plugins (does not exist)"));
  CHECK_THAT(error.message, Contains("COWBIRD_PLUGIN_PATH"));
}

TEST_CASE("the search path has the file's entries, the environment's, the program's neighbours") {
  setenv("COWBIRD_PLUGIN_PATH", "/one::/two:/one", 1);
  const auto path = PluginRegistry::default_search_path({"/zero"});
  unsetenv("COWBIRD_PLUGIN_PATH");
  REQUIRE(path.size() >= 5);
  CHECK(path[0] == "/zero");
  CHECK(path[1] == "/one");
  CHECK(path[2] == "/two");
  CHECK(path[3] == fs::read_symlink("/proc/self/exe").parent_path() / "plugins");
}

TEST_CASE("unresolved symbols are named when a plugin is loaded") {
  PluginRegistry registry({kTestPlugins});
  PluginError error;
  const PluginInfo *info = registry.find(PluginKind::Channel, "unresolved", error);
  REQUIRE(info);
  CHECK_FALSE(registry.load(*info, error));
  CHECK(error.fault == PluginFault::UnresolvedSymbol);
  CHECK_THAT(error.message, Contains("the symbol a_function_that_nobody_defines,"));
  CHECK_THAT(error.message, Contains("unresolved.so"));
}

TEST_CASE("a configuration is checked against the schema, all problems at once") {
  const PluginInfo plugin = schema_plugin();
  const auto config = validate_config(
      plugin, {{"path", "disk.img"}, {"size", "2K"}, {"number", "0x3"}, {"flag", "yes"}}, "/base",
      [](std::string_view, std::string_view) {});
  CHECK_FALSE(config);  // 2K is below the range
  CHECK(problems_of(plugin, {{"path", "x"}, {"size", "2K"}}) ==
        std::vector<std::string>{
            "size|\"size\": 2048 is out of range: 4096 to 1099511627776 is allowed."});

  const auto problems = problems_of(plugin, {{"pth", "x"},
                                             {"number", std::int64_t{11}},
                                             {"flag", std::int64_t{1}},
                                             {"mode", "conect"},
                                             {"mac", "1:2:3"},
                                             {"address", "nowhere"},
                                             {"text", true}});
  const std::vector<std::string> expected{
      "address|\"address\": \"nowhere\" is not an address: give HOST:PORT, [IPV6]:PORT or "
      "unix:/path.",
      "flag|\"flag\": An integer is given where a boolean is expected.",
      "mac|\"mac\": \"1:2:3\" is not an Ethernet address such as fe:fd:0a:00:00:02.",
      "mode|\"mode\": \"conect\" is not one of listen, connect. Did you mean \"connect\"?",
      "number|\"number\": 11 is out of range: -10 to 10 is allowed.",
      "pth|The channel plugin \"schema\" has no key \"pth\". Did you mean \"path\"?",
      "text|\"text\": A boolean is given where a string is expected.",
      "path|The channel plugin \"schema\" needs the key \"path\": where it is.",
  };
  CHECK(problems == expected);
}

TEST_CASE("values are normalised, and a checked configuration passes again") {
  const PluginInfo plugin = schema_plugin();
  const auto quiet = [](std::string_view, std::string_view) { FAIL("no problem was expected"); };
  const auto config = validate_config(plugin,
                                      {{"path", "a/../disk.img"},
                                       {"size", "2g"},
                                       {"number", "-0x3"},
                                       {"flag", "on"},
                                       {"address", "[::1]:22"}},
                                      "/base", quiet);
  REQUIRE(config);
  CHECK(std::get<std::string>(config->values.at("path")) == "/base/disk.img");
  CHECK(std::get<std::int64_t>(config->values.at("size")) == 2ll << 30);
  CHECK(std::get<std::int64_t>(config->values.at("number")) == -3);
  CHECK(std::get<bool>(config->values.at("flag")));
  CHECK(std::get<std::string>(config->values.at("mac")) == "fe:fd:0a:00:00:02");
  const auto again = validate_config(plugin, config->values, "/elsewhere", quiet);
  REQUIRE(again);
  CHECK(again->values == config->values);
  for (const char *size : {"", "K", "9223372036854775808", "8388608T", "-1", "1.5M", "1 M"}) {
    INFO(size);
    CHECK(problems_of(plugin, {{"path", "x"}, {"size", size}}).size() == 1);
  }
  CHECK(problems_of(plugin, {{"path", std::string("a\0b", 3)}}).size() == 1);
}

TEST_CASE("a plugin gets its configuration through typed getters, and its failure is reported") {
  PluginRegistry registry({kTestPlugins});
  PluginError error;
  test::PollHostEvents events;
  const PluginInfo *info = registry.find(PluginKind::Channel, "schema", error);
  REQUIRE(info);
  const auto config = validate_config(*info, {{"path", "/disk"}}, {}, {});
  REQUIRE(config);
  CHECK_FALSE(registry.create_channel(*info, "con7", *config, events, error));
  CHECK(error.fault == PluginFault::CreateFailed);
  CHECK(error.message ==
        "con7 (schema): hello listen /disk localhost:80 -5 1048576 0 fefd0a000002 unset 1 1 1");
  CHECK_FALSE(registry.create_block(*info, "ubd0", *config, events, error));
  CHECK(error.fault == PluginFault::WrongKind);
}
