#include "base/own_program.hpp"

#include <sys/auxv.h>
#include <unistd.h>

#include <climits>
#include <cstdint>
#include <cstdlib>
#include <filesystem>

namespace cowbird {
namespace {

constexpr const char *kLink = "/proc/self/exe";

char noted_path[PATH_MAX];
std::vector<std::string> &noted_words() {
  static std::vector<std::string> words;
  return words;
}

}  // namespace

void note_own_program(int argc, const char *const *argv) {
  noted_words().assign(argv, argv + argc);
  // The name that execve was given.
  const auto name = static_cast<std::uintptr_t>(::getauxval(AT_EXECFN));
  if (name == 0 || !::realpath(reinterpret_cast<const char *>(name), noted_path))
    noted_path[0] = '\0';
}

const char *own_program() { return ::access(kLink, X_OK) == 0 ? kLink : noted_path; }

std::string own_program_path() {
  std::error_code failed;
  const std::filesystem::path program = std::filesystem::read_symlink(kLink, failed);
  return failed ? noted_path : program.string();
}

std::vector<std::string> own_words() { return noted_words(); }

}  // namespace cowbird
