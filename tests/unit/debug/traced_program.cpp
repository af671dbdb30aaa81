// A program for the debugger's tests to trace: host threads that count, sleep and start others, and
// kernel threads in miniature ("fibers") that run on two host threads called vcpu0 and vcpu1 and
// are switched as the kernel switches its own.
#include "unit/debug/traced_program.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "boot/debug_journal.hpp"
#include "sched/context.hpp"

namespace {

traced::Info info;
volatile long watched = 0;
volatile long count = 0;
char **arguments;
long *volatile nowhere = nullptr;
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// The debugger's tests write these words.
bool asked(std::uint32_t &word) { return *static_cast<volatile std::uint32_t *>(&word) != 0; }

std::atomic<int> named{0};
void name_thread(const char *name) {
  pthread_setname_np(pthread_self(), name);
  ++named;
}

}  // namespace

extern "C" {

// One call for each round of the thread "counter"; `round` counts.
__attribute__((noinline)) long counted(long round) {
  count = round;
  if (round % 4 == 0) watched = round;
  return round * 3 + 1;
}

__attribute__((noinline)) long fiber_work(long fiber, long round) {
  asm volatile("");
  return fiber * 1000 + round;
}

__attribute__((noinline)) void sleeper_woken(long round) { asm volatile("" : : "r"(round)); }

__attribute__((noinline)) void cowbird_panic_stop(const char *message) {
  asm volatile("" : : "r"(message));
}

int volatile cowbird_debug_hold = 0;

__attribute__((noinline)) long addition(long a, long b) { return a + b; }

// Runs in a child that still has our memory.
__attribute__((noinline)) void spawned() { asm volatile(""); }

__attribute__((noinline)) void cause_fault(long *where) { *where = 1; }

// Code that the tests run beside its breakpoint; each kind once.
long rip_relative_test(long);
long calls_test(long);
long repeated_test(void *to, long bytes);
long blocked_call_test(int fd);
extern const char test_code_end;
asm(R"(
        .data
        .p2align 3
relative_word: .quad 40
target_word:   .quad calls_target
        .text
        .globl rip_relative_test
rip_relative_test:
        addq    relative_word(%rip), %rdi
        movq    %rdi, %rax
        vmovdqu relative_word(%rip), %xmm8
        vmovq   %xmm8, %rcx
        addq    %rcx, %rax
        movq    relative_word(%rip), %r9
        addq    %r9, %rax
        ret
calls_target:
        leaq    5(%rdi), %rax
        ret
        .globl calls_test
calls_test:
        call    calls_target
        movq    %rax, %rdi
        call    *target_word(%rip)
        movq    %rax, %rdi
        leaq    calls_target(%rip), %rdx
        call    *%rdx
        testq   %rax, %rax
        je      1f
        jmp     2f
1:      xorl    %eax, %eax
2:      ret
        .globl repeated_test
repeated_test:
        movq    %rsi, %rcx
        movb    $7, %al
        rep stosb
        movq    %rcx, %rax
        ret
        .globl blocked_call_test
blocked_call_test:
        movl    $24, %eax
        syscall
        movl    $24, %eax
        ret
        .globl test_code_end
test_code_end:
)");
}

namespace {

void count_for_ever() {
  name_thread("counter");
  static char bytes[4096];
  for (long round = 0;; ++round) {
    counted(round);
    if (rip_relative_test(2) != 122) std::_Exit(90);
    if (calls_test(1) != 16) std::_Exit(91);
    std::memset(bytes, 0, sizeof bytes);
    if (repeated_test(bytes, sizeof bytes) != 0 || bytes[0] != 7 || bytes[4095] != 7)
      std::_Exit(92);
    if (blocked_call_test(0) != 24) std::_Exit(93);
    if (asked(info.fault)) {
      info.fault = 0;
      cause_fault(nowhere);
    }
    if (asked(info.panic)) {
      info.panic = 0;
      cowbird_panic_stop("the roof is on fire");
    }
    if (round > 1000) usleep(200);
  }
}

void sleep_for_ever() {
  name_thread("sleeper");
  for (;;) {
    if (read(0, nullptr, 0) < 0 || pause() < 0) continue;
  }
}

// --- fibers

using cowbird::SavedContext;

SavedContext *context(std::uint64_t &rsp) { return reinterpret_cast<SavedContext *>(&rsp); }

void give_up(unsigned self, traced::State state) {
  traced::FiberInfo &me = info.fibers[self];
  me.state = state;
  cowbird_switch_context(context(me.saved_rsp), context(info.vcpus[me.vcpu].idle_rsp));
}

void fiber_main(unsigned self) {
  for (;;) {
    const auto round = static_cast<long>(++info.fibers[self].rounds);
    fiber_work(static_cast<long>(self), round);
    if (self == 3) {
      give_up(self, traced::kSleeping);
      sleeper_woken(round);
    } else {
      give_up(self, traced::kReady);
    }
  }
}

int take_fiber(unsigned vcpu) {
  static unsigned next = 0;
  pthread_mutex_lock(&lock);
  if (asked(info.wake_sleeper) && info.fibers[3].state == traced::kSleeping &&
      info.fibers[3].vcpu < 0) {
    info.wake_sleeper = 0;
    info.fibers[3].state = traced::kReady;
  }
  int taken = -1;
  for (unsigned i = 0; i < traced::kFibers && taken < 0; ++i) {
    const unsigned one = (next + i) % traced::kFibers;
    if (info.fibers[one].state != traced::kReady || info.fibers[one].vcpu >= 0) continue;
    taken = static_cast<int>(one);
    next = one + 1;
    info.fibers[one].state = traced::kRunning;
    info.fibers[one].vcpu = static_cast<int>(vcpu);
    info.vcpus[vcpu].current = one + 1;
  }
  pthread_mutex_unlock(&lock);
  return taken;
}

void vcpu_main(unsigned vcpu) {
  name_thread(vcpu == 0 ? "vcpu0" : "vcpu1");
  for (;;) {
    const int fiber = take_fiber(vcpu);
    if (fiber < 0) {
      usleep(500);
      continue;
    }
    traced::FiberInfo &it = info.fibers[fiber];
    cowbird_switch_context(context(info.vcpus[vcpu].idle_rsp), context(it.saved_rsp));
    pthread_mutex_lock(&lock);
    info.vcpus[vcpu].current = 0;
    it.vcpu = -1;
    pthread_mutex_unlock(&lock);
    usleep(50);
  }
}

void make_fiber(unsigned index) {
  constexpr std::size_t kStack = 64 * 1024;
  auto *stack = static_cast<char *>(
      mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  traced::FiberInfo &it = info.fibers[index];
  it.stack_low = reinterpret_cast<std::uint64_t>(stack);
  it.stack_high = it.stack_low + kStack;
  auto *frame =
      reinterpret_cast<cowbird::SavedFrame *>(it.stack_high - 8 - sizeof(cowbird::SavedFrame));
  std::memset(frame, 0, sizeof *frame);
  asm("stmxcsr %0" : "=m"(frame->mxcsr));
  asm("fnstcw %0" : "=m"(frame->x87_control));
  frame->rbx = index;
  frame->rip = reinterpret_cast<std::uint64_t>(&cowbird::cowbird_thread_entry);
  it.saved_rsp = reinterpret_cast<std::uint64_t>(frame);
  it.state = traced::kReady;
  it.vcpu = -1;
}

template <typename T>
std::uint64_t address(T *of) {
  return reinterpret_cast<std::uint64_t>(of);
}

// As the kernel's: a debugger that has gone has left an int3.
void on_trap(int, siginfo_t *trap, void *context) {
  if (!cowbird::boot::outlive_debugger(*trap, *static_cast<ucontext_t *>(context))) std::_Exit(94);
}

}  // namespace

extern "C" void cowbird_thread_main(cowbird::Thread *raw) {
  fiber_main(static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(raw)));
  std::abort();
}

int main(int, char **argv) {
  arguments = argv;
  struct sigaction action {};
  action.sa_sigaction = on_trap;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGTRAP, &action, nullptr);
  for (unsigned i = 0; i < traced::kFibers; ++i) make_fiber(i);
  info.switched_address = address(&cowbird::cowbird_switched_address);
  info.counted = address(&counted);
  info.fiber_work = address(&fiber_work);
  info.sleeper_woken = address(&sleeper_woken);
  info.panic_stop = address(&cowbird_panic_stop);
  info.hold = address(&cowbird_debug_hold);
  info.room = address(cowbird_debug_room);
  info.journal = address(&cowbird_debug_journal);
  info.addition = address(&addition);
  info.rip_relative = address(&rip_relative_test);
  info.calls = address(&calls_test);
  info.repeated = address(&repeated_test);
  info.blocked_call = address(&blocked_call_test);
  info.code_end = address(&test_code_end);
  info.spawned = address(&spawned);
  info.watched = address(&watched);
  info.count = address(&count);
  info.cause_fault = address(&cause_fault);
  std::thread(count_for_ever).detach();
  std::thread(sleep_for_ever).detach();
  for (unsigned i = 0; i < traced::kVcpus; ++i) std::thread(vcpu_main, i).detach();
  while (named < 4) usleep(100);
  std::printf("%lx\n", address(&info));
  std::fflush(stdout);
  while (!asked(info.end)) {
    usleep(1000);
    if (asked(info.make_thread)) {
      info.make_thread = 0;
      std::thread([] {
        name_thread("late");
        counted(-1);
        counted(-2);
      }).detach();
    }
    if (asked(info.spawn)) {
      const pid_t child = vfork();
      if (child == 0) {
        spawned();
        usleep(20000);  // so that a pause can meet it
        execl("/bin/true", "true", nullptr);
        _exit(1);
      }
      int status = 0;
      waitpid(child, &status, 0);
      info.spawn_status = status == 0 ? 1 : 2;
      info.spawn = 0;
    }
    if (asked(info.run_again)) execv("/proc/self/exe", arguments);
    if (asked(info.load_plugin)) {
      info.load_plugin = 0;
      if (!dlopen("libzydis.so.4", RTLD_NOW) && !dlopen("libz.so.1", RTLD_NOW)) std::_Exit(94);
    }
  }
  return addition(3, 4) == 7 ? 5 : 6;
}
