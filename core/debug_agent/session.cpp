#include "debug_agent/session.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "abi/signal.hpp"
#include "base/log.hpp"
#include "proc/signal_frame.hpp"
#include "sched/bkl.hpp"
#include "sched/freeze.hpp"
#include "sched/scheduler.hpp"

namespace cowbird::debug_agent {
namespace {

constexpr std::int64_t kStandstillNs = 3 * kNsPerSec;
// How often a thread is looked at that comes out of a system call, and how long at all.
constexpr int kLooks = 2000;
constexpr std::uint64_t kPollUs = 500;

template <typename T>
void append(std::vector<std::byte> &to, const T &value) {
  const auto *bytes = reinterpret_cast<const std::byte *>(&value);
  to.insert(to.end(), bytes, bytes + sizeof(T));
}

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto *begin = reinterpret_cast<const std::byte *>(text.data());
  return {begin, begin + text.size()};
}

template <std::size_t size>
void put_text(char (&to)[size], std::string_view text) {
  std::copy_n(text.begin(), std::min(text.size(), size - 1), to);
}

StopKind kind_of(TraceEvent event) {
  switch (event) {
    case TraceEvent::Signal:
      return StopKind::Signal;
    case TraceEvent::Breakpoint:
      return StopKind::Breakpoint;
    case TraceEvent::Step:
      return StopKind::Step;
    case TraceEvent::SyscallEntry:
      return StopKind::SyscallEntry;
    case TraceEvent::SyscallReturn:
      return StopKind::SyscallReturn;
    case TraceEvent::Fork:
      return StopKind::Fork;
    case TraceEvent::Vfork:
      return StopKind::Vfork;
    case TraceEvent::VforkDone:
      return StopKind::VforkDone;
    case TraceEvent::Exec:
      return StopKind::Exec;
    case TraceEvent::Created:
      return StopKind::ThreadCreated;
    case TraceEvent::Requested:
      return StopKind::Requested;
  }
  return StopKind::Requested;
}

std::int16_t vcpu_of(const Task &task) {
  return static_cast<std::int16_t>(scheduler::vcpu_of(task));
}

}  // namespace

Session::Session(AgentThread &thread, std::function<void(Bytes)> send, std::function<void()> wake)
    : thread_(thread), send_(std::move(send)), wake_(std::move(wake)) {}

Session::~Session() {
  closing_ = true;
  // No thread may run guest code while its breakpoints and its steps are taken away.
  static_cast<void>(stand_still());
  detach_all();
  let_go();
  files_.clear();
  readers_.clear();
  thread_.subject.reset();
}

Errno Session::refuse(Errno error, std::string words) {
  words_ = std::move(words);
  return error;
}

void Session::handle(const Header &header, std::span<const std::byte> body) {
  words_.clear();
  auto request = parse_request(header, body);
  Reply reply = request
                    ? answer(*request)
                    : Reply(Err(refuse(request.error(), "This is no request of the protocol.")));
  Header out;
  out.command = header.command;
  out.id = header.id;
  Bytes payload;
  if (reply) {
    payload = std::move(*reply);
  } else {
    out.error = static_cast<std::uint16_t>(reply.error());
    payload = bytes_of(words_);
  }
  out.size = static_cast<std::uint32_t>(payload.size());
  Bytes message;
  append(message, out);
  message.insert(message.end(), payload.begin(), payload.end());
  send_(std::move(message));
}

Session::Reply Session::answer(const Request &request) {
  if (request.command == Command::Hello) return hello(request);
  if (!greeted_) return Err(refuse(Errno::Proto, "The first request must be Hello."));
  switch (request.command) {
    case Command::Hello:
      break;
    case Command::Processes:
      return processes();
    case Command::Threads:
      return threads(request);
    case Command::Attach:
      return attach(request);
    case Command::Detach:
      return detach(request);
    case Command::Kill:
      return kill(request);
    case Command::GetRegisters:
      return get_registers(request);
    case Command::SetRegisters:
      return set_registers(request);
    case Command::ReadMemory:
      return read_memory(request);
    case Command::WriteMemory:
      return write_memory(request);
    case Command::InsertBreakpoint:
      return breakpoint(request, true);
    case Command::RemoveBreakpoint:
      return breakpoint(request, false);
    case Command::Auxv:
      return auxv(request);
    case Command::Executable:
      return executable(request);
    case Command::SetOptions:
      return set_options(request);
    case Command::CatchSyscalls:
      return catch_syscalls(request);
    case Command::PassSignals:
      return pass_signals(request);
    case Command::Freeze:
      return freeze();
    case Command::Thaw:
      return thaw();
    case Command::SetNonStop:
      non_stop_ = request.fields.flags != 0;
      return Bytes{};
    case Command::RequestStop:
      return request_stop(request);
    case Command::Resume:
      return resume(request);
    case Command::GetSignalInfo:
      return get_signal_info(request);
    case Command::SetSignalInfo:
      return set_signal_info(request);
    case Command::OpenFile:
      return open_file(request);
    case Command::ReadFile:
      return read_file(request);
    case Command::StatFile:
      return stat_file(request);
    case Command::CloseFile:
      return close_file(request);
    case Command::ReadLink:
      return read_link(request);
    case Command::Stopped:
      break;
  }
  return Err(Errno::Inval);
}

Session::Reply Session::hello(const Request &request) {
  if (request.numbers[0] != kVersion) {
    return Err(refuse(Errno::ProtoNoSupport,
                      fmt::format("The guest's debug agent speaks version {} of its protocol, the "
                                  "server version {}.",
                                  kVersion, request.numbers[0])));
  }
  greeted_ = true;
  HelloReply reply;
  reply.xstate_size = static_cast<std::uint32_t>(guest_platform().xstate_size());
  reply.host_pid = static_cast<std::int32_t>(::getpid());
  reply.vcpus = scheduler::vcpu_count();
  Bytes out;
  append(out, reply);
  return out;
}

// --- what is there

Result<Ref<Process>> Session::process(int pid) {
  Ref<Process> found = find_process(pid);
  if (!found || found->zombie) {
    return Err(refuse(Errno::Srch, fmt::format("There is no guest process {}.", pid)));
  }
  return found;
}

Result<Ref<Process>> Session::traced_process(int pid) {
  Ref<Process> found = TRY(process(pid));
  if (!found->trace || &found->trace->tracer != this) {
    return Err(refuse(Errno::Srch, fmt::format("Guest process {} is not attached.", pid)));
  }
  return found;
}

Result<Ref<Task>> Session::traced_task(int tid) {
  Ref<Task> found = find_task(tid);
  if (!found || !found->trace || &found->trace->process->tracer != this) {
    return Err(refuse(Errno::Srch, fmt::format("There is no attached guest thread {}.", tid)));
  }
  return found;
}

Session::Reply Session::processes() {
  Bytes out;
  for_each_process([&](Process &process) {
    if (out.size() + sizeof(ProcessRecord) > kMaxBody) return;
    ProcessRecord record;
    record.pid = process.pid;
    record.parent = process.parent ? process.parent->pid : 0;
    record.threads = static_cast<std::uint32_t>(process.tasks.size());
    record.traced = process.trace ? 1 : 0;
    record.zombie = process.zombie ? 1 : 0;
    put_text(record.name, process.comm());
    append(out, record);
  });
  return out;
}

Session::Reply Session::threads(const Request &request) {
  Bytes out;
  for_each_task([&](Task &task) {
    if (out.size() + sizeof(ThreadRecord) > kMaxBody) return;
    const int pid = request.fields.pid;
    const bool ours = task.trace && &task.trace->process->tracer == this;
    if (pid != 0 ? task.process->pid != pid : !ours) return;
    ThreadRecord record;
    record.pid = task.process->pid;
    record.tid = task.tid;
    record.state = task_state_letter(task);
    record.vcpu = vcpu_of(task);
    record.syscall = task.syscall_number;
    if (task.trace && task.trace->stopped) record.flags |= kThreadStopped;
    if (trace::is_held(task)) record.flags |= kThreadHeld;
    if (trace::in_system_call(task)) record.flags |= kThreadInSyscall;
    put_text(record.name, task.comm);
    if (const char *channel = task.wait_channel()) put_text(record.wait_channel, channel);
    append(out, record);
  });
  return out;
}

// --- attaching

void Session::apply_options(TracedProcess &process) const {
  process.forks = (options_ & kForkEvents) != 0;
  process.execs = (options_ & kExecEvents) != 0;
  process.threads = (options_ & kThreadEvents) != 0;
  process.pass = pass_;
}

Session::Reply Session::attach(const Request &request) {
  const Ref<Process> found = TRY(process(request.fields.pid));
  if (const auto attached = trace::attach(*found, *this); !attached) {
    return Err(refuse(attached.error(), fmt::format("Guest process {} cannot be attached: {}.",
                                                    found->pid, errno_text(attached.error()))));
  }
  apply_options(*found->trace);
  return Bytes{};
}

Session::Reply Session::detach(const Request &request) {
  const Ref<Process> found = TRY(traced_process(request.fields.pid));
  const bool frozen = freeze::held(freeze::Holder::Debugger);
  if (!frozen) TRY(stand_still());
  trace::detach(*found);
  const auto of_it = [&](const StopRecord &stop) { return stop.pid == found->pid; };
  std::erase_if(stops_, of_it);
  std::erase_if(unseen_, of_it);
  if (!frozen) let_go();
  return Bytes{};
}

Session::Reply Session::kill(const Request &request) {
  const Ref<Process> found = TRY(traced_process(request.fields.pid));
  if (found->unkillable) {
    return Err(refuse(Errno::Perm, fmt::format("Guest process {} is the guest's init; the guest "
                                               "cannot go on without it.",
                                               found->pid)));
  }
  SignalInfo info;
  info.signal = kSigKill;
  info.code = abi::kSI_KERNEL;
  log_notice("Process {} ({}) is killed by its debugger.", found->pid, found->comm());
  TRY(send_signal(*found, info));
  return detach(request);
}

void Session::detach_all() {
  for_each_process([&](Process &process) {
    if (process.trace && &process.trace->tracer == this) trace::detach(process);
  });
}

// --- registers and memory

// A thread in a system call is shown as a debugger on Linux would see it, which interrupts it: with
// the result that has the call made again.
static abi::UserRegs as_interrupted(const Task &task, abi::UserRegs regs) {
  if (!task.trace->stopped && trace::in_system_call(task)) {
    regs.rax = static_cast<std::uint64_t>(-static_cast<std::int64_t>(Errno::RestartSys));
  }
  return regs;
}

Session::Reply Session::get_registers(const Request &request) {
  const Ref<Task> task = TRY(traced_task(request.fields.tid));
  const auto regs = trace::registers(*task);
  if (!regs) {
    return Err(refuse(regs.error(), regs.is(Errno::Busy)
                                        ? fmt::format("Guest thread {} is running.", task->tid)
                                        : std::string("The thread has no program yet.")));
  }
  Bytes out;
  append(out, as_interrupted(*task, *regs));
  Bytes xstate(guest_platform().xstate_size());
  task->context->get_xstate(xstate);
  out.insert(out.end(), xstate.begin(), xstate.end());
  return out;
}

// A thread that sleeps in a system call is not where registers can be changed: what the call
// returns would be written over them. It ends for that, as for a signal, and is made again later
// unless orig_rax says otherwise. The guest stands still, but for this thread.
Result<void> Session::come_out_of_call(Task &task) {
  if (task.trace->stopped || !trace::in_system_call(task)) return {};
  const Ref<Task> keep(&task);
  quiet_stop_ = &task;
  freeze::exempt(task, true);
  trace::request_stop(task);
  for (int i = 0; i < kLooks && task.trace && !task.trace->stopped; ++i) {
    yield();
    BklReleased released;
    ::usleep(kPollUs);
  }
  freeze::exempt(task, false);
  quiet_stop_ = nullptr;
  if (task.trace && task.trace->stopped) return {};
  return Err(refuse(Errno::Busy,
                    fmt::format("Guest thread {} is in a system call that cannot be interrupted "
                                "now; its registers can be changed when it has ended.",
                                task.tid)));
}

Session::Reply Session::set_registers(const Request &request) {
  const Ref<Task> task = TRY(traced_task(request.fields.tid));
  abi::UserRegs regs;
  std::memcpy(&regs, request.bytes.data(), sizeof(regs));
  const auto shown = TRY(trace::registers(*task));
  const bool call_is_left =
      regs.orig_rax == shown.orig_rax && regs.rax == as_interrupted(*task, shown).rax;
  TRY(come_out_of_call(*task));
  // How the call ended for this is its own affair.
  if (call_is_left) regs.rax = TRY(trace::registers(*task)).rax;
  TRY(trace::set_registers(*task, regs));
  const auto xstate = request.bytes.subspan(sizeof(regs));
  if (!xstate.empty()) {
    if (xstate.size() != guest_platform().xstate_size()) return Err(Errno::Inval);
    TRY(task->context->set_xstate(xstate));
  }
  return Bytes{};
}

Session::Reply Session::read_memory(const Request &request) {
  const Ref<Process> found = TRY(process(request.fields.pid));
  Bytes out(request.fields.length);
  out.resize(TRY(trace::read_memory(*found, request.fields.address, out)));
  return out;
}

Session::Reply Session::write_memory(const Request &request) {
  const Ref<Process> found = TRY(traced_process(request.fields.pid));
  const std::uint64_t done =
      TRY(trace::write_memory(*found, request.fields.address, request.bytes));
  Bytes out;
  append(out, done);
  return out;
}

Session::Reply Session::breakpoint(const Request &request, bool insert) {
  const Ref<Process> found = TRY(traced_process(request.fields.pid));
  TRY(insert ? trace::insert_breakpoint(*found, request.fields.address)
             : trace::remove_breakpoint(*found, request.fields.address));
  return Bytes{};
}

Session::Reply Session::auxv(const Request &request) {
  const Ref<Process> found = TRY(process(request.fields.pid));
  const Task *task = found->representative();
  Bytes out;
  if (!task || !task->mm) return Err(Errno::Srch);
  for (const std::uint64_t word : task->mm->auxv) append(out, word);
  return out;
}

Session::Reply Session::executable(const Request &request) {
  const Ref<Process> found = TRY(process(request.fields.pid));
  const Task *task = found->representative();
  if (!task || !task->mm || !task->mm->exe || !task->fs) return Err(Errno::NoEnt);
  return bytes_of(path_name(task->mm->exe->path, task->fs->root));
}

Session::Reply Session::get_signal_info(const Request &request) {
  const Ref<Task> task = TRY(traced_task(request.fields.tid));
  if (!task->trace->stopped || task->trace->stop.info.signal == 0) {
    return Err(refuse(Errno::Inval, "The thread has not stopped for a signal."));
  }
  const abi::Siginfo info = encode_siginfo(task->trace->stop.info);
  Bytes out;
  append(out, info);
  return out;
}

Session::Reply Session::set_signal_info(const Request &request) {
  const Ref<Task> task = TRY(traced_task(request.fields.tid));
  if (!task->trace->stopped || task->trace->stop.event != TraceEvent::Signal) {
    return Err(refuse(Errno::Inval, "The thread has not stopped for a signal."));
  }
  abi::Siginfo info;
  static_assert(sizeof(info) == 128);
  std::memcpy(&info, request.bytes.data(), sizeof(info));
  if (info.signo < 1 || info.signo > kSignalCount) return Err(Errno::Inval);
  task->trace->stop.info = decode_siginfo(info);
  return Bytes{};
}

// --- events

Session::Reply Session::set_options(const Request &request) {
  if (request.fields.pid == 0) {
    options_ = request.fields.flags;
    for_each_process([&](Process &each) {
      if (each.trace && &each.trace->tracer == this) apply_options(*each.trace);
    });
    return Bytes{};
  }
  return Err(Errno::Inval);
}

Session::Reply Session::catch_syscalls(const Request &request) {
  const Ref<Process> found = TRY(traced_process(request.fields.pid));
  TracedProcess &traced = *found->trace;
  traced.syscalls = request.fields.flags != 0;
  traced.syscall_numbers.clear();
  traced.syscall_numbers.insert(request.numbers.begin(), request.numbers.end());
  return Bytes{};
}

Session::Reply Session::pass_signals(const Request &request) {
  pass_ = SignalSet(request.fields.address);
  for_each_process([&](Process &each) {
    if (each.trace && &each.trace->tracer == this) each.trace->pass = pass_;
  });
  return Bytes{};
}

void Session::push_stop(StopRecord record) {
  if (closing_) return;
  if (!non_stop_ && !freeze::held(freeze::Holder::Debugger)) {
    static_cast<void>(freeze::hold(freeze::Holder::Debugger));
  }
  record.sequence = ++last_stop_;
  stops_.push_back(record);
  // One of each thread at most, however long the server does not resume anything.
  std::erase_if(unseen_, [&](const StopRecord &before) { return before.tid == record.tid; });
  unseen_.push_back(record);
  wake_();
}

void Session::task_stopped(Task &task, const TraceStop &stop) {
  if (quiet_stop_ == &task && stop.event == TraceEvent::Requested) return;
  StopRecord record;
  record.pid = task.process->pid;
  record.tid = task.tid;
  record.kind = kind_of(stop.event);
  record.vcpu = vcpu_of(task);
  record.signal = stop.info.signal;
  record.address = stop.address;
  record.number = stop.number;
  record.child = stop.child;
  push_stop(record);
}

void Session::task_exited(Task &task) {
  if (closing_ || (options_ & kThreadEvents) == 0) return;
  if (task.process->tasks.size() == 1) return;  // the process's end is told instead
  StopRecord record;
  record.pid = task.process->pid;
  record.tid = task.tid;
  record.kind = StopKind::ThreadExited;
  push_stop(record);
}

void Session::process_exited(Process &process, int status) {
  StopRecord record;
  record.pid = record.tid = process.pid;
  record.kind = StopKind::ProcessExited;
  record.number = static_cast<std::uint64_t>(status);
  push_stop(record);
}

void Session::report_stops() {
  const bool frozen = freeze::held(freeze::Holder::Debugger);
  if (frozen) {
    if (!freeze::wait_quiesced(kStandstillNs)) {
      log_warn(
          "A kernel thread does not give its vCPU up; the debugger is told of a stop while it "
          "runs.");
    }
  }
  while (!stops_.empty()) {
    StopRecord record = stops_.front();
    stops_.pop_front();
    record.frozen = frozen ? 1 : 0;
    Header header;
    header.command = static_cast<std::uint16_t>(Command::Stopped);
    header.size = sizeof(record);
    Bytes message;
    append(message, header);
    append(message, record);
    send_(std::move(message));
  }
}

// --- running

Result<void> Session::stand_still() {
  if (!freeze::held(freeze::Holder::Debugger)) {
    TRY(freeze::hold(freeze::Holder::Debugger));
  }
  if (const auto still = freeze::wait_quiesced(kStandstillNs); !still) {
    return Err(refuse(still.error(),
                      "The guest does not come to a standstill: a kernel thread keeps its vCPU."));
  }
  return {};
}

void Session::let_go() {
  if (freeze::held(freeze::Holder::Debugger)) {
    static_cast<void>(freeze::release(freeze::Holder::Debugger));
  }
}

Session::Reply Session::freeze() {
  TRY(stand_still());
  return Bytes{};
}

Session::Reply Session::thaw() {
  let_go();
  return Bytes{};
}

Session::Reply Session::request_stop(const Request &request) {
  const Ref<Task> task = TRY(traced_task(request.fields.tid));
  trace::request_stop(*task);
  return Bytes{};
}

// It has stopped, and the server did not know that when it sent the request that is answered now.
bool Session::stands_unseen(const Task &task) const {
  return task.trace->stopped &&
         std::any_of(unseen_.begin(), unseen_.end(),
                     [&](const StopRecord &stop) { return stop.tid == task.tid; });
}

Session::Reply Session::resume(const Request &request) {
  const auto actions = records<ResumeRecord>(request.bytes);
  for (const ResumeRecord &action : actions) {
    if (action.signal < 0 || action.signal > kSignalCount || action.action > Action::Hold) {
      return Err(Errno::Inval);
    }
  }
  std::erase_if(unseen_,
                [&](const StopRecord &stop) { return stop.sequence <= request.fields.address; });
  const auto matches = [](int wanted, int is) { return wanted == -1 || wanted == is; };
  for_each_task([&](Task &task) {
    if (!task.trace || &task.trace->process->tracer != this) return;
    if (stands_unseen(task)) return;
    const auto found = std::find_if(actions.begin(), actions.end(), [&](const ResumeRecord &a) {
      return matches(a.pid, task.process->pid) && matches(a.tid, task.tid);
    });
    // In non-stop mode a thread that nobody speaks of goes on as it is.
    if (found == actions.end() && non_stop_) return;
    if (found == actions.end() || found->action == Action::Hold) {
      trace::hold(task, true);
      return;
    }
    TraceResume how;
    how.step = found->action == Action::Step;
    how.range_low = found->range_low;
    how.range_high = found->range_high;
    how.signal = found->signal;
    how.step_over = found->step_over != 0;
    trace::resume(task, how);
  });
  if (non_stop_ || unseen_.empty()) let_go();
  return Bytes{};
}

}  // namespace cowbird::debug_agent
