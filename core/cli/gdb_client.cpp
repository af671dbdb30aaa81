#include "cli/gdb_client.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <vector>

#include "boot/boot.hpp"
#include "instance/instance.hpp"

namespace cowbird::cli {
namespace {

namespace fs = std::filesystem;

std::string own_program() {
  std::error_code error;
  const fs::path path = fs::read_symlink("/proc/self/exe", error);
  return error ? "/proc/self/exe" : path.string();
}

// The file that a process runs: by its name, or by way of the process when the file was replaced.
std::string program_of(pid_t pid) {
  const std::string link = fmt::format("/proc/{}/exe", pid);
  std::error_code error;
  const fs::path path = fs::read_symlink(link, error);
  if (error || !fs::equivalent(path, link, error) || error) return link;
  return path.string();
}

// As installed, or as in a build tree.
std::optional<std::string> script_for(const std::string &program) {
  std::error_code error;
  const fs::path folder = fs::path(program).parent_path();
  for (const fs::path &share : {folder / "share", folder.parent_path() / "share"}) {
    const fs::path script = share / "cowbird" / "cowbird-gdb.py";
    if (fs::exists(script, error)) return script.string();
  }
  return std::nullopt;
}

// For gdb's command line, which gives it to a shell.
std::string shell_word(const std::string &word) {
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? "'\\''" : std::string(1, c);
  return text + "'";
}

}  // namespace

int start_gdb(const GdbArguments &arguments, std::string &error) {
  std::string program, server;
  if (arguments.core.empty()) {
    const auto root = instance_root(arguments.directory, error);
    const auto guest = root ? find_instance(*root, arguments.guest, error) : std::nullopt;
    if (!guest) return kExitHostError;
    program = program_of(guest->pid);
    // The guest's own program knows the guest's own structures.
    server = fmt::format("{} gdbserver --pid {} --stdio", shell_word(program), guest->pid);
  } else {
    if (::access(arguments.core.c_str(), R_OK) != 0) {
      error =
          fmt::format("The core file {} cannot be read: {}.", arguments.core, std::strerror(errno));
      return kExitHostError;
    }
    program = arguments.program;
    server = fmt::format("{} gdbserver --core {} --stdio", shell_word(own_program()),
                         shell_word(fs::absolute(arguments.core).string()));
    if (!program.empty())
      server += fmt::format(" --program {}", shell_word(fs::absolute(program).string()));
  }
  std::vector<std::string> words = {"gdb", "-q"};
  const auto script = arguments.no_script ? std::nullopt : script_for(own_program());
  if (script) words.insert(words.end(), {"-ex", "source " + *script});
  words.insert(words.end(), {"-ex", "target extended-remote | " + server});
  words.insert(words.end(), arguments.gdb_arguments.begin(), arguments.gdb_arguments.end());
  if (!program.empty()) words.push_back(program);
  std::vector<char *> argv;
  for (std::string &word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execvp("gdb", argv.data());
  error = errno == ENOENT ? "There is no gdb on this host: install the Debian package gdb."
                          : fmt::format("gdb cannot be started: {}.", std::strerror(errno));
  return kExitHostError;
}

}  // namespace cowbird::cli
