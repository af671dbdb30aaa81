// The telnet protocol (RFC 854 and its options) between a guest's console and a client: on top of
// libtelnet, which takes the commands apart, this decides the options and says what commands and
// line ends mean to a console. No sockets here. For the channel `port`.
//
// Asked of each client: that it leaves echo to us (ECHO, RFC 857), takes single characters (SGA,
// RFC 858), passes all eight bits (BINARY, RFC 856), and tells its window size (NAWS, RFC 1073).
// All else it offers is refused. A client that knows no telnet (nc) sees a few bytes of that and
// otherwise gets and sends what it likes.
#pragma once

#include <cowbird/channel.h>

#include <memory>
#include <optional>

#include "common/peer_stream.hpp"

struct telnet_t;

namespace channels {

class TelnetCodec final : public Codec {
 public:
  TelnetCodec() = default;
  ~TelnetCodec() override;
  TelnetCodec(const TelnetCodec &) = delete;
  TelnetCodec &operator=(const TelnetCodec &) = delete;

  // As in Codec. May throw std::bad_alloc.
  void start(std::string &wire) override;
  bool decode(std::span<const std::byte> received, Received &plain, std::string &wire) override;
  void encode(std::span<const std::byte> plain, std::string &wire) override;
  // To a client that has shown that it speaks telnet.
  bool encode_break(std::string &wire) override;

  // What the client said last; nullopt: nothing.
  std::optional<cowbird_window> window() const { return window_; }
  // The client has said another size since this was asked last.
  bool take_window_change() { return std::exchange(window_changed_, false); }

 private:
  friend struct TelnetEvents;
  void on_data(std::span<const char> data);
  void on_command(unsigned char command);
  void on_window(std::span<const char> data);

  telnet_t *telnet_ = nullptr;
  Received *plain_ = nullptr;  // where events put their bytes while a function runs
  std::string *wire_ = nullptr;
  bool speaks_telnet_ = false;  // the client has sent a command
  bool sends_binary_ = false;
  bool takes_binary_ = false;
  bool after_cr_in_ = false;
  bool after_cr_out_ = false;
  bool failed_ = false;
  bool window_changed_ = false;
  std::optional<cowbird_window> window_;
};

}  // namespace channels
