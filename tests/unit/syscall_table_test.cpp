// The rows of the system call table: sorted, unique, with the names that Linux gives the numbers.
#include <catch2/catch.hpp>

#include "syscall/rows.hpp"

using namespace cowbird;

TEST_CASE("Rows are sorted by number and bear the numbers' names") {
  int last = -1;
  for (const SyscallRow &row : syscall_rows_without_handlers()) {
    INFO("row " << row.number << " " << row.name);
    CHECK(static_cast<int>(row.number) > last);
    CHECK(row.name == syscall_name(row.number));
    last = row.number;
  }
}

TEST_CASE("A row that is not full says what is missing, and a full one says nothing") {
  for (const SyscallRow &row : syscall_rows_without_handlers()) {
    INFO("row " << row.number << " " << row.name);
    CHECK((row.support == Support::Full) == row.caveat.empty());
    CHECK(row.caveat.find('|') == std::string_view::npos);
    CHECK(row.caveat.find('\n') == std::string_view::npos);
  }
}

TEST_CASE("Names reach from read to mseal, with gaps") {
  CHECK(syscall_name(0) == "read");
  CHECK(syscall_name(231) == "exit_group");
  CHECK(syscall_name(335) == "uretprobe");
  CHECK(syscall_name(400).empty());
  CHECK(syscall_name(462) == "mseal");
  CHECK(syscall_name(463).empty());
  CHECK(syscall_name(~0ull).empty());
}

TEST_CASE("The document names every row and what is not implemented") {
  const std::string text = render_syscall_docs(syscall_rows_without_handlers());
  for (const SyscallRow &row : syscall_rows_without_handlers()) {
    CHECK(text.find("`" + std::string(row.name) + "`") != std::string::npos);
  }
  CHECK(text.find("## Not implemented") != std::string::npos);
}
