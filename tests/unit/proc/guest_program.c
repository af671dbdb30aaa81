// A guest program for proc_guest_test.cpp: one numbered check after the other of what processes
// see. The exit status is 0, or the number of the first check that failed. It runs on the host's
// Linux as well, which says whether the checks themselves are right.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *self_path;

static void check_at(int ok, int line) {
  if (!ok) _exit(line > 255 ? 255 : line);
}
// Each test is a function; a failed check ends its process with the line within the test.
static int test_base;
#define CHECK(condition) check_at(condition, __LINE__ - test_base)
#define BEGIN test_base = __LINE__

static int wait_status(pid_t pid) {
  int status = -1;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

static void fork_and_wait(void) {
  BEGIN;
  volatile int value = 1;
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    value = 2;
    _exit(value + 40);
  }
  int status = 0;
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
  CHECK(value == 1);
  CHECK(waitpid(-1, &status, 0) == -1 && errno == ECHILD);
  CHECK(waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD);
}

static volatile sig_atomic_t handled;
static siginfo_t handled_info;
static void on_signal(int signal, siginfo_t *info, void *context) {
  (void)context;
  handled = signal;
  handled_info = *info;
}
static void install(int signal, int flags) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | flags;
  sigaction(signal, &action, NULL);
}

static void signals(void) {
  BEGIN;
  install(SIGUSR1, 0);
  volatile double pi = 3.25;
  CHECK(raise(SIGUSR1) == 0);
  CHECK(handled == SIGUSR1 && pi * 2 == 6.5);
  CHECK(handled_info.si_pid == getpid() && handled_info.si_code == SI_TKILL);
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  handled = 0;
  CHECK(sigprocmask(SIG_BLOCK, &set, &old) == 0);
  CHECK(kill(getpid(), SIGUSR1) == 0 && handled == 0);
  sigset_t pending;
  CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1));
  CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0 && handled == SIGUSR1);
  union sigval value = {.sival_int = 77};
  CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
  CHECK(sigqueue(getpid(), SIGUSR1, value) == 0);
  siginfo_t info;
  CHECK(sigwaitinfo(&set, &info) == SIGUSR1 && info.si_value.sival_int == 77);
  struct timespec soon = {0, 1000000};
  CHECK(sigtimedwait(&set, &info, &soon) == -1 && errno == EAGAIN);
}

static sigjmp_buf jump;
static void on_fault(int signal, siginfo_t *info, void *context) {
  (void)context;
  handled = signal;
  handled_info = *info;
  siglongjmp(jump, 1);
}

static void faults(void) {
  BEGIN;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  static char stack[65536];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  CHECK(sigaltstack(&alternate, NULL) == 0);
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGFPE, &action, NULL);
  sigaction(SIGILL, &action, NULL);
  // Of an address where nothing is: a fixed one may be in the heap, which begins anywhere.
  char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED && munmap(page, 4096) == 0);
  if (sigsetjmp(jump, 1) == 0) *(volatile int *)(page + 0x560) = 1;
  CHECK(handled == SIGSEGV && handled_info.si_code == SEGV_MAPERR);
  CHECK(handled_info.si_addr == (void *)(page + 0x560));
  page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED);
  if (sigsetjmp(jump, 1) == 0) *(volatile char *)page = 1;
  CHECK(handled_info.si_code == SEGV_ACCERR && handled_info.si_addr == page);
  volatile int zero = 0, three = 3;
  if (sigsetjmp(jump, 1) == 0) {
    volatile int result = three / zero;
    (void)result;
  }
  CHECK(handled == SIGFPE && handled_info.si_code == FPE_INTDIV);
  if (sigsetjmp(jump, 1) == 0) __asm__ volatile("ud2");
  CHECK(handled == SIGILL);
}

static void deaths(void) {
  BEGIN;
  pid_t pid = fork();
  if (pid == 0) {
    for (;;) {
    }
  }
  CHECK(kill(pid, SIGTERM) == 0);
  int status = wait_status(pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  pid = fork();
  if (pid == 0) {
    pause();
    _exit(0);
  }
  CHECK(kill(pid, SIGKILL) == 0);
  status = wait_status(pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  pid = fork();
  if (pid == 0) {
    signal(SIGSEGV, SIG_DFL);
    *(volatile int *)8 = 1;
  }
  status = wait_status(pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void restarts(void) {
  BEGIN;
  pid_t pid = fork();
  if (pid == 0) {
    usleep(60000);
    _exit(7);
  }
  install(SIGALRM, SA_RESTART);
  struct itimerval timer = {.it_value = {0, 10000}};
  handled = 0;
  CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
  int status = 0;
  CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7);
  CHECK(handled == SIGALRM);
  install(SIGALRM, 0);
  CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
  struct timespec wanted = {1, 0}, left = {0, 0};
  CHECK(nanosleep(&wanted, &left) == -1 && errno == EINTR);
  CHECK(left.tv_sec == 0 && left.tv_nsec > 500000000);
  // A stop and a continuation interrupt a sleep, which then goes on for the rest of its time.
  pid = fork();
  if (pid == 0) {
    struct timespec nap = {0, 80000000};
    _exit(nanosleep(&nap, NULL) == 0 ? 9 : 10);
  }
  usleep(10000);
  CHECK(kill(pid, SIGSTOP) == 0);
  CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
  CHECK(WSTOPSIG(status) == SIGSTOP);
  CHECK(kill(pid, SIGCONT) == 0);
  CHECK(waitpid(pid, &status, WCONTINUED) == pid && WIFCONTINUED(status));
  CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 9);
  // A job of this session stops at ^Z, and its whole group goes on.
  pid = fork();
  if (pid == 0) {
    setpgid(0, 0);
    raise(SIGTSTP);
    _exit(2);
  }
  CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
  CHECK(WSTOPSIG(status) == SIGTSTP && kill(-pid, SIGCONT) == 0);
  CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 2);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int counter;
static void *count(void *argument) {
  for (int i = 0; i < 2000; ++i) {
    pthread_mutex_lock(&mutex);
    ++counter;
    pthread_mutex_unlock(&mutex);
  }
  return argument;
}

static void threads(void) {
  BEGIN;
  pthread_t thread[4];
  for (intptr_t i = 0; i < 4; ++i) CHECK(pthread_create(&thread[i], NULL, count, (void *)i) == 0);
  for (intptr_t i = 0; i < 4; ++i) {
    void *result = NULL;
    CHECK(pthread_join(thread[i], &result) == 0 && result == (void *)i);
  }
  CHECK(counter == 8000);
}

static void *spin(void *argument) {
  for (;;) {
  }
  return argument;
}

static void group_exit(void) {
  BEGIN;
  pid_t pid = fork();
  if (pid == 0) {
    pthread_t thread;
    pthread_create(&thread, NULL, spin, NULL);
    usleep(20000);
    exit(3);
  }
  int status = wait_status(pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

static void *exec_it(void *argument) {
  (void)argument;
  char *argv[] = {(char *)"guest", (char *)"child", NULL};
  char *envp[] = {(char *)"A=b", NULL};
  execve(self_path, argv, envp);
  return NULL;
}

static void exec(void) {
  BEGIN;
  pid_t pid = fork();
  if (pid == 0) {
    exec_it(NULL);
    _exit(1);
  }
  int status = wait_status(pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 55);
  pid = vfork();
  if (pid == 0) {
    exec_it(NULL);
    _exit(1);
  }
  status = wait_status(pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 55);
  // A thread that is not the leader takes the whole process with it.
  pid = fork();
  if (pid == 0) {
    pthread_t thread;
    pthread_create(&thread, NULL, exec_it, NULL);
    for (;;) pause();
  }
  status = wait_status(pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 55);
  char *argv[] = {(char *)"x", NULL};
  CHECK(execve("/nowhere", argv, NULL) == -1 && errno == ENOENT);
}

static void groups(void) {
  BEGIN;
  pid_t pid = fork();
  if (pid == 0) {
    CHECK(setsid() == getpid() && getpgrp() == getpid() && getsid(0) == getpid());
    CHECK(setsid() == -1 && errno == EPERM);
    _exit(0);
  }
  int status = wait_status(pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  // An orphan goes to process 1, or to a subreaper.
  pid = fork();
  if (pid == 0) {
    pid_t grandchild = fork();
    if (grandchild == 0) {
      usleep(20000);
      _exit(getppid() == 1 ? 0 : 1);
    }
    _exit(5);
  }
  status = wait_status(pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
}

static void clocks(void) {
  BEGIN;
  struct timespec a, b;
  CHECK(clock_gettime(CLOCK_MONOTONIC, &a) == 0);
  usleep(5000);
  CHECK(clock_gettime(CLOCK_MONOTONIC, &b) == 0);
  int64_t ns = (b.tv_sec - a.tv_sec) * 1000000000ll + b.tv_nsec - a.tv_nsec;
  CHECK(ns >= 5000000 && ns < 2000000000);
  install(SIGPROF, 0);
  handled = 0;
  struct itimerval timer = {.it_value = {0, 20000}};
  CHECK(setitimer(ITIMER_PROF, &timer, NULL) == 0);
  while (!handled) {
  }
  CHECK(handled == SIGPROF);
  struct rlimit limit;
  CHECK(getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur >= 1 << 20);
}

static void *lower(void *argument) {
  usleep(10000);
  return argument;
}

static void detached(void) {
  BEGIN;
  for (int i = 0; i < 20; ++i) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, lower, NULL) == 0);
    CHECK(pthread_detach(thread) == 0);
  }
  usleep(50000);
}

static const struct {
  void (*run)(void);
} kTests[] = {{fork_and_wait}, {signals}, {faults}, {deaths}, {restarts}, {threads},
              {group_exit},    {exec},    {groups}, {clocks}, {detached}};

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "child") == 0) {
    const char *value = getenv("A");
    return value != NULL && strcmp(value, "b") == 0 && getauxval(AT_PAGESZ) == 4096 ? 55 : 1;
  }
  self_path = argv[0];
  const int count_of_tests = sizeof kTests / sizeof kTests[0];
  if (argc < 2) return 100 + count_of_tests;
  const int number = atoi(argv[1]);
  if (number >= count_of_tests) return 99;
  // In a child: the first process has rules of its own.
  pid_t pid = fork();
  if (pid == 0) {
    kTests[number].run();
    _exit(0);
  }
  int status = wait_status(pid);
  if (WIFSIGNALED(status)) return 200 + WTERMSIG(status);
  while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {
  }
  return WEXITSTATUS(status);
}
