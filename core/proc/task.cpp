// Tasks and processes as objects.
#include "proc/task.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>

#include "abi/signal.hpp"
#include "base/log.hpp"
#include "mm/memory_waiter.hpp"
#include "mm/phys_memory.hpp"
#include "proc/itimer.hpp"
#include "proc/oom.hpp"
#include "proc/proc_internal.hpp"
#include "proc/trace.hpp"
#include "sched/scheduler.hpp"
#include "vfs/file.hpp"

namespace cowbird {
namespace {

constexpr std::size_t kCommLength = 15;
constexpr std::uint64_t kDefaultStack = 8 * kMiB;
constexpr std::uint64_t kDefaultFiles = 1024;
constexpr std::uint64_t kMaxFiles = 1048576;
constexpr std::uint64_t kDefaultMessageQueueBytes = 819200;
constexpr std::size_t kFewestTasks = 64;
constexpr std::size_t kMostTasks = 32000;
// What one task may cost of physical memory: an eighth of it may go to tasks of this size.
constexpr std::uint64_t kTaskShare = 128 * kKiB;

Platform *the_platform = nullptr;

bool randomise = true;

}  // namespace

void ResourceUsage::add(const ResourceUsage &other) {
  user_ns += other.user_ns;
  system_ns += other.system_ns;
  max_rss_pages = std::max(max_rss_pages, other.max_rss_pages);
  minor_faults += other.minor_faults;
  major_faults += other.major_faults;
  io.add(other.io);
  voluntary_switches += other.voluntary_switches;
  involuntary_switches += other.involuntary_switches;
}

Process::Process() = default;
Process::~Process() = default;

Ref<Process> make_process() {
  auto process = Ref<Process>::adopt(new Process());
  auto set = [&](Limit limit, std::uint64_t soft, std::uint64_t hard) {
    process->limits[static_cast<std::size_t>(limit)] = {soft, hard};
  };
  const std::uint64_t tasks = max_tasks() / 2;
  set(Limit::Stack, kDefaultStack, kNoLimit);
  set(Limit::Core, 0, kNoLimit);
  set(Limit::NProc, tasks, tasks);
  set(Limit::NoFile, kDefaultFiles, kMaxFiles);
  set(Limit::MemLock, 8 * kMiB, 8 * kMiB);
  set(Limit::SigPending, tasks, tasks);
  set(Limit::MsgQueue, kDefaultMessageQueueBytes, kDefaultMessageQueueBytes);
  set(Limit::Nice, 0, 0);
  set(Limit::RtPrio, 0, 0);
  return process;
}

Task *Process::representative() const {
  for (Task *task : tasks) {
    if (task->tid == pid) return task;
  }
  return tasks.empty() ? nullptr : tasks.front();
}

std::string Process::comm() const {
  const Task *task = representative();
  return task != nullptr ? task->comm : exit_comm;
}

const Credentials &Process::credentials() const {
  const Task *task = representative();
  return task != nullptr ? task->credentials : exit_credentials;
}

ResourceUsage Process::total_usage() const {
  scheduler::update_cpu_times();
  ResourceUsage total = usage;
  for (const Task *task : tasks) {
    ResourceUsage own;
    own.user_ns = task->user_ns;
    own.system_ns = task->system_ns;
    own.minor_faults = task->minor_faults;
    own.major_faults = task->major_faults;
    own.voluntary_switches = task->voluntary_switches;
    own.involuntary_switches = task->involuntary_switches;
    own.io = task->io;
    total.add(own);
  }
  const Task *task = representative();
  if (task != nullptr && task->mm) {
    total.max_rss_pages = std::max(total.max_rss_pages, task->mm->usage().peak_resident);
  }
  return total;
}

Process::Itimers &Process::timers() {
  if (!itimers) itimers = std::make_unique<Itimers>(*this);
  return *itimers;
}

Task::Task(std::string task_name) : Thread(std::move(task_name)) {}
Task::~Task() = default;

Ref<Task> TaskFactory::make(std::string name) {
  return Ref<Task>::adopt(new Task(std::move(name)));
}

// What a tracer wants on the way to guest code is no reason to end a sleep, but a requested stop
// is.
bool Task::signal_pending() const {
  return killed || process->stop_requested || !deliverable().empty() ||
         (trace && trace::stop_requested(*this));
}
bool Task::fatal_signal_pending() const { return killed; }

SignalSet Task::deliverable() const { return (pending.set() | process->pending.set()) & ~blocked; }

void Task::set_blocked(SignalSet mask) {
  mask.remove(kSigKill);
  mask.remove(kSigStop);
  blocked = mask;
}

void Task::set_comm(std::string_view new_name) {
  comm = std::string(new_name.substr(0, kCommLength));
  set_name(comm);
}

Task &current_task() {
  Thread *thread = current_thread();
  Task *task = thread != nullptr ? thread->as_task() : nullptr;
  KASSERT(task != nullptr);
  return *task;
}

std::size_t max_tasks() {
  const std::uint64_t bytes = phys().total_pages() << kPageShift;
  return std::clamp<std::size_t>(bytes / kTaskShare, kFewestTasks, kMostTasks);
}

void set_guest_platform(Platform &platform) {
  the_platform = &platform;
  // The kernel's own accesses to guest memory get frames as the guest's do.
  set_memory_waiter(wait_for_memory);
}

Platform &guest_platform() {
  KASSERT(the_platform != nullptr);
  return *the_platform;
}

void set_layout_randomisation(bool on) { randomise = on; }
bool layout_randomisation() { return randomise; }

void fill_random(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = getrandom(bytes.data(), bytes.size(), 0);
    if (got < 0) {
      KASSERT(errno == EINTR);
      continue;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
}

// --- address spaces

Result<void> deny_write(File &file) {
  if (file.inode->write_count > 0) return Err(Errno::TxtBsy);
  --file.inode->write_count;
  return {};
}

void allow_write(File &file) { ++file.inode->write_count; }

void attach_mm(Task &task, Ref<Mm> mm) {
  ++mm->users;
  task.active_mm = mm.get();
  task.mm = std::move(mm);
}

void release_mm(Task &task) {
  if (!task.mm) return;
  const Ref<Mm> mm = std::move(task.mm);
  task.mm.reset();
  task.active_mm = nullptr;
  if (--mm->users > 0) return;
  Process &process = *task.process;
  process.usage.max_rss_pages = std::max(process.usage.max_rss_pages, mm->usage().peak_resident);
  if (mm->exe) {
    allow_write(*mm->exe);
    mm->exe.reset();
  }
  mm->tear_down();
}

}  // namespace cowbird
