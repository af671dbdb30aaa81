#include "tty/line_discipline.hpp"

#include <algorithm>
#include <cctype>

#include "proc/signal.hpp"

namespace cowbird {

using namespace abi;

namespace {

// Echo may go a little beyond what writers are given, as the keyboard must not be deaf while a
// program fills the queue.
constexpr std::size_t kEchoReserve = 1024;

bool is_control(std::uint8_t c) { return c < 0x20 || c == 0x7f; }
bool is_continuation(std::uint8_t c) { return (c & 0xc0) == 0x80; }
std::uint8_t caret_letter(std::uint8_t c) { return c ^ 0100; }

}  // namespace

Termios2 LineDiscipline::default_termios() {
  Termios2 t{};
  t.iflag = kICRNL | kIXON;
  t.oflag = kOPOST | kONLCR;
  t.cflag = kB38400 | kCS8 | kCREAD | kHUPCL;
  t.lflag = kISIG | kICANON | kECHO | kECHOE | kECHOK | kECHOCTL | kECHOKE | kIEXTEN;
  t.cc[kVINTR] = 3;
  t.cc[kVQUIT] = 28;
  t.cc[kVERASE] = 127;
  t.cc[kVKILL] = 21;
  t.cc[kVEOF] = 4;
  t.cc[kVTIME] = 0;
  t.cc[kVMIN] = 1;
  t.cc[kVSTART] = 17;
  t.cc[kVSTOP] = 19;
  t.cc[kVSUSP] = 26;
  t.cc[kVREPRINT] = 18;
  t.cc[kVDISCARD] = 15;
  t.cc[kVWERASE] = 23;
  t.cc[kVLNEXT] = 22;
  t.ispeed = t.ospeed = 38400;
  return t;
}

LineDiscipline::LineDiscipline(Sink &sink) : sink_(sink), termios_(default_termios()) {}

void LineDiscipline::set_termios(const Termios2 &termios) {
  const bool was_canonical = canonical();
  termios_ = termios;
  if (was_canonical && !canonical()) {
    // What was typed so far becomes readable bytes; end-of-file marks lose their meaning.
    std::erase_if(input_, [](const Unit &u) { return u.eof; });
    for (Unit &u : input_) u.mark = false;
    lines_ = 0;
    line_start_ = input_.size();
  } else if (!was_canonical && canonical()) {
    // Linux makes bytes that were not read yet one line, without a delimiter.
    if (!input_.empty()) {
      input_.back().mark = true;
      lines_ = 1;
    }
    line_start_ = input_.size();
  }
  if (!flag_i(kIXON) && stopped_) start_output();
  if (!input_.empty()) sink_.input_ready();
}

// --- input

std::size_t LineDiscipline::input_room() const {
  // An unfinished line must be able to end: what does not fit is dropped with a bell until it does.
  if (canonical() && lines_ == 0) return kLineMax;
  return input_.size() >= kLineMax - 1 ? 0 : kLineMax - 1 - input_.size();
}

void LineDiscipline::receive(std::span<const std::byte> bytes) {
  for (const std::byte b : bytes) receive_byte(std::to_integer<std::uint8_t>(b));
  if (!canonical() && !input_.empty()) sink_.input_ready();
  if (queued_output() != 0) sink_.output_ready();
}

void LineDiscipline::receive_break() {
  if (flag_i(kIGNBRK)) return;
  if (flag_i(kBRKINT)) {
    if (!flag_l(kNOFLSH)) {
      flush_input();
      flush_output();
    }
    sink_.signal_foreground(kSigInt);
    return;
  }
  if (flag_i(kPARMRK)) {
    store(0xff, false, false);
    store(0, false, false);
  }
  store(0, false, false);
  sink_.input_ready();
}

void LineDiscipline::receive_byte(std::uint8_t c) {
  if (flag_i(kISTRIP)) c &= 0x7f;
  if (flag_i(kIUCLC) && flag_l(kIEXTEN)) c = static_cast<std::uint8_t>(std::tolower(c));
  if (literal_next_) {
    literal_next_ = false;
    if (line_has_room()) {
      echo(c);
      store(c, false, false);
    }
    return;
  }
  if (handle_flow_control(c)) return;
  if (handle_signal_char(c)) return;
  if (c == '\r') {
    if (flag_i(kIGNCR)) return;
    if (flag_i(kICRNL)) c = '\n';
  } else if (c == '\n' && flag_i(kINLCR)) {
    c = '\r';
  }
  if (canonical()) {
    handle_canonical(c);
    return;
  }
  if (!line_has_room()) {
    if (flag_i(kIMAXBEL)) raw_out('\a');
    return;
  }
  if (flag_l(kECHO)) {
    if (c == '\n') {
      echo_newline();
    } else {
      echo(c);
    }
  }
  if (c == 0xff && flag_i(kPARMRK)) store(0xff, false, false);
  store(c, false, false);
}

bool LineDiscipline::handle_flow_control(std::uint8_t c) {
  if (!flag_i(kIXON)) return false;
  if (is(kVSTOP, c) && !(stopped_ && is(kVSTART, c))) {
    stop_output();
    return true;
  }
  if (is(kVSTART, c)) {
    start_output();
    return true;
  }
  // With IXANY any character restarts, and counts as input too; signals do so without it.
  if (stopped_ && flag_i(kIXANY)) start_output();
  return false;
}

bool LineDiscipline::handle_signal_char(std::uint8_t c) {
  if (!flag_l(kISIG)) return false;
  int signal = 0;
  if (is(kVINTR, c)) signal = kSigInt;
  if (is(kVQUIT, c)) signal = kSigQuit;
  if (is(kVSUSP, c)) signal = kSigTstp;
  if (signal == 0) return false;
  if (!flag_l(kNOFLSH)) {
    flush_input();
    flush_output();
  }
  if (stopped_) start_output();
  if (flag_l(kECHO)) echo(c);
  sink_.signal_foreground(signal);
  return true;
}

// The editing characters of canonical mode; true when c was one.
bool LineDiscipline::handle_editing(std::uint8_t c) {
  if (is(kVERASE, c)) {
    erase_char();
    return true;
  }
  if (is(kVKILL, c)) {
    kill_line();
    return true;
  }
  if (!flag_l(kIEXTEN)) return false;
  if (is(kVWERASE, c)) {
    erase_word();
    return true;
  }
  if (is(kVLNEXT, c)) {
    literal_next_ = true;
    if (flag_l(kECHO) && flag_l(kECHOCTL)) {
      raw_out('^');
      raw_out('\b');
    }
    return true;
  }
  if (is(kVREPRINT, c) && flag_l(kECHO)) {
    reprint();
    return true;
  }
  return false;
}

void LineDiscipline::handle_canonical(std::uint8_t c) {
  if (handle_editing(c)) return;
  if (printing_erased_) {
    raw_out('/');
    printing_erased_ = false;
  }
  if (c == '\n') {
    if (flag_l(kECHO) || flag_l(kECHONL)) echo_newline();
    store(c, true, false);
    return;
  }
  if (is(kVEOF, c)) {
    store(c, true, true);
    return;
  }
  if (is(kVEOL, c) || (is(kVEOL2, c) && flag_l(kIEXTEN))) {
    if (flag_l(kECHO)) echo(c);
    store(c, true, false);
    return;
  }
  if (!line_has_room()) {
    if (flag_i(kIMAXBEL)) raw_out('\a');
    return;
  }
  if (flag_l(kECHO)) {
    if (line_length() == 0) line_start_column_ = column_;
    echo(c);
  }
  if (c == 0xff && flag_i(kPARMRK)) store(0xff, false, false);
  store(c, false, false);
}

void LineDiscipline::store(std::uint8_t c, bool mark, bool eof) {
  if (input_.size() >= kLineMax) {
    // A full queue still takes one delimiter, so that the line can be ended: it replaces the last
    // byte.
    if (!mark || input_.back().mark) return;
    input_.pop_back();
  }
  input_.push_back({c, mark, eof});
  if (mark) {
    ++lines_;
    line_start_ = input_.size();
    sink_.input_ready();
  } else if (!canonical()) {
    line_start_ = input_.size();
  }
}

// --- editing

// Where the character begins that ends before `end`; several bytes with IUTF8.
std::size_t LineDiscipline::char_start(std::size_t end) const {
  std::size_t begin = end - 1;
  if (flag_i(kIUTF8)) {
    while (begin > line_start_ && is_continuation(input_[begin].byte)) --begin;
  }
  return begin;
}

unsigned LineDiscipline::echoed_width(std::uint8_t c) const {
  if (is_control(c)) return flag_l(kECHOCTL) ? 2 : 0;
  if (flag_i(kIUTF8) && is_continuation(c)) return 0;
  return 1;
}

// The column after the first `count` bytes of the line being edited.
unsigned LineDiscipline::line_column(std::size_t count) const {
  unsigned column = line_start_column_;
  for (std::size_t i = line_start_; i < line_start_ + count; ++i) {
    const std::uint8_t c = input_[i].byte;
    column = c == '\t' ? (column | 7) + 1 : column + echoed_width(c);
  }
  return column;
}

void LineDiscipline::erase_echo(std::uint8_t c, unsigned column_before) {
  if (!flag_l(kECHO)) return;
  if (flag_l(kECHOPRT)) {
    if (!printing_erased_) raw_out('\\');
    printing_erased_ = true;
    echo(c);
    return;
  }
  if (!flag_l(kECHOE)) {
    echo(termios_.cc[kVERASE]);
    return;
  }
  if (c == '\t') {
    for (unsigned n = column_ > column_before ? column_ - column_before : 0; n > 0; --n) {
      raw_out('\b');
    }
    return;
  }
  for (unsigned n = echoed_width(c); n > 0; --n) {
    raw_out('\b');
    raw_out(' ');
    raw_out('\b');
  }
}

void LineDiscipline::erase_char() {
  if (line_length() == 0) return;
  const std::size_t begin = char_start(input_.size());
  const unsigned before = line_column(begin - line_start_);
  const std::uint8_t first = input_[begin].byte;
  input_.resize(begin);
  erase_echo(first, before);
}

void LineDiscipline::erase_word() {
  const auto word = [](std::uint8_t c) { return std::isalnum(c) || c == '_' || c >= 0x80; };
  bool in_word = false;
  while (line_length() != 0) {
    const std::uint8_t last = input_[char_start(input_.size())].byte;
    if (word(last)) {
      in_word = true;
    } else if (in_word) {
      break;
    }
    erase_char();
  }
}

void LineDiscipline::kill_line() {
  if (line_length() == 0) return;
  if (flag_l(kECHO) && flag_l(kECHOK) && flag_l(kECHOKE) && flag_l(kECHOE)) {
    while (line_length() != 0) erase_char();
    return;
  }
  input_.resize(line_start_);
  if (!flag_l(kECHO)) return;
  echo(termios_.cc[kVKILL]);
  if (flag_l(kECHOK)) echo_newline();
}

void LineDiscipline::reprint() {
  echo(termios_.cc[kVREPRINT]);
  echo_newline();
  line_start_column_ = 0;
  for (std::size_t i = line_start_; i < input_.size(); ++i) echo(input_[i].byte);
}

// --- echo and output

void LineDiscipline::raw_out(std::uint8_t c) {
  if (queued_output() >= kOutputMax + kEchoReserve) return;
  if (c == '\b') {
    if (column_ > 0) --column_;
  } else if (c == '\r') {
    column_ = 0;
  } else if (!is_control(c) && !(flag_i(kIUTF8) && is_continuation(c))) {
    ++column_;
  }
  output_.push_back(static_cast<std::byte>(c));
}

void LineDiscipline::echo(std::uint8_t c) {
  if (!flag_l(kECHO)) return;
  if (c == '\t') {
    output_char(c);
    return;
  }
  if (is_control(c) && flag_l(kECHOCTL)) {
    raw_out('^');
    raw_out(caret_letter(c));
    return;
  }
  output_char(c);
}

void LineDiscipline::echo_newline() { output_char('\n'); }

// One byte through the output processing of oflag. The caller has made sure of 8 bytes of room.
void LineDiscipline::output_char(std::uint8_t c) {
  if (!flag_o(kOPOST)) {
    raw_out(c);
    return;
  }
  switch (c) {
    case '\n':
      if (flag_o(kONLRET)) column_ = 0;
      if (flag_o(kONLCR)) raw_out('\r');
      raw_out('\n');
      return;
    case '\r':
      if (flag_o(kONOCR) && column_ == 0) return;
      if (flag_o(kOCRNL)) {
        if (flag_o(kONLRET)) column_ = 0;
        raw_out('\n');
        return;
      }
      raw_out('\r');
      return;
    case '\t': {
      const unsigned next = (column_ | 7) + 1;
      if ((termios_.oflag & kTABDLY) == kXTABS) {
        // The queue may be full: then the column stays.
        for (unsigned blanks = next - column_; blanks > 0; --blanks) raw_out(' ');
      } else {
        raw_out('\t');
        column_ = next;
      }
      return;
    }
    default:
      if (flag_o(kOLCUC)) c = static_cast<std::uint8_t>(std::toupper(c));
      raw_out(c);
  }
}

std::size_t LineDiscipline::output_room() const {
  const std::size_t used = queued_output() + 8;
  return used >= kOutputMax ? 0 : kOutputMax - used;
}

std::size_t LineDiscipline::write(std::span<const std::byte> bytes) {
  std::size_t taken = 0;
  while (taken < bytes.size() && output_room() > 0) {
    output_char(std::to_integer<std::uint8_t>(bytes[taken]));
    ++taken;
  }
  if (queued_output() != 0) sink_.output_ready();
  return taken;
}

std::span<const std::byte> LineDiscipline::pending_output() {
  if (stopped_) return {};
  return std::span(output_).subspan(output_head_);
}

void LineDiscipline::consume_output(std::size_t bytes) {
  output_head_ += std::min(bytes, queued_output());
  if (output_head_ == output_.size()) {
    output_.clear();
    output_head_ = 0;
  } else if (output_head_ > kOutputMax) {
    output_.erase(output_.begin(), output_.begin() + static_cast<std::ptrdiff_t>(output_head_));
    output_head_ = 0;
  }
}

void LineDiscipline::flush_output() {
  output_.clear();
  output_head_ = 0;
  sink_.output_ready();
}

void LineDiscipline::stop_output() { stopped_ = true; }

void LineDiscipline::start_output() {
  stopped_ = false;
  sink_.output_ready();
}

// --- reading

bool LineDiscipline::readable(std::size_t minimum) const {
  if (canonical()) return lines_ > 0;
  return input_.size() >= std::max<std::size_t>(minimum, 1);
}

std::size_t LineDiscipline::available() const {
  if (!canonical()) return input_.size();
  std::size_t count = 0, marks = lines_;
  for (auto it = input_.begin(); it != input_.end() && marks > 0; ++it) {
    if (!it->eof) ++count;
    if (it->mark) --marks;
  }
  return count;
}

std::size_t LineDiscipline::read(std::span<std::byte> to, bool &eof) {
  std::size_t count = 0;
  eof = false;
  const bool by_lines = canonical();
  if (by_lines && lines_ == 0) return 0;
  while (!input_.empty()) {
    const Unit unit = input_.front();
    // An end-of-file mark right behind the last byte that fits is consumed with it, so that the
    // next read does not return 0 for a line that just filled the buffer.
    if (count == to.size() && !(by_lines && unit.eof)) break;
    input_.pop_front();
    if (line_start_ > 0) --line_start_;
    if (unit.mark && lines_ > 0) --lines_;
    if (unit.eof) {
      eof = true;
      break;
    }
    to[count++] = static_cast<std::byte>(unit.byte);
    if (by_lines && unit.mark) break;
  }
  return count;
}

void LineDiscipline::flush_input() {
  input_.clear();
  line_start_ = 0;
  lines_ = 0;
  literal_next_ = false;
}

}  // namespace cowbird
