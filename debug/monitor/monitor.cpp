#include "debug/monitor/monitor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <sstream>

#include "debug/view/elf_symbols.hpp"

namespace cowbird::debug {
namespace {

constexpr std::size_t kLogLines = 40;
constexpr std::size_t kMaxLogLines = 2048;
constexpr std::size_t kMaxStacks = 2000;
constexpr std::int64_t kNsPerSec = 1'000'000'000;
constexpr const char *kPluginSymbol = "cowbird_plugin_descriptor";

template <typename... Args>
bool say(const OutputSink &out, fmt::format_string<Args...> format, Args &&...args) {
  return out(fmt::format(format, std::forward<Args>(args)...));
}

std::vector<std::string> split(const std::string &text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

std::optional<std::int64_t> number(const std::string &word) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

std::string seconds(std::int64_t ns) {
  return fmt::format("{}.{:09}", ns / kNsPerSec, ns % kNsPerSec);
}

std::string state_word(const ProcessRow &row) {
  if (row.zombie) return fmt::format("zombie, status {:#x}", row.exit_status);
  if (row.threads.empty()) return "no thread";
  return describe_state(*row.threads.front());
}

std::string call_word(KernelView &view, const KernelThread &thread) {
  if (!thread.syscall) return "";
  const std::string name = view.system_call_name(*thread.syscall);
  return name.empty() ? fmt::format("system call {}", *thread.syscall) : name;
}

const char *const kNoView =
    "The kernel's structures cannot be read here: its program has no table for debuggers, or has "
    "not begun yet.\n";

}  // namespace

struct Monitor::Command {
  std::string name, arguments, help;
  bool (Monitor::*run)(const Words &words, const OutputSink &out);
  bool needs_view = true;
};

const std::vector<Monitor::Command> &Monitor::commands() {
  static const std::vector<Command> all = {
      {"help", "[COMMAND]", "this list, or one line of it", &Monitor::help, false},
      {"ps", "", "guest processes and their threads, with what each is doing", &Monitor::ps},
      {"log", "[COUNT]", "the last lines of the kernel log, 40 of them", &Monitor::log},
      {"bt", "[TID|NAME|all]",
       "a kernel thread's stack: the current one's, by gdb's number "
       "(info threads) or by name",
       &Monitor::bt, false},
      {"irq", "", "interrupt sources and how often each has fired", &Monitor::irq},
      {"locks", "", "who holds the big kernel lock, and sleeping locks with who waits",
       &Monitor::locks},
      {"mounts", "", "what is mounted where", &Monitor::mounts},
      {"plugins", "", "plugins that are loaded", &Monitor::plugins, false},
      {"time", "", "the guest's clock", &Monitor::time},
  };
  return all;
}

Monitor::Monitor(Target &target, std::function<KernelView *()> view)
    : target_(target), view_of_(std::move(view)) {}

bool Monitor::run(const std::string &command, ThreadId current, const OutputSink &out) {
  Words words = split(command);
  if (words.empty()) words.push_back("help");
  const auto &all = commands();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Command &c) { return c.name == words[0]; });
  if (found == all.end()) return false;
  words.erase(words.begin());
  current_ = current;
  view_ = view_of_();
  if (found->needs_view && !view_) {
    out(kNoView);
    return true;
  }
  if (words.size() > 1 || (!words.empty() && found->arguments.empty())) {
    say(out, "{} takes {}: monitor {}{}{}\n", found->name,
        found->arguments.empty() ? "no argument" : "one argument", found->name,
        found->arguments.empty() ? "" : " ", found->arguments);
    return true;
  }
  (this->*found->run)(words, out);
  view_ = nullptr;
  return true;
}

bool Monitor::help(const Words &words, const OutputSink &out) {
  const auto &all = commands();
  const auto wanted = [&](const Command &each) { return words.empty() || each.name == words[0]; };
  if (std::none_of(all.begin(), all.end(), wanted)) {
    return say(out, "There is no monitor command \"{}\"; \"monitor help\" lists them.\n", words[0]);
  }
  for (const Command &command : all) {
    if (!wanted(command)) continue;
    const std::string usage =
        command.arguments.empty() ? command.name : command.name + " " + command.arguments;
    if (!say(out, "monitor {:<20} {}\n", usage, command.help)) return false;
  }
  return true;
}

bool Monitor::say_damage(unsigned damage, const OutputSink &out) {
  if (damage == 0) return true;
  return say(out, "({} places could not be read or make no sense; they are left out)\n", damage);
}

bool Monitor::print_table(const OsTable &table, const OutputSink &out) {
  std::vector<std::size_t> widths;
  for (const std::string &column : table.columns) widths.push_back(column.size());
  for (const auto &row : table.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  const auto line = [&](const std::vector<std::string> &cells) {
    std::string text;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      text += i + 1 == cells.size() ? cells[i] : fmt::format("{:<{}}  ", cells[i], widths[i]);
    }
    return out(text + "\n");
  };
  if (!line(table.columns)) return false;
  return std::all_of(table.rows.begin(), table.rows.end(), line);
}

bool Monitor::ps(const Words &, const OutputSink &out) {
  KernelTables tables(*view_);
  OsTable table;
  table.columns = {"pid", "tid", "ppid", "thread", "name", "call", "state"};
  for (const ProcessRow &row : tables.processes()) {
    const auto pid = std::to_string(row.pid);
    const auto parent = std::to_string(row.parent);
    if (row.threads.empty()) {
      table.rows.push_back({pid, pid, parent, "-", row.name, "", state_word(row)});
    }
    for (const KernelThread *thread : row.threads) {
      table.rows.push_back({pid, std::to_string(thread->guest_tid), parent,
                            std::to_string(thread->tid), thread->name, call_word(*view_, *thread),
                            describe_state(*thread)});
    }
  }
  for (const KernelThread &thread : view_->threads()) {
    if (thread.process != 0) continue;
    table.rows.push_back(
        {"-", "-", "-", std::to_string(thread.tid), thread.name, "", describe_state(thread)});
  }
  return print_table(table, out) && say_damage(tables.damage() + view_->damage(), out);
}

bool Monitor::log(const Words &words, const OutputSink &out) {
  std::size_t count = kLogLines;
  if (!words.empty()) {
    const auto wanted = number(words[0]);
    if (!wanted || *wanted < 1) {
      return say(out, "\"{}\" is no number of lines; monitor log 100 shows the last 100.\n",
                 words[0]);
    }
    count = std::min<std::size_t>(static_cast<std::size_t>(*wanted), kMaxLogLines);
  }
  KernelTables tables(*view_);
  for (const LogRow &row : tables.log(count)) {
    if (!out(format_log_row(row) + "\n")) return false;
  }
  return say_damage(tables.damage(), out);
}

std::vector<Module> Monitor::modules() {
  std::vector<Module> all;
  const auto program = target_.executable(kKernelPid);
  if (!program) return all;
  std::uint64_t base = 0;
  if (const auto entry = ElfSymbols::open(*program); entry && view_) {
    const std::uint64_t linked = (*entry)->find("cowbird_debug_view");
    if (linked != 0) base = view_->symbol("cowbird_debug_view") - linked;
  }
  all.push_back({*program, base});
  if (const auto libraries = target_.libraries(kKernelPid)) {
    for (const Library &library : *libraries) {
      if (!library.name.empty()) all.push_back({library.name, library.base});
    }
  }
  return all;
}

bool Monitor::print_stack(const ThreadInfo &thread, Unwinder &unwinder, const OutputSink &out) {
  if (!say(out, "thread {} \"{}\" ({})\n", thread.id.tid, thread.name, thread.detail)) return false;
  const auto registers = target_.read_registers(thread.id);
  if (!registers) {
    return say(out, "  its registers cannot be read: {}\n", errno_text(registers.error()));
  }
  bool complete = false;
  const auto frames = unwinder.unwind(*registers, complete);
  for (std::size_t i = 0; i < frames.size(); ++i) {
    if (!out("  " + format_frame(i, frames[i]) + "\n")) return false;
  }
  if (!complete && !out("  (the stack cannot be followed further)\n")) return false;
  const KernelThread *kernel = view_ ? view_->find(thread.id.tid) : nullptr;
  if (!kernel || kernel->process == 0) return true;
  if (kernel->syscall) {
    return say(out, "  from system call {} ({}) of process {}, thread {}\n", *kernel->syscall,
               call_word(*view_, *kernel), kernel->pid, kernel->guest_tid);
  }
  return say(out, "  of process {}, thread {}\n", kernel->pid, kernel->guest_tid);
}

bool Monitor::bt(const Words &words, const OutputSink &out) {
  const auto threads = target_.threads();
  std::vector<ThreadInfo> wanted;
  for (const ThreadInfo &thread : threads) {
    if (thread.id.pid != kKernelPid) continue;
    const bool matches = words.empty()       ? thread.id == current_
                         : words[0] == "all" ? true
                         : number(words[0])
                             ? thread.id.tid == *number(words[0])
                             : thread.name == words[0] || thread.name.starts_with(words[0] + "/");
    if (matches) wanted.push_back(thread);
  }
  if (wanted.empty()) {
    return words.empty()
               ? say(out, "The current thread is none of the kernel's; give its number or name.\n")
               : say(out, "The kernel has no thread \"{}\"; see info threads.\n", words[0]);
  }
  if (!view_) return say(out, "{}", kNoView);
  Unwinder unwinder(view_->memory(), modules());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (i == kMaxStacks) return say(out, "... and {} more\n", wanted.size() - i);
    if (i > 0 && !out("\n")) return false;
    if (!print_stack(wanted[i], unwinder, out)) return false;
  }
  return true;
}

bool Monitor::irq(const Words &, const OutputSink &out) {
  KernelTables tables(*view_);
  OsTable table;
  table.columns = {"count", "source"};
  for (const IrqRow &row : tables.interrupts()) {
    table.rows.push_back({std::to_string(row.count), row.name});
  }
  return print_table(table, out) && say_damage(tables.damage(), out);
}

std::string Monitor::host_thread_name(std::int64_t host_tid) {
  for (const ThreadInfo &thread : target_.threads()) {
    if (thread.id.pid == kKernelPid && thread.id.tid == kHostTidBase + host_tid) return thread.name;
  }
  return fmt::format("host thread {}", host_tid);
}

bool Monitor::locks(const Words &, const OutputSink &out) {
  const auto owner = view_->big_kernel_lock_owner();
  bool more = !owner        ? say(out, "big kernel lock: changes hands just now\n")
              : *owner == 0 ? say(out, "big kernel lock: free\n")
                            : say(out, "big kernel lock: held by {} (host thread {})\n",
                                  host_thread_name(*owner), *owner);
  KernelTables tables(*view_);
  const auto rows = tables.sleeping_locks();
  if (rows.empty() && more) more = say(out, "no thread waits for a sleeping lock\n");
  for (const LockRow &row : rows) {
    if (!more) return false;
    more = say(out, "{} at {:#x}: held by {}\n", row.name, row.address,
               row.owner ? fmt::format("{} \"{}\" ({})", row.owner->tid, row.owner->name,
                                       describe_state(*row.owner))
                         : "nobody");
    for (const KernelThread *waiter : row.waiters) {
      if (more) {
        more = say(out, "  {} \"{}\" waits{}\n", waiter->tid, waiter->name,
                   waiter->process
                       ? fmt::format(" (process {}, {})", waiter->pid, call_word(*view_, *waiter))
                       : "");
      }
    }
  }
  return more && say_damage(tables.damage(), out);
}

bool Monitor::mounts(const Words &, const OutputSink &out) {
  KernelTables tables(*view_);
  for (const MountRow &row : tables.mounts()) {
    if (!say(out, "{} on {} type {} ({})\n", row.source, row.where, row.type,
             row.read_only ? "ro" : "rw"))
      return false;
  }
  return say_damage(tables.damage(), out);
}

std::vector<Library> Monitor::plugin_libraries() {
  std::vector<Library> found;
  const auto libraries = target_.libraries(kKernelPid);
  if (!libraries) return found;
  for (const Library &library : *libraries) {
    const auto symbols = ElfSymbols::open(library.name);
    if (symbols && (*symbols)->find(kPluginSymbol) != 0) found.push_back(library);
  }
  return found;
}

bool Monitor::plugins(const Words &, const OutputSink &out) {
  const auto found = plugin_libraries();
  if (found.empty()) return say(out, "no plugin is loaded\n");
  return std::all_of(found.begin(), found.end(), [&](const Library &library) {
    return say(out, "{:#018x} {}\n", library.base, library.name);
  });
}

bool Monitor::time(const Words &, const OutputSink &out) {
  KernelTables tables(*view_);
  const ClockRow clock = tables.clock();
  timespec host{};
  ::clock_gettime(CLOCK_MONOTONIC, &host);
  const std::int64_t now =
      clock.stopped ? clock.frozen_ns : host.tv_sec * kNsPerSec + host.tv_nsec - clock.base_ns;
  // In a core file the host's clock says nothing about the guest's.
  if (clock.stopped || target_.is_live()) {
    if (!say(out, "monotonic     {} s{}\n", seconds(now),
             clock.stopped ? ", standing still" : " (the time since this stop is not the guest's)"))
      return false;
    const time_t wall = (now + clock.realtime_offset_ns) / kNsPerSec;
    tm parts{};
    ::gmtime_r(&wall, &parts);
    if (!say(out, "realtime      {:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC\n", parts.tm_year + 1900,
             parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec))
      return false;
  }
  const std::string next =
      clock.next_timer_ns == INT64_MAX ? "none" : seconds(clock.next_timer_ns) + " s";
  return say(out, "next timer    {}\nhalts         {}\n", next, clock.halts);
}

std::vector<std::pair<std::string, std::string>> Monitor::os_tables() {
  return {{"tasks", "Guest threads with what each is doing"},
          {"mounts", "What is mounted where"},
          {"sockets", "Sockets of the guest"},
          {"block", "Block devices"},
          {"plugins", "Plugins that are loaded"}};
}

Result<OsTable> Monitor::os_table(const std::string &name) {
  OsTable table;
  table.name = name;
  if (name == "plugins") {
    table.columns = {"base", "file"};
    for (const Library &library : plugin_libraries()) {
      table.rows.push_back({fmt::format("{:#x}", library.base), library.name});
    }
    return table;
  }
  KernelView *const view = view_of_();
  if (!view) return Err(Errno::NoDev);
  KernelTables tables(*view);
  if (name == "tasks") {
    table.columns = {"pid", "tid", "ppid", "command", "thread", "state", "call"};
    for (const ProcessRow &row : tables.processes()) {
      for (const KernelThread *thread : row.threads) {
        table.rows.push_back({std::to_string(row.pid), std::to_string(thread->guest_tid),
                              std::to_string(row.parent), thread->name, std::to_string(thread->tid),
                              describe_state(*thread), call_word(*view, *thread)});
      }
      if (row.threads.empty()) {
        table.rows.push_back({std::to_string(row.pid), std::to_string(row.pid),
                              std::to_string(row.parent), row.name, "", state_word(row), ""});
      }
    }
  } else if (name == "mounts") {
    table.columns = {"id", "parent", "source", "where", "type", "access"};
    for (const MountRow &row : tables.mounts()) {
      table.rows.push_back({std::to_string(row.id), std::to_string(row.parent), row.source,
                            row.where, row.type, row.read_only ? "ro" : "rw"});
    }
  } else if (name == "sockets") {
    table.columns = {"inode", "family", "type", "state", "address"};
    for (const SocketRow &row : tables.sockets()) {
      table.rows.push_back({std::to_string(row.inode), row.family, row.type,
                            row.listening ? "listening" : "", row.where});
    }
  } else if (name == "block") {
    table.columns = {"name",   "major",         "minor",     "reads", "bytes read",
                     "writes", "bytes written", "in flight", "errors"};
    for (const BlockRow &row : tables.block_devices()) {
      table.rows.push_back({row.name, std::to_string(row.major), std::to_string(row.minor),
                            std::to_string(row.reads), std::to_string(row.read_bytes),
                            std::to_string(row.writes), std::to_string(row.written_bytes),
                            std::to_string(row.in_flight), std::to_string(row.errors)});
    }
  } else {
    return Err(Errno::NoEnt);
  }
  return table;
}

}  // namespace cowbird::debug
