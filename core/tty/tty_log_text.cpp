#include "tty/tty_log_text.hpp"

#include <fmt/format.h>

namespace cowbird {

namespace {

// How many bytes the character that begins with `c` has; 0: none begins so.
std::size_t sequence_length(unsigned char c) {
  if (c < 0x80) return 1;
  if (c >= 0xc2 && c <= 0xdf) return 2;
  if (c >= 0xe0 && c <= 0xef) return 3;
  if (c >= 0xf0 && c <= 0xf4) return 4;
  return 0;
}

// May `next` be the byte at `index` of a character that begins with `first`? The second byte rules
// out long forms, surrogates and what is above U+10FFFF (RFC 3629).
bool continues(unsigned char first, std::size_t index, unsigned char next) {
  if (next < 0x80 || next > 0xbf) return false;
  if (index != 1) return true;
  if (first == 0xe0) return next >= 0xa0;
  if (first == 0xed) return next <= 0x9f;
  if (first == 0xf0) return next >= 0x90;
  if (first == 0xf4) return next <= 0x8f;
  return true;
}

void append_ascii(std::string &out, unsigned char c) {
  if (c == '"' || c == '\\') {
    out += '\\';
    out += static_cast<char>(c);
  } else if (c == '\n') {
    out += "\\n";
  } else if (c == '\r') {
    out += "\\r";
  } else if (c < 0x20 || c == 0x7f) {
    out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
  } else {
    out += static_cast<char>(c);
  }
}

void append_raw(std::string &out, unsigned char c) {
  out += fmt::format("\\udc{:02x}", static_cast<unsigned>(c));
}

}  // namespace

void JsonBytes::append(std::string &out, std::span<const std::byte> bytes) {
  std::string text = std::move(waiting_);
  waiting_.clear();
  text.append(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto first = static_cast<unsigned char>(text[at]);
    const std::size_t length = sequence_length(first);
    std::size_t have = 1;
    while (have < length && at + have < text.size() &&
           continues(first, have, static_cast<unsigned char>(text[at + have]))) {
      ++have;
    }
    if (length == 1) {
      append_ascii(out, first);
    } else if (have == length) {
      out.append(text, at, length);
    } else if (length != 0 && at + have == text.size()) {
      waiting_ = text.substr(at);
      return;
    } else {
      append_raw(out, first);
      have = 1;
    }
    at += have;
  }
}

void JsonBytes::finish(std::string &out) {
  for (const char c : waiting_) append_raw(out, static_cast<unsigned char>(c));
  waiting_.clear();
}

std::string json_quoted(std::string_view text) {
  std::string out = "\"";
  JsonBytes bytes;
  bytes.append(out, std::as_bytes(std::span(text)));
  bytes.finish(out);
  return out + '"';
}

std::string log_seconds(std::int64_t ns) {
  return fmt::format("{}.{:06}", ns / 1'000'000'000, ns / 1000 % 1'000'000);
}

std::string log_header(std::string_view title, unsigned columns, unsigned rows,
                       std::int64_t realtime_ns) {
  return fmt::format(
      "{{\"version\": 2, \"width\": {}, \"height\": {}, \"timestamp\": {}, \"title\": {}}}\n",
      columns, rows, realtime_ns / 1'000'000'000, json_quoted(title));
}

std::string log_event(std::int64_t ns, char kind, std::string_view text, std::string_view tty) {
  if (tty.empty()) return fmt::format("[{}, \"{}\", \"{}\"]\n", log_seconds(ns), kind, text);
  return fmt::format("[{}, \"{}\", \"{}\", {}]\n", log_seconds(ns), kind, text, json_quoted(tty));
}

}  // namespace cowbird
