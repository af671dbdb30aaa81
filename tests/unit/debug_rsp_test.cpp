// The gdb protocol's parts that need no target: framing, requests, registers, documents,
// conditions.
#include <catch2/catch.hpp>
#include <cstring>

#include "debug/rsp/agent_expression.hpp"
#include "debug/rsp/documents.hpp"
#include "debug/rsp/framing.hpp"
#include "debug/rsp/hex.hpp"
#include "debug/rsp/register_layout.hpp"
#include "debug/rsp/requests.hpp"
#include "debug/rsp/signals.hpp"

using namespace cowbird;
using namespace cowbird::debug;
using Event = PacketReader::Event;

namespace {

struct Read {
  std::vector<Event> events;
  std::vector<std::string> packets;
};
Read read_all(PacketReader &reader, std::string_view bytes) {
  Read read;
  for (const char c : bytes) {
    const auto event = reader.push(static_cast<unsigned char>(c));
    if (event == Event::None) continue;
    read.events.push_back(event);
    if (event == Event::Packet) read.packets.push_back(reader.take());
  }
  return read;
}

std::string framed(std::string_view payload) {
  std::string out;
  append_packet(out, payload);
  return out;
}

// What gdb makes of a packet: runs and escapes undone.
std::string unframed(std::string_view packet) {
  std::string out;
  packet = packet.substr(1, packet.size() - 4);
  for (std::size_t i = 0; i < packet.size(); ++i) {
    if (packet[i] == '}')
      out += static_cast<char>(packet[++i] ^ 0x20);
    else if (packet[i] == '*')
      out.append(static_cast<std::size_t>(packet[++i] - 29), out.back());
    else
      out += packet[i];
  }
  return out;
}

std::vector<std::byte> code(std::initializer_list<int> bytes) {
  std::vector<std::byte> out;
  for (const int b : bytes) out.push_back(static_cast<std::byte>(b));
  return out;
}

// Registers 16 and up have their number as value; memory has its address's low byte in each byte.
AgentContext context() {
  AgentContext c;
  c.read_register = [](unsigned number) -> Result<std::uint64_t> {
    if (number < 16) return Err(Errno::NoEnt);
    return number;
  };
  c.read_memory = [](std::uint64_t address, std::span<std::byte> out) -> Result<void> {
    if (address < 0x1000) return Err(Errno::Fault);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(address + i);
    return {};
  };
  return c;
}

Result<std::uint64_t> value_of(std::initializer_list<int> bytes) {
  const auto expression = AgentExpression::parse(code(bytes));
  REQUIRE(expression);
  return expression->evaluate(context());
}

}  // namespace

TEST_CASE("packets are found between noise, and damaged ones are not") {
  PacketReader reader(100);
  auto read = read_all(reader, "noise+-\x03$OK#9a$bad#00$cut$g#67");
  CHECK(read.events == std::vector{Event::Ack, Event::Nack, Event::Interrupt, Event::Packet,
                                   Event::BadChecksum, Event::Packet});
  CHECK(read.packets == std::vector<std::string>{"OK", "g"});
  CHECK(read_all(reader, "$x#zz").events == std::vector{Event::BadChecksum});
  CHECK(read_all(reader, "%Stop:T05#00").events.empty());
  CHECK(read_all(reader, "$#00").packets == std::vector<std::string>{""});
}

TEST_CASE("an interrupt inside a packet is data") {
  PacketReader reader(100);
  CHECK(read_all(reader, "$\x03#03").packets == std::vector<std::string>{"\x03"});
}

TEST_CASE("escapes are resolved, checksums ignored without acknowledgements") {
  PacketReader reader(100);
  reader.ignore_checksums();
  CHECK(read_all(reader, "$a}\x03}]b#00").packets == std::vector<std::string>{"a#}b"});
}

TEST_CASE("a packet that is too long is dropped, the next one is read") {
  PacketReader reader(4);
  reader.ignore_checksums();
  const auto read = read_all(reader, "$" + std::string(1000, 'x') + "#00$1234#00$12345#00$1#00");
  CHECK(read.events == std::vector{Event::TooLong, Event::Packet, Event::TooLong, Event::Packet});
}

TEST_CASE("payloads of all bytes and runs survive framing") {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  for (std::size_t run = 1; run < 300; ++run) {
    const auto payload = all + std::string(run, '0') + std::string(run, '#');
    const auto packet = framed(payload);
    REQUIRE(unframed(packet) == payload);
    // Counts must not look like framing or acknowledgements.
    for (std::size_t i = 1; i + 4 < packet.size(); ++i)
      if (packet[i] == '*')
        REQUIRE(std::string_view("#$+-").find(packet[i + 1]) == std::string_view::npos);
  }
  CHECK(framed("OK") == "$OK#9a");
  CHECK(framed(std::string(1000, '0')).size() < 50);
}

TEST_CASE("numbers in hexadecimal") {
  std::string_view text = "1fz";
  CHECK(take_hex(text) == 0x1f);
  CHECK(text == "z");
  CHECK_FALSE(take_hex(text));
  CHECK(hex_number("ffffffffffffffff") == ~std::uint64_t{0});
  CHECK_FALSE(hex_number("1ffffffffffffffff"));
  CHECK_FALSE(hex_number(""));
  CHECK(text_from_hex("6f6B") == "ok");
  CHECK_FALSE(text_from_hex("6f6"));
  CHECK_FALSE(text_from_hex("6g"));
}

TEST_CASE("thread ids") {
  CHECK(parse_thread_id("p1.2") == ThreadId{1, 2});
  CHECK(parse_thread_id("p1") == ThreadId{1, kAll});
  CHECK(parse_thread_id("p1.-1") == ThreadId{1, kAll});
  CHECK(parse_thread_id("p-1") == ThreadId{kAll, kAll});
  CHECK(parse_thread_id("-1") == ThreadId{kAll, kAll});
  CHECK(parse_thread_id("2") == ThreadId{0, 2});
  CHECK(parse_thread_id("0") == ThreadId{0, 0});
  for (const auto *bad : {"", "p", "p.", "p1.", "x", "1x", "pffffffffffffffff.1", "-2"})
    CHECK_FALSE(parse_thread_id(bad));
  CHECK(thread_id_text({kKernelPid, kAll}, true) == "pf4240.-1");
  CHECK(thread_id_text({1, 255}, false) == "ff");
}

TEST_CASE("arguments follow their schema") {
  const auto memory = Arguments::parse("n,n:b", "10,3:a:,");
  REQUIRE(memory);
  CHECK(memory->number(0) == 16);
  CHECK(memory->text(2) == "a:,");
  CHECK(Arguments::parse("n?;n", "5")->count() == 1);
  CHECK(Arguments::parse("n?;n", "5;6")->number(1) == 6);
  CHECK(Arguments::parse("x", "6f6b")->text(0) == "ok");
  CHECK(Arguments::parse("", ""));
  for (const auto *bad : {"", "10", "10,", "10,3", "g,3:", ",3:"})
    CHECK_FALSE(Arguments::parse("n,n:b", bad));
  CHECK_FALSE(Arguments::parse("n,n", "1,2,3"));
  CHECK_FALSE(Arguments::parse("", "x"));
  CHECK_FALSE(Arguments::parse("x", "6f6"));
}

TEST_CASE("actions of vCont") {
  const auto actions = parse_vcont("s:p1.2;r10,20:p1.3;C0b:p1.4;t:p2.-1;c");
  REQUIRE(actions);
  REQUIRE(actions->size() == 5);
  CHECK((*actions)[0].kind == ResumeKind::Step);
  CHECK((*actions)[1].kind == ResumeKind::StepRange);
  CHECK((*actions)[1].range_high == 0x20);
  CHECK((*actions)[2].signal == 11);
  CHECK((*actions)[3].kind == ResumeKind::Stop);
  CHECK((*actions)[4].thread == ThreadId{kAll, kAll});
  CHECK((*parse_vcont("r10,10"))[0].kind == ResumeKind::Step);
  for (const auto *bad : {"", "x", "c:", "c:q", "r10", "r10,", "C", "Cfff", ";", "cc"}) {
    INFO(bad);
    // "c:" has an empty thread, which is none.
    if (std::strcmp(bad, "c:") != 0) CHECK_FALSE(parse_vcont(bad));
  }
}

TEST_CASE("breakpoints with conditions") {
  const auto b = parse_breakpoint('0', "40101a,1;X9,260002164022021327");
  REQUIRE(b);
  CHECK(b->address == 0x40101a);
  CHECK(b->conditions.size() == 1);
  CHECK(parse_breakpoint('0', "10,1;X3,220127X3,220027")->conditions.size() == 2);
  CHECK(parse_breakpoint('2', "10,8")->kind == BreakpointKind::Write);
  // Floating point is left to gdb: the breakpoint stops always.
  CHECK(parse_breakpoint('0', "10,1;X4,22011e27")->conditions.empty());
  for (const auto *bad : {"", "10", "10,", "10,1;X", "10,1;X3,2201", "10,1;Xffff,22", "10,1;cmds:1",
                          "10,1x", "10,1;X1,ff", "10,100000000"})
    CHECK_FALSE(parse_breakpoint('0', bad));
  CHECK_FALSE(parse_breakpoint('5', "10,1"));
}

TEST_CASE("agent expressions compute") {
  CHECK(*value_of({0x22, 5, 0x22, 3, 0x03, 0x27}) == 2);               // 5 - 3
  CHECK(*value_of({0x22, 5, 0x22, 3, 0x14, 0x27}) == 0);               // 5 < 3
  CHECK(*value_of({0x22, 0xff, 0x16, 8, 0x27}) == ~std::uint64_t{0});  // sign extension
  CHECK(*value_of({0x23, 1, 2, 0x2a, 8, 0x27}) == 2);
  CHECK(*value_of({0x26, 0, 16, 0x22, 16, 0x13, 0x27}) == 1);                  // $rip == 16
  CHECK(*value_of({0x23, 0x12, 0x34, 0x18, 0x27}) == 0x3534);                  // *(short*)0x1234
  CHECK(*value_of({0x22, 1, 0x20, 0, 8, 0x22, 9, 0x27, 0x22, 7, 0x27}) == 7);  // if_goto
  CHECK(*value_of({0x22, 1, 0x22, 2, 0x22, 3, 0x33, 0x29, 0x27}) == 1);  // a b c -> c a b, pop
  CHECK(*value_of({0x22, 1, 0x22, 2, 0x32, 1, 0x27}) == 1);              // pick
  CHECK(*value_of({0x22, 1, 0x22, 70, 0x09, 0x27}) == 0);                // 1 << 70
  CHECK(*value_of({0x22, 0x80, 0x16, 8, 0x22, 70, 0x0a, 0x27}) == ~std::uint64_t{0});
  // The one quotient that does not fit.
  CHECK(*value_of({0x25, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x22, 0xff, 0x16, 8, 0x05, 0x27}) == 1ull
                                                                                             << 63);
}

TEST_CASE("agent expressions that go wrong end in an error") {
  CHECK(value_of({0x22, 1, 0x22, 0, 0x05, 0x27}).is(Errno::Inval));  // 1 / 0
  CHECK(value_of({0x29, 0x27}).is(Errno::Range));                    // nothing to pop
  CHECK(value_of({0x21, 0, 0}).is(Errno::Range));                    // a loop without end
  CHECK(value_of({0x22, 1, 0x21, 0, 0}).is(Errno::Range));           // and one that pushes
  CHECK(value_of({0x22, 1, 0x17, 0x27}).is(Errno::Fault));           // *(char*)1
  CHECK(value_of({0x26, 0, 3, 0x27}).is(Errno::NoEnt));              // an unknown register
  for (const auto &bad : {code({}), code({0x22}), code({0x22, 1}), code({0xff, 0x27}),
                          code({0x21, 0, 9}), code({0x22, 1, 0x21, 0, 1}), code({0x16, 0, 0x27}),
                          code({0x16, 65, 0x27}), code({0x00, 0x27})})
    CHECK(AgentExpression::parse(bad).is(Errno::Inval));
  CHECK(AgentExpression::parse(std::vector(5000, std::byte{0x27})).is(Errno::Inval));
  CHECK(AgentExpression::parse(code({0x22, 1, 0x0c, 0x27})).is(Errno::OpNotSupp));  // trace
}

TEST_CASE("signals go to gdb's numbers and back") {
  CHECK(signal_to_gdb(5) == 5);
  CHECK(signal_to_gdb(10) == 30);  // SIGUSR1
  CHECK(signal_to_gdb(7) == 10);   // SIGBUS
  CHECK(signal_to_gdb(32) == 77);
  CHECK(signal_to_gdb(33) == 45);
  CHECK(signal_to_gdb(64) == 78);
  CHECK(signal_to_gdb(99) == 143);
  CHECK(signal_from_gdb(143) == 0);
  for (int i = 1; i <= 64; ++i)
    if (i != 16) CHECK(signal_from_gdb(signal_to_gdb(i)) == i);
}

TEST_CASE("registers stand where gdb looks for them") {
  const RegisterLayout layout(
      {.avx = 576, .opmask = 1088, .zmm_high = 1152, .zmm_16_31 = 1664, .pkru = 2688}, {"curtask"});
  Registers r;
  r.set(Reg::Rip, 0x1122334455667788);
  r.set(Reg::Eflags, 0x246);
  const auto one = [&](unsigned number) {
    std::string out;
    REQUIRE(layout.append(out, number, r));
    return out;
  };
  CHECK(one(16) == "8877665544332211");
  CHECK(one(17) == "46020000");
  CHECK(one(0) == "xxxxxxxxxxxxxxxx");
  CHECK(one(24) == std::string(20, 'x'));  // no extended state is known
  r.xstate.resize(2696);
  CHECK(one(24) == std::string(20, '0'));
  CHECK(one(32) == "7f030000");   // the control word's initial value
  CHECK(one(34) == "ffff0000");   // all x87 registers empty
  CHECK(one(56) == "801f0000");   // mxcsr
  CHECK(one(148) == "00000000");  // pkru
  CHECK(one(149) == "xxxxxxxxxxxxxxxx");
  r.kernel = {7};
  CHECK(one(149) == "0700000000000000");
  std::string out;
  CHECK(layout.append(out, 150, r).is(Errno::NoEnt));
  CHECK(layout.set(r, 149, "0000000000000000").is(Errno::NoEnt));
  CHECK(layout.set(r, 16, "00").is(Errno::Inval));

  // Setting one of a component that was initial leaves the others so.
  REQUIRE(layout.set(r, 40, "0102" + std::string(28, '0')));
  CHECK(one(40).starts_with("0102"));
  CHECK(one(41) == std::string(32, '0'));
  CHECK(one(56) == "801f0000");
  REQUIRE(layout.set(r, 32, "7f020000"));
  CHECK(one(34) == "ffff0000");
  REQUIRE(layout.set(r, 34, "fffc0000"));  // the fifth is valid
  CHECK(one(34) != "ffff0000");

  const auto all = layout.pack(r);
  Registers copy;
  copy.xstate.resize(2696);
  REQUIRE(layout.unpack(copy, all));
  CHECK(copy.get(Reg::Rip) == r.get(Reg::Rip));
  CHECK_FALSE(copy.has(Reg::Rax));
  copy.kernel = r.kernel;
  CHECK(layout.pack(copy) == all);
  CHECK(layout.unpack(copy, all + "00").is(Errno::Inval));
  CHECK(layout.unpack(copy, "zz").is(Errno::Inval));
  CHECK(*layout.value(16, r) == r.get(Reg::Rip));
  CHECK(layout.value(40, r).is(Errno::NoEnt));  // too wide
}

TEST_CASE("the x87 tag word is that of the processor") {
  const RegisterLayout layout({}, {});
  Registers r;
  r.xstate.resize(576);
  r.xstate[512] = std::byte{1};
  r.xstate[2] = std::byte{0};
  r.xstate[3] = std::byte{0x38};  // top of stack is 7
  r.xstate[4] = std::byte{0x80};  // register 7 is in use: st0
  r.xstate[32 + 7] = std::byte{0x80};
  r.xstate[32 + 9] = std::byte{0x3f};
  std::string out;
  REQUIRE(layout.append(out, 34, r));
  CHECK(out == "ff3f0000");
}

TEST_CASE("documents escape what XML reserves") {
  CHECK(threads_document({{{1, 2}, "a<b>&\"c'\x01", "in \"x\"", 3}}, true) ==
        "<?xml version=\"1.0\"?>\n<threads>\n<thread id=\"p1.2\" core=\"3\" "
        "name=\"a&lt;b&gt;&amp;&quot;c&apos;?\">in "
        "&quot;x&quot;</thread>\n</threads>\n");
  CHECK(libraries_document({{"", 0x10, 0, 0}, {"/l.so", 0x20, 0x30, 0x40}}) ==
        "<library-list-svr4 version=\"1.0\" main-lm=\"0x10\">\n<library name=\"/l.so\" lm=\"0x20\" "
        "l_addr=\"0x30\" "
        "l_ld=\"0x40\" lmid=\"0x0\"/>\n</library-list-svr4>\n");
}

TEST_CASE("stops are worded as gdb has asked for") {
  const auto text = [](StopEvent event, StopStyle style = {}) {
    event.thread = {1, 2};
    return stop_reply(event, "10:00;", style);
  };
  CHECK(text({.signal = 10}) == "T1ethread:p1.2;10:00;");
  CHECK(text({.reason = StopReason::SoftBreakpoint, .core = 3}) ==
        "T05swbreak:;thread:p1.2;core:3;10:00;");
  CHECK(text({.reason = StopReason::SoftBreakpoint}, {.swbreak = false}) ==
        "T05thread:p1.2;10:00;");
  CHECK(text({.reason = StopReason::Watch, .address = 0x1234}) ==
        "T05watch:1234;thread:p1.2;10:00;");
  CHECK(text({.reason = StopReason::SyscallEntry, .number = 39}) ==
        "T05syscall_entry:27;thread:p1.2;10:00;");
  CHECK(text({.reason = StopReason::Fork, .child = {5, 5}}) == "T05fork:p5.5;thread:p1.2;10:00;");
  CHECK(text({.reason = StopReason::Exec, .path = "/a"}) == "T05exec:2f61;thread:p1.2;10:00;");
  CHECK(text({.reason = StopReason::ProcessExited, .number = 3}) == "W03;process:1");
  CHECK(text({.reason = StopReason::ProcessKilled, .signal = 9}) == "X09;process:1");
  CHECK(text({.reason = StopReason::ThreadExited, .number = 0}) == "w0;p1.2");
  CHECK(text({.reason = StopReason::NoneLeft}) == "N");
  CHECK(text({.reason = StopReason::Interrupted, .signal = 0}) == "T00thread:p1.2;10:00;");
  CHECK(text({.reason = StopReason::ProcessExited, .number = 3}, {.multiprocess = false}) == "W03");
}
