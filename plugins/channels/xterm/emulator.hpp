// The process of a terminal emulator, and the socket at which the helper in its window reports. For
// the channel `xterm`, on the device's own calls.
#pragma once

#include <sys/types.h>

#include <cowbird/plugin.hpp>
#include <string>

#include "common/descriptor.hpp"
#include "common/listener.hpp"
#include "common/readiness.hpp"

namespace channels {

// `xterm=terminal,title switch,exec switch`.
struct EmulatorCommand {
  std::string terminal, title_switch, exec_switch;
  // Throws cowbird::sdk::Error for anything but three words.
  static EmulatorCommand parse(const std::string &text);
};

class Emulator {
 public:
  struct Events {
    // The helper is there: its socket, and the window's terminal. Takes both over.
    std::function<void(Descriptor helper, Descriptor terminal)> window;
    // No window will come; a sentence that says why.
    std::function<void(const std::string &why)> failed;
  };
  Emulator(const cowbird::sdk::Host &host, Events events);
  ~Emulator() { stop(); }

  // Starts it and returns; throws cowbird::sdk::Error when that cannot be.
  void start(const EmulatorCommand &command, const std::string &title);
  // Ends it, and with it the window.
  void stop() noexcept;
  // Removes the socket's file; async-signal-safe.
  void remove_files() noexcept;

 private:
  void make_socket();
  void spawn(const std::string &program, const EmulatorCommand &command, const std::string &title);
  void take_helper();
  void take_terminal();
  void wait_for_helper(bool refused);
  void on_exit();
  void stop_waiting() noexcept;

  const Events events_;
  // The path of a socket has at most 107 bytes (unix(7)).
  static constexpr std::size_t kLongestFolder = 60;
  char directory_[kLongestFolder + 30] = {};
  char socket_path_[sizeof directory_ + 8] = {};
  Descriptor listener_;
  Descriptor newcomer_;  // has connected and not sent its terminal yet
  Descriptor output_;    // what the emulator says on its standard output and error
  Descriptor process_;
  pid_t pid_ = -1;
  Doorbell helper_comes_;
  Readiness helper_sends_;
  Readiness exits_;
};

}  // namespace channels
