#include "mconsole/notify.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "base/unique_fd.hpp"
#include "boot/panic.hpp"
#include "vfs/file.hpp"

namespace cowbird::mconsole {

namespace {

struct Target {
  std::string path;
  UniqueFd socket;
  sockaddr_un address{};
};

// Made once and never destroyed: a panic may come at any time.
Target *target = nullptr;

bool make_address(const std::string &path, sockaddr_un &address) {
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return true;
}

// Async-signal-safe. 0 or the host's errno.
int send_packet(int socket, const sockaddr_un &address, NotifyKind kind, std::string_view text) {
  NotifyPacket packet;
  const std::size_t length = encode_notify(packet, kind, text);
  const ssize_t sent = ::sendto(socket, &packet, length, MSG_DONTWAIT | MSG_NOSIGNAL,
                                reinterpret_cast<const sockaddr *>(&address), sizeof address);
  return sent < 0 ? errno : 0;
}

void notify_panic(void *) {
  const char *message = boot::panic_message();
  if (message) send_packet(target->socket.get(), target->address, NotifyKind::Panic, message);
}

// Each write is one notification, newline included; what is longer than a packet is cut.
class NotifyFile final : public File {
 public:
  using File::File;
  Result<std::uint64_t> write(IovIter &from, std::uint64_t &) override {
    const std::uint64_t size = from.remaining();
    std::string text(std::min<std::uint64_t>(size, kMaxData), '\0');
    TRY(from.copy_from(std::as_writable_bytes(std::span(text))));
    TRY(notify(NotifyKind::User, text));
    from.advance(from.remaining());
    return size;
  }
  Result<std::uint64_t> read(IovIter &, std::uint64_t &) override { return Err(Errno::Inval); }
};

class NotifyInode final : public PseudoInode {
 public:
  NotifyInode(SuperBlock &sb, std::uint64_t number)
      : PseudoInode(sb, number, FileType::Regular, 0200) {}
  Result<Ref<File>> open(std::uint32_t flags) override {
    return Ref<File>(make_ref<NotifyFile>(flags));
  }
  // `echo text > /proc/mconsole` truncates.
  Result<void> setattr(const SetAttr &) override { return {}; }
};

}  // namespace

bool set_notify_target(const std::string &path, std::string &error) {
  auto made = std::make_unique<Target>();
  made->path = path;
  if (!make_address(path, made->address)) {
    error = fmt::format(
        "The path {} of the socket for notifications is longer than the {} characters that it may "
        "have.",
        path, sizeof made->address.sun_path - 1);
    return false;
  }
  made->socket.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!made->socket.valid()) {
    error = fmt::format("A socket for notifications cannot be made: {}.", std::strerror(errno));
    return false;
  }
  target = made.release();
  boot::at_emergency(notify_panic, nullptr, boot::EmergencyFor::EndAndHalt);
  return true;
}

const std::string &notify_target() {
  static const std::string none;
  return target ? target->path : none;
}

Result<void> notify(NotifyKind kind, std::string_view text) {
  if (!target) return Err(Errno::NoEnt);
  const int error = send_packet(target->socket.get(), target->address, kind, text);
  if (error != 0) return Err(errno_from_host(error));
  return {};
}

PseudoEntry proc_mconsole_entry() {
  return {"mconsole", FileType::Regular, [](SuperBlock &sb, std::uint64_t number) -> Ref<Inode> {
            return make_ref<NotifyInode>(sb, number);
          }};
}

}  // namespace cowbird::mconsole
