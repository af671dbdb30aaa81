// The seam between the guest kernel and the machine that runs guest programs: Platform,
// AddressSpace, Context. Above it is the kernel (mm, proc); below it is either the stub engine
// (engine/stub_*.cpp) or the fake of the unit tests (engine/fake_platform.hpp).
//
// The host side of an address space is a cache, as a TLB is: the kernel's own page tables (mm/) are
// the truth, and an AddressSpace may at any time have fewer mappings than it was told to make. What
// it must never have is more: after `synchronize` returned, nothing that was unmapped or protected
// before it can be reached by guest code.
//
// Trust: everything that comes from the guest side (registers, extended state, fault addresses) is
// the guest's word. The engine guarantees only that it is a copy that no longer changes.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "abi/registers.hpp"
#include "base/result.hpp"
#include "base/units.hpp"

namespace cowbird {

// Page protection as the guest sees it; the values of PROT_*.
enum class Prot : std::uint8_t { None = 0, Read = 1, Write = 2, Exec = 4 };
constexpr Prot operator|(Prot a, Prot b) {
  return static_cast<Prot>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr Prot operator&(Prot a, Prot b) {
  return static_cast<Prot>(static_cast<unsigned>(a) & static_cast<unsigned>(b));
}
constexpr Prot operator~(Prot a) { return static_cast<Prot>(~static_cast<unsigned>(a) & 7u); }
constexpr bool has(Prot set, Prot bit) { return (set & bit) == bit; }

// Guest programs may use [kUserMin, kUserMax); the engine keeps what lies above for itself.
inline constexpr VirtAddr kUserMin = 0x10000;
inline constexpr VirtAddr kUserMax = 0x7fff'0000'0000;

enum class TrapKind : std::uint8_t {
  SystemCall,  // regs().orig_rax is the number, rax is set to -ENOSYS, as ptrace shows it on Linux
  PageFault,  // `address`, `access`: SIGSEGV or SIGBUS on the host, by a mapping that is missing or
              // too weak. SIGBUS also when the host has no memory left for the page: then the fault
              // repeats although it was served
  Exception,  // another processor exception: `vector`, and the signal Linux would send
  Interrupted,  // interrupt() was called, or the engine wants the kernel to look around
  Dead,         // the host process behind the address space is gone; only destruction is possible
};

enum class FaultAccess : std::uint8_t { Read, Write, Exec };

struct Trap {
  TrapKind kind = TrapKind::Dead;
  // PageFault
  VirtAddr address = 0;
  FaultAccess access = FaultAccess::Read;
  // Exception: the processor's vector (0 #DE, 1 #DB, 3 #BP, 6 #UD, 13 #GP, 16 #MF, 17 #AC, 19 #XM)
  std::uint8_t vector = 0;
  std::uint64_t error_code = 0;
  // Exception: the host's signal number and si_code, which are those that Linux sends to the
  // program
  int signal = 0;
  int signal_code = 0;
  // SystemCall: issued through a 32-bit entry (int $0x80, sysenter) or with the x32 bit; not for us
  bool foreign_abi = false;
};

// A completed state of queued changes; see AddressSpace.
using SyncPoint = std::uint64_t;

// The host side of one guest address space. Changes are queued in order and applied before any of
// its contexts runs guest code again (Context::run waits for them on the guest's side). All
// functions are called with the big kernel lock held.
class AddressSpace {
 public:
  virtual ~AddressSpace() = default;

  // Maps `pages` page frames, contiguous in physical memory from `first`, at `address`. Replaces
  // what is there. `populate` asks to make them present now, so that the guest does not fault on
  // the host.
  virtual void map(VirtAddr address, Pfn first, std::uint64_t pages, Prot prot, bool populate) = 0;
  virtual void unmap(VirtAddr address, std::uint64_t pages) = 0;
  // Weakens or strengthens what is mapped; pages in the range that are not mapped are skipped.
  virtual void protect(VirtAddr address, std::uint64_t pages, Prot prot) = 0;

  // Marks all changes queued up to now. A page frame that was unmapped may be given to somebody
  // else, or a write-protected one be shared, only once the point of that change is `reached`: the
  // proof does not depend on the guest's honesty.
  virtual SyncPoint sync_point() = 0;
  virtual bool reached(SyncPoint point) = 0;
  // Waits until the point is reached; releases the big kernel lock while it waits. True, or false
  // when the host process is dead (then nothing can be reached any more, and all points are).
  virtual bool synchronize(SyncPoint point) = 0;
  // Has the changes queued up to now applied soon, although no context may ever run again (the last
  // thread has exited); does not wait. mm/ gives the frames back when their point is reached.
  virtual void flush() {}
  // The host process is gone.
  virtual bool dead() const = 0;
  // Half a sentence for the log, after a trap Dead or once dead(): why it is gone.
  virtual std::string end_reason() const { return "the reason is not known"; }
};

// One guest thread. Owned by its task; used by one vCPU at a time.
class Context {
 public:
  virtual ~Context() = default;

  // Runs guest code until something traps. Called without the big kernel lock, on a vCPU. Before it
  // returns, registers are copied in; before it runs the guest, they are written back. May pin the
  // calling host thread to a processor: host threads that a vCPU makes inherit that, so they are
  // made elsewhere.
  virtual Trap run() = 0;
  // Makes a `run` in progress on another host thread, or else the next one, return soon:
  // Interrupted, if nothing else comes first. A return for any reason answers all interrupts until
  // then, so the caller looks for work after every run. Any host thread; needs no lock. May cause
  // one Interrupted too many.
  virtual void interrupt() = 0;
  // The kernel thread is about to sleep or has been preempted: the host thread behind this context
  // should stop spinning for an answer. A hint.
  virtual void park() = 0;

  abi::UserRegs &regs() { return regs_; }
  const abi::UserRegs &regs() const { return regs_; }

  // The extended state (x87, SSE, AVX, ...) in the format of XSAVE's standard form, as it stands at
  // the last trap. The copy is made by these calls only. `get_xstate` returns the number of bytes
  // (xstate_size()); `set_xstate` refuses (Inval) what XRSTOR would fault on.
  virtual std::size_t get_xstate(std::span<std::byte> out) = 0;
  virtual Result<void> set_xstate(std::span<const std::byte> in) = 0;
  // To the state after execve: x87 control word 0x37f, MXCSR 0x1f80, all registers 0.
  virtual void reset_xstate() = 0;

  // For `ps`, logs and the debugger; the host's thread id, or 0 when it has none (yet).
  int host_tid() const { return host_tid_; }

 protected:
  friend struct DebugLayout;
  abi::UserRegs regs_{};
  std::atomic<int> host_tid_{0};
};

struct PlatformStats {
  std::uint64_t traps = 0;
  std::uint64_t spins_won = 0;  // hand-overs that spinning caught
  std::uint64_t parks = 0;      // hand-overs that slept
  std::uint64_t orders = 0;     // address-space changes executed
  std::uint64_t stubs_started = 0;
  std::uint64_t stubs_recycled = 0;
  std::uint64_t stubs_idle = 0;  // warm ones in the pool now
  std::uint64_t stubs_died = 0;  // killed by the host or by a hostile guest
};

class Platform {
 public:
  virtual ~Platform() = default;

  // May take a stub's start-up time when none is warm. Destroying a space is cheap; its stub is
  // recycled in the background by executing its image anew, which is the only proof that no guest
  // thread lives on. So a program that gains rights (execve) gets a new space. Again: the host
  // refuses processes.
  virtual Result<std::unique_ptr<AddressSpace>> new_address_space() = 0;
  // A further context (the first too) in an address space that outlives it. Registers start as
  // zero, extended state as after reset_xstate(). Makes the host thread behind it, unless an ended
  // context has left one, and waits for that with the big kernel lock released. Again: 1024 live in
  // this space, or the host refuses threads.
  virtual Result<std::unique_ptr<Context>> new_context(AddressSpace &space) = 0;
  // Size of the XSAVE area of get_xstate/set_xstate.
  virtual std::size_t xstate_size() const = 0;
  virtual PlatformStats stats() const = 0;
  // Kills every host process; nothing of the platform may be used afterwards but its destructor.
  virtual void shutdown() = 0;
};

// The stub engine. `memory_fd` is the guest's physical memory (a memfd), which stays the caller's.
// Fails with the host's reason in `why` (a sentence) when the host forbids what it needs.
struct StubPlatformOptions {
  int memory_fd = -1;
  std::uint64_t memory_pages = 0;
  unsigned vcpus = 1;
  unsigned warm_stubs = 4;
  // Called around waits for a stub that synchronize() makes: they release and take the big kernel
  // lock.
  std::function<void()> before_block, after_block;
  // Sets segment bases by system calls, as on hosts whose programs may not use wrfsbase; for tests.
  bool without_fsgsbase = false;
};
Result<std::unique_ptr<Platform>> make_stub_platform(const StubPlatformOptions &options,
                                                     std::string &why);

}  // namespace cowbird
