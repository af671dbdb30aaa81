#include "debug/host/tracee.hpp"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/host_process.hpp"
#include "debug/host/child_signal.hpp"

namespace cowbird::debug {
namespace {

// Clones are followed; children of vfork only until their exec, since they run on the same memory
// and meet its breakpoints.
constexpr long kOptions =
    PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEVFORK | PTRACE_O_TRACESYSGOOD;
constexpr std::size_t kMaxXstate = 16ul * 1024;  // AMX needs 11 KiB

long trace(__ptrace_request request, pid_t tid, std::uintptr_t address = 0,
           std::uintptr_t data = 0) {
  return ::ptrace(request, tid, address, data);
}

// Whether a SIGTRAP that the host made for an int3, a step or a debug register waits for the
// thread.
bool has_pending_trap(pid_t tid) {
  std::array<siginfo_t, 16> waiting;
  __ptrace_peeksiginfo_args which{};
  which.nr = static_cast<int>(waiting.size());
  const long count = trace(PTRACE_PEEKSIGINFO, tid, reinterpret_cast<std::uintptr_t>(&which),
                           reinterpret_cast<std::uintptr_t>(waiting.data()));
  for (long i = 0; i < count; ++i) {
    const siginfo_t &info = waiting[static_cast<std::size_t>(i)];
    if (info.si_signo == SIGTRAP && info.si_code > 0) return true;
  }
  return false;
}

std::string first_line(const std::string &path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// What kernel.yama.ptrace_scope has to do with it (the host's
// Documentation/admin-guide/LSM/Yama.rst).
std::string yama_words(const std::string &scope) {
  if (scope == "1") {
    return " kernel.yama.ptrace_scope is 1: only root may, or a process that the guest has named "
           "(`cowbird mconsole NAME tracer PID`); 0 would allow it to every process of the user.";
  }
  if (scope == "2") return " kernel.yama.ptrace_scope is 2: only root may.";
  if (scope == "3") return " kernel.yama.ptrace_scope is 3: nobody may until the host starts anew.";
  return "";
}

Errno explain(pid_t pid, int error, std::string &why) {
  if (error == ESRCH) {
    why = fmt::format("There is no process {} on the host.", pid);
    return Errno::Srch;
  }
  if (const pid_t tracer = host_process_tracer(pid)) {
    why = fmt::format("Host process {} debugs process {} already; only one can.", tracer, pid);
    return Errno::Busy;
  }
  why = fmt::format("The host does not let this user trace process {}: {}.", pid,
                    std::strerror(error));
  why += yama_words(first_line("/proc/sys/kernel/yama/ptrace_scope"));
  return errno_from_host(error);
}

}  // namespace

Result<std::unique_ptr<Tracee>> Tracee::attach(pid_t pid, std::string &why) {
  std::unique_ptr<Tracee> tracee(new Tracee(pid));
  TRY(tracee->seize_all(why));
  if (const auto opened = tracee->open_memory(); !opened) {
    why = fmt::format("The memory of process {} cannot be opened: {}.", pid,
                      errno_text(opened.error()));
    return Err(opened.error());
  }
  tracee->refresh_names();
  return tracee;
}

Tracee::~Tracee() { detach(); }

Result<void> Tracee::open_memory() {
  memory_.reset(::open(fmt::format("/proc/{}/mem", pid_).c_str(), O_RDWR | O_CLOEXEC));
  if (!memory_.valid()) return Err(errno_from_host(errno));
  return {};
}

Result<void> Tracee::seize_all(std::string &why) {
  // A thread that was not seized yet may make more; once all that are known stand still, none can.
  for (;;) {
    const bool found = TRY(seize_new(why));
    if (!found) return {};
    std::vector<TraceEvent> ignored;
    stop_all(ignored);
  }
}

// Seizes the threads that are not known yet; false when there was none.
Result<bool> Tracee::seize_new(std::string &why) {
  bool found = false;
  std::error_code error;
  for (const auto &entry :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid_), error)) {
    const std::string name = entry.path().filename();
    pid_t tid = 0;
    std::from_chars(name.data(), name.data() + name.size(), tid);
    if (tid <= 0 || threads_.count(tid) != 0) continue;
    if (trace(PTRACE_SEIZE, tid, 0, kOptions) != 0) {
      if (errno == ESRCH && !threads_.empty()) continue;  // has ended in between
      return Err(explain(pid_, errno, why));
    }
    threads_[tid].tid = tid;
    found = true;
  }
  if (error || threads_.empty()) return Err(explain(pid_, ESRCH, why));
  return found;
}

void Tracee::detach() {
  std::vector<TraceEvent> others;
  stop_all(others);
  // The end of the first thread can only be seen after that of all others.
  while (!threads_.empty()) {
    const auto other = std::find_if(threads_.begin(), threads_.end(),
                                    [this](const auto &entry) { return entry.first != pid_; });
    let_go(other == threads_.end() ? pid_ : other->first);
  }
}

void Tracee::let_go(pid_t tid) {
  flush(tid);
  if (const TracedThread *thread = find(tid)) {
    const auto signal = static_cast<std::uintptr_t>(thread->group_stop ? 0 : thread->signal);
    if (trace(PTRACE_DETACH, tid, 0, signal) != 0 && errno == ESRCH) reap(tid);
  }
  forget(tid);
}

// A thread that was killed while it stood. Until its tracer has seen its end, nobody learns of the
// end of the whole process. The patience is for one that dies elsewhere than we think.
void Tracee::reap(pid_t tid) {
  constexpr unsigned kStepUs = 200, kPatienceUs = 2'000'000;
  for (unsigned waited = 0; waited < kPatienceUs; waited += kStepUs) {
    int status = 0;
    const pid_t got = ::waitpid(tid, &status, __WALL | WNOHANG);
    if (got < 0 || (got == tid && !WIFSTOPPED(status))) return;
    if (got == tid && trace(PTRACE_DETACH, tid) == 0) return;
    ::usleep(kStepUs);
  }
}

void Tracee::forget(pid_t tid) {
  threads_.erase(tid);
  registers_.erase(tid);
  end_vfork(tid);
}

void Tracee::end_vfork(pid_t child) {
  const auto found = vforks_.find(child);
  if (found == vforks_.end()) return;
  const pid_t parent = found->second;
  vforks_.erase(found);
  TracedThread *thread = get(parent);
  if (thread == nullptr || !thread->delayed) return;
  thread->delayed = false;
  thread->stopped = true;
  resume(parent, thread->how);
}

TracedThread *Tracee::get(pid_t tid) {
  const auto found = threads_.find(tid);
  return found == threads_.end() ? nullptr : &found->second;
}

const TracedThread *Tracee::find(pid_t tid) const {
  const auto found = threads_.find(tid);
  return found == threads_.end() ? nullptr : &found->second;
}

bool Tracee::is_stopped(pid_t tid) const {
  const TracedThread *thread = find(tid);
  return thread != nullptr && thread->stopped;
}

bool Tracee::all_stopped() const {
  return std::all_of(threads_.begin(), threads_.end(),
                     [](const auto &entry) { return entry.second.stopped; });
}

// --- waiting

namespace {

// For waitid(2): whatever a tracee has to say, which stays there to be said again.
constexpr int kAnyEnd = WEXITED | WSTOPPED | WNOWAIT | __WALL;

}  // namespace

int Tracee::event_fd() const { return ChildSignal::fd(); }
void Tracee::rearm() { ChildSignal::raise(); }
void Tracee::drain() { ChildSignal::drain(); }

void Tracee::settle(const siginfo_t &stop) {
  TracedThread *thread = get(stop.si_pid);
  if (thread == nullptr) return;
  thread->at_int3 = false;
  if (stop.si_code != CLD_TRAPPED || stop.si_status != SIGTRAP || !is_int3) return;
  siginfo_t why{};
  user_regs_struct regs;
  const auto ask = [&](__ptrace_request request, void *data) {
    return trace(request, stop.si_pid, 0, reinterpret_cast<std::uintptr_t>(data)) == 0;
  };
  if (!ask(PTRACE_GETSIGINFO, &why) || why.si_code != SI_KERNEL) return;
  if (!ask(PTRACE_GETREGS, &regs) || !is_int3(regs.rip - 1)) return;
  regs.rip -= 1;
  thread->at_int3 = ask(PTRACE_SETREGS, &regs);
}

std::optional<TraceEvent> Tracee::poll() {
  int status = 0;
  while (!threads_.empty()) {
    siginfo_t info{};
    if (::waitid(P_ALL, 0, &info, kAnyEnd | WNOHANG) != 0 || info.si_pid == 0) {
      return std::nullopt;
    }
    if (threads_.count(info.si_pid) == 0) break;
    settle(info);
    if (::waitpid(info.si_pid, &status, __WALL | WNOHANG) != info.si_pid) return std::nullopt;
    if (const auto event = decode(info.si_pid, status)) return event;
  }
  // Somebody else's child is first in line, and stays there: ask for each of ours.
  std::vector<pid_t> running;
  for (const auto &[tid, thread] : threads_) {
    if (!thread.stopped) running.push_back(tid);
  }
  for (const pid_t tid : running) {
    if (const auto event = poll(tid)) return event;
  }
  return std::nullopt;
}

std::optional<TraceEvent> Tracee::poll(pid_t tid) {
  int status = 0;
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(tid), &info, kAnyEnd | WNOHANG) != 0 ||
      info.si_pid != tid) {
    return std::nullopt;
  }
  settle(info);
  if (::waitpid(tid, &status, __WALL | WNOHANG) != tid) return std::nullopt;
  return decode(tid, status);
}

std::optional<TraceEvent> Tracee::wait(pid_t tid) {
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(tid), &info, kAnyEnd) != 0 && errno == EINTR) {
  }
  if (info.si_pid == tid) settle(info);
  int status = 0;
  pid_t got;
  do {
    got = ::waitpid(tid, &status, __WALL);
  } while (got < 0 && errno == EINTR);
  if (got != tid) {
    forget(tid);
    return TraceEvent{TraceKind::ThreadExited, tid, 0};
  }
  return decode(tid, status);
}

std::optional<TraceEvent> Tracee::decode(pid_t tid, int status) {
  TracedThread *thread = get(tid);
  if (thread == nullptr) return std::nullopt;
  if (WIFSTOPPED(status)) return decode_stop(*thread, WSTOPSIG(status), status >> 16);
  if (!WIFEXITED(status) && !WIFSIGNALED(status)) return std::nullopt;
  const bool stray = thread->stray;
  forget(tid);
  if (stray) return std::nullopt;
  if (tid != pid_) return TraceEvent{TraceKind::ThreadExited, tid, 0};
  // The host reports the end of the first thread when all others have gone.
  for (const auto &[child, parent] : std::map(vforks_)) let_go(child);
  threads_.clear();
  registers_.clear();
  if (WIFEXITED(status)) return TraceEvent{TraceKind::ProcessExited, tid, WEXITSTATUS(status)};
  return TraceEvent{TraceKind::ProcessKilled, tid, WTERMSIG(status)};
}

std::optional<TraceEvent> Tracee::decode_stop(TracedThread &thread, int signal, int event) {
  const pid_t tid = thread.tid;
  thread.stopped = true;
  thread.signal = 0;
  thread.group_stop = false;
  unsigned long message = 0;
  switch (event) {
    case PTRACE_EVENT_CLONE:
    case PTRACE_EVENT_VFORK: {
      trace(PTRACE_GETEVENTMSG, tid, 0, reinterpret_cast<std::uintptr_t>(&message));
      const auto child = static_cast<pid_t>(message);
      if (event == PTRACE_EVENT_CLONE) {
        adopt_child(child, false);
        return TraceEvent{TraceKind::Clone, tid, child};
      }
      vforks_[child] = tid;
      adopt_child(child, true);
      resume(child, RunHow::Continue);
      resume(tid, thread.how);
      return std::nullopt;
    }
    case PTRACE_EVENT_EXEC:
      if (thread.stray) {
        let_go(tid);
        return std::nullopt;
      }
      {
        TracedThread survivor;
        survivor.tid = pid_;
        survivor.stopped = true;
        threads_.clear();
        registers_.clear();
        vforks_.clear();
        threads_[pid_] = survivor;
        [[maybe_unused]] const auto opened = open_memory();  // a failure shows at the first read
        refresh_names();
      }
      return TraceEvent{TraceKind::Exec, pid_, 0};
    case PTRACE_EVENT_STOP:
      if (signal != SIGTRAP) {
        thread.group_stop = true;
        return TraceEvent{TraceKind::GroupStop, tid, signal};
      }
      thread.interrupting = false;
      return TraceEvent{TraceKind::Interrupted, tid, 0};
    default:
      break;
  }
  if (signal == (SIGTRAP | 0x80)) return TraceEvent{TraceKind::Syscall, tid, 0};
  thread.signal = signal;
  return TraceEvent{TraceKind::Signal, tid, signal};
}

void Tracee::adopt_child(pid_t tid, bool stray) {
  if (tid <= 0) return;
  TracedThread &child = threads_[tid];
  child.tid = tid;
  child.stray = stray;
  const auto first = wait(tid);
  TracedThread *now = get(tid);
  if (!first || now == nullptr) return;
  if (const TracedThread *parent = find(pid_)) now->name = parent->name;
  if (!stray && on_new_thread) on_new_thread(tid);
}

// --- stopping and running

void Tracee::interrupt(TracedThread &thread) {
  if (thread.delayed) {
    thread.delayed = false;
    thread.stopped = true;
  }
  if (thread.stopped || thread.interrupting) return;
  thread.interrupting = trace(PTRACE_INTERRUPT, thread.tid) == 0;
}

void Tracee::wait_stopped(pid_t tid, std::vector<TraceEvent> &others) {
  while (TracedThread *thread = get(tid)) {
    interrupt(*thread);  // a parent in vfork(2) counts as stopped
    if (thread->stopped) return;
    const auto event = wait(tid);
    if (event && event->kind != TraceKind::Interrupted) others.push_back(*event);
  }
}

void Tracee::stop_all(std::vector<TraceEvent> &others, pid_t except) {
  // New threads may appear while the old ones are waited for.
  for (bool again = true; again;) {
    again = false;
    std::vector<pid_t> running;
    for (auto &[tid, thread] : threads_) {
      if (thread.stopped || tid == except) continue;
      interrupt(thread);
      running.push_back(tid);
    }
    for (const pid_t tid : running) {
      wait_stopped(tid, others);
      again = true;
    }
  }
}

void Tracee::take_pending_traps(std::vector<TraceEvent> &others) {
  std::vector<pid_t> tids;
  for (const auto &[tid, thread] : threads_) {
    // With a signal of its own at hand it stands behind that: such signals come first.
    if (thread.stopped && !thread.delayed && !thread.group_stop && thread.signal == 0 &&
        has_pending_trap(tid)) {
      tids.push_back(tid);
    }
  }
  for (const pid_t tid : tids) {
    constexpr int kMost = 3;  // an interrupt that was asked for may show before it
    for (int i = 0; i < kMost && is_stopped(tid); ++i) {
      resume(tid, RunHow::Continue);
      const auto event = wait(tid);
      if (!event || event->kind == TraceKind::Interrupted) continue;
      others.push_back(*event);
      break;
    }
  }
}

void Tracee::stop(pid_t tid, std::vector<TraceEvent> &others) {
  TracedThread *thread = get(tid);
  if (thread == nullptr) return;
  interrupt(*thread);
  wait_stopped(tid, others);
}

void Tracee::resume(pid_t tid, RunHow how, int signal) {
  TracedThread *thread = get(tid);
  if (thread == nullptr || !thread->stopped) return;
  if (signal != 0 && correct_registers) registers(tid);  // its handler sees them
  flush(tid);
  thread->how = how;
  thread->stopped = false;
  __ptrace_request request = how == RunHow::Step      ? PTRACE_SINGLESTEP
                             : how == RunHow::Syscall ? PTRACE_SYSCALL
                                                      : PTRACE_CONT;
  if (thread->group_stop) {
    request = PTRACE_LISTEN;
    signal = 0;
  }
  thread->signal = 0;
  for (const auto &[child, parent] : vforks_) {
    if (parent == tid) thread->delayed = true;
  }
  if (thread->delayed) return;
  trace(request, tid, 0, static_cast<std::uintptr_t>(signal));
}

void Tracee::set_signal(pid_t tid, int signal) {
  if (TracedThread *thread = get(tid)) thread->signal = signal;
}

void Tracee::resume_as_before(pid_t tid) {
  if (const TracedThread *thread = find(tid)) resume(tid, thread->how, thread->signal);
}

// --- registers

const user_regs_struct *Tracee::registers(pid_t tid) {
  if (!is_stopped(tid)) return nullptr;
  const auto found = registers_.find(tid);
  if (found != registers_.end()) return &found->second.registers;
  Cached cached;
  if (trace(PTRACE_GETREGS, tid, 0, reinterpret_cast<std::uintptr_t>(&cached.registers)) != 0) {
    return nullptr;
  }
  if (correct_registers) cached.dirty = correct_registers(cached.registers);
  return &registers_.emplace(tid, cached).first->second.registers;
}

user_regs_struct *Tracee::change_registers(pid_t tid) {
  if (registers(tid) == nullptr) return nullptr;
  Cached &cached = registers_.at(tid);
  cached.dirty = true;
  return &cached.registers;
}

void Tracee::write_back() {
  for (auto &[tid, cached] : registers_) {
    if (!std::exchange(cached.dirty, false)) continue;
    trace(PTRACE_SETREGS, tid, 0, reinterpret_cast<std::uintptr_t>(&cached.registers));
  }
}

void Tracee::flush(pid_t tid) {
  const auto found = registers_.find(tid);
  if (found == registers_.end()) return;
  if (found->second.dirty) {
    trace(PTRACE_SETREGS, tid, 0, reinterpret_cast<std::uintptr_t>(&found->second.registers));
  }
  registers_.erase(found);
}

Result<std::vector<std::byte>> Tracee::xstate(pid_t tid) {
  std::vector<std::byte> data(kMaxXstate);
  iovec where{data.data(), data.size()};
  if (trace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, reinterpret_cast<std::uintptr_t>(&where)) != 0) {
    return Err(errno_from_host(errno));
  }
  data.resize(where.iov_len);
  return data;
}

Result<void> Tracee::set_xstate(pid_t tid, std::span<const std::byte> data) {
  iovec where{const_cast<std::byte *>(data.data()), data.size()};
  if (trace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, reinterpret_cast<std::uintptr_t>(&where)) != 0) {
    return Err(errno_from_host(errno));
  }
  return {};
}

Result<siginfo_t> Tracee::signal_info(pid_t tid) {
  siginfo_t info{};
  if (trace(PTRACE_GETSIGINFO, tid, 0, reinterpret_cast<std::uintptr_t>(&info)) != 0) {
    return Err(errno_from_host(errno));
  }
  return info;
}

Result<void> Tracee::set_signal_info(pid_t tid, const siginfo_t &info) {
  if (trace(PTRACE_SETSIGINFO, tid, 0, reinterpret_cast<std::uintptr_t>(&info)) != 0) {
    return Err(errno_from_host(errno));
  }
  return {};
}

Result<std::uint64_t> Tracee::debug_register(pid_t tid, unsigned number) {
  errno = 0;
  const long value =
      trace(PTRACE_PEEKUSER, tid, offsetof(struct user, u_debugreg) + sizeof(long) * number);
  if (errno != 0) return Err(errno_from_host(errno));
  return static_cast<std::uint64_t>(value);
}

Result<void> Tracee::set_debug_register(pid_t tid, unsigned number, std::uint64_t value) {
  if (trace(PTRACE_POKEUSER, tid, offsetof(struct user, u_debugreg) + sizeof(long) * number,
            value) != 0) {
    return Err(errno_from_host(errno));
  }
  return {};
}

// --- memory

Result<std::size_t> Tracee::read(std::uint64_t address, std::span<std::byte> out) const {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t got = ::pread(memory_.get(), out.data() + done, out.size() - done,
                                static_cast<off_t>(address + done));
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
  }
  if (done == 0 && !out.empty()) return Err(Errno::Fault);
  return done;
}

Result<std::size_t> Tracee::write(std::uint64_t address, std::span<const std::byte> data) const {
  std::size_t done = 0;
  while (done < data.size()) {
    const ssize_t put = ::pwrite(memory_.get(), data.data() + done, data.size() - done,
                                 static_cast<off_t>(address + done));
    if (put <= 0) break;
    done += static_cast<std::size_t>(put);
  }
  if (done == 0 && !data.empty()) return Err(Errno::Fault);
  return done;
}

void Tracee::refresh_names() {
  for (auto &[tid, thread] : threads_) {
    thread.name = first_line(fmt::format("/proc/{}/task/{}/comm", pid_, tid));
  }
}

}  // namespace cowbird::debug
