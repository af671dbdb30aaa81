// UML's command line as a machine description: `mem=128M ubd0=root.img con=pts con0=fd:0,fd:1
// vec0:transport=tap,ifname=tap0 umid=demo single`. Each word becomes settings of the machine file,
// or is refused with the reason; what neither UML nor Linux knows goes to init, as Linux does it.
// The settings are then checked as those of a file are. docs/uml-syntax.md lists every word.
// Called by the `cowbird` program before the kernel runs; any one thread, blocking.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "machine/config_error.hpp"
#include "machine/plugin_catalog.hpp"
#include "machine/set_option.hpp"
#include "machine/uml_words.hpp"

namespace cowbird {

// What the meaning of a word depends on besides the words: a disk that is a directory is a root of
// hostfs, one that begins with a COW file's magic is one.
class UmlHost {
 public:
  enum class FileKind : std::uint8_t { Absent, Directory, CowFile, Other };
  virtual ~UmlHost() = default;
  virtual FileKind kind_of(const std::string &path) const = 0;
};
// Looks at the host's files.
const UmlHost &real_uml_host();

struct UmlMachine {
  // To be applied to an empty machine file, in order. Their origins are the words' places.
  std::vector<SetOption> settings;
  std::vector<ConfigError> errors;  // in the order of the words
};

// Paths stay as they are written. `plugins` are asked for the channels and block backends that
// words name.
UmlMachine read_uml(std::span<const UmlWord> words, PluginCatalog &plugins, const UmlHost &host);

// True for a first word that is passed over, as it names the program: "linux", "./linux".
bool is_uml_program(const std::string &word);
// True when read_uml() would hand the word to init's environment as it stands; for the way back.
bool is_uml_environment(const std::string &word);
// True for a word that would only be shown in /proc/cmdline.
bool is_uml_module_parameter(const std::string &word);

}  // namespace cowbird
