// What the files of proc/ share about tasks; not for other areas.
#pragma once

#include <span>

#include "proc/task.hpp"

namespace cowbird {

// Makes and registers tasks and processes.
class TaskFactory {
 public:
  // A task without process, mm and context, not in the table yet.
  static Ref<Task> make(std::string name);
};
Ref<Process> make_process();

void set_guest_platform(Platform &platform);

// --- the pid table (pid_table.cpp)
// A number that is no task, group or session; Again when there is none left.
Result<int> allocate_pid();
void publish_process(Process &process);  // its pid, pgid and sid are set
void retire_process(Process &process);   // reaped
void publish_task(Task &task);
void retire_task(Task &task);
std::size_t task_count();
// The processes whose real user id this is (RLIMIT_NPROC counts tasks).
std::size_t tasks_of_user(std::uint32_t uid);
// execve by a thread that is not the leader: it takes the leader's number.
void rename_task(Task &task, int tid);

// --- address spaces: how many tasks use one, and what they run (ETXTBSY)
void attach_mm(Task &task, Ref<Mm> mm);
// The task leaves its address space; the last one tears it down. Also ends the parent's vfork wait.
void release_mm(Task &task);
// The executable of `mm` may not be written while it runs.
Result<void> deny_write(File &file);
void allow_write(File &file);

// --- exit.cpp
// SIGCHLD and wake-ups for the parent; true when nobody will wait, and the process can go at once.
bool notify_parent_of_exit(Process &process);
// A zombie leaves for good: out of its parent's children and the table, its usage is added.
void reap_process(Process &process);
void end_vfork(Process &process);
void exit_robust_list(Task &task);

Process *init_process();

// Random bytes from the host, for AT_RANDOM, address layout and getrandom(2).
void fill_random(std::span<std::byte> bytes);

// A pidfd of a process, not installed yet.
Ref<File> make_pidfd(Ref<Process> process, std::uint32_t flags);
// An inode that stands for a process: the directory /proc/PID.
class ProcessInode {
 public:
  virtual Ref<Process> process_of_inode() const = 0;

 protected:
  ~ProcessInode() = default;
};

// The process of a pidfd; nullptr when the file is none.
Ref<Process> process_of_pidfd(File &file);
// The same for calls that also take the open directory /proc/PID, as pidfd_send_signal(2) does.
Ref<Process> process_of_pidfd_or_directory(File &file);

}  // namespace cowbird
