// The command line of the `cowbird` program: what can be written, and what was. Parsing has no
// effects; cli/commands.hpp acts on the result. For core/cli and its tests.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace cowbird::cli {

struct BootArguments {
  std::string file;                // empty: `uml` is the machine
  std::optional<std::string> uml;  // a UML command line
  bool daemon = false;
  std::string log;                     // of the daemon; empty: none
  std::vector<std::string> sets;       // KEY=VALUE
  std::vector<std::string> init_args;  // after --
};

struct RunArguments {
  std::string root;        // empty: the embedded initramfs
  bool read_only = false;  // the root
  bool strace = false;
  std::vector<std::string> mounts;  // HOST:GUEST[:ro]
  std::string memory;               // empty: the default
  std::string vcpus;
  std::vector<std::string> env;  // NAME=VALUE, or NAME for the caller's value
  std::string workdir = "/";
  std::vector<std::string> sets;
  std::vector<std::string> command;  // after --, never empty
};

struct CheckArguments {
  std::string file;
  std::vector<std::string> sets;
};

struct PluginListArguments {
  std::vector<std::string> path;
  bool names_only = false;
};

struct PluginShowArguments {
  std::string name;
  std::vector<std::string> path;
};

struct ConvertArguments {
  std::string file;                // "-": standard input; empty: `words`
  std::string to;                  // "uml", "toml", or by the file's name
  std::vector<std::string> words;  // after --
};

struct ListArguments {
  std::string directory;  // of running guests; empty: the default
  bool json = false;
  bool names_only = false;
};

struct ConsoleArguments {
  std::string guest;
  std::string device;     // empty: con0
  std::string directory;  // of running guests; empty: the default
  bool read_only = false;
  std::string escape = "^]";
};

// What `cowbird gdbserver` serves and where; debug/program acts on it.
struct GdbServerArguments {
  std::string guest;    // by name, directory or process id; empty with pid or core
  int pid = 0;          // of the kernel's process; 0: by `guest`
  std::string core;     // a core file instead of a running guest
  std::string program;  // that left it; empty: the one that the core file names
  std::string listen;   // empty: stdio
  bool once = false;
  bool log_packets = false;
  int announce = -1;       // where the kernel that starts it is told the address; -1: nowhere
  std::string write_core;  // the file; then nothing is served
  std::string panic;       // the message, stored in it
  int thread = 0;          // the host thread that it is about
  bool guest_memory = false;
  std::string directory;
};

struct GdbArguments {
  std::string guest;
  std::string core;
  std::string program;  // with a core; empty: the one that the core names
  bool no_script = false;
  std::string directory;
  std::vector<std::string> gdb_arguments;  // after --
};

struct MconsoleArguments {
  std::string name;                  // of the guest, or a path, or a process id
  std::string directory;             // where guests' directories are; empty: the default
  unsigned timeout = 10;             // seconds
  std::vector<std::string> command;  // empty: a prompt
};

// Asked-for text that has been made already: help, version, manual page, completion.
struct PrintText {
  std::string text;
};

struct WrongUsage {
  std::string message;  // full sentences
};

using ParsedCommand =
    std::variant<BootArguments, RunArguments, CheckArguments, PluginListArguments,
                 PluginShowArguments, ConvertArguments, ListArguments, ConsoleArguments,
                 MconsoleArguments, GdbArguments, GdbServerArguments, PrintText, WrongUsage>;

// `arguments` without the program's name.
ParsedCommand parse_command_line(const std::vector<std::string> &arguments);

// The commands as data, for what is generated from them.
struct OptionDoc {
  std::string names;  // "-e,--env", or "FILE" for a positional
  std::string value;  // "KEY=VALUE"; empty for flags
  std::string help;
  bool positional = false;
  bool required = false;
};
struct CommandDoc {
  std::string name;  // "plugin show"; empty for the program itself
  std::string help;
  std::string tail;     // "[-- ARGS...]"
  std::string example;  // lines
  std::vector<OptionDoc> options;
  bool leaf = true;  // false: has subcommands of its own
};
std::vector<CommandDoc> command_docs();

// What `cowbird COMMAND --help` prints; `name` is one of the commands', or empty.
std::string help_text(const std::vector<CommandDoc> &commands, const std::string &name);

// A manual page in man(7) macros, and a completion script for bash.
std::string man_page(const std::vector<CommandDoc> &commands);
std::string bash_completion(const std::vector<CommandDoc> &commands);

}  // namespace cowbird::cli
