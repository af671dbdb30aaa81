// Access to guest memory from kernel code: typed pointers and copies through the current thread's
// address space (Thread::active_mm). Pages that are missing are faulted in, which may sleep; no
// Mutex may be held. A guest address is never dereferenced any other way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/result.hpp"
#include "base/units.hpp"

namespace cowbird {

class Mm;

// All or Fault; with Fault, a prefix may have been copied.
Result<void> copy_in(void *to, VirtAddr from, std::size_t bytes);
Result<void> copy_out(VirtAddr to, const void *from, std::size_t bytes);
// How many bytes could be copied before the first fault.
std::size_t copy_in_partial(void *to, VirtAddr from, std::size_t bytes);
std::size_t copy_out_partial(VirtAddr to, const void *from, std::size_t bytes);
std::size_t clear_user_partial(VirtAddr to, std::size_t bytes);
Result<void> clear_user(VirtAddr to, std::size_t bytes);
// A string of at most `max` bytes without its terminating zero; NameTooLong when there is none
// within max + 1 bytes.
Result<std::string> copy_in_string(VirtAddr from, std::size_t max);
// The same through another address space (ptrace, /proc/PID/mem, execve building a new stack).
Result<void> copy_in_mm(Mm &mm, void *to, VirtAddr from, std::size_t bytes);
Result<void> copy_out_mm(Mm &mm, VirtAddr to, const void *from, std::size_t bytes);
// As copy_out_mm, also into private memory that the program itself may not write (breakpoints).
Result<void> poke_mm(Mm &mm, VirtAddr to, const void *from, std::size_t bytes);
// As copy_in_mm, also from memory that the program itself may not read.
Result<void> peek_mm(Mm &mm, void *to, VirtAddr from, std::size_t bytes);

// Atomic access to an aligned 32-bit word of the current address space (futexes).
Result<std::uint32_t> load_user_u32(VirtAddr address);
// Compares and exchanges; the result is the old value.
Result<std::uint32_t> cmpxchg_user_u32(VirtAddr address, std::uint32_t expected,
                                       std::uint32_t desired);

// A guest pointer to T. T is plain data of the guest ABI.
template <typename T>
class UserPtr {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  UserPtr() = default;
  explicit UserPtr(std::uint64_t address) : address_(address) {}

  VirtAddr address() const { return address_; }
  bool is_null() const { return address_ == 0; }
  explicit operator bool() const { return address_ != 0; }

  Result<T> read() const {
    T value;
    TRY(copy_in(&value, address_, sizeof(T)));
    return value;
  }
  Result<void> write(const T &value) const { return copy_out(address_, &value, sizeof(T)); }
  UserPtr at(std::uint64_t index) const { return UserPtr(address_ + index * sizeof(T)); }
  // `count` is the caller's to bound.
  Result<std::vector<T>> read_array(std::size_t count) const {
    std::vector<T> values(count);
    TRY(copy_in(values.data(), address_, count * sizeof(T)));
    return values;
  }
  Result<void> write_array(std::span<const T> values) const {
    return copy_out(address_, values.data(), values.size_bytes());
  }

 private:
  VirtAddr address_ = 0;
};

}  // namespace cowbird
