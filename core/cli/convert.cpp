#include "cli/convert.hpp"

#include <fmt/format.h>
#include <fmt/ostream.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

#include "machine/apply_set.hpp"
#include "machine/toml_text.hpp"
#include "machine/uml_syntax.hpp"
#include "machine/uml_writer.hpp"

namespace cowbird::cli {

namespace {

constexpr std::size_t kMaxFileSize = kMiB;

// The file, or standard input for "-"; empty and a sentence when it cannot be read.
std::optional<std::string> read_text(const std::string &file, std::string &error) {
  std::ifstream opened;
  if (file != "-") {
    opened.open(file, std::ios::binary);
    if (!opened) {
      error = fmt::format("The file cannot be opened: {}.", std::strerror(errno));
      return std::nullopt;
    }
  }
  std::istream &in = file == "-" ? std::cin : opened;
  std::string text;
  char buffer[4096];
  while (in.read(buffer, sizeof buffer) || in.gcount() > 0) {
    text.append(buffer, static_cast<std::size_t>(in.gcount()));
    if (text.size() > kMaxFileSize) {
      error = "The file is larger than 1M, which no machine's is.";
      return std::nullopt;
    }
  }
  if (!in.bad()) return text;
  error = "The file cannot be read.";
  return std::nullopt;
}

// The settings as a machine file; what cannot be one is reported.
std::string toml_of(std::span<const SetOption> settings, std::vector<ConfigError> &errors) {
  std::vector<std::string> origins;
  for (const auto &setting : settings) origins.push_back(setting.origin);
  Problems problems("the command line", std::move(origins));
  toml::table root;
  apply_set_options(root, settings, problems);
  for (auto &error : problems.take()) errors.push_back(std::move(error));
  return machine_toml(root);
}

// What a machine file may not say, such as a memory of 0. Disks, interfaces and the root are for
// the start to look at: this version, or this host, may lack what another one has.
void check_values(std::span<const SetOption> settings, PluginCatalog &plugins,
                  std::vector<ConfigError> &errors) {
  constexpr std::string_view kChecked[] = {"machine.", "debug.", "console.", "serial."};
  std::vector<SetOption> checked;
  for (const auto &setting : settings) {
    const bool in_section = std::ranges::any_of(kChecked, [&](std::string_view section) {
      return setting.assignment.starts_with(section);
    });
    const bool of_host = setting.assignment.starts_with("machine.tty_log_");
    if (in_section && !of_host) checked.push_back(setting);
  }
  std::error_code ignored;
  const auto machine = parse_machine("", "the command line", std::filesystem::current_path(ignored),
                                     checked, plugins);
  errors.insert(errors.end(), machine.errors.begin(), machine.errors.end());
}

}  // namespace

int convert(const ConvertArguments &arguments, const Environment &environment) {
  std::vector<ConfigError> errors;
  std::string result;
  const bool from_file = !arguments.file.empty();
  const auto name = arguments.file == "-" ? std::string("standard input") : arguments.file;
  std::string text, error;
  if (from_file) {
    auto read = read_text(arguments.file, error);
    if (!read) {
      errors.push_back({name, error});
    } else {
      text = std::move(*read);
    }
  }
  const bool to_uml =
      arguments.to.empty() ? from_file && name.ends_with(".toml") : arguments.to == "uml";
  if (errors.empty() && to_uml) {
    std::error_code ignored;
    const auto directory = arguments.file == "-"
                               ? std::filesystem::current_path(ignored)
                               : std::filesystem::absolute(arguments.file, ignored).parent_path();
    auto line = write_uml(text, name, directory, environment.plugins, real_uml_host());
    errors = std::move(line.errors);
    for (const auto &word : line.words) {
      result += (result.empty() ? "" : " ") + quote_uml_word(word);
    }
    result += '\n';
  } else if (errors.empty()) {
    const auto words = from_file ? split_uml_text(text, name, errors) : uml_words(arguments.words);
    auto machine = read_uml(words, environment.plugins, real_uml_host());
    errors.insert(errors.end(), machine.errors.begin(), machine.errors.end());
    if (errors.empty()) check_values(machine.settings, environment.plugins, errors);
    if (errors.empty()) result = toml_of(machine.settings, errors);
  }
  for (const auto &problem : errors) {
    const char *red = environment.colour ? "\033[1;31m" : "";
    const char *plain = environment.colour ? "\033[0m" : "";
    fmt::print(environment.err, "{}: {}error:{} {}\n", problem.where, red, plain, problem.message);
  }
  if (!errors.empty()) return kExitHostError;
  environment.out << result;
  return kExitOk;
}

LoadedMachine load_uml(const std::string &line, std::span<const SetOption> options,
                       PluginCatalog &plugins) {
  std::vector<ConfigError> errors;
  const auto words = split_uml_text(line, "", errors);
  auto machine = read_uml(words, plugins, real_uml_host());
  errors.insert(errors.end(), machine.errors.begin(), machine.errors.end());
  if (!errors.empty()) return {std::nullopt, std::move(errors)};
  auto settings = std::move(machine.settings);
  settings.insert(settings.end(), options.begin(), options.end());
  return parse_machine("", "the UML command line", std::filesystem::current_path(), settings,
                       plugins);
}

}  // namespace cowbird::cli
