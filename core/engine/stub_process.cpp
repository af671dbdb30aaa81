#include "engine/stub_process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/log.hpp"

extern "C" {
extern const char cowbird_stub_image[];
extern const char cowbird_stub_image_end[];
}

namespace cowbird {

namespace {

constexpr std::uint64_t kPointMask = (std::uint64_t{1} << STUB_FLUSH_SHIFT) - 1;
constexpr std::uint32_t kAutoDisarm = 1u << 31;
constexpr const char *kStubArguments[] = {"cowbird-stub", nullptr};

// Signals that guest code runs with: those that the stub handles. Everything else stays blocked.
constexpr std::uint64_t signal_bit(int signal) { return std::uint64_t{1} << (signal - 1); }
constexpr std::uint64_t kHandled = signal_bit(SIGILL) | signal_bit(SIGTRAP) | signal_bit(SIGBUS) |
                                   signal_bit(SIGFPE) | signal_bit(SIGSEGV) | signal_bit(SIGSYS) |
                                   signal_bit(stub::kKickSignal);

Err host_error() {
  switch (errno) {
    case EMFILE:
    case ENFILE:
      return Err(Errno::NFile);
    case EAGAIN:
      return Err(Errno::Again);
    case ENOMEM:
      return Err(Errno::NoMem);
    case EPERM:
    case EACCES:
      return Err(Errno::Perm);
    default:
      return Err(Errno::Io);
  }
}

UniqueFd memory_file(const char *name, std::uint64_t bytes) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC));
  if (fd.valid() && ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) fd.reset();
  return fd;
}

// What the child of `start` needs; it shares the kernel's memory until it executes the stub.
struct ChildStart {
  std::array<int, 5> fds;  // memory, orders, control, event, image
  std::uint64_t signal_mask;
  pid_t parent;
};

// Runs in the child, on its own stack, with the kernel's memory: system calls only. No sanitizer
// may instrument it.
__attribute__((no_sanitize("address", "undefined"))) int child_main(void *argument) {
  const auto &start = *static_cast<const ChildStart *>(argument);
  constexpr int kFirst = STUB_FD_MEMORY, kAbove = 16;
  std::array<int, 5> fds{};
  for (std::size_t i = 0; i < fds.size(); ++i) {
    fds[i] = static_cast<int>(::syscall(SYS_fcntl, start.fds[i], F_DUPFD, kAbove));
    if (fds[i] < 0) return 1;
  }
  for (std::size_t i = 0; i < fds.size(); ++i) {
    if (::syscall(SYS_dup2, fds[i], kFirst + static_cast<int>(i)) < 0) return 1;
  }
  ::syscall(SYS_close_range, 0, kFirst - 1, 0);
  if (::syscall(SYS_close_range, kFirst + static_cast<int>(fds.size()), ~0u, 0) != 0) return 2;
  // Keeps the terminal's and the job control's signals away.
  ::syscall(SYS_setsid);
  ::syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (::syscall(SYS_getppid) != start.parent) return 3;
  // 1, not 0: a core file of that size is never written, and no crash helper is started either.
  const rlimit core{1, 1};
  ::syscall(SYS_prlimit64, 0, RLIMIT_CORE, &core, nullptr);
  // Keeps the stack out of the stub's own addresses. Where it is forbidden, a rare start fails and
  // is tried again.
  ::syscall(SYS_personality, ADDR_NO_RANDOMIZE);
  const char *const environment[] = {nullptr};
  ::syscall(SYS_execveat, STUB_FD_IMAGE, "", kStubArguments, environment, AT_EMPTY_PATH);
  return 4;
}

const char *exit_meaning(int status) {
  switch (status) {
    case 1:
    case 2:
      return "its file descriptors could not be arranged";
    case 3:
      return "the kernel that started it has gone";
    case 4:
      return "the host refused to execute it (memfd execution may be forbidden, see "
             "vm.memfd_noexec)";
    case static_cast<int>(stub::StartStep::SignalMask):
      return "the host refused to block its signals";
    case static_cast<int>(stub::StartStep::NoNewPrivileges):
      return "the host refused no_new_privs";
    case static_cast<int>(stub::StartStep::UnmapLow):
    case static_cast<int>(stub::StartStep::UnmapHigh):
      return "the host refused to unmap its first stack and vdso (sealed system mappings)";
    case static_cast<int>(stub::StartStep::MapOrders):
    case static_cast<int>(stub::StartStep::MapControl):
      return "the host refused to map its control memory";
    case static_cast<int>(stub::StartStep::SignalHandler):
      return "the host refused its signal handlers";
    case static_cast<int>(stub::StartStep::Filter):
    case static_cast<int>(stub::StartStep::GuestFilter):
      return "the host refused its seccomp filter";
    case static_cast<int>(stub::StartStep::Flush):
      return "the host could not unmap guest memory";
    default:
      return "unknown exit status";
  }
}

// A file that somebody may write cannot be executed, so it is opened again. Without /proc the host
// gives a descriptor of the file's place, which is enough for execveat(2).
UniqueFd reopen_unwritable(int fd) {
  UniqueFd again(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDONLY | O_CLOEXEC));
  if (!again.valid()) {
    again.reset(static_cast<int>(
        ::syscall(SYS_open_tree, fd, "", AT_EMPTY_PATH | static_cast<unsigned>(O_CLOEXEC))));
  }
  return again;
}

}  // namespace

void futex_wait_shared(std::uint32_t *word, std::uint32_t value, std::int64_t timeout_ns) {
  timespec timeout{timeout_ns / kNsPerSec, timeout_ns % kNsPerSec};
  ::syscall(SYS_futex, word, FUTEX_WAIT, value, timeout_ns < 0 ? nullptr : &timeout, nullptr, 0);
}

void futex_wake_shared(std::uint32_t *word, int count) {
  ::syscall(SYS_futex, word, FUTEX_WAKE, count, nullptr, nullptr, 0);
}

Result<UniqueFd> make_stub_image(std::string &why) {
  const auto size = static_cast<std::size_t>(cowbird_stub_image_end - cowbird_stub_image);
  constexpr unsigned kExec = 0x10;  // MFD_EXEC, Linux 6.3
  int fd = ::memfd_create("cowbird-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING | kExec);
  if (fd < 0) fd = ::memfd_create("cowbird-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  UniqueFd file(fd);
  if (!file.valid() ||
      ::write(file.get(), cowbird_stub_image, size) != static_cast<ssize_t>(size) ||
      ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) !=
          0) {
    why = fmt::format("The stub's executable could not be put into a sealed memory file: {}.",
                      std::strerror(errno));
    return host_error();
  }
  UniqueFd unwritable = reopen_unwritable(file.get());
  if (!unwritable.valid()) {
    why = fmt::format(
        "The stub's executable could not be opened again, neither through /proc/self/fd nor by "
        "open_tree(2): {}. Mount /proc where Cowbird runs.",
        std::strerror(errno));
    return host_error();
  }
  return unwritable;
}

Result<std::unique_ptr<StubProcess>> StubProcess::create(const StubEnvironment &environment) {
  std::unique_ptr<StubProcess> process(new StubProcess);
  process->orders_fd_ = memory_file("cowbird-orders", stub::kOrdersBytes);
  process->control_fd_ = memory_file("cowbird-control", stub::kControlBytes);
  process->event_fd_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!process->orders_fd_.valid() || !process->control_fd_.valid() || !process->event_fd_.valid())
    return host_error();
  TRY(process->map_memory());
  process->flags_ = environment.fsgsbase ? 0 : STUB_FLAG_NO_FSGSBASE;
  process->threads_.resize(stub::kMaxThreads);
  auto &orders = *process->orders_;
  orders.one = 1;
  orders.arguments[0] = stub::kOrdersBase + offsetof(stub::OrderPages, name);
  std::memcpy(orders.name, "cowbird-stub", 13);
  orders.flags = process->flags_;
  process->await_point_ = process->pushed_point_ = orders.start_point = 1;
  return process;
}

Result<void> StubProcess::map_memory() {
  void *orders =
      ::mmap(nullptr, stub::kOrdersBytes, PROT_READ | PROT_WRITE, MAP_SHARED, orders_fd_.get(), 0);
  if (orders == MAP_FAILED) return host_error();
  orders_ = static_cast<stub::OrderPages *>(orders);
  void *control = ::mmap(nullptr, stub::kControlBytes, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_NORESERVE, control_fd_.get(), 0);
  if (control == MAP_FAILED) return host_error();
  control_ = static_cast<std::byte *>(control);
  return {};
}

StubProcess::~StubProcess() {
  if (pid_ > 0 && !dead()) {
    kill("the guest has ended");
    pollfd ended{pid_fd_.get(), POLLIN, 0};
    ::poll(&ended, 1, -1);
    reap();
  }
  if (orders_ != nullptr) ::munmap(orders_, stub::kOrdersBytes);
  if (control_ != nullptr) ::munmap(control_, stub::kControlBytes);
}

Result<void> StubProcess::start(const StubEnvironment &environment) {
  ChildStart child{{environment.memory_fd, orders_fd_.get(), control_fd_.get(), event_fd_.get(),
                    environment.image.get()},
                   0,
                   ::getpid()};
  constexpr std::size_t kStackBytes = 64 * kKiB;
  const std::unique_ptr<std::byte[]> stack(new std::byte[kStackBytes]);
  // No handler of the kernel may run in the child, which shares its memory.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  int pid_fd = -1;
  const int pid = ::clone(child_main, stack.get() + kStackBytes,
                          CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &child, &pid_fd);
  const int error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  if (pid < 0) return host_error();
  pid_ = pid;
  pid_fd_.reset(pid_fd);
  return {};
}

bool StubProcess::order_restart() {
  proven();
  if (head_ - done_ >= stub::kRingEntries) return false;
  const SyncPoint point = pushed_point_ + 1;
  orders_->ring[head_ & ORDERS_RING_MASK] = {
      SYS_execveat,
      {STUB_FD_IMAGE, stub::kOrdersBase + offsetof(stub::OrderPages, no_path),
       stub::kOrdersBase + offsetof(stub::OrderPages, arguments),
       stub::kOrdersBase + offsetof(stub::OrderPages, environment), AT_EMPTY_PATH, 0},
      point};
  ++head_;
  // The new image goes on after this entry and reports the point behind it, which the old one never
  // does.
  orders_->start_tail = head_;
  orders_->start_point = point + 1;
  orders_->flags = flags_ | STUB_FLAG_FILTERED;
  done_ = head_;  // nothing before it counts any more
  await_point_ = pushed_point_ = point + 1;
  flushes_ = 0;
  want_event(true);
  publish();
  wake();
  return true;
}

void StubProcess::prepare_first_thread() {
  const unsigned used = used_slots_.load();
  if (used > 1) {
    ::fallocate(control_fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                static_cast<off_t>(2 * stub::kMailboxBytes),
                static_cast<off_t>((used - 1) * stub::kMailboxBytes));
  }
  if (used > 0) {
    // The hint page and the first mailbox are used again at once. The pages between are never
    // mapped by the stub.
    std::memset(control_, 0, kPageSize);
    std::memset(mailbox_bytes(0), 0, stub::kMailboxBytes);
  }
  threads_.assign(stub::kMaxThreads, StubThread{});
  used_slots_ = 0;
  prepare_mailbox(0);
  push({.kind = Order::Kind::MapMailbox, .slot = 0, .point = pushed_point_ + 1});
  push({.kind = Order::Kind::NewThread, .slot = 0, .point = pushed_point_ + 1});
  await_point_ = pushed_point_;
  publish();
  wake();
}

void StubProcess::prepare_mailbox(unsigned slot) {
  if (used_slots_ < slot + 1) used_slots_ = slot + 1;
  auto *frame =
      reinterpret_cast<stub::HostFrame *>(mailbox_bytes(slot) + stub::kMailboxInitialFrame);
  std::memset(static_cast<void *>(mailbox(slot)), 0, sizeof(stub::Mailbox));
  std::memset(static_cast<void *>(frame), 0, sizeof *frame);
  frame->flags = 7;  // UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS
  frame->stack_base = stub::mailbox_address(slot) + stub::kMailboxStack;
  frame->stack_size = stub::kMailboxStackBytes;
  frame->stack_flags = kAutoDisarm;
  frame->cs = 0x33;
  frame->ss = 0x2b;
  frame->eflags = 0x202;
  frame->signal_mask = ~kHandled;
}

bool StubProcess::push(const Order &order) {
  // One entry stays free for the restart.
  if (head_ - done_ >= stub::kRingEntries - 1) proven();
  if (head_ - done_ >= stub::kRingEntries - 1) return false;
  stub::OrderEntry entry{};
  entry.point = order.point & kPointMask;
  const std::uint64_t bytes = order.pages << kPageShift;
  const auto prot = static_cast<std::uint64_t>(order.prot);
  const std::uint64_t mailbox = stub::mailbox_address(order.slot);
  constexpr std::uint64_t kThreadFlags =
      CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
  switch (order.kind) {
    case Order::Kind::Map: {
      const std::uint64_t flags = MAP_SHARED | MAP_FIXED | (order.populate ? MAP_POPULATE : 0);
      entry.number = SYS_mmap;
      const std::uint64_t args[6] = {order.address, bytes,          prot,
                                     flags,         STUB_FD_MEMORY, order.first << kPageShift};
      std::memcpy(entry.args, args, sizeof args);
      break;
    }
    case Order::Kind::Unmap:
      entry.number = SYS_munmap;
      entry.args[0] = order.address;
      entry.args[1] = bytes;
      break;
    case Order::Kind::Protect:
      entry.number = SYS_mprotect;
      entry.args[0] = order.address;
      entry.args[1] = bytes;
      entry.args[2] = prot;
      break;
    case Order::Kind::UnmapAll:
      entry.number = SYS_munmap;
      entry.args[1] = kUserMax;
      break;
    case Order::Kind::MapMailbox: {
      entry.number = SYS_mmap;
      const std::uint64_t args[6] = {mailbox,
                                     stub::kMailboxBytes,
                                     PROT_READ | PROT_WRITE,
                                     MAP_SHARED | MAP_FIXED,
                                     STUB_FD_CONTROL,
                                     mailbox - stub::kControlBase};
      std::memcpy(entry.args, args, sizeof args);
      break;
    }
    case Order::Kind::NewThread:
      entry.number = SYS_clone;
      entry.args[0] = kThreadFlags;
      entry.args[5] = mailbox;
      break;
  }
  orders_->ring[head_ & ORDERS_RING_MASK] = entry;
  ++head_;
  pushed_point_ = order.point;
  return true;
}

void StubProcess::publish() {
  __atomic_store_n(&orders_->head, head_, __ATOMIC_SEQ_CST);
  published_point_ = pushed_point_;
}

SyncPoint StubProcess::proven() {
  const off_t position = ::lseek(orders_fd_.get(), 0, SEEK_CUR);
  if (position < 0) return proven_;
  const auto value = static_cast<std::uint64_t>(position);
  proven_ = value & kPointMask;
  const auto flushes = static_cast<std::uint32_t>(value >> STUB_FLUSH_SHIFT);
  if (flushes != flushes_) flushed_ = true;
  flushes_ = flushes;
  while (done_ != head_ && orders_->ring[done_ & ORDERS_RING_MASK].point <= proven_) ++done_;
  return proven_;
}

bool StubProcess::take_flushed() { return std::exchange(flushed_, false); }

Result<int> StubProcess::take_thread_id() {
  const off_t value = ::lseek(control_fd_.get(), 0, SEEK_CUR);
  ::lseek(control_fd_.get(), 0, SEEK_SET);
  if (value <= 0 || value >= STUB_AUX_ERROR) return Err(Errno::Again);
  return static_cast<int>(value);
}

void StubProcess::wake() { futex_wake_shared(&orders_->head, 1); }

void StubProcess::want_event(bool want) {
  __atomic_store_n(&orders_->want_event, want ? 1u : 0u, __ATOMIC_SEQ_CST);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void StubProcess::drain_event() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(event_fd_.get(), &count, sizeof count);
}

void StubProcess::raise_event() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_fd_.get(), &one, sizeof one);
}

bool StubProcess::pin() const {
  pins_.fetch_add(1, std::memory_order_seq_cst);
  if (!dead_.load(std::memory_order_seq_cst)) return true;
  unpin();
  return false;
}

void StubProcess::unpin() const { pins_.fetch_sub(1, std::memory_order_seq_cst); }

void StubProcess::kill(const char *why) {
  if (pid_ <= 0 || !pin()) return;
  const char *nobody = nullptr;
  killed_because_.compare_exchange_strong(nobody, why);
  ::kill(pid_, SIGKILL);
  unpin();
}

void StubProcess::signal_thread(int tid, int signal) {
  if (tid <= 0 || !pin()) return;
  ::syscall(SYS_tgkill, pid_, tid, signal);
  unpin();
}

void StubProcess::set_affinity(int tid, const void *mask, std::size_t bytes) {
  if (tid <= 0 || !pin()) return;
  ::syscall(SYS_sched_setaffinity, tid, bytes, mask);
  unpin();
}

stub::Mailbox *StubProcess::mailbox(unsigned slot) {
  return reinterpret_cast<stub::Mailbox *>(mailbox_bytes(slot));
}

std::byte *StubProcess::mailbox_bytes(unsigned slot) {
  return control_ + stub::kMailboxBytes * (1 + slot);
}

void StubProcess::wake_kernel_side(unsigned slot) {
  std::uint32_t *word = &mailbox(slot)->to_kernel;
  __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
  futex_wake_shared(word, 1);
}

void StubProcess::reap() {
  dead_.store(true, std::memory_order_seq_cst);
  while (pins_.load(std::memory_order_seq_cst) != 0) ::sched_yield();
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | __WALL) == 0) {
    if (info.si_code == CLD_EXITED) {
      end_reason_ =
          fmt::format("it ended with status {}: {}", info.si_status, exit_meaning(info.si_status));
    } else {
      end_reason_ = fmt::format("it was ended by signal {}", info.si_status);
    }
  }
  reaped_.store(true, std::memory_order_release);
  for (unsigned slot = 0; slot < used_slots_; ++slot) wake_kernel_side(slot);
}

std::string StubProcess::end_reason() const {
  if (const char *why = killed_because_.load()) return fmt::format("the kernel ended it: {}", why);
  if (!dead()) return "it is still there";
  // Only what is in the middle of reap() is waited for.
  while (!reaped_.load(std::memory_order_acquire)) ::sched_yield();
  return end_reason_;
}

}  // namespace cowbird
