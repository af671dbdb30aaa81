// Several kernel threads at once in mm/: who sleeps for a page, and what has changed meanwhile.
#include <catch2/catch.hpp>

#include "unit/mm_support.hpp"
#include "unit/sched_support.hpp"

using namespace cowbird;
using namespace cowbird::mm_test;

namespace {

// Runs all bodies as kernel threads at once, each under the big kernel lock.
void run_together(std::vector<std::function<void()>> bodies) {
  test::Machine scheduler(2);
  scheduler.run(std::move(bodies));
}

// Lets the other threads go on until they sleep or are done too.
void let_others_run() {
  for (int i = 0; i < 50; ++i) yield();
}

}  // namespace

TEST_CASE("two threads that want the same page read it once", "[mm]") {
  Machine machine;
  Ref<TestFile> file = make_ref<TestFile>(4 * kPageSize);
  file->content[0] = 42;
  Pfn first = 0;
  Pfn second = 0;
  file->during_fill = let_others_run;
  run_together(
      {[&] { first = file->get_page(0).value(); }, [&] { second = file->get_page(0).value(); }});
  CHECK(first == second);
  CHECK(file->fills == 1);
  CHECK(phys().refs(first) == 3);
  phys().put(first);
  phys().put(second);
}

TEST_CASE("an area that is unmapped while its page is read is a fault without a mapping", "[mm]") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  Ref<TestFile> file = make_ref<TestFile>(4 * kPageSize);
  const VirtAddr at = map_file(*mm, file, 4, kRead, Sharing::Private);
  WaitQueue reading;
  bool begun = false;
  bool unmapped = false;
  file->during_fill = [&] {
    begun = true;
    reading.wake_all();
    static_cast<void>(wait_event(
        reading, [&] { return unmapped; }, SleepMode::Uninterruptible, "test"));
  };
  FaultOutcome outcome = FaultOutcome::Resolved;
  run_together({[&] { outcome = mm->handle_fault(at, FaultAccess::Read); },
                [&] {
                  static_cast<void>(wait_event(
                      reading, [&] { return begun; }, SleepMode::Uninterruptible, "test"));
                  CHECK(mm->munmap(at, 4 * kPageSize));
                  unmapped = true;
                  reading.wake_all();
                }});
  CHECK(outcome == FaultOutcome::NoMapping);
  CHECK(mm->usage().resident_file == 0);
}

TEST_CASE("a second write-back waits until the first has stored the page", "[mm]") {
  Machine machine;
  Ref<TestFile> file = make_ref<TestFile>(4 * kPageSize);
  phys().put(file->get_page(2).value());
  file->mark_dirty(2);
  bool stored = false;
  bool waited = false;
  file->during_store = [&] {
    let_others_run();
    stored = true;
  };
  auto store = [&] {
    CHECK(file->write_back(0, ~0ull));
    waited |= stored;
    CHECK(stored);
  };
  run_together({store, store});
  CHECK(waited);
  CHECK(file->stores == 1);
}

TEST_CASE("threads fault the same pages in together", "[mm]") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  mm->users = 3;
  Ref<TestFile> file = make_ref<TestFile>(64 * kPageSize);
  for (std::size_t i = 0; i < 64; ++i) file->content[i * kPageSize] = static_cast<unsigned char>(i);
  const VirtAddr at = map_file(*mm, file, 64, kReadWrite, Sharing::Private);
  auto work = [&](int step) {
    return [&, step] {
      for (int i = 0; i < 64; ++i) {
        const int page = (i * step) % 64;
        file->during_fill = [] { yield(); };
        CHECK(load8(*mm, at + page * kPageSize) == page);
        CHECK(store8(*mm, at + page * kPageSize + step, step) == FaultOutcome::Resolved);
      }
    };
  };
  run_together({work(1), work(3), work(5)});
  for (int page = 0; page < 64; ++page) {
    CHECK(load8(*mm, at + page * kPageSize) == page);
    for (int step : {1, 3, 5}) CHECK(load8(*mm, at + page * kPageSize + step) == step);
  }
  CHECK(mm->usage().resident_anon == 64);
  mm->users = 0;
}
