#include "base/host_thread.hpp"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <memory>

#include "base/log.hpp"
#include "base/units.hpp"

namespace cowbird {
namespace {

// The unwinder and the symbol reader run on it.
constexpr std::size_t kAlternateStackSize = 128 * kKiB;

// Takes the alternate stack away again when its host thread ends.
struct AlternateStack {
  void *memory = nullptr;
  ~AlternateStack() {
    if (!memory) return;
    stack_t off{};
    off.ss_flags = SS_DISABLE;
    ::sigaltstack(&off, nullptr);
    ::munmap(memory, kAlternateStackSize);
  }
};
thread_local AlternateStack alternate_stack;

// Who runs: readers take no lock, so that they can ask whatever is stuck. An id of 0 is a free
// place, kTaken one that is being filled; a name is written before the id.
constexpr std::size_t kListed = 1024;
constexpr pid_t kTaken = -1;
struct ListEntry {
  std::atomic<pid_t> id;
  std::array<std::atomic<char>, 16> name;
};
std::array<ListEntry, kListed> list;

class Listed {
 public:
  explicit Listed(const std::string &name) {
    for (ListEntry &entry : list) {
      pid_t free = 0;
      if (!entry.id.compare_exchange_strong(free, kTaken)) continue;
      for (std::size_t i = 0; i < entry.name.size(); ++i) {
        entry.name[i] = i < name.size() ? name[i] : '\0';
      }
      entry.id = static_cast<pid_t>(::syscall(SYS_gettid));
      entry_ = &entry;
      return;
    }
  }
  ~Listed() {
    if (entry_) entry_->id = 0;
  }
  Listed(const Listed &) = delete;
  Listed &operator=(const Listed &) = delete;

 private:
  ListEntry *entry_ = nullptr;
};

struct StartArguments {
  std::string name;
  std::function<void()> function;
};

void block_signals() {
  sigset_t set;
  sigfillset(&set);
  for (int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS, kLookSignal}) {
    sigdelset(&set, fault);
  }
  ::pthread_sigmask(SIG_SETMASK, &set, nullptr);
}

void *thread_main(void *raw) {
  std::unique_ptr<StartArguments> arguments(static_cast<StartArguments *>(raw));
  ::pthread_setname_np(::pthread_self(), arguments->name.c_str());
  const Listed listed(arguments->name);
  if (!use_alternate_signal_stack()) log_warn("{}: no memory for a signal stack", arguments->name);
  arguments->function();
  return nullptr;
}

}  // namespace

Result<void> use_alternate_signal_stack() {
  if (alternate_stack.memory) return {};
  void *memory = ::mmap(nullptr, kAlternateStackSize, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) return Err(Errno::NoMem);
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = kAlternateStackSize;
  if (::sigaltstack(&stack, nullptr) != 0) {
    const Errno error = errno_from_host(errno);
    ::munmap(memory, kAlternateStackSize);
    return Err(error);
  }
  alternate_stack.memory = memory;
  return {};
}

Result<HostThread> HostThread::start(std::string name, std::function<void()> function) {
  if (name.size() > 15) name.resize(15);
  auto arguments =
      std::make_unique<StartArguments>(StartArguments{std::move(name), std::move(function)});
  // The new thread inherits the mask, so that no signal can reach it before it has set its own.
  sigset_t old;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &old);
  block_signals();
  HostThread thread;
  const int error = ::pthread_create(&thread.handle_, nullptr, thread_main, arguments.get());
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
  if (error != 0) return Err(errno_from_host(error));
  thread.joinable_ = true;
  static_cast<void>(arguments.release());
  return thread;
}

std::vector<NamedThread> named_host_threads() {
  std::vector<NamedThread> threads;
  for (const ListEntry &entry : list) {
    const pid_t id = entry.id;
    if (id <= 0) continue;
    std::string name;
    for (const auto &letter : entry.name) {
      const char c = letter;
      if (c == '\0') break;
      name += c;
    }
    if (entry.id == id) threads.push_back({id, std::move(name)});
  }
  return threads;
}

void HostThread::join() {
  if (!joinable_) return;
  ::pthread_join(handle_, nullptr);
  joinable_ = false;
}

HostThread::~HostThread() { KASSERT(!joinable_); }

}  // namespace cowbird
