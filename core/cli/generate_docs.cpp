// generate_docs [--check] DOCS: writes the parts of the folder DOCS that are made from the
// program's own tables (the manual page, the tables of machine-file.md and uml-syntax.md), or with
// --check fails when they are not what they would be. `./dev docs` runs it; the tests run the
// check.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "cli/command_line.hpp"
#include "machine/schema.hpp"
#include "machine/uml_rules.hpp"

namespace {

namespace fs = std::filesystem;

constexpr const char *kBegin = "<!-- generated: begin -->\n";
constexpr const char *kEnd = "<!-- generated: end -->";

std::string read(const fs::path &path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// `text` with what stands between the marks replaced.
std::string replace_generated(std::string text, const std::string &generated) {
  const auto begin = text.find(kBegin);
  const auto end = text.find(kEnd);
  if (begin == std::string::npos || end == std::string::npos || end < begin) return {};
  const auto first = begin + std::string(kBegin).size();
  return text.replace(first, end - first, generated);
}

bool update(const fs::path &path, const std::string &text, bool check) {
  if (text.empty()) {
    std::fprintf(stderr, "%s has no marks of a generated part.\n", path.c_str());
    return false;
  }
  if (read(path) == text) return true;
  if (check) {
    std::fprintf(stderr, "%s is out of date. Run ./dev docs.\n", path.c_str());
    return false;
  }
  fs::create_directories(path.parent_path());
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  if (!out) std::fprintf(stderr, "%s cannot be written.\n", path.c_str());
  return static_cast<bool>(out);
}

}  // namespace

int main(int argc, char **argv) {
  const bool check = argc == 3 && std::string(argv[1]) == "--check";
  if (argc != 2 && !check) {
    std::fprintf(stderr, "Usage: generate_docs [--check] DOCS\n");
    return 2;
  }
  const fs::path docs = argv[argc - 1];
  const auto machine_file = docs / "machine-file.md";
  bool good = update(
      machine_file, replace_generated(read(machine_file), cowbird::machine_file_markdown()), check);
  const auto uml = docs / "uml-syntax.md";
  good &=
      update(uml, replace_generated(read(uml), "\n" + cowbird::uml_rules_markdown() + "\n"), check);
  good &= update(docs / "man" / "cowbird.1", cowbird::cli::man_page(cowbird::cli::command_docs()),
                 check);
  return good ? 0 : 1;
}
