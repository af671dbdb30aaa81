// Where instructions run whose own places are taken by int3s. One place is for single steps
// (out_of_line.hpp). The others are lasting: a copy of an instruction with a jump behind the
// original, so that a thread passes a breakpoint without stopping a second time.
//
// A thread may stand on such a place when it stops for something else. original() says where it
// would be without us; Tracee::correct_registers puts it there before anybody looks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "base/result.hpp"
#include "debug/host/code_patches.hpp"
#include "debug/host/tracee.hpp"

namespace cowbird::debug {

class StepPlaces {
 public:
  StepPlaces() = default;
  // kRoom bytes of executable memory that the program keeps for debuggers, cowbird_debug_room of
  // the kernel. Nothing in it is run by a thread that stands still there now.
  static constexpr std::size_t kRoom = 4096;
  static StepPlaces in_room(std::uint64_t address);
  // Sixteen bytes of code that are not run any more: single steps only. They are put back by
  // leave().
  static StepPlaces over_code(Tracee &tracee, std::uint64_t address);

  bool ready() const { return scratch_ != 0; }
  std::uint64_t scratch() const { return scratch_; }
  // Where a thread that stands on the int3 at `address` can go on; 0: it must be stepped.
  std::uint64_t continuation(Tracee &tracee, std::uint64_t address, const CodePatches &patches);
  // nullopt: no place of ours.
  std::optional<std::uint64_t> original(std::uint64_t rip) const;
  // Bytes that were read from `address` on get what the program has there.
  void hide(std::uint64_t address, std::span<std::byte> bytes) const;
  // No thread is on a place, and none will come.
  void leave(Tracee &tracee);

 private:
  struct Place {
    std::uint64_t address = 0;  // 0: what is there cannot run here
    std::uint64_t from = 0;
    std::array<std::byte, 15> bytes{};  // it was made of these
    std::uint8_t length = 0;            // of the instruction
  };
  static constexpr std::size_t kPlace = 32;
  Place make(Tracee &tracee, std::uint64_t from, std::span<const std::byte> bytes);

  std::uint64_t scratch_ = 0;
  std::optional<std::array<std::byte, 16>> covered_;  // by the scratch place
  std::uint64_t room_ = 0;
  std::size_t taken_ = 0;
  std::map<std::uint64_t, Place> by_origin_;
  std::map<std::uint64_t, Place> by_place_;
};

}  // namespace cowbird::debug
