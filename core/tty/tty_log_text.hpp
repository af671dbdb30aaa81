// The format of terminal logs: JSON lines, as asciicast version 2 has them, so that asciinema(1)
// plays them. Pure logic; anyone may include this header.
//
//   ["seconds since opening", "o" | "i" | "r" | "m", "text"]
//     o  what the guest wrote; i  what the terminal's other side sent; r  a new window size
//     "80x24"; m  a remark: "open", "close", "1234 bytes lost"
//
// A file of a directory has the log of one opening of one terminal and begins with asciicast's
// header line: version, width, height, timestamp (seconds since 1970, guest's clock), title (the
// terminal). A descriptor has the events of all terminals: times are seconds since 1970, and a
// fourth element names the terminal.
//
// Bytes that are no UTF-8 are escaped as \udc80 to \udcff, so that nothing is lost (Python's
// errors="surrogateescape" gives them back).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace cowbird {

// One direction's bytes as JSON text, whole characters at a time.
class JsonBytes {
 public:
  // Appends without quotes. The beginning of a character waits for its end.
  void append(std::string &out, std::span<const std::byte> bytes);
  // What still waits, as bytes.
  void finish(std::string &out);

 private:
  std::string waiting_;
};

std::string json_quoted(std::string_view text);
// "12.000345": seconds.
std::string log_seconds(std::int64_t ns);
std::string log_header(std::string_view title, unsigned columns, unsigned rows,
                       std::int64_t realtime_ns);
// `text` is JSON without quotes. `tty` is empty in files of one terminal.
std::string log_event(std::int64_t ns, char kind, std::string_view text, std::string_view tty);

}  // namespace cowbird
