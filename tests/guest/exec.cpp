// execve(2): arguments, environment, scripts, what is kept and what is reset, the auxiliary vector.
// The program starts itself again with "--child WHAT ..." and looks at itself there.
#include <elf.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/time.h>

#include <string>
#include <vector>

#include "tap.hpp"

extern char **environ;

namespace {

std::string self_path() {
  char path[4096] = {};
  SYS(readlink("/proc/self/exe", path, sizeof path - 1));
  return path;
}

// Replaces this process by this program with the given arguments.
[[noreturn]] void run_self(std::vector<std::string> words,
                           std::vector<std::string> environment = {}) {
  const std::string path = self_path();
  words.insert(words.begin(), {path, "--child"});
  std::vector<char *> arguments, variables;
  for (auto &word : words) arguments.push_back(word.data());
  for (auto &word : environment) variables.push_back(word.data());
  arguments.push_back(nullptr);
  variables.push_back(nullptr);
  execve(path.c_str(), arguments.data(), variables.data());
  note("execve %s: %s", path.c_str(), strerror(errno));
  _exit(99);
}

int status_of_self(std::vector<std::string> words, std::vector<std::string> environment = {}) {
  return WEXITSTATUS(run_child([&] { run_self(words, environment); }));
}

int exec_error(const char *path) {
  char *arguments[] = {const_cast<char *>(path), nullptr};
  execve(path, arguments, environ);
  return errno;
}

void copy_self(const char *to, mode_t mode) {
  const int in = SYS(open("/proc/self/exe", O_RDONLY));
  const int out = SYS(open(to, O_CREAT | O_WRONLY | O_TRUNC, mode));
  static char block[65536];
  for (ssize_t got; (got = read(in, block, sizeof block)) > 0;)
    REQUIRE(write(out, block, got) == got);
  close(in);
  close(out);
}

// --- what the child looks at: the exit status is the answer, 0 for "as it should be" -------------

int child_arguments(int argc, char **argv) {
  if (argc != 6) return 10;
  if (strcmp(argv[3], "one") != 0 || strcmp(argv[4], "") != 0 || strcmp(argv[5], "th ree") != 0)
    return 11;
  if (argv[6] != nullptr) return 12;
  if (environ[0] == nullptr || strcmp(environ[0], "KEY=value") != 0) return 13;
  return environ[1] == nullptr ? 0 : 14;
}

int child_count(int argc, char **argv) {
  size_t bytes = 0;
  for (int i = 3; i < argc; i++) bytes += strlen(argv[i]);
  return argc - 3 == 200 && bytes == 200 * 1000 ? 0 : 1;
}

int child_descriptors(int, char **argv) {
  const bool kept = fcntl(atoi(argv[3]), F_GETFD) == 0;
  const bool closed = fcntl(atoi(argv[4]), F_GETFD) == -1 && errno == EBADF;
  return kept && closed ? 0 : 1;
}

int child_signals(int, char **) {
  struct sigaction action = {};
  sigaction(SIGUSR1, nullptr, &action);
  if (action.sa_handler != SIG_DFL) return 1;  // a handler is reset
  sigaction(SIGUSR2, nullptr, &action);
  if (action.sa_handler != SIG_IGN) return 2;  // ignoring is kept
  sigset_t set;
  sigprocmask(SIG_SETMASK, nullptr, &set);
  if (!sigismember(&set, SIGHUP) || sigismember(&set, SIGTERM)) return 3;  // the mask is kept
  sigpending(&set);
  if (!sigismember(&set, SIGHUP)) return 4;  // what is pending, too
  stack_t stack = {};
  sigaltstack(nullptr, &stack);
  return stack.ss_flags == SS_DISABLE ? 0 : 5;
}

int child_timer(int, char **) {
  itimerval timer{};
  getitimer(ITIMER_REAL, &timer);
  return timer.it_value.tv_sec > 0 ? 0 : 1;
}

int child_auxv(int, char **argv) {
  if (getauxval(AT_PAGESZ) != 4096) return 1;
  if (getauxval(AT_PHNUM) == 0 || getauxval(AT_PHENT) != sizeof(Elf64_Phdr)) return 2;
  const auto *header = reinterpret_cast<const Elf64_Phdr *>(getauxval(AT_PHDR));
  bool loads = false;
  for (unsigned long i = 0; header && i < getauxval(AT_PHNUM); i++)
    loads |= header[i].p_type == PT_LOAD;
  if (!loads) return 3;
  const auto *name = reinterpret_cast<const char *>(getauxval(AT_EXECFN));
  if (name == nullptr || strcmp(name, argv[0]) != 0) return 4;
  if (getauxval(AT_UID) != getuid() || getauxval(AT_EUID) != geteuid()) return 5;
  if (getauxval(AT_GID) != getgid() || getauxval(AT_EGID) != getegid()) return 6;
  if (getauxval(AT_RANDOM) == 0) return 7;
  if (getauxval(AT_CLKTCK) != 100) return 8;
  if (getauxval(AT_SECURE) != 0) return 9;
  const unsigned long entry = getauxval(AT_ENTRY);
  if (entry == 0 || *reinterpret_cast<const unsigned char *>(entry) == 0) return 10;
  const auto *platform = reinterpret_cast<const char *>(getauxval(AT_PLATFORM));
  if (platform == nullptr || strcmp(platform, "x86_64") != 0) return 11;
  return getauxval(AT_HWCAP) != 0 ? 0 : 12;
}

int child_stack(int, char **) {
  // At the program's start the stack pointer was a multiple of 16 and argc lay there; the compiler
  // relies on it. What is left to look at is that aligned locals are aligned.
  alignas(16) volatile char local[64];
  return reinterpret_cast<uintptr_t>(local) % 16 == 0 ? 0 : 1;
}

int child_random(int, char **) {
  const auto *bytes = reinterpret_cast<const unsigned char *>(getauxval(AT_RANDOM));
  for (int i = 0; i < 16; i++) printf("%02x", bytes[i]);
  puts("");
  return 0;
}

int child_memory(int, char **argv) {
  // The old program's mappings are gone.
  const auto address = strtoul(argv[3], nullptr, 16);
  return msync(reinterpret_cast<void *>(address), 4096, MS_ASYNC) == -1 && errno == ENOMEM ? 0 : 1;
}

int child_threads(int, char **argv) {
  if (getpid() != atoi(argv[3]) || syscall(SYS_gettid) != getpid()) return 1;
  int count = 0;
  DIR *tasks = opendir("/proc/self/task");
  if (tasks == nullptr) return 0;
  while (const dirent *entry = readdir(tasks)) count += entry->d_name[0] != '.';
  return count == 1 ? 0 : 2;
}

int child_comm(int, char **argv) {
  char text[64];
  read_text("/proc/self/comm", text);
  text[strcspn(text, "\n")] = '\0';
  return strcmp(text, argv[3]) == 0 ? 0 : 1;
}

// --- the tests ----------------------------------------------------------------------------------

TEST(arguments_and_environment_arrive) {
  CHECK_EQ(status_of_self({"arguments", "one", "", "th ree"}, {"KEY=value"}), 0);
}

TEST(many_long_arguments_arrive) {
  std::vector<std::string> words = {"count"};
  for (int i = 0; i < 200; i++) words.emplace_back(1000, 'a');
  CHECK_EQ(status_of_self(words), 0);
}

TEST(too_many_arguments_are_e2big) {
  IN_CHILD([] {
    const std::string path = self_path();
    std::string word(100'000, 'a');
    std::vector<char *> arguments(1000, word.data());
    arguments.push_back(nullptr);
    CHECK_ERRNO(execv(path.c_str(), arguments.data()), E2BIG);
    std::string huge(200'000, 'b');  // one string above 128 KiB
    char *few[] = {huge.data(), nullptr};
    CHECK_ERRNO(execv(path.c_str(), few), E2BIG);
  });
}

TEST(exec_errors) {
  CHECK_EQ(exec_error("missing"), ENOENT);
  put_file("plain", "not executable", 0644);
  CHECK_EQ(exec_error("plain"), EACCES);
  put_file("text", "neither ELF nor script", 0755);
  CHECK_EQ(exec_error("text"), ENOEXEC);
  put_file("empty", "", 0755);
  CHECK_EQ(exec_error("empty"), ENOEXEC);
  put_file("cut", "\177ELF\2\1\1", 0755);
  CHECK_EQ(exec_error("cut"), ENOEXEC);
  CHECK_EQ(exec_error("/"), EACCES);
  CHECK_EQ(exec_error("plain/below"), ENOTDIR);
  CHECK_ERRNO(syscall(SYS_execve, 16, nullptr, nullptr), EFAULT);
  CHECK_ERRNO(syscall(SYS_execve, self_path().c_str(), 16, nullptr), EFAULT);
}

TEST(broken_elf_headers_are_refused) {
  copy_self("good", 0755);
  Elf64_Ehdr header{};
  const int fd = SYS(open("good", O_RDWR));
  REQUIRE(pread(fd, &header, sizeof header, 0) == sizeof header);
  close(fd);
  const auto error_with = [&](auto change) {
    copy_self("broken", 0755);
    Elf64_Ehdr changed = header;
    change(changed);
    const int out = SYS(open("broken", O_WRONLY));
    REQUIRE(pwrite(out, &changed, sizeof changed, 0) == sizeof changed);
    close(out);
    return exec_error("broken");
  };
  CHECK_EQ(error_with([](Elf64_Ehdr &h) { h.e_machine = EM_AARCH64; }), ENOEXEC);
  CHECK_EQ(error_with([](Elf64_Ehdr &h) { h.e_type = ET_REL; }), ENOEXEC);
  CHECK_EQ(error_with([](Elf64_Ehdr &h) { h.e_phnum = 0; }), ENOEXEC);
  CHECK_EQ(error_with([](Elf64_Ehdr &h) { h.e_phentsize = 1; }), ENOEXEC);
}

TEST(script_runs_its_interpreter) {
  put_file("script", ("#!" + self_path() + " --child\narguments\n").c_str(), 0755);
  // The interpreter gets its one argument, the script's path and the caller's arguments.
  const int status = run_child([] {
    char *arguments[] = {const_cast<char *>("ignored"), const_cast<char *>("x"), nullptr};
    execv("./script", arguments);
    _exit(99);
  });
  CHECK_EQ(WEXITSTATUS(status), 50);  // main() sees "--child ./script x"
}

TEST(script_argument_is_one_word) {
  put_file("script", ("#! " + self_path() + "   --two words \n").c_str(), 0755);
  const int status = run_child([] {
    char *arguments[] = {const_cast<char *>("ignored"), nullptr};
    execv("./script", arguments);
    _exit(99);
  });
  CHECK_EQ(WEXITSTATUS(status), 51);
}

TEST(script_errors) {
  put_file("nowhere", "#!/no/such/interpreter\n", 0755);
  CHECK_EQ(exec_error("./nowhere"), ENOENT);
  put_file("loop", "#!./loop\n", 0755);
  CHECK_EQ(exec_error("./loop"), ELOOP);
  put_file("nothing", "#!\n", 0755);
  CHECK_EQ(exec_error("./nothing"), ENOEXEC);
}

TEST(close_on_exec) {
  const int kept = SYS(open("/dev/null", O_RDONLY));
  const int closed = SYS(open("/dev/null", O_RDONLY | O_CLOEXEC));
  CHECK_EQ(status_of_self({"descriptors", std::to_string(kept), std::to_string(closed)}), 0);
}

TEST(signals_over_exec) {
  const int status = run_child([] {
    on_signal(SIGUSR1, [](int) {});
    on_signal(SIGUSR2, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    SYS(sigprocmask(SIG_SETMASK, &set, nullptr));
    raise(SIGHUP);
    static char memory[16384];
    const stack_t stack = {memory, 0, sizeof memory};
    SYS(sigaltstack(&stack, nullptr));
    run_self({"signals"});
  });
  CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(interval_timer_survives_exec) {
  const int status = run_child([] {
    const itimerval timer{{0, 0}, {100, 0}};
    SYS(setitimer(ITIMER_REAL, &timer, nullptr));
    run_self({"timer"});
  });
  CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(auxiliary_vector) { CHECK_EQ(status_of_self({"auxv"}), 0); }

TEST(stack_is_aligned) { CHECK_EQ(status_of_self({"stack"}), 0); }

TEST(random_bytes_differ) {
  std::string lines[2];
  for (std::string &line : lines) {
    int ends[2];
    SYS(pipe(ends));
    const pid_t child = start_child([&] {
      dup2(ends[1], 1);
      run_self({"random"});
    });
    close(ends[1]);
    char buffer[64];
    for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;) line.append(buffer, got);
    close(ends[0]);
    CHECK_EQ(wait_for(child), 0);
  }
  CHECK_EQ(lines[0].size(), 33);
  CHECK(lines[0] != lines[1]);
}

TEST(old_memory_is_gone) {
  const int status = run_child([] {
    char *address = reinterpret_cast<char *>(0x123450000000);
    char *memory = MAP(mmap(address, 4096, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    memory[0] = 1;
    run_self({"memory", "123450000000"});
  });
  CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(exec_keeps_the_process_id) {
  const pid_t child = start_child([] { run_self({"threads", std::to_string(getpid())}); });
  CHECK_EQ(WEXITSTATUS(wait_for(child)), 0);
}

TEST(exec_from_a_thread_ends_the_others) {
  const pid_t child = start_child([] {
    pthread_t waiting, replacing;
    pthread_create(
        &waiting, nullptr,
        [](void *) -> void * {
          pause();
          return nullptr;
        },
        nullptr);
    pthread_create(
        &replacing, nullptr,
        [](void *) -> void * {
          run_self({"threads", std::to_string(getpid())});
        },
        nullptr);
    pthread_join(replacing, nullptr);
  });
  CHECK_EQ(WEXITSTATUS(wait_for(child)), 0);
}

TEST(exec_sets_the_command_name) {
  copy_self("program-with-a-long-name", 0755);
  const int status = run_child([] {
    prctl(PR_SET_NAME, "before");
    char *arguments[] = {const_cast<char *>("zero"), const_cast<char *>("--child"),
                         const_cast<char *>("comm"), const_cast<char *>("program-with-a-"),
                         nullptr};
    execv("./program-with-a-long-name", arguments);
    _exit(99);
  });
  CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(exec_by_descriptor) {
  const int fd = SYS(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  char *arguments[] = {const_cast<char *>("x"), const_cast<char *>("--child"),
                       const_cast<char *>("stack"), nullptr};
  const int status = run_child([&] {
    syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
    _exit(errno == ENOSYS ? 98 : 99);
  });
  if (WEXITSTATUS(status) == 98) SKIP("optional call: execveat");
  CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(running_program_cannot_be_written) {
  copy_self("program", 0755);
  const pid_t child = start_child([] {
    char *arguments[] = {const_cast<char *>("x"), const_cast<char *>("--child"),
                         const_cast<char *>("sleep"), nullptr};
    execv("./program", arguments);
    _exit(99);
  });
  char link[64], target[4096] = {};
  snprintf(link, sizeof link, "/proc/%d/exe", child);
  CHECK(eventually([&] {
    const ssize_t length = readlink(link, target, sizeof target - 1);
    return length > 8 && strcmp(target + length - 8, "/program") == 0;
  }));
  CHECK_ERRNO(open("program", O_WRONLY), ETXTBSY);
  SYS(unlink("program"));  // but removed
  kill(child, SIGKILL);
  wait_for(child);
}

TEST(vfork_and_exec) {
  const std::string path = self_path();
  char *arguments[] = {const_cast<char *>(path.c_str()), const_cast<char *>("--child"),
                       const_cast<char *>("stack"), nullptr};
  for (int i = 0; i < 20; i++) {
    const pid_t child = vfork();
    if (child == 0) {
      execv(path.c_str(), arguments);
      _exit(99);
    }
    REQUIRE(WEXITSTATUS(wait_for(child)) == 0);
  }
}

struct Child {
  const char *name;
  int (*run)(int argc, char **argv);
};

constexpr Child kChildren[] = {
    {"arguments", child_arguments},
    {"count", child_count},
    {"descriptors", child_descriptors},
    {"signals", child_signals},
    {"timer", child_timer},
    {"auxv", child_auxv},
    {"stack", child_stack},
    {"random", child_random},
    {"memory", child_memory},
    {"threads", child_threads},
    {"comm", child_comm},
    {"sleep", [](int, char **) { return pause(); }},
};

int run_as_child(int argc, char **argv) {
  if (strcmp(argv[2], "./script") == 0) return argc == 4 && strcmp(argv[3], "x") == 0 ? 50 : 49;
  for (const Child &child : kChildren)
    if (strcmp(child.name, argv[2]) == 0) return child.run(argc, argv);
  return 97;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc >= 3 && strcmp(argv[1], "--child") == 0) return run_as_child(argc, argv);
  if (argc == 3 && strcmp(argv[1], "--two words") == 0 && strcmp(argv[2], "./script") == 0)
    return 51;
  return tap::run(argc, argv);
}
