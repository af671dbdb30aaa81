// The shared-memory protocol between the guest kernel and its stub processes: addresses, file
// descriptors and layout of everything that both sides see. Included by the engine, by the stub
// (C++ data and assembly, which sees only the macros) and by the layout test; nobody else.
//
// Who is who. K: a vCPU thread of the kernel in Context::run. G: a host thread of the stub that
// runs guest code; all memory that G can write can be written by guest code at any time, so K
// copies what it needs once and checks it. M: the stub's first thread, which executes orders
// (changes of the address space).
//
// Memory of a stub above kUserMax:
//   text     read+execute, a file mapping of the sealed stub image: all code of M and G, both
//   filters orders   read only for the stub, written by K: the ring of orders, the words M waits on
//   control  writable: the hint word, and one mailbox for each G, mapped when the thread is made
//
// Orders. K fills ring entries (a raw system call each) and then publishes `head`; M executes them
// up to `head` and then reports the `point` of the last one twice: first as the file position of
// the order memfd (lseek on a shared open file description; guest threads may not call lseek, so K
// can believe it), then in the hint word with a futex wake. Guest threads may forge the hint: they
// then run before their mapping is there, fault, and are served again. M has no stack and reads no
// memory that is writable in the stub, so guest threads cannot influence what it does. If K waits
// it sets `want_event` and sleeps on the eventfd. M: position, fence, read want_event. K:
// want_event, fence, read position. So either K sees the position, or M sees want_event and writes
// the eventfd.
//
// The hand-over between K and G is one word a direction: `to_kernel` is counted up by G when it has
// trapped, `to_guest` by K when the guest may go on. The waiting side spins for a while and then
// parks:
//     waiter: parked = 1;  fence;  futex_wait(word, old);  parked = 0
//     waker:  word = new;  fence;  if (parked) futex_wake(word)
// No wake-up is lost: the fences put the two stores in one order. If the waker reads parked == 0,
// its store of the word came before the waiter's store of parked, so futex_wait, which compares
// under the futex lock, sees the new word and does not sleep. If it reads parked == 1, it wakes
// after the word has changed: the waiter is either asleep and is woken, or has not yet compared and
// will see the new word. A word that the reaper changes because the stub has died follows the same
// rule. K's waits have a time limit too, since G's side of the rule is only a promise.
//
// Not used yet, but laid out: patched call sites (kMailboxFastEntry) enter without a signal and
// save the registers there; `entry` in the stub's line says which of the two the kernel finds.
#pragma once

// Numbers that the assembly needs; everything else is checked against them below.
#define STUB_TEXT 0x7fff10000000
#define STUB_TEXT_BYTES 0x10000
#define STUB_ORDERS 0x7fff20000000
#define STUB_ORDERS_BYTES 0x5000
#define STUB_CONTROL 0x7fff20100000
#define STUB_USER_MAX 0x7fff00000000
#define STUB_HOST_END 0x7ffffffff000

#define STUB_FD_MEMORY 3
#define STUB_FD_ORDERS 4
#define STUB_FD_CONTROL 5
#define STUB_FD_EVENT 6
#define STUB_FD_IMAGE 7

#define ORDERS_HEAD 0
#define ORDERS_WANT_EVENT 64
#define ORDERS_ONE 128
#define ORDERS_START_POINT 136
#define ORDERS_START_TAIL 144
#define ORDERS_FLAGS 148
#define ORDERS_RING 0x1000
#define ORDERS_RING_MASK 255
#define ORDER_POINT 56

#define STUB_FLAG_FILTERED 1     // the stub has M's filter already (it is being recycled)
#define STUB_FLAG_NO_FSGSBASE 2  // the host does not let programs use wrfsbase
#define STUB_AUX_ERROR 0x40000000
#define STUB_FLUSH_SHIFT 48

#define MAILBOX_BYTES 0x8000
#define MAILBOX_TO_GUEST 0
#define MAILBOX_NEED_POINT 4
#define MAILBOX_RESUME_FLAGS 8
#define MAILBOX_KERNEL_PARKED 12
#define MAILBOX_SPIN_TICKS 16
#define MAILBOX_NEW_FS 24
#define MAILBOX_NEW_GS 32
#define MAILBOX_PARK_REQUEST 40
#define MAILBOX_TO_KERNEL 64
#define MAILBOX_GUEST_PARKED 68
#define MAILBOX_SIGNAL 72
#define MAILBOX_CPU 76
#define MAILBOX_FRAME 80
#define MAILBOX_FS 88
#define MAILBOX_GS 96
#define MAILBOX_INITIAL_UCONTEXT 0x1008

#define RESUME_SET_BASES 1

#ifndef __ASSEMBLER__
#include <cstddef>
#include <cstdint>

namespace cowbird::stub {

inline constexpr std::uint64_t kTextBase = STUB_TEXT;
inline constexpr std::uint64_t kOrdersBase = STUB_ORDERS;
inline constexpr std::uint64_t kOrdersBytes = STUB_ORDERS_BYTES;
inline constexpr std::uint64_t kControlBase = STUB_CONTROL;
// The control memfd: one mailbox-sized head (hint page), then the mailboxes.
inline constexpr std::uint64_t kMailboxBytes = MAILBOX_BYTES;
inline constexpr unsigned kMaxThreads = 1024;
inline constexpr std::uint64_t kControlBytes = kMailboxBytes * (1 + kMaxThreads);
inline constexpr std::uint32_t kRingEntries = ORDERS_RING_MASK + 1;

// What Context::interrupt sends: SIGUSR1, since signals that are not real-time do not queue up.
inline constexpr int kKickSignal = 10;

// One raw system call for M.
struct OrderEntry {
  std::uint64_t number;
  std::uint64_t args[6];
  std::uint64_t point;  // 48 bits
};
static_assert(sizeof(OrderEntry) == 64 && offsetof(OrderEntry, point) == ORDER_POINT);

// Written by K only; read only in the stub.
struct OrderPages {
  alignas(64) std::uint32_t head;
  alignas(64) std::uint32_t want_event;
  alignas(64) std::uint64_t one;  // what M writes to the eventfd
  std::uint64_t start_point;      // reported when the (new) stub image is ready
  std::uint32_t start_tail;
  std::uint32_t flags;
  // The strings that M hands to execveat when it starts its image anew; addresses in the stub.
  std::uint64_t arguments[2], environment[1];
  char name[16], no_path[8];
  alignas(ORDERS_RING) OrderEntry ring[kRingEntries];
};
static_assert(offsetof(OrderPages, head) == ORDERS_HEAD);
static_assert(offsetof(OrderPages, want_event) == ORDERS_WANT_EVENT);
static_assert(offsetof(OrderPages, one) == ORDERS_ONE);
static_assert(offsetof(OrderPages, start_point) == ORDERS_START_POINT);
static_assert(offsetof(OrderPages, start_tail) == ORDERS_START_TAIL);
static_assert(offsetof(OrderPages, flags) == ORDERS_FLAGS);
static_assert(offsetof(OrderPages, ring) == ORDERS_RING);
static_assert(sizeof(OrderPages) == kOrdersBytes);

// What the host's kernel builds on the alternate stack: struct rt_sigframe without its return
// address, in the order of struct ucontext and struct siginfo (x86-64).
struct HostFrame {
  std::uint64_t flags, link;
  std::uint64_t stack_base;
  std::uint32_t stack_flags, stack_pad;
  std::uint64_t stack_size;
  std::uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip;
  std::uint64_t eflags;
  std::uint16_t cs, gs, fs, ss;
  std::uint64_t error, trap_number, old_mask, cr2, fp_state;
  std::uint64_t reserved[8];
  std::uint64_t signal_mask;
  // struct siginfo
  std::int32_t signal, info_errno, code, info_pad;
  std::uint64_t info_address;  // si_addr, si_call_addr
  std::uint32_t info_syscall, info_arch;
  std::uint64_t info_rest[12];
};
static_assert(offsetof(HostFrame, r8) == 40 && offsetof(HostFrame, signal_mask) == 296);
static_assert(offsetof(HostFrame, signal) == 304 && sizeof(HostFrame) == 304 + 128);

// One guest thread's mailbox.
struct Mailbox {
  // Written by K.
  alignas(64) std::uint32_t to_guest;
  std::uint32_t need_point;    // low half of the point that must be done before guest code runs
  std::uint32_t resume_flags;  // RESUME_*
  std::uint32_t kernel_parked;
  std::uint64_t spin_ticks;  // how long G may spin, in TSC ticks
  std::uint64_t new_fs, new_gs;
  std::uint32_t park_request;  // G should stop spinning
  // Written by G.
  alignas(64) std::uint32_t to_kernel;
  std::uint32_t guest_parked;
  std::uint32_t signal;
  std::uint32_t cpu;    // where G ran when it trapped
  std::uint64_t frame;  // address of the HostFrame in the stub
  std::uint64_t fs, gs;
  std::uint32_t entry;  // 0: by a signal
};
static_assert(offsetof(Mailbox, to_guest) == MAILBOX_TO_GUEST);
static_assert(offsetof(Mailbox, need_point) == MAILBOX_NEED_POINT);
static_assert(offsetof(Mailbox, resume_flags) == MAILBOX_RESUME_FLAGS);
static_assert(offsetof(Mailbox, kernel_parked) == MAILBOX_KERNEL_PARKED);
static_assert(offsetof(Mailbox, spin_ticks) == MAILBOX_SPIN_TICKS);
static_assert(offsetof(Mailbox, new_fs) == MAILBOX_NEW_FS);
static_assert(offsetof(Mailbox, new_gs) == MAILBOX_NEW_GS);
static_assert(offsetof(Mailbox, park_request) == MAILBOX_PARK_REQUEST);
static_assert(offsetof(Mailbox, to_kernel) == MAILBOX_TO_KERNEL);
static_assert(offsetof(Mailbox, guest_parked) == MAILBOX_GUEST_PARKED);
static_assert(offsetof(Mailbox, signal) == MAILBOX_SIGNAL);
static_assert(offsetof(Mailbox, cpu) == MAILBOX_CPU);
static_assert(offsetof(Mailbox, frame) == MAILBOX_FRAME);
static_assert(offsetof(Mailbox, fs) == MAILBOX_FS);
static_assert(offsetof(Mailbox, gs) == MAILBOX_GS);

// Offsets in a mailbox.
inline constexpr std::uint64_t kMailboxFastEntry =
    0x400;  // register save area of patched call sites
inline constexpr std::uint64_t kMailboxFastEntryBytes = 0x400;
inline constexpr std::uint64_t kMailboxInitialFrame = MAILBOX_INITIAL_UCONTEXT;
inline constexpr std::uint64_t kMailboxXstate =
    0x2000;  // extended state that K gives to the thread
inline constexpr std::uint64_t kMailboxXstateBytes = 0x2000;
inline constexpr std::uint64_t kMailboxStack = 0x4000;  // the alternate signal stack
inline constexpr std::uint64_t kMailboxStackBytes = kMailboxBytes - kMailboxStack;
static_assert(sizeof(Mailbox) <= kMailboxFastEntry);
static_assert(kMailboxFastEntry + kMailboxFastEntryBytes <= kMailboxInitialFrame);
static_assert(kMailboxInitialFrame + sizeof(HostFrame) <= kMailboxXstate);
static_assert(kControlBase % kMailboxBytes == 0);

constexpr std::uint64_t mailbox_address(unsigned slot) {
  return kControlBase + kMailboxBytes * (1 + slot);
}

// The narrow filter lets G name futex words between these, all below one high half.
inline constexpr std::uint64_t kFutexLow = kOrdersBase;
inline constexpr std::uint64_t kFutexHigh = kControlBase + kControlBytes;
static_assert((kFutexLow >> 32) == (kFutexHigh >> 32) && (kTextBase >> 32) == (kFutexLow >> 32));
static_assert(kOrdersBase + kOrdersBytes <= kControlBase);

// Exit codes of a stub that could not start; see stub_entry.S.
enum class StartStep : int {
  SignalMask = 10,
  NoNewPrivileges,
  UnmapLow,
  UnmapHigh,
  MapOrders,
  MapControl,
  SignalHandler,
  Filter,
  Flush,        // M could not even drop all guest mappings
  GuestFilter,  // a guest thread did not get its filter
};

}  // namespace cowbird::stub
#endif  // __ASSEMBLER__
