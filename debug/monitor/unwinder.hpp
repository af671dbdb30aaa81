// Unwinder: the frames of a stack in another process or in a core file, with the names of
// functions, files and lines, by libdw (elfutils). Its memory and first registers come from us, so
// that it works for a sleeping kernel thread as for one that runs. One thread; bounded: a broken
// stack gives the frames up to where it breaks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "debug/view/kernel_view.hpp"

namespace cowbird::debug {

// A program or library as it is loaded.
struct Module {
  std::string path;
  std::uint64_t base = 0;
};

struct StackFrame {
  std::uint64_t pc = 0;
  std::string function;  // demangled; empty when unknown
  std::uint64_t offset = 0;
  std::string object;  // the file's last component; empty when unknown
  std::string file;    // source; empty without debugging information
  int line = 0;
};
// "#0  0x000055... cowbird::yield()+0x12 at core/sched/thread.cpp:12"
std::string format_frame(std::size_t index, const StackFrame &frame);

class Unwinder {
 public:
  // Files that cannot be read are left out: their frames have no names and end the walk where they
  // need unwind information.
  Unwinder(MemoryReader &memory, const std::vector<Module> &modules);
  ~Unwinder();
  Unwinder(const Unwinder &) = delete;
  Unwinder &operator=(const Unwinder &) = delete;

  static constexpr std::size_t kMaxFrames = 200;
  // Innermost first. `complete` tells whether the end of the stack was reached.
  std::vector<StackFrame> unwind(const Registers &registers, bool &complete);
  StackFrame symbolise(std::uint64_t pc, bool is_return);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cowbird::debug
