// The OOM killer: when no page frame is left, the process that uses most ends.
#include "abi/signal.hpp"
#include "base/log.hpp"
#include "base/rate_limit.hpp"
#include "proc/proc_internal.hpp"
#include "proc/signal_internal.hpp"
#include "sched/clock.hpp"

namespace cowbird {
namespace {

constexpr std::int32_t kNeverKill = -1000;
// After this time a victim that has not given its memory back is passed over.
constexpr std::int64_t kVictimPatienceNs = 2 * kNsPerSec;

struct Victim {
  Ref<Process> process;
  std::int64_t since = 0;
};
Victim last_victim;

std::int64_t badness(const Process &process) {
  const Task *task = process.representative();
  if (task == nullptr || !task->mm || process.pid == 1) return 0;
  if (task->oom_score_adj == kNeverKill) return 0;
  const MmUsage usage = task->mm->usage();
  const auto pages = static_cast<std::int64_t>(usage.resident_anon + usage.resident_file +
                                               usage.resident_shared + usage.page_table_pages);
  const auto total = static_cast<std::int64_t>(phys().total_pages());
  return std::max<std::int64_t>(1, pages + task->oom_score_adj * (total / 1000));
}

// Whether a process is on its way out that still has memory; on a busy host that takes its time.
bool somebody_ends(std::int64_t now) {
  Ref<Process> ending;
  for_each_process([&](Process &process) {
    const Task *task = process.representative();
    if (!process.zombie && process.exiting && task != nullptr && task->mm) {
      ending = Ref<Process>(&process);
    }
  });
  if (!ending) return false;
  static RateLimit log_limit(1, 10 * kNsPerSec);
  if (log_limit.pass(now)) {
    log_warn("Out of memory: waiting for the end of process {} ({}).", ending->pid, ending->comm());
  }
  return true;
}

}  // namespace

bool kill_for_memory() {
  const std::int64_t now = clock::monotonic_ns();
  if (last_victim.process && !last_victim.process->tasks.empty() &&
      now - last_victim.since < kVictimPatienceNs) {
    return true;
  }
  last_victim = {};
  Ref<Process> worst;
  std::int64_t worst_score = 0;
  for_each_process([&](Process &process) {
    if (process.zombie || process.exiting) return;
    const std::int64_t score = badness(process);
    if (score <= worst_score) return;
    worst_score = score;
    worst = Ref<Process>(&process);
  });
  if (!worst) return somebody_ends(now);
  log_err("Out of memory: process {} ({}) is killed; it used about {} KiB.", worst->pid,
          worst->comm(), worst_score << (kPageShift - 10));
  last_victim = {worst, now};
  begin_process_exit(*worst, kSigKill);
  return true;
}

}  // namespace cowbird
