// The files directly below /proc that tell of the whole system.
#include <cpuid.h>
#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstring>

#include "base/log.hpp"
#include "block/block_device.hpp"
#include "fs/devtmpfs.hpp"
#include "fs/procfs_internal.hpp"
#include "irq/irq.hpp"
#include "mm/page_cache.hpp"
#include "mm/phys_memory.hpp"
#include "net/socket.hpp"
#include "proc/sysrq.hpp"
#include "proc/uts.hpp"
#include "sched/clock.hpp"
#include "sched/scheduler.hpp"
#include "vfs/device.hpp"
#include "vfs/file_lock.hpp"
#include "vfs/path.hpp"

namespace cowbird::procfs {
namespace {

Result<std::string> text_version() {
  return fmt::format("{} version {} (cowbird) {}\n", kUtsSysname, kUtsRelease, kUtsVersion);
}

Result<std::string> text_uptime() {
  std::int64_t idle = 0;
  for (unsigned i = 0; i < scheduler::vcpu_count(); ++i) idle += scheduler::vcpu_stats(i).idle_ns;
  const auto seconds = [](std::int64_t ns) {
    return fmt::format("{}.{:02}", ns / kNsPerSec, ns % kNsPerSec / 10'000'000);
  };
  return fmt::format("{} {}\n", seconds(clock::monotonic_ns()), seconds(idle));
}

Result<std::string> text_loadavg() {
  std::uint64_t load[3];
  scheduler::load_average(load);
  std::string out;
  for (const std::uint64_t value : load) {
    out += fmt::format("{}.{:02} ", value >> 11, (value & 2047) * 100 >> 11);
  }
  std::size_t tasks = 0;
  int last_pid = 0;
  for_each_process([&](Process &p) {
    tasks += p.tasks.size();
    last_pid = std::max(last_pid, p.pid);
  });
  out += fmt::format("{}/{} {}\n", scheduler::runnable_count(), tasks, last_pid);
  return out;
}

Result<std::string> text_meminfo() {
  const PageCacheTotals cache = page_cache_totals();
  const std::uint64_t clean = cache.pages - cache.memory_only_pages - cache.dirty_pages;
  const std::uint64_t file_pages = cache.pages - cache.memory_only_pages;
  std::uint64_t anon = 0, tables = 0;
  std::vector<const Mm *> seen;
  for_each_process([&](Process &p) {
    const Task *task = p.representative();
    const Mm *mm = task ? task->mm.get() : nullptr;
    if (mm == nullptr || std::find(seen.begin(), seen.end(), mm) != seen.end()) return;
    seen.push_back(mm);
    const MmUsage use = mm->usage();
    anon += use.resident_anon;
    tables += use.page_table_pages;
  });
  std::string out;
  const auto line = [&](const char *name, std::uint64_t pages) {
    out += fmt::format("{:<15} {:8} kB\n", fmt::format("{}:", name), kib(pages));
  };
  line("MemTotal", phys().total_pages());
  line("MemFree", phys().free_pages());
  line("MemAvailable", phys().free_pages() + clean);
  line("Buffers", 0);  // block devices are read without a cache
  line("Cached", file_pages + cache.memory_only_pages);
  line("SwapCached", 0);
  line("SwapTotal", 0);
  line("SwapFree", 0);
  line("Dirty", cache.dirty_pages);
  line("AnonPages", anon);
  line("Shmem", cache.memory_only_pages);
  line("SReclaimable", 0);  // the kernel's own objects are not in the guest's memory
  line("PageTables", tables);
  return out;
}

void append_cpu_line(std::string &out, const std::string &name, const scheduler::VcpuStats &s) {
  out += fmt::format("{} {} {} {} {} 0 {} 0 0 0 0\n", name, ticks(s.user_ns), ticks(s.nice_ns),
                     ticks(s.system_ns), ticks(s.idle_ns), ticks(s.irq_ns));
}

Result<std::string> text_stat() {
  scheduler::VcpuStats total{};
  std::string cpus;
  for (unsigned i = 0; i < scheduler::vcpu_count(); ++i) {
    const scheduler::VcpuStats s = scheduler::vcpu_stats(i);
    total.user_ns += s.user_ns;
    total.nice_ns += s.nice_ns;
    total.system_ns += s.system_ns;
    total.idle_ns += s.idle_ns;
    total.irq_ns += s.irq_ns;
    append_cpu_line(cpus, fmt::format("cpu{}", i), s);
  }
  std::string out;
  append_cpu_line(out, "cpu ", total);
  out += cpus;
  std::uint64_t interrupts = 0;
  irq::for_each_source([&](const std::string &, std::uint64_t count) { interrupts += count; });
  std::uint64_t blocked = 0;
  for_each_task([&](Task &t) { blocked += t.state() == ThreadState::Uninterruptible ? 1 : 0; });
  out += fmt::format(
      "intr {}\nctxt {}\nbtime {}\nprocesses {}\nprocs_running {}\nprocs_blocked {}\n", interrupts,
      scheduler::context_switches(), clock::realtime_offset_ns() / kNsPerSec, forks_since_boot(),
      scheduler::runnable_count(), blocked);
  return out;
}

// The brand string of the processor, which guest code runs on directly.
std::string cpu_brand() {
  unsigned regs[12] = {};
  for (unsigned i = 0; i < 3; ++i) {
    unsigned *r = regs + std::size_t{4} * i;
    if (__get_cpuid(0x80000002 + i, r, r + 1, r + 2, r + 3) == 0) return "unknown";
  }
  char text[49] = {};
  std::memcpy(text, regs, 48);
  std::string_view view(text);
  while (!view.empty() && view.front() == ' ') view.remove_prefix(1);
  return std::string(view);
}

// As UML shows it: the processors are the host's, and this is what they run under.
std::string host_uname() {
  utsname host{};
  ::uname(&host);  // fails only for a bad address
  return fmt::format("{} {} {} {} {}", host.sysname, host.nodename, host.release, host.version,
                     host.machine);
}

std::string cpu_flags() {
  struct Flag {
    unsigned leaf, reg, bit;  // reg: 0 eax, 1 ebx, 2 ecx, 3 edx
    const char *name;
  };
  static constexpr Flag kFlags[] = {
      {1, 3, 0, "fpu"},      {1, 3, 4, "tsc"},      {1, 3, 8, "cx8"},     {1, 3, 15, "cmov"},
      {1, 3, 19, "clflush"}, {1, 3, 23, "mmx"},     {1, 3, 24, "fxsr"},   {1, 3, 25, "sse"},
      {1, 3, 26, "sse2"},    {1, 3, 28, "ht"},      {1, 2, 0, "pni"},     {1, 2, 1, "pclmulqdq"},
      {1, 2, 9, "ssse3"},    {1, 2, 12, "fma"},     {1, 2, 13, "cx16"},   {1, 2, 19, "sse4_1"},
      {1, 2, 20, "sse4_2"},  {1, 2, 22, "movbe"},   {1, 2, 23, "popcnt"}, {1, 2, 25, "aes"},
      {1, 2, 26, "xsave"},   {1, 2, 28, "avx"},     {1, 2, 29, "f16c"},   {1, 2, 30, "rdrand"},
      {7, 1, 0, "fsgsbase"}, {7, 1, 3, "bmi1"},     {7, 1, 5, "avx2"},    {7, 1, 8, "bmi2"},
      {7, 1, 9, "erms"},     {7, 1, 16, "avx512f"}, {7, 1, 18, "rdseed"}, {7, 1, 19, "adx"},
      {7, 1, 29, "sha_ni"},
  };
  std::string out;
  for (const Flag &flag : kFlags) {
    unsigned r[4] = {};
    if (__get_cpuid_count(flag.leaf, 0, &r[0], &r[1], &r[2], &r[3]) == 0) continue;
    if ((r[flag.reg] >> flag.bit) & 1)
      out += fmt::format("{}{}", out.empty() ? "" : " ", flag.name);
  }
  return out;
}

Result<std::string> text_cpuinfo() {
  unsigned vendor[4] = {}, one[4] = {};
  __get_cpuid(0, &vendor[0], &vendor[1], &vendor[2], &vendor[3]);
  __get_cpuid(1, &one[0], &one[1], &one[2], &one[3]);
  char name[13] = {};
  std::memcpy(name, &vendor[1], 4);
  std::memcpy(name + 4, &vendor[3], 4);
  std::memcpy(name + 8, &vendor[2], 4);
  unsigned family = (one[0] >> 8) & 0xf;
  const unsigned base_family = family;
  if (family == 0xf) family += (one[0] >> 20) & 0xff;
  unsigned model = (one[0] >> 4) & 0xf;
  if (base_family == 6 || base_family == 0xf) model |= ((one[0] >> 16) & 0xf) << 4;
  const std::string brand = cpu_brand(), flags = cpu_flags(), host = host_uname();
  std::string out;
  for (unsigned i = 0; i < scheduler::vcpu_count(); ++i) {
    out += fmt::format("processor\t: {}\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\n", i,
                       name, family, model);
    out += fmt::format("model name\t: {}\nstepping\t: {}\nfpu\t\t: yes\nflags\t\t: {}\n", brand,
                       one[0] & 0xf, flags);
    out += fmt::format("host\t\t: {}\n\n", host);
  }
  return out;
}

Result<std::string> text_filesystems() {
  std::string out;
  for_each_filesystem([&](const FileSystemType &type) {
    out += fmt::format("{}\t{}\n", type.no_device ? "nodev" : "", type.name);
  });
  return out;
}

Result<std::string> text_devices() {
  std::string out = "Character devices:\n";
  for_each_device_range(false, [&](const std::string &name, std::uint32_t major) {
    out += fmt::format("{:3} {}\n", major, name);
  });
  out += "\nBlock devices:\n";
  for_each_device_range(true, [&](const std::string &name, std::uint32_t major) {
    out += fmt::format("{:3} {}\n", major, name);
  });
  return out;
}

Result<std::string> text_interrupts() {
  std::string out = "            IRQ\n";
  unsigned line = 0;
  irq::for_each_source([&](const std::string &name, std::uint64_t count) {
    out += fmt::format("{:3}: {:10}  host  {}\n", line++, count, name);
  });
  return out;
}

Result<std::string> text_partitions() {
  std::string out = "major minor  #blocks  name\n\n";
  block::for_each_block_device([&](BlockDevice &d) {
    out += fmt::format("{:4} {:8} {:10} {}\n", d.major(), d.minor(), d.size() / kKiB, d.name());
  });
  return out;
}

Result<std::string> text_diskstats() {
  std::string out;
  block::for_each_block_device([&](BlockDevice &d) {
    const BlockDevice::Stats &s = d.stats();
    out += fmt::format("{:4} {:7} {} {} 0 {} 0 {} 0 {} 0 {} 0 0\n", d.major(), d.minor(), d.name(),
                       s.reads, s.read_bytes / 512, s.writes, s.written_bytes / 512, s.in_flight);
  });
  return out;
}

Result<std::string> text_swaps() {
  return std::string("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
}

Result<std::string> text_vmstat() {
  const PageCacheTotals cache = page_cache_totals();
  std::uint64_t minor = 0, major = 0;
  for_each_process([&](Process &p) {
    const ResourceUsage use = p.total_usage();
    minor += use.minor_faults;
    major += use.major_faults;
  });
  return fmt::format(
      "nr_free_pages {}\nnr_file_pages {}\nnr_dirty {}\nnr_shmem {}\npgfault {}\npgmajfault {}\n",
      phys().free_pages(), cache.pages, cache.dirty_pages, cache.memory_only_pages, minor + major,
      major);
}

Result<std::string> text_locks() {
  std::string out;
  unsigned number = 0;
  for_each_lock([&](const LockListing &l) {
    if (!l.waits) ++number;
    const DeviceNumber device = l.inode.sb().device;
    out +=
        fmt::format("{}: {}{:<6} ADVISORY  {} {} {:02x}:{:02x}:{} {} ", number,
                    l.waits ? "-> " : "", l.kind, l.lock.kind == LockKind::Write ? "WRITE" : "READ",
                    l.lock.pid, device.major, device.minor, l.inode.number(), l.lock.start);
    out += l.lock.end == ~0ull ? std::string("EOF\n") : fmt::format("{}\n", l.lock.end);
  });
  return out;
}

// As Linux shows it to those who may not see kernel addresses: the first column is 0.
Result<std::string> text_net_unix() {
  std::string out = "Num       RefCount Protocol Flags    Type St Inode Path\n";
  constexpr unsigned kAcceptsConnections = 0x10000;
  constexpr unsigned kUnconnected = 1, kConnecting = 2, kConnected = 3;
  for (const Socket &s : Sockets::all()) {
    if (s.domain() != abi::kAF_UNIX) continue;
    const unsigned state =
        s.unaccepted() ? kConnecting : (s.connected() ? kConnected : kUnconnected);
    out += fmt::format("{:016x}: {:08X} {:08X} {:08X} {:04X} {:02X} {:5}", 0, s.connected() ? 3 : 2,
                       0, s.listening() ? kAcceptsConnections : 0, s.type(), state,
                       s.unaccepted() || !s.inode ? 0 : s.inode->number());
    if (!s.shown_address().empty()) {
      std::string name = s.shown_address();
      std::replace(name.begin(), name.end(), '\0', '@');
      out += ' ' + name;
    }
    out += '\n';
  }
  return out;
}

Result<void> write_sysrq(std::string_view text) {
  if (text.empty()) return {};
  // As on Linux, only the first character counts.
  return handle_sysrq(text[0]);
}

// /proc/kmsg: the log as syslog(2) would hand it out; each record is read once.
class KmsgProcFile final : public File {
 public:
  explicit KmsgProcFile(std::uint32_t flags) : File(flags), next_(log_first_sequence()) {}

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &) override {
    if (rest_.empty()) {
      if (log_next_sequence() <= next_) {
        if (nonblocking()) return Err(Errno::Again);
        TRY(wait_event(
            kmsg_wait_queue(), [&] { return log_next_sequence() > next_; },
            SleepMode::Interruptible, "syslog"));
      }
      while (const auto record = log_read(next_)) {
        next_ = record->sequence + 1;
        rest_ += fmt::format("<{}>{}\n", static_cast<int>(record->level), log_format(*record));
        if (rest_.size() >= to.remaining()) break;
      }
    }
    // Copying may sleep: another reader must not find what this one copies from.
    const std::string text = std::move(rest_);
    rest_.clear();
    auto copied = to.copy_to(std::as_bytes(std::span(text)));
    rest_.insert(0, text.substr(copied ? static_cast<std::size_t>(*copied) : 0));
    return copied;
  }
  std::uint32_t poll(PollTable *table) override {
    if (table) table->wait(kmsg_wait_queue());
    return !rest_.empty() || log_next_sequence() > next_ ? 0x41u : 0u;  // POLLIN | POLLRDNORM
  }

 private:
  std::uint64_t next_;
  std::string rest_;
};

class KmsgInode final : public PseudoInode {
 public:
  KmsgInode(SuperBlock &sb, std::uint64_t number)
      : PseudoInode(sb, number, FileType::Regular, 0400) {}
  Result<Ref<File>> open(std::uint32_t flags) override {
    const Task *task = current_thread()->as_task();
    if (task && !task->credentials.capable(Capability::Syslog)) return Err(Errno::Perm);
    return Ref<File>(make_ref<KmsgProcFile>(flags));
  }
};

}  // namespace

PseudoEntries network_entries() { return {text_entry("unix", 0444, text_net_unix)}; }

PseudoEntries system_entries(const std::string &command_line) {
  PseudoEntries list;
  const auto text = [&](const char *name, Result<std::string> (*source)()) {
    list.push_back(text_entry(name, 0444, source));
  };
  text("version", text_version);
  text("uptime", text_uptime);
  text("loadavg", text_loadavg);
  text("meminfo", text_meminfo);
  text("stat", text_stat);
  text("cpuinfo", text_cpuinfo);
  text("filesystems", text_filesystems);
  text("devices", text_devices);
  text("interrupts", text_interrupts);
  text("partitions", text_partitions);
  text("diskstats", text_diskstats);
  text("swaps", text_swaps);
  text("locks", text_locks);
  text("vmstat", text_vmstat);
  list.push_back(text_entry(
      "cmdline", 0444, [command_line]() -> Result<std::string> { return command_line + '\n'; }));
  list.push_back(text_entry("sysrq-trigger", 0200, nullptr, write_sysrq));
  list.push_back(
      {"kmsg", FileType::Regular, [](SuperBlock &sb, std::uint64_t number) -> Ref<Inode> {
         return make_ref<KmsgInode>(sb, number);
       }});
  list.push_back(link_entry("self", []() -> Result<std::string> {
    const Task *task = reading_task();
    if (task == nullptr) return Err(Errno::NoEnt);
    return std::to_string(task->process->pid);
  }));
  list.push_back(link_entry("thread-self", []() -> Result<std::string> {
    const Task *task = reading_task();
    if (task == nullptr) return Err(Errno::NoEnt);
    return fmt::format("{}/task/{}", task->process->pid, task->tid);
  }));
  list.push_back(
      link_entry("mounts", []() -> Result<std::string> { return std::string("self/mounts"); }));
  list.push_back(
      link_entry("net", []() -> Result<std::string> { return std::string("self/net"); }));
  list.push_back(directory_entry("sys", sysctl_entries()));
  return list;
}

}  // namespace cowbird::procfs
