// A host terminal, by its slave side, as a channel's peer: raw while it is used, as it was before
// afterwards. For the channel plugins `tty` and `xterm`.
#pragma once

#include "common/descriptor.hpp"
#include "common/marked_breaks.hpp"
#include "common/peer_stream.hpp"
#include "common/terminal.hpp"
#include "common/window_watch.hpp"

namespace channels {

class TerminalPeer {
 public:
  // `gone`: the terminal has hung up.
  TerminalPeer(const cowbird::sdk::Host &host, std::function<void()> gone);

  // Takes over a descriptor of the terminal, and puts it in raw mode. Throws cowbird::sdk::Error.
  void open(Descriptor terminal, WindowWatch::Timed timed);
  void close() noexcept;
  bool connected() const { return stream_.connected(); }

  std::int64_t read(std::span<std::byte> buffer);
  std::int64_t write(std::span<const std::byte> data) { return stream_.write(data); }
  std::optional<cowbird_window> window() const { return terminal_window(fd_.get()); }
  int set_window(const cowbird_window &window);
  // The terminal says that its size has changed.
  void window_changed() { window_.check(); }
  int set_raw(bool raw) { return terminal_.set_raw(raw); }
  // -ENOTTY: the terminal is no serial line.
  int set_break(bool on);
  // What a serial line still has to send counts too.
  std::int64_t unsent() const;
  // Async-signal-safe.
  void restore() noexcept { terminal_.restore(); }

 private:
  Descriptor fd_;
  Terminal terminal_;
  MarkedBreaks breaks_;
  PeerStream stream_;
  WindowWatch window_;
};

}  // namespace channels
