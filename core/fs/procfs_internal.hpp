// The parts of procfs, for each other.
#pragma once

#include <cstdint>
#include <string>

#include "fs/pseudo_fs.hpp"
#include "proc/task.hpp"

namespace cowbird::procfs {

// Clock ticks of USER_HZ, 100 a second.
inline std::uint64_t ticks(std::int64_t ns) {
  return ns <= 0 ? 0 : static_cast<std::uint64_t>(ns) / 10'000'000;
}
inline std::uint64_t kib(std::uint64_t pages) { return pages * (kPageSize / kKiB); }

// Inode numbers of /proc/PID and /proc/PID/task/TID: apart from those of the fixed files, with room
// for the numbers of what is below them (PseudoDirectory).
inline std::uint64_t process_number(int pid) {
  return (1ull << 35) | (static_cast<std::uint64_t>(pid) << 8);
}
inline std::uint64_t thread_number(int tid) {
  return (1ull << 34) | (static_cast<std::uint64_t>(tid) << 8);
}

// What a directory stands for: a process as a whole, or one of its threads. Both may be dead by the
// time a file is read.
struct Subject {
  Ref<Process> process;
  Ref<Task> thread;  // set below task/

  Task *task() const;
  Mm *mm() const;
  // Reaped processes and ended threads have no files any more.
  bool alive() const;
};
using Text = std::string (*)(const Subject &);
// Srch for the dead; `is_private`: only for those who may inspect the process, Access for others.
TextSource source_of(const Subject &subject, Text text, bool is_private);

// maps and what else tells of the address space.
void add_memory_entries(PseudoEntries &list, const Subject &subject);
// /proc/PID/net. There are no name spaces, so it is the same for all.
PseudoEntries network_entries();

// The directory /proc/PID, or /proc/PID/task/TID when `task` is given.
Ref<Inode> make_process_directory(SuperBlock &sb, Ref<Process> process, Ref<Task> task);
// The files directly below /proc, and the tree /proc/sys.
PseudoEntries system_entries(const std::string &command_line);
PseudoEntries sysctl_entries();

// Through whose eyes a file is read: the calling task; for a kernel thread (the management console)
// process 1. nullptr when that has ended.
Task *reading_task();

// The caller may see what belongs to the process alone (memory layout, descriptors, environment):
// ptrace(2)'s access check for reading.
bool may_inspect(const Process &process);

}  // namespace cowbird::procfs
