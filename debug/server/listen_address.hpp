// Where the gdb server listens, as machine files and command lines write it:
//   tcp:HOST:PORT   HOST may be empty (loopback), a name, an IPv4 address or an IPv6 one in
//   brackets;
//                   "*" is every address of the host; port 0: the system picks one
//   unix:/PATH      a socket that only its owner may use
//   stdio           standard input and output, for gdb's `target remote | command`
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/unique_fd.hpp"

namespace cowbird::debug {

struct ListenAddress {
  enum class Kind : std::uint8_t { Tcp, Unix, Stdio };
  Kind kind = Kind::Stdio;
  std::string host{};  // Tcp; empty: loopback
  std::uint16_t port = 0;
  std::string path{};  // Unix

  // Nothing, and a sentence in `why`, when `text` is no such address.
  static std::optional<ListenAddress> parse(std::string_view text, std::string &why);
  std::string text() const;
};

// A listening socket, or none and a sentence in `why`. `address` gets the port that was picked. A
// socket file that nobody listens on any more is replaced; one that is in use, or another kind of
// file, is not.
UniqueFd listen_on(ListenAddress &address, std::string &why);

}  // namespace cowbird::debug
