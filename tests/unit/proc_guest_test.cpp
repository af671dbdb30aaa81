// Real guest programs on the stub engine: fork, exec, signals, threads. One boot a test process;
// the arguments are the program, the number of its check and the number of vCPUs.
#include <cstdlib>
#include <fstream>
#include <future>
#include <iostream>

#include "abi/wait.hpp"
#include "base/log.hpp"
#include "fs/tmpfs.hpp"
#include "irq/irq.hpp"
#include "mm/phys_memory.hpp"
#include "proc/task.hpp"
#include "sched/bkl.hpp"
#include "sched/clock.hpp"
#include "sched/scheduler.hpp"
#include "syscall/syscall.hpp"
#include "vfs/file.hpp"
#include "vfs/path.hpp"

namespace cowbird {
namespace {

std::vector<std::byte> read_host_file(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(in)), {});
  std::vector<std::byte> out(bytes.size());
  std::transform(bytes.begin(), bytes.end(), out.begin(), [](char c) { return std::byte(c); });
  return out;
}

Result<Ref<FsContext>> make_root(std::span<const std::byte> program) {
  auto fs = make_ref<FsContext>();
  fs->root = fs->cwd = TRY(mount_root(make_tmpfs("rootfs", {}), "rootfs", 0));
  const WalkContext walk{*fs, Credentials::kernel(), fs->root};
  Ref<File> file = TRY(open_path(walk, "/guest", 0101, 0755));
  IovIter from = IovIter::kernel(program);
  std::uint64_t offset = 0;
  while (from.remaining() > 0) TRY(file->write(from, offset));
  return fs;
}

Result<void> boot(Platform &platform, std::span<const std::byte> program, const std::string &number,
                  std::promise<int> &status) {
  Ref<FsContext> fs = TRY(make_root(program));
  set_init_exit_hook([&status](int value) { status.set_value(value); });
  ExecRequest request;
  request.directory = fs->root;
  request.name = "/guest";
  request.argv = {"/guest", number};
  TRY(start_init(platform, fs, make_ref<FdTable>(), std::move(request), [](Result<void> result) {
    if (!result) std::cerr << "execve: " << errno_name(result.error()) << "\n";
  }));
  return {};
}

int run(const std::string &path, const std::string &number, unsigned vcpus) {
  std::string why;
  auto memory = PhysMemory::create(128 * kMiB, why);
  if (!memory) {
    std::cerr << why << "\n";
    return 1;
  }
  set_phys(memory->get());
  set_log_clock(clock::monotonic_ns);
  StubPlatformOptions options;
  options.memory_fd = (*memory)->fd();
  options.memory_pages = (*memory)->total_pages();
  options.vcpus = vcpus;
  options.before_block = release_bkl_to_wait;
  options.after_block = retake_bkl;
  auto platform = make_stub_platform(options, why);
  if (!platform) {
    std::cerr << why << "\n";
    return 77;
  }
  if (std::getenv("COWBIRD_TRACE") != nullptr) set_syscall_trace(true);
  set_log_sink([](const LogRecord &record) { std::cerr << log_format(record) << "\n"; });
  if (!irq::start() || !scheduler::start(vcpus)) return 1;
  const std::vector<std::byte> program = read_host_file(path);
  std::promise<int> status;
  auto future = status.get_future();
  Ref<Thread> starter;
  {
    BklGuard guard;
    starter = *Thread::spawn("boot", [&] {
      if (auto booted = boot(**platform, program, number, status); !booted) {
        std::cerr << "boot: " << errno_name(booted.error()) << "\n";
        status.set_value(0x100);
      }
    });
  }
  if (future.wait_for(std::chrono::seconds(30)) != std::future_status::ready) {
    std::cerr << "The guest did not end within 30 s.\n";
    BklGuard guard;
    for_each_task([](Task &task) {
      std::cerr << task.tid << " " << task.comm << " " << task_state_letter(task) << " "
                << (task.wait_channel() != nullptr ? task.wait_channel() : "-") << " rip "
                << std::hex << (task.context ? task.regs().rip : 0) << std::dec << "\n";
    });
    std::_Exit(1);
  }
  const int value = future.get();
  if (value != 0) {
    std::cerr << "The guest's wait status is " << (value >> 8) << "/" << (value & 0xff) << ".\n";
  }
  // The kernel is not taken down: what it holds ends with this process.
  (*platform)->shutdown();
  std::_Exit(value == 0 ? 0 : 1);
}

}  // namespace
}  // namespace cowbird

int main(int argc, char **argv) {
  if (argc != 4) {
    std::cerr << "Usage: proc_guest_test PROGRAM NUMBER VCPUS\n";
    return 2;
  }
  return cowbird::run(argv[1], argv[2], static_cast<unsigned>(std::atoi(argv[3])));
}
