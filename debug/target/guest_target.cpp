// GuestTarget: what it shows, and to whom it passes what. Running and stopping:
// guest_target_run.cpp.
#include "debug/target/guest_target.hpp"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <charconv>

#include "debug/view/kernel_tables.hpp"

namespace cowbird::debug {
namespace {

constexpr const char *kStuck =
    "The guest kernel is stopped in the middle of its work, so it cannot do this for one of its "
    "programs. Let it run on (continue, then ^C).";
constexpr const char *kStanding =
    "Threads of the guest kernel are stopped, without which it cannot do this for one of its "
    "programs. Let them run on (continue -a &).";
constexpr const char *kNoRegisters =
    "A guest process has no debug registers, since its threads change their host threads and the "
    "kernel writes its memory past them: use software breakpoints (break) and software "
    "watchpoints (set can-use-hw-watchpoints 0).";

bool is_kernel(std::int64_t pid) { return pid == kKernelPid; }

}  // namespace

GuestTarget::GuestTarget(Target &kernel, KernelSide side)
    : kernel_(kernel),
      side_(std::move(side)),
      events_fd_(::epoll_create1(EPOLL_CLOEXEC)),
      wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  epoll_event event{};
  event.events = EPOLLIN;
  ::epoll_ctl(events_fd_.get(), EPOLL_CTL_ADD, wake_fd_.get(), &event);
}

GuestTarget::~GuestTarget() { detach_all(); }

// --- life

Result<void> GuestTarget::attach() {
  if (attached_) return {};
  if (const auto done = kernel_.attach(); !done) {
    words_ = kernel_.last_words();
    return done;
  }
  attached_ = with_kernel_ = true;
  standing_ = Standing::HardByChoice;
  current_ = kernel_.current_thread();
  kernel_.set_non_stop(non_stop_);
  kernel_.report_thread_events(thread_events_);
  kernel_.report_exec_events(exec_events_);
  return {};
}

void GuestTarget::forget_agent() {
  if (agent_fd_ >= 0) ::epoll_ctl(events_fd_.get(), EPOLL_CTL_DEL, agent_fd_, nullptr);
  agent_fd_ = -1;
  user_.reset();
  waiting_.clear();
  frozen_ = false;
}

void GuestTarget::detach_all() {
  if (!attached_) return;
  watch(false);
  // The agent sees its client go as soon as the kernel runs, and undoes all that was done.
  forget_agent();
  orphans_.clear();
  unpause();
  ready_.clear();
  kernel_ready_.clear();
  kernel_.detach_all();
  attached_ = with_kernel_ = false;
  standing_ = Standing::No;
  user_in_focus_ = false;
}

Result<void> GuestTarget::attach_process(std::int64_t pid) {
  if (is_kernel(pid)) return attach();
  UserTarget *target = TRY(user());
  TRY(refused(target->attach(pid)));
  if (non_stop_) {
    ResumeAction hold;
    hold.thread = {pid, kAll};
    hold.kind = ResumeKind::Stop;
    TRY(refused(target->resume(std::span(&hold, 1), false)));
  }
  current_ = {pid, pid};
  for (const ThreadInfo &thread : target->threads()) {
    if (thread.id.pid != pid) continue;
    current_ = thread.id;
    break;
  }
  return {};
}

Result<void> GuestTarget::detach_process(std::int64_t pid) {
  if (is_kernel(pid)) return detach_kernel();
  std::erase_if(ready_, [pid](const StopEvent &event) { return event.thread.pid == pid; });
  if (current_.pid == pid) current_ = {};
  if (stuck()) {
    if (!user_ || !user_->processes().contains(pid)) return Err(Errno::Srch);
    user_->forget(pid);
    return later([pid](UserTarget &target) { return target.detach(pid); });
  }
  return refused(TRY(user())->detach(pid));
}

// Guest processes stay attached: the agent needs no ptrace.
Result<void> GuestTarget::detach_kernel() {
  if (!with_kernel_) return Err(Errno::Srch);
  if (standing_ == Standing::HardByChoice && user_) {
    std::string why;
    TRY(make_ready(why));
  }
  unpause();
  const bool watched = std::exchange(watching_, false);
  kernel_ready_.clear();
  kernel_.detach_all();
  with_kernel_ = false;
  if (standing_ == Standing::Hard || standing_ == Standing::HardByChoice) {
    standing_ = Standing::Soft;
    if (user_ && !user_->processes().empty()) static_cast<void>(freeze());
    if (user_) static_cast<void>(do_what_waits());
  }
  if (watched) watch(true);
  return {};
}

Result<void> GuestTarget::kill(std::int64_t pid) {
  if (!is_kernel(pid)) {
    TRY(refused(TRY(user())->kill(pid)));
    if (current_.pid == pid) current_ = {};
    return {};
  }
  forget_agent();
  unpause();
  attached_ = false;
  standing_ = Standing::No;
  return kernel_.kill(pid);
}

Result<void> GuestTarget::refused(Result<void> result) {
  if (!result && user_) words_ = user_->last_words();
  return result;
}

// --- the two ways to stand still

void GuestTarget::pause() {
  if (paused_ || non_stop_ || !with_kernel_ || side_.hard_stopped()) return;
  side_.pause();
  paused_ = true;
}

void GuestTarget::unpause() {
  if (!paused_) return;
  paused_ = false;
  side_.unpause();
}

bool GuestTarget::stuck() const {
  return !paused_ && standing_ != Standing::HardByChoice && side_.hard_stopped();
}

bool GuestTarget::give_kernel_its_turn() {
  if (!with_kernel_) return true;
  if (auto event = kernel_.next_event()) {
    kernel_ready_.push_back(std::move(*event));
    wake();  // its own descriptor says nothing any more
  }
  return !side_.hard_stopped();
}

Result<void> GuestTarget::make_ready(std::string &why) {
  if (preparing_) return {};
  unpause();
  if (stuck()) {
    why = kStuck;
    return Err(Errno::Busy);
  }
  // That they run would not be told to a gdb in non-stop mode.
  if (non_stop_ && (standing_ == Standing::HardByChoice || (with_kernel_ && !side_.serves()))) {
    why = kStanding;
    return Err(Errno::Busy);
  }
  if (standing_ == Standing::HardByChoice) {
    ResumeAction all;
    all.thread = {kKernelPid, kAll};
    TRY(kernel_.resume(std::span(&all, 1)));
    standing_ = Standing::Soft;
  }
  if (standing_ != Standing::Soft || frozen_ || !user_) return {};
  preparing_ = true;
  const auto froze = freeze();
  preparing_ = false;
  if (!froze) why = user_->last_words();
  return froze;
}

// When the kernel stops meanwhile it is obeyed as soon as that runs on: the next resume ends it. A
// kernel that hangs may obey it at any time, or never.
Result<void> GuestTarget::freeze() {
  const auto done = user_->freeze();
  if (done || done.is(Errno::Again)) frozen_ = true;
  if (done.is(Errno::TimedOut)) user_->thaw_when_frozen();
  return done;
}

Result<void> GuestTarget::connect() {
  AgentClient::Waiting waiting;
  waiting.ready = [this](std::string &why) { return make_ready(why); };
  waiting.fd = with_kernel_ ? kernel_.event_fd() : -1;
  waiting.turn = [this] { return give_kernel_its_turn(); };
  auto client = TRY(AgentClient::connect(side_.agent_socket(), std::move(waiting), words_));
  user_ = std::make_unique<UserTarget>(std::shared_ptr<AgentClient>(std::move(client)));
  agent_fd_ = user_->agent().fd();
  if (watching_) {
    watching_ = false;
    watch(true);
  }
  tell_options();
  return {};
}

Result<UserTarget *> GuestTarget::user() {
  if (user_ && user_->agent().gone()) lose_agent();
  if (!attached_) return Err(Errno::Srch);
  if (!user_) TRY(connect());
  return user_.get();
}

void GuestTarget::tell_options() {
  if (!user_) return;
  const auto tell = [this](UserTarget &target) -> Result<void> {
    TRY(target.set_non_stop(non_stop_));
    TRY(target.pass_signals(passed_));
    return target.report(thread_events_, fork_events_, exec_events_);
  };
  static_cast<void>(stuck() ? later(tell) : tell(*user_));
}

Result<void> GuestTarget::later(Later what) {
  waiting_.push_back(std::move(what));
  return {};
}

// What was cut short is done again: nothing of it counts twice.
bool GuestTarget::do_what_waits() {
  while (!waiting_.empty()) {
    const auto done = waiting_.front()(*user_);
    if (!done && stuck()) return false;
    if (!done) words_ = user_->last_words();
    waiting_.pop_front();
  }
  return true;
}

// --- what is there

std::vector<std::int64_t> GuestTarget::processes() {
  if (!attached_) return {};
  std::vector<std::int64_t> list;
  if (with_kernel_) list.push_back(kKernelPid);
  if (user_) list.insert(list.end(), user_->processes().begin(), user_->processes().end());
  return list;
}

// The kernel side of a guest thread, or of any thread of a process when `guest_tid` is 0.
const KernelThread *GuestTarget::kernel_thread(std::int64_t guest_tid, std::int64_t guest_pid) {
  KernelView *view = side_.view ? side_.view() : nullptr;
  if (!view) return nullptr;
  for (const KernelThread &thread : view->threads()) {
    if (thread.pid <= 0 || thread.state == KernelThreadState::Dead) continue;
    if (guest_tid != 0 ? thread.guest_tid == guest_tid : thread.pid == guest_pid) return &thread;
  }
  return nullptr;
}

std::vector<ThreadInfo> GuestTarget::threads() {
  if (!attached_) return {};
  std::vector<ThreadInfo> users;
  if (user_ && !user_->processes().empty()) {
    if (!stuck()) {
      users = user_->threads();
    } else if (KernelView *view = side_.view ? side_.view() : nullptr) {
      for (const KernelThread &thread : view->threads()) {
        if (!user_->processes().contains(thread.pid)) continue;
        users.push_back({{thread.pid, thread.guest_tid}, thread.name, describe_state(thread), -1});
      }
    }
  }
  if (!with_kernel_) return users;
  pause();
  std::vector<ThreadInfo> list = kernel_.threads();
  list.insert(list.end(), users.begin(), users.end());
  return list;
}

bool GuestTarget::is_alive(ThreadId id) {
  if (is_kernel(id.pid)) {
    pause();
    return kernel_.is_alive(id);
  }
  if (!attached_ || !user_) return false;
  if (!stuck()) return user_->is_alive(id);
  const KernelThread *thread = kernel_thread(id.tid, 0);
  return thread && thread->pid == id.pid && user_->processes().contains(id.pid);
}

ThreadId GuestTarget::current_thread() {
  if (!is_kernel(current_.pid) && user_ && user_->processes().contains(current_.pid)) {
    return current_;
  }
  if (!with_kernel_) {
    const auto users = threads();
    return users.empty() ? ThreadId{} : users.front().id;
  }
  pause();
  return kernel_.current_thread();
}

Result<Registers> GuestTarget::read_registers(ThreadId id) {
  if (is_kernel(id.pid)) {
    pause();
    return kernel_.read_registers(id);
  }
  if (stuck()) {
    const KernelThread *thread = kernel_thread(id.tid, 0);
    if (!thread) return Err(Errno::Srch);
    return side_.view()->user_registers(*thread);
  }
  UserTarget *target = TRY(user());
  auto registers = target->read_registers(id.tid);
  if (!registers) words_ = target->last_words();
  return registers;
}

Result<void> GuestTarget::needs_agent(std::int64_t pid, const char *what) {
  if (is_kernel(pid) || !stuck()) return {};
  words_ = fmt::format("The {} of guest process {} cannot be changed now. {}", what, pid, kStuck);
  return Err(Errno::Busy);
}

Result<void> GuestTarget::write_registers(ThreadId id, const Registers &registers) {
  if (is_kernel(id.pid)) {
    pause();
    const auto done = kernel_.write_registers(id, registers);
    if (!done) words_ = kernel_.last_words();
    return done;
  }
  TRY(needs_agent(id.pid, "registers"));
  return refused(TRY(user())->write_registers(id.tid, registers));
}

Result<std::size_t> GuestTarget::read_memory(std::int64_t pid, std::uint64_t address,
                                             std::span<std::byte> out) {
  if (is_kernel(pid)) {
    pause();
    return kernel_.read_memory(pid, address, out);
  }
  if (stuck()) {
    const KernelThread *thread = kernel_thread(0, pid);
    if (!thread || thread->mm == 0) return Err(Errno::Srch);
    return KernelTables(*side_.view()).read_guest(thread->mm, address, out);
  }
  return TRY(user())->read_memory(pid, address, out);
}

Result<std::size_t> GuestTarget::write_memory(std::int64_t pid, std::uint64_t address,
                                              std::span<const std::byte> data) {
  if (is_kernel(pid)) {
    pause();
    return kernel_.write_memory(pid, address, data);
  }
  TRY(needs_agent(pid, "memory"));
  return TRY(user())->write_memory(pid, address, data);
}

// --- breakpoints and events

Result<void> GuestTarget::insert_breakpoint(const Breakpoint &breakpoint) {
  if (is_kernel(breakpoint.pid)) {
    pause();
    const auto done = kernel_.insert_breakpoint(breakpoint);
    if (!done) words_ = kernel_.last_words();
    return done;
  }
  if (breakpoint.kind != BreakpointKind::Software) {
    words_ = kNoRegisters;
    return Err(Errno::OpNotSupp);
  }
  if (stuck()) {
    return later([breakpoint](UserTarget &target) { return target.insert_breakpoint(breakpoint); });
  }
  return refused(TRY(user())->insert_breakpoint(breakpoint));
}

Result<void> GuestTarget::remove_breakpoint(const Breakpoint &breakpoint) {
  if (is_kernel(breakpoint.pid)) {
    pause();
    return kernel_.remove_breakpoint(breakpoint);
  }
  if (breakpoint.kind != BreakpointKind::Software) return Err(Errno::OpNotSupp);
  if (stuck()) {
    return later([breakpoint](UserTarget &target) { return target.remove_breakpoint(breakpoint); });
  }
  return refused(TRY(user())->remove_breakpoint(breakpoint));
}

Result<void> GuestTarget::catch_syscalls(std::int64_t pid, bool on,
                                         std::span<const std::int64_t> numbers) {
  if (is_kernel(pid)) {
    const auto done = kernel_.catch_syscalls(pid, on, numbers);
    if (!done) words_ = kernel_.last_words();
    return done;
  }
  if (stuck()) {
    return later([pid, on, list = std::vector(numbers.begin(), numbers.end())](UserTarget &target) {
      return target.catch_syscalls(pid, on, list);
    });
  }
  return refused(TRY(user())->catch_syscalls(pid, on, numbers));
}

void GuestTarget::pass_signals(std::span<const int> signals) {
  passed_.assign(signals.begin(), signals.end());
  kernel_.pass_signals(signals);
  tell_options();
}

void GuestTarget::report_thread_events(bool on) {
  thread_events_ = on;
  kernel_.report_thread_events(on);
  tell_options();
}

void GuestTarget::report_fork_events(bool on) {
  fork_events_ = on;
  kernel_.report_fork_events(on);
  tell_options();
}

void GuestTarget::report_exec_events(bool on) {
  exec_events_ = on;
  kernel_.report_exec_events(on);
  tell_options();
}

// --- what gdb reads to find symbols

Result<std::string> GuestTarget::executable(std::int64_t pid) {
  if (is_kernel(pid)) return kernel_.executable(pid);
  return TRY(user())->executable(pid);
}

Result<std::vector<std::byte>> GuestTarget::auxv(std::int64_t pid) {
  if (is_kernel(pid)) {
    pause();
    return kernel_.auxv(pid);
  }
  return TRY(user())->auxv(pid);
}

Result<std::vector<Library>> GuestTarget::libraries(std::int64_t pid) {
  if (is_kernel(pid)) {
    pause();
    return kernel_.libraries(pid);
  }
  return TRY(user())->libraries(pid);
}

Result<std::vector<std::byte>> GuestTarget::siginfo(ThreadId id) {
  if (is_kernel(id.pid)) {
    pause();
    return kernel_.siginfo(id);
  }
  return TRY(user())->siginfo(id.tid);
}

Result<void> GuestTarget::set_siginfo(ThreadId id, std::span<const std::byte> data) {
  if (is_kernel(id.pid)) {
    pause();
    return kernel_.set_siginfo(id, data);
  }
  return refused(TRY(user())->set_siginfo(id.tid, data));
}

Result<std::uint64_t> GuestTarget::tls_address(ThreadId id, std::uint64_t offset,
                                               std::uint64_t link_map) {
  if (is_kernel(id.pid)) {
    pause();
    return kernel_.tls_address(id, offset, link_map);
  }
  words_ = "Where a guest program's C library keeps thread-local variables is not known here.";
  return Err(Errno::OpNotSupp);
}

// gdb's `info proc` and its like ask for /proc/PID/... of no process's view, where PID is the
// inferior's: the host's directory of the kernel's process, or the guest's of one of its own.
void GuestTarget::find_view(std::int64_t &pid, std::string &path) const {
  constexpr std::string_view kProc = "/proc/";
  if (pid != 0 || !path.starts_with(kProc)) return;
  std::int64_t number = 0;
  const char *begin = path.data() + kProc.size();
  const auto parsed = std::from_chars(begin, path.data() + path.size(), number);
  if (parsed.ec != std::errc() || *parsed.ptr != '/') return;
  if (!is_kernel(number)) {
    if (user_ && user_->processes().contains(number)) pid = number;
    return;
  }
  const std::string ours = std::to_string(kKernelPid), theirs = std::to_string(side_.host_pid);
  for (std::size_t at = path.find(ours); at != path.npos; at = path.find(ours, at)) {
    path.replace(at, ours.size(), theirs);
    at += theirs.size();
  }
}

Result<std::unique_ptr<TargetFile>> GuestTarget::open_file(std::int64_t pid,
                                                           const std::string &name) {
  std::string path = name;
  find_view(pid, path);
  if (pid == 0 || is_kernel(pid)) return kernel_.open_file(pid, path);
  return TRY(user())->open_file(pid, path);
}

Result<std::string> GuestTarget::read_link(std::int64_t pid, const std::string &name) {
  std::string path = name;
  find_view(pid, path);
  if (pid == 0 || is_kernel(pid)) return kernel_.read_link(pid, path);
  return TRY(user())->read_link(pid, path);
}

// --- tables and commands: of the kernel's structures, so it stands still for them

std::vector<std::pair<std::string, std::string>> GuestTarget::os_tables() {
  return side_.os_tables ? side_.os_tables() : kernel_.os_tables();
}

Result<OsTable> GuestTarget::os_table(const std::string &name) {
  pause();
  return side_.os_table ? side_.os_table(name) : kernel_.os_table(name);
}

bool GuestTarget::monitor(const std::string &command, ThreadId current, const OutputSink &out) {
  pause();
  return side_.monitor ? side_.monitor(command, current, out)
                       : kernel_.monitor(command, current, out);
}

}  // namespace cowbird::debug
