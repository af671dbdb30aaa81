// Pending signals, default actions, restarts of system calls, and the layout of signal frames.
#include <catch2/catch.hpp>

#include "abi/signal.hpp"
#include "proc/restart.hpp"
#include "proc/signal_frame.hpp"

using namespace cowbird;

namespace {

SignalInfo make(int signal, std::uint64_t value = 0) {
  SignalInfo info;
  info.signal = signal;
  info.code = abi::kSI_QUEUE;
  info.value = value;
  return info;
}

const SignalSet kAll{~0ull};

std::int64_t failed(Errno error) { return -static_cast<std::int64_t>(static_cast<int>(error)); }

}  // namespace

TEST_CASE("Standard signals are pending once, real-time ones queue in order") {
  PendingSignals pending;
  CHECK(pending.add(make(kSigUsr1, 1), 10));
  CHECK_FALSE(pending.add(make(kSigUsr1, 2), 10));
  CHECK(pending.add(make(kSigRtMin, 3), 10));
  CHECK(pending.add(make(kSigRtMin, 4), 10));
  SignalInfo info;
  REQUIRE(pending.take(kAll, info));
  CHECK(info.signal == kSigUsr1);
  CHECK(info.value == 1);
  REQUIRE(pending.take(kAll, info));
  CHECK(info.value == 3);
  CHECK(pending.set().has(kSigRtMin));
  REQUIRE(pending.take(kAll, info));
  CHECK(info.value == 4);
  CHECK(pending.set().empty());
  CHECK_FALSE(pending.take(kAll, info));
}

TEST_CASE("Faults come first, then the lowest number; blocked ones stay") {
  PendingSignals pending;
  for (const int signal : {kSigHup, kSigSegv, kSigTerm}) CHECK(pending.add(make(signal), 10));
  SignalInfo info;
  SignalSet not_hup = kAll;
  not_hup.remove(kSigHup);
  REQUIRE(pending.take(not_hup, info));
  CHECK(info.signal == kSigSegv);
  REQUIRE(pending.take(not_hup, info));
  CHECK(info.signal == kSigTerm);
  CHECK_FALSE(pending.take(not_hup, info));
  REQUIRE(pending.take(kAll, info));
  CHECK(info.signal == kSigHup);
}

TEST_CASE("A full queue loses what a standard signal carries, never the signal") {
  PendingSignals pending;
  CHECK(pending.add(make(kSigRtMin), 1));
  CHECK_FALSE(pending.add(make(kSigRtMin), 1));
  CHECK_FALSE(pending.add(make(kSigUsr2, 5), 1));
  CHECK(pending.set().has(kSigUsr2));
  SignalInfo info;
  REQUIRE(pending.take(kAll, info));
  CHECK(info.signal == kSigUsr2);
  CHECK(info.code == abi::kSI_USER);
  pending.remove(kAll);
  CHECK(pending.set().empty());
  CHECK(pending.queued() == 0);
}

TEST_CASE("execve resets caught signals and keeps ignored ones") {
  auto handlers = make_ref<SignalHandlers>();
  handlers->actions[kSigUsr1 - 1] = {0x1000, abi::kSA_SIGINFO, 0x2000, kAll};
  handlers->actions[kSigHup - 1].handler = abi::kSIG_IGN;
  handlers->reset_for_exec();
  CHECK(handlers->actions[kSigUsr1 - 1].handler == abi::kSIG_DFL);
  CHECK(handlers->actions[kSigUsr1 - 1].flags == 0);
  CHECK(handlers->actions[kSigHup - 1].handler == abi::kSIG_IGN);
}

TEST_CASE("Default actions are those of signal(7)") {
  CHECK(default_action(kSigTerm) == DefaultAction::Terminate);
  CHECK(default_action(kSigSegv) == DefaultAction::Core);
  CHECK(default_action(kSigChld) == DefaultAction::Ignore);
  CHECK(default_action(kSigTstp) == DefaultAction::Stop);
  CHECK(default_action(kSigCont) == DefaultAction::Continue);
  CHECK(default_action(kSigRtMin) == DefaultAction::Terminate);
}

TEST_CASE("Interrupted system calls restart as signal(7) says") {
  const std::uint64_t restart = abi::kSA_RESTART;
  // Without a handler all of them go on.
  CHECK(decide_restart(failed(Errno::RestartSys), false, 0) == Restart::Again);
  CHECK(decide_restart(failed(Errno::RestartNoIntr), false, 0) == Restart::Again);
  CHECK(decide_restart(failed(Errno::RestartNoHand), false, 0) == Restart::Again);
  CHECK(decide_restart(failed(Errno::RestartBlock), false, 0) == Restart::Block);
  // With one, SA_RESTART decides for one kind only.
  CHECK(decide_restart(failed(Errno::RestartSys), true, 0) == Restart::Interrupt);
  CHECK(decide_restart(failed(Errno::RestartSys), true, restart) == Restart::Again);
  CHECK(decide_restart(failed(Errno::RestartNoIntr), true, 0) == Restart::Again);
  CHECK(decide_restart(failed(Errno::RestartNoHand), true, restart) == Restart::Interrupt);
  CHECK(decide_restart(failed(Errno::RestartBlock), true, restart) == Restart::Interrupt);
  // Other results stand.
  CHECK(decide_restart(failed(Errno::Intr), true, restart) == Restart::None);
  CHECK(decide_restart(0, true, restart) == Restart::None);
}

TEST_CASE("A signal frame leaves the red zone alone and is aligned as after a call") {
  for (const std::size_t xstate : {576u, 832u, 2696u}) {
    for (VirtAddr sp = 0x7ffe'0000'0000; sp < 0x7ffe'0000'0080; ++sp) {
      const auto layout = layout_signal_frame(sp, false, xstate);
      REQUIRE(layout);
      CHECK(layout->xstate % 64 == 0);
      CHECK(layout->xstate + xstate + abi::kFP_XSTATE_MAGIC2_SIZE <= sp - 128);
      CHECK(layout->frame % 16 == 8);
      CHECK(layout->frame + sizeof(abi::RtSigframe) <= layout->xstate);
      CHECK(sp - 128 - layout->frame <= minimal_signal_stack(xstate));
    }
  }
  CHECK_FALSE(layout_signal_frame(600, false, 576));
}

TEST_CASE("The alternate stack knows whether it is in use") {
  Task::AltStack stack{0x10000, 0x4000, 0};
  CHECK(alternate_stack_state(stack, 0x12000) == abi::kSS_ONSTACK);
  CHECK(alternate_stack_state(stack, 0x14000) == abi::kSS_ONSTACK);
  CHECK(alternate_stack_state(stack, 0x10000) == 0);
  CHECK(alternate_stack_state(stack, 0x15000) == 0);
  stack.flags = abi::kSS_AUTODISARM;
  CHECK(alternate_stack_state(stack, 0x12000) == 0);
  CHECK(alternate_stack_state({}, 0x12000) == abi::kSS_DISABLE);
}

TEST_CASE("siginfo is laid out by kind") {
  SignalInfo child;
  child.signal = kSigChld;
  child.code = abi::kCLD_EXITED;
  child.pid = 7;
  child.status = 3;
  child.utime = 1'000'000'000;
  const abi::Siginfo encoded = encode_siginfo(child);
  CHECK(encoded.u.chld.pid == 7);
  CHECK(encoded.u.chld.status == 3);
  CHECK(encoded.u.chld.utime == 100);
  SignalInfo fault;
  fault.signal = kSigSegv;
  fault.code = abi::kSEGV_MAPERR;
  fault.address = 0x1234;
  CHECK(encode_siginfo(fault).u.fault.address == 0x1234);
  const SignalInfo queued = decode_siginfo(encode_siginfo(make(kSigUsr1, 99)));
  CHECK(queued.value == 99);
  CHECK(queued.signal == kSigUsr1);
}
