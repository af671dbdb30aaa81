// The client's side of the management console: asks a running guest (ours or UML) and waits for its
// answer. Host side only, for the client commands; blocking, any one thread.
#pragma once

#include <sys/un.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.hpp"
#include "mconsole/protocol.hpp"

namespace cowbird::mconsole {

enum class Outcome : std::uint8_t {
  Ok,
  Error,     // the guest answered with an error
  NoAnswer,  // nothing came in time
  Gone,      // the guest is not there (any more)
};
struct ClientReply {
  Outcome outcome = Outcome::Ok;
  std::string text;  // the answer, or for the last two a sentence
};

class Client {
 public:
  // nullptr and a sentence when nobody listens on that socket.
  static std::unique_ptr<Client> connect(const std::filesystem::path &socket, std::string &error);
  using Deadline = std::chrono::steady_clock::time_point;
  // One request. `patience` is for it to be taken, and for each packet of the answer; nothing is
  // waited for beyond the deadline.
  ClientReply ask(std::string_view command, std::chrono::milliseconds patience,
                  Deadline deadline = Deadline::max());

 private:
  Client(UniqueFd socket, const sockaddr_un &server)
      : socket_(std::move(socket)), server_(server) {}
  void drop_old_answers();
  // 0, or the host's errno; EAGAIN when the guest does not take it in time.
  int send(std::string_view request, Deadline deadline);
  // One packet of the guest's, until then: its length, 0 for none, -1 when the guest is gone.
  ssize_t receive(std::span<std::byte> buffer, Deadline deadline);
  UniqueFd socket_;
  // Not connected to it: the host then bounds what may wait for us.
  sockaddr_un server_;
  bool unanswered_ = false;  // something may still come
};

// The command with the names of host files in a `config` made absolute: of block devices, and of
// the channels that name a file (tty, file, unix). Others are returned as they are.
std::string with_absolute_names(std::string_view command, const std::filesystem::path &directory);

// "log TEXT" requests that put a text into the guest's log, line by line, none too long.
std::vector<std::string> log_requests(std::string_view text);

}  // namespace cowbird::mconsole
