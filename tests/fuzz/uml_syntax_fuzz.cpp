// UML command lines: any bytes convert or are refused; what converts is a machine file that can be
// written, read and, where UML has the words, written back as a line that means the same.
#include <cstdint>
#include <cstdlib>

#include "machine/apply_set.hpp"
#include "machine/machine_file.hpp"
#include "machine/toml_text.hpp"
#include "machine/uml_syntax.hpp"
#include "machine/uml_writer.hpp"
#include "support/fake_catalog.hpp"

using namespace cowbird;

namespace {

class FakeHost final : public UmlHost {
 public:
  FileKind kind_of(const std::string &path) const override {
    if (path.ends_with("directory")) return FileKind::Directory;
    return path.ends_with(".cow") ? FileKind::CowFile : FileKind::Absent;
  }
};

std::optional<std::string> toml_of(const std::vector<UmlWord> &words, PluginCatalog &plugins) {
  const auto machine = read_uml(words, plugins, FakeHost());
  for (const auto &error : machine.errors) {
    if (error.where.empty() || error.message.empty()) std::abort();
  }
  if (!machine.errors.empty()) return std::nullopt;
  std::vector<std::string> origins;
  for (const auto &setting : machine.settings) origins.push_back(setting.origin);
  Problems problems("line", origins);
  toml::table root;
  apply_set_options(root, machine.settings, problems);
  if (problems.any()) return std::nullopt;
  parse_machine("", "line", "/base", machine.settings, plugins);
  return machine_toml(root);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  test::FakeCatalog plugins;
  std::vector<ConfigError> errors;
  const std::string_view text(reinterpret_cast<const char *>(data), size);
  const auto words = split_uml_text(text, "fuzz.uml", errors);
  const auto toml = toml_of(words, plugins);
  if (!toml || !errors.empty()) return 0;
  if (!parse_toml(*toml, "fuzz.toml").table) std::abort();
  const auto line = write_uml(*toml, "fuzz.toml", "/base", plugins, FakeHost());
  if (!line.errors.empty()) return 0;
  // Once all paths are absolute, nothing changes any more.
  const auto second = toml_of(uml_words(line.words), plugins);
  if (!second) std::abort();
  const auto again = write_uml(*second, "fuzz.toml", "/base", plugins, FakeHost());
  if (!again.errors.empty() || again.words != line.words) std::abort();
  return 0;
}
