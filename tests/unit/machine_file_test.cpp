// Machine files: what is accepted, and every kind of error with its exact place.
#include "machine/machine_file.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "machine/describe.hpp"
#include "machine/size.hpp"
#include "support/fake_catalog.hpp"

using namespace cowbird;

namespace {

LoadedMachine parse(std::string_view text, std::vector<std::string> sets = {}) {
  test::FakeCatalog plugins;
  std::vector<SetOption> options;
  for (const auto &set : sets) options.push_back(SetOption::from_argument(set));
  return parse_machine(text, "m.toml", "/", options, plugins);
}

// All errors, one line each.
std::string errors_of(std::string_view text, std::vector<std::string> sets = {}) {
  const auto loaded = parse(text, std::move(sets));
  CHECK(loaded.config.has_value() == loaded.errors.empty());
  std::string out;
  for (const auto &error : loaded.errors) out += error.text() + "\n";
  return out;
}

MachineConfig config_of(std::string_view text, std::vector<std::string> sets = {}) {
  CHECK(errors_of(text, sets) == "");
  auto loaded = parse(text, std::move(sets));
  return loaded.config.value_or(MachineConfig{});
}

struct TemporaryFolder {
  TemporaryFolder() {
    char name[] = "/tmp/cowbird-machine-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

}  // namespace

TEST_CASE("an empty machine file boots with the defaults") {
  const auto config = config_of("");
  CHECK(config.memory == 128 * kMiB);
  CHECK(config.vcpus == 1);
  CHECK(config.name.empty());
  CHECK(!config.init);
  CHECK(config.log_level == LogLevel::Info);
  CHECK(config.root.kind == RootKind::EmbeddedInitramfs);
  REQUIRE(config.consoles.size() == 1);
  CHECK(config.consoles[0].name == "con0");
  CHECK(config.consoles[0].input.plugin == "fd");
  CHECK(std::get<std::int64_t>(config.consoles[0].input.config.values.at("output")) == 1);
}

TEST_CASE("all keys of a machine file") {
  const auto config = config_of(R"(
[machine]
name = "demo"
memory = 33554432
vcpus = 2
init = "/sbin/init"
args = ["-s", "x y"]
log_level = "debug"
[root]
source = "/"
type = "hostfs"
options = ["ro"]
[[block]]
name = "ubd1"
plugin = "file"
path = "b.img"
[[block]]
name = "ubda"
plugin = "file"
path = "/a.img"
readonly = true
cache = "2M"
[[console]]
name = "con1"
plugin = "fd"
input = 3
output = 4
[[mount]]
host = "/tmp"
guest = "/mnt/x/"
ro = true
[debug]
wait = false
[plugins]
path = ["/usr"]
)");
  CHECK(config.name == "demo");
  CHECK(config.memory == 32 * kMiB);
  CHECK(config.vcpus == 2);
  CHECK(config.init == "/sbin/init");
  CHECK(config.args == std::vector<std::string>{"-s", "x y"});
  CHECK(config.log_level == LogLevel::Debug);
  CHECK(config.root.kind == RootKind::HostDirectory);
  CHECK(config.root.path == "/");
  CHECK(config.root.read_only);
  REQUIRE(config.blocks.size() == 2);
  CHECK(config.blocks[0].name == "ubda");  // sorted by unit
  CHECK(config.blocks[0].unit == 0);
  CHECK(config.blocks[0].where == "m.toml:17:1");
  CHECK(std::get<bool>(config.blocks[0].config.values.at("readonly")));
  CHECK(std::get<std::int64_t>(config.blocks[0].config.values.at("cache")) == 2 * 1024 * 1024);
  CHECK(std::get<std::string>(config.blocks[1].config.values.at("path")) == "/b.img");
  REQUIRE(config.consoles.size() == 1);
  CHECK(config.consoles[0].unit == 1);
  REQUIRE(config.mounts.size() == 1);
  CHECK(config.mounts[0].host == "/tmp");
  CHECK(config.mounts[0].guest == "/mnt/x");
  CHECK(config.mounts[0].read_only);
  CHECK(config.plugin_path == std::vector<std::filesystem::path>{"/usr"});
  const auto text = describe_machine(config);
  CHECK(text.find("memory     32M\n") != std::string::npos);
  CHECK(text.find("root       host directory /, read-only\n") != std::string::npos);
  CHECK(text.find("ubda       file: cache=2097152 discard=true lock=true path=/a.img "
                  "readonly=true sync=false\n") != std::string::npos);
}

TEST_CASE("sizes") {
  CHECK(parse_size("128M") == 128 * kMiB);
  CHECK(parse_size("4k") == 4096u);
  CHECK(parse_size("1G") == kGiB);
  CHECK(parse_size("17") == 17u);
  CHECK(parse_size("8388607T") == 8388607ull << 40);
  for (const char *bad : {"", "M", "-1", "+1", "1.5G", "128MB", " 1", "1 ", "0x10", "8388608T",
                          "99999999999999999999"}) {
    CHECK(!parse_size(bad));
  }
  CHECK(format_size(128 * kMiB) == "128M");
  CHECK(format_size(1536 * kKiB) == "1536K");
  CHECK(format_size(0) == "0");
}

TEST_CASE("a syntax error has its place") {
  CHECK(errors_of("[machine]\nname = \n") ==
        "m.toml:2:8: Error while parsing key-value pair: expected value, saw '\\n'.\n");
}

TEST_CASE("unknown keys and tables, with what was meant") {
  CHECK(errors_of("[machine]\nmemroy = 5\n") ==
        "m.toml:2:1: There is no key \"memroy\" in [machine]; did you mean \"memory\"?\n");
  CHECK(errors_of("[debug]\n  qqqqqq = 1\n") ==
        "m.toml:2:3: There is no key \"qqqqqq\" in [debug]; known are gdb, wait, on_panic, core, "
        "core_memory.\n");
  CHECK(errors_of("[machin]\n") ==
        "m.toml:1:2: There is no table \"machin\" in a machine file; did you mean \"machine\"?\n");
  CHECK(errors_of("vcpus = 2\n") ==
        "m.toml:1:1: \"vcpus\" stands outside of a table; it belongs in [machine].\n");
}

TEST_CASE("wrong types") {
  CHECK(errors_of("[machine]\nvcpus = \"2\"\nname = 1\nquiet = 1\nmemory = true\nargs = \"x\"\n") ==
        "m.toml:2:9: \"vcpus\" must be an integer, not a string.\n"
        "m.toml:3:8: \"name\" must be a string, not an integer.\n"
        "m.toml:4:9: \"quiet\" must be true or false, not an integer.\n"
        "m.toml:5:10: \"memory\" must be a size, such as \"128M\" or an integer in bytes, not a "
        "boolean.\n"
        "m.toml:6:8: \"args\" must be an array of strings, not a string.\n");
  CHECK(errors_of("[machine]\nargs = [\"a\", 2]\n") ==
        "m.toml:2:14: \"args\" must hold strings only, not an integer.\n");
  CHECK(errors_of("machine = 3\n") ==
        "m.toml:1:11: \"machine\" must be a table, [machine], not an integer.\n");
  CHECK(errors_of("[block]\nname = \"ubd0\"\n") ==
        "m.toml:1:1: \"block\" must be an array of tables, not a table. Write [[block]].\n");
  CHECK(errors_of("console = [1]\n") ==
        "m.toml:1:12: \"console\" must hold tables only, not an integer.\n");
  CHECK(errors_of("[machine]\nvcpus = 1.0\nname = 2020-01-01\n") ==
        "m.toml:2:9: \"vcpus\" must be an integer, not a floating-point number.\n"
        "m.toml:3:8: \"name\" must be a string, not a date or time.\n");
}

TEST_CASE("values out of range") {
  CHECK(errors_of("[machine]\nvcpus = 0\nmemory = \"1M\"\nname = \"a b\"\ninit = \"sh\"\n") ==
        "m.toml:2:9: \"vcpus\" is 0, but must be from 1 to 64.\n"
        "m.toml:3:10: \"memory\" is 1M, but must be from 16M to 1T.\n"
        "m.toml:4:8: \"a b\" is no name for a machine: it must be 1 to 63 letters, digits, '-', "
        "'_' and '.', and begin with a letter, a digit or '_'.\n"
        "m.toml:5:8: \"init\" is \"sh\", but must be an absolute path in the guest, such as "
        "\"/sbin/init\".\n");
  CHECK(errors_of("[machine]\nmemory = \"12Q\"\n") ==
        "m.toml:2:10: \"memory\" is \"12Q\", which is no size. Write one such as \"128M\", with K, "
        "M, G or T, or an integer in bytes.\n");
  CHECK(errors_of("[machine]\nmemory = -1\n") ==
        "m.toml:2:10: \"memory\" is negative, but must be from 16M to 1T.\n");
  CHECK(errors_of("[machine]\nmemory = 33554433\n") ==
        "m.toml:2:10: \"memory\" is 33554433 bytes, but must be a multiple of 4096.\n");
  CHECK(errors_of("[machine]\nlog_level = \"wraning\"\n") ==
        "m.toml:2:13: There is no log level \"wraning\"; did you mean \"warning\"?\n");
  CHECK(errors_of("[machine]\nlog_level = \"info\"\nquiet = true\n") ==
        "m.toml:3:9: \"quiet\" and \"log_level\" contradict each other. Keep one of them.\n");
  CHECK(errors_of("[machine]\ninit = \"/a\\u0000b\"\n") ==
        "m.toml:2:8: A text must not hold a NUL character.\n");
}

TEST_CASE("the root") {
  TemporaryFolder folder;
  const auto image = folder.path / "root.cpio";
  std::ofstream(image) << "x";
  CHECK(config_of("[root]\nsource = \"" + image.string() + "\"\n").root.kind ==
        RootKind::InitramfsFile);
  CHECK(config_of("[root]\ntype = \"initramfs\"\n").root.kind == RootKind::EmbeddedInitramfs);
  CHECK(errors_of("[root]\nsource = \"" + image.string() + "\"\ntype = \"hostfs\"\n") ==
        "m.toml:3:8: \"" + image.string() + "\" is a file; \"hostfs\" needs a directory.\n");
  CHECK(errors_of("[root]\nsource = \"/\"\ntype = \"initramfs\"\n") ==
        "m.toml:3:8: \"/\" is a directory, and so no initramfs.\n");
  CHECK(errors_of("[root]\nsource = \"/dev/null\"\n") ==
        "m.toml:2:10: The root \"/dev/null\" is neither a directory nor a file.\n");
  CHECK(errors_of("[root]\nsource = \"no/such\"\n") ==
        "m.toml:2:10: The root \"/no/such\" cannot be used: No such file or directory.\n");
  CHECK(errors_of("[root]\ntype = \"hostfs\"\n") ==
        "m.toml:2:8: A root of type \"hostfs\" needs the key \"source\", a directory.\n");
  CHECK(errors_of("[root]\nsource = \"ubd0\"\ntype = \"ext4\"\noptions = [\"r\"]\n") ==
        "m.toml:2:10: This version cannot mount the block device \"ubd0\" as root; a root is a "
        "directory of the host or an initramfs.\n"
        "m.toml:3:8: This version has no root file system \"ext4\"; known are hostfs, initramfs.\n"
        "m.toml:4:12: There is no root option \"r\"; did you mean \"ro\"?\n");
}

TEST_CASE("devices") {
  CHECK(errors_of("[[block]]\nplugin = \"file\"\npath = \"x\"\n") ==
        "m.toml:1:1: [[block]] needs the key \"name\".\n");
  CHECK(errors_of("[[block]]\nname = \"ubd0\"\n") ==
        "m.toml:1:1: [[block]] needs the key \"plugin\".\n");
  CHECK(errors_of("[[block]]\nname = \"ubd01\"\nplugin = \"file\"\npath = \"x\"\n") ==
        "m.toml:2:8: \"ubd01\" is no name for a block device: ubd0, ubd1 and so on (also ubda to "
        "ubdz) "
        "are.\n");
  CHECK(errors_of("[[console]]\nname = \"con01\"\nplugin = \"fd\"\n") ==
        "m.toml:2:8: \"con01\" is no name for a console: con0, con1 and so on, or con* for all "
        "others are.\n");
  CHECK(errors_of("[[block]]\nname = \"ubd0\"\nplugin = \"nosuch\"\n") ==
        "m.toml:3:10: There is no block backend plugin \"nosuch\".\n");
  CHECK(errors_of("[[console]]\nname = \"con0\"\nplugin = \"broken\"\n") ==
        "m.toml:3:10: The plugin \"broken\" needs the symbol \"x\".\n");
  CHECK(errors_of("[[block]]\nname = \"ubd0\"\nplugin = \"file\"\n") ==
        "m.toml:1:1: The block backend plugin \"file\" needs the key \"path\".\n");
}

TEST_CASE("keys of a plugin") {
  CHECK(errors_of("[[block]]\nname = \"ubd0\"\nplugin = \"file\"\npath = 1\nreadolny = true\n") ==
        "m.toml:4:8: \"path\" must be a string, not an integer.\n"
        "m.toml:5:1: Plugin \"file\" has no key \"readolny\"; did you mean \"readonly\"?\n");
  CHECK(errors_of("[[console]]\nname = \"con0\"\nplugin = \"fd\"\ninput = \"0\"\n") ==
        "m.toml:4:9: \"input\" must be an integer, not a string.\n");
  const auto range = errors_of("[[console]]\nname = \"con0\"\nplugin = \"fd\"\ninput = 5000\n");
  CHECK(range.starts_with("m.toml:4:9: "));
  CHECK(range.find("1023") != std::string::npos);
}

TEST_CASE("a name used twice") {
  CHECK(errors_of("[[block]]\nname = \"ubd0\"\nplugin = \"file\"\npath = \"a\"\n"
                  "[[block]]\nname = \"ubda\"\nplugin = \"file\"\npath = \"b\"\n") ==
        "m.toml:6:8: The name \"ubda\" is used twice; the other is at m.toml:2:8.\n");
  CHECK(errors_of("[[mount]]\nhost = \"/\"\nguest = \"/a\"\n"
                  "[[mount]]\nhost = \"/\"\nguest = \"/a/\"\n") ==
        "m.toml:6:9: The name \"/a\" is used twice; the other is at m.toml:3:9.\n");
}

TEST_CASE("network interfaces are checked and refused") {
  CHECK(errors_of("[[net]]\nname = \"vec0\"\nplugin = \"tap\"\nifname = \"tap0\"\n") ==
        "m.toml:3:10: There is no transport plugin \"tap\".\n");
  CHECK(errors_of("[[net]]\nname = \"v/0\"\nplugin = \"wire\"\n") ==
        "m.toml:2:8: \"v/0\" is no name for an interface: it must be 1 to 15 characters without "
        "spaces, '/' and ':'.\n"
        "m.toml:3:10: This version has no network: it can use no transport plugin.\n");
}

TEST_CASE("mounts") {
  CHECK(errors_of("[[mount]]\nhost = \"/no/such\"\nguest = \"x\"\n") ==
        "m.toml:2:8: The directory \"/no/such\" cannot be used: No such file or directory.\n"
        "m.toml:3:9: \"x\" is no place for a mount: it must be an absolute path in the guest, and "
        "not \"/\" itself ([root] is for that).\n");
  CHECK(errors_of("[[mount]]\nhost = \"/dev/null\"\nguest = \"/x/..\"\n") ==
        "m.toml:2:8: \"/dev/null\" is no directory.\n"
        "m.toml:3:9: \"/x/..\" is no place for a mount: it must be an absolute path in the guest, "
        "and not \"/\" itself ([root] is for that).\n");
}

TEST_CASE("the table of kernel developers") {
  const auto config = config_of(
      "[debug]\ngdb = \"tcp:127.0.0.1:1234\"\nwait = true\non_panic = \"wait\"\ncore = \"/tmp\"\n"
      "core_memory = true\n");
  CHECK(config.debug.gdb == "tcp:127.0.0.1:1234");
  CHECK(config.debug.wait);
  CHECK(config.debug.on_panic == OnPanic::Wait);
  CHECK(config.debug.core == "/tmp");
  CHECK(config.debug.core_memory);
  CHECK(config_of("").debug.gdb.empty());
  CHECK(config_of("[debug]\non_panic = \"exit\"\n").debug.on_panic == OnPanic::Exit);
  CHECK(config_of("[debug]\ngdb = \"unix:/run/x\"\n").debug.gdb == "unix:/run/x");
  CHECK(config_of("[debug]\ngdb = \"tcp::0\"\n").debug.gdb == "tcp::0");
}

TEST_CASE("a gdb server that is written wrongly") {
  CHECK(errors_of("[debug]\ngdb = \"localhost:1234\"\n") ==
        "m.toml:2:7: \"localhost:1234\" is no address for a gdb server: write "
        "\"tcp:127.0.0.1:1234\", \"unix:PATH\" or \"stdio\".\n");
  CHECK_FALSE(errors_of("[debug]\ngdb = \"tcp:127.0.0.1:70000\"\n").empty());
  CHECK_FALSE(errors_of("[debug]\ngdb = \"unix:\"\n").empty());
  CHECK_FALSE(errors_of("[debug]\ngdb = \"unix:/" + std::string(200, 'x') + "\"\n").empty());
  CHECK(
      errors_of("[debug]\nwait = true\n") ==
      "m.toml:2:8: There is nothing to wait for: \"wait\" needs the key \"gdb\", the address of a "
      "gdb server.\n");
  CHECK(errors_of("[debug]\non_panic = \"wiat\"\n") ==
        "m.toml:2:12: \"on_panic\" cannot be \"wiat\"; did you mean \"wait\"?\n");
  CHECK(errors_of("[debug]\ncore = \"/dev/null\"\n") ==
        "m.toml:2:8: \"/dev/null\" is no directory.\n");
  CHECK(errors_of("[debug]\ncore_memory = true\n") ==
        "m.toml:2:15: There is no core file to put memory into: \"core_memory\" needs the key "
        "\"core\", a directory.\n");
}

TEST_CASE("gdb on standard input leaves no room for a console there") {
  const auto config = config_of("[debug]\ngdb = \"stdio\"\n");
  REQUIRE(config.consoles.size() == 1);
  CHECK(config.consoles[0].input.plugin == "null");
  CHECK_THAT(errors_of("[debug]\ngdb = \"stdio\"\n[[console]]\nname = \"con0\"\nplugin = "
                       "\"fd\"\ninput = 0\noutput = 1\n"),
             Catch::Matchers::Contains("needs; put it elsewhere"));
}

TEST_CASE("errors come in the order of the file") {
  CHECK(errors_of("[plugins]\npaht = []\n[[net]]\nname = \"a\"\nplugin = \"tap\"\n[machine]\n"
                  "vcpus = 99\n[aaa]\n") ==
        "m.toml:2:1: There is no key \"paht\" in [plugins]; did you mean \"path\"?\n"
        "m.toml:5:10: There is no transport plugin \"tap\".\n"
        "m.toml:7:9: \"vcpus\" is 99, but must be from 1 to 64.\n"
        "m.toml:8:2: There is no table \"aaa\" in a machine file; known are machine, root, block, "
        "console, serial, net, mount, debug, plugins.\n");
}

TEST_CASE("--set changes the description") {
  const std::string file =
      "[machine]\nmemory = \"64M\"\n[[block]]\nname = \"ubd0\"\nplugin = \"file\"\npath = \"a\"\n";
  const auto config =
      config_of(file, {"machine.memory=256M", "machine.name=demo", "machine.args=[\"a\", \"b\"]",
                       "machine.args.2=c", "block.0.path=/x.img", "block.ubd0.readonly=true",
                       "block.1.name=ubd1", "block.1.plugin=file", "block.1.path=/y"});
  CHECK(config.memory == 256 * kMiB);
  CHECK(config.name == "demo");
  CHECK(config.args == std::vector<std::string>{"a", "b", "c"});
  REQUIRE(config.blocks.size() == 2);
  CHECK(std::get<std::string>(config.blocks[0].config.values.at("path")) == "/x.img");
  CHECK(std::get<bool>(config.blocks[0].config.values.at("readonly")));
  CHECK(config.blocks[1].name == "ubd1");
  // A path in an option is relative to the current directory, not to the file's.
  const auto here = std::filesystem::current_path() / "z";
  CHECK(std::get<std::string>(
            config_of(file, {"block.0.path=z"}).blocks[0].config.values.at("path")) == here);
  CHECK(config_of("", {"console.0.name=con2", "console.0.plugin=fd"}).consoles[0].unit == 2);
}

TEST_CASE("errors in --set name the option") {
  CHECK(errors_of("[machine]\nvcpus = 0\n", {"machine.memory=lots", "machine.nmae=x"}) ==
        "m.toml:2:9: \"vcpus\" is 0, but must be from 1 to 64.\n"
        "--set machine.memory=lots: \"memory\" is \"lots\", which is no size. Write one such as "
        "\"128M\", with K, M, G or T, or an integer in bytes.\n"
        "--set machine.nmae=x: There is no key \"nmae\" in [machine]; did you mean \"name\"?\n");
  CHECK(errors_of("", {"machine.vcpus"}) ==
        "--set machine.vcpus: There is no '=' in it. Write KEY=VALUE, such as "
        "machine.memory=256M.\n");
  CHECK(errors_of("", {"machine..a=1"}) ==
        "--set machine..a=1: The key has an empty part. Write it such as block.0.path=disk.img.\n");
  CHECK(errors_of("[machine]\nmemory = 67108864\n", {"machine.memory.x=1"}) ==
        "--set machine.memory.x=1: \"machine.memory\" is neither a table nor an array.\n");
  CHECK(errors_of("", {"block.1.name=ubd0"}) ==
        "--set block.1.name=ubd0: \"block\" has 0 elements, so the next index is 0, not 1.\n");
  CHECK(errors_of("[[console]]\nname = \"con0\"\nplugin = \"fd\"\n", {"console.con1.input=3"}) ==
        "--set console.con1.input=3: No element of \"console\" is named \"con1\". There is "
        "con0.\n");
  CHECK(errors_of("", {"machine.name=5"}) ==
        "--set machine.name=5: \"name\" must be a string, not an integer.\n");
  CHECK(errors_of("", {std::string("machine.name=a\n[root]\nsource='x'")}).find("is no name") !=
        std::string::npos);
}

TEST_CASE("reading a file") {
  test::FakeCatalog plugins;
  TemporaryFolder folder;
  const auto file = folder.path / "m.toml";
  auto errors = load_machine_file(file, {}, plugins).errors;
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].text() ==
        file.string() + ": The machine file cannot be opened: No such file or directory.");
  CHECK(load_machine_file(folder.path, {}, plugins).errors.at(0).message ==
        "This is a directory, not a machine file.");
  // Relative paths are relative to the file, wherever the caller is.
  std::ofstream(file) << "[root]\nsource = \".\"\n[[block]]\nname = \"ubd0\"\nplugin = "
                         "\"file\"\npath = \"d.img\"\n";
  const auto loaded = load_machine_file(file, {}, plugins);
  REQUIRE(loaded.config);
  CHECK(std::get<std::string>(loaded.config->blocks[0].config.values.at("path")) ==
        (folder.path / "d.img").string());
  std::ofstream(file) << std::string(2 * kMiB, '#');
  CHECK(load_machine_file(file, {}, plugins).errors.at(0).message ==
        "The file is larger than 1M, which no machine file is.");
}

TEST_CASE("a name that begins wrongly is an error of the file") {
  CHECK(errors_of("\n[=]\n") ==
        "m.toml:2:2: Error while parsing key: expected bare key starting character or string "
        "delimiter, saw '='.\n");
  CHECK(errors_of("[\b").starts_with("m.toml:1:"));
  CHECK(errors_of("a=[ϫ\n").starts_with("m.toml:1:"));
}
