// Isolation: programs that try to break out or to break others. Whatever they do, only they end;
// their parent, its memory and a bystander process are as they were.
//
// Everything runs as a user who owns nothing else, so that it is harmless on the host, too: there
// kill(-1) reaches only the attacker. That needs root to begin with.
#include <grp.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <ucontext.h>

#include <vector>

#include "tap.hpp"

namespace {

constexpr uid_t kNobody = 61234;

// Who must not notice anything: this process's memory and a second process.
class Witness {
 public:
  Witness() {
    memory_ =
        MAP(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (size_t i = 0; i < kBytes; i++) memory_[i] = static_cast<char>(i * 31 + i / 4096);
    SYS(pipe(ask_));
    SYS(pipe(answer_));
    bystander_ = start_child([&] {
      char byte;
      while (read(ask_[0], &byte, 1) == 1) {
        const char good = intact();
        if (write(answer_[1], &good, 1) != 1) _exit(1);
      }
    });
  }
  ~Witness() {
    kill(bystander_, SIGKILL);
    wait_for(bystander_);
  }
  Witness(const Witness &) = delete;
  Witness &operator=(const Witness &) = delete;

  bool unharmed() {
    char good = 0;
    if (write(ask_[1], "?", 1) != 1 || read(answer_[0], &good, 1) != 1) return false;
    return good == 1 && intact();
  }

 private:
  static constexpr size_t kBytes = 1 << 20;
  bool intact() const {
    for (size_t i = 0; i < kBytes; i++)
      if (memory_[i] != static_cast<char>(i * 31 + i / 4096)) return false;
    return true;
  }
  char *memory_;
  int ask_[2], answer_[2];
  pid_t bystander_;
};

// Becomes a user without rights or belongings, in a session of its own and with small limits.
void become_nobody() {
  setsid();
  SYS(setgroups(0, nullptr));
  SYS(setresgid(kNobody, kNobody, kNobody));
  SYS(setresuid(kNobody, kNobody, kNobody));
  const rlimit files{1 << 20, 1 << 20}, memory{1ul << 32, 1ul << 32}, processes{200, 200};
  setrlimit(RLIMIT_FSIZE, &files);
  setrlimit(RLIMIT_AS, &memory);
  setrlimit(RLIMIT_NPROC, &processes);
  const int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; fd++) dup2(null, fd);
  for (int fd = 3; fd < 64; fd++) close(fd);
}

// Runs an attack and kills what is left of it after some seconds: how it ends does not matter.
template <typename Attack>
int attack(Attack body, uint64_t seconds = 4) {
  const pid_t child = start_child([&] {
    become_nobody();
    body();
    _exit(0);
  });
  int status = 0;
  const uint64_t until = now_ns() + seconds * 1'000'000'000;
  for (int tries = 0; waitpid(child, &status, WNOHANG) != child; tries++) {
    if (tries < 20)
      sched_yield();
    else
      sleep_ms(1);
    if (now_ns() < until) continue;
    kill(-child, SIGKILL);
    kill(child, SIGKILL);
    status = wait_for(child);
    break;
  }
  kill(-child, SIGKILL);  // what it left behind in its session's first group
  return status;
}

void need_attacker() {
  if (!is_root()) SKIP("needs root, to become a user who owns nothing");
  SYS(chmod(".", 0777));
}

long raw(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

constexpr long kBadPointer = 16;
const long kKernelPointer = static_cast<long>(0xffff888000000000ul);
const long kTopPointer = 0x7fffffffe000;

// One number with all sorts of arguments. A timer interrupts what would wait.
void try_call(long number) {
  on_signal(SIGALRM, [](int) {});
  const itimerval often{{0, 5000}, {0, 5000}};
  setitimer(ITIMER_REAL, &often, nullptr);
  static char buffer[8192];
  const long valid = reinterpret_cast<long>(buffer);
  const long sets[][6] = {
      {0, 0, 0, 0, 0, 0},
      {-1, -1, -1, -1, -1, -1},
      {valid, valid, valid, valid, valid, valid},
      {kBadPointer, kBadPointer, kBadPointer, kBadPointer, kBadPointer, kBadPointer},
      {kKernelPointer, kKernelPointer, kKernelPointer, kKernelPointer, kKernelPointer,
       kKernelPointer},
      {kTopPointer, 4096, 4096, kTopPointer, 4096, 4096},
      {1, valid, 0x7fffffffffffffff, 1, 1, 1},
      {1, valid, -4096, valid, -1, 0x7fffffff},
      {valid, 0x7ffffffff000, 7, 0x32, -1, 0},
      {0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff},
  };
  for (const auto &set : sets) {
    strcpy(buffer, "name");
    raw(number, set[0], set[1], set[2], set[3], set[4], set[5]);
  }
}

TEST_LIMIT(every_call_number_with_hostile_arguments, 170) {
  need_attacker();
  Witness witness;
  for (long number = 0; number <= 600; number++) {
    attack([=] { try_call(number); });
    if (number % 50 == 0) REQUIRE(witness.unharmed());
  }
  CHECK(witness.unharmed());
}

TEST_LIMIT(other_ways_to_call_with_hostile_numbers, 120) {
  need_attacker();
  Witness witness;
  for (const long base :
       {0x40000000l, -0x80000000l, 0x100000000l, static_cast<long>(0x8000000000000000ul)})
    for (const long number : {0l, 1l, 9l, 39l, 57l, 59l, 60l, 62l, 101l, 231l, 512l, 520l, 547l})
      attack([=] { try_call(base + number); });
  CHECK(witness.unharmed());
}

// Calls getpid by the given instruction; 0 when the process died or the call was refused.
template <typename Call>
long process_id_by(Call call) {
  struct Answer {
    volatile long id, right;
  };
  auto *answer = share<Answer>();
  attack([&] {
    answer->right = getpid();
    answer->id = call();
  });
  // An answer is right, or an error; never the number of another process.
  CHECK(answer->id <= 0 || answer->id == answer->right);
  return answer->id;
}

TEST(int80_and_x32_reach_only_this_kernel) {
  need_attacker();
  process_id_by([] {
    long result;
    asm volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
    return static_cast<long>(static_cast<int>(result));
  });
  process_id_by([] { return raw(0x40000000 + SYS_getpid, 0, 0, 0, 0, 0, 0); });
  process_id_by([] {
    long result;
    asm volatile("sysenter" : "=a"(result) : "a"(20) : "rcx", "rdx", "memory");
    return result;
  });
}

// Addresses that can be read, in steps, found by trying.
sigjmp_buf after_fault;

bool readable(uintptr_t address) {
  if (sigsetjmp(after_fault, 1) != 0) return false;
  (void)*reinterpret_cast<volatile char *>(address);
  return true;
}

std::vector<uintptr_t> readable_pages(uintptr_t from, uintptr_t to, uintptr_t step) {
  const auto jump_back = [](int) { siglongjmp(after_fault, 1); };
  on_signal(SIGSEGV, jump_back);
  on_signal(SIGBUS, jump_back);
  std::vector<uintptr_t> pages;
  for (uintptr_t at = from; at < to; at += step)
    if (readable(at)) pages.push_back(at);
  return pages;
}

// The top of the address space is where a user-mode kernel would keep its helper code.
std::vector<uintptr_t> pages_at_the_top() {
  std::vector<uintptr_t> pages = readable_pages(0x7fff00000000, 0x7fffff000000, 1 << 16);
  for (const uintptr_t at : readable_pages(0x7fffff000000, 0x7ffffffff000, 4096))
    pages.push_back(at);
  return pages;
}

TEST_LIMIT(jumps_into_what_is_at_the_top, 120) {
  need_attacker();
  Witness witness;
  auto *found = share<volatile long>();
  attack(
      [&] {
        for (const uintptr_t page : pages_at_the_top()) {
          *found = *found + 1;
          // Every system call instruction in it, with the number of a call that shows where it
          // arrived.
          for (uintptr_t at = page; at + 1 < page + 4096; at++) {
            if (*reinterpret_cast<unsigned char *>(at) != 0x0f ||
                *reinterpret_cast<unsigned char *>(at + 1) != 0x05)
              continue;
            for (const long number : {39l, 57l, 62l, 59l, 1l, 9l, 10l, 11l, 231l, 101l, 435l}) {
              const pid_t jumper = fork();
              if (jumper == 0) {
                alarm(1);
                asm volatile("jmp *%0"
                             :
                             : "r"(at), "a"(number), "D"(-1l), "S"(9l), "d"(0l)
                             : "memory");
                _exit(0);
              }
              if (jumper > 0) waitpid(jumper, nullptr, 0);
            }
          }
        }
      },
      60);
  note("%ld readable pages at the top of the address space", *found);
  CHECK(witness.unharmed());
}

TEST_LIMIT(writes_to_what_is_at_the_top, 60) {
  need_attacker();
  Witness witness;
  for (const int how : {0, 1, 2, 3})
    attack(
        [=] {
          const auto top = reinterpret_cast<void *>(0x7fff00000000);
          const size_t size = 0xfffff000;
          if (how == 1) mprotect(top, size, PROT_READ | PROT_WRITE | PROT_EXEC);
          if (how == 2) munmap(top, size);
          if (how == 3)
            mmap(top, size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
          for (const uintptr_t page : pages_at_the_top()) {
            if (sigsetjmp(after_fault, 1) != 0) continue;
            memset(reinterpret_cast<void *>(page), 0xff, 4096);
          }
          for (int i = 0; i < 10; i++) getppid();
        },
        10);
  CHECK(witness.unharmed());
}

TEST_LIMIT(unmapping_everything_ends_only_the_attacker, 60) {
  need_attacker();
  Witness witness;
  int status = attack([] { munmap(nullptr, 0x7ffffffff000); });
  CHECK(WIFSIGNALED(status));
  status = attack([] { mprotect(nullptr, 0x7ffffffff000, PROT_NONE); });
  for (uintptr_t piece = 0; piece < 0x800000000000; piece += 0x100000000000)
    attack([=] { munmap(reinterpret_cast<void *>(piece), 0x100000000000 - 4096); });
  CHECK(witness.unharmed());
}

TEST_LIMIT(overwriting_everything_ends_only_the_attacker, 60) {
  need_attacker();
  Witness witness;
  for (const int value : {0, 0xff, 0x90})
    attack([=] {
      struct Range {
        unsigned long from, to;
      };
      static Range ranges[256];
      int count = 0;
      FILE *maps = fopen("/proc/self/maps", "re");
      char line[512], permissions[8];
      while (maps && count < 256 && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %7s", &ranges[count].from, &ranges[count].to, permissions) == 3)
          count++;
      for (int i = 0; i < count; i++) {
        void *start = reinterpret_cast<void *>(ranges[i].from);
        if (mprotect(start, ranges[i].to - ranges[i].from, PROT_READ | PROT_WRITE | PROT_EXEC) == 0)
          memset(start, value, ranges[i].to - ranges[i].from);
      }
    });
  CHECK(witness.unharmed());
}

// Sends the process into rt_sigreturn with `frame` on the stack.
[[noreturn]] void return_through(void *frame) {
  asm volatile("mov %0, %%rsp\n\tmov $15, %%eax\n\tsyscall\n\tud2" : : "r"(frame) : "memory");
  __builtin_unreachable();
}

// What a forged frame leads to: it must come here without any privilege.
extern "C" void forged_landing() {
  unsigned short selector;
  asm volatile("mov %%cs, %0" : "=r"(selector));
  _exit((selector & 3) == 3 ? 33 : 44);
}

TEST_LIMIT(forged_signal_frames, 60) {
  need_attacker();
  Witness witness;
  static char stack[65536];
  const auto with_frame = [&](auto forge) {
    return attack([&] {
      auto *context = reinterpret_cast<ucontext_t *>(stack + 32768);
      auto &registers = context->uc_mcontext.gregs;
      registers[REG_RIP] = reinterpret_cast<long>(&forged_landing);
      registers[REG_RSP] = reinterpret_cast<long>(stack + 16384 - 8);
      registers[REG_EFL] = 0x202;
      registers[REG_CSGSFS] = 0x33 | (0x2bl << 48);
      forge(context, registers);
      return_through(context);
    });
  };
  const int plain = with_frame([](auto, auto &) {});
  CHECK(WIFEXITED(plain) && WEXITSTATUS(plain) == 33);
  CHECK(WIFSIGNALED(attack([] { return_through(reinterpret_cast<void *>(16)); })));
  const auto never_privileged = [](int status) {
    return !WIFEXITED(status) || WEXITSTATUS(status) != 44;
  };
  CHECK(never_privileged(with_frame([](auto, auto &r) { r[REG_CSGSFS] = 0x10; })));
  CHECK(never_privileged(with_frame([](auto, auto &r) { r[REG_CSGSFS] = -1; })));
  CHECK(never_privileged(with_frame([](auto, auto &r) { r[REG_CSGSFS] = 0x23; })));
  CHECK(never_privileged(with_frame([](auto, auto &r) { r[REG_EFL] = -1; })));
  CHECK(never_privileged(
      with_frame([](auto, auto &r) { r[REG_RIP] = static_cast<long>(0x8000000000000000ul); })));
  CHECK(never_privileged(
      with_frame([](auto, auto &r) { r[REG_RIP] = static_cast<long>(0xffffffff81000000ul); })));
  CHECK(never_privileged(
      with_frame([](auto, auto &r) { r[REG_RSP] = static_cast<long>(0xffff888000000000ul); })));
  CHECK(never_privileged(with_frame(
      [](auto *c, auto &) { c->uc_mcontext.fpregs = reinterpret_cast<fpregset_t>(8); })));
  CHECK(never_privileged(with_frame([](auto *c, auto &) {
    memset(stack, 0xff, 8192);  // floating-point state with impossible control words
    c->uc_mcontext.fpregs = reinterpret_cast<fpregset_t>(stack);
  })));
  for (uintptr_t at = 0x7fffffff0000; at < 0x7ffffffff000; at += 0x1000)
    attack([=] { return_through(reinterpret_cast<void *>(at)); });
  CHECK(witness.unharmed());
}

TEST_LIMIT(bounded_fork_bomb, 60) {
  need_attacker();
  Witness witness;
  attack([] {
    for (int depth = 0; depth < 6; depth++) (void)!fork();
    for (int i = 0; i < 5; i++) sched_yield();
    while (wait(nullptr) > 0) {
    }
  });
  CHECK(witness.unharmed());
  CHECK_EQ(run_child([] {}), 0);
}

TEST_LIMIT(exhausting_descriptors_and_pipes, 60) {
  need_attacker();
  Witness witness;
  attack([] {
    for (int i = 0; i < 4; i++)
      if (fork() == 0) {
        int ends[2];
        static char block[65536];
        while (pipe2(ends, O_NONBLOCK) == 0) (void)!write(ends[1], block, sizeof block);
        _exit(0);
      }
    while (wait(nullptr) > 0) {
    }
  });
  CHECK(witness.unharmed());
  int ends[2];
  SYS(pipe(ends));
}

TEST_LIMIT(killing_everybody, 60) {
  need_attacker();
  Witness witness;
  const pid_t parent = getpid();
  attack([=] {
    for (const int number : {SIGTERM, SIGKILL, SIGSTOP, SIGSEGV}) {
      kill(parent, number);
      syscall(SYS_tgkill, parent, parent, number);
      kill(1, number);
      for (pid_t victim = 2; victim < 200; victim++)
        if (victim != getpid()) kill(victim, number);
    }
    kill(-1, SIGKILL);
  });
  CHECK(witness.unharmed());
}

TEST_LIMIT(reading_and_tracing_others_memory, 60) {
  need_attacker();
  Witness witness;
  const pid_t parent = getpid();
  const int status = attack([=] {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", parent);
    if (open(path, O_RDWR) >= 0) _exit(1);
    snprintf(path, sizeof path, "/proc/%d/maps", parent);
    if (open(path, O_RDONLY) >= 0) {
      char byte;
      if (read(open(path, O_RDONLY), &byte, 1) > 0) _exit(2);
    }
    if (syscall(SYS_ptrace, 16 /* PTRACE_ATTACH */, parent, 0, 0) == 0) _exit(3);
    if (open("/dev/mem", O_RDWR) >= 0 || open("/dev/kmem", O_RDWR) >= 0) _exit(4);
    if (open("/dev/kmsg", O_WRONLY) >= 0) _exit(5);
  });
  CHECK_EQ(status, 0);
  CHECK(witness.unharmed());
}

}  // namespace

TAP_MAIN()
