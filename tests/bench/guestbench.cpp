// guestbench: what the basic operations cost that a program asks of its kernel.
//
// Prints one line per operation: its name and nanoseconds per operation, the median of five
// batches. Static and without dependencies, so that the same file runs natively, in Cowbird, in a
// virtual machine or as process 1 of any kernel. tests/bench/run calls it and compares.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace {

constexpr int kBatches = 5;
constexpr size_t kPage = 4096;

char data_file[PATH_MAX];     // 64 KiB, read by open_close, stat and pread4k
char scratch_file[PATH_MAX];  // made and removed by create_unlink
char program_path[PATH_MAX];  // this program, for fork_exec

// A descriptor that closes itself.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  Fd(const Fd &) = delete;
  Fd &operator=(const Fd &) = delete;
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  int fd_;
};

// The system call itself: the vDSO's clock would be as good, but a guest kernel may have none.
uint64_t now_ns() {
  timespec time{};
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(time.tv_nsec);
}

// --- the operations: each does `count` of them and says whether all went well -------------------

bool cpu_loop(long count) {
  volatile unsigned long sum = 0;
  for (long i = 0; i < count; i++) sum = sum + static_cast<unsigned long>(i) * i;
  return true;
}

bool null_call(long count) {
  while (count-- > 0) syscall(SYS_getppid);
  return true;
}

bool devnull_write(long count) {
  Fd null{open("/dev/null", O_WRONLY)};
  if (!null.ok()) return false;
  const char byte = 0;
  while (count-- > 0)
    if (write(null.get(), &byte, 1) != 1) return false;
  return true;
}

bool open_close(long count) {
  while (count-- > 0) {
    const int fd = open(data_file, O_RDONLY);
    if (fd < 0) return false;
    close(fd);
  }
  return true;
}

bool stat_file(long count) {
  struct stat status;
  while (count-- > 0)
    if (stat(data_file, &status) != 0) return false;
  return true;
}

bool pread_4k(long count) {
  static char buffer[kPage];
  Fd file{open(data_file, O_RDONLY)};
  if (!file.ok()) return false;
  while (count-- > 0)
    if (pread(file.get(), buffer, sizeof buffer, 0) != static_cast<ssize_t>(sizeof buffer))
      return false;
  return true;
}

bool create_unlink(long count) {
  while (count-- > 0) {
    const int fd = open(scratch_file, O_CREAT | O_RDWR, 0600);
    if (fd < 0) return false;
    close(fd);
    if (unlink(scratch_file) != 0) return false;
  }
  return true;
}

[[noreturn]] void echo_bytes(int from, int to) {
  char byte = 0;
  while (read(from, &byte, 1) == 1)
    if (write(to, &byte, 1) != 1) _exit(1);
  _exit(0);
}

// One byte there and back between two processes.
bool pipe_round(long count) {
  int there[2];
  int back[2];
  if (pipe(there) != 0) return false;
  if (pipe(back) != 0) return false;
  const pid_t child = fork();
  if (child < 0) return false;
  if (child == 0) {
    close(there[1]);
    echo_bytes(there[0], back[1]);
  }
  Fd child_reads{there[0]}, child_writes{back[1]}, answer{back[0]};
  bool ok = true;
  {
    Fd ask{there[1]};
    char byte = 1;
    for (long i = 0; i < count && ok; i++)
      ok = write(ask.get(), &byte, 1) == 1 && read(answer.get(), &byte, 1) == 1;
  }  // closing `ask` ends the child
  return waitpid(child, nullptr, 0) == child && ok;
}

bool unix_stream_4k(long count) {
  static char buffer[kPage];
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return false;
  Fd left{ends[0]}, right{ends[1]};
  while (count-- > 0) {
    if (write(left.get(), buffer, sizeof buffer) != static_cast<ssize_t>(sizeof buffer))
      return false;
    for (size_t got = 0; got < sizeof buffer;) {
      const ssize_t n = read(right.get(), buffer, sizeof buffer - got);
      if (n <= 0) return false;
      got += static_cast<size_t>(n);
    }
  }
  return true;
}

bool yield(long count) {
  while (count-- > 0) sched_yield();
  return true;
}

volatile sig_atomic_t signals_seen;

bool signal_self(long count) {
  struct sigaction action = {};
  action.sa_handler = [](int) { signals_seen = signals_seen + 1; };
  if (sigaction(SIGUSR1, &action, nullptr) != 0) return false;
  const pid_t self = getpid();
  while (count-- > 0)
    if (kill(self, SIGUSR1) != 0) return false;
  return true;
}

char *map_anonymous(size_t bytes) {
  void *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return at == MAP_FAILED ? nullptr : static_cast<char *>(at);
}

// First write to a page of a big mapping, one after another.
bool page_fault(long count) {
  const size_t bytes = static_cast<size_t>(count) * kPage;
  char *memory = map_anonymous(bytes);
  if (memory == nullptr) return false;
  for (size_t at = 0; at < bytes; at += kPage) memory[at] = 1;
  return munmap(memory, bytes) == 0;
}

// A small mapping made, touched once, and removed.
bool mmap_touch(long count) {
  constexpr size_t kBytes = 4 * kPage;
  while (count-- > 0) {
    char *memory = map_anonymous(kBytes);
    if (memory == nullptr) return false;
    memory[0] = 1;
    if (munmap(memory, kBytes) != 0) return false;
  }
  return true;
}

// A task that shares the address space, started and waited for.
bool thread_create(long count) {
  constexpr size_t kStack = 65536;
  char *stack = map_anonymous(kStack);
  if (stack == nullptr) return false;
  bool ok = true;
  while (ok && count-- > 0) {
    const pid_t task = clone([](void *) { return 0; }, stack + kStack,
                             CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD, nullptr);
    ok = task > 0 && waitpid(task, nullptr, __WALL) == task;
  }
  munmap(stack, kStack);
  return ok;
}

bool fork_exit(long count) {
  while (count-- > 0) {
    const pid_t child = fork();
    if (child < 0) return false;
    if (child == 0) _exit(0);
    if (waitpid(child, nullptr, 0) != child) return false;
  }
  return true;
}

bool fork_exec(long count) {
  char exit_option[] = "--exit";
  while (count-- > 0) {
    const pid_t child = fork();
    if (child < 0) return false;
    if (child == 0) {
      char *arguments[] = {program_path, exit_option, nullptr};
      execv(program_path, arguments);
      _exit(127);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) return false;
  }
  return true;
}

// --- measuring ----------------------------------------------------------------------------------

struct Operation {
  const char *name;
  long count;  // per batch
  bool (*run)(long count);
};

constexpr Operation kOperations[] = {
    {"cpu_loop", 20'000'000, cpu_loop},
    {"null_call", 20'000, null_call},
    {"devnull_write", 20'000, devnull_write},
    {"open_close", 5'000, open_close},
    {"stat", 5'000, stat_file},
    {"pread4k", 5'000, pread_4k},
    {"create_unlink", 1'000, create_unlink},
    {"pipe_round", 2'000, pipe_round},
    {"unix_stream4k", 2'000, unix_stream_4k},
    {"sched_yield", 10'000, yield},
    {"signal_self", 3'000, signal_self},
    {"page_fault", 4'000, page_fault},
    {"mmap_touch", 2'000, mmap_touch},
    {"thread_create", 200, thread_create},
    {"fork_exit", 200, fork_exit},
    {"fork_exec", 100, fork_exec},
};

// Prints the operation's line; false when the operation failed.
bool measure(const Operation &operation, double work) {
  const long count = std::max(1L, static_cast<long>(static_cast<double>(operation.count) * work));
  std::array<double, kBatches> cost{};
  bool ok = operation.run(count / 10 + 1);  // warms caches and allocators
  for (int batch = 0; batch < kBatches && ok; batch++) {
    const uint64_t start = now_ns();
    ok = operation.run(count);
    cost[batch] = static_cast<double>(now_ns() - start) / static_cast<double>(count);
  }
  if (!ok) {
    printf("%-16s failed: %s\n", operation.name, strerror(errno));
    return false;
  }
  std::sort(cost.begin(), cost.end());
  // cpu_loop costs about a nanosecond: it needs the decimals that the others do not.
  const double median = cost[kBatches / 2];
  printf("%-16s %12.*f\n", operation.name, median < 10 ? 2 : 0, median);
  return true;
}

bool make_data_file(const char *directory) {
  snprintf(data_file, sizeof data_file, "%s/guestbench.dat", directory);
  snprintf(scratch_file, sizeof scratch_file, "%s/guestbench.tmp", directory);
  static char zeros[65536];
  Fd file{open(data_file, O_CREAT | O_RDWR | O_TRUNC, 0600)};
  if (file.ok() && write(file.get(), zeros, sizeof zeros) == static_cast<ssize_t>(sizeof zeros))
    return true;
  fprintf(stderr, "guestbench: cannot write %s: %s\n", data_file, strerror(errno));
  return false;
}

void print_help() {
  fputs(
      "usage: guestbench [--dir DIR] [--only NAME,NAME...] [--work FACTOR] [--mark] [--poweroff]\n"
      "Prints nanoseconds per operation, the median of five batches.\n"
      "  --dir DIR      where the file operations work (default /tmp)\n"
      "  --only NAMES   only these operations; --list prints their names\n"
      "  --work FACTOR  multiplies the number of operations in a batch (default 1)\n"
      "  --mark         only prints the line 'mark' and ends: for start-up times\n"
      "  --poweroff     as process 1: powers the machine off at the end\n"
      "example: guestbench --dir /dev/shm --only null_call,fork_exit\n",
      stdout);
}

bool wanted(const char *list, const char *name) {
  if (list == nullptr) return true;
  const size_t length = strlen(name);
  for (const char *at = list; (at = strstr(at, name)) != nullptr; at += length) {
    const bool begins = at == list || at[-1] == ',';
    const bool ends = at[length] == '\0' || at[length] == ',';
    if (begins && ends) return true;
  }
  return false;
}

struct Options {
  const char *directory = "/tmp";
  const char *only = nullptr;
  double work = 1;
  bool mark = false;
  bool poweroff = false;
};

// Process 1 of a bare kernel: it alone can end the machine.
void end_machine() {
  sync();
  reboot(RB_POWER_OFF);
}

int run_all(const Options &options) {
  if (options.mark) {
    puts("mark");
    return 0;
  }
  if (!make_data_file(options.directory)) return 1;
  int failed = 0;
  for (const Operation &operation : kOperations)
    if (wanted(options.only, operation.name) && !measure(operation, options.work)) failed++;
  unlink(data_file);
  return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "--exit") == 0) return 0;  // fork_exec's program
  if (realpath(argv[0], program_path) == nullptr) {
    fprintf(stderr, "guestbench: cannot find itself as %s: call it by its path\n", argv[0]);
    return 1;
  }
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const option long_options[] = {
      {"dir", required_argument, nullptr, 'd'},  {"only", required_argument, nullptr, 'o'},
      {"work", required_argument, nullptr, 'w'}, {"mark", no_argument, nullptr, 'm'},
      {"poweroff", no_argument, nullptr, 'p'},   {"list", no_argument, nullptr, 'l'},
      {"help", no_argument, nullptr, 'h'},       {nullptr, 0, nullptr, 0},
  };
  Options options;
  for (int letter; (letter = getopt_long(argc, argv, "h", long_options, nullptr)) != -1;) {
    switch (letter) {
      case 'd':
        options.directory = optarg;
        break;
      case 'o':
        options.only = optarg;
        break;
      case 'w':
        options.work = strtod(optarg, nullptr);
        break;
      case 'm':
        options.mark = true;
        break;
      case 'p':
        options.poweroff = true;
        break;
      case 'l':
        for (const Operation &operation : kOperations) puts(operation.name);
        return 0;
      case 'h':
        print_help();
        return 0;
      default:
        print_help();
        return 2;
    }
  }
  const int status = run_all(options);
  if (options.poweroff) end_machine();
  return status;
}
