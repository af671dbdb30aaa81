// The line discipline: canonical editing, raw input, echo, signals, flow control, output
// processing.
#include <catch2/catch.hpp>
#include <string>

#include "proc/signal.hpp"
#include "tty/line_discipline.hpp"

using namespace cowbird;
using namespace cowbird::abi;

namespace {

struct Terminal final : LineDiscipline::Sink {
  LineDiscipline ldisc{*this};
  std::vector<int> signals;

  void signal_foreground(int signal) override { signals.push_back(signal); }
  void input_ready() override {}
  void output_ready() override {}

  void type(std::string_view text) { ldisc.receive(std::as_bytes(std::span(text))); }
  std::string read(std::size_t max = 100) {
    std::string out(max, '\0');
    bool eof = false;
    out.resize(ldisc.read(std::as_writable_bytes(std::span(out)), eof));
    return eof && out.empty() ? "<eof>" : out;
  }
  std::string screen() {
    const auto bytes = ldisc.pending_output();
    std::string out(reinterpret_cast<const char *>(bytes.data()), bytes.size());
    ldisc.consume_output(bytes.size());
    return out;
  }
  template <typename Change>
  void change(Change &&f) {
    Termios2 t = ldisc.termios();
    f(t);
    ldisc.set_termios(t);
  }
  void raw() {
    change([](Termios2 &t) {
      t.iflag = 0;
      t.oflag = 0;
      t.lflag = 0;
    });
  }
};

}  // namespace

TEST_CASE("a line becomes readable with its newline, not before") {
  Terminal t;
  t.type("ab");
  CHECK_FALSE(t.ldisc.readable(1));
  CHECK(t.ldisc.available() == 0);
  t.type("c\r");
  CHECK(t.ldisc.readable(1));
  CHECK(t.ldisc.available() == 4);
  CHECK(t.screen() == "abc\r\n");
  CHECK(t.read() == "abc\n");
  CHECK(t.read() == "");
}

TEST_CASE("a read takes one line, and a short buffer leaves the rest of it") {
  Terminal t;
  t.type("first\nsecond\n");
  CHECK(t.read(3) == "fir");
  CHECK(t.read() == "st\n");
  CHECK(t.read() == "second\n");
}

TEST_CASE("end of file: alone it is one, after text it ends the line without being in it") {
  Terminal t;
  t.type("\x04");
  CHECK(t.read() == "<eof>");
  t.type("text\x04");
  CHECK(t.read() == "text");
  CHECK_FALSE(t.ldisc.readable(1));
  t.type("full\x04");
  CHECK(t.read(4) == "full");
  CHECK_FALSE(t.ldisc.readable(1));
}

TEST_CASE("erase, word erase and kill edit the line and the screen") {
  Terminal t;
  t.type("abX\x7f");
  CHECK(t.screen() == "abX\b \b");
  t.type("c one two\x17");
  t.screen();
  t.type("\n");
  CHECK(t.read() == "abc one \n");
  t.screen();
  t.type("xyz\x15");
  CHECK(t.screen() == "xyz\b \b\b \b\b \b");
  t.type("\x7f\n");
  CHECK(t.screen() == "\r\n");
  CHECK(t.read() == "\n");
}

TEST_CASE("echo into a full output queue ends") {
  Terminal tty;
  tty.change([](Termios2 &t) { t.oflag |= kXTABS; });
  tty.ldisc.stop_output();
  tty.change([](Termios2 &t) { t.iflag &= ~kIXON; });
  tty.ldisc.stop_output();
  for (int line = 0; line < 40; ++line) {
    tty.type(std::string(1000, 'x') + '\n');
    tty.ldisc.flush_input();
  }
  tty.type("\t\t\x7f\x7f");
  tty.type("ok\n");
  CHECK(tty.read() == "ok\n");
}

TEST_CASE("erase removes whole UTF-8 characters with IUTF8 and single bytes without") {
  Terminal t;
  t.change([](Termios2 &c) { c.iflag |= kIUTF8; });
  t.type("a\xc3\xa9\x7f\n");
  CHECK(t.read() == "a\n");
  t.change([](Termios2 &c) { c.iflag &= ~kIUTF8; });
  t.type("a\xc3\xa9\x7f\n");
  CHECK(t.read() == "a\xc3\n");
}

TEST_CASE("a tab is erased to the column where it began") {
  Terminal t;
  t.type("ab\t");
  t.screen();
  t.type("\x7f");
  CHECK(t.screen() == "\b\b\b\b\b\b");
}

TEST_CASE("control characters echo with a caret, and literal-next takes them into the line") {
  Terminal t;
  t.type("\x01");
  CHECK(t.screen() == "^A");
  t.type("\x16\x03\n");
  CHECK(t.signals.empty());
  CHECK(t.read() == "\x01\x03\n");
}

TEST_CASE("signal characters send their signal and flush, unless told otherwise") {
  Terminal t;
  t.type("partial\x03");
  CHECK(t.signals == std::vector<int>{kSigInt});
  t.type("\x1a\x1c");
  CHECK(t.signals == std::vector<int>{kSigInt, kSigTstp, kSigQuit});
  t.type("rest\n");
  CHECK(t.read() == "rest\n");
  t.change([](Termios2 &c) { c.lflag |= kNOFLSH; });
  t.type("kept\x03\n");
  CHECK(t.read() == "kept\n");
  t.change([](Termios2 &c) { c.lflag &= ~kISIG; });
  t.signals.clear();
  t.type("\x03\n");
  CHECK(t.signals.empty());
  CHECK(t.read() == "\x03\n");
}

TEST_CASE("flow control stops and restarts output") {
  Terminal t;
  t.type("\x13");
  t.ldisc.write(std::as_bytes(std::span(std::string_view("hello"))));
  CHECK(t.screen().empty());
  t.type("\x11");
  CHECK(t.screen() == "hello");
  t.type("\x13");
  t.change([](Termios2 &c) { c.iflag |= kIXANY; });
  t.ldisc.write(std::as_bytes(std::span(std::string_view("again"))));
  t.type("q");
  CHECK(t.screen() == "againq");
}

TEST_CASE("raw mode passes every byte, both ways") {
  Terminal t;
  t.raw();
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  t.type(all);
  CHECK(t.read(300) == all);
  CHECK(t.screen().empty());
  t.ldisc.write(std::as_bytes(std::span(all)));
  CHECK(t.screen() == all);
}

TEST_CASE("readable counts bytes in raw mode") {
  Terminal t;
  t.raw();
  t.type("ab");
  CHECK(t.ldisc.readable(2));
  CHECK_FALSE(t.ldisc.readable(3));
}

TEST_CASE("switching to raw makes what was typed readable; switching back makes a line of it") {
  Terminal t;
  t.type("half");
  t.raw();
  CHECK(t.read(2) == "ha");
  t.change([](Termios2 &c) { c.lflag |= kICANON; });
  CHECK(t.ldisc.readable(1));
  CHECK(t.read() == "lf");
}

TEST_CASE("output processing: newlines, tabs, carriage returns") {
  Terminal t;
  const auto put = [&](std::string_view s) {
    t.ldisc.write(std::as_bytes(std::span(s)));
    return t.screen();
  };
  CHECK(put("a\nb") == "a\r\nb");
  t.change([](Termios2 &c) { c.oflag |= kXTABS; });
  CHECK(put("\r12\tx") == "\r12      x");
  t.change([](Termios2 &c) { c.oflag |= kOCRNL; });
  CHECK(put("z\r") == "z\n");
}

TEST_CASE("an overlong line is cut but can be ended") {
  Terminal t;
  t.change([](Termios2 &c) { c.lflag &= ~kECHO; });
  t.type(std::string(10000, 'x'));
  CHECK(t.ldisc.input_room() > 0);
  t.type("\n");
  const std::string line = t.read(8000);
  CHECK(line.size() == LineDiscipline::kLineMax);
  CHECK(line.back() == '\n');
}

TEST_CASE("a full output queue takes no more from writers but still echoes") {
  Terminal t;
  t.type("\x13");
  const std::string big(100'000, 'o');
  const std::size_t taken = t.ldisc.write(std::as_bytes(std::span(big)));
  CHECK(taken < big.size());
  CHECK(t.ldisc.output_room() == 0);
  const std::size_t before = t.ldisc.queued_output();
  t.type("e");
  CHECK(t.ldisc.queued_output() == before + 1);
}

TEST_CASE("a break sends SIGINT only with BRKINT") {
  Terminal t;
  t.change([](Termios2 &c) { c.iflag |= kBRKINT; });
  t.ldisc.receive_break();
  CHECK(t.signals == std::vector<int>{kSigInt});
}
