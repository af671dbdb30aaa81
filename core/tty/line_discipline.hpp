// N_TTY, the line discipline of termios(3): turns bytes from the terminal's other side into lines
// or raw input for readers, echoes, edits, recognises the signal and flow-control characters, and
// processes output. Pure logic: it neither sleeps nor knows tasks; Tty drives it and is its Sink.
// Needs the big kernel lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "abi/termios.hpp"

namespace cowbird {

class LineDiscipline {
 public:
  class Sink {
   public:
    // ISIG characters and BREAK: SIGINT, SIGQUIT, SIGTSTP for the foreground group.
    virtual void signal_foreground(int signal) = 0;
    // There is something to read, or an end of file.
    virtual void input_ready() = 0;
    // Output was queued, or is allowed again.
    virtual void output_ready() = 0;

   protected:
    ~Sink() = default;
  };

  // The longest canonical line with its newline (termios(3): 4096), and the size of both queues.
  static constexpr std::size_t kLineMax = 4096;
  static constexpr std::size_t kOutputMax = 16384;

  explicit LineDiscipline(Sink &sink);

  const abi::Termios2 &termios() const { return termios_; }
  // Takes effect at once; switching ICANON keeps what was typed.
  void set_termios(const abi::Termios2 &termios);

  // --- the other side
  void receive(std::span<const std::byte> bytes);
  void receive_break();
  // Something was typed, and no end of a line.
  bool unfinished_line() const { return canonical() && line_length() != 0; }
  std::size_t input_room() const;

  // --- readers
  bool canonical() const { return termios_.lflag & abi::kICANON; }
  // A read would return now: a whole line (or end of file) in canonical mode, `minimum` bytes
  // otherwise.
  bool readable(std::size_t minimum) const;
  // FIONREAD.
  std::size_t available() const;
  // Moves input to `to`. `eof` tells that an end-of-file character was consumed (with 0 bytes: read
  // returns 0).
  std::size_t read(std::span<std::byte> to, bool &eof);
  void flush_input();

  // --- writers
  // Processes and queues output; returns how many of the bytes were taken (fewer when the queue is
  // full).
  std::size_t write(std::span<const std::byte> bytes);
  std::size_t output_room() const;
  // What the port should send now: empty while output is stopped.
  std::span<const std::byte> pending_output();
  void consume_output(std::size_t bytes);
  std::size_t queued_output() const { return output_.size() - output_head_; }
  void flush_output();

  bool stopped() const { return stopped_; }
  void stop_output();
  void start_output();

  static abi::Termios2 default_termios();

 private:
  struct Unit {  // one input byte; `mark` ends a line (a delimiter or an end of file)
    std::uint8_t byte;
    bool mark;
    bool eof;  // the mark is an end-of-file character: not part of the data
  };

  bool flag_i(std::uint32_t f) const { return termios_.iflag & f; }
  bool flag_o(std::uint32_t f) const { return termios_.oflag & f; }
  bool flag_l(std::uint32_t f) const { return termios_.lflag & f; }
  bool is(std::size_t cc, std::uint8_t c) const {
    return termios_.cc[cc] == c && c != abi::kVDisable;
  }
  void receive_byte(std::uint8_t c);
  bool handle_signal_char(std::uint8_t c);
  bool handle_flow_control(std::uint8_t c);
  bool handle_editing(std::uint8_t c);
  void handle_canonical(std::uint8_t c);
  void store(std::uint8_t c, bool mark, bool eof);
  bool line_has_room() const { return input_.size() < kLineMax - 1; }

  void erase_char();
  void erase_word();
  void kill_line();
  void reprint();
  void erase_echo(std::uint8_t c, unsigned column_before);
  unsigned line_column(std::size_t count) const;
  std::size_t line_length() const { return input_.size() - line_start_; }
  std::size_t char_start(std::size_t end) const;

  void echo(std::uint8_t c);
  void echo_newline();
  void raw_out(std::uint8_t c);
  void output_char(std::uint8_t c);
  unsigned echoed_width(std::uint8_t c) const;

  Sink &sink_;
  abi::Termios2 termios_;
  std::deque<Unit> input_;
  std::size_t line_start_ = 0;  // input_[line_start_..] is the line being edited
  std::size_t lines_ = 0;       // marks in the queue
  bool literal_next_ = false;
  bool stopped_ = false;
  unsigned column_ = 0;
  unsigned line_start_column_ = 0;
  bool printing_erased_ = false;  // inside an ECHOPRT \.../ bracket
  std::vector<std::byte> output_;
  std::size_t output_head_ = 0;
};

}  // namespace cowbird
