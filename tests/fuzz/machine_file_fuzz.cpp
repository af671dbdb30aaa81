// Fuzz target: a machine file; NUL bytes separate the file from --set options behind it.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "machine/describe.hpp"
#include "machine/machine_file.hpp"
#include "support/fake_catalog.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  std::string_view rest(reinterpret_cast<const char *>(data), size);
  const auto next = [&rest] {
    const auto part = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
    return std::string(part);
  };
  const auto text = next();
  std::vector<cowbird::SetOption> options;
  while (!rest.empty()) options.push_back(cowbird::SetOption::from_argument(next()));

  cowbird::test::FakeCatalog plugins;
  const auto loaded = cowbird::parse_machine(text, "fuzz.toml", "/", options, plugins);
  // Either a configuration that can be used, or at least one error.
  if (loaded.config.has_value() != loaded.errors.empty()) std::abort();
  if (loaded.config) {
    if (loaded.config->consoles.empty()) std::abort();
    if (cowbird::describe_machine(*loaded.config).empty()) std::abort();
  }
  return 0;
}
