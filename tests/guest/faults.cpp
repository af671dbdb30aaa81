// Hardware exceptions as signals: siginfo and ucontext of SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP;
// registers and floating-point state over handlers and context switches.
#include <cpuid.h>
#include <immintrin.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/time.h>
#include <ucontext.h>

#include "tap.hpp"

namespace {

sigjmp_buf back;
siginfo_t info;
greg_t registers[23];
volatile sig_atomic_t seen;

void remember_and_jump(int, siginfo_t *what, void *context) {
  info = *what;
  memcpy(registers, static_cast<ucontext_t *>(context)->uc_mcontext.gregs, sizeof registers);
  siglongjmp(back, 1);
}

void install(int number, void (*handler)(int, siginfo_t *, void *), int flags = 0) {
  struct sigaction action = {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | flags;
  SYS(sigaction(number, &action, nullptr));
}

// True when `body` raised the signal; `info` and `registers` then tell about it.
template <typename Body>
bool faults(int number, Body body) {
  install(number, remember_and_jump);
  info = {};
  if (sigsetjmp(back, 1) != 0) return info.si_signo == number;
  body();
  return false;
}

char *page(int protection) {
  return MAP(mmap(nullptr, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

TEST(write_to_nothing_is_maperr) {
  REQUIRE(faults(SIGSEGV, [] { *reinterpret_cast<volatile int *>(0x1230) = 1; }));
  CHECK_EQ(info.si_code, SEGV_MAPERR);
  CHECK_EQ(reinterpret_cast<long>(info.si_addr), 0x1230);
  CHECK_EQ(registers[REG_TRAPNO], 14);
  CHECK_EQ(registers[REG_ERR] & 7, 6);  // a write by user code to what is not there
  CHECK_EQ(registers[REG_CR2], 0x1230);
}

TEST(write_to_read_only_is_accerr) {
  char *memory = page(PROT_READ);
  REQUIRE(faults(SIGSEGV, [=] { *static_cast<volatile char *>(memory + 7) = 1; }));
  CHECK_EQ(info.si_code, SEGV_ACCERR);
  CHECK(info.si_addr == memory + 7);
}

TEST(read_of_prot_none_is_accerr) {
  char *memory = page(PROT_NONE);
  REQUIRE(faults(SIGSEGV, [=] { (void)*static_cast<volatile char *>(memory); }));
  CHECK_EQ(info.si_code, SEGV_ACCERR);
}

TEST(execution_of_data_is_refused) {
  char *memory = page(PROT_READ | PROT_WRITE);
  memory[0] = '\xc3';
  REQUIRE(faults(SIGSEGV, [=] { reinterpret_cast<void (*)()>(memory)(); }));
  CHECK(info.si_addr == memory);
  CHECK_EQ(info.si_code, SEGV_ACCERR);
  CHECK_EQ(registers[REG_RIP], reinterpret_cast<long>(memory));
}

TEST(non_canonical_address_is_a_general_protection_fault) {
  REQUIRE(faults(SIGSEGV, [] { *reinterpret_cast<volatile int *>(0x8000'0000'0000'0000ul) = 1; }));
  CHECK_EQ(info.si_code, SI_KERNEL);
  CHECK(info.si_addr == nullptr);
  CHECK_EQ(registers[REG_TRAPNO], 13);
}

TEST(kernel_addresses_are_refused) {
  for (uint64_t address : {0xffff'8000'0000'0000ul, 0xffff'ffff'ff60'1000ul, 0x7fff'ffff'f000ul})
    CHECK(faults(SIGSEGV, [=] { (void)*reinterpret_cast<volatile int *>(address); }));
}

TEST(privileged_instructions_are_refused) {
  CHECK(faults(SIGSEGV, [] { asm volatile("hlt"); }));
  CHECK(faults(SIGSEGV, [] { asm volatile("cli"); }));
  CHECK(faults(SIGSEGV, [] { asm volatile("inb $0x80, %%al" ::: "rax"); }));
  CHECK(faults(SIGSEGV, [] { asm volatile("rdmsr" : : "c"(0x10) : "rax", "rdx"); }));
}

TEST(division_by_zero_is_sigfpe) {
  volatile int zero = 0;
  REQUIRE(faults(SIGFPE, [&] {
    int result = 1;
    asm volatile("cltd; idivl %1" : "+a"(result) : "r"(static_cast<int>(zero)) : "rdx");
  }));
  CHECK_EQ(info.si_code, FPE_INTDIV);
  CHECK_EQ(reinterpret_cast<long>(info.si_addr), registers[REG_RIP]);
}

TEST(floating_point_exception_is_sigfpe) {
  REQUIRE(faults(SIGFPE, [] {
    _mm_setcsr(_mm_getcsr() & ~_MM_MASK_DIV_ZERO);
    volatile double zero = 0, one = 1;
    one = one / zero;
  }));
  CHECK_EQ(info.si_code, FPE_FLTDIV);
}

TEST(invalid_instruction_is_sigill) {
  REQUIRE(faults(SIGILL, [] { asm volatile("ud2"); }));
  CHECK_EQ(info.si_code, ILL_ILLOPN);
  CHECK_EQ(reinterpret_cast<long>(info.si_addr), registers[REG_RIP]);
}

TEST(breakpoint_is_sigtrap) {
  REQUIRE(faults(SIGTRAP, [] { asm volatile("int3"); }));
  CHECK_EQ(info.si_code, SI_KERNEL);
  CHECK_EQ(registers[REG_TRAPNO], 3);
}

TEST(single_step_is_sigtrap) {
  install(SIGTRAP, [](int, siginfo_t *what, void *context) {
    info = *what;
    seen = seen + 1;
    if (seen >= 3) static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_EFL] &= ~0x100l;
  });
  asm volatile("pushfq; orq $0x100, (%%rsp); popfq; nop; nop; nop; nop; nop" ::: "memory", "cc");
  CHECK(seen >= 3);
  CHECK_EQ(info.si_code, TRAP_TRACE);
}

TEST(mapping_past_the_file_is_sigbus) {
  const int fd = make_file("file", "x");
  char *memory = MAP(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  CHECK_EQ(memory[0], 'x');
  CHECK_EQ(memory[4095], 0);
  REQUIRE(faults(SIGBUS, [=] { *static_cast<volatile char *>(memory + 4096) = 1; }));
  CHECK_EQ(info.si_code, BUS_ADRERR);
  CHECK(info.si_addr == memory + 4096);
  SYS(ftruncate(fd, 0));
  CHECK(faults(SIGBUS, [=] { (void)*static_cast<volatile char *>(memory); }));
}

TEST(handler_may_repair_and_return) {
  static char *memory;
  memory = page(PROT_NONE);
  install(SIGSEGV, [](int, siginfo_t *, void *) {
    seen = seen + 1;
    mprotect(memory, 4096, PROT_READ | PROT_WRITE);
  });
  *static_cast<volatile char *>(memory + 5) = 42;
  CHECK_EQ(seen, 1);
  CHECK_EQ(memory[5], 42);
}

TEST(handler_may_change_registers) {
  install(SIGILL, [](int, siginfo_t *, void *context) {
    auto &general = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
    general[REG_RIP] += 2;  // over the ud2
    general[REG_RAX] = 0x1122334455667788;
    general[REG_R15] += 1;
  });
  long result = 0;
  register long r15 asm("r15") = 99;
  asm volatile("ud2" : "=a"(result), "+r"(r15) : : "memory");
  CHECK_EQ(result, 0x1122334455667788);
  CHECK_EQ(r15, 100);
}

TEST(fault_in_its_own_handler_kills) {
  CHECK_EQ(death_of([] {
             install(SIGSEGV,
                     [](int, siginfo_t *, void *) { *reinterpret_cast<volatile int *>(8) = 1; });
             *reinterpret_cast<volatile int *>(16) = 1;
           }),
           SIGSEGV);
}

TEST(blocked_fault_kills) {
  CHECK_EQ(death_of([] {
             install(SIGSEGV, [](int, siginfo_t *, void *) { _exit(1); });
             sigset_t set;
             sigemptyset(&set);
             sigaddset(&set, SIGSEGV);
             sigprocmask(SIG_BLOCK, &set, nullptr);
             *reinterpret_cast<volatile int *>(16) = 1;
           }),
           SIGSEGV);
  CHECK_EQ(death_of([] {
             on_signal(SIGSEGV, SIG_IGN);  // cannot be ignored when the hardware says it
             *reinterpret_cast<volatile int *>(16) = 1;
           }),
           SIGSEGV);
}

TEST(bad_stack_pointer_kills) {
  CHECK_EQ(death_of([] {
             install(SIGUSR1, [](int, siginfo_t *, void *) { _exit(1); });
             const long self = getpid();
             asm volatile("mov $64, %%rsp\n\tsyscall\n\t1: jmp 1b"
                          :
                          : "a"(62l), "D"(self), "S"(10l)
                          : "memory");
           }),
           SIGSEGV);
}

TEST(all_registers_survive_a_signal) {
  on_signal(SIGUSR1, [](int) {
    seen = seen + 1;
    asm volatile(
        "mov $-1, %%rbx; mov %%rbx, %%r8; mov %%rbx, %%r9; mov %%rbx, %%r10; mov %%rbx, %%r12;"
        "mov %%rbx, %%r13; mov %%rbx, %%r14; mov %%rbx, %%r15; pxor %%xmm0, %%xmm0;"
        "pcmpeqd %%xmm15, %%xmm15; std; cld" ::
            : "rbx", "r8", "r9", "r10", "r12", "r13", "r14", "r15", "xmm0", "xmm15");
  });
  long kept[8] = {};
  uint64_t xmm0 = 0, xmm15 = 0;
  asm volatile(
      "mov $1, %%rbx; mov $8, %%r8; mov $9, %%r9; mov $10, %%r10; mov $12, %%r12; mov $13, %%r13;"
      "mov $14, %%r14; mov $15, %%r15; movq %%r8, %%xmm0; movq %%r9, %%xmm15;"
      "syscall;"  // kill(self, SIGUSR1)
      "mov %%rbx, (%[kept]); mov %%r8, 8(%[kept]); mov %%r9, 16(%[kept]); mov %%r10, 24(%[kept]);"
      "mov %%r12, 32(%[kept]); mov %%r13, 40(%[kept]); mov %%r14, 48(%[kept]); mov %%r15, "
      "56(%[kept]);"
      "movq %%xmm0, %[xmm0]; movq %%xmm15, %[xmm15]"
      : [xmm0] "=m"(xmm0), [xmm15] "=m"(xmm15)
      : "a"(62l), "D"(static_cast<long>(getpid())),
        "S"(static_cast<long>(SIGUSR1)), [kept] "d"(kept)
      : "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm15",
        "memory");
  CHECK_EQ(seen, 1);
  const long wanted[8] = {1, 8, 9, 10, 12, 13, 14, 15};
  for (int i = 0; i < 8; i++) CHECK_EQ(kept[i], wanted[i]);
  CHECK_EQ(xmm0, 8);
  CHECK_EQ(xmm15, 9);
}

TEST(system_calls_keep_all_but_three_registers) {
  long kept[8] = {};
  asm volatile(
      "mov $1, %%rbx; mov $8, %%r8; mov $9, %%r9; mov $10, %%r10; mov $12, %%r12; mov $13, %%r13;"
      "syscall;"
      "mov %%rbx, (%[kept]); mov %%r8, 8(%[kept]); mov %%r9, 16(%[kept]); mov %%r10, 24(%[kept]);"
      "mov %%r12, 32(%[kept]); mov %%r13, 40(%[kept]); mov %%rdi, 48(%[kept]); mov %%rsi, "
      "56(%[kept])"
      :
      : "a"(39l), "D"(77l), "S"(88l), [kept] "d"(kept)
      : "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "memory");
  const long wanted[8] = {1, 8, 9, 10, 12, 13, 77, 88};
  for (int i = 0; i < 8; i++) CHECK_EQ(kept[i], wanted[i]);
}

bool has_avx() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_AVX) && (c & bit_OSXSAVE);
}

[[gnu::target("avx")]] bool avx_survives(void (*disturb)()) {
  alignas(32) uint64_t in[4] = {11, 22, 33, 44}, out[4] = {};
  asm volatile("vmovdqa %0, %%ymm7" : : "m"(in) : "xmm7");
  disturb();
  asm volatile("vmovdqa %%ymm7, %0" : "=m"(out) : : "memory");
  return memcmp(in, out, sizeof in) == 0;
}

[[gnu::target("avx")]] void spoil_avx(int) {
  seen = seen + 1;
  asm volatile("vzeroall" ::: "memory");
}

TEST(avx_state_survives_a_handler) {
  if (!has_avx()) SKIP("the processor has no AVX");
  on_signal(SIGUSR1, spoil_avx);
  CHECK(avx_survives([] { syscall(SYS_kill, getpid(), SIGUSR1); }));
  CHECK_EQ(seen, 1);
}

TEST(avx_state_survives_other_processes) {
  if (!has_avx()) SKIP("the processor has no AVX");
  const pid_t other = start_child([] {
    for (;;) {
      spoil_avx(0);
      sched_yield();
    }
  });
  for (int i = 0; i < 300; i++) REQUIRE(avx_survives([] { sched_yield(); }));
  kill(other, SIGKILL);
  wait_for(other);
}

TEST(preemption_keeps_floating_point) {
  on_signal(SIGALRM, spoil_avx);
  if (!has_avx()) on_signal(SIGALRM, [](int) { seen = seen + 1; });
  const itimerval often{{0, 1000}, {0, 1000}};
  SYS(setitimer(ITIMER_REAL, &often, nullptr));
  const uint64_t start = now_ns();
  while (seen < 50 && now_ns() - start < 10'000'000'000ul) {
    double sum = 0;
    for (int i = 1; i <= 100'000; i++) sum += 1.0 / i;
    REQUIRE(sum > 12.0901461 && sum < 12.0901462);
  }
  CHECK(seen >= 50);
}

TEST(floating_point_control_is_inherited_and_separate) {
  const unsigned before = _mm_getcsr();
  _mm_setcsr((before & ~_MM_ROUND_MASK) | _MM_ROUND_UP);
  IN_CHILD([] {
    CHECK_EQ(_mm_getcsr() & _MM_ROUND_MASK, _MM_ROUND_UP);
    _mm_setcsr((_mm_getcsr() & ~_MM_ROUND_MASK) | _MM_ROUND_DOWN);
  });
  CHECK_EQ(_mm_getcsr() & _MM_ROUND_MASK, _MM_ROUND_UP);
  _mm_setcsr(before);
}

TEST(old_vsyscall_page_is_harmless) {
  // Either not there (a fault), or emulated: never a way out.
  const int status = run_child([] {
    auto *old_time = reinterpret_cast<long (*)(long *)>(0xffffffffff600400ul);
    const long now = old_time(nullptr);
    _exit(labs(now - time(nullptr)) <= 2 ? 0 : 1);
  });
  CHECK(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
}

}  // namespace

TAP_MAIN()
