#include <array>
#include <catch2/catch.hpp>
#include <set>
#include <vector>

#include "base/units.hpp"
#include "sched/run_queue.hpp"

using namespace cowbird;

namespace {

struct Entity : RunEntity {
  int nice = 0;
  std::int64_t used = 0;
};

// One vCPU that lets whoever is first run for a slice.
void run_slices(RunQueue &queue, int count, std::int64_t slice) {
  for (int i = 0; i < count; ++i) {
    auto *entity = static_cast<Entity *>(queue.pop(0));
    entity->used += slice;
    entity->vruntime += RunQueue::virtual_time(slice, entity->nice);
    entity->last_vcpu = 0;
    queue.push(*entity);
  }
}

}  // namespace

TEST_CASE("threads of one nice value share the time equally") {
  RunQueue queue;
  std::array<Entity, 5> entities;
  for (auto &entity : entities) queue.push(entity);
  run_slices(queue, 1000, 10 * kNsPerMs);
  for (auto &entity : entities) CHECK(entity.used == 200 * 10 * kNsPerMs);
  queue.clear();
}

TEST_CASE("a step of nice is a factor of 1.25") {
  RunQueue queue;
  Entity normal, nicer, meaner;
  nicer.nice = 5;
  meaner.nice = -5;
  for (auto *entity : {&normal, &nicer, &meaner}) queue.push(*entity);
  run_slices(queue, 20'000, kNsPerMs);
  const double factor = 1.25 * 1.25 * 1.25 * 1.25 * 1.25;
  CHECK(static_cast<double>(normal.used) / static_cast<double>(nicer.used) ==
        Approx(factor).epsilon(0.02));
  CHECK(static_cast<double>(meaner.used) / static_cast<double>(normal.used) ==
        Approx(factor).epsilon(0.02));
  CHECK(RunQueue::virtual_time(1000, 0) == 1000);
  CHECK(RunQueue::virtual_time(1000, 100) == RunQueue::virtual_time(1000, 19));
  queue.clear();
}

TEST_CASE("a sleeper comes first but cannot save time up") {
  RunQueue queue;
  Entity worker, sleeper;
  sleeper.vruntime = 0;
  worker.vruntime = 10 * kNsPerSec;  // on the vCPU
  queue.place_woken(sleeper, worker.vruntime);
  CHECK(sleeper.vruntime == worker.vruntime - RunQueue::kSleeperCredit);
  CHECK(RunQueue::preempts(sleeper, worker.vruntime));
  Entity fresh;
  queue.place_new(fresh, worker.vruntime);
  CHECK(fresh.vruntime == worker.vruntime);
  CHECK(!RunQueue::preempts(fresh, worker.vruntime));
  // Who has run more than others keeps that when it sleeps shortly.
  Entity busy;
  busy.vruntime = worker.vruntime + kNsPerSec;
  queue.place_woken(busy, worker.vruntime);
  CHECK(busy.vruntime == worker.vruntime + kNsPerSec);
}

TEST_CASE("a vCPU prefers who ran on it, but not at others' cost") {
  RunQueue queue;
  Entity near, far, late;
  far.last_vcpu = 1;
  near.last_vcpu = 0;
  near.vruntime = RunQueue::kGranularity / 2;
  late.last_vcpu = 2;
  late.vruntime = 2 * RunQueue::kGranularity;
  for (auto *entity : {&far, &near, &late}) queue.push(*entity);
  CHECK(queue.pop(0) == &near);
  CHECK(queue.pop(2) == &far);
  CHECK(queue.pop(0) == &late);
  CHECK(queue.pop(0) == nullptr);
}

TEST_CASE("equals run in the order in which they came") {
  RunQueue queue;
  std::array<Entity, 4> entities;
  for (auto &entity : entities) queue.push(entity);
  for (auto &entity : entities) CHECK(queue.pop(0) == &entity);
  CHECK(queue.empty());
}
