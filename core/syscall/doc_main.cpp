// cowbird-syscall-doc: writes docs/system-calls.md, or with --check says whether it is up to date.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>

#include "syscall/rows.hpp"

int main(int argc, char **argv) {
  const bool check = argc == 3 && std::string_view(argv[1]) == "--check";
  if (argc != 2 && !check) {
    std::cerr << "Usage: cowbird-syscall-doc [--check] FILE\n";
    return 2;
  }
  const std::string path = argv[argc - 1];
  const std::string text = cowbird::render_syscall_docs(cowbird::syscall_rows_without_handlers());
  if (check) {
    std::ifstream in(path);
    std::stringstream old;
    old << in.rdbuf();
    if (in && old.str() == text) return 0;
    std::cerr << path << " is not what core/syscall/table.inc says. Run: ninja syscall-docs\n";
    return 1;
  }
  std::ofstream out(path);
  out << text;
  out.close();
  if (out) return 0;
  std::cerr << path << " could not be written.\n";
  return 1;
}
