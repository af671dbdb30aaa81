// A preload library that lets User Mode Linux 6.1 run on processors with AMX.
//
// That kernel hands PTRACE_SETREGSET a floating-point state as large as processors had before AMX
// (8 KiB of tile registers more); the host refuses any size but its own with EFAULT, and the first
// guest program dies. Here the state is lengthened with zeros: its own header says that the tile
// registers are unused. One memcpy per call, so the figures stay what they are without it.
// tests/bench/run preloads it only where the processor has AMX.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long (*PtraceFunction)(int request, pid_t pid, void *address, void *data);

// UML is one host thread and calls this on small kernel stacks: hence static.
static char whole_state[65536];
static size_t whole_size;

static long lengthened(PtraceFunction next, pid_t pid, void *address, const struct iovec *state) {
  if (whole_size == 0) {
    struct iovec probe = {whole_state, sizeof whole_state};
    if (next(PTRACE_GETREGSET, pid, address, &probe) != 0) return -1;
    whole_size = probe.iov_len;
  }
  if (state->iov_len >= whole_size)
    return next(PTRACE_SETREGSET, pid, address, (void *)(unsigned long)state);
  memcpy(whole_state, state->iov_base, state->iov_len);
  memset(whole_state + state->iov_len, 0, whole_size - state->iov_len);
  struct iovec whole = {whole_state, whole_size};
  return next(PTRACE_SETREGSET, pid, address, &whole);
}

long ptrace(enum __ptrace_request request, ...) {
  static PtraceFunction next;
  if (next == NULL) next = (PtraceFunction)dlsym(RTLD_NEXT, "ptrace");
  va_list rest;
  va_start(rest, request);
  const pid_t pid = va_arg(rest, pid_t);
  void *address = va_arg(rest, void *);
  void *data = va_arg(rest, void *);
  va_end(rest);
  if (request == PTRACE_SETREGSET && (unsigned long)address == NT_X86_XSTATE)
    return lengthened(next, pid, address, data);
  return next(request, pid, address, data);
}
