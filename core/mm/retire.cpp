#include "mm/retire.hpp"

#include "base/log.hpp"

namespace cowbird {

std::uint64_t FrameBatch::put_all() {
  if (runs_.empty()) return 0;
  PhysMemory &memory = phys();
  const std::uint64_t before = memory.free_pages();
  for (const PageRun &run : runs_)
    for (Pfn pfn = run.first; pfn < run.first + run.count; ++pfn) memory.put(pfn);
  runs_.clear();
  return memory.free_pages() - before;
}

RetireQueue::Queues &RetireQueue::queues() {
  static Queues list;
  return list;
}

RetireQueue::~RetireQueue() { KASSERT(batches_.empty() && waiters_ == 0); }

void RetireQueue::retire(FrameBatch &&frames) {
  if (frames.empty()) return;
  const SyncPoint point = space_->sync_point();
  if (!batches_.empty() && batches_.back().point == point) {
    batches_.back().frames.append(std::move(frames));
  } else {
    batches_.push_back({point, std::move(frames)});
  }
  if (!link_.linked()) queues().push_back(*this);
}

std::uint64_t RetireQueue::reap() {
  std::uint64_t freed = 0;
  while (!batches_.empty() && (space_->dead() || space_->reached(batches_.front().point))) {
    freed += batches_.front().frames.put_all();
    batches_.pop_front();
  }
  if (batches_.empty() && !owned_space_) link_.unlink();
  return freed;
}

void RetireQueue::free_abandoned(RetireQueue *queue) {
  if (queue->owned_space_ && queue->batches_.empty() && queue->waiters_ == 0) delete queue;
}

void RetireQueue::abandon(std::unique_ptr<RetireQueue> queue, std::unique_ptr<AddressSpace> space) {
  queue->owned_space_ = std::move(space);
  RetireQueue *raw = queue.release();
  if (!raw->link_.linked()) queues().push_back(*raw);
  raw->reap();
  free_abandoned(raw);
}

std::uint64_t RetireQueue::reap_all() {
  std::uint64_t freed = 0;
  auto &list = queues();
  for (auto it = list.begin(); it != list.end();) {
    RetireQueue &queue = *it;
    ++it;
    freed += queue.reap();
    // No thread of an abandoned address space comes by to have the rest applied.
    if (queue.owned_space_ && !queue.batches_.empty()) queue.space_->flush();
    free_abandoned(&queue);
  }
  return freed;
}

std::uint64_t RetireQueue::wait_all() {
  // The list changes while the lock is dropped, so each round takes the first queue that still has
  // something older than the call. Rounds are bounded by the queues there are at the beginning.
  std::uint64_t freed = 0;
  for (std::size_t rounds = queues().size(); rounds > 0 && !queues().empty(); --rounds) {
    RetireQueue &queue = *queues().front();
    // To the end, so that a queue which cannot finish does not hide the others.
    queue.link_.unlink();
    queues().push_back(queue);
    if (!queue.batches_.empty()) {
      ++queue.waiters_;
      queue.space_->synchronize(queue.batches_.back().point);
      --queue.waiters_;
    }
    freed += queue.reap();
    free_abandoned(&queue);
  }
  return freed;
}

bool RetireQueue::all_empty() { return queues().empty(); }

}  // namespace cowbird
