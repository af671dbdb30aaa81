// BreakpointSet: what gdb has asked for against what the target holds. gdb takes all breakpoints
// out at each stop and puts them back before each resume; with most of them nothing has changed, so
// in all-stop mode a removal waits until the target is to run. Used by the session.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>

#include "base/result.hpp"
#include "debug/target/target.hpp"

namespace cowbird::debug {

class BreakpointSet {
 public:
  static constexpr std::size_t kMax = 16384;

  explicit BreakpointSet(Target &target) : target_(target) {}

  // Inserting what is there with the same conditions does nothing. `lazy`: all-stop mode, in which
  // nothing runs until flush(). Errors are the target's, NoSpc also when there are kMax.
  Result<void> insert(const Breakpoint &breakpoint);
  // NoEnt: there is none.
  Result<void> remove(const Breakpoint &breakpoint, bool lazy);
  // Before the target runs.
  void flush();
  // Takes all out (`?` of a new gdb), or forgets them where the target has taken them out itself.
  void clear();
  void forget() { held_.clear(); }
  void forget(std::int64_t pid);
  // A fork has copied the parent's memory, breakpoints and all.
  void inherit(std::int64_t parent, std::int64_t child);

 private:
  struct Held {
    Breakpoint breakpoint;
    bool wanted = true;
  };
  using Key = std::tuple<std::int64_t, BreakpointKind, std::uint64_t, std::uint32_t>;
  static Key key(const Breakpoint &b) { return {b.pid, b.kind, b.address, b.size}; }
  Result<void> put(const Breakpoint &breakpoint);

  Target &target_;
  std::map<Key, Held> held_;
};

}  // namespace cowbird::debug
