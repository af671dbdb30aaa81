#include "base/host_thread.hpp"

#include <sys/mman.h>

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

void HostThread::join() {
  if (!joinable_) return;
  ::pthread_join(handle_, nullptr);
  joinable_ = false;
}

HostThread::~HostThread() { KASSERT(!joinable_); }

}  // namespace cowbird
