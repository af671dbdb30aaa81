// vfs/caller.hpp over the current task.
#include "vfs/caller.hpp"

#include "proc/task.hpp"

namespace cowbird::caller {

namespace {
Task *calling_task() {
  Thread *thread = current_thread();
  return thread ? thread->as_task() : nullptr;
}
}  // namespace

std::uint64_t file_size_limit() {
  const Task *task = calling_task();
  return task ? task->process->limit(Limit::FileSize) : ~0ull;
}

void raise_signal(int signal) {
  Task *task = calling_task();
  if (!task) return;
  SignalInfo info;
  info.signal = signal;
  info.pid = task->process->pid;
  info.uid = task->credentials.uid;
  // A queue that is full still marks a standard signal as pending.
  (void)send_signal(*task, info);
}

int process_id() {
  const Task *task = calling_task();
  return task ? task->process->pid : 0;
}

const Credentials &credentials() {
  const Task *task = calling_task();
  return task ? task->credentials : Credentials::kernel();
}

void send_io_signal(int owner, int signal, int fd, std::uint32_t poll_events) {
  constexpr int kPollIn = 1;  // si_code POLL_IN
  constexpr int kPollOut = 2;
  SignalInfo info;
  info.signal = signal == 0 ? static_cast<int>(kSigIo) : signal;
  info.code = signal == 0 ? 0x80 : ((poll_events & 1) ? kPollIn : kPollOut);
  info.band = poll_events;
  info.fd = fd;
  if (owner < 0) {
    send_group_signal(-owner, info);
  } else if (Ref<Process> process = find_process(owner)) {
    (void)send_signal(*process, info);
  }
}

}  // namespace cowbird::caller
