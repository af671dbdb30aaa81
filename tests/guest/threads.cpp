// Threads: pthreads(7) over clone(2) and futex(2), thread-local storage, robust lists, signals to
// threads.
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <ucontext.h>

#include <atomic>
#include <cfenv>

#include "tap.hpp"

namespace {

long futex(volatile void *word, int operation, unsigned value, const timespec *timeout = nullptr,
           volatile void *other = nullptr, unsigned last = 0) {
  return syscall(SYS_futex, word, operation, value, timeout, other, last);
}

template <typename Body>
pthread_t start_thread(Body *body) {
  pthread_t thread;
  const int error = pthread_create(
      &thread, nullptr,
      [](void *argument) -> void * { return (*static_cast<Body *>(argument))(), nullptr; }, body);
  if (error != 0) {
    errno = error;
    tap::check(false, __FILE__, __LINE__, "pthread_create");
    tap::finish();
  }
  return thread;
}

void join(pthread_t thread) { CHECK_EQ(pthread_join(thread, nullptr), 0); }

TEST(create_and_join_gives_the_result) {
  pthread_t thread;
  REQUIRE(pthread_create(
              &thread, nullptr, [](void *argument) { return argument; },
              reinterpret_cast<void *>(1234)) == 0);
  void *result = nullptr;
  CHECK_EQ(pthread_join(thread, &result), 0);
  CHECK_EQ(reinterpret_cast<long>(result), 1234);
}

// clone(2) copies the floating-point state; the second thread runs on what the first has left.
TEST(a_thread_inherits_the_floating_point_environment) {
  for (const int mode : {FE_UPWARD, FE_DOWNWARD}) {
    REQUIRE(fesetround(mode) == 0);
    int seen = -1;
    auto body = [&] {
      seen = fegetround();
      fesetround(FE_TOWARDZERO);
    };
    join(start_thread(&body));
    CHECK_EQ(seen, mode);
    CHECK_EQ(fegetround(), mode);
  }
  fesetround(FE_TONEAREST);
}

TEST(threads_share_ids_and_memory) {
  const pid_t process = getpid();
  const long main_thread = syscall(SYS_gettid);
  long other = 0;
  auto body = [&] {
    CHECK_EQ(getpid(), process);
    other = syscall(SYS_gettid);
  };
  join(start_thread(&body));
  CHECK(other != 0 && other != main_thread);
}

TEST(mutex_excludes) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static long counter;
  auto body = [] {
    for (int i = 0; i < 20'000; i++) {
      pthread_mutex_lock(&mutex);
      counter++;
      pthread_mutex_unlock(&mutex);
    }
  };
  pthread_t threads[4];
  for (auto &thread : threads) thread = start_thread(&body);
  for (auto &thread : threads) join(thread);
  CHECK_EQ(counter, 80'000);
}

TEST(condition_hands_over) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
  int turn = 0;
  constexpr int kRounds = 500;
  const auto play = [&](int me) {
    for (int i = 0; i < kRounds; i++) {
      pthread_mutex_lock(&mutex);
      while (turn % 2 != me) pthread_cond_wait(&changed, &mutex);
      turn++;
      pthread_cond_broadcast(&changed);
      pthread_mutex_unlock(&mutex);
    }
  };
  auto other = [&] { play(1); };
  const pthread_t thread = start_thread(&other);
  play(0);
  join(thread);
  CHECK_EQ(turn, 2 * kRounds);
}

TEST(condition_wait_times_out) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t never = PTHREAD_COND_INITIALIZER;
  timespec until{};
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += 50'000'000;
  if (until.tv_nsec >= 1'000'000'000) until.tv_sec++, until.tv_nsec -= 1'000'000'000;
  pthread_mutex_lock(&mutex);
  const uint64_t start = now_ns();
  CHECK_EQ(pthread_cond_timedwait(&never, &mutex, &until), ETIMEDOUT);
  CHECK(now_ns() - start >= 45'000'000);
  pthread_mutex_unlock(&mutex);
}

thread_local int own_value = 5;

TEST(thread_local_storage_is_separate) {
  own_value = 6;
  int seen = 0;
  int *address = nullptr;
  auto body = [&] {
    seen = own_value;
    own_value = 9;
    address = &own_value;
  };
  join(start_thread(&body));
  CHECK_EQ(seen, 5);
  CHECK_EQ(own_value, 6);
  CHECK(address != &own_value);
}

TEST(thread_local_storage_survives_calls_and_signals) {
  on_signal(SIGUSR1, [](int) { own_value++; });
  auto body = [] {
    own_value = 100;
    for (int i = 0; i < 50; i++) {
      pthread_kill(pthread_self(), SIGUSR1);
      sched_yield();
    }
    CHECK_EQ(own_value, 150);
  };
  const pthread_t one = start_thread(&body), two = start_thread(&body);
  join(one);
  join(two);
}

TEST(detached_threads_end_alone) {
  static std::atomic<int> count;
  for (int i = 0; i < 20; i++) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    REQUIRE(pthread_create(
                &thread, &attributes,
                [](void *) -> void * {
                  count++;
                  return nullptr;
                },
                nullptr) == 0);
  }
  CHECK(eventually([] { return count == 20; }));
}

TEST_LIMIT(many_threads_in_turn, 60) {
  static std::atomic<int> count;
  auto body = [] { count++; };
  for (int i = 0; i < 200; i++) join(start_thread(&body));
  CHECK_EQ(count.load(), 200);
}

TEST(many_threads_at_once) {
  constexpr int kThreads = 32;
  static pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, nullptr, kThreads);
  auto body = [] { pthread_barrier_wait(&barrier); };
  pthread_t threads[kThreads];
  for (auto &thread : threads) thread = start_thread(&body);
  for (auto &thread : threads) join(thread);
}

TEST(exit_of_the_process_ends_all_threads) {
  const int status = run_child([] {
    auto forever = [] {
      for (;;) pause();
    };
    start_thread(&forever);
    auto spin = [] {
      for (volatile long i = 0;;) i = i + 1;
    };
    start_thread(&spin);
    sleep_ms(20);
    syscall(SYS_exit_group, 17);
  });
  CHECK_EQ(WEXITSTATUS(status), 17);
}

TEST(exit_of_the_main_thread_leaves_the_others) {
  const int status = run_child([] {
    auto body = [] {
      sleep_ms(50);
      _exit(21);
    };
    start_thread(&body);
    syscall(SYS_exit, 3);
  });
  CHECK_EQ(WEXITSTATUS(status), 21);
}

TEST(deadly_signal_in_one_thread_ends_all) {
  CHECK_EQ(death_of([] {
             auto body = [] { raise(SIGTERM); };
             start_thread(&body);
             for (;;) pause();
           }),
           SIGTERM);
}

TEST(fork_copies_only_the_calling_thread) {
  auto forever = [] {
    for (;;) pause();
  };
  start_thread(&forever);
  IN_CHILD([] {
    CHECK_EQ(syscall(SYS_gettid), getpid());
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == nullptr) return;
    while (const dirent *entry = readdir(tasks)) count += entry->d_name[0] != '.';
    CHECK_EQ(count, 1);
  });
}

TEST(signal_to_one_thread) {
  static std::atomic<long> receiver;
  static std::atomic<bool> ready;
  on_signal(SIGUSR1, [](int) { receiver = syscall(SYS_gettid); });
  static std::atomic<long> id;
  auto body = [] {
    id = syscall(SYS_gettid);
    ready = true;
    while (receiver == 0) sleep_ms(1);
  };
  const pthread_t thread = start_thread(&body);
  CHECK(eventually([] { return ready.load(); }));
  SYS(syscall(SYS_tgkill, getpid(), id.load(), SIGUSR1));
  join(thread);
  CHECK_EQ(receiver.load(), id.load());
}

TEST(process_signal_goes_to_a_thread_that_takes_it) {
  static std::atomic<long> receiver;
  on_signal(SIGUSR1, [](int) { receiver = syscall(SYS_gettid); });
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  static std::atomic<long> id;
  auto body = [] {
    id = syscall(SYS_gettid);
    while (receiver == 0) sleep_ms(1);
  };
  const pthread_t thread = start_thread(&body);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  CHECK(eventually([] { return id != 0; }));
  SYS(kill(getpid(), SIGUSR1));
  join(thread);
  CHECK_EQ(receiver.load(), id.load());
}

TEST(cancellation_interrupts_a_wait) {
  auto body = [] {
    for (;;) pause();
  };
  const pthread_t thread = start_thread(&body);
  sleep_ms(20);
  CHECK_EQ(pthread_cancel(thread), 0);
  void *result = nullptr;
  CHECK_EQ(pthread_join(thread, &result), 0);
  CHECK(result == PTHREAD_CANCELED);
}

TEST(robust_mutex_tells_of_a_dead_owner) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  static pthread_mutex_t mutex;
  pthread_mutex_init(&mutex, &attributes);
  auto body = [] { pthread_mutex_lock(&mutex); };  // ends with the lock held
  join(start_thread(&body));
  CHECK_EQ(pthread_mutex_lock(&mutex), EOWNERDEAD);
  CHECK_EQ(pthread_mutex_consistent(&mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
}

TEST(robust_mutex_between_processes) {
  auto *mutex = share<pthread_mutex_t>();
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(mutex, &attributes);
  run_child([&] {
    pthread_mutex_lock(mutex);
    raise(SIGKILL);
  });
  CHECK_EQ(pthread_mutex_lock(mutex), EOWNERDEAD);
}

TEST(semaphore_between_processes) {
  auto *semaphore = share<sem_t>();
  SYS(sem_init(semaphore, 1, 0));
  const pid_t child = start_child([&] {
    for (int i = 0; i < 100; i++) SYS(sem_post(semaphore));
  });
  for (int i = 0; i < 100; i++) SYS(sem_wait(semaphore));
  CHECK_EQ(wait_for(child), 0);
}

TEST(futex_wait_checks_the_value) {
  int word = 5;
  CHECK_ERRNO(futex(&word, FUTEX_WAIT, 4), EAGAIN);
  const timespec shortly{0, 30'000'000};
  const uint64_t start = now_ns();
  CHECK_ERRNO(futex(&word, FUTEX_WAIT_PRIVATE, 5, &shortly), ETIMEDOUT);
  CHECK(now_ns() - start >= 30'000'000);
  CHECK_EQ(futex(&word, FUTEX_WAKE, 1), 0);
  CHECK_ERRNO(futex(reinterpret_cast<char *>(&word) + 1, FUTEX_WAIT, 5), EINVAL);
  CHECK_ERRNO(futex(reinterpret_cast<void *>(4096), FUTEX_WAIT, 5), EFAULT);
  CHECK_ERRNO(futex(&word, 99, 5), ENOSYS);
  const timespec wrong{0, 2'000'000'000};
  CHECK_ERRNO(futex(&word, FUTEX_WAIT, 5, &wrong), EINVAL);
}

TEST(futex_wakes_as_many_as_asked) {
  struct Shared {
    volatile int word;
    std::atomic<int> waiting, woken;
  };
  auto *shared = share<Shared>();
  pid_t children[3];
  for (pid_t &child : children)
    child = start_child([&] {
      shared->waiting++;
      while (futex(&shared->word, FUTEX_WAIT, 0) == -1 && errno == EINTR) {
      }
      shared->woken++;
    });
  CHECK(eventually([&] { return shared->waiting == 3; }));
  sleep_ms(100);
  CHECK_EQ(futex(&shared->word, FUTEX_WAKE, 1), 1);
  CHECK(eventually([&] { return shared->woken == 1; }));
  sleep_ms(30);
  CHECK_EQ(shared->woken.load(), 1);
  CHECK_EQ(futex(&shared->word, FUTEX_WAKE, 100), 2);
  for (const pid_t child : children) CHECK_EQ(wait_for(child), 0);
}

TEST(futex_requeue_moves_waiters) {
  static volatile int first, second;
  static std::atomic<int> waiting, woken;
  auto body = [] {
    waiting++;
    futex(&first, FUTEX_WAIT_PRIVATE, 0);
    woken++;
  };
  pthread_t threads[3];
  for (auto &thread : threads) thread = start_thread(&body);
  CHECK(eventually([] { return waiting == 3; }));
  sleep_ms(100);
  CHECK_ERRNO(
      futex(&first, FUTEX_CMP_REQUEUE_PRIVATE, 1, reinterpret_cast<timespec *>(100), &second, 7),
      EAGAIN);
  CHECK_EQ(
      futex(&first, FUTEX_CMP_REQUEUE_PRIVATE, 1, reinterpret_cast<timespec *>(100), &second, 0),
      3);
  CHECK(eventually([] { return woken == 1; }));
  CHECK_EQ(futex(&first, FUTEX_WAKE_PRIVATE, 100), 0);
  CHECK_EQ(futex(&second, FUTEX_WAKE_PRIVATE, 100), 2);
  for (auto &thread : threads) join(thread);
}

TEST(futex_bitsets_select) {
  static volatile int word;
  static std::atomic<int> ready, woken;
  auto body = [] {
    ready = 1;
    syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, nullptr, nullptr, 4);
    woken = 1;
  };
  const pthread_t thread = start_thread(&body);
  CHECK(eventually([] { return ready == 1; }));
  sleep_ms(50);
  CHECK_EQ(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, nullptr, nullptr, 3), 0);
  CHECK_EQ(woken.load(), 0);
  CHECK_EQ(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, nullptr, nullptr, 6), 1);
  join(thread);
  CHECK_ERRNO(futex(&word, FUTEX_WAIT_BITSET, 0, nullptr, nullptr, 0), EINVAL);
  timespec past{};  // an absolute time that is over
  CHECK_ERRNO(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &past, nullptr, ~0u), ETIMEDOUT);
}

TEST(futex_wait_is_interrupted) {
  on_signal(SIGALRM, [](int) {});
  int word = 0;
  alarm(1);
  CHECK_ERRNO(futex(&word, FUTEX_WAIT, 0), EINTR);
}

TEST(futex_in_a_shared_file_mapping) {
  const int fd = make_file("file");
  SYS(ftruncate(fd, 4096));
  const auto map = [&] {
    return MAP(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  };
  auto *mine = reinterpret_cast<volatile int *>(map());
  const pid_t child = start_child([&] {
    auto *other = reinterpret_cast<volatile int *>(map());
    CHECK(static_cast<volatile void *>(other) != static_cast<volatile void *>(mine));
    while (*other == 0) futex(other, FUTEX_WAIT, 0);
  });
  sleep_ms(50);
  *mine = 1;
  futex(mine, FUTEX_WAKE, 1);
  CHECK_EQ(wait_for(child), 0);
}

TEST(thread_stacks_are_separate_and_guarded) {
  CHECK_EQ(death_of([] {
             auto body = [] {
               volatile char *here = static_cast<volatile char *>(__builtin_frame_address(0));
               for (long i = 0; i < 64l << 20; i += 4096) here[-i] = 1;
             };
             join(start_thread(&body));
           }),
           SIGSEGV);
}

}  // namespace

TAP_MAIN()
