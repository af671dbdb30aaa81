// More than one processor: that two processes and two threads really run at the same time.
//
// A ping-pong over shared memory without any system call: with one processor each turn would cost a
// whole time slice, so that the rounds below would take minutes. The limit is generous; what is
// asserted is that the game ends. The speed is only reported.
#include <pthread.h>
#include <sched.h>

#include <atomic>

#include "tap.hpp"

namespace {

constexpr long kRounds = 100'000;
constexpr uint64_t kLimitNs = 60'000'000'000;

struct Game {
  std::atomic<long> turn;
};

// Plays one side; false when the time is up.
bool play(Game *game, long side) {
  const uint64_t start = now_ns();
  for (long round = side; round < 2 * kRounds; round += 2) {
    for (long spins = 0; game->turn.load(std::memory_order_acquire) != round; spins++)
      if (spins % 1'000'000 == 999'999 && now_ns() - start > kLimitNs) return false;
    game->turn.store(round + 1, std::memory_order_release);
  }
  return true;
}

void need_two_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  SYS(sched_getaffinity(0, sizeof set, &set));
  if (CPU_COUNT(&set) < 2) SKIP("this machine has one processor");
}

TEST_LIMIT(two_processes_run_at_once, 90) {
  need_two_processors();
  auto *game = share<Game>();
  const uint64_t start = now_ns();
  const pid_t child = start_child([&] { CHECK(play(game, 1)); });
  CHECK(play(game, 0));
  CHECK_EQ(wait_for(child), 0);
  note("%ld rounds between processes, %ld ns each", kRounds,
       static_cast<long>((now_ns() - start) / kRounds));
}

TEST_LIMIT(two_threads_run_at_once, 90) {
  need_two_processors();
  static Game game;
  pthread_t thread;
  REQUIRE(pthread_create(
              &thread, nullptr,
              [](void *) -> void * {
                return reinterpret_cast<void *>(static_cast<long>(play(&game, 1)));
              },
              nullptr) == 0);
  CHECK(play(&game, 0));
  void *won = nullptr;
  pthread_join(thread, &won);
  CHECK(won != nullptr);
}

volatile uint64_t seed = 88172645463325252ull;  // volatile: each call really works

uint64_t work() {
  uint64_t value = seed;
  for (long i = 0; i < 60'000'000; i++) {
    value ^= value << 13;
    value ^= value >> 7;
    value ^= value << 17;
  }
  return value;
}

TEST_LIMIT(two_workers_give_the_right_result, 90) {
  const uint64_t start = now_ns();
  const uint64_t alone = work();
  const uint64_t single = now_ns() - start;
  struct Results {
    volatile uint64_t of[2];
  };
  auto *results = share<Results>();
  const uint64_t together = now_ns();
  pid_t children[2];
  for (int i = 0; i < 2; i++) children[i] = start_child([&, i] { results->of[i] = work(); });
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(wait_for(children[i]), 0);
    CHECK(results->of[i] == alone);
  }
  const uint64_t both = now_ns() - together;
  note("one worker %ld ms, two at once %ld ms: %.2f of doing them in turn",
       static_cast<long>(single / 1'000'000), static_cast<long>(both / 1'000'000),
       static_cast<double>(both) / static_cast<double>(2 * single));
}

TEST_LIMIT(a_spinning_process_does_not_stop_the_others, 60) {
  pid_t spinners[4];
  for (pid_t &spinner : spinners)
    spinner = start_child([] {
      for (volatile long i = 0;;) i = i + 1;
    });
  for (int i = 0; i < 20; i++) {
    sleep_ms(5);
    CHECK_EQ(run_child([] {}), 0);
  }
  for (const pid_t spinner : spinners) {
    kill(spinner, SIGKILL);
    wait_for(spinner);
  }
}

}  // namespace

TAP_MAIN()
