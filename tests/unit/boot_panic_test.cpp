#include <dlfcn.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <csignal>
#include <stdexcept>
#include <string>
#include <thread>

#include "base/unique_fd.hpp"
#include "boot/backtrace.hpp"
#include "boot/panic.hpp"
#include "boot/symbols.hpp"
#include "unit/sched_support.hpp"

using namespace cowbird;
using Catch::Matchers::Contains;

namespace {

struct Outcome {
  int status = -1;
  std::string text;
};

// Runs `body` in a child process with the panic path installed; what it writes to standard error.
Outcome in_child(const std::function<void()> &body) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    boot::install_panic_handler();
    if (!boot::install_fault_handlers()) ::_exit(99);
    body();
    ::_exit(0);
  }
  ::close(ends[1]);
  UniqueFd reader(ends[0]);
  Outcome outcome;
  char buffer[4096];
  for (ssize_t n; (n = ::read(reader.get(), buffer, sizeof buffer)) > 0;) {
    outcome.text.append(buffer, static_cast<std::size_t>(n));
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  if (WIFEXITED(status)) outcome.status = WEXITSTATUS(status);
  return outcome;
}

void on_kernel_thread(const std::function<void()> &body) {
  test::Machine machine(1);
  machine.run(body);
}

__attribute__((noinline)) void wait_deeply(WaitQueue &queue, const bool &flag, int depth) {
  if (depth > 0) {
    wait_deeply(queue, flag, depth - 1);
  } else {
    REQUIRE(wait_event(
        queue, [&] { return flag; }, SleepMode::Uninterruptible, "deep"));
  }
  asm volatile("" ::: "memory");
}

// A walk through small functions, one instruction at a time: what the unwinder has seen at each.
struct Steps {
  unsigned seen = 0, without_caller = 0;
  std::uint64_t pc = 0;  // of the last one without
  std::uint64_t low = 0, high = 0;
};
Steps steps;

void on_step(int, siginfo_t *, void *raw) {
  const auto &context = *static_cast<const ucontext_t *>(raw);
  std::array<boot::RawFrame, 8> frames;
  const boot::Unwound unwound = boot::unwind_ucontext(context, frames, {});
  ++steps.seen;
  bool found = false;
  for (std::size_t i = 0; i < unwound.count; ++i) {
    found = found || (frames[i].lookup() >= steps.low && frames[i].lookup() < steps.high);
  }
  if (found) return;
  ++steps.without_caller;
  steps.pc = frames[0].pc;
}

__attribute__((noinline)) int small_leaf(int value) {
  asm volatile("" : "+r"(value));
  return value;
}
__attribute__((noinline)) int small_function(int value) {
  volatile int kept[4] = {value, small_leaf(value), 2, 3};
  return kept[1] + small_leaf(kept[3]);
}
// Sets and clears the flag of the processor that traps behind each instruction.
__attribute__((noinline)) int step_through(int value) {
  asm volatile(
      "lea -128(%%rsp), %%rsp\n pushfq\n orl $0x100, (%%rsp)\n popfq\n lea 128(%%rsp), %%rsp" ::
          : "memory", "cc");
  value = small_function(value);
  asm volatile(
      "lea -128(%%rsp), %%rsp\n pushfq\n andl $~0x100, (%%rsp)\n popfq\n lea 128(%%rsp), %%rsp" ::
          : "memory", "cc");
  return value;
}

__attribute__((noinline)) void write_nowhere(volatile int *address) { *address = 1; }

__attribute__((noinline)) int eat_stack(int depth) {
  volatile char block[512];
  block[0] = static_cast<char>(depth);
  if (depth < 0) return 0;
  return eat_stack(depth + 1) + block[0];
}

}  // namespace

TEST_CASE("a sleeping thread's backtrace names its functions and ends at its entry") {
  test::Machine machine(1);
  WaitQueue queue;
  bool flag = false;
  Ref<Thread> thread, fresh;
  {
    BklGuard guard;
    thread = *Thread::spawn("sleeper", [&] { wait_deeply(queue, flag, 3); });
    // Not run yet: nothing but the entry.
    fresh = *Thread::spawn("fresh", [] {});
    const auto frames = boot::backtrace_of(*fresh);
    REQUIRE(frames.size() == 1);
    CHECK_THAT(frames[0].function, Contains("cowbird_thread_entry"));
  }
  for (bool asleep = false; !asleep;) {
    BklGuard guard;
    asleep = thread->state() == ThreadState::Uninterruptible;
  }
  {
    BklGuard guard;
    const auto frames = boot::backtrace_of(*thread);
    REQUIRE(frames.size() >= 7);
    int deep = 0;
    bool slept = false;
    for (const auto &frame : frames) {
      INFO(boot::format_frame(frame));
      CHECK(!frame.function.empty());
      // Templates that got its lambda have its name in theirs.
      deep += frame.function.find("wait_deeply") != std::string::npos &&
                      frame.function.find("lambda") == std::string::npos
                  ? 1
                  : 0;
      slept |= frame.function.find("cowbird::sleep_until") != std::string::npos;
    }
    CHECK(deep == 4);
    CHECK(slept);
    CHECK_THAT(frames.back().function, Contains("cowbird_thread_entry"));
    CHECK_THAT(boot::format_frame(frames.back()), Contains("unit-panic+0x"));
    flag = true;
    queue.wake_all();
  }
  for (bool dead = false; !dead;) {
    BklGuard guard;
    dead = thread->state() == ThreadState::Dead;
  }
  BklGuard guard;
  CHECK(boot::backtrace_of(*thread).empty());
  thread.reset();
  fresh.reset();
}

TEST_CASE("exceptions are unwound by the compiler's library, not by the backtrace's unwinder") {
  void *const raise = ::dlsym(RTLD_DEFAULT, "_Unwind_RaiseException");
  REQUIRE(raise);
  Dl_info info{};
  REQUIRE(::dladdr(raise, &info));
  // AddressSanitizer puts its own function before libgcc_s'.
  CHECK_THAT(std::string(info.dli_fname), Contains("libgcc_s") || Contains("libasan"));
  CHECK_THROWS_AS([] { throw std::runtime_error("x"); }(), std::runtime_error);
}

TEST_CASE("a panic reports the thread, where it was and the last log lines") {
  const Outcome outcome = in_child([] {
    for (int i = 0; i < 30; ++i) log_info("line number {}", i);
    on_kernel_thread([] { panic("the {} is gone", "egg"); });
  });
  INFO(outcome.text);
  CHECK(outcome.status == 3);
  CHECK_THAT(outcome.text, Contains("guest kernel panic: the egg is gone"));
  CHECK_THAT(outcome.text, Contains("kernel thread: test/0 (id"));
  CHECK_THAT(outcome.text, Contains("cowbird_thread_main"));
  CHECK_THAT(outcome.text, !Contains("vpanic"));
  CHECK_THAT(outcome.text, !Contains("cannot be followed"));
  CHECK_THAT(outcome.text, Contains("line number 29"));
  CHECK_THAT(outcome.text, Contains("line number 10"));
  CHECK_THAT(outcome.text, !Contains("line number 9\n"));
}

TEST_CASE("the emergency list runs before the report, the last added first, and once") {
  const Outcome outcome = in_child([] {
    const auto say = [](void *text) {
      [[maybe_unused]] const auto n = ::write(STDERR_FILENO, text, 1);
    };
    boot::at_emergency(say, const_cast<char *>("A"));
    boot::at_emergency(say, const_cast<char *>("B"));
    const unsigned third = boot::at_emergency(say, const_cast<char *>("C"));
    boot::cancel_emergency(third);
    boot::at_emergency(say, const_cast<char *>("D"));
    boot::run_emergencies();
    boot::run_emergencies();
    panic("end");
  });
  CHECK(outcome.status == 3);
  CHECK(outcome.text.substr(0, 4) == "DBA\n");
}

TEST_CASE("faults in kernel code are panics with the place of the fault") {
  SECTION("a write through a bad pointer") {
    const Outcome outcome = in_child(
        [] { on_kernel_thread([] { write_nowhere(reinterpret_cast<volatile int *>(0x1234)); }); });
    INFO(outcome.text);
    CHECK(outcome.status == 3);
    CHECK_THAT(outcome.text, Contains("write at 0x1234"));
    CHECK_THAT(outcome.text, Contains("write_nowhere"));
    CHECK_THAT(outcome.text, Contains("cowbird_thread_main"));
  }
  SECTION("a call of a bad pointer") {
    const Outcome outcome = in_child([] {
      on_kernel_thread([] {
        auto *volatile function = reinterpret_cast<void (*)()>(0x1234);
        function();
      });
    });
    INFO(outcome.text);
    CHECK(outcome.status == 3);
    CHECK_THAT(outcome.text, Contains("execution at 0x1234"));
    CHECK_THAT(outcome.text, Contains("cowbird_thread_main"));
  }
  SECTION("stack overflow") {
    const Outcome outcome =
        in_child([] { on_kernel_thread([] { static_cast<void>(eat_stack(0)); }); });
    INFO(outcome.text);
    CHECK(outcome.status == 3);
    CHECK_THAT(outcome.text, Contains("stack overflow of kernel thread test/0"));
    CHECK_THAT(outcome.text, Contains("eat_stack"));
    CHECK_THAT(outcome.text, Contains("... and more"));
  }
  SECTION("abort, on the irq thread") {
    const Outcome outcome = in_child([] {
      test::Machine machine(1);
      irq::post([] { std::abort(); });
      ::pause();
    });
    INFO(outcome.text);
    CHECK(outcome.status == 3);
    CHECK_THAT(outcome.text, Contains("abort() was called"));
    CHECK_THAT(outcome.text, Contains("none (host thread irq)"));
  }
}

TEST_CASE("a fault or a hang in the report ends the process all the same") {
  SECTION("fault") {
    const Outcome outcome = in_child([] {
      boot::at_emergency([](void *) { write_nowhere(reinterpret_cast<volatile int *>(0x98)); },
                         nullptr);
      panic("first");
    });
    CHECK(outcome.status == 3);
    CHECK_THAT(outcome.text, Contains("guest kernel panic: first"));
    CHECK_THAT(outcome.text, Contains("a fault in the report"));
  }
  SECTION("hang") {
    const Outcome outcome = in_child([] {
      // The sink panics with the log's lock held, and the report wants the last lines.
      set_log_sink([](const LogRecord &) { panic("in the sink"); });
      log_info("x");
    });
    INFO(outcome.text);
    CHECK(outcome.status == 3);
    CHECK_THAT(outcome.text, Contains("guest kernel panic: in the sink"));
    CHECK_THAT(outcome.text, Contains("hangs") || Contains("second panic"));
  }
}

#ifdef COWBIRD_LOCK_RANKS
TEST_CASE("taking locks in the wrong order is a panic that names both") {
  const Outcome outcome = in_child([] {
    static Mutex inner(LockRank::WorkQueue, "inner lock");
    MutexLock guard(inner);
    BklGuard wrong;
  });
  CHECK(outcome.status == 3);
  CHECK_THAT(outcome.text,
             Contains("'big kernel lock' (rank 10) taken while holding 'inner lock'"));
}
#endif

TEST_CASE("a thread that is interrupted anywhere in a function shows who has called it") {
  boot::Symbol symbol;
  const auto start = reinterpret_cast<std::uint64_t>(&step_through);
  steps = {};
  steps.low = start;
  // The function's end: the first address behind it that has another name.
  for (steps.high = start; boot::find_symbol(steps.high, symbol) &&
                           symbol.offset == steps.high - start && steps.high - start < 4096;) {
    ++steps.high;
  }
  REQUIRE(steps.high > steps.low);
  struct sigaction action {
  }, before{};
  action.sa_sigaction = on_step;
  action.sa_flags = SA_SIGINFO;
  REQUIRE(::sigaction(SIGTRAP, &action, &before) == 0);
  const int result = step_through(1);
  REQUIRE(::sigaction(SIGTRAP, &before, nullptr) == 0);
  CHECK(result == 4);
  CHECK(steps.seen > 20);
  CAPTURE(boot::format_frame(boot::symbolise({steps.pc, false})));
  CHECK(steps.without_caller == 0);
}
