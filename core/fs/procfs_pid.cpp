// /proc/PID and /proc/PID/task/TID.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "fs/procfs_internal.hpp"
#include "mm/user_access.hpp"
#include "proc/proc_internal.hpp"
#include "sched/clock.hpp"
#include "syscall/syscall.hpp"
#include "tty/tty.hpp"

namespace cowbird::procfs {
namespace {

char state_letter(const Subject &s) {
  if (s.process->zombie || s.task() == nullptr) return 'Z';
  return task_state_letter(*s.task());
}

const char *state_name(char letter) {
  switch (letter) {
    case 'R':
      return "R (running)";
    case 'S':
      return "S (sleeping)";
    case 'D':
      return "D (disk sleep)";
    case 'T':
      return "T (stopped)";
    case 't':
      return "t (tracing stop)";
    case 'Z':
      return "Z (zombie)";
    default:
      return "X (dead)";
  }
}

std::string comm_of(const Subject &s) { return s.thread ? s.thread->comm : s.process->comm(); }

int parent_pid(const Process &process) { return process.parent ? process.parent->pid : 0; }

ResourceUsage usage_of(const Subject &s) {
  if (!s.thread) return s.process->total_usage();
  ResourceUsage usage;
  usage.user_ns = s.thread->user_ns;
  usage.system_ns = s.thread->system_ns;
  usage.minor_faults = s.thread->minor_faults;
  usage.major_faults = s.thread->major_faults;
  usage.io = s.thread->io;
  return usage;
}

struct SignalView {
  SignalSet pending, shared, blocked, ignored, caught;
};
SignalView signals_of(const Subject &s) {
  SignalView view;
  view.shared = s.process->pending.set();
  if (const Task *task = s.task()) {
    view.pending = task->pending.set();
    view.blocked = task->blocked;
  }
  if (!s.process->handlers) return view;
  for (int n = 1; n <= kSignalCount; ++n) {
    const std::uint64_t handler =
        s.process->handlers->actions[static_cast<std::size_t>(n - 1)].handler;
    if (handler == 1) view.ignored.add(n);
    if (handler > 1) view.caught.add(n);
  }
  return view;
}

std::string text_stat(const Subject &s) {
  const Process &p = *s.process;
  const Task *task = s.task();
  const Mm *mm = s.mm();
  const MmUsage use = mm ? mm->usage() : MmUsage{};
  const ResourceUsage self = usage_of(s);
  const ResourceUsage &kids = p.children_usage;
  const SignalView sig = signals_of(s);
  const bool show = may_inspect(p) && mm != nullptr;
  const auto hide = [&](std::uint64_t value) { return show ? value : 0; };
  const int tty_nr =
      p.controlling_tty ? static_cast<int>(tty_device_number(*p.controlling_tty).encode()) : 0;
  const int tpgid = p.controlling_tty ? tty_foreground_group(*p.controlling_tty) : -1;
  const int nice = task ? task->nice : 0;
  std::string out =
      fmt::format("{} ({}) {} {} {} {} {} {} {}", s.thread ? s.thread->tid : p.pid, comm_of(s),
                  state_letter(s), parent_pid(p), p.pgid, p.sid, tty_nr, tpgid, 0x400000);
  out += fmt::format(" {} {} {} {} {} {} {} {} {} {} {} 0 {}", self.minor_faults, kids.minor_faults,
                     self.major_faults, kids.major_faults, ticks(self.user_ns),
                     ticks(self.system_ns), ticks(kids.user_ns), ticks(kids.system_ns), 20 + nice,
                     nice, p.tasks.size(), ticks(p.start_time_ns));
  out +=
      fmt::format(" {} {} {}", use.virtual_pages * kPageSize,
                  use.resident_anon + use.resident_file + use.resident_shared, p.limit(Limit::Rss));
  out += fmt::format(" {} {} {} 0 0", hide(mm ? mm->code_start : 0), hide(mm ? mm->code_end : 0),
                     hide(mm ? mm->stack_top : 0));
  const std::uint64_t low31 = 0x7fffffff;
  out += fmt::format(" {} {} {} {} {} 0 0", (sig.pending | sig.shared).bits() & low31,
                     sig.blocked.bits() & low31, sig.ignored.bits() & low31,
                     sig.caught.bits() & low31, state_letter(s) == 'S' && show ? 1 : 0);
  out += fmt::format(" {} 0 0 {} 0 0 0", p.exit_signal, task ? task->policy : 0);
  out += fmt::format(" {} {} {} {} {} {} {} {}\n", hide(mm ? mm->data_start : 0),
                     hide(mm ? mm->data_end : 0), hide(mm ? mm->brk_start : 0),
                     hide(mm ? mm->arg_start : 0), hide(mm ? mm->arg_end : 0),
                     hide(mm ? mm->env_start : 0), hide(mm ? mm->env_end : 0),
                     p.zombie && show ? p.exit_status : 0);
  return out;
}

std::string text_statm(const Subject &s) {
  const Mm *mm = s.mm();
  if (mm == nullptr) return "0 0 0 0 0 0 0\n";
  const MmUsage use = mm->usage();
  return fmt::format("{} {} {} {} 0 {} 0\n", use.virtual_pages,
                     use.resident_anon + use.resident_file + use.resident_shared,
                     use.resident_file + use.resident_shared, use.exec_pages,
                     use.data_pages + use.stack_pages);
}

void append_memory_status(std::string &out, const Mm &mm) {
  const MmUsage use = mm.usage();
  const auto line = [&](const char *name, std::uint64_t pages) {
    out += fmt::format("{}:\t{:8} kB\n", name, kib(pages));
  };
  const std::uint64_t resident = use.resident_anon + use.resident_file + use.resident_shared;
  line("VmPeak", use.peak_virtual);
  line("VmSize", use.virtual_pages);
  line("VmLck", use.locked_pages);
  line("VmHWM", use.peak_resident);
  line("VmRSS", resident);
  line("RssAnon", use.resident_anon);
  line("RssFile", use.resident_file);
  line("RssShmem", use.resident_shared);
  line("VmData", use.data_pages);
  line("VmStk", use.stack_pages);
  line("VmExe", (page_up(mm.code_end) - page_down(mm.code_start)) >> kPageShift);
  line("VmPTE", use.page_table_pages);
}

std::string text_status(const Subject &s) {
  const Process &p = *s.process;
  const Task *task = s.task();
  const Credentials &c = task ? task->credentials : p.exit_credentials;
  std::string out = fmt::format("Name:\t{}\n", comm_of(s));
  if (task) out += fmt::format("Umask:\t{:04o}\n", task->fs ? task->fs->umask : 0);
  out += fmt::format("State:\t{}\nTgid:\t{}\nPid:\t{}\nPPid:\t{}\nTracerPid:\t0\n",
                     state_name(state_letter(s)), p.pid, s.thread ? s.thread->tid : p.pid,
                     parent_pid(p));
  out += fmt::format("Uid:\t{}\t{}\t{}\t{}\nGid:\t{}\t{}\t{}\t{}\n", c.uid, c.euid, c.suid, c.fsuid,
                     c.gid, c.egid, c.sgid, c.fsgid);
  if (task && task->files) out += fmt::format("FDSize:\t{}\n", task->files->list().size());
  out += "Groups:\t";
  for (const std::uint32_t group : c.groups) out += fmt::format("{} ", group);
  out += '\n';
  if (const Mm *mm = s.mm()) append_memory_status(out, *mm);
  const SignalView sig = signals_of(s);
  out += fmt::format("Threads:\t{}\nSigQ:\t{}/{}\n", p.tasks.size(), p.pending.queued(),
                     p.limit(Limit::SigPending));
  out += fmt::format("SigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\n", sig.pending.bits(),
                     sig.shared.bits(), sig.blocked.bits());
  out += fmt::format("SigIgn:\t{:016x}\nSigCgt:\t{:016x}\n", sig.ignored.bits(), sig.caught.bits());
  out += fmt::format("CapInh:\t{:016x}\nCapPrm:\t{:016x}\nCapEff:\t{:016x}\n", c.cap_inheritable,
                     c.cap_permitted, c.cap_effective);
  out += fmt::format("CapBnd:\t{:016x}\nCapAmb:\t{:016x}\nNoNewPrivs:\t{}\nSeccomp:\t0\n",
                     c.cap_bounding, c.cap_ambient, c.no_new_privs ? 1 : 0);
  if (task) {
    out += fmt::format("voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n",
                       task->voluntary_switches, task->involuntary_switches);
  }
  return out;
}

std::string text_limits(const Subject &s) {
  struct Row {
    const char *name;
    Limit limit;
    const char *unit;
  };
  static constexpr Row kRows[] = {
      {"Max cpu time", Limit::Cpu, "seconds"},
      {"Max file size", Limit::FileSize, "bytes"},
      {"Max data size", Limit::Data, "bytes"},
      {"Max stack size", Limit::Stack, "bytes"},
      {"Max core file size", Limit::Core, "bytes"},
      {"Max resident set", Limit::Rss, "bytes"},
      {"Max processes", Limit::NProc, "processes"},
      {"Max open files", Limit::NoFile, "files"},
      {"Max locked memory", Limit::MemLock, "bytes"},
      {"Max address space", Limit::AddressSpace, "bytes"},
      {"Max file locks", Limit::Locks, "locks"},
      {"Max pending signals", Limit::SigPending, "signals"},
      {"Max msgqueue size", Limit::MsgQueue, "bytes"},
      {"Max nice priority", Limit::Nice, ""},
      {"Max realtime priority", Limit::RtPrio, ""},
      {"Max realtime timeout", Limit::RtTime, "us"},
  };
  const auto show = [](std::uint64_t v) { return v == kNoLimit ? "unlimited" : std::to_string(v); };
  std::string out =
      fmt::format("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
  for (const Row &row : kRows) {
    const LimitPair &pair = s.process->limits[static_cast<std::size_t>(row.limit)];
    out += fmt::format("{:<25} {:<20} {:<20} {:<10}\n", row.name, show(pair.soft), show(pair.hard),
                       row.unit);
  }
  return out;
}

std::string text_io(const Subject &s) {
  const IoCounters io = usage_of(s).io;
  return fmt::format(
      "rchar: {}\nwchar: {}\nsyscr: {}\nsyscw: {}\nread_bytes: {}\nwrite_bytes: {}\n"
      "cancelled_write_bytes: 0\n",
      io.read_bytes, io.written_bytes, io.read_calls, io.write_calls, io.storage_read_bytes,
      io.storage_written_bytes);
}

std::string memory_text(const Subject &s, VirtAddr start, VirtAddr end) {
  constexpr std::uint64_t kMost = 2 * kMiB;
  Mm *mm = s.mm();
  if (mm == nullptr || end <= start) return "";
  Ref<Mm> hold(mm);  // the copy may sleep
  std::string text(std::min<std::uint64_t>(end - start, kMost), '\0');
  if (!copy_in_mm(*hold, text.data(), start, text.size())) return "";
  return text;
}

std::string text_cmdline(const Subject &s) {
  const Mm *mm = s.mm();
  return mm ? memory_text(s, mm->arg_start, mm->arg_end) : "";
}
std::string text_environ(const Subject &s) {
  const Mm *mm = s.mm();
  return mm ? memory_text(s, mm->env_start, mm->env_end) : "";
}
std::string text_auxv(const Subject &s) {
  const Mm *mm = s.mm();
  if (mm == nullptr) return "";
  return {reinterpret_cast<const char *>(mm->auxv.data()), mm->auxv.size() * sizeof(mm->auxv[0])};
}
std::string text_comm(const Subject &s) { return comm_of(s) + '\n'; }

std::string text_wchan(const Subject &s) {
  const Task *task = s.task();
  if (task == nullptr || task->state() == ThreadState::Running ||
      task->state() == ThreadState::Runnable || task->wait_channel() == nullptr) {
    return "0";
  }
  return task->wait_channel();
}

std::string text_syscall(const Subject &s) {
  Task *task = s.task();
  if (task == nullptr) return "";
  if (task->state() == ThreadState::Running || task->state() == ThreadState::Runnable) {
    return "running\n";
  }
  const auto &r = task->regs();
  if (task->syscall_number == ~0ull) return fmt::format("-1 {:#x} {:#x}\n", r.rsp, r.rip);
  return fmt::format("{} {:#x} {:#x} {:#x} {:#x} {:#x} {:#x} {:#x} {:#x}\n", task->syscall_number,
                     r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9, r.rsp, r.rip);
}

std::string text_personality(const Subject &s) {
  return fmt::format("{:08x}\n", s.task() ? s.task()->personality : 0);
}

// A rough measure of what killing the process would free, from 0 to 1000 as Linux shows it.
std::string text_oom_score(const Subject &s) {
  const Mm *mm = s.mm();
  if (mm == nullptr) return "0\n";
  const MmUsage use = mm->usage();
  const std::uint64_t share = (use.resident_anon + use.resident_shared) * 1000 /
                              std::max<std::uint64_t>(1, phys().total_pages());
  const std::int64_t score = static_cast<std::int64_t>(share) + s.task()->oom_score_adj;
  return fmt::format("{}\n", std::clamp<std::int64_t>(score, 0, 2000));
}
std::string text_oom_score_adj(const Subject &s) {
  return fmt::format("{}\n", s.task() ? s.task()->oom_score_adj : 0);
}
std::string text_schedstat(const Subject &s) {
  const ResourceUsage use = usage_of(s);
  const Task *t = s.task();
  return fmt::format("{} 0 {}\n", use.user_ns + use.system_ns,
                     t ? t->voluntary_switches + t->involuntary_switches : 0);
}
std::string text_timerslack(const Subject &s) {
  return fmt::format("{}\n", s.task() ? s.task()->timer_slack_ns : 0);
}
std::string text_children(const Subject &s) {
  std::string out;
  for (const Ref<Process> &child : s.process->children) {
    if (s.thread && child->parent_tid != s.thread->tid) continue;
    out += fmt::format("{} ", child->pid);
  }
  return out;
}

std::string mount_option_text(const MountInfo &mount) {
  std::string out = mount.flags & kMountReadOnly ? "ro" : "rw";
  if (mount.flags & kMountNoSuid) out += ",nosuid";
  if (mount.flags & kMountNoDev) out += ",nodev";
  if (mount.flags & kMountNoExec) out += ",noexec";
  if (mount.flags & kMountNoAtime) out += ",noatime";
  if (mount.flags & kMountNoDirAtime) out += ",nodiratime";
  if (mount.flags & kMountRelAtime) out += ",relatime";
  return out;
}

// Blanks and backslashes in names, as getmntent(3) wants them.
std::string mount_escape(const std::string &text) {
  std::string out;
  for (const char c : text) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\\') {
      out += fmt::format("\\{:03o}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out;
}

std::string text_mounts(const Subject &s) {
  const Task *task = s.task();
  std::string out;
  if (task == nullptr || !task->fs) return out;
  for (const MountInfo &m : list_mounts(task->fs->root)) {
    out += fmt::format("{} {} {} {}{} 0 0\n", mount_escape(m.source), mount_escape(m.mount_point),
                       m.type, mount_option_text(m), m.options);
  }
  return out;
}

std::string text_mountinfo(const Subject &s) {
  const Task *task = s.task();
  std::string out;
  if (task == nullptr || !task->fs) return out;
  for (const MountInfo &m : list_mounts(task->fs->root)) {
    out += fmt::format("{} {} {}:{} {} {} {} - {} {} {}{}\n", m.id, m.parent_id, m.device.major,
                       m.device.minor, mount_escape(m.root_in_fs), mount_escape(m.mount_point),
                       mount_option_text(m), m.type, mount_escape(m.source),
                       m.flags & kMountReadOnly ? "ro" : "rw", m.options);
  }
  return out;
}

// --- files that can be written

Result<void> write_comm(const Subject &s, std::string_view text) {
  Task *task = s.task();
  if (task == nullptr) return Err(Errno::Srch);
  if (task->process != current_task().process) return Err(Errno::Inval);
  task->set_comm(text.substr(0, 15));
  return {};
}

Result<void> write_oom_score_adj(const Subject &s, std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return Err(Errno::Inval);
  if (value < -1000 || value > 1000) return Err(Errno::Inval);
  Task *task = s.task();
  if (task == nullptr) return Err(Errno::Srch);
  if (value < task->oom_score_adj && !current_task().credentials.capable(Capability::SysResource)) {
    return Err(Errno::Access);
  }
  for (Task *other : s.process->tasks) other->oom_score_adj = value;
  return {};
}

// --- links and directories

Result<Path> target_exe(const Subject &s) {
  const Mm *mm = s.mm();
  if (mm == nullptr || !mm->exe) return Err(Errno::NoEnt);
  return mm->exe->path;
}
Result<Path> target_cwd(const Subject &s) {
  const Task *task = s.task();
  if (task == nullptr || !task->fs) return Err(Errno::NoEnt);
  return task->fs->cwd;
}
Result<Path> target_root(const Subject &s) {
  const Task *task = s.task();
  if (task == nullptr || !task->fs) return Err(Errno::NoEnt);
  return task->fs->root;
}

PseudoEntry subject_link(std::string name, const Subject &subject,
                         Result<Path> (*target)(const Subject &)) {
  auto follow = [subject, target]() -> Result<Path> {
    if (!may_inspect(*subject.process)) return Err(Errno::Access);
    return target(subject);
  };
  auto text = [follow]() -> Result<std::string> {
    const Task *reader = reading_task();
    if (reader == nullptr) return Err(Errno::Srch);
    return path_name(TRY(follow()), reader->fs->root);
  };
  return {std::move(name), FileType::Symlink,
          [follow, text](SuperBlock &sb, std::uint64_t number) -> Ref<Inode> {
            return make_ref<MagicLinkInode>(sb, number, 0777u, follow, text);
          }};
}

std::optional<int> parse_number(std::string_view name) {
  int value = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), value);
  if (error != std::errc() || end != name.data() + name.size() || value < 0) return std::nullopt;
  return value;
}

// /proc/PID/fd and fdinfo: a name for each open descriptor.
class FdDirectory final : public PseudoInode {
 public:
  FdDirectory(SuperBlock &sb, std::uint64_t number, Subject subject, bool info)
      : PseudoInode(sb, number, FileType::Directory, info ? 0555 : 0500),
        subject_(std::move(subject)),
        info_(info) {
    if (const Task *task = subject_.task()) {
      uid = task->credentials.euid;
      gid = task->credentials.egid;
    }
  }

  Result<Ref<Inode>> lookup(std::string_view name) override {
    const auto fd = parse_number(name);
    if (!fd) return Err(Errno::NoEnt);
    Ref<File> file = TRY(find(*fd));
    const std::uint64_t ino = (number() << 20) + static_cast<std::uint64_t>(*fd) + 1;
    Ref<PseudoInode> inode = info_ ? make_info(ino, *fd) : make_link(ino, *fd, *file);
    const Subject subject = subject_;
    inode->set_exists([subject, number = *fd] { return find_in(subject, number).ok(); });
    return Ref<Inode>(std::move(inode));
  }

  Result<void> readdir(std::uint64_t offset, const DirEmitter &emit) override {
    if (!may_inspect(*subject_.process)) return Err(Errno::Access);
    const Task *task = subject_.task();
    if (task == nullptr || !task->files) return {};
    for (const int fd : task->files->list()) {
      const auto position = static_cast<std::uint64_t>(fd) + 2;
      if (position < offset) continue;
      const std::uint64_t ino = (number() << 20) + static_cast<std::uint64_t>(fd) + 1;
      if (!emit(std::to_string(fd), ino, info_ ? FileType::Regular : FileType::Symlink,
                position + 1)) {
        break;
      }
    }
    return {};
  }

 private:
  static Result<Ref<File>> find_in(const Subject &subject, int fd) {
    if (!may_inspect(*subject.process)) return Err(Errno::Access);
    const Task *task = subject.task();
    if (task == nullptr || !task->files) return Err(Errno::NoEnt);
    auto file = task->files->get(fd, true);
    if (!file) return Err(Errno::NoEnt);
    return file;
  }
  Result<Ref<File>> find(int fd) const { return find_in(subject_, fd); }

  Ref<PseudoInode> make_link(std::uint64_t ino, int fd, const File &file) {
    const std::uint32_t permissions =
        (file.readable() ? 0500u : 0u) | (file.writable() ? 0300u : 0u);
    const Subject subject = subject_;
    return make_ref<MagicLinkInode>(
        sb(), ino, permissions,
        [subject, fd]() -> Result<Path> { return file_path(*TRY(find_in(subject, fd))); },
        [subject, fd]() -> Result<std::string> {
          Ref<File> f = TRY(find_in(subject, fd));
          if (!f->path) return f->describe();
          const Task *reader = reading_task();
          if (reader == nullptr) return Err(Errno::Srch);
          return path_name(f->path, reader->fs->root);
        });
  }

  Ref<PseudoInode> make_info(std::uint64_t ino, int fd) {
    const Subject subject = subject_;
    return make_ref<TextInode>(sb(), ino, 0444u, [subject, fd]() -> Result<std::string> {
      Ref<File> f = TRY(find_in(subject, fd));
      const auto cloexec = subject.task()->files->close_on_exec(fd);
      const std::uint32_t flags = f->flags() | (cloexec && *cloexec ? 02000000u : 0u);
      std::string out = fmt::format("pos:\t{}\nflags:\t0{:o}\n", f->position, flags);
      if (f->path) out += fmt::format("mnt_id:\t{}\n", mount_id(f->path));
      if (f->inode) out += fmt::format("ino:\t{}\n", f->inode->number());
      return out;
    });
  }

  Subject subject_;
  bool info_;
};

// /proc/PID/task
class TaskDirectory final : public PseudoInode {
 public:
  TaskDirectory(SuperBlock &sb, std::uint64_t number, Ref<Process> process)
      : PseudoInode(sb, number, FileType::Directory, 0555), process_(std::move(process)) {}

  Result<Ref<Inode>> lookup(std::string_view name) override {
    const auto tid = parse_number(name);
    if (!tid) return Err(Errno::NoEnt);
    Ref<Task> task = find_task(*tid);
    if (!task || task->process != process_) return Err(Errno::NoEnt);
    return make_process_directory(sb(), process_, task);
  }

  Result<void> readdir(std::uint64_t offset, const DirEmitter &emit) override {
    std::vector<int> tids;
    for (const Task *task : process_->tasks) tids.push_back(task->tid);
    std::sort(tids.begin(), tids.end());
    for (const int tid : tids) {
      const auto position = static_cast<std::uint64_t>(tid) + 2;
      if (position < offset) continue;
      const std::uint64_t ino = thread_number(tid);
      if (!emit(std::to_string(tid), ino, FileType::Directory, position + 1)) break;
    }
    return {};
  }

 private:
  Ref<Process> process_;
};

class ProcessDirectory final : public PseudoDirectory, public ProcessInode {
 public:
  ProcessDirectory(SuperBlock &sb, std::uint64_t number, Subject subject, PseudoEntries entries)
      : PseudoDirectory(sb, number, std::move(entries)), subject_(std::move(subject)) {
    if (subject_.process->dumpable) {
      const Credentials &c = subject_.process->credentials();
      uid = c.euid;
      gid = c.egid;
    }
  }

  Result<Ref<Inode>> lookup(std::string_view name) override {
    Ref<Inode> inode = TRY(PseudoDirectory::lookup(name));
    inode->uid = uid;
    inode->gid = gid;
    const Subject subject = subject_;
    static_cast<PseudoInode &>(*inode).set_exists([subject] { return subject.alive(); });
    return inode;
  }

  // A thread's directory, task/TID, stands for no process.
  Ref<Process> process_of_inode() const override {
    return subject_.thread ? Ref<Process>() : subject_.process;
  }

 private:
  Subject subject_;
};

// --- the list

struct FileRow {
  const char *name;
  std::uint32_t permissions;
  Text text;
  bool is_private;  // only for those who may inspect the process
};
constexpr FileRow kFiles[] = {
    {"stat", 0444, text_stat, false},
    {"statm", 0444, text_statm, false},
    {"status", 0444, text_status, false},
    {"cmdline", 0444, text_cmdline, false},
    {"environ", 0400, text_environ, true},
    {"auxv", 0400, text_auxv, true},
    {"limits", 0444, text_limits, false},
    {"io", 0400, text_io, true},
    {"wchan", 0444, text_wchan, false},
    {"syscall", 0400, text_syscall, true},
    {"personality", 0400, text_personality, true},
    {"oom_score", 0444, text_oom_score, false},
    {"schedstat", 0444, text_schedstat, false},
    {"timerslack_ns", 0444, text_timerslack, true},
    {"mounts", 0444, text_mounts, false},
    {"mountinfo", 0444, text_mountinfo, false},
};

PseudoEntries process_entries(const Subject &subject) {
  PseudoEntries list;
  for (const FileRow &row : kFiles) {
    list.push_back(
        text_entry(row.name, row.permissions, source_of(subject, row.text, row.is_private)));
  }
  add_memory_entries(list, subject);
  list.push_back(directory_entry("net", network_entries()));
  list.push_back(text_entry("comm", 0644, source_of(subject, text_comm, false),
                            [subject](std::string_view t) { return write_comm(subject, t); }));
  list.push_back(
      text_entry("oom_score_adj", 0644, source_of(subject, text_oom_score_adj, false),
                 [subject](std::string_view t) { return write_oom_score_adj(subject, t); }));
  list.push_back(subject_link("exe", subject, target_exe));
  list.push_back(subject_link("cwd", subject, target_cwd));
  list.push_back(subject_link("root", subject, target_root));
  for (const bool info : {false, true}) {
    list.push_back({info ? "fdinfo" : "fd", FileType::Directory,
                    [subject, info](SuperBlock &sb, std::uint64_t number) -> Ref<Inode> {
                      return make_ref<FdDirectory>(sb, number, subject, info);
                    }});
  }
  if (subject.thread) {
    list.push_back(text_entry("children", 0444, source_of(subject, text_children, false)));
  } else {
    const Ref<Process> process = subject.process;
    list.push_back({"task", FileType::Directory,
                    [process](SuperBlock &sb, std::uint64_t number) -> Ref<Inode> {
                      return make_ref<TaskDirectory>(sb, number, process);
                    }});
  }
  return list;
}

}  // namespace

Task *Subject::task() const { return thread ? thread.get() : process->representative(); }

Mm *Subject::mm() const {
  const Task *t = task();
  return t ? t->mm.get() : nullptr;
}

bool Subject::alive() const {
  if (thread) return find_task(thread->tid) == thread;
  return find_process(process->pid) == process;
}

TextSource source_of(const Subject &subject, Text text, bool is_private) {
  return [subject, text, is_private]() -> Result<std::string> {
    if (!subject.alive()) return Err(Errno::Srch);
    if (is_private && !may_inspect(*subject.process)) return Err(Errno::Access);
    return text(subject);
  };
}

Task *reading_task() {
  if (Task *task = current_thread()->as_task()) return task;
  const Ref<Process> init = find_process(1);
  return init ? init->representative() : nullptr;
}

bool may_inspect(const Process &process) {
  if (!current_thread()->as_task()) return true;
  const Task &caller = current_task();
  if (caller.process.get() == &process) return true;
  const Credentials &mine = caller.credentials;
  if (mine.capable(Capability::SysPtrace)) return true;
  const Credentials &other = process.credentials();
  const bool same_user = mine.fsuid == other.euid && mine.fsuid == other.suid &&
                         mine.fsuid == other.uid && mine.fsgid == other.egid &&
                         mine.fsgid == other.sgid && mine.fsgid == other.gid;
  return same_user && process.dumpable && (other.cap_permitted & ~mine.cap_permitted) == 0;
}

Ref<Inode> make_process_directory(SuperBlock &sb, Ref<Process> process, Ref<Task> task) {
  const std::uint64_t number = task ? thread_number(task->tid) : process_number(process->pid);
  const Subject subject{std::move(process), std::move(task)};
  auto directory = make_ref<ProcessDirectory>(sb, number, subject, process_entries(subject));
  directory->set_exists([subject] { return subject.alive(); });
  return directory;
}

}  // namespace cowbird::procfs
