// The table of tasks and processes. Of proc/pid_table.cpp, which offers its functions in task.hpp
// and proc_internal.hpp; the debugger reads it from outside. Big kernel lock.
#pragma once

#include <map>
#include <unordered_map>
#include <vector>

#include "proc/task.hpp"

namespace cowbird {

struct PidTable {
  std::map<int, Ref<Process>> processes;
  std::unordered_map<int, Ref<Task>> tasks;
  std::unordered_map<int, std::vector<Process *>> groups;
  std::unordered_map<int, unsigned> sessions;  // how many processes each has
  std::unordered_map<std::uint32_t, std::size_t> user_tasks;
  int last = 0;

  bool taken(int number) const {
    return tasks.contains(number) || processes.contains(number) || groups.contains(number) ||
           sessions.contains(number);
  }

  static PidTable *made;  // nullptr before the first process
};

}  // namespace cowbird
