// The management console of the guest: what the requests of mconsole/server.hpp mean. Started and
// stopped by boot/.
//
// Three kinds of requests, by what they need:
//
//   nothing     version, help, log, `sysrq b`; and `sysrq p` and `sysrq t` when the kernel does not
//               answer. Done on the server's thread.
//   the lock    sysrq (but s, u, b, o), cad, stop, go, stack, devices. Done on the irq thread, with
//               the big kernel lock, without sleeping. If the lock is not to be had within kBusy,
//               the client is told so and nothing is done later.
//   the kernel  halt, reboot, config, remove, proc, the other sysrqs. Queued for the kernel thread
//               "mconsole", one after the other; they may sleep, and they wait for as long as the
//               kernel is busy. That thread goes on while the guest stands still
//               (sched/freeze.hpp); where it waits for what a thread of the guest holds, the client
//               is told so, and the request is done when the guest goes on. halt and reboot have
//               the guest go on, whoever stopped it.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>

#include "base/result.hpp"

namespace cowbird::mconsole {

inline constexpr std::chrono::milliseconds kBusy{1000};

struct Options {
  std::filesystem::path socket;
  // `sysrq b`: starts the program again at once, without a word to the guest kernel. Does not
  // return. Called on the server's thread.
  std::function<void()> restart_now;
  // How long a request may wait for a guest that stands still before its client is told.
  std::chrono::milliseconds held_up{5000};
};

// Makes the socket, starts serving, and notifies. After irq::start() and scheduler::start(); host
// side, without the big kernel lock. False and a sentence when the host refuses.
bool start(Options options, std::string &error);
// Sends what is on its way and ends the service. Before irq::stop(), without the big kernel lock.
void stop();

}  // namespace cowbird::mconsole
