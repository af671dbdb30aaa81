#include "cli/mconsole_command.hpp"

#include <editline/readline.h>
#include <fmt/format.h>
#include <fmt/ostream.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "boot/boot.hpp"
#include "instance/instance.hpp"
#include "mconsole/client.hpp"

namespace cowbird::cli {

namespace {

using mconsole::Client;
using mconsole::ClientReply;
using mconsole::Outcome;

struct LocalCommand {
  std::string_view name, arguments, help;
};
constexpr LocalCommand kLocalCommands[] = {
    {"quit", "", "leave"},
    {"switch", "<name>", "talk to another guest"},
    {"log -f", "<file>", "put the lines of a file of the host into the kernel log"},
    {"int", "", "send SIGINT to the guest's process: it goes away at once"},
    {"mconsole-version", "", "the version of this client"},
};

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

// "switch other" with "switch": "other"; nullopt when it is another command.
std::optional<std::string> argument_of(std::string_view line, std::string_view name) {
  if (!line.starts_with(name)) return std::nullopt;
  line.remove_prefix(name.size());
  if (!line.empty() && line[0] != ' ' && line[0] != '\t') return std::nullopt;
  return std::string(trimmed(line));
}

class Session {
 public:
  Session(const MconsoleArguments &arguments, std::filesystem::path root, std::ostream &out,
          std::ostream &err)
      : root_(std::move(root)), patience_(arguments.timeout * 1000), out_(out), err_(err) {}

  // False and a message when there is no such guest.
  bool open(const std::string &what) {
    std::string error;
    auto found = find_instance(root_, what, error);
    std::unique_ptr<Client> client;
    if (found) client = Client::connect(found->directory / "mconsole", error);
    if (!client) {
      fmt::print(err_, "cowbird: error: {}\n", error);
      return false;
    }
    guest_ = std::move(*found);
    client_ = std::move(client);
    return true;
  }
  const std::string &name() const { return guest_.name; }
  const std::filesystem::path &root() const { return root_; }

  // One line as a person writes it; the exit status. `quit` ends the session.
  int run(std::string_view words) {
    const std::string line(trimmed(words));
    if (line == "quit" || line == "exit") {
      ended_ = true;
      return kExitOk;
    }
    if (const auto name = argument_of(line, "switch")) return switch_to(*name);
    if (argument_of(line, "int")) return interrupt();
    if (argument_of(line, "mconsole-version")) {
      fmt::print(out_, "mconsole client version {}\n", mconsole::kVersion);
      return kExitOk;
    }
    if (const auto rest = argument_of(line, "log")) {
      if (const auto file = argument_of(*rest, "-f")) return log_file(*file);
    }
    std::error_code ignored;
    const int status =
        ask(mconsole::with_absolute_names(line, std::filesystem::current_path(ignored)), true);
    if (status == kExitOk && line == "help") print_local_help();
    return status;
  }
  bool ended() const { return ended_; }

  // The names of the guest's devices now; none when it does not answer at once.
  std::vector<std::string> devices() {
    constexpr std::chrono::milliseconds kMoment{500};
    std::vector<std::string> names;
    const ClientReply reply = client_->ask("devices", std::min(patience_, kMoment));
    if (reply.outcome != Outcome::Ok) return names;
    for (std::string_view rest = reply.text; !rest.empty();) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(rest.size(), line.size() + 1));
      names.emplace_back(line.substr(0, line.find_first_of(" =")));
    }
    return names;
  }

 private:
  int ask(const std::string &request, bool shows_success) {
    const ClientReply reply = client_->ask(request, patience_);
    switch (reply.outcome) {
      case Outcome::Ok:
        if (shows_success) print_answer("OK", reply.text);
        return kExitOk;
      case Outcome::Error:
        print_answer("ERR", reply.text);
        return kExitHostError;
      case Outcome::Gone:
        fmt::print(err_, "cowbird: error: {}\n", reply.text);
        return kExitHostError;
      case Outcome::NoAnswer:
        fmt::print(err_,
                   "cowbird: error: The guest \"{}\" has not answered \"{}\" within {} s. Requests "
                   "that need its kernel wait while that is busy; \"version\" and \"sysrq p\" are "
                   "answered all the same, and process {} can be ended with SIGTERM.\n",
                   guest_.name, request.substr(0, request.find(' ')), patience_.count() / 1000,
                   guest_.pid);
        return kExitNoAnswer;
    }
    return kExitHostError;
  }

  // As uml_mconsole prints it.
  void print_answer(std::string_view word, std::string_view text) {
    out_ << word;
    if (!text.empty() && text[0] != '\n') out_ << ' ';
    out_ << text;
    if (!text.ends_with('\n')) out_ << '\n';
    out_.flush();
  }

  int switch_to(const std::string &name) {
    if (name.empty()) {
      fmt::print(err_, "cowbird: error: switch takes the name of a guest.\n");
      return kExitUsage;
    }
    if (!open(name)) return kExitHostError;
    fmt::print(out_, "Switched to {}, process {}\n", guest_.name, guest_.pid);
    return kExitOk;
  }

  int interrupt() {
    if (::kill(guest_.pid, SIGINT) == 0) return kExitOk;
    fmt::print(err_, "cowbird: error: SIGINT cannot be sent to process {}: {}.\n", guest_.pid,
               std::strerror(errno));
    return kExitHostError;
  }

  int log_file(const std::string &name) {
    if (name.empty()) {
      fmt::print(err_, "cowbird: error: log -f takes the name of a file.\n");
      return kExitUsage;
    }
    std::ifstream file(name, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
    if (!file) {
      fmt::print(err_, "cowbird: error: The file \"{}\" cannot be read: {}.\n", name,
                 std::strerror(errno));
      return kExitHostError;
    }
    for (const std::string &request : mconsole::log_requests(text)) {
      if (const int status = ask(request, false); status != kExitOk) return status;
    }
    print_answer("OK", "");
    return kExitOk;
  }

  void print_local_help() {
    out_ << "Commands of this client:\n";
    for (const auto &command : kLocalCommands) {
      fmt::print(out_, "    {}{}{} - {}\n", command.name, command.arguments.empty() ? "" : " ",
                 command.arguments, command.help);
    }
  }

  std::filesystem::path root_;
  std::chrono::milliseconds patience_;
  std::ostream &out_, &err_;
  RunningInstance guest_;
  std::unique_ptr<Client> client_;
  bool ended_ = false;
};

// --- the prompt

// libedit's completion has no argument for it; there is one prompt in a process.
Session *completing = nullptr;

std::vector<std::string> words_for(std::string_view before) {
  std::vector<std::string> words;
  if (before.find_first_not_of(' ') == std::string_view::npos) {
    for (const auto &command : mconsole::commands()) words.emplace_back(command.name);
    for (const auto &command : kLocalCommands) {
      words.emplace_back(command.name.substr(0, command.name.find(' ')));
    }
  } else if (before.starts_with("switch ")) {
    for (const auto &guest : running_instances(completing->root())) words.push_back(guest.name);
  } else if (before.starts_with("config ") || before.starts_with("remove ")) {
    words = completing->devices();
    // A new one begins so; its number follows.
    if (before.starts_with("config ")) words.insert(words.end(), {"con", "ssl", "ubd", "gdb"});
  } else if (before.starts_with("proc ")) {
    words = {"cmdline", "cpuinfo", "interrupts", "loadavg",    "meminfo", "mounts",
             "stat",    "uptime",  "version",    "partitions", "vmstat"};
  }
  return words;
}

char *next_word(const char *text, int state) {
  static std::vector<std::string> words;
  static std::size_t at;
  if (state == 0) {
    const std::string_view line(rl_line_buffer, static_cast<std::size_t>(rl_point));
    words = words_for(line.substr(0, line.size() - std::min(line.size(), std::strlen(text))));
    at = 0;
  }
  while (at < words.size()) {
    const std::string &word = words[at++];
    if (word.starts_with(text)) return ::strdup(word.c_str());
  }
  return nullptr;
}

char **complete_words(const char *text, int start, int) {
  rl_attempted_completion_over = 1;  // not the files of the host
  // The name of a device in `config` goes on with a number or with '='.
  const std::string_view before(rl_line_buffer, static_cast<std::size_t>(start));
  rl_completion_append_character =
      static_cast<unsigned char>(before.starts_with("config ") ? '\0' : ' ');
  return rl_completion_matches(text, next_word);
}

int talk_on_terminal(Session &session) {
  completing = &session;
  rl_readline_name = "cowbird";
  rl_attempted_completion_function = complete_words;
  using_history();
  while (!session.ended()) {
    char *const line = readline(fmt::format("({}) ", session.name()).c_str());
    if (!line) {
      std::cout << '\n';
      break;
    }
    const std::string text(trimmed(line));
    std::free(line);
    if (text.empty()) continue;
    add_history(text.c_str());
    session.run(text);
  }
  return kExitOk;
}

// Commands from a file or a pipe: the first that fails is the exit status, but all are run.
int talk_from_pipe(Session &session) {
  int status = kExitOk;
  for (std::string line; !session.ended() && std::getline(std::cin, line);) {
    if (trimmed(line).empty()) continue;
    const int done = session.run(line);
    if (status == kExitOk) status = done;
  }
  return status;
}

}  // namespace

int run_mconsole(const MconsoleArguments &arguments, std::ostream &out, std::ostream &err) {
  std::string error;
  const auto root = instance_root(arguments.directory, error);
  if (!root) {
    fmt::print(err, "cowbird: error: {}\n", error);
    return kExitHostError;
  }
  Session session(arguments, *root, out, err);
  if (!session.open(arguments.name)) return kExitHostError;
  if (!arguments.command.empty()) {
    return session.run(fmt::format("{}", fmt::join(arguments.command, " ")));
  }
  return ::isatty(STDIN_FILENO) == 1 ? talk_on_terminal(session) : talk_from_pipe(session);
}

}  // namespace cowbird::cli
