#include "machine/machine_file.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <system_error>

#include "machine/apply_set.hpp"
#include "machine/machine_reader.hpp"

namespace cowbird {

namespace {

constexpr std::uintmax_t kMaxFileSize = kMiB;

LoadedMachine only_error(std::string where, std::string message) {
  LoadedMachine loaded;
  loaded.errors.push_back({std::move(where), std::move(message)});
  return loaded;
}

}  // namespace

LoadedMachine parse_machine(std::string_view text, const std::string &file,
                            const std::filesystem::path &directory,
                            std::span<const SetOption> options, PluginCatalog &plugins) {
  std::vector<std::string> origins;
  for (const auto &option : options) origins.push_back(option.origin);
  Problems problems(file, std::move(origins));

  auto parsed = parse_toml(text, file);
  if (!parsed.table) {
    problems.at(parsed.region, parsed.error + ".");
    return {std::nullopt, problems.take()};
  }
  auto &root = *parsed.table;
  apply_set_options(root, options, problems);
  auto config = MachineReader(problems, directory, plugins).read(root);
  if (problems.any()) return {std::nullopt, problems.take()};
  return {std::move(config), {}};
}

LoadedMachine load_machine_file(const std::filesystem::path &path,
                                std::span<const SetOption> options, PluginCatalog &plugins) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return only_error(path.string(),
                      fmt::format("The machine file cannot be opened: {}.", std::strerror(errno)));
  }
  if (S_ISDIR(status.st_mode)) {
    return only_error(path.string(), "This is a directory, not a machine file.");
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    return only_error(path.string(),
                      fmt::format("The machine file cannot be opened: {}.", std::strerror(errno)));
  }
  std::string text;
  char buffer[4096];
  while (in.read(buffer, sizeof buffer) || in.gcount() > 0) {
    text.append(buffer, static_cast<std::size_t>(in.gcount()));
    if (text.size() > kMaxFileSize) {
      return only_error(path.string(), "The file is larger than 1M, which no machine file is.");
    }
  }
  if (in.bad()) return only_error(path.string(), "The machine file cannot be read.");
  std::error_code ignored;
  const auto directory = std::filesystem::absolute(path, ignored).parent_path();
  return parse_machine(text, path.string(), directory, options, plugins);
}

}  // namespace cowbird
