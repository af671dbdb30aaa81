#include "proc/sysrq.hpp"

#include <fmt/format.h>

#include <atomic>
#include <vector>

#include "base/log.hpp"
#include "mm/page_cache.hpp"
#include "mm/phys_memory.hpp"
#include "proc/task.hpp"
#include "vfs/path.hpp"

namespace cowbird {
namespace {

// What a command says: to the log, and to whoever wants to have it.
class Report {
 public:
  explicit Report(std::string *output) : output_(output) {}
  void line(const std::string &text) {
    log_info("{}", text);
    if (output_) *output_ += text + '\n';
  }

 private:
  std::string *output_;
};

StackPrinter stack_printer = nullptr;

void show_stack(Report &report, const Thread &thread) {
  for (const std::string &frame : print_stack(thread)) report.line("    " + frame);
}

void show_tasks(Report &report, bool blocked_only) {
  report.line("   PID   PPID S NAME            WAITS IN");
  for_each_thread([&](Thread &thread) {
    const ThreadState state = thread.state();
    if (blocked_only && state != ThreadState::Uninterruptible) return;
    const char *waits = thread.wait_channel();
    const char *where = state == ThreadState::Running || waits == nullptr ? "" : waits;
    if (const Task *task = thread.as_task()) {
      const Ref<Process> &parent = task->process->parent;
      report.line(fmt::format("{:>6} {:>6} {} {:<15} {}", task->tid, parent ? parent->pid : 0,
                              task_state_letter(*task), task->comm, where));
    } else {
      report.line(fmt::format("{:>6} {:>6} {} {:<15} {}", "-", "-", thread_state_letter(state),
                              thread.name(), where));
    }
    show_stack(report, thread);
  });
}

// Of the caller when it is a guest's thread, else of what runs on the vCPUs.
void show_registers(Report &report) {
  const auto show = [&](Thread &thread) {
    Task *task = thread.as_task();
    report.line(task ? fmt::format("Comm: {} PID: {}", task->comm, task->tid)
                     : fmt::format("Kernel thread: {}", thread.name()));
    if (task && task->context) {
      for (const std::string &row : format_registers(task->regs())) report.line(row);
    }
    show_stack(report, thread);
  };
  Thread *self = current_thread();
  if (self && self->as_task()) {
    show(*self);
    return;
  }
  bool any = false;
  for_each_thread([&](Thread &thread) {
    if (thread.state() != ThreadState::Running || &thread == self) return;
    any = true;
    show(thread);
  });
  if (!any) report.line("No thread of the guest runs.");
}

void show_memory(Report &report) {
  const PageCacheTotals cache = page_cache_totals();
  report.line(fmt::format(
      "Mem: {} KiB total, {} KiB free, {} KiB page cache ({} KiB of it memory only, {} KiB dirty)",
      phys().total_pages() * 4, phys().free_pages() * 4, cache.pages * 4,
      cache.memory_only_pages * 4, cache.dirty_pages * 4));
}

void signal_all(int signal) {
  std::vector<Ref<Process>> targets;
  for_each_process([&](Process &process) {
    if (process.pid != 1) targets.emplace_back(&process);
  });
  for (const Ref<Process> &process : targets) send_kernel_signal(*process, signal);
}

void make_normal() {
  constexpr int kFifo = 1, kRoundRobin = 2, kOther = 0;
  for_each_task([](Task &task) {
    if (task.policy == kFifo || task.policy == kRoundRobin) task.policy = kOther;
  });
}

LogLevel &level() {
  static LogLevel current = LogLevel::Info;
  return current;
}
void (*level_hook)(LogLevel) = nullptr;
std::atomic<std::uint64_t> mask{1};  // also read without the lock

// The bits of /proc/sys/kernel/sysrq.
constexpr std::uint64_t kAllowLevel = 2, kAllowDump = 8, kAllowSync = 16, kAllowRemount = 32,
                        kAllowSignal = 64, kAllowReboot = 128, kAllowNice = 256;

std::uint64_t bit_of(char key) {
  if (key >= '0' && key <= '9') return kAllowLevel;
  switch (key) {
    case 'c':
    case 'm':
    case 'p':
    case 't':
    case 'w':
      return kAllowDump;
    case 's':
      return kAllowSync;
    case 'u':
      return kAllowRemount;
    case 'e':
    case 'f':
    case 'i':
      return kAllowSignal;
    case 'b':
    case 'o':
      return kAllowReboot;
    case 'n':
      return kAllowNice;
    default:
      return 0;
  }
}

}  // namespace

std::uint64_t sysrq_mask() { return mask; }
void set_sysrq_mask(std::uint64_t value) { mask = value; }
bool sysrq_allowed(char key) {
  const std::uint64_t now = mask;
  return now == 1 || bit_of(key) == 0 || (now & bit_of(key)) != 0;
}
bool sysrq_may_sleep(char key) { return key == 'b' || key == 'o' || key == 's' || key == 'u'; }

void set_log_level_hook(void (*hook)(LogLevel)) { level_hook = hook; }
void set_stack_printer(StackPrinter printer) { stack_printer = printer; }
std::vector<std::string> print_stack(const Thread &thread) {
  return stack_printer ? stack_printer(thread) : std::vector<std::string>{};
}

std::vector<std::string> format_registers(const abi::UserRegs &r) {
  return {
      fmt::format("RIP: {:04x}:{:016x} RSP: {:04x}:{:016x} EFLAGS: {:08x}", r.cs, r.rip, r.ss,
                  r.rsp, r.eflags),
      fmt::format("RAX: {:016x} RBX: {:016x} RCX: {:016x}", r.rax, r.rbx, r.rcx),
      fmt::format("RDX: {:016x} RSI: {:016x} RDI: {:016x}", r.rdx, r.rsi, r.rdi),
      fmt::format("RBP: {:016x} R08: {:016x} R09: {:016x}", r.rbp, r.r8, r.r9),
      fmt::format("R10: {:016x} R11: {:016x} R12: {:016x}", r.r10, r.r11, r.r12),
      fmt::format("R13: {:016x} R14: {:016x} R15: {:016x}", r.r13, r.r14, r.r15),
      fmt::format("FS:  {:016x} GS:  {:016x} ORIG_RAX: {:016x}", r.fs_base, r.gs_base, r.orig_rax),
  };
}

Result<void> handle_sysrq(char key, std::string *output) {
  Report report(output);
  if (key >= '0' && key <= '9') {
    // Linux's 8 and 9 mean "everything", as 7 does for a log whose levels end there.
    level() = static_cast<LogLevel>(key > '7' ? 7 : key - '0');
    if (level_hook) level_hook(level());
    report.line(fmt::format("sysrq: Changing log level to {}", key));
    return {};
  }
  switch (key) {
    case 'b':
      report.line("sysrq: Resetting");
      return request_reboot(RebootAction::Restart);
    case 'c':
      panic("sysrq triggered crash");
    case 'e':
      report.line("sysrq: Terminate All Tasks");
      signal_all(kSigTerm);
      return {};
    case 'f':
      report.line("sysrq: Manual OOM execution");
      if (!kill_for_memory()) report.line("sysrq: no process to kill");
      return {};
    case 'i':
      report.line("sysrq: Kill All Tasks");
      signal_all(kSigKill);
      return {};
    case 'm':
      report.line("sysrq: Show Memory");
      show_memory(report);
      return {};
    case 'n':
      report.line("sysrq: Nice All RT Tasks");
      make_normal();
      return {};
    case 'o':
      report.line("sysrq: Power Off");
      return request_reboot(RebootAction::PowerOff);
    case 'p':
      report.line("sysrq: Show Regs");
      show_registers(report);
      return {};
    case 's':
      report.line("sysrq: Emergency Sync");
      sync_all();
      report.line("Emergency Sync complete");
      return {};
    case 't':
      report.line("sysrq: Show State");
      show_tasks(report, false);
      return {};
    case 'u':
      report.line("sysrq: Emergency Remount R/O");
      report.line(fmt::format("Emergency Remount complete, {} mounts", emergency_remount()));
      return {};
    case 'w':
      report.line("sysrq: Show Blocked State");
      show_tasks(report, true);
      return {};
    default:
      report.line(
          "sysrq: HELP : loglevel(0-9) reboot(b) crash(c) terminate-all-tasks(e) "
          "memory-full-oom-kill(f) kill-all-tasks(i) show-memory-usage(m) nice-all-RT-tasks(n) "
          "poweroff(o) show-registers(p) sync(s) show-task-states(t) unmount(u) "
          "show-blocked-tasks(w)");
      return {};
  }
}

}  // namespace cowbird
