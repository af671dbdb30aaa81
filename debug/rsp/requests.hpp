// What packets of gdb ask, parsed: pure functions from text to typed values. Text that is no such
// request gives nothing; sessions answer it with an error.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "debug/rsp/agent_expression.hpp"
#include "debug/target/target.hpp"

namespace cowbird::debug {

// A thread as packets name it. kAll: all; 0: any. Without multiprocess ids `pid` is 0.
std::optional<ThreadId> take_thread_id(std::string_view &text);
std::optional<ThreadId> parse_thread_id(std::string_view text);
// "p1.2", or "2" without multiprocess.
std::string thread_id_text(ThreadId id, bool multiprocess);

// Arguments of a packet, by a schema of one letter each and the character that must follow it:
//   n number   t thread   x text as hex digits   s text up to the character   b the rest, any bytes
// "n,n:b" is X's. A trailing '?' lets the arguments before it end there ("n,n?;s").
class Arguments {
 public:
  static std::optional<Arguments> parse(std::string_view schema, std::string_view text);
  std::uint64_t number(std::size_t i) const { return values_[i].number; }
  ThreadId thread(std::size_t i) const { return values_[i].thread; }
  const std::string &text(std::size_t i) const { return values_[i].text; }
  std::size_t count() const { return count_; }

 private:
  struct Value {
    std::uint64_t number = 0;
    ThreadId thread;
    std::string text;
  };
  static bool take(char letter, char delimiter, std::string_view &text, Value &value);
  static constexpr std::size_t kMax = 5;
  std::array<Value, kMax> values_;
  std::size_t count_ = 0;
};

// The actions of vCont, signals in Linux's numbers. Threads of an action without one: kAll.
std::optional<std::vector<ResumeAction>> parse_vcont(std::string_view actions);

// Z and z: what stands behind "Z0,": address, kind and conditions; `pid` is left to the session. A
// condition that only gdb can check makes the breakpoint one without conditions.
std::optional<Breakpoint> parse_breakpoint(char type, std::string_view text);

// What gdb says in qSupported that it can do: the names with '+'.
std::set<std::string, std::less<>> parse_features(std::string_view text);

}  // namespace cowbird::debug
