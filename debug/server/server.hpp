// Server: the event loop between gdb and a target. It listens, serves one gdb at a time and tells a
// second one so, gives the guest back its freedom when gdb goes in whatever way, and ends with the
// guest. Used by `cowbird gdbserver` and tests.
//
// run() is the only caller of the target; it must be on the thread that may ptrace the guest.
#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.hpp"
#include "debug/rsp/framing.hpp"
#include "debug/server/listen_address.hpp"
#include "debug/server/session.hpp"
#include "debug/target/target.hpp"

namespace cowbird::debug {

class Server {
 public:
  struct Options {
    // Sentences for the person who started the server, without newline.
    std::function<void(std::string_view)> say{};
    Session::Trace trace{};
    // Ends run() when it is readable: a signalfd. -1: none. Not owned.
    int stop_fd = -1;
    // A pidfd of the guest; -1: none. Not owned. When it is readable run() ends, or, with a gdb,
    // when that has heard of it and closed the connection.
    int guest_fd = -1;
    // Ends after the first gdb. Always so with stdio.
    bool once = false;
  };
  enum class End : std::uint8_t {
    GuestEnded,  // gdb was told
    Stopped,     // by stop_fd; the guest runs on
    GdbGone,     // with `once` or stdio
    Failed,      // poll(2) did; never seen
  };

  // Null, and a sentence in `why`, when it cannot listen there.
  static std::unique_ptr<Server> create(ListenAddress address, Target &target, Options options,
                                        std::string &why);
  // Detaches the target and removes the socket file.
  ~Server();
  Server(const Server &) = delete;
  Server &operator=(const Server &) = delete;

  // With the port that was picked.
  const ListenAddress &address() const { return address_; }
  End run();

 private:
  using Clock = std::chrono::steady_clock;
  // A connection while another gdb is served: it is told why with its first packet.
  struct Refused {
    UniqueFd fd;
    PacketReader reader;
    bool answered;
    Clock::time_point deadline;
  };
  Server(ListenAddress address, Target &target, Options options, UniqueFd listener);
  int wait(std::vector<pollfd> &polls);
  void guest_has_gone();
  void close_listener();
  void accept_one();
  void begin(int input, int output);
  void drop();
  void let_read() const;
  void read_input();
  void feed();
  bool send_some(std::string &data);
  bool send_streaming(std::string &data);
  // False: it is done with.
  bool serve_refused(Refused &refused, bool readable);
  void say(std::string_view words) const;

  ListenAddress address_;
  Target &target_;
  Options options_;
  UniqueFd listener_;

  std::unique_ptr<Session> session_;
  UniqueFd connection_;  // of a socket
  int input_ = -1, output_ = -1;
  bool is_socket_ = false;
  bool gone_ = false;    // gdb has closed, or an error says so
  std::string pending_;  // read, not yet given to the session
  std::vector<Refused> refused_;
  bool guest_gone_ = false;     // guest_fd said so
  Clock::time_point end_by_{};  // after the guest's end
};

}  // namespace cowbird::debug
