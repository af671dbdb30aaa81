// The table as data, and the document made from it.
#include "syscall/rows.hpp"

#include <fmt/format.h>

namespace cowbird {
namespace {

using enum ArgKind;

constexpr SyscallRow kRows[] = {
#define SYSCALL(number, name, support, caveat, ...) \
  {number, #name, nullptr, Support::support, caveat, {__VA_ARGS__}},
#include "syscall/table.inc"
#undef SYSCALL
};

std::string_view support_word(Support support) {
  switch (support) {
    case Support::Full:
      return "full";
    case Support::Partial:
      return "partial";
    case Support::Refused:
      return "refused";
  }
  return "";
}

}  // namespace

std::span<const SyscallRow> syscall_rows_without_handlers() { return kRows; }

std::string render_syscall_docs(std::span<const SyscallRow> rows) {
  std::size_t counts[3] = {};
  for (const SyscallRow &row : rows) ++counts[static_cast<std::size_t>(row.support)];
  std::string text =
      "# System calls\n\n"
      "Made from `core/syscall/table.inc` by `cowbird-syscall-doc`; do not edit.\n\n"
      "*full*: as the manual page says. *partial*: the note says what is missing. *refused*: "
      "answered\nwith the error of a kernel without it. Every other number gets `ENOSYS` and is "
      "named once in\nthe kernel log.\n\n";
  text += fmt::format("{} full, {} partial, {} refused.\n\n", counts[0], counts[1], counts[2]);
  text += "| number | call | support | note |\n| ---: | --- | --- | --- |\n";
  for (const SyscallRow &row : rows) {
    text += fmt::format("| {} | `{}` | {} | {} |\n", row.number, row.name,
                        support_word(row.support), row.caveat);
  }
  text += "\n## Not implemented\n\n";
  std::string missing;
  std::size_t next = 0;
  for (std::uint64_t number = 0; number < 512; ++number) {
    while (next < rows.size() && rows[next].number < number) ++next;
    if (next < rows.size() && rows[next].number == number) continue;
    const std::string_view name = syscall_name(number);
    if (!name.empty()) missing += fmt::format("{}`{}`", missing.empty() ? "" : ", ", name);
  }
  return text + missing + "\n";
}

}  // namespace cowbird
