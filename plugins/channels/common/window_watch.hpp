// The window size of a host terminal whose SIGWINCH goes to others: the kernel sends it to the
// terminal's foreground process group, where the guest's process is not, and no descriptor becomes
// ready. So the size is looked at when there is a reason (input came, somebody opened or closed the
// terminal: check()) and once a second of the guest's time while it is watched. For the channel
// plugins.
#pragma once

#include <cowbird/channel.hpp>

namespace channels {

// The terminal's size now; nullopt when it has none.
std::optional<cowbird_window> terminal_window(int fd);
// 0 or a negative errno.
int set_terminal_window(int fd, const cowbird_window &window);

class WindowWatch {
 public:
  explicit WindowWatch(const cowbird::sdk::Host &host) : host_(host) {}

  enum class Timed : bool { No, Yes };
  // `fd` stays the caller's and open until stop(). Not Timed: check() is called whenever the size
  // changes. Throws cowbird::sdk::Error.
  void start(int fd, Timed timed = Timed::Yes);
  void stop() noexcept;
  // Gives a WINDOW notice when the size has changed since it was looked at last.
  void check();
  int set(const cowbird_window &window);

 private:
  void tick();

  const cowbird::sdk::Host &host_;
  cowbird::sdk::Timer timer_;
  int fd_ = -1;
  std::optional<cowbird_window> last_;
};

}  // namespace channels
