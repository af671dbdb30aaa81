// What tests/bench/debug debugs: `debugbench THREADS` has that many sleeping threads beside its
// first, which goes round for ever: 10,000 calls of work(), each with one cheap system call, then
// one of round_done(). Natively gdb stops in work() and round_done(), in a guest's kernel in the
// system calls of the two, getppid and getpgrp.
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace {

volatile long sum = 0;

extern "C" __attribute__((noinline)) void work(long number) {
  sum = sum + number;
  syscall(SYS_getppid);
}

extern "C" __attribute__((noinline)) void round_done() {
  sum = 0;
  syscall(SYS_getpgrp);
}

void *sleeper(void *) {
  for (;;) pause();
  return nullptr;
}

}  // namespace

int main(int argc, char **argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : 0;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 65536);
  for (int i = 0; i < threads; ++i) {
    pthread_t thread;
    if (pthread_create(&thread, &attributes, sleeper, nullptr) != 0) {
      perror("debugbench: pthread_create");
      return 1;
    }
  }
  puts("ready");
  fflush(stdout);
  for (;;) {
    // A line for each, so that gdb's `next` gets on by one of them and not by the whole round.
    volatile long i = 0;
    do {
      work(i);
      i = i + 1;
    } while (i < 10'000);
    round_done();
  }
}
