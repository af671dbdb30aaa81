// StructureReader: single values, strings and containers out of the memory of another process, with
// bounds on everything, for debug/view. What cannot be read or makes no sense counts as damage and
// gives an empty value: the kernel may have been stopped in the middle of a change, or be broken.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "debug/view/kernel_view.hpp"

namespace cowbird::debug {

class StructureReader {
 public:
  explicit StructureReader(MemoryReader &memory) : memory_(memory) {}

  static constexpr std::size_t kMaxString = 4096;
  static constexpr std::size_t kMaxElements = 100'000;

  MemoryReader &memory() { return memory_; }
  unsigned damage() const { return damage_; }
  void forget_damage() { damage_ = 0; }
  void note_damage() { ++damage_; }

  // False, and damage, when it is not readable.
  bool bytes(std::uint64_t address, std::span<std::byte> out) {
    if (address != 0 && memory_.read(address, out)) return true;
    std::memset(out.data(), 0, out.size());
    ++damage_;
    return false;
  }
  template <typename T>
  T value(std::uint64_t address) {
    T result{};
    bytes(address, std::as_writable_bytes(std::span(&result, 1)));
    return result;
  }
  std::uint64_t pointer(std::uint64_t address) { return value<std::uint64_t>(address); }

  // A std::string; cut at kMaxString.
  std::string string(std::uint64_t address);
  // A C string of at most `limit` bytes.
  std::string c_string(std::uint64_t address, std::size_t limit = 256);
  // The elements of a std::vector of `size`-byte elements: their addresses.
  std::vector<std::uint64_t> vector(std::uint64_t address, std::size_t size);
  // The values of a std::vector of pointers, Refs or unique_ptrs.
  std::vector<std::uint64_t> pointer_vector(std::uint64_t address);
  // The addresses of the values (std::pair<const Key, Value>) of a std::map, in order.
  std::vector<std::uint64_t> map(std::uint64_t address);
  // Of a std::unordered_map whose keys are numbers or pointers (their hash is not kept).
  std::vector<std::uint64_t> hash_map(std::uint64_t address);
  // The objects of a List: `head` is the list's address, `link` the offset of the link in an
  // object, `next` that of the forward pointer in a link.
  std::vector<std::uint64_t> list(std::uint64_t head, std::uint32_t link, std::uint32_t next);

 private:
  MemoryReader &memory_;
  unsigned damage_ = 0;
};

// A part of an object that was read in one go.
class Blob {
 public:
  Blob() = default;
  Blob(std::uint64_t address, std::size_t size) : address_(address), data_(size) {}
  std::uint64_t address() const { return address_; }
  std::span<std::byte> bytes() { return data_; }
  std::size_t size() const { return data_.size(); }
  template <typename T>
  T get(std::uint32_t offset) const {
    T result{};
    if (offset <= data_.size() && sizeof(T) <= data_.size() - offset) {
      std::memcpy(&result, data_.data() + offset, sizeof(T));
    }
    return result;
  }
  // A std::string member: its text when it is inside the object, else nullopt and it must be read.
  std::optional<std::string> inline_string(std::uint32_t offset) const;

 private:
  std::uint64_t address_ = 0;
  std::vector<std::byte> data_;
};

}  // namespace cowbird::debug
