// Monitor: the commands behind gdb's `monitor` (ps, log, bt, irq, locks, mounts, plugins, time) and
// the tables of `info os`, for any target that has a view of the kernel: a live one, one that
// hangs, a core file. Everything is read from outside, nothing of the kernel runs. The guest must
// stand still. One thread; all output is bounded.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "debug/monitor/unwinder.hpp"
#include "debug/target/target.hpp"
#include "debug/view/kernel_tables.hpp"

namespace cowbird::debug {

class Monitor {
 public:
  // `target` gives registers, threads, executable and libraries of kKernelPid. `view` gives the
  // kernel's view, refreshed, or nullptr when there is none. Both outlive the monitor.
  Monitor(Target &target, std::function<KernelView *()> view);

  // Target::monitor(): false when the command is unknown.
  bool run(const std::string &command, ThreadId current, const OutputSink &out);
  // Target::os_tables() and os_table(). NoEnt: no such table; NoDev: no view of the kernel.
  static std::vector<std::pair<std::string, std::string>> os_tables();
  Result<OsTable> os_table(const std::string &name);

 private:
  using Words = std::vector<std::string>;
  struct Command;
  static const std::vector<Command> &commands();

  bool help(const Words &words, const OutputSink &out);
  bool ps(const Words &words, const OutputSink &out);
  bool log(const Words &words, const OutputSink &out);
  bool bt(const Words &words, const OutputSink &out);
  bool irq(const Words &words, const OutputSink &out);
  bool locks(const Words &words, const OutputSink &out);
  bool mounts(const Words &words, const OutputSink &out);
  bool plugins(const Words &words, const OutputSink &out);
  bool time(const Words &words, const OutputSink &out);

  bool print_stack(const ThreadInfo &thread, Unwinder &unwinder, const OutputSink &out);
  std::string host_thread_name(std::int64_t host_tid);
  std::vector<Module> modules();
  std::vector<Library> plugin_libraries();
  // A table with columns as wide as they need.
  static bool print_table(const OsTable &table, const OutputSink &out);
  static bool say_damage(unsigned damage, const OutputSink &out);

  Target &target_;
  std::function<KernelView *()> view_of_;
  KernelView *view_ = nullptr;  // during a command
  ThreadId current_;
};

}  // namespace cowbird::debug
