// Time: clock_gettime(2), nanosleep(2), clock_nanosleep(2), gettimeofday(2), time(2), times(2).
#include <sys/time.h>
#include <sys/times.h>

#include <algorithm>

#include "tap.hpp"

namespace {

// The clock by system call: what the C library does may go through the vDSO.
uint64_t clock_by_call(clockid_t clock) {
  timespec time{};
  SYS(syscall(SYS_clock_gettime, clock, &time));
  CHECK(time.tv_nsec >= 0 && time.tv_nsec < 1'000'000'000);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(time.tv_nsec);
}

void burn_ms(uint64_t ms) {
  const uint64_t until = now_ns() + ms * 1'000'000;
  while (now_ns() < until)
    for (volatile int i = 0; i < 10'000;) i = i + 1;
}

TEST(all_clocks_tell_something) {
  for (clockid_t clock :
       {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID,
        CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME}) {
    timespec resolution{};
    clock_by_call(clock);
    SYS(clock_getres(clock, &resolution));
    CHECK(resolution.tv_sec == 0 && resolution.tv_nsec > 0 && resolution.tv_nsec <= 100'000'000);
  }
  timespec time{};
  CHECK_ERRNO(syscall(SYS_clock_gettime, 99, &time), EINVAL);
  CHECK_ERRNO(syscall(SYS_clock_gettime, CLOCK_REALTIME, 16), EFAULT);
}

TEST(monotonic_clock_never_goes_back) {
  uint64_t last = 0;
  for (int i = 0; i < 20'000; i++) {
    const uint64_t now = i % 2 ? clock_by_call(CLOCK_MONOTONIC) : now_ns();
    REQUIRE(now >= last);
    last = now;
  }
}

TEST(monotonic_clock_is_one_for_all_processes) {
  const uint64_t before = now_ns();
  auto *seen = share<volatile uint64_t>();
  IN_CHILD([&] { *seen = now_ns(); });
  CHECK(*seen >= before);
  CHECK(now_ns() >= *seen);
}

TEST(clocks_advance_alike) {
  // How far apart they are, of the reading that was disturbed least.
  const auto distance = [] {
    uint64_t shortest = ~uint64_t{0};
    int64_t found = 0;
    for (int i = 0; i < 50; ++i) {
      const uint64_t before = clock_by_call(CLOCK_MONOTONIC), real = clock_by_call(CLOCK_REALTIME);
      const uint64_t took = clock_by_call(CLOCK_MONOTONIC) - before;
      if (took < shortest) found = static_cast<int64_t>(real - before);
      shortest = std::min(shortest, took);
    }
    return found;
  };
  const uint64_t real = clock_by_call(CLOCK_REALTIME);
  const int64_t before = distance();
  sleep_ms(100);
  const int64_t change = distance() - before;
  CHECK(clock_by_call(CLOCK_REALTIME) - real >= 90'000'000);
  CHECK(std::max(change, -change) < 50'000'000);
}

TEST(wall_clocks_agree) {
  timeval day{};
  SYS(syscall(SYS_gettimeofday, &day, nullptr));
  const time_t seconds = syscall(SYS_time, nullptr);
  const auto real = static_cast<time_t>(clock_by_call(CLOCK_REALTIME) / 1'000'000'000);
  // Read one after the other; the coarse ones may be a tick behind.
  CHECK(seconds >= day.tv_sec - 1);
  CHECK(real >= seconds - 1);
  CHECK(real - day.tv_sec < 60);
  CHECK(seconds > 1'600'000'000);
  time_t stored = 0;
  const time_t returned = time(&stored);
  CHECK_EQ(returned, stored);
  gettimeofday(&day, nullptr);
  CHECK(day.tv_usec >= 0 && day.tv_usec < 1'000'000);
}

TEST(sleeps_are_never_short) {
  for (const long ns : {1l, 1'000l, 1'000'000l, 20'000'000l, 150'000'000l}) {
    const timespec wanted{0, ns};
    const uint64_t start = clock_by_call(CLOCK_MONOTONIC);
    SYS(nanosleep(&wanted, nullptr));
    CHECK(clock_by_call(CLOCK_MONOTONIC) - start >= static_cast<uint64_t>(ns));
  }
  const timespec wrong{0, 1'000'000'000}, negative{-1, 0}, none{0, 0};
  CHECK_ERRNO(nanosleep(&wrong, nullptr), EINVAL);
  CHECK_ERRNO(nanosleep(&negative, nullptr), EINVAL);
  SYS(nanosleep(&none, nullptr));
  CHECK_ERRNO(syscall(SYS_nanosleep, 16, nullptr), EFAULT);
}

TEST(clock_nanosleep_until_a_time) {
  timespec until{};
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += 60'000'000;
  if (until.tv_nsec >= 1'000'000'000) until.tv_sec++, until.tv_nsec -= 1'000'000'000;
  CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr), 0);
  CHECK(now_ns() >=
        static_cast<uint64_t>(until.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(until.tv_nsec));
  const timespec past{1, 0}, shortly{0, 1000};
  CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &past, nullptr), 0);
  CHECK_EQ(clock_nanosleep(CLOCK_REALTIME, 0, &shortly, nullptr), 0);
  CHECK_EQ(clock_nanosleep(static_cast<clockid_t>(99), 0, &past, nullptr), EINVAL);
}

TEST(sleepers_wake_in_order) {
  auto *count = share<volatile int>();
  pid_t children[5];
  // Times of the clock, so that it does not matter when each of them starts.
  const uint64_t start = clock_by_call(CLOCK_MONOTONIC);
  for (int i = 0; i < 5; i++)
    children[i] = start_child([&, i] {
      const uint64_t until = start + (200 + 150 * static_cast<uint64_t>(4 - i)) * 1'000'000;
      const timespec time{static_cast<time_t>(until / 1'000'000'000),
                          static_cast<long>(until % 1'000'000'000)};
      CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr), 0);
      CHECK_EQ(__atomic_fetch_add(count, 1, __ATOMIC_SEQ_CST), 4 - i);
    });
  for (const pid_t child : children) CHECK_EQ(wait_for(child), 0);
}

TEST(processor_time_counts_work_not_sleep) {
  const uint64_t start = clock_by_call(CLOCK_PROCESS_CPUTIME_ID);
  sleep_ms(100);
  const uint64_t slept = clock_by_call(CLOCK_PROCESS_CPUTIME_ID) - start;
  CHECK(slept < 60'000'000);
  burn_ms(100);
  CHECK(clock_by_call(CLOCK_PROCESS_CPUTIME_ID) - start - slept > 10'000'000);
  CHECK(clock_by_call(CLOCK_THREAD_CPUTIME_ID) > 0);
}

TEST(times_counts_ticks) {
  struct tms before {
  }, after{};
  const clock_t start = times(&before);
  burn_ms(150);
  const clock_t end = times(&after);
  CHECK(end - start >= 14);
  CHECK((after.tms_utime + after.tms_stime) - (before.tms_utime + before.tms_stime) >= 2);
}

}  // namespace

TAP_MAIN()
