#include "machine/schema.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace cowbird {

namespace {

constexpr KeyDoc kMachineKeys[] = {
    {"name", "text", "random",
     "Name of the guest, its host name and its run-time directory: up to 63 letters, digits, `-`, "
     "`_` and `.`. Two guests of one name do not run at once."},
    {"directory", "text", "`COWBIRD_DIR`, else `~/.uml`",
     "Where the run-time directories of guests are, by which `cowbird mconsole` and other programs "
     "find them; made when it is not there. What a killed guest has left is used again by the next "
     "of "
     "its name, or removed when the name was random."},
    {"notify", "text", "none",
     "A datagram socket of the host, bound before the guest starts, that is told when the "
     "management "
     "console is there, when the kernel panics, and what programs write to `/proc/mconsole`."},
    {"watchdog", "integer", "`60`",
     "Seconds, 1 to 86400, within which a program that has opened `/dev/watchdog` must write to "
     "it. "
     "Else `notify` is told that the guest hangs, or without one the guest is ended."},
    {"memory", "size", "`\"128M\"`", "Physical memory, 16M to 1T, in whole pages of 4K."},
    {"vcpus", "integer", "`1`", "Processors of the guest, 1 to 64; each is a host thread."},
    {"init", "text", "none",
     "First program. The first that exists of this, `/init`, `/sbin/init` and `/bin/sh` is "
     "process 1."},
    {"args", "list of text", "`[]`", "Arguments of the first program, after its own name."},
    {"env", "list of text", "`[]`",
     "Environment of the first program: `\"NAME=value\"`, besides `HOME`, `TERM` and `PATH` or "
     "instead of them."},
    {"cmdline", "list of text", "`[]`",
     "Further words of `/proc/cmdline`, for programs that look there."},
    {"log_level", "text", "`\"info\"`",
     "What the kernel log shows on the console: this level and worse. One of `emerg`, `alert`, "
     "`crit`, `err`, `warning`, `notice`, `info`, `debug`."},
    {"quiet", "boolean", "`false`", "The same as `log_level = \"err\"`; not together with it."},
    {"log_to", "text", "`\"console\"`",
     "Where the kernel log is shown: `\"console\"` or `\"stderr\"`, the caller's standard error."},
    {"tty_log_dir", "text", "none",
     "A directory of the host. All that goes over the guest's terminals is logged there, one file "
     "for each opening of one, which `asciinema play` shows."},
    {"tty_log_fd", "integer", "none",
     "The same into a descriptor that the program was started with, as in `10>log`."},
    {"strace", "boolean", "`false`",
     "Every system call of the guest goes to the kernel log, as strace(1) shows it."},
};

constexpr KeyDoc kRootKeys[] = {
    {"source", "text", "the embedded initramfs",
     "A directory of the host, or an initramfs: a cpio archive, plain or gzip."},
    {"type", "text", "by what `source` is", "`\"hostfs\"` or `\"initramfs\"`."},
    {"options", "list of text", "`[]`", "Mount options: `\"ro\"` or `\"rw\"`."},
};

constexpr KeyDoc kBlockKeys[] = {
    {"name", "text", "",
     "`ubd0`, `ubd1` and so on; the first 26 also `ubda` to `ubdz`, which is what their nodes in "
     "`/dev` are called."},
    {"plugin", "text", "", "Name of a block backend, or the path of its file (with a `/`)."},
};

constexpr KeyDoc kLinePlugin = {
    "plugin", "text", "",
    "Name of a channel, or the path of its file (with a `/`). `none`: the guest cannot open it."};
constexpr KeyDoc kLineOutput = {
    "output_channel", "table", "the same channel",
    "Another channel for output, such as `{ plugin = \"xterm\" }`; the table's own plugin is for "
    "input only then."};

constexpr KeyDoc kConsoleKeys[] = {
    {"name", "text", "",
     "`con0`, `con1` and so on, in the guest `/dev/tty0`, `/dev/tty1`; or `con*`, the setting of "
     "all consoles that have none of their own. `con0`, or else the first one, is `/dev/console`."},
    kLinePlugin,
    kLineOutput,
};

constexpr KeyDoc kSerialKeys[] = {
    {"name", "text", "",
     "`ssl0`, `ssl1` and so on, in the guest `/dev/ttyS0`, `/dev/ttyS1`; or `ssl*`, the setting of "
     "all serial lines that have none of their own."},
    kLinePlugin,
    kLineOutput,
};

constexpr KeyDoc kNetKeys[] = {
    {"name", "text", "", "Name of the interface, up to 15 characters."},
    {"plugin", "text", "", "Name of a transport, or the path of its file (with a `/`)."},
};

constexpr KeyDoc kMountKeys[] = {
    {"host", "text", "", "Directory of the host. The guest cannot leave it."},
    {"guest", "text", "", "Absolute path in the guest; made when it is not there."},
    {"ro", "boolean", "`false`", "Read-only."},
};

constexpr KeyDoc kDebugKeys[] = {
    {"gdb", "text", "none",
     "Where a gdb server listens for this guest: `tcp:HOST:PORT`, `unix:PATH` or `stdio`. Without "
     "it, `cowbird gdb NAME` attaches all the same."},
    {"wait", "boolean", "`false`",
     "Wait for gdb before the first kernel thread runs; only with `gdb`."},
    {"on_panic", "text", "`\"exit\"`",
     "After a panic of the guest kernel: `exit`, or `wait` for gdb with everything kept."},
    {"core", "text", "none", "Directory of the host where a panic leaves a core file."},
    {"core_memory", "boolean", "`false`",
     "The core file holds the memory of the guest's programs too; only with `core`."},
};

constexpr KeyDoc kPluginsKeys[] = {
    {"path", "list of text", "`[]`",
     "Folders to look for plugins in, before `COWBIRD_PLUGIN_PATH` and the built-in ones."},
};

constexpr SectionDoc kSections[] = {
    {"machine", false, false, "The guest itself.", kMachineKeys},
    {"root", false, false,
     "What is mounted on `/`. Without this table it is the embedded initramfs.", kRootKeys},
    {"block", true, true, "A block device, `/dev/ubda` and so on.", kBlockKeys},
    {"console", true, true,
     "A console. Without this table, `con0` is on the caller's terminal: plugin `fd`, input 0, "
     "output 1.",
     kConsoleKeys},
    {"serial", true, true,
     "A serial line: a console by another name. There is none without this table.", kSerialKeys},
    {"net", true, true,
     "A network interface. This version has no network and no transport plugins; the table is "
     "checked and refused.",
     kNetKeys},
    {"mount", true, false, "A directory of the host, shown in the guest.", kMountKeys},
    {"debug", false, false, "For kernel developers.", kDebugKeys},
    {"plugins", false, false, "Where plugins are.", kPluginsKeys},
};

}  // namespace

std::string SectionDoc::title() const {
  return is_array ? fmt::format("[[{}]]", name) : fmt::format("[{}]", name);
}

const KeyDoc *SectionDoc::find(std::string_view key) const {
  const auto found = std::ranges::find(keys, key, &KeyDoc::name);
  return found == keys.end() ? nullptr : &*found;
}

std::span<const SectionDoc> machine_file_schema() { return kSections; }

const SectionDoc *find_section(std::string_view name) {
  const auto *found = std::ranges::find(kSections, name, &SectionDoc::name);
  return found == std::end(kSections) ? nullptr : found;
}

std::string machine_file_markdown() {
  std::string out;
  for (const auto &section : kSections) {
    out += fmt::format("### `{}`\n\n{}\n\n", section.title(), section.help);
    out += "| key | type | default | meaning |\n| --- | --- | --- | --- |\n";
    for (const auto &key : section.keys) {
      out += fmt::format("| `{}` | {} | {} | {} |\n", key.name, key.type,
                         key.default_value.empty() ? "required" : key.default_value, key.help);
    }
    if (section.has_plugin) {
      out += "| ... | | | the plugin's own keys: `cowbird plugin show NAME` |\n";
    }
    out += '\n';
  }
  return out;
}

}  // namespace cowbird
