#include "sched/run_queue.hpp"

#include <algorithm>
#include <array>

namespace cowbird {
namespace {

constexpr int kMinNice = -20;
constexpr int kMaxNice = 19;
constexpr unsigned kScaleShift = 16;

// 2^kScaleShift / weight for each nice value.
constexpr std::array<std::uint64_t, kMaxNice - kMinNice + 1> make_scales() {
  std::array<std::uint64_t, kMaxNice - kMinNice + 1> scales{};
  for (int nice = kMinNice; nice <= kMaxNice; ++nice) {
    double scale = 1 << kScaleShift;
    for (int i = 0; i < nice; ++i) scale *= 1.25;
    for (int i = 0; i > nice; --i) scale /= 1.25;
    scales[static_cast<std::size_t>(nice - kMinNice)] = static_cast<std::uint64_t>(scale);
  }
  return scales;
}
constexpr auto kScales = make_scales();

// How many of the first in the queue are looked at for one that ran on the same vCPU.
constexpr int kAffinityReach = 4;

}  // namespace

std::int64_t RunQueue::virtual_time(std::int64_t ns, int nice) {
  if (nice == 0) return ns;
  const auto index = static_cast<std::size_t>(std::clamp(nice, kMinNice, kMaxNice) - kMinNice);
  return static_cast<std::int64_t>((static_cast<__int128>(ns) * kScales[index]) >> kScaleShift);
}

void RunQueue::raise_floor(std::int64_t running) {
  std::int64_t smallest = running;
  if (!tree_.empty()) smallest = std::min(smallest, tree_.begin()->vruntime);
  if (smallest != INT64_MAX) floor_ = std::max(floor_, smallest);
}

void RunQueue::place_new(RunEntity &entity, std::int64_t running) {
  raise_floor(running);
  entity.vruntime = std::max(entity.vruntime, floor_);
}

void RunQueue::place_woken(RunEntity &entity, std::int64_t running) {
  raise_floor(running);
  entity.vruntime = std::max(entity.vruntime, floor_ - kSleeperCredit);
}

void RunQueue::push(RunEntity &entity) {
  entity.sequence = next_sequence_++;
  tree_.insert(entity);
}

void RunQueue::remove(RunEntity &entity) { tree_.erase(tree_.iterator_to(entity)); }

RunEntity *RunQueue::pop(int vcpu) {
  if (tree_.empty()) return nullptr;
  auto chosen = tree_.begin();
  if (chosen->last_vcpu >= 0 && chosen->last_vcpu != vcpu) {
    auto it = chosen;
    const std::int64_t limit = chosen->vruntime + kGranularity;
    for (int i = 1; i < kAffinityReach; ++i) {
      ++it;
      if (it == tree_.end() || it->vruntime > limit) break;
      if (it->last_vcpu == vcpu) {
        chosen = it;
        break;
      }
    }
  }
  RunEntity *const entity = &*chosen;
  tree_.erase(chosen);
  return entity;
}

}  // namespace cowbird
