#include "debug/rsp/requests.hpp"

#include <fmt/format.h>

#include "debug/rsp/hex.hpp"
#include "debug/rsp/signals.hpp"

namespace cowbird::debug {

namespace {

constexpr std::uint64_t kMaxId = 0x7fff'ffff'ffff;
constexpr std::size_t kMaxActions = 4096;
constexpr std::size_t kMaxConditions = 64;

bool take_prefix(std::string_view &text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// "-1", "0" or a number.
std::optional<std::int64_t> take_id(std::string_view &text) {
  if (take_prefix(text, "-1")) return kAll;
  const auto value = take_hex(text);
  if (!value || *value > kMaxId) return std::nullopt;
  return static_cast<std::int64_t>(*value);
}

// The part up to `delimiter`, which goes too; everything where it is not there.
std::string_view take_part(std::string_view &text, char delimiter) {
  const auto end = text.find(delimiter);
  const auto part = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return part;
}

// c, C05, s, S05, t, r10,20
std::optional<ResumeAction> parse_action(std::string_view text) {
  if (text.empty()) return std::nullopt;
  ResumeAction action{.thread = {kAll, kAll}};
  const char letter = text.front();
  text.remove_prefix(1);
  if (letter == 'C' || letter == 'S') {
    const auto signal = take_hex(text);
    if (!signal || *signal > 0xff) return std::nullopt;
    action.signal = signal_from_gdb(static_cast<unsigned>(*signal));
  }
  if (letter == 'r') {
    const auto low = take_hex(text);
    if (!low || !take_prefix(text, ",")) return std::nullopt;
    const auto high = take_hex(text);
    if (!high) return std::nullopt;
    action.range_low = *low;
    action.range_high = *high;
  }
  switch (letter) {
    case 'c':
    case 'C':
      action.kind = ResumeKind::Continue;
      break;
    case 's':
    case 'S':
      action.kind = ResumeKind::Step;
      break;
    // An empty range is a single step.
    case 'r':
      action.kind = action.range_low < action.range_high ? ResumeKind::StepRange : ResumeKind::Step;
      break;
    case 't':
      action.kind = ResumeKind::Stop;
      break;
    default:
      return std::nullopt;
  }
  return text.empty() ? std::optional(action) : std::nullopt;
}

// X<length>,<code>X<length>,<code>... up to ';' or the end.
bool take_conditions(std::string_view &text, std::vector<AgentExpression> &conditions) {
  bool all_checked_here = true;
  for (std::size_t count = 0; take_prefix(text, "X"); ++count) {
    const auto length = take_hex(text);
    if (count == kMaxConditions || !length || *length > AgentExpression::kMaxCode ||
        !take_prefix(text, ",") || text.size() < 2 * *length)
      return false;
    const auto code = from_hex(text.substr(0, 2 * *length));
    text.remove_prefix(2 * *length);
    if (!code) return false;
    auto expression = AgentExpression::parse(*code);
    if (expression)
      conditions.push_back(std::move(*expression));
    else if (expression.is(Errno::OpNotSupp))
      all_checked_here = false;
    else
      return false;
  }
  if (!all_checked_here) conditions.clear();
  return true;
}

}  // namespace

std::optional<ThreadId> take_thread_id(std::string_view &text) {
  if (!take_prefix(text, "p")) {
    const auto tid = take_id(text);
    if (!tid) return std::nullopt;
    return ThreadId{*tid == kAll ? kAll : 0, *tid};
  }
  const auto pid = take_id(text);
  if (!pid) return std::nullopt;
  if (!take_prefix(text, ".")) return ThreadId{*pid, kAll};
  const auto tid = take_id(text);
  if (!tid) return std::nullopt;
  return ThreadId{*pid, *tid};
}

std::optional<ThreadId> parse_thread_id(std::string_view text) {
  const auto id = take_thread_id(text);
  return text.empty() ? id : std::nullopt;
}

std::string thread_id_text(ThreadId id, bool multiprocess) {
  const auto part = [](std::int64_t n) {
    return n == kAll ? std::string("-1") : fmt::format("{:x}", n);
  };
  if (!multiprocess) return part(id.tid);
  return fmt::format("p{}.{}", part(id.pid), part(id.tid));
}

bool Arguments::take(char letter, char delimiter, std::string_view &text, Value &value) {
  switch (letter) {
    case 'n': {
      const auto number = take_hex(text);
      if (!number) return false;
      value.number = *number;
      break;
    }
    case 't': {
      const auto thread = take_thread_id(text);
      if (!thread) return false;
      value.thread = *thread;
      break;
    }
    case 'b':
      value.text = text;
      text = {};
      return true;
    default: {
      const auto end = delimiter == 0 ? text.size() : text.find(delimiter);
      const auto part = text.substr(0, end);
      text.remove_prefix(part.size());
      if (letter == 's') {
        value.text = part;
        break;
      }
      auto decoded = text_from_hex(part);
      if (!decoded) return false;
      value.text = std::move(*decoded);
    }
  }
  return true;
}

std::optional<Arguments> Arguments::parse(std::string_view schema, std::string_view text) {
  Arguments arguments;
  while (!schema.empty()) {
    const char letter = schema.front();
    schema.remove_prefix(1);
    const bool may_end = take_prefix(schema, "?");
    const char delimiter = schema.empty() ? '\0' : schema.front();
    if (!take(letter, delimiter, text, arguments.values_[arguments.count_])) return std::nullopt;
    ++arguments.count_;
    if (delimiter == 0 || (may_end && text.empty())) break;
    schema.remove_prefix(1);
    if (text.empty() || text.front() != delimiter) return std::nullopt;
    text.remove_prefix(1);
  }
  return text.empty() ? std::optional(std::move(arguments)) : std::nullopt;
}

std::optional<std::vector<ResumeAction>> parse_vcont(std::string_view actions) {
  std::vector<ResumeAction> list;
  while (!actions.empty()) {
    auto part = take_part(actions, ';');
    const auto what = take_part(part, ':');
    auto action = parse_action(what);
    if (!action || list.size() == kMaxActions) return std::nullopt;
    if (!part.empty()) {
      const auto thread = parse_thread_id(part);
      if (!thread) return std::nullopt;
      action->thread = *thread;
    }
    list.push_back(*action);
  }
  return list.empty() ? std::nullopt : std::optional(std::move(list));
}

std::optional<Breakpoint> parse_breakpoint(char type, std::string_view text) {
  if (type < '0' || type > '4') return std::nullopt;
  Breakpoint breakpoint;
  breakpoint.kind = static_cast<BreakpointKind>(type - '0');
  const auto address = take_hex(text);
  if (!address || !take_prefix(text, ",")) return std::nullopt;
  const auto size = take_hex(text);
  if (!size || *size > UINT32_MAX) return std::nullopt;
  breakpoint.address = *address;
  breakpoint.size = static_cast<std::uint32_t>(*size);
  while (take_prefix(text, ";"))
    if (!take_conditions(text, breakpoint.conditions)) return std::nullopt;
  return text.empty() ? std::optional(std::move(breakpoint)) : std::nullopt;
}

std::set<std::string, std::less<>> parse_features(std::string_view text) {
  std::set<std::string, std::less<>> features;
  while (!text.empty()) {
    const auto part = take_part(text, ';');
    if (part.ends_with('+')) features.emplace(part.substr(0, part.size() - 1));
  }
  return features;
}

}  // namespace cowbird::debug
