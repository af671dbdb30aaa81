#include "machine/uml_rules.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace cowbird {

namespace {

using enum UmlAction;

constexpr auto kValue = UmlTakes::Value;
constexpr auto kNothing = UmlTakes::Nothing;
constexpr auto kAnything = UmlTakes::Anything;

constexpr UmlRule refuse(std::string_view name, std::string_view why, UmlTakes takes = kAnything) {
  return {name, takes, Refuse, {}, {}, why, {}};
}

constexpr std::string_view kOneMode =
    "There is one way to run guest programs, which needs no mode; leave it out.";
constexpr std::string_view kOldPatch =
    "This is about a patch for hosts that no longer exists; leave it out.";
constexpr std::string_view kNoSound = "There is no sound; leave it out.";

constexpr UmlRule kRules[] = {
    // The machine.
    {"mem", kValue, Memory, "machine", "memory", {}, "memory, in bytes or with K, M, G, T"},
    {"ncpus", kValue, Number, "machine", "vcpus", "ncpus=2", "number of processors"},
    {"umid", kValue, Text, "machine", "name", {}, "name of the guest"},
    {"uml_dir", kValue, Text, "machine", "directory", {}, "where run-time directories are"},
    {"init", kValue, Text, "machine", "init", {}, "first program"},
    {"rdinit", kValue, Text, "machine", "init", {}, "first program"},
    {"mconsole", kValue, Mconsole, {}, {}, {}, "`notify:SOCKET`: where notifications go"},
    {"gdb", kValue, Text, "debug", "gdb", {}, "address of the gdb server; not UML's word"},
    {"debug", kNothing, LogLevel, "machine", "log_level", {}, "log everything on the console"},
    {"quiet", kNothing, LogLevel, "machine", "log_level", {}, "log errors only on the console"},
    {"loglevel", kValue, LogLevel, "machine", "log_level", {}, "log what is below this number"},
    {"stderr", kValue, Stderr, "machine", "log_to", {}, "1: the kernel log goes to standard error"},
    {"console", kValue, Console, {}, {}, {}, "`tty0` only: /dev/console is con0"},
    {"xterm", kValue, Keep, {}, "xterm", {}, "terminal emulator of all xterm channels"},
    {"tty_log_dir", kValue, Text, "machine", "tty_log_dir", {}, "directory of terminal logs"},
    {"tty_log_fd", kValue, Number, "machine", "tty_log_fd", "tty_log_fd=10",
     "descriptor of the terminal log"},
    // The root.
    {"root", kValue, Keep, {}, "root", {}, "the root's disk: /dev/ubda, ubd0, /dev/ubd/0, 98:0"},
    {"rootfstype", kValue, Keep, {}, "rootfstype", {}, "the root's type, such as hostfs"},
    {"rootflags", kValue, Keep, {}, "rootflags", {}, "with hostfs a directory, else mount options"},
    {"initrd", kValue, Keep, {}, "initrd", {}, "an initramfs of the host as the root"},
    {"hostfs", kValue, Keep, {}, "hostfs", {}, "with a root on hostfs: what its path begins with"},
    {"ro", kNothing, Keep, {}, "access", {}, "the root is read-only"},
    {"rw", kNothing, Keep, {}, "access", {}, "the root is writable"},
    // Names that need their value.
    {"mem", kNothing, NeedsValue, {}, {}, "mem=128M", {}},
    {"umid", kNothing, NeedsValue, {}, {}, "umid=demo", {}},
    {"root", kNothing, NeedsValue, {}, {}, "root=/dev/ubda", {}},
    {"init", kNothing, NeedsValue, {}, {}, "init=/bin/sh", {}},
    // What we do not have, or nobody has any more.
    refuse("mode", kOneMode),
    refuse("skas0", kOneMode),
    refuse("nosysemu", kOneMode),
    refuse("seccomp", kOneMode),
    refuse("jail", "Guest programs never reach the kernel's memory; leave it out."),
    refuse("honeypot", "Guest programs never reach the kernel's memory; leave it out."),
    refuse("noprocmm", kOldPatch),
    refuse("noptracefaultinfo", kOldPatch),
    refuse("noptraceldt", kOldPatch),
    refuse("noprotracefaultinfo", kOldPatch),
    refuse("nopttracefaultinfo", kOldPatch),
    refuse("gdb-pid", "This was for a mode of UML that is gone. Attach gdb to the guest instead."),
    refuse("aio",
           "How disks are read is a key of their plugin: io = \"threads\" in a [[block]] table is "
           "what aio=2.4 meant."),
    refuse("ubd", "There is no setting for all disks; write the flag s at each: ubd0s=FILE."),
    refuse("fake_ide", "Nothing asks for IDE disks any more; leave it out."),
    refuse("dsp", kNoSound),
    refuse("mixer", kNoSound),
    refuse("iomem", "There is no memory-mapped I/O for a driver; leave it out."),
    refuse("dtb", "No device asks for a device tree; leave it out."),
    refuse("devfs", "devfs is gone; the kernel fills /dev by itself (devtmpfs). Leave it out."),
    refuse("time-travel", "This version has no time of its own that runs ahead; leave it out."),
    refuse("time-travel-start",
           "This version has no time of its own that runs ahead; leave it out."),
    refuse("panic", "A panic ends the program with the exit status 3; leave it out."),
    refuse("maxcpus", "Write ncpus= for the number of processors."),
    refuse("nr_cpus", "Write ncpus= for the number of processors."),
    refuse("nosmp", "Write ncpus=1 for one processor, or nothing: it is the default."),
    refuse("noinitrd", "There is no initrd without initrd=; leave it out."),
    refuse("rootwait", "Disks are there from the beginning; leave it out."),
    refuse("rootdelay", "Disks are there from the beginning; leave it out."),
    refuse("nfsroot",
           "There is no root over NFS; a root is a directory of the host or an initramfs."),
    refuse("ip", "There is no network that the kernel could configure; leave it out."),
    refuse("--help", "The help is `cowbird boot --help`."),
    refuse("--version", "The version is `cowbird --version`."),
    refuse("--showconfig",
           "There is nothing to configure at build time; `cowbird plugin list` shows the devices."),
};

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

}  // namespace

std::span<const UmlRule> uml_rules() { return kRules; }

const UmlRule *find_uml_rule(std::string_view name, bool has_value) {
  const auto *found = std::ranges::find_if(kRules, [&](const UmlRule &rule) {
    return rule.name == name && (rule.takes == kAnything || (rule.takes == kValue) == has_value);
  });
  return found == std::end(kRules) ? nullptr : found;
}

std::string uml_rules_markdown() {
  std::string out = "| word | becomes | |\n| --- | --- | --- |\n";
  for (const auto &rule : kRules) {
    if (rule.action == NeedsValue) continue;
    const bool refused = rule.action == Refuse;
    std::string key;
    if (!rule.section.empty() && !rule.key.empty()) {
      key = fmt::format("`[{}]` `{}`", rule.section, rule.key);
    }
    out += fmt::format("| `{}{}` | {} | {} |\n", rule.name, rule.takes == kValue ? "=" : "",
                       refused ? "refused" : key, refused ? rule.text : rule.meaning);
  }
  return out;
}

UmlWordClass classify_uml_word(std::string_view word) {
  const auto digits = word.find_first_not_of("0123456789");
  if (digits != std::string_view::npos && (word[digits] == '<' || word[digits] == '>')) {
    return UmlWordClass::Redirection;
  }
  const auto equals = word.find('=');
  const auto name = word.substr(0, equals);
  // As Linux: a dot in the name belongs to a module.
  if (name.find('.') != std::string_view::npos && !name.empty() && is_name_start(name[0])) {
    return UmlWordClass::ModuleParameter;
  }
  if (equals == std::string_view::npos || name.empty()) return UmlWordClass::Argument;
  return UmlWordClass::Environment;
}

}  // namespace cowbird
