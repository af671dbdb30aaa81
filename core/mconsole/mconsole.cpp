#include "mconsole/mconsole.hpp"

#include <fmt/format.h>
#include <sys/prctl.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <deque>
#include <memory>
#include <semaphore>
#include <thread>

#include "base/log.hpp"
#include "irq/irq.hpp"
#include "mconsole/commands.hpp"
#include "mconsole/notify.hpp"
#include "mconsole/server.hpp"
#include "mconsole/stuck.hpp"
#include "proc/sysrq.hpp"
#include "proc/uts.hpp"
#include "sched/bkl.hpp"
#include "sched/freeze.hpp"
#include "sched/thread.hpp"
#include "sched/wait.hpp"

namespace cowbird::mconsole {

namespace {

constexpr std::size_t kMaxQueued = 64;
constexpr std::chrono::milliseconds kDrain{2000};
constexpr unsigned kMostTurns = 10;  // of waiting for an irq thread that is only late

struct Job {
  CommandLine line;
  Responder responder;
};

struct Console {
  Options options;
  std::unique_ptr<Server> server;
  std::atomic<std::size_t> queued{0};
  // Big kernel lock: what the kernel thread has to do.
  std::deque<Job> jobs;
  WaitQueue wait;
  // The server's thread: what the kernel thread has been asked and has not answered, and when.
  std::deque<std::pair<Responder, std::chrono::steady_clock::time_point>> asked;
  // The server's thread: the host name as it was when last seen.
  std::string node = "(none)";
};
Console *console = nullptr;  // made once, never destroyed

// One call on the irq thread that its maker may lose patience with.
struct Call {
  enum class State : int { Waiting, Running, Abandoned };
  std::atomic<State> state{State::Waiting};
  std::binary_semaphore done{0};
  std::function<void()> function;
};

// Whether the lock is to be had at this moment.
bool lock_is_free() {
  if (!big_kernel_lock.try_lock()) return false;
  big_kernel_lock.unlock();
  return true;
}

// Runs `function` on the irq thread under the big kernel lock. False when it did not get to it in
// time; it is not run then. A kernel whose lock is free is not stuck: on a busy host the irq thread
// may be late, and gets more time.
bool with_kernel(std::function<void()> function, std::chrono::milliseconds patience = kBusy) {
  const auto call = std::make_shared<Call>();
  call->function = std::move(function);
  irq::post([call] {
    auto waiting = Call::State::Waiting;
    if (!call->state.compare_exchange_strong(waiting, Call::State::Running)) return;
    call->function();
    call->done.release();
  });
  unsigned turns = 0;
  do {
    if (call->done.try_acquire_for(patience)) return true;
  } while (++turns < kMostTurns && lock_is_free());
  auto waiting = Call::State::Waiting;
  if (call->state.compare_exchange_strong(waiting, Call::State::Abandoned)) return false;
  call->done.acquire();
  return true;
}

Answer busy() {
  return Answer::error(
      fmt::format("The guest kernel does not answer: its lock has been held for {} ms. "
                  "'sysrq p' shows where, 'sysrq b' starts the guest again",
                  kBusy.count()));
}

// --- on the server's thread

std::string node_name() {
  // A look at it must not wait for a kernel that is stuck.
  if (big_kernel_lock.try_lock()) {
    console->node = uts_hostname();
    big_kernel_lock.unlock();
  }
  return console->node;
}

Answer version() {
  return Answer::done(
      fmt::format("{} {} {} {} x86_64", kUtsSysname, node_name(), kUtsRelease, kUtsVersion));
}

Answer help() {
  std::string text = "Commands:\n";
  for (const CommandHelp &command : commands()) {
    text += fmt::format("    {}{}{} - {}\n", command.name, command.arguments.empty() ? "" : " ",
                        command.arguments, command.help);
  }
  return Answer::done(text);
}

Answer add_to_log(std::string_view text) {
  // UML's client sends a line without text after each that it was given.
  if (text.empty()) return Answer::done();
  do {
    const std::string_view line = text.substr(0, text.find('\n'));
    klog(LogLevel::Notice, "{}", line);
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  } while (!text.empty());
  return Answer::done();
}

// Where Yama is (kernel.yama.ptrace_scope=1) the host lets a process be traced by its ancestors and
// by the one that it names. Asked for by the debugger, also when the kernel is stuck.
Answer allow_tracer(const std::string &argument) {
  int pid = 0;
  const char *const end = argument.data() + argument.size();
  const auto parsed = std::from_chars(argument.data(), end, pid);
  if (parsed.ec != std::errc{} || parsed.ptr != end || pid <= 0) {
    return Answer::error("tracer takes the id of a process of the host");
  }
  if (::kill(pid, 0) != 0 && errno == ESRCH) {
    return Answer::error(fmt::format("There is no process {} on the host", pid));
  }
  if (::prctl(PR_SET_PTRACER, static_cast<unsigned long>(pid), 0, 0, 0) == 0) {
    log_info("host process {} may trace the guest kernel", pid);
  }  // else the host has no such rule, and nothing has to be allowed
  return Answer::done();
}

// `stop` is answered when the guest stands still, or when it is clear that it takes longer.
void stop_guest(const Responder &responder) {
  constexpr auto kStep = std::chrono::milliseconds(1);
  constexpr auto kLong = std::chrono::milliseconds(200);
  Answer answer = busy();
  if (with_kernel([&] { answer = stop_command(); }) && answer.ok) {
    bool still = false;
    const auto end = std::chrono::steady_clock::now() + kLong;
    while (!still && std::chrono::steady_clock::now() < end) {
      if (!with_kernel([&] { still = freeze::quiesced(); }, kLong)) break;
      std::this_thread::sleep_for(still ? std::chrono::milliseconds(0) : kStep);
    }
  }
  responder.answer(answer);
}

bool guest_stands_still() {
  if (!big_kernel_lock.try_lock()) return false;
  const bool frozen = freeze::frozen();
  big_kernel_lock.unlock();
  return frozen;
}

// Tells those whose requests wait for threads that stand still.
int tell_held_up() {
  constexpr int kLookMs = 100;
  auto &asked = console->asked;
  std::erase_if(asked, [](const auto &request) { return request.first.answered(); });
  if (asked.empty()) return -1;
  const auto now = std::chrono::steady_clock::now();
  for (const auto &[responder, since] : asked) {
    if (now - since < console->options.held_up || !guest_stands_still()) continue;
    responder.answer(
        Answer::error("The guest stands still, and this needs what one of its threads holds. It "
                      "will be done when the guest goes on; 'go' lets it"));
  }
  return kLookMs;
}

// Sends a request to the kernel thread. False when it was refused.
bool queue(const CommandLine &line, const Responder &responder) {
  if (console->queued.fetch_add(1) >= kMaxQueued) {
    console->queued.fetch_sub(1);
    responder.answer(Answer::error("Too many requests wait for the guest kernel already"));
    return false;
  }
  console->asked.emplace_back(responder, std::chrono::steady_clock::now());
  irq::post([job = Job{line, responder}] {
    console->jobs.push_back(job);
    console->wait.wake_all();
  });
  return true;
}

// Sends a request that ends the guest. The guest's threads are needed for that, and requests before
// it may wait for them.
void queue_end(const CommandLine &line, const Responder &responder) {
  if (queue(line, responder)) irq::post(freeze::end);
}

void sysrq(const CommandLine &line, const Responder &responder) {
  if (line.argument.size() != 1) {
    responder.answer(Answer::error("sysrq takes one letter or digit; 'sysrq h' lists them"));
    return;
  }
  const char key = line.argument[0];
  if (key == 'b' && sysrq_allowed(key)) {
    // At once and without the kernel, whatever it does.
    log_notice("sysrq: Resetting");
    responder.answer(Answer::done("sysrq: Resetting\n"));
    console->server->flush(kDrain);
    return console->options.restart_now();
  }
  if (key == 'o' && sysrq_allowed(key)) return queue_end(line, responder);
  if (key == 'c' && sysrq_allowed(key)) {
    // Nobody is there to answer after a crash, and UML's client waits without end.
    responder.answer(Answer::done("sysrq: Trigger a crash\n"));
    console->server->flush(kDrain);
  }
  if (sysrq_may_sleep(key)) {
    queue(line, responder);
    return;
  }
  Answer answer;
  if (with_kernel([&] { answer = sysrq_command(key); })) return responder.answer(answer);
  responder.answer(key == 'p' || key == 't' ? describe_stuck_kernel() : busy());
}

void dispatch(const CommandLine &line, const Responder &responder) {
  switch (line.command) {
    case Command::Version:
      return responder.answer(version());
    case Command::Help:
      return responder.answer(help());
    case Command::Log:
      return responder.answer(add_to_log(line.argument));
    case Command::Stop:
      return stop_guest(responder);
    case Command::Tracer:
      return responder.answer(allow_tracer(line.argument));
    case Command::Sysrq:
      return sysrq(line, responder);
    case Command::Cad:
    case Command::Go:
    case Command::Stack:
    case Command::Devices: {
      Answer answer;
      bool sleeps = false;
      const bool done = with_kernel([&] { answer = quick_command(line, sleeps); });
      if (sleeps) return queue_end(line, responder);
      return responder.answer(done ? answer : busy());
    }
    case Command::Halt:
    case Command::Reboot:
      return queue_end(line, responder);
    case Command::Config:
    case Command::Remove:
    case Command::Proc:
      queue(line, responder);
      return;
    case Command::Unknown:
      return responder.answer(Answer::error("Unknown command"));
  }
}

// --- the kernel thread

void serve() {
  current_thread()->runs_while_frozen = true;
  for (;;) {
    [[maybe_unused]] const auto woken = wait_event(
        console->wait, [] { return !console->jobs.empty(); }, SleepMode::Uninterruptible,
        "mconsole");
    const Job job = std::move(console->jobs.front());
    console->jobs.pop_front();
    console->queued.fetch_sub(1);
    kernel_command(job.line, job.responder);
  }
}

}  // namespace

bool start(Options options, std::string &error) {
  KASSERT(console == nullptr);
  console = new Console;
  console->options = std::move(options);
  console->node = [] {
    const BklGuard guard;
    return uts_hostname();
  }();
  {
    const BklGuard guard;
    const auto thread = Thread::spawn("mconsole", serve);
    if (!thread) {
      error = fmt::format("The kernel thread of the management console cannot be started: {}.",
                          errno_text(thread.error()));
      return false;
    }
  }
  console->server = Server::start(console->options.socket, dispatch, error, tell_held_up);
  if (!console->server) return false;
  log_info("mconsole (version {}) initialized on {}", kVersion, console->options.socket.string());
  if (!notify_target().empty()) {
    const auto told = notify(NotifyKind::Socket, console->options.socket.string());
    if (!told) {
      log_warn("mconsole: nobody takes notifications on {}: {}", notify_target(),
               errno_text(told.error()));
    }
  }
  return true;
}

void stop() {
  if (console && console->server) console->server->stop(kDrain);
}

}  // namespace cowbird::mconsole
