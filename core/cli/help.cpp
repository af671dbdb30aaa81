// Help texts, the manual page and completion, all made from the same CommandDocs.
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "cli/command_line.hpp"
#include "mconsole/protocol.hpp"

namespace cowbird::cli {

namespace {

constexpr std::size_t kColumn = 32;

std::string program(const CommandDoc &command) {
  return command.name.empty() ? "cowbird" : "cowbird " + command.name;
}

std::string usage(const CommandDoc &command) {
  std::string text = program(command);
  if (!command.leaf) return text + " COMMAND";
  text += " [OPTIONS]";
  for (const auto &option : command.options) {
    if (!option.positional) continue;
    text += option.required ? " " + option.names : " [" + option.names + "]";
  }
  if (!command.tail.empty()) text += " " + command.tail;
  return text;
}

// Direct subcommands of `name`.
std::vector<const CommandDoc *> children(const std::vector<CommandDoc> &commands,
                                         const std::string &name) {
  const auto prefix = name.empty() ? name : name + " ";
  std::vector<const CommandDoc *> found;
  for (const auto &command : commands) {
    if (command.name.empty() || command.name == name || !command.name.starts_with(prefix)) continue;
    if (command.name.find(' ', prefix.size()) == std::string::npos) found.push_back(&command);
  }
  return found;
}

std::string row(const std::string &left, const std::string &right) {
  if (left.size() + 2 >= kColumn) return fmt::format("  {}\n{:{}}{}\n", left, "", kColumn, right);
  return fmt::format("  {:<{}}{}\n", left, kColumn - 2, right);
}

std::string label(const OptionDoc &option) {
  auto names = option.names;
  for (auto comma = names.find(','); comma != std::string::npos;
       comma = names.find(',', comma + 2)) {
    names.insert(comma + 1, " ");
  }
  return option.value.empty() ? names : names + " " + option.value;
}

// Backslashes, and lines that begin with a control character, are roff's own.
std::string roff(const std::string &text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out.starts_with('.') || out.starts_with('\'') ? "\\&" + out : out;
}

std::string roff_command(const CommandDoc &command) {
  auto out = fmt::format(".SS {}\n{}.\n", roff(usage(command)), roff(command.help));
  for (const auto &option : command.options) {
    out += fmt::format(".TP\n.B {}\n{}.\n", roff(label(option)), roff(option.help));
  }
  if (!command.example.empty()) {
    out += ".PP\n.EX\n" + roff(command.example) + ".EE\n";
  }
  return out;
}

// The long and short names of an option, one word each.
std::string option_words(const OptionDoc &option) {
  auto words = option.names;
  std::ranges::replace(words, ',', ' ');
  return words;
}

// Commands whose first word is the name of a running guest.
bool names_guest(const CommandDoc &command) {
  return command.name == "console" || command.name == "mconsole" || command.name == "gdb" ||
         command.name == "gdbserver";
}

// What follows the name of a guest.
std::string words_after_guest(const std::string &command) {
  if (command == "console") {
    return "$(\"${COMP_WORDS[0]}\" mconsole \"$previous\" devices 2>/dev/null | "
           "grep -oE '(con|ssl)[0-9]+') ";
  }
  std::string words;
  if (command == "mconsole") {
    for (const auto &known : mconsole::commands()) words += std::string(known.name) + " ";
  }
  return words;
}

std::string completion_case(const std::vector<CommandDoc> &commands, const CommandDoc &command) {
  std::string options;
  std::string files;  // options whose value is a file or folder
  for (const auto &option : command.options) {
    if (option.positional) continue;
    options += option_words(option) + " ";
    if (option.value.find("DIR") != std::string::npos ||
        option.value.find("HOST") != std::string::npos || option.value == "FILE") {
      auto names = option.names;
      std::ranges::replace(names, ',', '|');
      files += (files.empty() ? "" : "|") + names;
    }
  }
  std::string words = options;
  for (const auto *child : children(commands, command.name)) {
    words += child->name.substr(child->name.rfind(' ') + 1) + " ";
  }
  if (command.name == "completion") words += "bash ";
  if (command.name == "plugin show")
    words += "$(\"${COMP_WORDS[0]}\" plugin list --names 2>/dev/null) ";
  words += words_after_guest(command.name);
  std::string out = fmt::format("    \"{}\")\n      words=\"{}\"\n", command.name, words);
  if (names_guest(command)) {
    out += fmt::format(
        "      [ \"$previous\" != {} ] || words=\"{} $(\"${{COMP_WORDS[0]}}\" ls --names "
        "2>/dev/null)\"\n",
        command.name, options);
  }
  if (!files.empty())
    out += fmt::format("      case \"$previous\" in {}) files=1 words= ;; esac\n", files);
  if (command.name == "convert") {
    out += "      case \"$previous\" in --to) words=\"uml toml\" ;; *) files=1 ;; esac\n";
  }
  if (command.name == "boot" || command.name == "check") out += "      files=1\n";
  return out + "      ;;\n";
}

}  // namespace

std::string help_text(const std::vector<CommandDoc> &commands, const std::string &name) {
  const auto command = std::ranges::find(commands, name, &CommandDoc::name);
  if (command == commands.end()) return {};
  auto out = fmt::format("{}.\n\nUsage: {}\n", command->help, usage(*command));
  const auto subs = children(commands, name);
  if (!subs.empty()) out += "\nCommands:\n";
  for (const auto *sub : subs) out += row(sub->name.substr(sub->name.rfind(' ') + 1), sub->help);
  out += "\nOptions:\n";
  for (const auto &option : command->options) out += row(label(option), option.help);
  if (!command->example.empty()) out += "\nExamples:\n" + command->example;
  if (!subs.empty()) out += fmt::format("\n`{} COMMAND --help` says more.\n", program(*command));
  return out;
}

std::string man_page(const std::vector<CommandDoc> &commands) {
  std::string out =
      ".TH COWBIRD 1\n.SH NAME\ncowbird \\- boot guests of a kernel that is an ordinary process\n";
  out += ".SH SYNOPSIS\n";
  for (const auto &command : commands) {
    if (command.leaf) out += fmt::format(".B {}\n.br\n", roff(usage(command)));
  }
  out +=
      ".SH DESCRIPTION\nCowbird is a guest kernel that runs as an ordinary, unprivileged Linux "
      "process.\n"
      "A machine is described by one TOML file; its devices are plugins.\n.SH COMMANDS\n";
  for (const auto &command : commands) {
    if (command.leaf) out += roff_command(command);
  }
  out +=
      ".SH EXIT STATUS\n"
      ".TP\n.B 0\nThe guest halted or powered off, or the command did what it should.\n"
      ".TP\n.B 1\nThe configuration or the host did not allow it; no guest was started.\n"
      ".TP\n.B 2\nThe command line was wrong.\n"
      ".TP\n.B 3\nThe guest kernel panicked.\n"
      ".TP\n.B 4\n(mconsole) The guest did not answer in time; an ERR answer is 1.\n"
      ".PP\n.B cowbird run\nexits with the status of its program, or with 128 plus the number of "
      "the "
      "signal that ended it.\n"
      ".SH ENVIRONMENT\n.TP\n.B COWBIRD_PLUGIN_PATH\nFolders to look for plugins in, separated by "
      "colons.\n"
      ".TP\n.B COWBIRD_DIR\nWhere the run-time directories of guests are, unless [machine] "
      "directory "
      "or --dir says otherwise; ~/.uml without it.\n";
  return out;
}

std::string bash_completion(const std::vector<CommandDoc> &commands) {
  std::string out =
      "# bash completion for cowbird; made by `cowbird completion bash`.\n"
      "_cowbird() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
      "  local command= words= files= word i\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    word=${COMP_WORDS[i]}\n"
      "    [ \"$word\" != -- ] || { COMPREPLY=($(compgen -f -- \"$current\")); return; }\n"
      "    case \"$command $word\" in\n";
  for (const auto &command : commands) {
    if (command.name.empty()) continue;
    const auto space = command.name.rfind(' ');
    const auto parent = space == std::string::npos ? "" : command.name.substr(0, space);
    out += fmt::format("      \"{} {}\") command=\"{}\" ;;\n", parent,
                       command.name.substr(space + 1), command.name);
  }
  out += "    esac\n  done\n  case \"$command\" in\n";
  for (const auto &command : commands) out += completion_case(commands, command);
  out +=
      "  esac\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "  [ -z \"$files\" ] || COMPREPLY+=($(compgen -f -- \"$current\"))\n"
      "}\n"
      "complete -o filenames -F _cowbird cowbird\n";
  return out;
}

}  // namespace cowbird::cli
