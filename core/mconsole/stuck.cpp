#include "mconsole/stuck.hpp"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <semaphore>
#include <string>
#include <vector>

#include "base/host_thread.hpp"
#include "base/log.hpp"
#include "boot/backtrace.hpp"
#include "boot/end_signals.hpp"
#include "sched/thread.hpp"

namespace cowbird::mconsole {

namespace {

// Only a thread that waits for the host uninterruptibly does not take a signal; one of a busy host
// is late.
constexpr std::chrono::milliseconds kPatience{2000};

// What one interrupted thread has noted. Static: a handler that comes late must find it.
struct Note {
  std::atomic<pid_t> wanted{0};  // who is asked; the handler of anybody else does nothing
  std::array<boot::RawFrame, boot::kMaxFrames> frames;
  std::size_t count = 0;
  const Thread *thread = nullptr;
  char name[64] = {};
  std::binary_semaphore done{0};
};
Note note;

void on_signal(int signal, siginfo_t *info, void *raw) {
  if (info->si_code != SI_TKILL || info->si_pid != ::getpid()) {
    return boot::pass_on_end_signal(signal);
  }
  const int saved = errno;
  pid_t self = static_cast<pid_t>(::syscall(SYS_gettid));
  if (note.wanted.compare_exchange_strong(self, 0)) {
    const auto &context = *static_cast<const ucontext_t *>(raw);
    const auto sp = static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RSP]);
    note.count = boot::unwind_ucontext(context, note.frames, boot::current_stack(sp)).count;
    note.name[0] = '\0';
    if (const Thread *thread = current_thread()) {
      const std::size_t length = std::min(thread->name().size(), sizeof note.name - 1);
      std::copy_n(thread->name().data(), length, note.name);
      note.name[length] = '\0';
    }
    note.done.release();
  }
  errno = saved;
}

bool install_handler() {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    return ::sigaction(kLookSignal, &action, nullptr) == 0;
  }();
  return installed;
}

// The vCPUs and the irq thread.
std::vector<NamedThread> looked_at_threads() {
  std::vector<NamedThread> threads = named_host_threads();
  std::erase_if(threads, [](const NamedThread &thread) {
    return !thread.name.starts_with("vcpu") && thread.name != "irq";
  });
  std::ranges::sort(threads, {}, &NamedThread::id);
  return threads;
}

void look_at(const NamedThread &task, std::vector<std::string> &lines) {
  note.wanted = task.id;
  pid_t asked = task.id;
  if (::syscall(SYS_tgkill, ::getpid(), task.id, kLookSignal) != 0 ||
      (!note.done.try_acquire_for(kPatience) && note.wanted.compare_exchange_strong(asked, 0))) {
    lines.push_back(fmt::format("{}: does not take a signal", task.name));
    return;
  }
  if (asked != task.id) note.done.acquire();  // it came at the last moment
  lines.push_back(note.name[0] ? fmt::format("{}: kernel thread {}", task.name, note.name)
                               : fmt::format("{}:", task.name));
  for (std::size_t i = 0; i < note.count; ++i) {
    lines.push_back("    " + boot::format_frame(boot::symbolise(note.frames[i])));
  }
}

}  // namespace

Answer describe_stuck_kernel() {
  if (!install_handler()) return Answer::error("The host does not allow a look at the kernel");
  std::vector<std::string> lines{"The guest kernel is stuck. Where its threads are:"};
  for (const NamedThread &task : looked_at_threads()) look_at(task, lines);
  std::string text;
  for (const std::string &line : lines) {
    log_notice("{}", line);
    text += line + '\n';
  }
  return Answer::done(text);
}

}  // namespace cowbird::mconsole
