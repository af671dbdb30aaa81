#include "debug/server/breakpoint_set.hpp"

namespace cowbird::debug {

Result<void> BreakpointSet::put(const Breakpoint &breakpoint) {
  auto done = target_.insert_breakpoint(breakpoint);
  if (!done.is(Errno::NoSpc)) return done;
  flush();  // those that wait for their removal may hold what is short
  return target_.insert_breakpoint(breakpoint);
}

Result<void> BreakpointSet::insert(const Breakpoint &breakpoint) {
  const auto found = held_.find(key(breakpoint));
  if (found != held_.end()) {
    if (found->second.breakpoint.conditions == breakpoint.conditions) {
      found->second.wanted = true;
      return {};
    }
    const auto old = std::move(found->second.breakpoint);
    held_.erase(found);
    TRY(target_.remove_breakpoint(old));
  }
  if (held_.size() >= kMax) flush();
  if (held_.size() >= kMax) return Err(Errno::NoSpc);
  TRY(put(breakpoint));
  held_[key(breakpoint)] = {breakpoint, true};
  return {};
}

Result<void> BreakpointSet::remove(const Breakpoint &breakpoint, bool lazy) {
  const auto found = held_.find(key(breakpoint));
  if (found == held_.end() || !found->second.wanted) return Err(Errno::NoEnt);
  if (lazy) {
    found->second.wanted = false;
    return {};
  }
  const auto old = std::move(found->second.breakpoint);
  held_.erase(found);
  return target_.remove_breakpoint(old);
}

void BreakpointSet::flush() {
  for (auto it = held_.begin(); it != held_.end();) {
    if (it->second.wanted) {
      ++it;
      continue;
    }
    // It fails where the process or its mapping has gone, and the breakpoint with it.
    (void)target_.remove_breakpoint(it->second.breakpoint);
    it = held_.erase(it);
  }
}

void BreakpointSet::clear() {
  for (auto &[unused, held] : held_) held.wanted = false;
  flush();
}

void BreakpointSet::forget(std::int64_t pid) {
  std::erase_if(held_, [&](const auto &entry) { return entry.second.breakpoint.pid == pid; });
}

void BreakpointSet::inherit(std::int64_t parent, std::int64_t child) {
  std::map<Key, Held> copies;
  for (const auto &[unused, held] : held_) {
    if (held.breakpoint.pid != parent) continue;
    auto copy = held;
    copy.breakpoint.pid = child;
    copies[key(copy.breakpoint)] = std::move(copy);
  }
  held_.merge(copies);
}

}  // namespace cowbird::debug
