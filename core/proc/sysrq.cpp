#include "proc/sysrq.hpp"

#include <vector>

#include "base/log.hpp"
#include "mm/page_cache.hpp"
#include "mm/phys_memory.hpp"
#include "proc/task.hpp"
#include "vfs/path.hpp"

namespace cowbird {
namespace {

void show_tasks(bool blocked_only) {
  for_each_task([&](Task &task) {
    const ThreadState state = task.state();
    if (blocked_only && state != ThreadState::Uninterruptible) return;
    const char *waits = task.wait_channel();
    log_info("{:>6} {:>6} {} {:<15} {}", task.tid, task.process->pid, task_state_letter(task),
             task.comm, state == ThreadState::Running || waits == nullptr ? "" : waits);
  });
}

void show_memory() {
  const PageCacheTotals cache = page_cache_totals();
  log_info(
      "Mem: {} KiB total, {} KiB free, {} KiB page cache ({} KiB of it memory only, {} KiB dirty)",
      phys().total_pages() * 4, phys().free_pages() * 4, cache.pages * 4,
      cache.memory_only_pages * 4, cache.dirty_pages * 4);
}

void signal_all(int signal) {
  std::vector<Ref<Process>> targets;
  for_each_process([&](Process &process) {
    if (process.pid != 1) targets.emplace_back(&process);
  });
  for (const Ref<Process> &process : targets) send_kernel_signal(*process, signal);
}

LogLevel &level() {
  static LogLevel current = LogLevel::Info;
  return current;
}
void (*level_hook)(LogLevel) = nullptr;

}  // namespace

void set_log_level_hook(void (*hook)(LogLevel)) { level_hook = hook; }

Result<void> handle_sysrq(char key) {
  if (key >= '0' && key <= '9') {
    // Linux's 8 and 9 mean "everything", as 7 does for a log whose levels end there.
    level() = static_cast<LogLevel>(key > '7' ? 7 : key - '0');
    if (level_hook) level_hook(level());
    log_info("sysrq: Changing log level to {}", key);
    return {};
  }
  switch (key) {
    case 'b':
      log_info("sysrq: Resetting");
      return request_reboot(RebootAction::Restart);
    case 'c':
      panic("sysrq triggered crash");
    case 'e':
      log_info("sysrq: Terminate All Tasks");
      signal_all(kSigTerm);
      return {};
    case 'f':
      log_info("sysrq: Manual OOM execution");
      if (!kill_for_memory()) log_info("sysrq: no process to kill");
      return {};
    case 'i':
      log_info("sysrq: Kill All Tasks");
      signal_all(kSigKill);
      return {};
    case 'm':
      log_info("sysrq: Show Memory");
      show_memory();
      return {};
    case 'o':
      log_info("sysrq: Power Off");
      return request_reboot(RebootAction::PowerOff);
    case 's':
      log_info("sysrq: Emergency Sync");
      sync_all();
      log_info("Emergency Sync complete");
      return {};
    case 't':
      log_info("sysrq: Show State");
      show_tasks(false);
      return {};
    case 'w':
      log_info("sysrq: Show Blocked State");
      show_tasks(true);
      return {};
    default:
      log_info(
          "sysrq: HELP : loglevel(0-9) reboot(b) crash(c) terminate-all-tasks(e) "
          "memory-full-oom-kill(f) kill-all-tasks(i) show-memory-usage(m) poweroff(o) sync(s) "
          "show-task-states(t) show-blocked-tasks(w)");
      return {};
  }
}

}  // namespace cowbird
