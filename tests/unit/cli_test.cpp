// The command line of `cowbird`: what reaches the kernel, exit statuses, help and completion.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "cli/command_line.hpp"
#include "cli/commands.hpp"
#include "support/fake_catalog.hpp"

using namespace cowbird;
using namespace cowbird::cli;

namespace {

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
  std::optional<BootRequest> request;  // when the kernel was reached
};

Outcome run(const std::vector<std::string> &arguments, int kernel_status = 0) {
  Outcome outcome;
  std::ostringstream out, err;
  test::FakeCatalog plugins;
  const Environment environment{out, err, false, plugins,
                                [&](const BootRequest &request, std::string &error) {
                                  outcome.request = request;
                                  if (kernel_status == 1) error = "The host said no.";
                                  return kernel_status;
                                }};
  outcome.status = run_command_line(arguments, environment);
  outcome.out = out.str();
  outcome.err = err.str();
  return outcome;
}

struct MachineFile {
  explicit MachineFile(const std::string &text) {
    char name[] = "/tmp/cowbird-cli-XXXXXX";
    folder = ::mkdtemp(name);
    path = folder / "m.toml";
    std::ofstream(path) << text;
  }
  ~MachineFile() { std::filesystem::remove_all(folder); }
  std::filesystem::path folder, path;
};

}  // namespace

TEST_CASE("boot hands the machine to the kernel and exits with its status") {
  const MachineFile file("[machine]\nargs = [\"a\"]\n");
  for (const int status : {0, 3}) {
    const auto outcome =
        run({"boot", file.path, "--set", "machine.vcpus=2", "--", "-s", "--", "--help"}, status);
    CHECK(outcome.status == status);
    REQUIRE(outcome.request);
    CHECK(!outcome.request->run);
    CHECK(outcome.request->config.vcpus == 2);
    CHECK(outcome.request->config.args == std::vector<std::string>{"a", "-s", "--", "--help"});
    CHECK(outcome.request->config.name.empty());
    CHECK(outcome.request->file == file.path.string());
    CHECK(outcome.err.empty());
  }
  const auto refused = run({"boot", file.path}, 1);
  CHECK(refused.status == 1);
  CHECK(refused.err == "cowbird: error: The host said no.\n");
}

TEST_CASE("boot starts nothing when the file is wrong") {
  const MachineFile file("[machine]\nvcpus = 0\nmemroy = 1\n");
  const auto outcome = run({"boot", file.path});
  CHECK(outcome.status == 1);
  CHECK(!outcome.request);
  const auto name = file.path.string();
  CHECK(outcome.err == name + ":2:9: error: \"vcpus\" is 0, but must be from 1 to 64.\n" + name +
                           ":3:1: error: There is no key \"memroy\" in [machine]; did you mean "
                           "\"memory\"?\nNothing was started.\n");
}

TEST_CASE("boot takes a UML command line instead of a file") {
  const auto outcome = run({"boot", "--uml", "mem=64M umid=x con0=null A=b 'c d'", "--set",
                            "machine.vcpus=2", "--", "-s"});
  CHECK(outcome.err == "");
  REQUIRE(outcome.request);
  const auto &config = outcome.request->config;
  CHECK(config.memory == 64 * kMiB);
  CHECK(config.name == "x");
  CHECK(config.vcpus == 2);
  CHECK(config.env == std::vector<std::string>{"A=b"});
  CHECK(config.args == std::vector<std::string>{"c d", "-s"});
  CHECK(outcome.request->file.empty());
  CHECK_FALSE(outcome.request->up);
  const auto wrong = run({"boot", "--uml", "mem=1M quiet con0=nosuch"});
  CHECK(wrong.status == 1);
  CHECK_FALSE(wrong.request);
  CHECK(wrong.err.starts_with("word 3, \"con0=nosuch\": error: "));
  CHECK(wrong.err.ends_with("Nothing was started.\n"));
}

TEST_CASE("convert prints one syntax as the other") {
  auto outcome = run({"convert", "--", "mem=64M", "quiet"});
  CHECK(outcome.status == 0);
  CHECK(outcome.out == "[machine]\nmemory    = \"64M\"\nlog_level = \"err\"\n");
  const MachineFile file("[machine]\nmemory = \"64M\"\n[[console]]\nname='con0'\nplugin='pts'\n");
  outcome = run({"convert", file.path});
  CHECK(outcome.out == "mem=64M con0=pts\n");
  outcome = run({"convert", "--to", "toml", file.path});
  CHECK(outcome.status == 1);
  CHECK(outcome.out == "");
  outcome = run({"convert", "/nowhere/file"});
  CHECK(outcome.status == 1);
  CHECK(outcome.err ==
        "/nowhere/file: error: The file cannot be opened: No such file or directory.\n");
}

TEST_CASE("guests are listed and attached to by their directories") {
  const MachineFile folder("");
  auto outcome = run({"ls", "--dir", folder.folder});
  CHECK(outcome.status == 0);
  CHECK(outcome.out == "");
  CHECK(outcome.err == "No guest runs in " + folder.folder.string() + ".\n");
  CHECK(run({"ls", "--json", "--dir", folder.folder}).out == "[]\n");
  outcome = run({"console", "nobody", "--dir", folder.folder});
  CHECK(outcome.status == 1);
  CHECK(outcome.err.starts_with("cowbird: error: "));
}

TEST_CASE("check prints what would be started, or all errors") {
  const MachineFile good("[machine]\nname = \"x\"\n");
  auto outcome = run({"check", good.path});
  CHECK(outcome.status == 0);
  CHECK(outcome.out.starts_with("name       x\nmemory     128M\n"));
  CHECK(!outcome.request);
  const MachineFile bad("a = 1\nb = 2\n");
  outcome = run({"check", bad.path});
  CHECK(outcome.status == 1);
  CHECK(outcome.err.ends_with("2 errors.\n"));
}

TEST_CASE("run makes a machine for one program") {
  ::setenv("COWBIRD_TEST_VARIABLE", "x y", 1);
  const auto outcome =
      run({"run",          "--root",    "/",       "--read-only", "--mount",
           "/tmp:/mnt:ro", "--mount",   "/usr:/u", "--memory",    "256M",
           "--vcpus=3",    "-e",        "A=b=c",   "--env",       "COWBIRD_TEST_VARIABLE",
           "--env",        "PATH=/bin", "-w",      "/root",       "--",
           "sh",           "-c",        "exit 7",  "--"},
          7);
  CHECK(outcome.status == 7);
  CHECK(outcome.err == "");
  REQUIRE(outcome.request);
  const auto &config = outcome.request->config;
  CHECK(config.root.kind == RootKind::HostDirectory);
  CHECK(config.root.read_only);
  CHECK(config.memory == 256 * kMiB);
  CHECK(config.vcpus == 3);
  CHECK(config.log_level == LogLevel::Err);
  REQUIRE(config.mounts.size() == 2);
  CHECK(config.mounts[0].guest == "/mnt");
  CHECK(config.mounts[0].read_only);
  CHECK(!config.mounts[1].read_only);
  REQUIRE(outcome.request->run);
  const auto &command = *outcome.request->run;
  CHECK(command.argv == std::vector<std::string>{"sh", "-c", "exit 7", "--"});
  CHECK(command.cwd == "/root");
  const auto has = [&](const char *item) {
    return std::find(command.env.begin(), command.env.end(), item) != command.env.end();
  };
  CHECK(has("A=b=c"));
  CHECK(has("COWBIRD_TEST_VARIABLE=x y"));
  CHECK(has("PATH=/bin"));
  CHECK(has("HOME=/root"));
  CHECK(command.env.size() == 5);
}

TEST_CASE("run reports what the host does not allow, by the option that asked for it") {
  auto outcome = run({"run", "--mount", "/no/such:/x", "--memory", "lots", "--", "true"});
  CHECK(outcome.status == 1);
  CHECK(
      outcome.err.find("--mount /no/such:/x: error: The directory \"/no/such\" cannot be used: No "
                       "such file or directory.\n") != std::string::npos);
  CHECK(outcome.err.find("--memory lots: error: ") == 0);
}

TEST_CASE("wrong usage") {
  for (const std::vector<std::string> &words :
       std::vector<std::vector<std::string>>{{},
                                             {"bot", "x"},
                                             {"boot"},
                                             {"boot", "a", "b"},
                                             {"run"},
                                             {"run", "--"},
                                             {"run", "ls"},
                                             {"run", "--mount", "a", "--", "x"},
                                             {"run", "--mount", "a:b:rx", "--", "x"},
                                             {"run", "--workdir", "x", "--", "x"},
                                             {"run", "-e", "=x", "--", "x"},
                                             {"check", "f", "--", "x"},
                                             {"plugin"},
                                             {"plugin", "shwo"},
                                             {"boot", "f", "--sett", "x"},
                                             {"boot", "f", "--set"},
                                             {"boot"},
                                             {"boot", "f", "--uml", "mem=64M"},
                                             {"boot", "f", "--log", "x"},
                                             {"convert"},
                                             {"convert", "f", "--", "mem=64M"},
                                             {"convert", "f", "--to", "yaml"},
                                             {"convert", "--to", "uml", "--", "mem=64M"},
                                             {"console"},
                                             {"console", "x", "--escape", "control"},
                                             {"ls", "x"},
                                             {"completion", "fish"},
                                             {"--nonsense"}}) {
    CAPTURE(words);
    const auto outcome = run(words);
    CHECK(outcome.status == 2);
    CHECK(outcome.out.empty());
    CHECK(!outcome.err.empty());
    CHECK(!outcome.request);
  }
  CHECK(run({"bot", "x"}).err ==
        "There is no command \"bot\"; did you mean boot?\nTry: cowbird --help\n");
  CHECK(run({"plugin", "shwo"})
            .err.starts_with("There is no command \"shwo\"; did you mean show?\n"));
  CHECK(run({"boot", "f", "--sett", "x"}).err ==
        "There is no option --sett; did you mean --set?\nTry: cowbird boot --help\n");
}

TEST_CASE("help, with an example for every command") {
  CHECK(run({"--version"}).out.starts_with("cowbird "));
  for (const auto &command : command_docs()) {
    CAPTURE(command.name);
    CHECK(!command.help.empty());
    CHECK(!command.example.empty());
    std::vector<std::string> words;
    std::istringstream in(command.name);
    for (std::string word; in >> word;) words.push_back(word);
    words.emplace_back("--help");
    const auto outcome = run(words);
    CHECK(outcome.status == 0);
    CHECK(outcome.err.empty());
    CHECK(outcome.out.find("Usage: cowbird") != std::string::npos);
    CHECK(outcome.out.find(command.example) != std::string::npos);
  }
}

TEST_CASE("the usage shows which words may be left out") {
  const auto usage = [](const std::vector<std::string> &words) {
    const auto text = run(words).out;
    const auto at = text.find("Usage: ");
    return text.substr(at, text.find('\n', at) - at);
  };
  CHECK(usage({"console", "--help"}) == "Usage: cowbird console [OPTIONS] GUEST [DEVICE]");
  CHECK(usage({"boot", "--help"}) == "Usage: cowbird boot [OPTIONS] [FILE] [-- INIT ARGS...]");
  CHECK(usage({"check", "--help"}) == "Usage: cowbird check [OPTIONS] FILE");
}

TEST_CASE("completion knows commands, options, files and guests") {
  const MachineFile script(bash_completion(command_docs()));
  const auto complete = [&](const std::string &words) {
    const auto command =
        "bash -c 'cowbird() { case \"$*\" in \"ls --names\") echo demo other ;; "
        "\"mconsole demo devices\") printf \"OK con0 [open]=fd:0,fd:1\\nssl2=pts\\nmem=1M\\n\" ;; "
        "esac; }; "
        "source \"$1\"; shift; COMP_WORDS=(\"$@\"); "
        "COMP_CWORD=$(($# - 1)); _cowbird; echo ${COMPREPLY[@]}' - " +
        script.path.string() + " " + words;
    std::FILE *pipe = ::popen(command.c_str(), "r");
    char buffer[512];
    const auto n = std::fread(buffer, 1, sizeof buffer, pipe);
    ::pclose(pipe);
    return std::string(buffer, n);
  };
  CHECK(complete("cowbird bo") == "boot\n");
  CHECK(complete("cowbird plugin s") == "show\n");
  CHECK(complete("cowbird run --me") == "--memory\n");
  CHECK(complete("cowbird boot --s") == "--set\n");
  CHECK(complete("cowbird convert --to u") == "uml\n");
  CHECK(complete("cowbird convert " + script.folder.string() + "/m") ==
        script.path.string() + "\n");
  CHECK(complete("cowbird console --re") == "--read-only\n");
  CHECK(complete("cowbird check " + script.folder.string() + "/m") == script.path.string() + "\n");
  CHECK(complete("cowbird run -- /et") == "/etc\n");
  // The guests that run, and what each has.
  for (const std::string command : {"console", "mconsole", "gdb", "gdbserver"}) {
    CHECK(complete("cowbird " + command + " d") == "demo\n");
    CHECK(complete("cowbird " + command + " --di") == "--dir\n");
  }
  CHECK(complete("cowbird console demo c") == "con0\n");
  CHECK(complete("cowbird console demo ss") == "ssl2\n");
  CHECK(complete("cowbird mconsole demo ver") == "version\n");
  CHECK(complete("cowbird mconsole demo sys") == "sysrq\n");
}
