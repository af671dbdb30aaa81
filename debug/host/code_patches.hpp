// int3 instructions in the memory of a traced process: put in and taken out by count, hidden from
// who reads the memory and kept when somebody writes over them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "debug/host/tracee.hpp"

namespace cowbird::debug {

inline constexpr std::byte kInt3{0xcc};

class CodePatches {
 public:
  // Each insert needs its remove. Fault: there is no memory.
  Result<void> insert(Tracee &tracee, std::uint64_t address);
  void remove(Tracee &tracee, std::uint64_t address);
  // Where the program wants to find what is put into it (boot/debug_journal.hpp), so that it can
  // take it out by itself when this process dies; 0: nowhere. What another one has left is mended.
  void keep_journal(Tracee &tracee, std::uint64_t address);
  // The same for a thread that is about to run a copy of an instruction elsewhere (laid out as
  // CowbirdDebugStep); tid 0: it has done so.
  struct Step {
    std::uint64_t tid = 0, from = 0, place = 0, length = 0, displacement = 0, call = 0,
                  stand_in = 0, value = 0;
  };
  void note_step(Tracee &tracee, const Step &step) const;
  bool at(std::uint64_t address) const { return patches_.count(address) != 0; }
  bool empty() const { return patches_.empty(); }
  // The bytes that were read from `address` on get what the program has there.
  void hide(std::uint64_t address, std::span<std::byte> bytes) const;
  // Writes as the program's own bytes; the int3s stay.
  Result<std::size_t> write(Tracee &tracee, std::uint64_t address, std::span<const std::byte> data);
  // Takes an int3 out for a moment, and puts it back.
  void lift(Tracee &tracee, std::uint64_t address);
  void put_back(Tracee &tracee, std::uint64_t address);
  void remove_all(Tracee &tracee);
  // The bytes of the program, without ours.
  std::size_t read(const Tracee &tracee, std::uint64_t address, std::span<std::byte> out) const;
  void forget_all();  // the memory is not there any more, the journal neither

 private:
  struct Patch {
    std::byte original{};
    unsigned users = 0;
    std::optional<std::size_t> entry{};  // of the journal
  };
  void note(Tracee &tracee, std::uint64_t address, Patch &patch);
  void strike(Tracee &tracee, const Patch &patch);

  std::uint64_t journal_ = 0;  // the address of its first entry
  std::vector<bool> used_;     // its entries
  std::map<std::uint64_t, Patch> patches_;
};

}  // namespace cowbird::debug
