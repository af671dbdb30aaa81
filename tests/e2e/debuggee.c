// What the debugger tests look at: `debuggee MODE`. Each mode prints "ready" and then does one
// thing for ever, or until it ends by itself.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

volatile long counter;
volatile int stop_asked;
volatile int handled;

__attribute__((noinline)) int add(int a, int b) {
  int sum = a + b;
  counter++;
  return sum;
}

__attribute__((noinline)) int work(int rounds) {
  int total = 0;
  for (int i = 0; i < rounds; i++) {
    total = add(total, i);
  }
  return total;
}

static void ready(void) {
  printf("ready %d\n", getpid());
  fflush(stdout);
}

static int loop(void) {
  ready();
  while (!stop_asked) {
    work(3);
    usleep(2000);
  }
  printf("done\n");
  return 5;
}

// Computes without a system call.
static int spin(void) {
  ready();
  while (!stop_asked) work(3);
  return 6;
}

static pthread_barrier_t named;

static void *thread_main(void *name) {
  pthread_setname_np(pthread_self(), name);
  pthread_barrier_wait(&named);
  while (!stop_asked) {
    work(2);
    usleep(1000);
  }
  return NULL;
}

static int threads(void) {
  pthread_t made[3];
  char *names[] = {"first", "second", "third"};
  pthread_barrier_init(&named, NULL, 4);
  for (int i = 0; i < 3; i++) pthread_create(&made[i], NULL, thread_main, names[i]);
  pthread_barrier_wait(&named);
  ready();
  for (int i = 0; i < 3; i++) pthread_join(made[i], NULL);
  return 0;
}

// Everything in which time has a part: each second a line with what has been since the line before.
// The name of the longest time between two looks at the clock is "gap".
static volatile long alarms, received, wrong_bytes;

static void on_alarm(int number) {
  (void)number;
  alarms++;
}

static long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int stream[2];

static void *sends(void *unused) {
  (void)unused;
  for (unsigned char next = 0;; next++) {
    if (write(stream[0], &next, 1) != 1) exit(3);
    usleep(1000);
  }
}

static void *receives(void *unused) {
  (void)unused;
  unsigned char expected = 0, got;
  while (read(stream[1], &got, 1) == 1) {
    if (got != expected) wrong_bytes++;
    expected = got + 1;
    received++;
  }
  exit(4);
}

static int clocks(void) {
  pthread_t threads[2];
  sigset_t alarm_only;
  struct itimerval every = {{0, 20000}, {0, 20000}};
  int watchdog = open("/dev/watchdog", O_WRONLY);
  sigemptyset(&alarm_only);
  sigaddset(&alarm_only, SIGALRM);
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, stream) != 0) return 2;
  pthread_sigmask(SIG_BLOCK, &alarm_only, NULL);
  pthread_create(&threads[0], NULL, sends, NULL);
  pthread_create(&threads[1], NULL, receives, NULL);
  pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL);
  struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &every, NULL);
  ready();
  long line = now_ms(), last = line, gap = 0, alarms_before = 0, received_before = 0;
  for (;;) {
    struct timespec nap = {0, 10000000};
    nanosleep(&nap, NULL);
    const long now = now_ms();
    if (now - last > gap) gap = now - last;
    last = now;
    if (now - line < 1000) continue;
    if (watchdog >= 0 && write(watchdog, "x", 1) != 1) return 5;
    printf("ms=%ld alarms=%ld received=%ld wrong=%ld gap=%ld\n", now - line, alarms - alarms_before,
           received - received_before, wrong_bytes, gap);
    fflush(stdout);
    line = now, gap = 0, alarms_before = alarms, received_before = received;
  }
}

static pthread_barrier_t everybody;

static void *waits_for_ever(void *unused) {
  pthread_barrier_wait(&everybody);
  return unused;
}

// A thousand threads that sleep; the program's first is none of them.
static int crowd(void) {
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 16384);
  pthread_barrier_init(&everybody, NULL, 1001);
  for (int i = 0; i < 1000; i++) {
    pthread_t made;
    if (pthread_create(&made, &small, waits_for_ever, NULL) != 0) return 1;
  }
  sleep(1);
  ready();
  for (;;) pause();
}

// One that listens at /tmp/socket, and a connection to it.
static int sockets(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, "/tmp/socket");
  mkdir("/tmp", 0777);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 1) != 0)
    return 1;
  if (connect(client, (struct sockaddr *)&address, sizeof address) != 0) return 1;
  ready();
  for (;;) pause();
}

static void on_signal(int number) { handled = handled + number; }

static int signals(void) {
  signal(SIGUSR1, on_signal);
  ready();
  while (!stop_asked) {
    work(1);
    usleep(1000);
    kill(getpid(), SIGUSR1);
  }
  return 0;
}

static int forks(void) {
  ready();
  while (!stop_asked) {
    pid_t child = fork();
    if (child == 0) {
      int got = work(4);
      _exit(got);
    }
    int status;
    waitpid(child, &status, 0);
    usleep(2000);
  }
  return 0;
}

static int vforks(const char *self) {
  ready();
  while (!stop_asked) {
    pid_t child = vfork();
    if (child == 0) {
      execl(self, self, "exit", (char *)NULL);
      _exit(127);
    }
    int status;
    waitpid(child, &status, 0);
    work(1);
    usleep(2000);
  }
  return 0;
}

static int execs(const char *self) {
  ready();
  while (!stop_asked) {
    work(1);
    usleep(2000);
  }
  execl(self, self, "loop", (char *)NULL);
  return 127;
}

__attribute__((noinline, target("avx"))) void vector_work(void) {
  __m256 v = _mm256_set_ps(8, 7, 6, 5, 4, 3, 2, 1);
  double d = 2.5;
  __asm__ volatile(".globl vectors_loaded\nvectors_loaded: nop" : "+x"(v), "+x"(d));
  float out[8];
  _mm256_storeu_ps(out, v);
  counter += (long)out[7];
}

static int vectors(void) {
  ready();
  while (!stop_asked) {
    vector_work();
    usleep(2000);
  }
  return (int)counter;
}

static int waits(void) {
  char byte;
  int ends[2];
  if (pipe(ends) != 0) return 1;
  ready();
  while (read(ends[0], &byte, 1) < 0 && errno == EINTR) handled = handled + 1;
  return 0;
}

static int crash(void) {
  ready();
  while (!stop_asked) usleep(1000);
  *(volatile int *)8 = 1;
  return 0;
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "loop";
  if (strcmp(mode, "loop") == 0) return loop();
  if (strcmp(mode, "spin") == 0) return spin();
  if (strcmp(mode, "threads") == 0) return threads();
  if (strcmp(mode, "clocks") == 0) return clocks();
  if (strcmp(mode, "crowd") == 0) return crowd();
  if (strcmp(mode, "sockets") == 0) return sockets();
  if (strcmp(mode, "signals") == 0) return signals();
  if (strcmp(mode, "forks") == 0) return forks();
  if (strcmp(mode, "vforks") == 0) return vforks(argv[0]);
  if (strcmp(mode, "execs") == 0) return execs(argv[0]);
  if (strcmp(mode, "vectors") == 0) return vectors();
  if (strcmp(mode, "waits") == 0) return waits();
  if (strcmp(mode, "crash") == 0) return crash();
  if (strcmp(mode, "exit") == 0) return work(3);
  fprintf(stderr, "debuggee: unknown mode %s\n", mode);
  return 2;
}
