// KernelView: the guest kernel's structures as the debugger reads them from outside, out of the
// memory of a stopped process or of a core file. The addresses and offsets come from one table that
// the kernel carries (core/boot/debug_view.hpp); nothing else of the kernel is known here.
//
// The kernel may have been stopped anywhere, also in the middle of a change, and may be broken:
// every walk is bounded, every pointer is read through MemoryReader, and what makes no sense is
// left out and counted in `damage()`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "boot/debug_view.hpp"
#include "debug/target/target.hpp"

namespace cowbird::debug {

// Memory of the kernel process.
class MemoryReader {
 public:
  virtual ~MemoryReader() = default;
  // All of it, or Fault.
  virtual Result<void> read(std::uint64_t address, std::span<std::byte> out) = 0;

  // Many pieces in as few host calls as the reader can (process_vm_readv takes a thousand): a piece
  // is all there or not `good`.
  struct Piece {
    std::uint64_t address = 0;
    std::span<std::byte> out;
    bool good = false;
  };
  virtual void read_pieces(std::span<Piece> pieces) {
    for (Piece &piece : pieces) piece.good = read(piece.address, piece.out).ok();
  }
};

enum class KernelThreadState : std::uint8_t {
  Ready,
  Running,
  Sleeping,
  Uninterruptible,
  Stopped,
  Traced,
  Dead,
  New,  // in the making, on no run queue yet
};

struct KernelThread {
  std::uint64_t address = 0;  // of the Thread
  std::int64_t tid = 0;       // gdb's: Thread::id() + 1
  std::string name;
  KernelThreadState state = KernelThreadState::Dead;
  std::string wait_channel;
  int vcpu = -1;                // while Running
  bool in_user = false;         // guest code runs; the vCPU waits for its trap
  bool frozen = false;          // not picked while the guest is frozen
  std::uint64_t saved_rsp = 0;  // while it is not Running: where its SavedFrame is
  std::uint64_t stack_low = 0, stack_high = 0;
  // The kernel side of a guest thread: its ids and the system call that it is in, if any.
  int pid = 0, guest_tid = 0;
  std::optional<std::uint64_t> syscall;
  std::uint64_t process = 0, context = 0, mm = 0;  // of a guest thread: addresses, 0: none
  std::uint64_t blocked_on = 0;                    // address of the SleepMutex that it waits for
  std::int64_t user_ns = 0, system_ns = 0;
  int nice = 0;
};

// "sleeping in pipe_read", "running on vcpu 1", "running guest code on vcpu 0", "ready": what gdb
// shows behind a thread's name.
std::string describe_state(const KernelThread &thread);

struct VcpuState {
  unsigned index = 0;
  std::uint64_t current = 0;  // KernelThread::address; 0: idle
  bool in_user = false;
  int guest_code = 0;  // while in_user: the host thread of a stub in which guest code runs
  bool idling = false;
  std::uint64_t idle_rsp =
      0;  // SavedContext of the host thread's own stack while a thread runs on it
  std::uint64_t pthread = 0;  // pthread_t of the host thread: its fs_base
};

class KernelView {
 public:
  // `base` is the load address of the kernel's program, `program` its file. NoEnt: no table (not a
  // Cowbird, or stripped of it); OpNotSupp: a table of another version, `why` says which.
  static Result<std::unique_ptr<KernelView>> open(MemoryReader &memory, const std::string &program,
                                                  std::uint64_t base, std::string &why);
  virtual ~KernelView() = default;

  // What the view reads and how the kernel's structures are laid out, for debug/view and
  // debug/monitor.
  virtual MemoryReader &memory() = 0;
  virtual const debug_view::Table &table() const = 0;

  // Reads anew; call after each stop. The accessors give what the last refresh saw.
  virtual Result<void> refresh() = 0;
  virtual const std::vector<KernelThread> &threads() const = 0;
  virtual const std::vector<VcpuState> &vcpus() const = 0;
  virtual const KernelThread *find(std::int64_t tid) const = 0;
  // The thread whose stack this address is in. It decides which thread a host thread runs: a vCPU
  // that was stopped inside a switch has written down the one and still has the stack of the other.
  virtual const KernelThread *find_by_stack(std::uint64_t rsp) const = 0;
  virtual unsigned damage() const = 0;

  // The registers of a thread that is not on a vCPU, from its saved context. Inval while it runs.
  // rip is where it will go on, inside cowbird_switch_context; the frames above it are unwound from
  // there. Known are rip, rsp and the registers that functions preserve.
  virtual Result<Registers> saved_registers(const KernelThread &thread) = 0;
  // The vCPU's own stack while a kernel thread runs on it.
  virtual Result<Registers> idle_registers(const VcpuState &vcpu) = 0;
  // The registers of guest code as of the thread's last trap: right unless it runs guest code now.
  // Inval for pure kernel threads.
  virtual Result<Registers> user_registers(const KernelThread &thread) = 0;

  // Address of a function or object of the kernel's program by its ELF symbol; 0: none.
  virtual std::uint64_t symbol(const std::string &name) const = 0;
  virtual std::string system_call_name(std::uint64_t number) = 0;

  // Who holds the big kernel lock: the host thread's id, 0 when it is free, nullopt when unknown.
  virtual std::optional<std::int64_t> big_kernel_lock_owner() = 0;

  // The words that the debugger changes while the kernel stands still. It has done so from
  // `since_ns` to `until_ns` of the host's CLOCK_MONOTONIC, which the guest shall not see
  // (core/sched/clock.cpp). Again when the kernel was stopped in the middle of changing its clock:
  // then the guest sees the time.
  struct ClockPatch {
    std::uint64_t address;
    std::vector<std::byte> bytes;
  };
  virtual Result<std::vector<ClockPatch>> clock_patch(std::int64_t since_ns,
                                                      std::int64_t until_ns) = 0;
};

}  // namespace cowbird::debug
