#include "engine/order_queue.hpp"

#include <iterator>
#include <vector>

namespace cowbird {

namespace {
constexpr VirtAddr end_of(VirtAddr address, std::uint64_t pages) {
  return address + (pages << kPageShift);
}
}  // namespace

void OrderQueue::split(VirtAddr address) {
  auto it = runs_.upper_bound(address);
  if (it == runs_.begin()) return;
  --it;
  if (it->first >= address || it->second.end <= address) return;
  const Run tail{it->second.end, it->second.first + ((address - it->first) >> kPageShift),
                 it->second.prot};
  it->second.end = address;
  runs_.emplace_hint(std::next(it), address, tail);
}

void OrderQueue::insert(VirtAddr address, std::uint64_t pages, Pfn first, Prot prot) {
  const VirtAddr end = end_of(address, pages);
  split(address);
  split(end);
  auto next = runs_.erase(runs_.lower_bound(address), runs_.lower_bound(end));
  VirtAddr run_end = end;
  if (next != runs_.end() && next->first == end && next->second.prot == prot &&
      next->second.first == first + pages) {
    run_end = next->second.end;
    next = runs_.erase(next);
  }
  if (next != runs_.begin()) {
    auto previous = std::prev(next);
    const std::uint64_t length = (previous->second.end - previous->first) >> kPageShift;
    if (previous->second.end == address && previous->second.prot == prot &&
        previous->second.first + length == first) {
      previous->second.end = run_end;
      return;
    }
  }
  runs_.emplace_hint(next, address, Run{run_end, first, prot});
}

bool OrderQueue::join_last(const Order &order) {
  if (pending_.empty()) return false;
  Order &last = pending_.back();
  if (last.kind != order.kind || last.prot != order.prot || last.populate != order.populate)
    return false;
  const bool after = end_of(last.address, last.pages) == order.address;
  switch (order.kind) {
    case Order::Kind::Map:
      if (!after || last.first + last.pages != order.first) return false;
      break;
    case Order::Kind::Unmap:
    case Order::Kind::Protect:
      if (!after) return false;
      break;
    default:
      return false;
  }
  last.pages += order.pages;
  last.point = ++last_point_;
  return true;
}

void OrderQueue::push(Order order) {
  if (join_last(order)) return;
  order.point = ++last_point_;
  pending_.push_back(order);
  if (pending_.size() > kMaxPending || runs_.size() > max_runs_) unmap_all();
}

void OrderQueue::map(VirtAddr address, Pfn first, std::uint64_t pages, Prot prot, bool populate) {
  if (pages == 0) return;
  if (prot == Prot::None) return unmap(address, pages);
  insert(address, pages, first, prot);
  push({.kind = Order::Kind::Map,
        .prot = prot,
        .populate = populate,
        .address = address,
        .pages = pages,
        .first = first});
}

void OrderQueue::unmap(VirtAddr address, std::uint64_t pages) {
  const VirtAddr end = end_of(address, pages);
  split(address);
  split(end);
  const auto from = runs_.lower_bound(address), to = runs_.lower_bound(end);
  if (from == to) return;
  const VirtAddr low = from->first, high = std::prev(to)->second.end;
  runs_.erase(from, to);
  push({.kind = Order::Kind::Unmap, .address = low, .pages = (high - low) >> kPageShift});
}

void OrderQueue::protect(VirtAddr address, std::uint64_t pages, Prot prot) {
  if (prot == Prot::None) return unmap(address, pages);
  const VirtAddr end = end_of(address, pages);
  split(address);
  split(end);
  // One order for each stretch without holes (mprotect stops at a hole) that needs the change. They
  // are pushed afterwards, because that may drop all runs.
  std::vector<Order> orders;
  const auto to = runs_.lower_bound(end);
  for (auto it = runs_.lower_bound(address); it != to; ++it) {
    if (it->second.prot == prot) continue;
    it->second.prot = prot;
    const std::uint64_t length = (it->second.end - it->first) >> kPageShift;
    if (!orders.empty() && end_of(orders.back().address, orders.back().pages) == it->first) {
      orders.back().pages += length;
    } else {
      orders.push_back(
          {.kind = Order::Kind::Protect, .prot = prot, .address = it->first, .pages = length});
    }
  }
  for (const Order &order : orders) push(order);
}

void OrderQueue::unmap_all() {
  runs_.clear();
  std::erase_if(pending_, [](const Order &order) {
    return order.kind != Order::Kind::NewThread && order.kind != Order::Kind::MapMailbox;
  });
  pending_.push_back({.kind = Order::Kind::UnmapAll, .point = ++last_point_});
}

void OrderQueue::new_thread(unsigned slot) {
  pending_.push_back({.kind = Order::Kind::MapMailbox, .slot = slot, .point = ++last_point_});
  pending_.push_back({.kind = Order::Kind::NewThread, .slot = slot, .point = ++last_point_});
}

void OrderQueue::forget_mappings() {
  // Orders on their way may have mapped things after the stub's own flush, so flush once more.
  unmap_all();
}

}  // namespace cowbird
