// A program's memory as execve builds it: a fresh address space with the program, its interpreter
// and its first stack. Used by proc/exec.cpp only.
#pragma once

#include <string>
#include <vector>

#include "proc/task.hpp"

namespace cowbird {

struct ImageRequest {
  Ref<File> file;         // the ELF program
  Ref<File> interpreter;  // set by load_image when the program names one
  std::vector<std::string> argv, envp;
  std::string name;  // AT_EXECFN
  Credentials credentials;
  bool secure = false;
  bool randomise = true;
  std::uint64_t stack_limit = 0;
};

struct Image {
  Ref<Mm> mm;
  std::unique_ptr<Context> context;
  VirtAddr entry = 0, stack = 0;
};

// The name of the interpreter that the program asks for; empty when there is none. NoExec when the
// file is no program.
Result<std::string> interpreter_of(File &file);
// Errors leave nothing behind. May sleep.
Result<Image> load_image(const ImageRequest &request);
// Reads up to bytes.size() bytes at `offset`; how many there were.
Result<std::size_t> read_file_at(File &file, std::uint64_t offset, std::span<std::byte> bytes);

// The bytes and pointers of the first stack (psABI 3.4.1), laid out below `top`.
struct StackImage {
  std::vector<std::byte> bytes;  // from `pointer` to `top`
  VirtAddr pointer = 0;
  VirtAddr arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
  std::vector<std::uint64_t> auxv;
};
struct StackInput {
  std::span<const std::string> argv, envp;
  std::string_view name;
  // Types and values without AT_RANDOM, AT_PLATFORM, AT_EXECFN and AT_NULL, which are added.
  std::span<const std::uint64_t> auxv;
  std::span<const std::byte, 16> random;
  VirtAddr top = 0;  // 16-byte aligned
};
StackImage build_stack(const StackInput &input);

}  // namespace cowbird
