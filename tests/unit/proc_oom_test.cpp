// The OOM killer's choice, with processes that never run: how they end is up to the test.
#include <catch2/catch.hpp>

#include "proc/proc_internal.hpp"
#include "proc/signal_internal.hpp"
#include "sched/clock.hpp"
#include "unit/mm_support.hpp"

using namespace cowbird;
using namespace cowbird::mm_test;

namespace {

std::int64_t now_ns = 0;

// A process of one task, with so many pages of memory of its own.
struct Program {
  Program(Machine &machine, int pid, std::uint64_t pages, const Ref<Mm> &mm = {})
      : process(make_process()), task(TaskFactory::make("program")) {
    process->pid = process->pgid = process->sid = task->tid = pid;
    process->handlers = make_ref<SignalHandlers>();
    task->process = process;
    task->set_comm("program");
    attach_mm(*task, mm ? mm : machine.new_mm());
    process->tasks.push_back(task.get());
    publish_process(*process);
    publish_task(*task);
    if (pages == 0) return;
    memory = map_anon(*task->mm, pages);
    for (std::uint64_t i = 0; i < pages; ++i) store8(*task->mm, memory + (i << kPageShift), 'm');
  }
  ~Program() {
    end();
    process->tasks.clear();
    retire_task(*task);
    retire_process(*process);
  }
  // What the task's end does to the memory.
  void end() { release_mm(*task); }
  std::uint64_t resident() const { return task->mm ? task->mm->usage().resident_anon : 0; }

  Ref<Process> process;
  Ref<Task> task;
  VirtAddr memory = 0;
};

struct Clock {
  Clock() {
    now_ns = kNsPerSec;
    clock::set_source([] { return now_ns; });
  }
  ~Clock() { clock::set_source(nullptr); }
};

}  // namespace

MM_TEST("out of memory: the largest is killed, and the next only when its memory has come back") {
  Machine machine;
  const Clock clock;
  Program small(machine, 10, 20), large(machine, 11, 100);
  REQUIRE(kill_for_memory());
  CHECK(large.process->exiting);
  CHECK(!small.process->exiting);
  now_ns += kNsPerSec;
  REQUIRE(kill_for_memory());
  CHECK(!small.process->exiting);
  large.end();
  REQUIRE(kill_for_memory());
  CHECK(small.process->exiting);
}

MM_TEST("out of memory: a victim that takes long loses its memory, and nobody else is killed") {
  Machine machine;
  const Clock clock;
  Program small(machine, 10, 20), large(machine, 11, 100);
  const VirtAddr shared = map_anon(*large.task->mm, 1, kReadWrite, Sharing::Shared);
  store8(*large.task->mm, shared, 's');
  REQUIRE(kill_for_memory());
  now_ns += 10 * kNsPerSec;
  REQUIRE(kill_for_memory());
  CHECK(!small.process->exiting);
  CHECK(large.resident() == 0);
  // Its kernel code must not take what is gone for zeros.
  CHECK(large.task->mm->handle_fault(large.memory, FaultAccess::Read) == FaultOutcome::Interrupted);
  CHECK(load8(*large.task->mm, shared) == 's');
  CHECK(load8(*small.task->mm, small.memory) == 'm');
  // That was not enough.
  REQUIRE(kill_for_memory());
  CHECK(small.process->exiting);
}

MM_TEST("out of memory: who ends by itself is waited for") {
  Machine machine;
  const Clock clock;
  Program small(machine, 10, 20), large(machine, 11, 100);
  begin_process_exit(*large.process, 0);
  REQUIRE(kill_for_memory());
  CHECK(!small.process->exiting);
  now_ns += 10 * kNsPerSec;
  REQUIRE(kill_for_memory());
  CHECK(!small.process->exiting);
  CHECK(large.resident() == 0);
}

MM_TEST("out of memory: all who share the memory end") {
  Machine machine;
  const Clock clock;
  Program small(machine, 10, 20), large(machine, 11, 100), sharer(machine, 12, 0, large.task->mm);
  REQUIRE(kill_for_memory());
  CHECK(large.process->exiting);
  CHECK(sharer.process->exiting);
  CHECK(!small.process->exiting);
}

MM_TEST("out of memory: memory that a protected process shares is not taken") {
  Machine machine;
  const Clock clock;
  Program small(machine, 10, 20), large(machine, 11, 100), sharer(machine, 12, 0, large.task->mm);
  sharer.task->oom_score_adj = -1000;
  REQUIRE(kill_for_memory());
  CHECK(!sharer.process->exiting);
  now_ns += 10 * kNsPerSec;
  REQUIRE(kill_for_memory());
  CHECK(small.process->exiting);
  CHECK(load8(*sharer.task->mm, large.memory) == 'm');
}

MM_TEST("out of memory: without anybody to kill there is nothing to wait for") {
  Machine machine;
  const Clock clock;
  Program one(machine, 10, 20);
  one.task->oom_score_adj = -1000;
  CHECK(!kill_for_memory());
}
