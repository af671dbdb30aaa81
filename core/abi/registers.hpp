// The register file of a guest thread, in the order of Linux's struct user_regs_struct (x86-64),
// which ptrace, core files and gdb use. Anyone may include this header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cowbird::abi {

struct UserRegs {
  std::uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
  std::uint64_t orig_rax;  // the number of the system call, or ~0 when not in one
  std::uint64_t rip, cs, eflags, rsp, ss;
  std::uint64_t fs_base, gs_base;
  std::uint64_t ds, es, fs, gs;
};
static_assert(sizeof(UserRegs) == 27 * sizeof(std::uint64_t));
static_assert(offsetof(UserRegs, rax) == 80 && offsetof(UserRegs, orig_rax) == 120);
static_assert(offsetof(UserRegs, rip) == 128 && offsetof(UserRegs, fs_base) == 168);

}  // namespace cowbird::abi
