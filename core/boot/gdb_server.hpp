// The gdb server of this guest: a process of its own (`cowbird gdbserver`) that the kernel starts
// for [debug] gdb and for the device "gdb" of the management console. The kernel knows only how to
// start and end it; nothing is attached to the guest until a gdb connects.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

namespace cowbird {

class GdbServer {
 public:
  // `address`: "tcp:HOST:PORT", "unix:/PATH" or "stdio". Waits until the server listens, a few
  // seconds at most, so kernel threads call it through irq::run_blocking. nullptr and a sentence.
  static std::unique_ptr<GdbServer> start(const std::string &address, std::string &error);
  // The restart of a guest executes the program anew, in the same process. A server that traces it
  // goes on with the next guest, where of_restart() gives it (nullptr: there is none); others end.
  static void leave_to_restart(std::unique_ptr<GdbServer> server);
  static std::unique_ptr<GdbServer> of_restart();
  // A gdb that is connected is told that the guest runs on.
  ~GdbServer();
  GdbServer(const GdbServer &) = delete;
  GdbServer &operator=(const GdbServer &) = delete;

  // Where it listens, with the port that was picked.
  const std::string &address() const { return address_; }
  pid_t pid() const { return pid_; }
  // It has not ended by itself.
  bool running();

 private:
  GdbServer(pid_t pid, std::string address) : pid_(pid), address_(std::move(address)) {}
  pid_t pid_;
  std::string address_;
  bool reaped_ = false;
};

}  // namespace cowbird
