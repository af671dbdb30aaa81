// /proc/sys: the settings that this kernel has.
#include <fmt/format.h>
#include <sys/random.h>

#include <array>
#include <charconv>

#include "base/log.hpp"
#include "fs/procfs_internal.hpp"
#include "mm/mm.hpp"
#include "proc/sysrq.hpp"
#include "proc/task.hpp"
#include "proc/uts.hpp"
#include "vfs/file.hpp"

namespace cowbird::procfs {
namespace {

std::string random_uuid() {
  std::array<std::uint8_t, 16> b{};
  // Up to 256 bytes getrandom cannot fail once the host's pool is ready; it blocks until then.
  if (::getrandom(b.data(), b.size(), 0) != static_cast<ssize_t>(b.size())) return "";
  b[6] = static_cast<std::uint8_t>((b[6] & 0x0f) | 0x40);  // RFC 4122, version 4
  b[8] = static_cast<std::uint8_t>((b[8] & 0x3f) | 0x80);
  std::string out;
  for (std::size_t i = 0; i < b.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += fmt::format("{:02x}", b[i]);
  }
  return out;
}

PseudoEntry value(const char *name, std::uint64_t v) {
  return text_entry(name, 0444, [v]() -> Result<std::string> { return fmt::format("{}\n", v); });
}
PseudoEntry word(const char *name, std::string_view text) {
  return text_entry(name, 0444,
                    [text]() -> Result<std::string> { return fmt::format("{}\n", text); });
}

PseudoEntry name_setting(const char *name, std::string &(*setting)()) {
  return text_entry(
      name, 0644, [setting]() -> Result<std::string> { return setting() + '\n'; },
      [setting](std::string_view text) -> Result<void> {
        if (text.size() > kMaxHostname) return Err(Errno::Inval);
        if (!current_task().credentials.capable(Capability::SysAdmin)) return Err(Errno::Perm);
        setting() = text;
        return {};
      });
}

PseudoEntry number_setting(const char *name, std::uint64_t (*get)(), void (*set)(std::uint64_t)) {
  return text_entry(
      name, 0644, [get]() -> Result<std::string> { return fmt::format("{}\n", get()); },
      [set](std::string_view text) -> Result<void> {
        std::uint64_t number = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
        if (error != std::errc() || end != text.data() + text.size()) return Err(Errno::Inval);
        set(number);
        return {};
      });
}

PseudoEntries random_entries() {
  PseudoEntries list;
  static const std::string boot_id = random_uuid();
  list.push_back(word("boot_id", boot_id));
  list.push_back(
      text_entry("uuid", 0444, []() -> Result<std::string> { return random_uuid() + '\n'; }));
  list.push_back(value("entropy_avail", 256));  // the host's pool, once ready, always says so
  list.push_back(value("poolsize", 256));
  return list;
}

PseudoEntries kernel_entries() {
  PseudoEntries list;
  list.push_back(word("ostype", kUtsSysname));
  list.push_back(word("osrelease", kUtsRelease));
  list.push_back(word("version", kUtsVersion));
  list.push_back(name_setting("hostname", uts_hostname));
  list.push_back(name_setting("domainname", uts_domainname));
  list.push_back(value("pid_max", kPidMax));
  list.push_back(text_entry("threads-max", 0444, []() -> Result<std::string> {
    return fmt::format("{}\n", max_tasks());
  }));
  list.push_back(value("cap_last_cap", 40));
  list.push_back(value("ngroups_max", 65536));
  list.push_back(directory_entry("random", random_entries()));
  list.push_back(number_setting("sysrq", sysrq_mask, set_sysrq_mask));
  list.push_back(number_setting(
      "ctrl-alt-del", [] { return std::uint64_t{ctrl_alt_del_restarts()}; },
      [](std::uint64_t on) { set_ctrl_alt_del_restarts(on != 0); }));
  return list;
}

PseudoEntries vm_entries() {
  PseudoEntries list;
  list.push_back(value("overcommit_memory", 0));
  list.push_back(value("max_map_count", kMaxAreas));
  list.push_back(value("mmap_min_addr", kUserMin));
  return list;
}

PseudoEntries fs_entries() {
  PseudoEntries list;
  list.push_back(text_entry("file-nr", 0444, []() -> Result<std::string> {
    return fmt::format("{}\t0\t{}\n", File::open_count(), File::max_open());
  }));
  list.push_back(text_entry("file-max", 0444, []() -> Result<std::string> {
    return fmt::format("{}\n", File::max_open());
  }));
  list.push_back(value("nr_open", FdTable::kMaxDescriptors));
  list.push_back(value("pipe-max-size", 1 * kMiB));
  return list;
}

}  // namespace

PseudoEntries sysctl_entries() {
  PseudoEntries list;
  list.push_back(directory_entry("kernel", kernel_entries()));
  list.push_back(directory_entry("vm", vm_entries()));
  list.push_back(directory_entry("fs", fs_entries()));
  return list;
}

}  // namespace cowbird::procfs
