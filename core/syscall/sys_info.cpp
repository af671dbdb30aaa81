// System calls about the system: names, limits, usage, the log, shutting down.
#include <sys/random.h>

#include <algorithm>
#include <cstring>

#include "abi/resource.hpp"
#include "abi/sysinfo.hpp"
#include "abi/utsname.hpp"
#include "base/log.hpp"
#include "mm/phys_memory.hpp"
#include "proc/itimer.hpp"
#include "proc/proc_internal.hpp"
#include "proc/uts.hpp"
#include "sched/scheduler.hpp"
#include "sched/wait.hpp"
#include "syscall/rusage.hpp"
#include "syscall/syscall.hpp"
#include "syscall/times.hpp"

namespace cowbird {

namespace {

template <std::size_t N>
void copy_name(char (&to)[N], std::string_view from) {
  const std::size_t length = std::min(from.size(), N - 1);
  std::memcpy(to, from.data(), length);
  to[length] = '\0';
}

Result<void> set_name(Task &task, const SysArgs &args, std::string &name) {
  if (!task.credentials.capable(Capability::SysAdmin)) return Err(Errno::Perm);
  if (args.s32(1) < 0 || args.s32(1) > static_cast<int>(kMaxHostname)) return Err(Errno::Inval);
  std::string wanted(static_cast<std::size_t>(args.s32(1)), '\0');
  TRY(copy_in(wanted.data(), args.u64(0), wanted.size()));
  name = wanted.substr(0, wanted.find('\0'));
  return {};
}

// --- limits

Result<Limit> limit_of(std::uint32_t resource) {
  if (resource >= static_cast<std::uint32_t>(Limit::Count)) return Err(Errno::Inval);
  return static_cast<Limit>(resource);
}

void apply_limit(Process &process, Limit limit, const LimitPair &pair) {
  if (limit == Limit::Cpu) {
    const auto seconds = std::min<std::uint64_t>(pair.soft, kMaxSeconds);
    process.timers().cpu_limit_next_ns =
        pair.soft == kNoLimit
            ? 0
            : std::max<std::int64_t>(1, static_cast<std::int64_t>(seconds) * kNsPerSec);
    update_cpu_timers(process);
  }
  Task *task = process.representative();
  if (task == nullptr || !task->mm) return;
  MmLimits &limits = task->mm->limits;
  if (limit == Limit::Stack) limits.stack = pair.soft;
  if (limit == Limit::Data) limits.data = pair.soft;
  if (limit == Limit::MemLock) limits.locked = pair.soft;
  if (limit == Limit::AddressSpace) limits.address_space = pair.soft;
}

Result<void> set_limit(const Task &task, Process &process, Limit limit, const abi::Rlimit &wanted) {
  if (wanted.soft > wanted.hard) return Err(Errno::Inval);
  LimitPair &pair = process.limits[static_cast<std::size_t>(limit)];
  if (limit == Limit::NoFile && wanted.hard > FdTable::kMaxDescriptors) return Err(Errno::Perm);
  if (wanted.hard > pair.hard && !task.credentials.capable(Capability::SysResource)) {
    return Err(Errno::Perm);
  }
  pair = {wanted.soft, wanted.hard};
  apply_limit(process, limit, pair);
  return {};
}

Result<Ref<Process>> limit_target(Task &task, int pid) {
  if (pid == 0 || pid == task.process->pid) return task.process;
  Ref<Process> process = find_process(pid);
  if (!process || process->zombie) return Err(Errno::Srch);
  const Credentials &own = task.credentials;
  const Credentials &other = process->credentials();
  const bool same = own.uid == other.uid && own.uid == other.euid && own.uid == other.suid &&
                    own.gid == other.gid && own.gid == other.egid && own.gid == other.sgid;
  if (!same && !own.capable(Capability::SysResource)) return Err(Errno::Perm);
  return process;
}

// --- the log

constexpr int kLogRead = 2, kLogReadAll = 3, kLogReadClear = 4, kLogClear = 5, kLogUnread = 9,
              kLogSize = 10, kLogOpen = 1, kLogClose = 0;
constexpr std::int64_t kLogPollNs = 100 * kNsPerMs;
// What SYSLOG_ACTION_SIZE_BUFFER says, and the most that one call returns.
constexpr std::size_t kLogBufferBytes = 256 * kKiB;

std::uint64_t log_read_position = 0;   // of SYSLOG_ACTION_READ
std::uint64_t log_clear_position = 0;  // SYSLOG_ACTION_CLEAR hides what is older

std::string log_line(const LogRecord &record) {
  return fmt::format("<{}>{}\n", static_cast<int>(record.level), log_format(record));
}

// The newest lines from `first` on that fit into `room` bytes.
std::string log_text(std::uint64_t first, std::size_t room) {
  std::vector<std::string> lines;
  std::size_t bytes = 0;
  for (std::uint64_t at = std::max(first, log_first_sequence()); at < log_next_sequence(); ++at) {
    const auto record = log_read(at);
    if (!record) break;
    at = record->sequence;
    lines.push_back(log_line(*record));
    bytes += lines.back().size();
  }
  std::string text;
  for (const std::string &line : lines) {
    if (bytes <= room)
      text += line;
    else
      bytes -= line.size();
  }
  return text;
}

SysResult read_log_all(const SysArgs &args, bool clear) {
  if (args.u64(1) == 0 || args.s32(2) < 0) return Err(Errno::Inval);
  const std::size_t room = std::min<std::size_t>(args.u32(2), kLogBufferBytes);
  const std::uint64_t end = log_next_sequence();
  const std::string text = log_text(log_clear_position, room);
  TRY(copy_out(args.u64(1), text.data(), text.size()));
  if (clear) log_clear_position = end;
  return static_cast<std::int64_t>(text.size());
}

// Waits for a line that was not read yet. The log has writers on every host thread and no wait
// queue, so this looks from time to time.
SysResult read_log_next(const SysArgs &args) {
  if (args.u64(1) == 0 || args.s32(2) < 0) return Err(Errno::Inval);
  while (log_next_sequence() <= log_read_position) {
    const auto slept =
        sleep_until(deadline_after(kLogPollNs), SleepMode::Interruptible, "syslog_read");
    if (!slept && !slept.is(Errno::TimedOut)) return Err(slept.error());
  }
  std::string text;
  while (log_read_position < log_next_sequence()) {
    const auto record = log_read(log_read_position);
    if (!record) break;
    const std::string line = log_line(*record);
    if (text.size() + line.size() > args.u32(2) || text.size() > kLogBufferBytes) break;
    text += line;
    log_read_position = record->sequence + 1;
  }
  TRY(copy_out(args.u64(1), text.data(), text.size()));
  return static_cast<std::int64_t>(text.size());
}

std::size_t unread_log_bytes() {
  std::size_t bytes = 0;
  for (std::uint64_t at = std::max(log_read_position, log_first_sequence());
       at < log_next_sequence(); ++at) {
    if (const auto record = log_read(at)) bytes += log_line(*record).size();
  }
  return bytes;
}

}  // namespace

abi::Rusage to_rusage(const ResourceUsage &usage) {
  abi::Rusage out{};
  out.utime = to_timeval(usage.user_ns);
  out.stime = to_timeval(usage.system_ns);
  out.maxrss = static_cast<std::int64_t>(usage.max_rss_pages << (kPageShift - 10));
  out.minflt = static_cast<std::int64_t>(usage.minor_faults);
  out.majflt = static_cast<std::int64_t>(usage.major_faults);
  out.inblock = static_cast<std::int64_t>(usage.io.storage_read_bytes / 512);
  out.oublock = static_cast<std::int64_t>(usage.io.storage_written_bytes / 512);
  out.nvcsw = static_cast<std::int64_t>(usage.voluntary_switches);
  out.nivcsw = static_cast<std::int64_t>(usage.involuntary_switches);
  return out;
}

SysResult sys_uname(Task &, const SysArgs &args) {
  abi::Utsname name{};
  copy_name(name.sysname, kUtsSysname);
  copy_name(name.nodename, uts_hostname());
  copy_name(name.release, kUtsRelease);
  copy_name(name.version, kUtsVersion);
  copy_name(name.machine, kUtsMachine);
  copy_name(name.domainname, uts_domainname());
  TRY(args.ptr<abi::Utsname>(0).write(name));
  return 0;
}

SysResult sys_sethostname(Task &task, const SysArgs &args) {
  TRY(set_name(task, args, uts_hostname()));
  return 0;
}

SysResult sys_setdomainname(Task &task, const SysArgs &args) {
  TRY(set_name(task, args, uts_domainname()));
  return 0;
}

SysResult sys_sysinfo(Task &, const SysArgs &args) {
  abi::Sysinfo info{};
  info.uptime = clock::monotonic_ns() / kNsPerSec;
  std::uint64_t loads[3];
  scheduler::load_average(loads);
  // The scheduler counts in 1/2048, sysinfo(2) in 1/65536.
  for (int i = 0; i < 3; ++i) info.loads[i] = loads[i] << 5;
  info.totalram = phys().total_pages() << kPageShift;
  info.freeram = phys().free_pages() << kPageShift;
  info.procs = static_cast<std::uint16_t>(std::min<std::size_t>(task_count(), UINT16_MAX));
  info.mem_unit = 1;
  TRY(args.ptr<abi::Sysinfo>(0).write(info));
  return 0;
}

SysResult sys_getrlimit(Task &task, const SysArgs &args) {
  const Limit limit = TRY(limit_of(args.u32(0)));
  const LimitPair &pair = task.process->limits[static_cast<std::size_t>(limit)];
  TRY(args.ptr<abi::Rlimit>(1).write({pair.soft, pair.hard}));
  return 0;
}

SysResult sys_setrlimit(Task &task, const SysArgs &args) {
  const Limit limit = TRY(limit_of(args.u32(0)));
  const auto wanted = TRY(args.ptr<abi::Rlimit>(1).read());
  TRY(set_limit(task, *task.process, limit, wanted));
  return 0;
}

SysResult sys_prlimit64(Task &task, const SysArgs &args) {
  const Limit limit = TRY(limit_of(args.u32(1)));
  abi::Rlimit wanted{};
  if (args.u64(2) != 0) wanted = TRY(args.ptr<abi::Rlimit>(2).read());
  const Ref<Process> process = TRY(limit_target(task, args.s32(0)));
  const LimitPair old = process->limits[static_cast<std::size_t>(limit)];
  if (args.u64(2) != 0) TRY(set_limit(task, *process, limit, wanted));
  if (args.u64(3) != 0) TRY(args.ptr<abi::Rlimit>(3).write({old.soft, old.hard}));
  return 0;
}

SysResult sys_getrusage(Task &task, const SysArgs &args) {
  ResourceUsage usage;
  switch (args.s32(0)) {
    case abi::kRUSAGE_SELF:
      usage = task.process->total_usage();
      break;
    case abi::kRUSAGE_CHILDREN:
      usage = task.process->children_usage;
      break;
    case abi::kRUSAGE_THREAD:
      usage.user_ns = task.user_ns;
      usage.system_ns = task.system_ns;
      usage.minor_faults = task.minor_faults;
      usage.major_faults = task.major_faults;
      usage.voluntary_switches = task.voluntary_switches;
      usage.involuntary_switches = task.involuntary_switches;
      usage.max_rss_pages = task.mm->usage().peak_resident;
      break;
    default:
      return Err(Errno::Inval);
  }
  TRY(args.ptr<abi::Rusage>(1).write(to_rusage(usage)));
  return 0;
}

SysResult sys_getrandom(Task &, const SysArgs &args) {
  constexpr std::uint32_t kNonBlock = 1, kRandom = 2, kInsecure = 4;
  const std::uint32_t flags = args.u32(2);
  if ((flags & ~(kNonBlock | kRandom | kInsecure)) != 0 ||
      (flags & (kRandom | kInsecure)) == (kRandom | kInsecure)) {
    return Err(Errno::Inval);
  }
  const std::uint64_t length = std::min<std::uint64_t>(args.u64(1), INT32_MAX);
  std::byte bytes[1024];
  std::uint64_t done = 0;
  while (done < length) {
    const std::size_t piece = std::min<std::uint64_t>(sizeof(bytes), length - done);
    fill_random(std::span(bytes).first(piece));
    const std::size_t copied = copy_out_partial(args.u64(0) + done, bytes, piece);
    done += copied;
    if (copied < piece) return done == 0 ? SysResult(Err(Errno::Fault)) : SysResult(done);
    if (current_task().signal_pending()) break;
    scheduler::cond_resched();
  }
  return static_cast<std::int64_t>(done);
}

SysResult sys_syslog(Task &task, const SysArgs &args) {
  const int action = args.s32(0);
  const bool reads_only = action == kLogReadAll || action == kLogSize;
  if (!reads_only && !task.credentials.capable(Capability::Syslog) &&
      !task.credentials.capable(Capability::SysAdmin)) {
    return Err(Errno::Perm);
  }
  switch (action) {
    case kLogOpen:
    case kLogClose:
      return 0;
    case kLogRead:
      return read_log_next(args);
    case kLogReadAll:
    case kLogReadClear:
      return read_log_all(args, action == kLogReadClear);
    case kLogClear:
      log_clear_position = log_next_sequence();
      return 0;
    case kLogUnread:
      return static_cast<std::int64_t>(unread_log_bytes());
    case kLogSize:
      return static_cast<std::int64_t>(kLogBufferBytes);
    default:
      return Err(Errno::Inval);
  }
}

SysResult sys_reboot(Task &task, const SysArgs &args) {
  if (!task.credentials.capable(Capability::SysBoot)) return Err(Errno::Perm);
  const std::uint32_t magic2 = args.u32(1);
  if (args.u32(0) != abi::kLINUX_REBOOT_MAGIC1 ||
      (magic2 != abi::kLINUX_REBOOT_MAGIC2 && magic2 != abi::kLINUX_REBOOT_MAGIC2A &&
       magic2 != abi::kLINUX_REBOOT_MAGIC2B && magic2 != abi::kLINUX_REBOOT_MAGIC2C)) {
    return Err(Errno::Inval);
  }
  RebootAction action;
  std::string argument;
  switch (args.u32(2)) {
    case abi::kLINUX_REBOOT_CMD_RESTART:
      action = RebootAction::Restart;
      break;
    case abi::kLINUX_REBOOT_CMD_RESTART2:
      action = RebootAction::Restart;
      argument = TRY(copy_in_string(args.u64(3), 255));
      break;
    case abi::kLINUX_REBOOT_CMD_HALT:
      action = RebootAction::Halt;
      break;
    case abi::kLINUX_REBOOT_CMD_POWER_OFF:
      action = RebootAction::PowerOff;
      break;
    case abi::kLINUX_REBOOT_CMD_CAD_ON:
    case abi::kLINUX_REBOOT_CMD_CAD_OFF:
      // The management console presses these keys.
      set_ctrl_alt_del_restarts(args.u32(2) == abi::kLINUX_REBOOT_CMD_CAD_ON);
      return 0;
    default:
      return Err(Errno::Inval);
  }
  TRY(request_reboot(action, argument));
  return 0;
}

}  // namespace cowbird
