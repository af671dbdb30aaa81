#include "cli/list_guests.hpp"

#include <fmt/format.h>
#include <fmt/ostream.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <future>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "base/host_process.hpp"
#include "instance/instance.hpp"
#include "machine/size.hpp"
#include "machine/toml_text.hpp"
#include "mconsole/client.hpp"

namespace cowbird::cli {

namespace {

namespace fs = std::filesystem;

struct Device {
  std::string name;     // "ubda"; empty when only the host's side is known
  std::string setting;  // "pts:/dev/pts/9", or a file of the host
  bool open = false;    // the guest uses it; known when it has a name
};

struct Guest {
  RunningInstance instance;
  std::optional<std::uint64_t> memory_used;  // bytes of the host's memory
  std::optional<std::uint64_t> memory_size;  // what the guest has been given
  std::vector<Device> disks, interfaces, consoles;
};

// --- what the host's /proc says

constexpr std::uint64_t kBlockSize = 512;  // of st_blocks

// "RssAnon:   1234 kB" in bytes.
std::optional<std::uint64_t> status_bytes(pid_t pid, std::string_view key) {
  const auto kilobytes = host_process_status(pid, key);
  if (!kilobytes) return std::nullopt;
  return *kilobytes * kKiB;
}

// Whether the process holds a lock on that descriptor's file, as on a disk's; what else it has open
// is a log, or a file of a directory that the guest sees.
bool has_lock(pid_t pid, const fs::path &descriptor) {
  std::ifstream in(fmt::format("/proc/{}/fdinfo/{}", pid, descriptor.filename().string()));
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("lock:")) return true;
  }
  return false;
}

// The guest's memory is one file without a name; what it occupies is what the guest has touched.
// What the kernel itself needs is its own anonymous memory.
void read_descriptors(Guest &guest) {
  const pid_t pid = guest.instance.pid;
  std::error_code error;
  const fs::path folder = fmt::format("/proc/{}/fd", pid);
  std::map<std::string, bool> files, terminals;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    std::error_code ignored;
    const auto target = fs::read_symlink(at->path(), ignored).string();
    struct stat status {};
    if (ignored || ::stat(at->path().c_str(), &status) != 0) continue;
    if (target.starts_with("/memfd:cowbird-memory") ||
        target.find("/vm_file-") != std::string::npos) {
      guest.memory_size = static_cast<std::uint64_t>(status.st_size);
      guest.memory_used = static_cast<std::uint64_t>(status.st_blocks) * kBlockSize;
    } else if (target.starts_with("/dev/pts/") || target.starts_with("/dev/tty")) {
      terminals[target] = true;
    } else if (S_ISBLK(status.st_mode) ||
               (S_ISREG(status.st_mode) && target.starts_with('/') &&
                !target.starts_with("/memfd:") && !target.starts_with("/proc/") &&
                !target.starts_with(guest.instance.directory.string()) &&
                has_lock(pid, at->path()))) {
      files[target] = true;
    }
  }
  for (const auto &[name, yes] : files) guest.disks.push_back({"", name});
  for (const auto &[name, yes] : terminals) guest.consoles.push_back({"", name});
  if (guest.memory_used) *guest.memory_used += status_bytes(pid, "RssAnon").value_or(0);
  if (!guest.memory_used) guest.memory_used = status_bytes(pid, "VmRSS");
}

// --- what the guest says

// A guest that answers does so in microseconds, or says within mconsole::kBusy that it is busy. So
// long for all of them together, and for the whole of an answer.
constexpr std::chrono::milliseconds kPatience{3000};
using Deadline = std::chrono::steady_clock::time_point;

// "con0 [open]=fd:0,fd:1".
std::optional<Device> parse_device(std::string_view line) {
  constexpr std::string_view kOpen = " [open]";
  const auto equals = line.find('=');
  if (equals == std::string_view::npos) return std::nullopt;
  std::string_view name = line.substr(0, equals);
  Device device;
  device.open = name.ends_with(kOpen);
  if (device.open) name.remove_suffix(kOpen.size());
  if (name.empty()) return std::nullopt;
  device.name = name;
  device.setting = line.substr(equals + 1);
  return device;
}

// By its management console. A guest that does not answer, or is UML and does not know the command,
// keeps what the host's /proc says.
void ask_devices(Guest &guest, Deadline deadline) {
  std::string error;
  const auto client = mconsole::Client::connect(guest.instance.directory / "mconsole", error);
  if (!client) return;
  const auto reply = client->ask("devices", kPatience, deadline);
  if (reply.outcome != mconsole::Outcome::Ok) return;
  guest.disks.clear();
  guest.interfaces.clear();
  guest.consoles.clear();
  std::istringstream lines(reply.text);
  for (std::string line; std::getline(lines, line);) {
    auto device = parse_device(line);
    if (!device) continue;
    const auto is = [&](std::string_view prefix) { return device->name.starts_with(prefix); };
    if (is("ubd")) {
      guest.disks.push_back(std::move(*device));
    } else if (is("con") || is("ssl")) {
      guest.consoles.push_back(std::move(*device));
    } else if (is("eth") || is("vec")) {
      guest.interfaces.push_back(std::move(*device));
    } else if (device->name == "mem") {
      // Less than at its start, when the operator has taken some away.
      if (const auto size = parse_size(device->setting)) guest.memory_size = size;
    }
  }
}

Guest look_at(RunningInstance instance, Deadline deadline) {
  Guest guest;
  guest.instance = std::move(instance);
  read_descriptors(guest);
  ask_devices(guest, deadline);
  return guest;
}

// --- for people

std::int64_t uptime_of(const Guest &guest) {
  const auto running = std::chrono::system_clock::now() - guest.instance.started;
  return std::max<std::int64_t>(0,
                                std::chrono::duration_cast<std::chrono::seconds>(running).count());
}

// "12s", "3m12s", "2h05m", "4d03h".
std::string duration(std::int64_t seconds) {
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}m{:02}s", seconds / 60, seconds % 60);
  if (seconds < 86400) return fmt::format("{}h{:02}m", seconds / 3600, seconds / 60 % 60);
  return fmt::format("{}d{:02}h", seconds / 86400, seconds / 3600 % 24);
}

std::string memory_of(const Guest &guest) {
  if (!guest.memory_used) return "-";
  const auto used = fmt::format("{}M", (*guest.memory_used + kMiB - 1) / kMiB);
  return guest.memory_size ? fmt::format("{} of {}", used, format_size(*guest.memory_size)) : used;
}

std::string devices_of(const std::vector<Device> &devices) {
  std::string text;
  for (const auto &device : devices) {
    text += fmt::format("{}{}{}{}", text.empty() ? "" : " ", device.name,
                        device.name.empty() ? "" : "=", device.setting);
  }
  return text.empty() ? "-" : text;
}

void print_table(const std::vector<Guest> &guests, std::ostream &out) {
  std::vector<std::vector<std::string>> rows{
      {"NAME", "PID", "UPTIME", "MEMORY", "DISKS", "NETWORK", "CONSOLES"}};
  for (const auto &guest : guests) {
    rows.push_back({guest.instance.name, std::to_string(guest.instance.pid),
                    duration(uptime_of(guest)), memory_of(guest), devices_of(guest.disks),
                    devices_of(guest.interfaces), devices_of(guest.consoles)});
  }
  std::vector<std::size_t> widths(rows.front().size(), 0);
  for (const auto &row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto &row : rows) {
    std::string line;
    for (std::size_t i = 0; i + 1 < row.size(); ++i)
      line += fmt::format("{:<{}}  ", row[i], widths[i]);
    out << line << row.back() << '\n';
  }
}

// --- for programs

// TOML's basic strings are JSON's.
std::string json_text(std::string_view text) { return quote_toml(text); }

std::string json_size(const std::optional<std::uint64_t> &size) {
  return size ? std::to_string(*size) : "null";
}

std::string json_devices(const std::vector<Device> &devices) {
  std::vector<std::string> items;
  for (const auto &device : devices) {
    const bool known = !device.name.empty();
    items.push_back(fmt::format("{{\"name\": {}, \"setting\": {}, \"open\": {}}}",
                                known ? json_text(device.name) : "null", json_text(device.setting),
                                !known        ? "null"
                                : device.open ? "true"
                                              : "false"));
  }
  return fmt::format("[{}]", fmt::join(items, ", "));
}

void print_json(const std::vector<Guest> &guests, std::ostream &out) {
  out << '[';
  const char *separator = "";
  for (const auto &guest : guests) {
    const auto &instance = guest.instance;
    const auto started =
        std::chrono::duration_cast<std::chrono::seconds>(instance.started.time_since_epoch());
    const auto file = instance.info.find("file");
    fmt::print(out, "{}\n  {{\"name\": {}, \"pid\": {}, \"uptime\": {}, \"started\": {},\n",
               separator, json_text(instance.name), instance.pid, uptime_of(guest),
               started.count());
    fmt::print(out, "   \"directory\": {}, \"program\": {}, \"file\": {},\n",
               json_text(instance.directory.string()), json_text(instance.program.string()),
               file == instance.info.end() ? "null" : json_text(file->second));
    fmt::print(out, "   \"memory_used\": {}, \"memory_size\": {},\n", json_size(guest.memory_used),
               json_size(guest.memory_size));
    fmt::print(out, "   \"disks\": {},\n   \"interfaces\": {},\n   \"consoles\": {}}}",
               json_devices(guest.disks), json_devices(guest.interfaces),
               json_devices(guest.consoles));
    separator = ",";
  }
  out << (guests.empty() ? "]\n" : "\n]\n");
}

}  // namespace

int list_guests(const ListArguments &arguments, const Environment &environment) {
  std::string error;
  const auto root = instance_root(arguments.directory, error);
  if (!root) {
    fmt::print(environment.err, "cowbird: error: {}\n", error);
    return kExitHostError;
  }
  auto instances = running_instances(*root);
  if (arguments.names_only) {
    for (const auto &instance : instances) environment.out << instance.name << '\n';
    return kExitOk;
  }
  // All at once: several that do not answer cost no more time than one.
  const Deadline deadline = std::chrono::steady_clock::now() + kPatience;
  std::vector<std::future<Guest>> looks;
  looks.reserve(instances.size());
  for (auto &instance : instances) {
    looks.push_back(std::async(std::launch::async, look_at, std::move(instance), deadline));
  }
  std::vector<Guest> guests;
  guests.reserve(looks.size());
  for (auto &look : looks) guests.push_back(look.get());
  if (arguments.json) {
    print_json(guests, environment.out);
  } else if (guests.empty()) {
    fmt::print(environment.err, "No guest runs in {}.\n", root->string());
  } else {
    print_table(guests, environment.out);
  }
  return kExitOk;
}

}  // namespace cowbird::cli
