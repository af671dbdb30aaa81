#include "boot/panic.hpp"

#include <cxxabi.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/host_thread.hpp"
#include "base/log.hpp"
#include "boot/backtrace.hpp"
#include "boot/boot.hpp"
#include "boot/debug_journal.hpp"
#include "boot/debug_stop.hpp"
#include "boot/panic_timer.hpp"
#include "boot/symbols.hpp"
#include "sched/scheduler.hpp"
#include "sched/stack.hpp"
#include "sched/thread.hpp"

namespace cowbird::boot {
namespace {

constexpr std::size_t kLogLines = 20;

struct Emergency {
  std::atomic<void (*)(void *)> function{nullptr};
  std::atomic<void *> data{nullptr};
  std::atomic<bool> for_halt{false};
};
std::array<Emergency, kMaxEmergencies> emergencies;

// What a panic has got to print. Static, so that a second fault or the timer, which may
// interrupt it anywhere, can finish the part that needs no memory.
struct Panic {
  char message[1024];
  std::atomic<bool> head_printed{false};
  std::atomic<int> owner{0};  // host thread id; 0: no panic yet
  std::atomic<bool> finishing{false};
  std::atomic<bool> over{false};  // the report is out
  std::array<RawFrame, kMaxFrames> frames;
  std::atomic<std::size_t> frame_count{0};
  std::atomic<std::size_t> frames_printed{0};
  UnwindEnd end = UnwindEnd::Complete;
};
Panic the_panic;

int host_thread_id() { return static_cast<int>(::syscall(SYS_gettid)); }

void put(const char *text, std::size_t length) {
  while (length > 0) {
    const ssize_t n = ::write(STDERR_FILENO, text, length);
    if (n <= 0) return;
    text += n;
    length -= static_cast<std::size_t>(n);
  }
}

// printf's formatting of numbers and strings does not allocate.
__attribute__((format(printf, 1, 2))) void say(const char *format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (length > 0) put(line, std::min(static_cast<std::size_t>(length), sizeof line - 1));
}

void print_frame(std::size_t index, bool demangle) {
  const RawFrame &frame = the_panic.frames[index];
  static Symbol symbol;  // too large for a stack that may be nearly full
  find_symbol(frame.lookup(), symbol);
  const std::uint64_t back = frame.pc - frame.lookup();
  const char *slash = std::strrchr(symbol.object, '/');
  char *readable = nullptr;
  if (demangle && symbol.name[0]) {
    int status = 0;
    readable = abi::__cxa_demangle(symbol.name, nullptr, nullptr, &status);
  }
  const char *name = readable ? readable : symbol.name;
  say("  #%-2zu 0x%016lx %.400s+0x%lx (%s+0x%lx)\n", index, frame.pc, name[0] ? name : "?",
      symbol.offset + back, slash ? slash + 1 : (symbol.object[0] ? symbol.object : "?"),
      symbol.file_address + back);
  std::free(readable);
}

void print_frames(bool demangle) {
  const std::size_t count = the_panic.frame_count.load();
  for (;;) {
    const std::size_t index = the_panic.frames_printed.fetch_add(1);
    if (index >= count) break;
    print_frame(index, demangle);
  }
  if (the_panic.end == UnwindEnd::Full) say("  ... and more\n");
  if (the_panic.end == UnwindEnd::Broken) say("  (the stack cannot be followed further)\n");
}

void print_head() {
  if (the_panic.head_printed.exchange(true)) return;
  say("\ncowbird: guest kernel panic: %s\n", the_panic.message);
  const Thread *thread = current_thread();
  if (thread) {
    say("kernel thread: %.64s (id %lu) on vCPU %d\n", thread->name().c_str(), thread->id(),
        scheduler::current_vcpu());
  } else {
    char name[16] = "?";
    ::pthread_getname_np(::pthread_self(), name, sizeof name);
    say("kernel thread: none (host thread %s)\n", name);
  }
  say("backtrace:\n");
}

// The report is over.
[[noreturn]] void end_of_panic() {
  // Its limit may come now, late, and must not end what follows.
  the_panic.over = true;
  stop_panic_timer();
  write_panic_core(the_panic.message);
  if (panic_stands_still()) stand_still_after_panic();
  ::_exit(kExitPanic);
}

// What must be undone on the host now: all of it only when the process is about to end.
void undo_on_host() {
  if (panic_stands_still()) {
    run_halt_emergencies();
  } else {
    run_emergencies();
  }
}

[[noreturn]] void finish_early(const char *reason) {
  if (!the_panic.finishing.exchange(true)) {
    print_head();
    say("cowbird: %s, so it ends here without names made readable and without the log\n", reason);
    print_frames(false);
  }
  end_of_panic();
}

// Should the report hang, for a lock that it needs or over a broken stack.
void on_hang() {
  if (!the_panic.over) finish_early("the panic hangs");
}

// True for the one host thread that may report. Another thread's panic waits for the end of the
// process; the same thread's is a fault in the report itself.
bool claim_panic() {
  int nobody = 0;
  const int self = host_thread_id();
  if (the_panic.owner.compare_exchange_strong(nobody, self)) return true;
  if (nobody == self) return false;
  for (;;) ::pause();
}

void print_log() {
  say("last log lines:\n");
  for (const LogRecord &record : log_tail(kLogLines)) say("  %s\n", log_format(record).c_str());
}

// All but the frames has been decided; prints everything and ends the process.
[[noreturn]] void report() {
  print_frames(true);
  print_log();
  set_log_sink({});  // the message has been shown
  klog(LogLevel::Emerg, "panic: {}", std::string_view(the_panic.message));
  end_of_panic();
}

// The frames of panic() itself say nothing.
void drop_own_frames() {
  std::size_t own = 0;
  const std::size_t count = the_panic.frame_count.load();
  static Symbol symbol;
  for (std::size_t i = 0; i < count; ++i) {
    find_symbol(the_panic.frames[i].lookup(), symbol);
    if (std::strstr(symbol.name, "7cowbird") && std::strstr(symbol.name, "panic")) own = i + 1;
    if (i > 4) break;
  }
  std::move(the_panic.frames.begin() + static_cast<std::ptrdiff_t>(own),
            the_panic.frames.begin() + static_cast<std::ptrdiff_t>(count),
            the_panic.frames.begin());
  the_panic.frame_count.store(count - own);
}

void on_panic(const std::string &message) {
  if (!claim_panic()) finish_early("a second panic in the report");
  std::snprintf(the_panic.message, sizeof the_panic.message, "%s", message.c_str());
  cowbird_panic_stop(the_panic.message);
  start_panic_timer(on_hang);
  undo_on_host();
  print_head();
  const auto here = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
  const Unwound unwound = unwind_here(the_panic.frames, current_stack(here));
  the_panic.end = unwound.end;
  the_panic.frame_count.store(unwound.count);
  drop_own_frames();
  report();
}

const char *signal_text(int signal) {
  switch (signal) {
    case SIGSEGV:
      return "invalid memory access (SIGSEGV)";
    case SIGBUS:
      return "memory access error (SIGBUS)";
    case SIGILL:
      return "invalid instruction (SIGILL)";
    case SIGFPE:
      return "arithmetic error (SIGFPE)";
    case SIGTRAP:
      return "trap instruction (SIGTRAP)";
    case SIGABRT:
      return "abort() was called";
    case SIGSYS:
      return "a system call that the host forbids (SIGSYS)";
  }
  return "unknown fault";
}

void describe_fault(char *out, std::size_t size, int signal, const siginfo_t &info,
                    const ucontext_t &context) {
  const auto address = reinterpret_cast<std::uint64_t>(info.si_addr);
  const auto pc = static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RIP]);
  if (signal == SIGABRT) {
    std::snprintf(out, size, "%s", signal_text(signal));
    return;
  }
  if (info.si_code <= 0) {
    std::snprintf(out, size, "signal %d was sent by host process %d", signal, info.si_pid);
    return;
  }
  const Thread *thread = current_thread();
  if (thread && (signal == SIGSEGV || signal == SIGBUS)) {
    std::uint64_t low = 0, high = 0;
    scheduler::stack_bounds(*thread, low, high);
    if (address < low && low - address <= kStackGuardSize) {
      std::snprintf(out, size, "stack overflow of kernel thread %.64s at pc 0x%lx",
                    thread->name().c_str(), pc);
      return;
    }
  }
  const bool memory = signal == SIGSEGV || signal == SIGBUS;
  // Page-fault error code: bit 1 is a write, bit 4 an instruction fetch.
  const auto error = context.uc_mcontext.gregs[REG_ERR];
  if (memory && info.si_code != SI_KERNEL) {
    std::snprintf(out, size, "%s: %s at 0x%lx, pc 0x%lx", signal_text(signal),
                  (error & 16) ? "execution" : ((error & 2) ? "write" : "read"), address, pc);
  } else {
    std::snprintf(out, size, "%s at pc 0x%lx", signal_text(signal), pc);
  }
}

void on_fault(int signal, siginfo_t *info, void *raw_context) {
  if (signal == SIGTRAP && outlive_debugger(*info, *static_cast<ucontext_t *>(raw_context))) return;
  if (!claim_panic()) finish_early("a fault in the report");
  const auto &context = *static_cast<const ucontext_t *>(raw_context);
  describe_fault(the_panic.message, sizeof the_panic.message, signal, *info, context);
  cowbird_panic_stop(the_panic.message);
  start_panic_timer(on_hang);
  undo_on_host();
  print_head();
  const auto sp = static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RSP]);
  StackRange range = current_stack(sp);
  // An overflown stack's pointer is in the guard already.
  if (const Thread *thread = current_thread()) {
    std::uint64_t low = 0, high = 0;
    scheduler::stack_bounds(*thread, low, high);
    if (sp < low && low - sp <= kStackGuardSize) range = {low - kStackGuardSize, high};
  }
  const Unwound unwound = unwind_ucontext(context, the_panic.frames, range);
  the_panic.end = unwound.end;
  the_panic.frame_count.store(unwound.count);
  report();
}

}  // namespace

void install_panic_handler() { set_panic_handler(on_panic); }

Result<void> install_fault_handlers() {
  TRY(use_alternate_signal_stack());
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  // Not deferred: a fault in the report must arrive.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS}) {
    if (::sigaction(signal, &action, nullptr) != 0) return Err(errno_from_host(errno));
  }
  return {};
}

unsigned at_emergency(void (*function)(void *), void *data, EmergencyFor when) {
  for (unsigned i = 0; i < kMaxEmergencies; ++i) {
    void *unused = nullptr;
    // The data's address reserves the place; a null one is replaced, since it must not look free.
    static char no_data;
    void *const wanted = data ? data : &no_data;
    if (!emergencies[i].data.compare_exchange_strong(unused, wanted)) continue;
    emergencies[i].for_halt.store(when == EmergencyFor::EndAndHalt);
    emergencies[i].function.store(function);
    return i;
  }
  panic("more than {} emergency functions", kMaxEmergencies);
}

void cancel_emergency(unsigned number) {
  emergencies[number].function.store(nullptr);
  emergencies[number].data.store(nullptr);
}

const char *panic_message() { return the_panic.owner.load() != 0 ? the_panic.message : nullptr; }

void run_emergencies() {
  for (std::size_t i = emergencies.size(); i-- > 0;) {
    void *const data = emergencies[i].data.load();
    if (const auto function = emergencies[i].function.exchange(nullptr)) function(data);
  }
}

void run_halt_emergencies() {
  for (std::size_t i = emergencies.size(); i-- > 0;) {
    void *const data = emergencies[i].data.load();
    const auto function = emergencies[i].function.load();
    if (function && emergencies[i].for_halt.load()) function(data);
  }
}

}  // namespace cowbird::boot
