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

void send_io_signal(const IoSignal &request) {
  constexpr int kPollIn = 1;  // si_code POLL_IN
  constexpr int kPollOut = 2;
  SignalInfo info;
  info.signal = request.signal == 0 ? static_cast<int>(kSigIo) : request.signal;
  info.code = request.signal == 0 ? 0x80 : ((request.poll_events & 1) ? kPollIn : kPollOut);
  info.band = request.poll_events;
  info.fd = request.fd;
  if (request.urgent) {
    info = SignalInfo{};
    info.signal = kSigUrg;
    info.code = 0x80;  // SI_KERNEL
  }
  const auto send = [&](Process &process) {
    const Credentials &other = process.credentials();
    const bool allowed = request.euid == 0 || request.euid == other.suid ||
                         request.euid == other.uid || request.uid == other.suid ||
                         request.uid == other.uid;
    if (allowed) (void)send_signal(process, info);
  };
  if (request.owner < 0) {
    for_each_in_group(-request.owner, send);
  } else if (Ref<Process> process = find_process(request.owner)) {
    send(*process);
  }
}

}  // namespace cowbird::caller
