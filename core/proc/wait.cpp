// Waiting for children.
#include "proc/wait.hpp"

#include "abi/signal.hpp"
#include "abi/wait.hpp"
#include "proc/proc_internal.hpp"

namespace cowbird {
namespace {

bool is_eligible(const Task &task, const Process &child, const WaitRequest &request) {
  if (request.which == WaitRequest::Which::Pid && child.pid != request.id) return false;
  if (request.which == WaitRequest::Which::Group && child.pgid != request.id) return false;
  if ((request.options & abi::k__WNOTHREAD) != 0 && child.parent_tid != task.tid) return false;
  // A "clone" child is one that does not signal SIGCHLD.
  const bool is_clone = child.exit_signal != kSigChld;
  const bool wants_clone = (request.options & abi::k__WCLONE) != 0;
  return (request.options & abi::k__WALL) != 0 || is_clone == wants_clone;
}

WaitResult describe(const Process &child, int code, int status) {
  WaitResult result;
  result.pid = child.pid;
  result.uid = child.credentials().uid;
  result.code = code;
  result.status = status;
  result.usage = child.total_usage();
  result.usage.add(child.children_usage);
  return result;
}

bool collect_zombie(Task &task, Process &child, const WaitRequest &request, WaitResult &result) {
  if (!child.zombie || (request.options & abi::kWEXITED) == 0) return false;
  const int status = child.exit_status;
  const int code = (status & 0x7f) == 0
                       ? abi::kCLD_EXITED
                       : ((status & 0x80) != 0 ? abi::kCLD_DUMPED : abi::kCLD_KILLED);
  result = describe(child, code, status);
  if ((request.options & abi::kWNOWAIT) != 0) return true;
  task.process->children_usage.add(result.usage);
  reap_process(child);
  return true;
}

bool collect_stop(Process &child, const WaitRequest &request, WaitResult &result) {
  if ((request.options & abi::kWSTOPPED) == 0 || !child.stopped || child.stop_reported) {
    return false;
  }
  result = describe(child, abi::kCLD_STOPPED, abi::stopped_status_word(child.stop_signal));
  if ((request.options & abi::kWNOWAIT) == 0) child.stop_reported = true;
  return true;
}

bool collect_continue(Process &child, const WaitRequest &request, WaitResult &result) {
  if ((request.options & abi::kWCONTINUED) == 0 || !child.continued_unreported) return false;
  result = describe(child, abi::kCLD_CONTINUED, abi::kContinuedStatusWord);
  if ((request.options & abi::kWNOWAIT) == 0) child.continued_unreported = false;
  return true;
}

// Child when there is none that could ever match.
Result<bool> collect(Task &task, const WaitRequest &request, WaitResult &result) {
  bool any = false;
  for (const Ref<Process> &entry : task.process->children) {
    if (!is_eligible(task, *entry, request)) continue;
    any = true;
    const Ref<Process> child = entry;  // reaping takes it out of the list
    if (collect_zombie(task, *child, request, result)) return true;
    if (child->zombie) continue;
    if (collect_stop(*child, request, result)) return true;
    if (collect_continue(*child, request, result)) return true;
  }
  if (!any) return Err(Errno::Child);
  return false;
}

}  // namespace

Result<WaitResult> wait_for_child(Task &task, const WaitRequest &request) {
  WaitResult result;
  Result<bool> found = collect(task, request, result);
  if (!found) return Err(found.error());
  if (*found || (request.options & abi::kWNOHANG) != 0) return result;
  TRY(wait_event(
      task.process->child_wait,
      [&] {
        found = collect(task, request, result);
        return !found || *found;
      },
      SleepMode::Interruptible, "do_wait"));
  if (!found) return Err(found.error());
  return result;
}

}  // namespace cowbird
