// The pid table: numbers of tasks and processes, and the index of groups and sessions.
#include "proc/pid_table.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "proc/proc_internal.hpp"
#include "proc/sysrq.hpp"

namespace cowbird {
namespace {

constexpr int kFirstReusedPid = 300;
void (*number_gone)(int pid, int tid) = nullptr;  // big kernel lock

PidTable &table() {
  static PidTable *const instance = PidTable::made = new PidTable;
  return *instance;
}

void leave_group(Process &process) {
  const auto group = table().groups.find(process.pgid);
  if (group == table().groups.end()) return;
  std::erase(group->second, &process);
  if (group->second.empty()) table().groups.erase(group);
}

std::uint64_t tasks_made = 0;

void leave_session(int sid) {
  const auto session = table().sessions.find(sid);
  if (session == table().sessions.end()) return;
  if (--session->second == 0) table().sessions.erase(session);
}

}  // namespace

constinit PidTable *PidTable::made = nullptr;

std::uint64_t forks_since_boot() { return tasks_made; }

Result<int> allocate_pid() {
  PidTable &t = table();
  for (int tries = 0; tries < kPidMax; ++tries) {
    int next = t.last + 1;
    if (next >= kPidMax) next = kFirstReusedPid;
    t.last = next;
    if (t.taken(next)) continue;
    ++tasks_made;
    return next;
  }
  return Err(Errno::Again);
}

void publish_process(Process &process) {
  table().processes[process.pid] = Ref<Process>(&process);
  table().groups[process.pgid].push_back(&process);
  ++table().sessions[process.sid];
}

void on_number_gone(void (*function)(int pid, int tid)) { number_gone = function; }

void retire_process(Process &process) {
  leave_group(process);
  leave_session(process.sid);
  table().processes.erase(process.pid);
  if (number_gone) number_gone(process.pid, process.pid);
}

void set_process_group(Process &process, int pgid) {
  leave_group(process);
  process.pgid = pgid;
  table().groups[pgid].push_back(&process);
}

void set_session(Process &process, int sid) {
  leave_session(process.sid);
  process.sid = sid;
  ++table().sessions[sid];
}

void publish_task(Task &task) { table().tasks[task.tid] = Ref<Task>(&task); }

void retire_task(Task &task) {
  table().tasks.erase(task.tid);
  if (number_gone && task.process) number_gone(task.process->pid, task.tid);
}

void rename_task(Task &task, int tid) {
  Ref<Task> keep(&task);
  table().tasks.erase(task.tid);
  task.tid = tid;
  table().tasks[tid] = std::move(keep);
}

std::size_t task_count() { return table().tasks.size(); }

std::size_t tasks_of_user(std::uint32_t uid) {
  std::size_t count = 0;
  for (const auto &[tid, task] : table().tasks) count += task->credentials.uid == uid;
  return count;
}

Ref<Process> find_process(int pid) {
  const auto entry = table().processes.find(pid);
  return entry == table().processes.end() ? Ref<Process>() : entry->second;
}

Ref<Task> find_task(int tid) {
  const auto entry = table().tasks.find(tid);
  return entry == table().tasks.end() ? Ref<Task>() : entry->second;
}

// The functions below may be given callbacks that end processes, so they walk over a copy.
void for_each_process(const std::function<void(Process &)> &function) {
  std::vector<Ref<Process>> all;
  all.reserve(table().processes.size());
  for (const auto &[pid, process] : table().processes) all.push_back(process);
  for (const Ref<Process> &process : all) function(*process);
}

void for_each_task(const std::function<void(Task &)> &function) {
  std::vector<Ref<Task>> all;
  all.reserve(table().tasks.size());
  for (const auto &[tid, task] : table().tasks) all.push_back(task);
  std::sort(all.begin(), all.end(),
            [](const Ref<Task> &a, const Ref<Task> &b) { return a->tid < b->tid; });
  for (const Ref<Task> &task : all) function(*task);
}

void for_each_in_group(int pgid, const std::function<void(Process &)> &function) {
  const auto group = table().groups.find(pgid);
  if (group == table().groups.end()) return;
  std::vector<Ref<Process>> members;
  for (Process *process : group->second) members.emplace_back(process);
  for (const Ref<Process> &process : members) function(*process);
}

std::size_t process_count() { return table().processes.size(); }

bool process_group_exists(int pgid, int sid) {
  const auto group = table().groups.find(pgid);
  if (group == table().groups.end()) return false;
  return std::any_of(group->second.begin(), group->second.end(),
                     [sid](const Process *process) { return process->sid == sid; });
}

bool process_group_orphaned(int pgid) {
  const auto group = table().groups.find(pgid);
  if (group == table().groups.end()) return true;
  return std::none_of(group->second.begin(), group->second.end(), [pgid](const Process *process) {
    const Process *parent = process->parent.get();
    // A real init does not care for jobs; the program of `cowbird run` may be a shell.
    if (process->zombie || parent == nullptr || parent->unkillable) return false;
    return parent->pgid != pgid && parent->sid == process->sid;
  });
}

Process *init_process() {
  const auto entry = table().processes.find(1);
  return entry == table().processes.end() ? nullptr : entry->second.get();
}

}  // namespace cowbird
