// Running one instruction whose place in the program is taken by an int3, without taking the int3
// out: a copy of it runs elsewhere, and what depends on its place is put right afterwards. Other
// threads cannot miss the breakpoint meanwhile.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.hpp"
#include "debug/host/code_patches.hpp"
#include "debug/host/tracee.hpp"

namespace cowbird::debug {

// How an instruction runs at another place.
struct OutOfLine {
  std::array<std::byte, 16> code{};  // the copy, then an int3
  std::uint8_t length = 0;           // of the original
  bool call = false;                 // pushes a return address that must be the original's
  bool absolute = false;             // its target does not depend on its place
  bool branch = false;               // of any kind
  bool system_call = false;          // `syscall`: may block
  bool repeated = false;             // a string instruction with a rep prefix
  std::int64_t displacement = 0;     // to the target of a relative branch
  // A register (0..7 as encoded) that stands in for rip in the copy's operand; -1: none.
  int base_register = -1;

  // Inval when the bytes are no instruction of 64-bit mode.
  static Result<OutOfLine> decode(std::span<const std::byte> bytes);
};

enum class StepResult : std::uint8_t {
  Done,       // the thread stands behind the instruction
  Entered,    // it stands in a system call that it has not made yet
  Signalled,  // a signal came with it: the instruction has not run, or not to its end
  Gone,       // the thread or the process has ended
};

// Runs the instruction at the thread's rip, whose own bytes are `bytes`, in the 16 bytes at
// `scratch`, which no thread executes. Returns as soon as the instruction is done, and does not
// wait for a system call. The journal of `patches` has it meanwhile. Inval: what is there is no
// instruction, or none that can run elsewhere; nothing has changed.
struct OutOfLineRun {
  StepResult result = StepResult::Done;
  TraceEvent event;  // of Signalled and Gone
};
Result<OutOfLineRun> run_out_of_line(Tracee &tracee, pid_t tid, std::span<const std::byte> bytes,
                                     std::uint64_t scratch, const CodePatches &patches);

}  // namespace cowbird::debug
