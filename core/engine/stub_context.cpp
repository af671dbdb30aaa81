#include "engine/stub_context.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <array>
#include <csignal>
#include <cstring>
#include <string>
#include <utility>

#include "base/log.hpp"
#include "engine/stub_machine.hpp"
#include "engine/xstate.hpp"

namespace cowbird {

namespace {

constexpr std::int64_t kCheckNs = 100 * kNsPerMs;

constexpr std::uint16_t kUserCs = 0x33, kUserCs32 = 0x23, kUserSs = 0x2b;
constexpr std::uint32_t kAutoDisarm = 1u << 31;
constexpr std::uint64_t kFrameFlags = 7;
constexpr std::uint64_t kEnosys = static_cast<std::uint64_t>(-38);
constexpr std::int32_t kSigsysSeccomp = 1;  // si_code SYS_SECCOMP
constexpr std::uint32_t kArchX86_64 = 0xc000003e;
constexpr std::uint32_t kX32Bit = 0x40000000;
constexpr std::uint64_t kErrorWrite = 2, kErrorFetch = 16;
constexpr unsigned kPageFaultVector = 14, kProtectionVector = 13;

constexpr std::uint64_t signal_bit(int signal) { return std::uint64_t{1} << (signal - 1); }
constexpr std::uint64_t kHandled = signal_bit(SIGILL) | signal_bit(SIGTRAP) | signal_bit(SIGBUS) |
                                   signal_bit(SIGFPE) | signal_bit(SIGSEGV) | signal_bit(SIGSYS) |
                                   signal_bit(stub::kKickSignal);

// wrfsbase faults on an address that is not canonical; nobody can have set such a base.
std::uint64_t canonical(std::uint64_t base) { return (base >> 47) == 0 ? base : 0; }

// Reads a small file of /proc; empty when it is not there.
std::string read_proc(const std::string &path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> buffer;
  const ssize_t got = fd.valid() ? ::read(fd.get(), buffer.data(), buffer.size()) : 0;
  return {buffer.data(), got > 0 ? static_cast<std::size_t>(got) : 0};
}

bool is_asleep(const std::string &status) { return status.find("State:\tS") != std::string::npos; }

Trap decode_fault(const stub::HostFrame &frame) {
  // A signal that the host forces for another reason (SI_KERNEL) shows the numbers of an earlier
  // fault.
  const bool forced = frame.code == SI_KERNEL && frame.trap_number == kPageFaultVector;
  if (frame.trap_number == kPageFaultVector && !forced) {
    const FaultAccess access = (frame.error & kErrorFetch) != 0   ? FaultAccess::Exec
                               : (frame.error & kErrorWrite) != 0 ? FaultAccess::Write
                                                                  : FaultAccess::Read;
    return {.kind = TrapKind::PageFault,
            .address = frame.cr2,
            .access = access,
            .vector = kPageFaultVector,
            .error_code = frame.error,
            .signal = frame.signal,
            .signal_code = frame.code};
  }
  return {.kind = TrapKind::Exception,
          .vector = static_cast<std::uint8_t>(forced ? kProtectionVector : frame.trap_number),
          .error_code = forced ? 0 : frame.error,
          .signal = frame.signal,
          .signal_code = frame.code};
}

}  // namespace

Result<std::unique_ptr<StubContext>> StubContext::create(StubSpace &space) {
  const unsigned slot = TRY(space.take_slot());
  std::unique_ptr<StubContext> context(new StubContext(space, slot));
  TRY(context->make_thread());
  return context;
}

StubContext::StubContext(StubSpace &space, unsigned slot)
    : space_(space),
      process_(space.process()),
      machine_(space.machine()),
      slot_(slot),
      box_(space.process().mailbox(slot)) {
  const StubThread &thread = process_.threads()[slot];
  host_tid_ = thread.tid;
  to_guest_ = thread.to_guest;
  to_kernel_ = thread.to_kernel;
  frame_offset_ = thread.frame_offset;
}

StubContext::~StubContext() {
  set_active(false);
  StubThread &thread = process_.threads()[slot_];
  thread.to_guest = to_guest_;
  thread.to_kernel = to_kernel_;
  thread.frame_offset = frame_offset_;
  space_.release_slot(slot_);
}

stub::HostFrame &StubContext::frame() const {
  return *reinterpret_cast<stub::HostFrame *>(process_.mailbox_bytes(slot_) + frame_offset_);
}

void StubContext::set_active(bool active) {
  if (active == active_) return;
  active_ = active;
  active ? machine_.context_active() : machine_.context_idle();
}

Trap StubContext::run() {
  Trap trap;
  SyncPoint point = 0;
  if (space_.publish(point)) {
    // From here on interrupt() sends a signal; what came before is seen in kick_.
    running_.store(true);
    if (kick_.load()) {
      trap.kind = TrapKind::Interrupted;
    } else {
      set_active(true);
      place(point);
      write_frame();
      const std::uint64_t start = machine_.ticks();
      resume(point);
      if (wait_for_trap(point)) trap = read_trap();
      const std::int64_t elapsed_ns = machine_.ns_of(machine_.ticks() - start);
      governor_.end(elapsed_ns);
      if (mode_ == HandOver::TwoCpus && VcpuPlacement::current().crowded(elapsed_ns))
        governor_.contended();
    }
    running_.store(false);
  }
  // Any return answers the interrupts until now: the caller looks around.
  kick_.store(false);
  if (trap.kind == TrapKind::Dead && !process_.dead()) {
    process_.kill("what a thread told the kernel was forged");
  }
  return trap;
}

// Now and not at the first run(): whoever wants a thread must hear that the host has none left.
Result<void> StubContext::make_thread() {
  if (host_tid_.load() == 0) {
    const EngineMachine::Blocking blocking(machine_);
    host_tid_.store(TRY(space_.make_thread(slot_)));
  }
  reset_xstate();
  return {};
}

void StubContext::interrupt() {
  if (kick_.exchange(true)) return;
  if (running_.load()) process_.signal_thread(host_tid_, stub::kKickSignal);
}

void StubContext::park() {
  __atomic_store_n(&box_->park_request, 1u, __ATOMIC_RELAXED);
  set_active(false);
}

void StubContext::place(SyncPoint point) {
  const HandOver before = std::exchange(mode_, governor_.begin(machine_.room_to_spin()));
  // What was learnt under other circumstances must not spoil a new try.
  if (mode_ != before) kernel_spin_ = guest_spin_ = SpinGovernor();
  const int cpu = VcpuPlacement::current().prepare(machine_, mode_);
  cpu_set_t mask;
  if (placement_.update(machine_, mode_, cpu, mask))
    process_.set_affinity(host_tid_, &mask, sizeof mask);
  space_.place_orders_thread(point, mode_, cpu);
}

void StubContext::write_frame() {
  stub::HostFrame &f = frame();
  if (!frame_complete_) {
    f.flags = kFrameFlags;
    f.link = 0;
    f.stack_base = stub::mailbox_address(slot_) + stub::kMailboxStack;
    f.stack_flags = kAutoDisarm;
    f.stack_size = stub::kMailboxStackBytes;
    f.ss = kUserSs, f.fs = 0, f.gs = 0;
    f.signal_mask = ~kHandled;
  }
  // Each line that is not written stays in the other processor's cache.
  const auto put = [&](std::uint64_t &in_frame, std::uint64_t value, std::uint64_t known) {
    if (!frame_complete_ || value != known) in_frame = value;
  };
  const abi::UserRegs &r = regs_, &w = written_;
  put(f.r8, r.r8, w.r8), put(f.r9, r.r9, w.r9), put(f.r10, r.r10, w.r10), put(f.r11, r.r11, w.r11);
  put(f.r12, r.r12, w.r12), put(f.r13, r.r13, w.r13), put(f.r14, r.r14, w.r14);
  put(f.r15, r.r15, w.r15), put(f.rdi, r.rdi, w.rdi), put(f.rsi, r.rsi, w.rsi);
  put(f.rbp, r.rbp, w.rbp), put(f.rbx, r.rbx, w.rbx), put(f.rdx, r.rdx, w.rdx);
  put(f.rax, r.rax, w.rax), put(f.rcx, r.rcx, w.rcx), put(f.rsp, r.rsp, w.rsp);
  put(f.rip, r.rip, w.rip), put(f.eflags, r.eflags | 0x202, w.eflags);
  // A program may have gone to 32-bit code by a far jump, as on Linux; there is no other choice.
  const std::uint16_t cs = r.cs == kUserCs32 ? kUserCs32 : kUserCs;
  if (!frame_complete_ || cs != w.cs) f.cs = cs;
  written_ = regs_;
  written_.cs = cs;
  frame_complete_ = true;
}

void StubContext::resume(SyncPoint point) {
  stub::Mailbox &box = *box_;
  box.need_point = static_cast<std::uint32_t>(point);
  const bool bases = !bases_known_ || regs_.fs_base != stub_fs_ || regs_.gs_base != stub_gs_;
  box.resume_flags = bases ? RESUME_SET_BASES : 0;
  if (bases) {
    regs_.fs_base = canonical(regs_.fs_base);
    regs_.gs_base = canonical(regs_.gs_base);
    box.new_fs = stub_fs_ = regs_.fs_base;
    box.new_gs = stub_gs_ = regs_.gs_base;
    bases_known_ = true;
  }
  const std::int64_t guest_budget = mode_ == HandOver::TwoCpus ? guest_spin_.begin_wait() : 0;
  const bool guest_could_spin = std::exchange(guest_may_spin_, guest_budget > 0);
  box.spin_ticks = machine_.ticks_of(guest_budget);
  __atomic_store_n(&box.park_request, 0u, __ATOMIC_RELAXED);
  __atomic_store_n(&box.to_guest, ++to_guest_, __ATOMIC_SEQ_CST);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (__atomic_load_n(&box.guest_parked, __ATOMIC_SEQ_CST) != 0) {
    if (guest_could_spin) guest_spin_.lost();
    futex_wake_shared(&box.to_guest, 1);
  } else if (guest_could_spin) {
    guest_spin_.won(machine_.ns_of(machine_.ticks() - trapped_at_));
  }
}

bool StubContext::trapped() const {
  return __atomic_load_n(&box_->to_kernel, __ATOMIC_ACQUIRE) != to_kernel_;
}

bool StubContext::wait_for_trap(SyncPoint point) {
  machine_.traps.fetch_add(1, std::memory_order_relaxed);
  const std::int64_t budget = mode_ == HandOver::TwoCpus ? kernel_spin_.begin_wait() : 0;
  if (budget > 0) {
    const std::uint64_t start = machine_.ticks(), limit = machine_.ticks_of(budget);
    std::uint64_t now = start;
    while (now - start < limit) {
      if (trapped()) {
        kernel_spin_.won(machine_.ns_of(now - start));
        machine_.spins_won.fetch_add(1, std::memory_order_relaxed);
        return !process_.dead();
      }
      __builtin_ia32_pause();
      now = machine_.ticks();
    }
    kernel_spin_.lost();
  }
  machine_.parks.fetch_add(1, std::memory_order_relaxed);
  return sleep_for_trap(point);
}

bool StubContext::sleep_for_trap(SyncPoint point) {
  __atomic_store_n(&box_->kernel_parked, 1u, __ATOMIC_SEQ_CST);
  deaf_.heard();
  while (!trapped() && !process_.dead()) {
    const std::uint64_t start = machine_.ticks();
    futex_wait_shared(&box_->to_kernel, to_kernel_, kCheckNs);
    const std::int64_t waited = machine_.ns_of(machine_.ticks() - start);
    // The answer may have come while this thread itself had no processor.
    if (kick_.load() && waited >= kCheckNs && !trapped()) check_responsive(point);
  }
  __atomic_store_n(&box_->kernel_parked, 0u, __ATOMIC_RELAXED);
  return !process_.dead();
}

void StubContext::check_responsive(SyncPoint point) {
  if (space_.orders_outstanding(point)) return;
  // The orders are proven before the guest thread is told; only when the thread that executes them
  // sleeps has it told all. So it is looked at first.
  const std::string tasks = fmt::format("/proc/{}/task/", process_.pid());
  const bool orders_idle = is_asleep(read_proc(fmt::format("{}{}/status", tasks, process_.pid())));
  const std::string directory = fmt::format("{}{}/", tasks, host_tid_.load());
  const std::string status = read_proc(directory + "status");
  const auto mask = status.find("SigBlk:\t");
  if (mask == std::string::npos) {  // no /proc
    process_.signal_thread(host_tid_, stub::kKickSignal);
    return;
  }
  const bool blocked =
      (std::strtoull(status.c_str() + mask + 8, nullptr, 16) & signal_bit(stub::kKickSignal)) != 0;
  if (blocked) return look_at_deaf(status, directory, orders_idle);
  deaf_.heard();
  process_.signal_thread(host_tid_, stub::kKickSignal);
}

void StubContext::look_at_deaf(const std::string &status, const std::string &directory,
                               bool orders_idle) {
  const std::uint64_t ran = std::strtoull(read_proc(directory + "schedstat").c_str(), nullptr, 10);
  // It sleeps in the handler once it has answered.
  if (trapped()) return;
  if (deaf_.look(is_asleep(status) && orders_idle, ran)) {
    process_.kill("a thread of the program blocked the kernel's signal");
    return;
  }
  share_cpu();
}

// Where this thread runs, there the guest thread gets its share; and the processor's time is not
// that of one on which everything stands still.
void StubContext::share_cpu() {
  const int cpu = ::sched_getcpu();
  if (machine_.cpus() == 1 || cpu < 0 || cpu >= CPU_SETSIZE) return;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  CPU_SET(cpu, &mask);
  process_.set_affinity(host_tid_, &mask, sizeof mask);
  placement_ = StubPlacement();  // the next hand-over places it anew
}

Trap StubContext::read_trap() {
  trapped_at_ = machine_.ticks();
  to_kernel_ = __atomic_load_n(&box_->to_kernel, __ATOMIC_ACQUIRE);
  const std::uint64_t offset = box_->frame - stub::mailbox_address(slot_);
  const std::uint32_t signal = box_->signal;
  stub_fs_ = box_->fs;
  stub_gs_ = box_->gs;
  // Unsigned, so an address below the mailbox is far too large.
  if (offset < stub::kMailboxInitialFrame || offset % 8 != 0 ||
      offset > stub::kMailboxBytes - sizeof(stub::HostFrame)) {
    return {.kind = TrapKind::Dead};
  }
  frame_offset_ = offset;
  stub::HostFrame f;
  std::memcpy(&f, &frame(), sizeof f);
  asm volatile("" ::: "memory");  // what was copied is not read again

  abi::UserRegs &r = regs_;
  r.r8 = f.r8, r.r9 = f.r9, r.r10 = f.r10, r.r11 = f.r11;
  r.r12 = f.r12, r.r13 = f.r13, r.r14 = f.r14, r.r15 = f.r15;
  r.rdi = f.rdi, r.rsi = f.rsi, r.rbp = f.rbp, r.rbx = f.rbx;
  r.rdx = f.rdx, r.rax = f.rax, r.rcx = f.rcx, r.rsp = f.rsp, r.rip = f.rip;
  r.eflags = f.eflags;
  r.cs = f.cs == kUserCs32 ? kUserCs32 : kUserCs;
  r.ss = kUserSs;
  written_ = r;
  written_.cs = f.cs;
  // A new frame repeats what the last rt_sigreturn restored; guest code may have made that call
  // itself.
  frame_complete_ = f.ss == kUserSs && f.signal_mask == ~kHandled &&
                    f.stack_base == stub::mailbox_address(slot_) + stub::kMailboxStack &&
                    f.stack_size == stub::kMailboxStackBytes && f.stack_flags == kAutoDisarm;
  r.ds = r.es = r.fs = r.gs = 0;
  if (process_.fsgsbase()) {
    r.fs_base = stub_fs_;
    r.gs_base = stub_gs_;
  } else {
    stub_fs_ = r.fs_base;
    stub_gs_ = r.gs_base;
  }
  r.orig_rax = ~std::uint64_t{0};

  f.signal = static_cast<std::int32_t>(signal);
  switch (f.signal) {
    case SIGSYS:
      if (f.code != kSigsysSeccomp) break;
      r.orig_rax = f.info_syscall;
      r.rax = kEnosys;
      return {.kind = TrapKind::SystemCall,
              .foreign_abi = f.info_arch != kArchX86_64 || (f.info_syscall & kX32Bit) != 0};
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGTRAP:
      if (f.code > 0) return decode_fault(f);
      break;  // somebody on the host sent it
    default:
      break;
  }
  return {.kind = TrapKind::Interrupted};
}

std::size_t StubContext::get_xstate(std::span<std::byte> out) {
  const XstateLayout &layout = XstateLayout::host();
  if (out.size() < layout.size()) return layout.size();
  out = out.first(layout.size());
  const std::uint64_t address = __atomic_load_n(&frame().fp_state, __ATOMIC_RELAXED);
  const std::uint64_t offset = address - stub::mailbox_address(slot_);
  if (address == 0 || offset < stub::kMailboxXstate || offset % 64 != 0 ||
      offset > stub::kMailboxBytes - layout.size()) {
    layout.write_initial(out);
    return layout.size();
  }
  std::memcpy(out.data(), process_.mailbox_bytes(slot_) + offset, layout.size());
  asm volatile("" ::: "memory");
  layout.sanitise(out);
  return layout.size();
}

Result<void> StubContext::set_xstate(std::span<const std::byte> in) {
  const XstateLayout &layout = XstateLayout::host();
  TRY(layout.check(in));
  layout.write_frame({process_.mailbox_bytes(slot_) + stub::kMailboxXstate, layout.frame_bytes()},
                     in);
  frame().fp_state = stub::mailbox_address(slot_) + stub::kMailboxXstate;
  return {};
}

void StubContext::reset_xstate() { frame().fp_state = 0; }

}  // namespace cowbird
