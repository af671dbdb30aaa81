// System calls that a kernel built without them does not have, answered as that kernel would.
#include "proc/task.hpp"
#include "syscall/syscall.hpp"

namespace cowbird {

#define REFUSE(name, error) \
  SysResult sys_##name(Task &, const SysArgs &) { return Err(Errno::error); }

REFUSE(ptrace, NoSys)
REFUSE(uselib, NoSys)
REFUSE(modify_ldt, NoSys)
REFUSE(acct, NoSys)
REFUSE(quotactl, NoSys)
REFUSE(init_module, NoSys)
REFUSE(finit_module, NoSys)
REFUSE(delete_module, NoSys)
REFUSE(kexec_load, NoSys)
REFUSE(kexec_file_load, NoSys)
REFUSE(iopl, NoSys)
REFUSE(ioperm, NoSys)
REFUSE(add_key, NoSys)
REFUSE(request_key, NoSys)
REFUSE(keyctl, NoSys)
REFUSE(perf_event_open, NoSys)
REFUSE(bpf, NoSys)
REFUSE(seccomp, NoSys)
REFUSE(userfaultfd, NoSys)
REFUSE(rseq, NoSys)
REFUSE(io_uring_setup, NoSys)
REFUSE(io_uring_enter, NoSys)
REFUSE(io_uring_register, NoSys)
REFUSE(landlock_create_ruleset, NoSys)
REFUSE(futex_waitv, NoSys)
REFUSE(name_to_handle_at, OpNotSupp)
REFUSE(open_by_handle_at, OpNotSupp)
#undef REFUSE

}  // namespace cowbird
