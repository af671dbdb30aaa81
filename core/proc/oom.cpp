// The OOM killer: when no page frame is left, the process that uses most ends. As on Linux, nobody
// else is killed before its memory has come back, or cannot come back.
#include "proc/oom.hpp"

#include <algorithm>
#include <vector>

#include "abi/signal.hpp"
#include "base/log.hpp"
#include "proc/proc_internal.hpp"
#include "proc/signal_internal.hpp"
#include "sched/clock.hpp"

namespace cowbird {
namespace {

constexpr std::int32_t kNeverKill = -1000;
// After this time memory is taken from a victim that has not given it back. Not at once: others may
// wait for robust mutexes, whose list is in that memory and is served by the victim's end.
constexpr std::int64_t kVictimPatienceNs = 2 * kNsPerSec;
// After this time a victim whose memory cannot be taken either is passed over.
constexpr std::int64_t kHeldPatienceNs = 30 * kNsPerSec;

// How long a task waits for the victim's memory before it tries again.
constexpr std::int64_t kRetryNs = 5 * kNsPerMs;

struct Victim {
  Ref<Process> process;
  std::int64_t since = 0;
};
Victim last_victim;
// Victims that can neither end nor be robbed.
std::vector<Ref<Process>> given_up;

// What the process still has; nullptr when its last task has let go of it or it was taken away.
Ref<Mm> memory_of(const Process &process) {
  for (const Task *task : process.tasks) {
    if (task->mm) return task->mm->taken_from_killed() ? Ref<Mm>() : task->mm;
  }
  return {};
}

bool protects_itself(const Process &process) {
  const Task *task = process.representative();
  return process.pid == 1 || (task != nullptr && task->oom_score_adj == kNeverKill);
}

// What ends anyway is worth waiting for, also where it must not be killed.
std::int64_t badness(const Process &process) {
  const Task *task = process.representative();
  const Ref<Mm> mm = memory_of(process);
  if (task == nullptr || !mm) return 0;
  if (std::find(given_up.begin(), given_up.end(), &process) != given_up.end()) return 0;
  if (protects_itself(process)) return process.exiting ? 1 : 0;
  // The end of a vfork's child would free nothing.
  if (!process.vfork_done && mm->users > 1) return 0;
  const MmUsage usage = mm->usage();
  const auto pages = static_cast<std::int64_t>(usage.resident_anon + usage.resident_file +
                                               usage.resident_shared + usage.page_table_pages);
  const auto total = static_cast<std::int64_t>(phys().total_pages());
  return std::max<std::int64_t>(1, pages + task->oom_score_adj * (total / 1000));
}

Ref<Process> choose_victim(std::int64_t &worst_score) {
  Ref<Process> worst;
  for_each_process([&](Process &process) {
    const std::int64_t score = badness(process);
    if (score <= worst_score) return;
    worst_score = score;
    worst = Ref<Process>(&process);
  });
  return worst;
}

// Memory that somebody uses who lives on cannot be taken.
bool all_users_killed(const Mm &mm) {
  bool all = true;
  for_each_task([&](Task &task) { all = all && (task.mm.get() != &mm || task.killed); });
  return all;
}

// Whether the last victim still has memory to give back. It may need long for its end on a busy
// host, or sleep where no signal ends it; nobody else must die for that.
bool wait_for_victim(std::int64_t now) {
  if (!last_victim.process) return false;
  const Process &process = *last_victim.process;
  const Ref<Mm> mm = memory_of(process);
  if (mm && now - last_victim.since < kVictimPatienceNs) return true;
  if (mm) {
    const bool takable = all_users_killed(*mm);
    if (takable && mm->take_from_killed()) {
      log_notice("Out of memory: process {} ({}) takes long to end; its memory is taken away.",
                 process.pid, process.comm());
      last_victim = {};
      return true;
    }
    if (takable && now - last_victim.since < kHeldPatienceNs) return true;
    log_warn("Out of memory: process {} ({}) does not end; another one has to.", process.pid,
             process.comm());
    given_up.push_back(last_victim.process);
  }
  last_victim = {};
  return false;
}

// All processes that use this memory, as none of it is free before the last has ended.
void kill_users(const Process &victim, const Mm &mm) {
  for_each_process([&](Process &process) {
    if (&process == &victim || process.exiting || protects_itself(process)) return;
    if (memory_of(process).get() != &mm) return;
    log_err("Out of memory: process {} ({}) is killed; it shares the memory of process {}.",
            process.pid, process.comm(), victim.pid);
    begin_process_exit(process, kSigKill);
  });
}

}  // namespace

bool kill_for_memory() {
  const std::int64_t now = clock::monotonic_ns();
  std::erase_if(given_up, [](const Ref<Process> &process) { return process->tasks.empty(); });
  if (wait_for_victim(now)) return true;
  std::int64_t score = 0;
  const Ref<Process> worst = choose_victim(score);
  if (!worst) return false;
  last_victim = {worst, now};
  if (worst->exiting) {
    log_warn("Out of memory: waiting for the end of process {} ({}).", worst->pid, worst->comm());
    return true;
  }
  const Ref<Mm> mm = memory_of(*worst);
  log_err("Out of memory: process {} ({}) is killed; it used about {} KiB.", worst->pid,
          worst->comm(), score << (kPageShift - 10));
  begin_process_exit(*worst, kSigKill);
  kill_users(*worst, *mm);
  return true;
}

bool wait_for_memory() {
  Thread *thread = current_thread();
  const Task *task = thread ? thread->as_task() : nullptr;
  if (task == nullptr || task->killed || !kill_for_memory() || task->killed) return false;
  (void)sleep_until(clock::monotonic_ns() + kRetryNs, SleepMode::Killable, "out_of_memory");
  return !task->killed;
}

}  // namespace cowbird
