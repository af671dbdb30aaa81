#include "debug/server/session_commands.hpp"

#include <array>

namespace cowbird::debug {

struct Session::Commands {
  using C = Command;
  using S = Session;
  // The first that fits counts: longer names stand before shorter ones. What is missing here is
  // answered by an empty packet: tracepoints (an answer to qTStatus would make gdb ask for more of
  // them), memory maps (gdb refuses what a map leaves out), reverse execution, semihosting.
  static constexpr auto kTable = std::to_array<Command>({
      {"?", true, "", C::kStopReply | C::kNoTarget, &S::stop_query},
      {"!", true, "", C::kNoTarget, &S::extended_mode},
      {"D", false, "b", C::kNoTarget, &S::detach},
      {"Hg", false, "t", C::kNone, &S::set_thread},
      {"Hc", false, "t", C::kNone, &S::set_thread},
      {"T", false, "t", C::kNone, &S::thread_alive},
      {"g", true, "", C::kNone, &S::read_all},
      {"G", false, "s", C::kNone, &S::write_all},
      {"p", false, "n", C::kNone, &S::read_one},
      {"P", false, "n=s", C::kNone, &S::write_one},
      {"m", false, "n,n", C::kNone, &S::read_memory},
      {"x", false, "n,n", C::kNone, &S::read_memory_binary},
      {"M", false, "n,n:x", C::kNone, &S::write_memory},
      {"X", false, "n,n:b", C::kNone, &S::write_memory_binary},
      {"c", false, "b", C::kStopReply, &S::continue_old},
      {"C", false, "n?;n", C::kStopReply, &S::continue_signal_old},
      {"s", false, "b", C::kStopReply, &S::step_old},
      {"S", false, "n?;n", C::kStopReply, &S::step_signal_old},
      {"k", true, "", C::kRunning, &S::kill_all},
      {"R", false, "b", C::kNoTarget, &S::restart},
      {"Z", false, "b", C::kNone, &S::insert},
      {"z", false, "b", C::kNone, &S::remove},
      {"vCont?", true, "", C::kNone, &S::v_cont_query},
      {"vCont;", false, "b", C::kStopReply, &S::v_cont},
      {"vStopped", true, "", C::kNoTarget, &S::v_stopped},
      {"vCtrlC", true, "", C::kRunning, &S::v_ctrl_c},
      {"vAttach;", false, "n", C::kStopReply | C::kNoTarget, &S::v_attach},
      {"vRun;", false, "b", C::kNoTarget, &S::v_run},
      {"vKill;", false, "n", C::kNone, &S::v_kill},
      {"vMustReplyEmpty", true, "", C::kNoTarget, &S::must_reply_empty},
      {"vFile:", false, "b", C::kNoTarget, &S::files},
      {"qSupported", false, "b", C::kNoTarget, &S::q_supported},
      {"QStartNoAckMode", true, "", C::kNoTarget, &S::start_no_ack},
      {"qAttached", false, "b", C::kNone, &S::q_attached},
      {"qC", true, "", C::kNone, &S::q_current},
      {"qfThreadInfo", true, "", C::kNone, &S::first_threads},
      {"qsThreadInfo", true, "", C::kNone, &S::more_threads},
      {"qThreadExtraInfo,", false, "t", C::kNone, &S::thread_extra},
      {"qSearch:memory:", false, "n;n;b", C::kNone, &S::search},
      {"qCRC:", false, "n,n", C::kNone, &S::crc},
      {"qGetTLSAddr:", false, "t,n,n", C::kNone, &S::tls_address},
      {"qSymbol:", false, "b", C::kNone, &S::symbols},
      {"qXfer:", false, "s:s:s:b", C::kNone, &S::transfer},
      {"qRcmd,", false, "x", C::kNone, &S::monitor},
      {"QNonStop:", false, "n", C::kNone, &S::set_non_stop},
      {"QPassSignals:", false, "b", C::kNone, &S::pass_signals},
      {"QCatchSyscalls:", false, "b", C::kNone, &S::catch_syscalls},
      {"QThreadEvents:", false, "n", C::kNone, &S::thread_events},
  });
};

const Session::Command *Session::Command::find(std::string_view &text) {
  for (const auto &command : Commands::kTable) {
    if (command.exact ? text != command.name : !text.starts_with(command.name)) continue;
    text.remove_prefix(command.name.size());
    return &command;
  }
  return nullptr;
}

}  // namespace cowbird::debug
