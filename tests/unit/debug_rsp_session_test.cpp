// The gdb session, packet by packet, on a FakeTarget; no socket, no gdb.
#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "debug/rsp/hex.hpp"
#include "debug/server/session.hpp"
#include "debug/target/fake_target.hpp"

using namespace cowbird;
using namespace cowbird::debug;

namespace {

constexpr std::string_view kGdb =
    "qSupported:multiprocess+;swbreak+;hwbreak+;fork-events+;vfork-events+;exec-events+;no-"
    "resumed+";

// As gdb frames what it sends: escapes, no runs.
std::string packet(std::string_view payload) {
  std::string out = "$";
  unsigned sum = 0;
  for (const char c : payload) {
    const bool escape = c == '$' || c == '#' || c == '}' || c == '*';
    if (escape) out += '}';
    out += escape ? static_cast<char>(c ^ 0x20) : c;
  }
  for (const char c : std::string_view(out).substr(1)) sum += static_cast<unsigned char>(c);
  return out + fmt::format("#{:02x}", sum & 0xff);
}

// gdb's side: sends packets, gives payloads of answers.
struct Gdb {
  explicit Gdb(FakeTarget::Options options = {}) : target(std::move(options)) {
    session.emplace(target, Session::Send{}, [this](char direction, std::string_view payload) {
      if (direction == '>') answers.emplace_back(payload);
      if (direction == '%') notifications.emplace_back(payload);
    });
    ask(kGdb);
    ask("QStartNoAckMode");
  }
  std::string ask(std::string_view payload) {
    answers.clear();
    session->receive(packet(payload));
    session->output().clear();
    return answers.empty() ? "(nothing)" : answers.back();
  }
  // Resumes and runs the machine until it stops.
  std::string run(std::string_view payload) {
    answers.clear();
    session->receive(packet(payload));
    for (int i = 0; i < 100'000 && answers.empty(); ++i) session->target_event();
    return answers.empty() ? "(runs)" : answers.back();
  }
  FakeTarget target;
  std::optional<Session> session;
  std::vector<std::string> answers, notifications;
};

std::string kernel_thread(unsigned tid) { return thread_id_text({kKernelPid, tid}, true); }

}  // namespace

TEST_CASE("a session says what it can, and nothing more") {
  Gdb gdb;
  const auto supported = gdb.ask(kGdb);
  for (const auto *feature : {"PacketSize=", "multiprocess+", "QNonStop+",
                              "ConditionalBreakpoints+", "qXfer:threads:read+"})
    CHECK(supported.find(feature) != std::string::npos);
  CHECK(gdb.ask("qSupported").find("multiprocess") == std::string::npos);
  CHECK(gdb.ask("vMustReplyEmpty").empty());
  CHECK(gdb.ask("vUnknown").empty());
  CHECK(gdb.ask("qTStatus").empty());
  CHECK(gdb.ask("bc").empty());
  CHECK(gdb.target.counts().attached == 1);
}

TEST_CASE("nothing is attached before the first packet, and all is given back") {
  FakeTarget target({});
  {
    Session session(target);
    session.receive("+++noise");
    CHECK(target.counts().attached == 0);
    session.receive("$qSupported#37");
    CHECK(target.counts().attached == 1);
  }
  CHECK(target.counts().detached == 1);
}

TEST_CASE("acknowledgements and repetition until gdb wants none") {
  FakeTarget target({});
  Session session(target);
  session.receive("$vMustReplyEmpty#3a");
  CHECK(session.output() == "+$#00");
  session.output().clear();
  session.receive("-");
  CHECK(session.output() == "$#00");
  session.output().clear();
  session.receive("$vMustReplyEmpty#00");
  CHECK(session.output() == "-");
  session.output().clear();
  session.receive("$QStartNoAckMode#b0");
  session.output().clear();
  session.receive("$qC#00-");
  CHECK(session.output() == packet("QC1"));
}

TEST_CASE("a target that cannot be attached is told of in words") {
  FakeTarget target({});
  target.refuse_attach(Errno::Busy, "The guest is traced by another debugger (pid 7).");
  Session session(target);
  session.receive(packet(kGdb));
  CHECK(session.output().find("E.The guest is traced by another debugger (pid 7).") !=
        std::string::npos);
  CHECK(session.is_finished());
  CHECK(target.counts().detached == 0);
}

TEST_CASE("arguments that are none are errors, not more") {
  Gdb gdb;
  for (const auto *bad : {"m",
                          "m1",
                          "m1,",
                          "mx,1",
                          "m1,2,3",
                          "M1,2:0",
                          "M1,2:00",
                          "X1,5:a",
                          "P0",
                          "P0=",
                          "Pffff=00",
                          "Hgz",
                          "Hg",
                          "Hxp1.1",
                          "vCont;",
                          "vCont;x",
                          "Z9,1,1",
                          "Z0",
                          "Z0,",
                          "z0,1,1",
                          "p",
                          "pffff",
                          "Gzz",
                          "qSearch:memory:1;2",
                          "QNonStop:7",
                          "QNonStop:",
                          "QCatchSyscalls:",
                          "QPassSignals:x",
                          "vAttach;",
                          "vAttach;63",
                          "vKill;63",
                          "qRcmd,6",
                          "qXfer:threads:read",
                          "qXfer:threads:read::0",
                          "qXfer:features:read:other.xml:0,10",
                          "qXfer:osdata:read:none:0,10",
                          "qThreadExtraInfo,",
                          "qGetTLSAddr:p1.1",
                          "Tp1.77",
                          "qXfer:exec-file:read:zz:0,10",
                          "D;63",
                          "Dx"}) {
    INFO(bad);
    const auto answer = gdb.ask(bad);
    CHECK((answer.empty() || answer.front() == 'E'));
  }
  CHECK(gdb.ask("?").starts_with("T05"));
}

TEST_CASE("threads: list, selection, one document") {
  Gdb gdb({.sleeping = 1000});
  std::string document;
  for (;;) {
    const auto part =
        gdb.ask("qXfer:threads:read::" + fmt::format("{:x}", document.size()) + ",1000");
    document += part.substr(1);
    if (part.front() == 'l') break;
  }
  CHECK(document.find("name=\"sleeper/999\"") != std::string::npos);
  CHECK(gdb.ask("qfThreadInfo").starts_with("m" + kernel_thread(1) + "," + kernel_thread(2)));
  CHECK(gdb.ask("qsThreadInfo") == "l");
  CHECK(gdb.ask("qC") == "QC" + kernel_thread(1));
  CHECK(gdb.ask("Hg" + kernel_thread(5)) == "OK");
  CHECK(gdb.ask("qC") == "QC" + kernel_thread(5));
  CHECK(gdb.ask("Hgp0.0") == "OK");
  CHECK(gdb.ask("Hgpf4240.7777") == "E03");
  CHECK(gdb.ask("T" + kernel_thread(3)) == "OK");
  CHECK(gdb.ask("qThreadExtraInfo," + kernel_thread(3)) ==
        text_to_hex("sleeper/0, sleeping in fake_wait"));
}

TEST_CASE("ids without processes work for those who know no better") {
  Gdb gdb;
  gdb.ask("qSupported:swbreak+");
  CHECK(gdb.ask("qfThreadInfo") == "m1,2,3,4");
  CHECK(gdb.ask("Hg3") == "OK");
  CHECK(gdb.ask("qC") == "QC3");
  CHECK(gdb.ask("Hg0") == "OK");
  CHECK(gdb.run("vCont;s:1;c").starts_with("T05thread:1;"));
  CHECK(gdb.run("vCont;s:0").starts_with("T05thread:1;"));
  CHECK(gdb.run("s").starts_with("T05thread:1;"));
  gdb.ask("Z0,10010,1");
  CHECK(gdb.run("c").starts_with("T05swbreak:;thread:1;"));
}

TEST_CASE("registers of running and of sleeping threads") {
  Gdb gdb;
  CHECK(gdb.ask("p10") == "0000010000000000");
  CHECK(gdb.ask("P0=0500000000000000") == "OK");
  CHECK(gdb.target.register_of({kKernelPid, 1}, Reg::Rax) == 5);
  CHECK(gdb.ask("g").starts_with("0500000000000000"));
  auto all = gdb.ask("g");
  all.replace(0, 2, "06");
  CHECK(gdb.ask("G" + all) == "OK");
  CHECK(gdb.target.register_of({kKernelPid, 1}, Reg::Rax) == 6);
  gdb.ask("Hg" + kernel_thread(3));
  CHECK(gdb.ask("p0") == "xxxxxxxxxxxxxxxx");
  CHECK(gdb.ask("P0=0500000000000000") == "E.The thread sleeps.");
  CHECK(gdb.ask("P3=0500000000000000") == "E.The thread sleeps.");
  // What a sleeping thread has not saved is left out of `G`, unless it would be changed by it.
  all = gdb.ask("g");
  CHECK(gdb.ask("G" + all) == "OK");
  all.replace(16, 2, "55");
  CHECK(gdb.ask("G" + all) == "OK");
  CHECK(gdb.target.register_of({kKernelPid, 3}, Reg::Rbx) == 0x55);
}

TEST_CASE("memory in hex and binary, up to its end") {
  Gdb gdb;
  CHECK(gdb.ask("M20000,2:4142") == "OK");
  CHECK(gdb.ask("m20000,2") == "4142");
  CHECK(gdb.ask("x20000,2") == "bAB");
  CHECK(gdb.ask(std::string("X20002,3:#}$")) == "OK");
  CHECK(gdb.ask("x20000,5") == "bAB#}$");
  CHECK(gdb.ask("X20000,0:") == "OK");
  CHECK(gdb.ask("m20ffe,10") == "0000");
  CHECK(gdb.ask("m30000,1") == "E0e");
  CHECK(gdb.ask("M20fff,2:0000") == "E0e");
  CHECK(gdb.ask("mffffffffffffffff,ffffffffffffffff").front() == 'E');
  CHECK(gdb.ask("m20000,ffffffff").size() == 0x2000);
  CHECK(gdb.ask("qSearch:memory:20000;100;#}") == "1,20002");
  CHECK(gdb.ask("qSearch:memory:20003;100;#}") == "0");
  CHECK(gdb.ask("qSearch:memory:20000;ffffffffffffffff;nowhere") == "E0e");
  CHECK(gdb.ask("qCRC:20000,2") == "Caeec82f4");
}

TEST_CASE("breakpoints stop, with and without conditions, and are set once") {
  Gdb gdb;
  CHECK(gdb.ask("Z0,10010,1") == "OK");
  CHECK(gdb.run("vCont;c").starts_with("T05swbreak:;thread:" + kernel_thread(1)));
  // gdb takes it out at each stop and puts it back.
  CHECK(gdb.ask("z0,10010,1") == "OK");
  CHECK(gdb.ask("z0,10010,1") == "E02");
  CHECK(gdb.ask("Z0,10010,1") == "OK");
  CHECK(gdb.target.counts().inserted == 1);
  CHECK(gdb.target.counts().removed == 0);
  CHECK(gdb.run("vCont;c").starts_with("T05swbreak:;thread:" + kernel_thread(2)));
  gdb.ask("z0,10010,1");
  // $rip == 0x10020 is false at 0x10011.
  CHECK(gdb.ask("Z0,10011,1;X9,26001024000100201327") == "E16");
  CHECK(gdb.ask("Z0,10011,1;Xa,26001024000100201327") == "OK");
  CHECK(gdb.ask("Z0,10020,1;Xa,26001024000100201327") == "OK");
  CHECK(gdb.run("vCont;c").starts_with("T05swbreak:"));
  CHECK(gdb.target.register_of({kKernelPid, 2}, Reg::Rip) == 0x10020);
  CHECK(gdb.target.counts().removed == 1);
  CHECK(gdb.target.counts().evaluated >= 2);
  CHECK(gdb.ask("Z0,30000,1") == "E0e");
}

TEST_CASE("debug registers run out, also behind removals that wait") {
  Gdb gdb;
  for (const auto *address : {"20000", "20008", "20010", "20018"})
    CHECK(gdb.ask(std::string("Z2,") + address + ",8") == "OK");
  CHECK(gdb.ask("Z2,20020,8") == "E1c");
  CHECK(gdb.ask("z2,20000,8") == "OK");
  CHECK(gdb.ask("Z2,20020,8") == "OK");
  CHECK(gdb.ask("Z2,20030,9").front() == 'E');
}

TEST_CASE("steps, ranges, signals in the stop reply") {
  Gdb gdb;
  const auto stop = gdb.run("vCont;s:" + kernel_thread(2));
  CHECK(stop.starts_with("T05thread:" + kernel_thread(2) + ";core:1;"));
  CHECK(stop.find(";10:0100010000000000;") != std::string::npos);  // rip
  CHECK(gdb.run("vCont;r10000,10008:" + kernel_thread(1)).find(";10:0800010000000000;") !=
        std::string::npos);
  CHECK(gdb.target.register_of({kKernelPid, 2}, Reg::Rip) == 0x10001);
  gdb.target.inject({.thread = {kKernelPid, 2}, .signal = SIGUSR1});
  CHECK(gdb.run("vCont;c").starts_with("T1ethread:"));
  gdb.target.inject({.thread = {kKernelPid, 2}, .reason = StopReason::NoneLeft});
  CHECK(gdb.run("vCont;c") == "N");
}

TEST_CASE("words come before the stop") {
  Gdb gdb;
  gdb.target.inject(
      {.thread = {kKernelPid, 2}, .signal = SIGABRT, .words = "guest kernel panic: no init"});
  CHECK(gdb.run("vCont;c").starts_with("T06thread:" + kernel_thread(2)));
  REQUIRE(gdb.answers.size() == 2);
  CHECK(gdb.answers[0] == "O" + text_to_hex("guest kernel panic: no init\n"));
}

TEST_CASE("an interrupt ends what runs, and only that") {
  Gdb gdb;
  gdb.session->receive("\x03\x03");  // late: gdb has heard of a stop and goes on to other things
  CHECK(gdb.ask("qC") == "QC" + kernel_thread(1));
  gdb.answers.clear();
  gdb.session->receive(packet("vCont;c"));
  gdb.session->target_event();
  CHECK(gdb.answers.empty());
  CHECK(gdb.ask("g") == "E10");  // it runs
  gdb.answers.clear();
  gdb.session->receive("\x03");
  gdb.session->target_event();
  REQUIRE(gdb.answers.size() == 1);
  CHECK(gdb.answers[0].starts_with("T02thread:"));
}

TEST_CASE("an interrupt that overtakes what resumes") {
  Gdb gdb;
  gdb.session->receive("\x03");
  gdb.answers.clear();
  gdb.session->receive(packet("vCont;c"));
  gdb.session->target_event();
  REQUIRE(gdb.answers.size() == 1);
  CHECK(gdb.answers[0].starts_with("T02thread:"));
}

TEST_CASE("non-stop: notifications, one acknowledged after the other") {
  Gdb gdb;
  REQUIRE(gdb.ask("QNonStop:1") == "OK");
  CHECK(gdb.ask("?").starts_with("T00thread:" + kernel_thread(1)));
  CHECK(gdb.ask("vStopped") == "OK");
  REQUIRE(gdb.notifications.size() == 1);  // the rest follows
  CHECK(gdb.notifications[0].starts_with("Stop:T00thread:" + kernel_thread(2)));
  CHECK(gdb.ask("vStopped").starts_with("T00thread:" + kernel_thread(3)));
  CHECK(gdb.ask("vStopped").starts_with("T00thread:" + kernel_thread(4)));
  CHECK(gdb.ask("vStopped") == "OK");
  CHECK(gdb.ask("vCont;c:" + kernel_thread(1) + ";c:" + kernel_thread(3)) == "OK");
  CHECK(gdb.ask("vCont;t:" + kernel_thread(2)) == "OK");  // stopped already
  CHECK(gdb.ask("vCont;t") == "OK");
  gdb.session->target_event();
  REQUIRE(gdb.notifications.size() == 2);
  CHECK(gdb.notifications[1].starts_with("Stop:T00thread:" + kernel_thread(1)));
  CHECK(gdb.ask("vStopped").starts_with("T00thread:" + kernel_thread(3)));
  CHECK(gdb.ask("vStopped") == "OK");
  CHECK(gdb.ask("g").size() > 100);
  CHECK(gdb.ask("QNonStop:0") == "OK");
}

TEST_CASE("non-stop: a thread whose stop gdb has not fetched is not sent on with all others") {
  Gdb gdb;
  const auto stops = [&gdb] {
    gdb.session->target_event();
    auto list = std::exchange(gdb.notifications, {});
    for (std::string more = gdb.ask("vStopped"); more != "OK"; more = gdb.ask("vStopped"))
      list.push_back(more);
    return list;
  };
  REQUIRE(gdb.ask("QNonStop:1") == "OK");
  gdb.ask("?");
  REQUIRE(gdb.ask("vStopped") == "OK");
  stops();
  REQUIRE(gdb.ask("vCont;c:" + kernel_thread(1) + ";c:" + kernel_thread(3)) == "OK");
  REQUIRE(gdb.ask("vCont;t") == "OK");
  gdb.session->target_event();
  CHECK(gdb.ask("vCont;c") == "OK");  // gdb knows of no stop yet, so it means 2 and 4
  CHECK(stops().size() == 2);
  REQUIRE(gdb.ask("vCont;t") == "OK");
  const auto second = stops();
  REQUIRE(second.size() == 2);
  CHECK(second[0].starts_with("Stop:T00thread:" + kernel_thread(2)));
  CHECK(second[1].starts_with("T00thread:" + kernel_thread(4)));
  // Named itself, it goes on: this gdb has read the notification and acknowledges later.
  REQUIRE(gdb.ask("vCont;c:" + kernel_thread(1)) == "OK");
  REQUIRE(gdb.ask("vCont;t") == "OK");
  gdb.session->target_event();
  REQUIRE(gdb.ask("vCont;c:" + kernel_thread(1)) == "OK");
  CHECK(gdb.ask("vStopped") == "OK");
  REQUIRE(gdb.ask("vCont;t") == "OK");
  CHECK(stops().size() == 2);  // the one from before, and of the same thread once more
}

TEST_CASE("processes come and go") {
  Gdb gdb;
  gdb.ask("!");
  CHECK(gdb.ask("vAttach;1").starts_with("T00thread:p1.1;"));
  CHECK(gdb.ask("vAttach;1").front() == 'E');
  CHECK(gdb.ask("qAttached:1") == "1");
  CHECK(gdb.ask("D;f4240").front() == 'E');  // the kernel goes last
  CHECK(gdb.ask("D;1") == "OK");
  CHECK(gdb.target.counts().detached == 0);
  CHECK(gdb.ask("D;f4240") == "OK");
  CHECK(gdb.target.counts().detached == 1);
  CHECK(gdb.ask("g") == "E03");
  CHECK(gdb.ask("?") == "W00");
  CHECK(gdb.ask("vAttach;63") == "E03");
  CHECK(gdb.target.counts().detached == 2);
  // A guest process alone: the kernel is not shown.
  CHECK(gdb.ask("vAttach;1").starts_with("T00thread:p1.1;"));
  CHECK(gdb.ask("qfThreadInfo") == "mp1.1");
  CHECK(gdb.ask("D;1") == "OK");
  CHECK(gdb.target.counts().detached == 3);
  CHECK(gdb.ask("vAttach;f4240").starts_with("T00thread:pf4240.1;"));
}

TEST_CASE("the guest's end ends the session") {
  Gdb gdb;
  gdb.target.inject({.thread = {kKernelPid, 1}, .reason = StopReason::ProcessExited, .number = 3});
  CHECK(gdb.run("vCont;c") == "W03;process:f4240");
  CHECK(gdb.session->guest_has_ended());
  CHECK_FALSE(gdb.session->is_attached());
  CHECK(gdb.ask("g") == "E03");
  CHECK(gdb.ask("?") == "W00");
}

TEST_CASE("kill ends the guest or a process of it") {
  Gdb gdb;
  gdb.ask("vAttach;1");
  CHECK(gdb.ask("vKill;1") == "OK");
  CHECK_FALSE(gdb.session->guest_has_ended());
  CHECK(gdb.ask("k") == "(nothing)");
  CHECK(gdb.session->guest_has_ended());
  CHECK(gdb.session->is_finished());
}

TEST_CASE("a core file is read and does not run") {
  Gdb gdb({.live = false});
  CHECK(gdb.ask(kGdb).find("QNonStop") == std::string::npos);
  CHECK(gdb.ask("g").size() > 100);
  CHECK(gdb.ask("Z0,10010,1").empty());
  CHECK(gdb.ask("M20000,1:00").front() == 'E');
  gdb.run("vCont;c");
  REQUIRE(gdb.answers.size() == 2);
  CHECK(gdb.answers[0] == "O" + text_to_hex("This is a core file: nothing in it can run.\n"));
  CHECK(gdb.answers[1].starts_with("T02thread:"));
}

TEST_CASE("errors have words for a gdb that shows them") {
  Gdb gdb;
  CHECK(gdb.ask("vAttach;63") == "E03");
  gdb.ask("qSupported:multiprocess+;error-message+");
  CHECK(gdb.ask("vAttach;63") == "E.There is no process 99 in the guest.");
}

TEST_CASE("system calls, signals and siginfo") {
  Gdb gdb;
  CHECK(gdb.ask("QCatchSyscalls:1;27;3c") == "OK");
  CHECK(gdb.ask("QCatchSyscalls:0") == "OK");
  CHECK(gdb.ask("QCatchSyscalls:2").front() == 'E');
  CHECK(gdb.ask("QPassSignals:e;1e;8f") == "OK");
  CHECK(gdb.target.passed_signals() == std::vector{SIGALRM, SIGUSR1});
  CHECK(gdb.ask("qXfer:siginfo:write::2:ab") == "2");
  CHECK(gdb.ask("qXfer:siginfo:read::0,6") == std::string("m\0\0ab\0\0", 7));
  CHECK(gdb.ask("qXfer:siginfo:write::7f:ab").front() == 'E');
  CHECK(gdb.ask("qGetTLSAddr:" + kernel_thread(1) + ",10,0") == "28");  // fs_base is 24 here
}

TEST_CASE("system calls are caught in the process that has stopped, whatever Hg says") {
  Gdb gdb({.kernel_calls = false});
  CHECK(gdb.ask("QCatchSyscalls:1;27") == "E5f");
  REQUIRE(gdb.ask("vAttach;1").starts_with("T00thread:p1.1;"));
  gdb.ask("Hg" + kernel_thread(1));
  CHECK(gdb.ask("QCatchSyscalls:1;27") == "OK");
  CHECK(gdb.ask("QCatchSyscalls:0") == "OK");
}

TEST_CASE("a file gives little where gdb looks once, and more where it reads on") {
  const auto path =
      std::filesystem::temp_directory_path() / ("cowbird-vfile-" + std::to_string(::getpid()));
  std::string content(300'000, '\0');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>('a' + i % 23);
  std::ofstream(path) << content;
  Gdb gdb;
  CHECK(gdb.ask("vFile:open:" + text_to_hex(path.string()) + ",0,0") == "F3");
  std::filesystem::remove(path);
  const auto read = [&gdb](std::size_t offset) {
    const auto reply = gdb.ask(fmt::format("vFile:pread:3,40000,{:x}", offset));
    return reply.substr(reply.find(';') + 1);
  };
  CHECK(read(0).size() == 4096);
  CHECK(read(100'000) == content.substr(100'000, 4096));
  CHECK(read(104'096).size() == 8 * 4096);
  std::string whole;
  while (whole.size() < content.size()) {
    const auto piece = read(whole.size());
    REQUIRE_FALSE(piece.empty());
    whole += piece;
  }
  CHECK(whole == content);
  CHECK(gdb.ask("vFile:pread:3,40000,493e0") == "F0;");
  CHECK(gdb.ask("vFile:pread:3,5,8") == "F5;" + content.substr(8, 5));
}

TEST_CASE("files are read in the view of a process, and not written") {
  Gdb gdb;
  CHECK(gdb.ask("vFile:setfs:0") == "F0");
  const auto path = text_to_hex("/proc/self/comm");
  CHECK(gdb.ask("vFile:open:" + path + ",0,0") == "F3");
  CHECK(gdb.ask("vFile:pread:3,5,0").starts_with("F5;"));
  CHECK(gdb.ask("vFile:fstat:3").size() == 4 + 64);
  CHECK(gdb.ask("vFile:close:3") == "F0");
  CHECK(gdb.ask("vFile:close:3") == "F-1,9");
  CHECK(gdb.ask("vFile:pread:3,5,0") == "F-1,9");
  CHECK(gdb.ask("vFile:open:" + path + ",1,0") == "F-1,1e");
  CHECK(gdb.ask("vFile:open:" + path + ",601,1b6") == "F-1,1e");
  CHECK(gdb.ask("vFile:unlink:" + path) == "F-1,1e");
  CHECK(gdb.ask("vFile:open:zz,0,0") == "F-1,16");
  CHECK(gdb.ask("vFile:what:1").empty());
  CHECK(gdb.ask("vFile:setfs:1") == "F0");
  CHECK(gdb.ask("vFile:open:" + path + ",0,0") == "F-1,2");
  CHECK(gdb.ask("vFile:readlink:" + text_to_hex("/proc/self/exe")) == "F9;/bin/init");
  gdb.ask("vFile:setfs:0");
  for (int i = 0; i < 64; ++i) CHECK(gdb.ask("vFile:open:" + path + ",0,0").starts_with("F"));
  CHECK(gdb.ask("vFile:open:" + path + ",0,0") == "F-1,18");
}

TEST_CASE("monitor commands print as they go") {
  Gdb gdb;
  gdb.ask("qRcmd," + text_to_hex("flood"));
  CHECK(gdb.answers.size() == (1u << 14) + 1);
  CHECK(gdb.answers.back() == "OK");
  gdb.ask("qRcmd," + text_to_hex("nothing"));
  CHECK(gdb.answers[0] ==
        "O" +
            text_to_hex("There is no monitor command \"nothing\"; \"monitor help\" lists them.\n"));
}

TEST_CASE("monitor output stops when gdb has gone") {
  FakeTarget target({});
  unsigned sent = 0;
  Session session(target, [&](std::string &output) {
    output.clear();
    return ++sent < 3;
  });
  session.receive(packet(kGdb));
  session.receive(packet("qRcmd," + text_to_hex("flood")));
  CHECK(sent == 3);
}
