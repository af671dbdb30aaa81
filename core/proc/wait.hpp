// Waiting for children: the logic of wait4(2) and waitid(2), which syscall/sys_wait.cpp decodes.
#pragma once

#include "proc/task.hpp"

namespace cowbird {

struct WaitRequest {
  enum class Which : std::uint8_t { Any, Pid, Group };
  Which which = Which::Any;
  int id = 0;
  int options = 0;  // WNOHANG, WEXITED, WUNTRACED, ... as waitid(2)
};

struct WaitResult {
  int pid = 0;  // 0: WNOHANG, and nothing has happened
  std::uint32_t uid = 0;
  int code = 0;    // CLD_EXITED ...
  int status = 0;  // the status word of wait(2)
  ResourceUsage usage;
};

// Child when there is nothing to wait for; RestartSys when a signal comes. Sleeps.
Result<WaitResult> wait_for_child(Task &task, const WaitRequest &request);

}  // namespace cowbird
