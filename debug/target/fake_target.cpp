#include "debug/target/fake_target.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <initializer_list>

#include "debug/rsp/register_layout.hpp"
#include "debug/target/host_file.hpp"

namespace cowbird::debug {

namespace {

constexpr std::uint64_t kStack = 0x7f0000000000, kStackSize = 0x4000;
constexpr std::size_t kXstateSize = 2696, kXmm = 160, kStateBv = 512;
constexpr unsigned kInstructions = 500;  // of one thread in one call of next_event()
constexpr std::size_t kSiginfo = 128;
enum Syscall : std::uint64_t { kGetpid = 39, kClone = 56, kFork = 57, kExecve = 59, kExit = 60 };

bool matches(ThreadId pattern, ThreadId id) {
  return (pattern.pid == kAll || pattern.pid == id.pid) &&
         (pattern.tid == kAll || pattern.tid == id.tid);
}

// The callee-saved ones, as a context switch leaves them.
Registers saved_only(const Registers &all) {
  Registers saved;
  for (const auto reg :
       {Reg::Rbx, Reg::Rbp, Reg::Rsp, Reg::R12, Reg::R13, Reg::R14, Reg::R15, Reg::Rip})
    saved.set(reg, all.get(reg));
  return saved;
}

}  // namespace

FakeTarget::FakeTarget(Options options)
    : options_(std::move(options)), event_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  make_process(kKernelPid);
  make_process(kGuestPid);
  std::int64_t tid = 1;
  for (unsigned i = 0; i < options_.running; ++i, ++tid)
    make_thread({kKernelPid, tid}, fmt::format("worker/{}", i), false).info.core =
        static_cast<int>(i);
  for (unsigned i = 0; i < options_.sleeping; ++i, ++tid)
    make_thread({kKernelPid, tid}, fmt::format("sleeper/{}", i), true);
  make_thread({kGuestPid, 1}, "init", false);
}

FakeTarget::~FakeTarget() = default;

void FakeTarget::make_process(std::int64_t pid) {
  auto &process = processes_[pid];
  process.memory = std::make_shared<FakeMemory>();
  process.executable = pid == kKernelPid ? options_.program : "/bin/init";
  if (!options_.program.empty()) {
    const auto entry = fake_load(options_.program, *process.memory);
    process.entry = entry ? *entry : 0;
    return;
  }
  constexpr std::array kLoop = {std::byte{0xeb}, std::byte{0xfe}};
  process.entry = kCode;
  process.memory->map(kCode, FakeMemory::kPage);
  process.memory->map(kData, FakeMemory::kPage);
  process.memory->write(kCode, std::vector(FakeMemory::kPage - kLoop.size(), std::byte{0x90}));
  process.memory->write(kCode + FakeMemory::kPage - kLoop.size(), kLoop);
}

FakeTarget::Thread &FakeTarget::make_thread(ThreadId id, std::string name, bool sleeps) {
  auto &process = processes_[id.pid];
  const auto stack = kStack + static_cast<std::uint64_t>(id.tid) * kStackSize;
  process.memory->map(stack, kStackSize);
  auto &thread = threads_.emplace_back();
  thread.info = {id, std::move(name), sleeps ? "sleeping in fake_wait" : "ready", -1};
  thread.sleeps = sleeps;
  thread.siginfo.resize(kSiginfo);
  for (unsigned i = 0; i < kRegCount; ++i) thread.registers.set(static_cast<Reg>(i), i);
  // A return address of 0 ends the backtrace.
  thread.registers.set(Reg::Rsp, stack + kStackSize - 16);
  thread.registers.set(Reg::Rbp, 0);
  thread.registers.set(Reg::Rip, process.entry);
  thread.registers.set(Reg::Eflags, 0x202);
  thread.registers.set(Reg::Cs, 0x33);
  thread.registers.set(Reg::OrigRax, ~std::uint64_t{0});
  thread.registers.xstate.resize(kXstateSize);
  thread.registers.xstate[kStateBv] = std::byte{3};
  for (unsigned i = 0; i < 16; ++i)
    thread.registers.xstate[kXmm + 16ul * i] = static_cast<std::byte>(i);
  return thread;
}

FakeTarget::Thread *FakeTarget::find(ThreadId id) {
  const auto found = std::find_if(threads_.begin(), threads_.end(),
                                  [&](const Thread &t) { return t.info.id == id; });
  return found == threads_.end() || !processes_[id.pid].attached ? nullptr : &*found;
}

void FakeTarget::inject(StopEvent event) {
  injected_.push_back(std::move(event));
  signal_fd();
}

void FakeTarget::refuse_attach(Errno error, std::string words) {
  refusal_ = error;
  words_ = std::move(words);
}

std::uint64_t FakeTarget::register_of(ThreadId id, Reg reg) const {
  for (const auto &thread : threads_)
    if (thread.info.id == id) return thread.registers.get(reg);
  return 0;
}

Result<void> FakeTarget::attach() {
  if (refusal_) return Err(*refusal_);
  attached_ = true;
  ++counts_.attached;
  processes_[kKernelPid].attached = true;
  return {};
}

void FakeTarget::detach_all() {
  attached_ = false;
  ++counts_.detached;
  breakpoints_.clear();
  interrupts_.clear();
  caught_.clear();
  non_stop_ = false;
  for (auto &[unused, process] : processes_) process.attached = false;
  for (auto &thread : threads_) thread.running = false;
  signal_fd();
}

Result<void> FakeTarget::attach_process(std::int64_t pid) {
  const auto found = processes_.find(pid);
  words_ = fmt::format("There is no process {} in the guest.", pid);
  if (found == processes_.end()) return Err(Errno::Srch);
  if (found->second.attached) return Err(Errno::Busy);
  found->second.attached = true;
  return {};
}

Result<void> FakeTarget::detach_process(std::int64_t pid) {
  if (pid == kKernelPid) return Err(Errno::Inval);
  processes_[pid].attached = false;
  std::erase_if(breakpoints_, [&](const Breakpoint &b) { return b.pid == pid; });
  return {};
}

Result<void> FakeTarget::kill(std::int64_t pid) {
  if (!processes_.contains(pid)) return Err(Errno::Srch);
  std::erase_if(threads_, [&](const Thread &t) { return t.info.id.pid == pid; });
  processes_.erase(pid);
  return {};
}

std::vector<std::int64_t> FakeTarget::processes() {
  std::vector<std::int64_t> out;
  for (const auto &[pid, process] : processes_)
    if (process.attached) out.push_back(pid);
  return out;
}

std::vector<ThreadInfo> FakeTarget::threads() {
  std::vector<ThreadInfo> out;
  for (const auto &thread : threads_)
    if (processes_[thread.info.id.pid].attached) out.push_back(thread.info);
  return out;
}

bool FakeTarget::is_alive(ThreadId id) { return find(id) != nullptr; }

ThreadId FakeTarget::current_thread() { return threads_.front().info.id; }

Result<Registers> FakeTarget::read_registers(ThreadId id) {
  const auto *thread = find(id);
  if (thread == nullptr) return Err(Errno::Srch);
  auto out = thread->sleeps ? saved_only(thread->registers) : thread->registers;
  if (id.pid == kKernelPid) out.kernel = {static_cast<std::uint64_t>(id.tid)};
  return out;
}

Result<void> FakeTarget::write_registers(ThreadId id, const Registers &registers) {
  auto *thread = find(id);
  if (thread == nullptr) return Err(Errno::Srch);
  const auto has = thread->sleeps ? saved_only(thread->registers).known : ~0u;
  words_ = (registers.known & ~has) != 0 ? "The thread sleeps." : "";
  if (!words_.empty()) return Err(Errno::OpNotSupp);
  for (unsigned i = 0; i < kRegCount; ++i)
    if (registers.has(static_cast<Reg>(i))) thread->registers.value[i] = registers.value[i];
  if (!registers.xstate.empty()) thread->registers.xstate = registers.xstate;
  return {};
}

Result<std::size_t> FakeTarget::read_memory(std::int64_t pid, std::uint64_t address,
                                            std::span<std::byte> out) {
  const auto found = processes_.find(pid);
  const auto done = found == processes_.end() ? 0 : found->second.memory->read(address, out);
  if (done == 0 && !out.empty()) return Err(Errno::Fault);
  return done;
}

Result<std::size_t> FakeTarget::write_memory(std::int64_t pid, std::uint64_t address,
                                             std::span<const std::byte> data) {
  if (!options_.live) return Err(Errno::RoFs);
  const auto found = processes_.find(pid);
  const auto done = found == processes_.end() ? 0 : found->second.memory->write(address, data);
  if (done == 0 && !data.empty()) return Err(Errno::Fault);
  return done;
}

void FakeTarget::set_non_stop(bool on) { non_stop_ = on; }

Result<void> FakeTarget::resume(std::span<const ResumeAction> actions) {
  words_ = options_.live ? "" : "This is a core file: nothing in it can run.";
  if (!options_.live) return Err(Errno::OpNotSupp);
  ++counts_.resumed;
  for (auto &thread : threads_) {
    if (!processes_[thread.info.id.pid].attached || (thread.running && non_stop_)) continue;
    const auto action = std::find_if(actions.begin(), actions.end(), [&](const ResumeAction &a) {
      return matches(a.thread, thread.info.id);
    });
    if (action == actions.end() || action->kind == ResumeKind::Stop) continue;
    thread.action = *action;
    thread.running = thread.fresh = true;
  }
  signal_fd();
  return {};
}

void FakeTarget::interrupt(ThreadId which) {
  if (!non_stop_) {
    interrupts_.push_back(which);
  } else {
    for (const auto &thread : threads_)
      if (matches(which, thread.info.id) && thread.running) interrupts_.push_back(thread.info.id);
  }
  signal_fd();
}

// Readable while a call of next_event() would get something done.
void FakeTarget::signal_fd() {
  const bool runs =
      std::any_of(threads_.begin(), threads_.end(), [](const Thread &t) { return t.running; });
  const bool executes = std::any_of(threads_.begin(), threads_.end(),
                                    [](const Thread &t) { return t.running && !t.sleeps; });
  std::uint64_t count = 1;
  (void)!::read(event_fd_.get(), &count, sizeof(count));
  count = 1;
  if (executes || (runs && (!injected_.empty() || !interrupts_.empty())))
    (void)!::write(event_fd_.get(), &count, sizeof(count));
}

StopEvent FakeTarget::stop(Thread &thread, StopEvent event) {
  event.thread = thread.info.id;
  event.core = thread.info.core;
  thread.running = false;
  if (!non_stop_)
    for (auto &other : threads_) other.running = false;
  return event;
}

std::optional<StopEvent> FakeTarget::interrupted() {
  while (!interrupts_.empty()) {
    const auto id = interrupts_.front();
    interrupts_.pop_front();
    for (auto &thread : threads_)
      if (thread.running && matches(id, thread.info.id))
        return stop(thread, {.reason = StopReason::Interrupted, .signal = non_stop_ ? 0 : SIGINT});
  }
  return std::nullopt;
}

std::optional<StopEvent> FakeTarget::next_event() {
  std::optional<StopEvent> event;
  const bool runs =
      std::any_of(threads_.begin(), threads_.end(), [](const Thread &t) { return t.running; });
  if (runs && !injected_.empty()) {
    event = std::move(injected_.front());
    injected_.pop_front();
    if (!non_stop_)
      for (auto &thread : threads_) thread.running = false;
    else if (auto *thread = find(event->thread))
      thread->running = false;
  }
  for (std::size_t i = 0; i < threads_.size() && !event; ++i)
    if (threads_[i].running && !threads_[i].sleeps) event = run(threads_[i]);
  if (!event) event = interrupted();
  signal_fd();
  return event;
}

std::optional<StopEvent> FakeTarget::run(Thread &thread) {
  for (unsigned i = 0; i < kInstructions; ++i) {
    if (!thread.fresh)
      if (auto event = hit(thread)) return stop(thread, std::move(*event));
    thread.fresh = false;
    const auto step = thread.in_syscall
                          ? FakeStep{.kind = FakeStep::Kind::Syscall, .read = {}, .written = {}}
                          : fake_step(thread.registers, *processes_[thread.info.id.pid].memory);
    if (auto event = after(thread, step)) return event;
    if (thread.sleeps) return std::nullopt;
    const auto rip = thread.registers.get(Reg::Rip);
    const auto &action = thread.action;
    const bool out = action.kind == ResumeKind::StepRange &&
                     (rip < action.range_low || rip >= action.range_high);
    if (action.kind == ResumeKind::Step || out)
      return stop(thread, {.reason = StopReason::StepDone, .signal = SIGTRAP});
  }
  return std::nullopt;
}

bool FakeTarget::holds(const Breakpoint &breakpoint, const Thread &thread) {
  AgentContext context;
  context.read_register = [&](unsigned number) -> Result<std::uint64_t> {
    return thread.registers.get(TRY(general_register(number)));
  };
  context.read_memory = [&](std::uint64_t address, std::span<std::byte> out) -> Result<void> {
    if (TRY(read_memory(thread.info.id.pid, address, out)) < out.size()) return Err(Errno::Fault);
    return {};
  };
  if (breakpoint.conditions.empty()) return true;
  counts_.evaluated += static_cast<unsigned>(breakpoint.conditions.size());
  return std::any_of(breakpoint.conditions.begin(), breakpoint.conditions.end(),
                     [&](const auto &c) {
                       const auto value = c.evaluate(context);
                       return !value || *value != 0;
                     });
}

std::optional<StopEvent> FakeTarget::hit(const Thread &thread) {
  for (const auto &b : breakpoints_) {
    if (b.pid != thread.info.id.pid || b.address != thread.registers.get(Reg::Rip)) continue;
    if (b.kind > BreakpointKind::Hardware || !holds(b, thread)) continue;
    const bool soft = b.kind == BreakpointKind::Software;
    return StopEvent{.reason = soft ? StopReason::SoftBreakpoint : StopReason::HardBreakpoint,
                     .signal = SIGTRAP};
  }
  return std::nullopt;
}

std::optional<StopEvent> FakeTarget::watched(const Thread &thread, const FakeStep &step) {
  for (const auto &b : breakpoints_) {
    if (b.pid != thread.info.id.pid || b.kind < BreakpointKind::Write) continue;
    const auto touches = [&](const std::optional<std::uint64_t> &at) {
      return at && *at < b.address + b.size && b.address < *at + 8;
    };
    StopReason reason{};
    if (b.kind == BreakpointKind::Write && touches(step.written))
      reason = StopReason::Watch;
    else if (b.kind == BreakpointKind::Read && touches(step.read))
      reason = StopReason::ReadWatch;
    else if (b.kind == BreakpointKind::Access && (touches(step.read) || touches(step.written)))
      reason = StopReason::AccessWatch;
    else
      continue;
    if (holds(b, thread))
      return StopEvent{.reason = reason, .signal = SIGTRAP, .address = b.address};
  }
  return std::nullopt;
}

std::optional<StopEvent> FakeTarget::after(Thread &thread, const FakeStep &step) {
  switch (step.kind) {
    case FakeStep::Kind::Halt:
      thread.sleeps = true;
      thread.info.detail = "sleeping in hlt";
      return std::nullopt;
    case FakeStep::Kind::BadAddress:
      return stop(thread, {.signal = SIGSEGV});
    case FakeStep::Kind::BadInstruction:
      return stop(thread, {.signal = SIGILL});
    case FakeStep::Kind::Syscall:
      return system_call(thread);
    case FakeStep::Kind::Done:
      if (auto event = watched(thread, step)) return stop(thread, std::move(*event));
      return std::nullopt;
  }
  return std::nullopt;
}

bool FakeTarget::catches(std::int64_t pid, std::uint64_t number) const {
  const auto found = caught_.find(pid);
  return found != caught_.end() &&
         (found->second.empty() || found->second.contains(static_cast<std::int64_t>(number)));
}

// Its entry and its return are two stops where gdb wants them.
std::optional<StopEvent> FakeTarget::system_call(Thread &thread) {
  const auto number =
      thread.in_syscall ? thread.registers.get(Reg::OrigRax) : thread.registers.get(Reg::Rax);
  thread.registers.set(Reg::OrigRax, number);
  const bool caught = catches(thread.info.id.pid, number);
  if (caught && !thread.in_syscall) {
    thread.in_syscall = true;
    return stop(thread, {.reason = StopReason::SyscallEntry,
                         .signal = SIGTRAP,
                         .number = static_cast<std::int64_t>(number)});
  }
  thread.in_syscall = false;
  if (auto event = finish_call(thread, number)) return event;
  if (!caught) return std::nullopt;
  return stop(thread, {.reason = StopReason::SyscallReturn,
                       .signal = SIGTRAP,
                       .number = static_cast<std::int64_t>(number)});
}

std::optional<StopEvent> FakeTarget::finish_call(Thread &thread, std::uint64_t number) {
  constexpr std::int64_t kNoSys = -38;
  const auto id = thread.info.id;
  switch (number) {
    case kGetpid:
      thread.registers.set(Reg::Rax, static_cast<std::uint64_t>(id.pid));
      return std::nullopt;
    case kFork:
      return fork(thread);
    case kClone: {
      thread.registers.set(Reg::Rax, static_cast<std::uint64_t>(next_id_));
      auto &created = make_thread({id.pid, next_id_}, fmt::format("new/{}", next_id_), true);
      ++next_id_;
      created.running = !thread_events_;
      if (thread_events_)
        return stop(created, {.reason = StopReason::ThreadCreated, .signal = SIGTRAP});
      return std::nullopt;
    }
    case kExecve:
      thread.registers.set(Reg::Rax, 0);
      std::erase_if(breakpoints_, [&](const Breakpoint &b) { return b.pid == id.pid; });
      if (!exec_events_) return std::nullopt;
      return stop(
          thread,
          {.reason = StopReason::Exec, .signal = SIGTRAP, .path = processes_[id.pid].executable});
    case kExit: {
      auto event =
          stop(thread, {.reason = StopReason::ProcessExited,
                        .number = static_cast<std::int64_t>(thread.registers.get(Reg::Rdi))});
      processes_.erase(id.pid);
      std::erase_if(threads_, [&](const Thread &t) { return t.info.id.pid == id.pid; });
      return event;
    }
    default:
      thread.registers.set(Reg::Rax, static_cast<std::uint64_t>(kNoSys));
      return std::nullopt;
  }
}

std::optional<StopEvent> FakeTarget::fork(Thread &thread) {
  const auto parent = thread.info.id.pid;
  const ThreadId child{next_id_, next_id_};
  ++next_id_;
  processes_[child.pid] = processes_[parent];
  processes_[child.pid].memory = std::make_shared<FakeMemory>(*processes_[parent].memory);
  processes_[child.pid].attached = fork_events_;
  thread.registers.set(Reg::Rax, static_cast<std::uint64_t>(child.pid));
  auto copy = thread;
  copy.info.id = child;
  copy.registers.set(Reg::Rax, 0);
  threads_.push_back(std::move(copy));
  threads_.back().running = false;
  for (std::size_t i = 0, count = breakpoints_.size(); fork_events_ && i < count; ++i) {
    if (breakpoints_[i].pid != parent) continue;
    auto inherited = breakpoints_[i];
    inherited.pid = child.pid;
    breakpoints_.push_back(std::move(inherited));
  }
  if (!fork_events_) return std::nullopt;
  return stop(*find({parent, thread.info.id.tid}),
              {.reason = StopReason::Fork, .signal = SIGTRAP, .child = child});
}

Result<void> FakeTarget::insert_breakpoint(const Breakpoint &breakpoint) {
  words_.clear();
  if (!options_.live) return Err(Errno::OpNotSupp);
  const bool hardware = breakpoint.kind != BreakpointKind::Software;
  const auto used =
      std::count_if(breakpoints_.begin(), breakpoints_.end(),
                    [](const Breakpoint &b) { return b.kind != BreakpointKind::Software; });
  if (hardware && used >= static_cast<std::ptrdiff_t>(options_.debug_registers))
    return Err(Errno::NoSpc);
  if (breakpoint.kind > BreakpointKind::Hardware && breakpoint.size > 8) return Err(Errno::Inval);
  std::byte probe{};
  if (!hardware) TRY(read_memory(breakpoint.pid, breakpoint.address, std::span(&probe, 1)));
  breakpoints_.push_back(breakpoint);
  ++counts_.inserted;
  return {};
}

Result<void> FakeTarget::remove_breakpoint(const Breakpoint &breakpoint) {
  const auto found =
      std::find_if(breakpoints_.begin(), breakpoints_.end(), [&](const Breakpoint &b) {
        return b.kind == breakpoint.kind && b.pid == breakpoint.pid &&
               b.address == breakpoint.address && b.size == breakpoint.size;
      });
  if (found == breakpoints_.end()) return Err(Errno::NoEnt);
  breakpoints_.erase(found);
  ++counts_.removed;
  return {};
}

Result<void> FakeTarget::catch_syscalls(std::int64_t pid, bool on,
                                        std::span<const std::int64_t> numbers) {
  if (pid == kKernelPid && !options_.kernel_calls) return Err(Errno::OpNotSupp);
  if (!on)
    caught_.erase(pid);
  else
    caught_[pid] = {numbers.begin(), numbers.end()};
  return {};
}

void FakeTarget::pass_signals(std::span<const int> signals) {
  passed_.assign(signals.begin(), signals.end());
}

Result<std::string> FakeTarget::executable(std::int64_t pid) {
  const auto found = processes_.find(pid);
  if (found == processes_.end() || options_.program.empty()) return Err(Errno::NoEnt);
  return found->second.executable;
}

Result<std::vector<std::byte>> FakeTarget::auxv(std::int64_t pid) {
  const auto found = processes_.find(pid);
  if (found == processes_.end()) return Err(Errno::Srch);
  constexpr std::uint64_t kPageSize = 6, kEntry = 9, kEnd = 0;
  const std::array<std::uint64_t, 6> entries = {
      kPageSize, FakeMemory::kPage, kEntry, found->second.entry, kEnd, 0};
  const auto bytes = std::as_bytes(std::span(entries));
  return std::vector(bytes.begin(), bytes.end());
}

Result<std::vector<Library>> FakeTarget::libraries(std::int64_t) { return std::vector<Library>(); }

Result<std::vector<std::byte>> FakeTarget::siginfo(ThreadId id) {
  const auto *thread = find(id);
  if (thread == nullptr) return Err(Errno::Srch);
  return thread->siginfo;
}

Result<void> FakeTarget::set_siginfo(ThreadId id, std::span<const std::byte> data) {
  auto *thread = find(id);
  if (thread == nullptr || data.size() != kSiginfo) return Err(Errno::Inval);
  thread->siginfo.assign(data.begin(), data.end());
  return {};
}

Result<std::uint64_t> FakeTarget::tls_address(ThreadId id, std::uint64_t offset, std::uint64_t) {
  const auto *thread = find(id);
  if (thread == nullptr || thread->sleeps) return Err(Errno::Srch);
  return thread->registers.get(Reg::FsBase) + offset;
}

// A guest process sees one file.
Result<std::unique_ptr<TargetFile>> FakeTarget::open_file(std::int64_t pid,
                                                          const std::string &path) {
  if (pid != 0 && path != "/bin/init") return Err(Errno::NoEnt);
  return HostFile::open(pid == 0 ? path : options_.program);
}

Result<std::string> FakeTarget::read_link(std::int64_t pid, const std::string &path) {
  if (pid == 0 || path != "/proc/self/exe") return Err(Errno::NoEnt);
  return std::string("/bin/init");
}

std::vector<std::pair<std::string, std::string>> FakeTarget::os_tables() {
  return {{"tasks", "The threads of the machine"}};
}

Result<OsTable> FakeTarget::os_table(const std::string &name) {
  if (name != "tasks") return Err(Errno::NoEnt);
  OsTable table{"tasks", "The threads of the machine", {"pid", "name"}, {}};
  for (const auto &thread : threads_)
    table.rows.push_back({std::to_string(thread.info.id.pid), thread.info.name});
  return table;
}

bool FakeTarget::monitor(const std::string &command, ThreadId current, const OutputSink &out) {
  if (command == "help") {
    out("help    this text\n");
    out("whoami  the selected thread\n");
    out("flood   a megabyte of lines\n");
  } else if (command == "whoami") {
    out(fmt::format("{}.{}\n", current.pid, current.tid));
  } else if (command == "flood") {
    constexpr unsigned kLines = 1 << 14;
    for (unsigned i = 0; i < kLines && out(fmt::format("line {:058}\n", i)); ++i) {
    }
  } else {
    return false;
  }
  return true;
}

}  // namespace cowbird::debug
