// A pseudoterminal whose master side is the guest's console and whose slave side is for whoever
// wants to sit at it. For the channels `pts` and `pty`.
//
// Somebody opening the slave side is no event of the master's descriptor, so inotify watches the
// slave's node; the last one closing it is a hang-up of the master. Where inotify is used up
// (fs.inotify.max_user_instances), a timer looks instead.
#pragma once

#include <cowbird/channel.hpp>

#include "common/descriptor.hpp"
#include "common/peer_stream.hpp"
#include "common/window_watch.hpp"

namespace channels {

class PtsChannel : public cowbird::sdk::Channel {
 public:
  // `type`: the plugin's name. `bsd_master`: /dev/ptyXX, or empty for a UNIX98 pseudoterminal.
  PtsChannel(const cowbird::sdk::Host &host, std::string type, std::string bsd_master);

  void open() override;
  void close() noexcept override;
  std::int64_t read(std::span<std::byte> buffer) override;
  std::int64_t write(std::span<const std::byte> data) override;
  std::optional<cowbird_window> window() override { return terminal_window(master_.get()); }
  int set_window(const cowbird_window &window) override;
  int set_raw(bool raw) override;
  std::int64_t unsent() override;
  std::string describe() override;

 private:
  void open_unix98();
  void open_bsd();
  void watch_slave();
  void look_for_peer();
  void tick();
  std::int64_t unread_by_peer();

  const std::string type_;
  const std::string bsd_master_;
  Descriptor master_;
  std::string slave_name_;
  PeerStream stream_;
  WindowWatch window_;
  int blind_looks_ = 0;  // since the last write, for what the peer has not read
  Descriptor inotify_;
  cowbird::sdk::Watch inotify_watch_;
  cowbird::sdk::Timer timer_;  // in place of inotify
};

}  // namespace channels
