// The listening sockets of a TCP port that several consoles share, and the line of clients that
// wait for one of them. For the channel `port`.
//
// Each open channel holds the listener of its address and watches its sockets, on duplicates of its
// own; whichever is called first takes the new clients in. A client goes to the channel that has
// been open for longest without one, else into the line. All functions lock: channels are devices
// of their own and may run on different host threads.
#pragma once

#include <cowbird/plugin.hpp>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/descriptor.hpp"
#include "common/listener.hpp"

namespace channels {

// A channel without a client. `wake` is called on any thread, under the listener's lock, when a
// client has been put into `client`.
struct Seat {
  std::function<void()> wake;
  Descriptor client;
};

class PortListener {
 public:
  // The one for this address, made when it is not there, for a channel that opens; close() when it
  // closes. `bind` is "loopback", "any" or an address in numbers. Throws cowbird::sdk::Error.
  static std::shared_ptr<PortListener> open(const std::string &bind, std::uint16_t port);
  // The channel closes, after it has let go of its duplicates and left its seat. With the last one
  // the port is closed. True: somebody waits in the line still, for as long as the listener is
  // held.
  bool close();

  // Descriptors of the listening sockets for one channel to watch: IPv4, IPv6 or both.
  std::vector<Descriptor> duplicates() const;

  // The channel has no client: it gets the first of the line, now or when one comes.
  void sit(Seat &seat);
  // It wants none any more. A client that was given and not fetched is given to another.
  void leave(Seat &seat);
  // The client that was given.
  Descriptor fetch(Seat &seat);
  // Takes in the clients that knock. False: the host has refused one, which knocks on.
  bool take_clients();

 private:
  static constexpr std::size_t kLongestLine = 32;

  struct Waiting {
    Descriptor client;
    bool told = false;  // that it has to wait

    // One that was not told yet may have said all that it has to say.
    bool gave_up() const { return told ? sends_no_more(client.get()) : is_gone(client.get()); }
  };

  void add_channel(const std::string &bind, std::uint16_t port);
  void listen_on(const std::string &bind, std::uint16_t port);
  void add_socket(const std::string &address, std::uint16_t port, bool optional);
  bool accept_all();
  void welcome(Descriptor client);
  void serve_line();

  mutable std::mutex mutex_;
  int channels_ = 0;  // that are open
  std::vector<Descriptor> sockets_;
  std::list<Seat *> free_;
  std::deque<Waiting> line_;
};

}  // namespace channels
