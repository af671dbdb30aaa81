// KernelTarget: its life, and what it shows of threads, registers and memory.
#include "debug/target/kernel_target.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace cowbird::debug {
namespace {

// The stack pointer of a vCPU's idle loop is at most so far from where it was last saved.
constexpr std::uint64_t kIdleStackReach = 256ul * 1024;

// Where Linux's user_regs_struct has a register.
constexpr unsigned long long user_regs_struct::*kHostRegisters[kRegCount] = {
    &user_regs_struct::rax,     &user_regs_struct::rbx,     &user_regs_struct::rcx,
    &user_regs_struct::rdx,     &user_regs_struct::rsi,     &user_regs_struct::rdi,
    &user_regs_struct::rbp,     &user_regs_struct::rsp,     &user_regs_struct::r8,
    &user_regs_struct::r9,      &user_regs_struct::r10,     &user_regs_struct::r11,
    &user_regs_struct::r12,     &user_regs_struct::r13,     &user_regs_struct::r14,
    &user_regs_struct::r15,     &user_regs_struct::rip,     &user_regs_struct::eflags,
    &user_regs_struct::cs,      &user_regs_struct::ss,      &user_regs_struct::ds,
    &user_regs_struct::es,      &user_regs_struct::fs,      &user_regs_struct::gs,
    &user_regs_struct::fs_base, &user_regs_struct::gs_base, &user_regs_struct::orig_rax,
};

constexpr const char *kSleeps =
    "The registers of a kernel thread that is not on a vCPU lie saved on its stack; they cannot be "
    "changed, and no function can be called there. Choose a thread that runs.";

}  // namespace

KernelTarget::KernelTarget(pid_t host_pid, OpenView open_view)
    : pid_(host_pid), open_view_(std::move(open_view)) {}

KernelTarget::~KernelTarget() { detach_all(); }

// --- life

Result<void> KernelTarget::attach() {
  if (attached()) return {};
  auto traced = Tracee::attach(pid_, words_);
  if (traced.is(Errno::Perm) && ask_for_leave) {
    std::string why;
    if (ask_for_leave(why)) {
      traced = Tracee::attach(pid_, words_);
    } else {
      words_ += " " + why;
    }
  }
  tracee_ = TRY(std::move(traced));
  tracee_->on_new_thread = [this](pid_t tid) {
    if (debug_registers_.empty()) return;
    [[maybe_unused]] const auto loaded = debug_registers_.load(*tracee_, tid);
  };
  tracee_->is_int3 = [this](std::uint64_t address) { return patches_.at(address); };
  tracee_->correct_registers = [this](user_regs_struct &regs) {
    const auto original = places_.original(regs.rip);
    if (original) regs.rip = *original;
    return original.has_value();
  };
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  stood_since_ns_ = now.tv_sec * 1'000'000'000LL + now.tv_nsec;
  standing_ = true;
  looked_ = false;
  find_program();
  open_view();
  find_places();
  find_linker();
  find_own_breakpoints();
  current_ = current_thread().tid;
  hold_guest_code();
  return {};
}

void KernelTarget::open_view() {
  view_.reset();
  if (!open_view_) return;
  std::string why;
  auto opened = open_view_(*this, program_, base_, why);
  if (opened) {
    view_ = std::move(*opened);
  } else {
    words_ = why;  // host threads can be looked at all the same
  }
}

// The addresses at which we stop for ourselves. Those that are always wanted are put in here.
void KernelTarget::find_own_breakpoints() {
  switched_ = panic_stop_ = hold_flag_ = 0;
  if (view_) {
    patches_.keep_journal(*tracee_, view_->symbol("cowbird_debug_journal"));
    if (const std::uint64_t where = view_->symbol("cowbird_switched_address")) {
      switched_ = word(where).value_or(0);
    }
    panic_stop_ = view_->symbol("cowbird_panic_stop");
    hold_flag_ = view_->symbol("cowbird_debug_hold");
  }
  for (std::uint64_t *address : {&panic_stop_, &linker_}) {
    if (*address != 0 && !patches_.insert(*tracee_, *address)) *address = 0;
  }
}

// A fault is met anew by the instruction that made it, if that is still what the thread executes
// next. The return of a function that gdb has called is such a fault, and then it is not.
bool KernelTarget::comes_again(pid_t host, int signal) {
  if (signal != SIGSEGV && signal != SIGBUS && signal != SIGILL && signal != SIGFPE) return false;
  const auto info = tracee_->signal_info(host);
  return info && info->si_code > 0;  // the host's own, and not sent by anybody
}

void KernelTarget::detach_all() {
  if (!tracee_) return;
  stop_world();
  std::vector<TraceEvent> late;
  tracee_->take_pending_traps(late);
  for (const TraceEvent &event : late) sort_out(event);
  for (const TraceEvent &event : deferred_) {
    // A thread that ran into an int3 which is not there any more has not executed what it hides.
    if (event.kind == TraceKind::Signal && event.value == SIGTRAP) {
      tracee_->set_signal(event.tid, 0);
    }
  }
  for (const auto &[host, signal] : reported_) {
    tracee_->set_signal(host, signal == kMadeUp || comes_again(host, signal) ? 0 : signal);
  }
  for (const auto &[tid, thread] : tracee_->threads()) tracee_->registers(tid);  // off our places
  patches_.remove_all(*tracee_);
  places_.leave(*tracee_);
  debug_registers_.clear();
  load_debug_registers();
  hide_time();
  if (hold_flag_ != 0) {
    const int no = 0;
    [[maybe_unused]] const auto written =
        tracee_->write(hold_flag_, std::as_bytes(std::span(&no, 1)));
  }
  guest_code_.release_all();
  tracee_.reset();
  view_.reset();
  breakpoints_.clear();
  hard_.clear();
  plans_.clear();
  deferred_.clear();
  events_.clear();
  reported_.clear();
  exclusive_ = relaxed_ = standing_ = paused_ = looked_ = watching_switches_ = false;
  switched_ = panic_stop_ = linker_ = started_ = hold_flag_ = 0;
  stood_since_ns_ = current_ = 0;
}

Result<void> KernelTarget::attach_process(std::int64_t pid) {
  if (pid != kKernelPid) return Err(Errno::NoEnt);
  return attach();
}

Result<void> KernelTarget::detach_process(std::int64_t pid) {
  if (pid != kKernelPid) return Err(Errno::NoEnt);
  detach_all();
  return {};
}

// With SIGTERM the kernel ends its stubs and puts the host's terminal right. One that hangs is
// killed.
Result<void> KernelTarget::kill(std::int64_t pid) {
  if (pid != kKernelPid) return Err(Errno::NoEnt);
  if (!attached()) return Err(Errno::Srch);
  const UniqueFd ended(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  detach_all();
  constexpr int kGraceMs = 2000;
  ::kill(pid_, SIGTERM);
  pollfd wait{ended.get(), POLLIN, 0};
  if (!ended.valid() || ::poll(&wait, 1, kGraceMs) != 1) ::kill(pid_, SIGKILL);
  return {};
}

// --- who is where

Result<void> KernelTarget::read(std::uint64_t address, std::span<std::byte> out) {
  const std::size_t done = TRY(read_memory(kKernelPid, address, out));
  if (done != out.size()) return Err(Errno::Fault);
  return {};
}

void KernelTarget::read_pieces(std::span<Piece> pieces) {
  constexpr std::size_t kAtOnce = 512;  // IOV_MAX is 1024
  while (attached() && !pieces.empty()) {
    const std::span<Piece> some = pieces.first(std::min(kAtOnce, pieces.size()));
    std::array<iovec, kAtOnce> here, there;
    for (std::size_t i = 0; i < some.size(); ++i) {
      here[i] = {some[i].out.data(), some[i].out.size()};
      there[i] = {reinterpret_cast<void *>(some[i].address), some[i].out.size()};
    }
    ssize_t got = ::process_vm_readv(pid_, here.data(), some.size(), there.data(), some.size(), 0);
    // It ends at the first piece that is not there; that one is tried again by itself.
    std::size_t done = 0;
    for (; done < some.size() && got >= static_cast<ssize_t>(some[done].out.size()); ++done) {
      got -= static_cast<ssize_t>(some[done].out.size());
      some[done].good = true;
    }
    if (done < some.size()) {
      some[done].good = read(some[done].address, some[done].out).ok();
      ++done;
    }
    pieces = pieces.subspan(done);
  }
}

std::optional<std::uint64_t> KernelTarget::word(std::uint64_t address) {
  std::uint64_t value = 0;
  if (!read(address, std::as_writable_bytes(std::span(&value, 1)))) return std::nullopt;
  return value;
}

KernelView *KernelTarget::view() {
  if (!attached()) return nullptr;
  look();
  return view_.get();
}

// Which host threads are vCPUs: by their names, which they give themselves soon after their start.
void KernelTarget::look_at_names() {
  const std::size_t vcpus = view_ ? view_->vcpus().size() : 0;
  if (names_of_ != tracee_->threads().size() || vcpu_hosts_.size() < vcpus) {
    tracee_->refresh_names();
  }
  names_of_ = tracee_->threads().size();
  vcpu_hosts_.clear();
  for (const auto &[tid, thread] : tracee_->threads()) {
    unsigned index = 0;
    if (!thread.stray && std::sscanf(thread.name.c_str(), "vcpu%u", &index) == 1) {
      vcpu_hosts_[index] = tid;
    }
  }
}

void KernelTarget::look() {
  if (looked_ || !attached()) return;
  looked_ = hard_stopped();  // while something runs, it is out of date at once
  carried_.clear();
  carrier_.clear();
  const bool seen = view_ && view_->refresh();
  look_at_names();
  if (!seen) return;
  for (const VcpuState &vcpu : view_->vcpus()) {
    const auto host = vcpu_hosts_.find(vcpu.index);
    if (host == vcpu_hosts_.end()) continue;
    const user_regs_struct *regs = tracee_->registers(host->second);
    // By the stack, since `current` changes shortly before the stack does. A handler of a fault
    // runs on another stack; then `current` is right.
    const KernelThread *found = regs ? view_->find_by_stack(regs->rsp) : nullptr;
    const bool on_idle_stack = regs && vcpu.idle_rsp != 0 &&
                               regs->rsp + kIdleStackReach > vcpu.idle_rsp &&
                               regs->rsp < vcpu.idle_rsp + kIdleStackReach;
    if (!found && !on_idle_stack && vcpu.current != 0) {
      for (const KernelThread &thread : view_->threads()) {
        if (thread.address == vcpu.current) found = &thread;
      }
    }
    if (!found) continue;
    carried_[host->second] = found->tid;
    carrier_[found->tid] = host->second;
  }
}

int KernelTarget::vcpu_of(pid_t host) const {
  for (const auto &[index, tid] : vcpu_hosts_) {
    if (tid == host) return static_cast<int>(index);
  }
  return -1;
}

const VcpuState *KernelTarget::vcpu_state(pid_t host) {
  if (!view_) return nullptr;
  const int index = vcpu_of(host);
  for (const VcpuState &vcpu : view_->vcpus()) {
    if (static_cast<int>(vcpu.index) == index) return &vcpu;
  }
  return nullptr;
}

// The thread of gdb's that a host thread carries.
std::int64_t KernelTarget::fiber_on(pid_t host) {
  look();
  const auto found = carried_.find(host);
  return found == carried_.end() ? kHostTidBase + host : found->second;
}

// nullopt: there is no such thread.
std::optional<KernelTarget::Place> KernelTarget::place_of(std::int64_t tid) {
  look();
  if (tid >= kHostTidBase) {
    const auto host = static_cast<pid_t>(tid - kHostTidBase);
    if (tracee_->find(host) == nullptr) return std::nullopt;
    if (carried_.count(host) == 0) return Place{host, 0};
    const VcpuState *vcpu = vcpu_state(host);
    if (vcpu == nullptr) return std::nullopt;
    return Place{0, vcpu->idle_rsp};
  }
  const auto host = carrier_.find(tid);
  if (host != carrier_.end()) return Place{host->second, 0};
  const KernelThread *thread = view_ ? view_->find(tid) : nullptr;
  if (thread == nullptr || thread->state == KernelThreadState::Dead) return std::nullopt;
  return Place{0, thread->saved_rsp};
}

std::vector<std::int64_t> KernelTarget::processes() {
  if (!attached()) return {};
  return {kKernelPid};
}

// Where it is, not what the kernel has written down, which is ahead of a switch.
std::string KernelTarget::describe(KernelThread thread) {
  const auto host = carrier_.find(thread.tid);
  if (host != carrier_.end()) {
    thread.state = KernelThreadState::Running;
    thread.vcpu = vcpu_of(host->second);
  } else if (thread.state == KernelThreadState::Running) {
    thread.state = KernelThreadState::Ready;
  }
  std::string text = describe_state(thread);
  if (thread.syscall && !thread.in_user) {
    text += ", system call " + view_->system_call_name(*thread.syscall);
  }
  return text;
}

std::string KernelTarget::describe_host(const TracedThread &thread) {
  const auto carried = carried_.find(thread.tid);
  if (carried != carried_.end()) {
    const KernelThread *on_it = view_->find(carried->second);
    return fmt::format("host thread, carries {}", on_it ? on_it->name : "a kernel thread");
  }
  const user_regs_struct *regs = tracee_->registers(thread.tid);
  const auto call = regs ? static_cast<std::int64_t>(regs->orig_rax) : -1;
  if (call < 0 || !view_) return "host thread, running";
  return fmt::format("host thread, in {}",
                     view_->system_call_name(static_cast<std::uint64_t>(call)));
}

std::vector<ThreadInfo> KernelTarget::threads() {
  std::vector<ThreadInfo> list;
  if (!attached()) return list;
  tracee_->refresh_names();  // a new thread gets its name a moment after its start
  looked_ = false;
  look();
  if (view_) {
    for (const KernelThread &thread : view_->threads()) {
      if (thread.state == KernelThreadState::Dead) continue;
      ThreadInfo info{{kKernelPid, thread.tid}, thread.name, describe(thread), -1};
      if (thread.pid > 0) info.name = fmt::format("{}/{}", thread.name, thread.guest_tid);
      const auto host = carrier_.find(thread.tid);
      if (host != carrier_.end()) info.core = vcpu_of(host->second);
      list.push_back(std::move(info));
    }
  }
  for (const auto &[tid, thread] : tracee_->threads()) {
    if (thread.stray) continue;
    list.push_back({{kKernelPid, kHostTidBase + tid},
                    thread.name + " (host)",
                    describe_host(thread),
                    vcpu_of(tid)});
  }
  return list;
}

bool KernelTarget::is_alive(ThreadId id) {
  return attached() && id.pid == kKernelPid && place_of(id.tid).has_value();
}

ThreadId KernelTarget::current_thread() {
  if (!attached()) return {};
  if (current_ != 0 && place_of(current_)) return {kKernelPid, current_};
  look();
  // A kernel that waits for a debugger does so on its first thread, before all others.
  int waits = 0;
  if (hold_flag_ != 0 && read(hold_flag_, std::as_writable_bytes(std::span(&waits, 1))) &&
      waits != 0) {
    return {kKernelPid, kHostTidBase + pid_};
  }
  for (const auto &[host, tid] : carried_) return {kKernelPid, tid};
  for (const auto &[index, host] : vcpu_hosts_) return {kKernelPid, kHostTidBase + host};
  return {kKernelPid, kHostTidBase + tracee_->threads().begin()->first};
}

// --- registers and memory

std::uint64_t KernelTarget::host_register(const user_regs_struct &regs, Reg reg) {
  return regs.*kHostRegisters[static_cast<std::size_t>(reg)];
}

Result<Registers> KernelTarget::host_registers(pid_t host) {
  const user_regs_struct *regs = tracee_->registers(host);
  if (regs == nullptr) return Err(Errno::Busy);
  Registers out;
  for (std::size_t i = 0; i < kRegCount; ++i) {
    out.set(static_cast<Reg>(i), regs->*kHostRegisters[i]);
  }
  if (auto state = tracee_->xstate(host)) out.xstate = std::move(*state);
  return out;
}

Result<Registers> KernelTarget::read_registers(ThreadId id) {
  if (!attached() || id.pid != kKernelPid) return Err(Errno::Srch);
  // In non-stop mode the host thread is known, and the rest of the kernel runs.
  if (const Plan *plan = plan_of(id.tid); plan && plan->host != 0) {
    return host_registers(plan->host);
  }
  const auto place = place_of(id.tid);
  if (!place) return Err(Errno::Srch);
  if (place->host != 0) return host_registers(place->host);
  if (id.tid >= kHostTidBase) {
    return view_->idle_registers(*vcpu_state(static_cast<pid_t>(id.tid - kHostTidBase)));
  }
  KernelThread thread = *view_->find(id.tid);
  // One that is about to leave or enter its vCPU is called Running, but lies saved.
  if (thread.state == KernelThreadState::Running) thread.state = KernelThreadState::Ready;
  thread.vcpu = -1;
  return view_->saved_registers(thread);
}

Result<void> KernelTarget::write_registers(ThreadId id, const Registers &registers) {
  words_.clear();
  if (!attached() || id.pid != kKernelPid) return Err(Errno::Srch);
  const auto place = place_of(id.tid);
  if (!place) return Err(Errno::Srch);
  if (place->host != 0) {
    user_regs_struct *regs = tracee_->change_registers(place->host);
    if (regs == nullptr) return Err(Errno::Busy);
    for (std::size_t i = 0; i < kRegCount; ++i) {
      if (registers.has(static_cast<Reg>(i))) regs->*kHostRegisters[i] = registers.value[i];
    }
    if (!registers.xstate.empty()) TRY(tracee_->set_xstate(place->host, registers.xstate));
    return {};
  }
  const Registers now = TRY(read_registers(id));
  for (std::size_t i = 0; i < kRegCount; ++i) {
    const auto reg = static_cast<Reg>(i);
    if (!registers.has(reg) || (now.has(reg) && now.get(reg) == registers.get(reg))) continue;
    words_ = kSleeps;
    return Err(Errno::OpNotSupp);
  }
  return {};
}

Result<std::size_t> KernelTarget::read_memory(std::int64_t pid, std::uint64_t address,
                                              std::span<std::byte> out) {
  if (!attached() || pid != kKernelPid) return Err(Errno::Srch);
  const std::size_t done = TRY(tracee_->read(address, out));
  patches_.hide(address, out.first(done));
  places_.hide(address, out.first(done));
  return done;
}

Result<std::size_t> KernelTarget::write_memory(std::int64_t pid, std::uint64_t address,
                                               std::span<const std::byte> data) {
  if (!attached() || pid != kKernelPid) return Err(Errno::Srch);
  looked_ = false;
  return patches_.write(*tracee_, address, data);
}

// --- breakpoints

Result<void> KernelTarget::insert_breakpoint(const Breakpoint &breakpoint) {
  if (!attached() || breakpoint.pid != kKernelPid) return Err(Errno::Srch);
  if (breakpoint.kind == BreakpointKind::Software) {
    // Sent again it brings new conditions.
    if (breakpoints_.count(breakpoint.address) == 0) {
      TRY(patches_.insert(*tracee_, breakpoint.address));
    }
    breakpoints_[breakpoint.address] = breakpoint;
    return {};
  }
  const auto same = std::find_if(hard_.begin(), hard_.end(), [&](const Breakpoint &other) {
    return other.kind == breakpoint.kind && other.address == breakpoint.address &&
           other.size == breakpoint.size;
  });
  if (same != hard_.end()) {
    same->conditions = breakpoint.conditions;
    return {};
  }
  if (const auto taken = debug_registers_.insert(breakpoint); !taken) {
    words_ =
        taken.error() == Errno::NoSpc
            ? "The processor has four debug registers of at most 8 aligned bytes each, and too few "
              "are free."
            : "A debug register cannot watch that: it needs a length, and a hardware breakpoint "
              "has one byte.";
    return taken;
  }
  hard_.push_back(breakpoint);
  load_debug_registers();
  return {};
}

Result<void> KernelTarget::remove_breakpoint(const Breakpoint &breakpoint) {
  if (!attached() || breakpoint.pid != kKernelPid) return Err(Errno::Srch);
  if (breakpoint.kind == BreakpointKind::Software) {
    if (breakpoints_.erase(breakpoint.address) > 0) patches_.remove(*tracee_, breakpoint.address);
    return {};
  }
  const auto same = std::find_if(hard_.begin(), hard_.end(), [&](const Breakpoint &other) {
    return other.kind == breakpoint.kind && other.address == breakpoint.address &&
           other.size == breakpoint.size;
  });
  if (same == hard_.end()) return {};
  hard_.erase(same);
  TRY(debug_registers_.remove(breakpoint));
  load_debug_registers();
  return {};
}

// Debug registers can be changed of threads that stand still only.
void KernelTarget::load_debug_registers() {
  const bool ran = attached() && !hard_stopped();
  if (ran) pause();
  for (const auto &[tid, thread] : tracee_->threads()) {
    if (thread.stray) continue;
    [[maybe_unused]] const auto loaded = debug_registers_.load(*tracee_, tid);  // it may be gone
  }
  if (ran) unpause();
}

Result<void> KernelTarget::catch_syscalls(std::int64_t, bool, std::span<const std::int64_t>) {
  words_ =
      "System calls can be caught in guest processes; the kernel itself makes calls of the host.";
  return Err(Errno::OpNotSupp);
}

void KernelTarget::pass_signals(std::span<const int> signals) {
  passed_signals_ = {signals.begin(), signals.end()};
}

}  // namespace cowbird::debug
