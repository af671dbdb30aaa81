#include "port/telnet_codec.hpp"

#include <libtelnet.h>

#include <new>

namespace channels {

namespace {

// What we do and what we let the client do; libtelnet refuses the rest.
constexpr telnet_telopt_t kOptions[] = {
    {TELNET_TELOPT_ECHO, TELNET_WILL, TELNET_DONT},
    {TELNET_TELOPT_SGA, TELNET_WILL, TELNET_DO},
    {TELNET_TELOPT_BINARY, TELNET_WILL, TELNET_DO},
    {TELNET_TELOPT_NAWS, TELNET_WONT, TELNET_DO},
    {-1, 0, 0},
};

constexpr char kInterrupt = 0x03, kEndOfFile = 0x04, kKillLine = 0x15, kSuspend = 0x1a;
constexpr char kQuit = 0x1c, kErase = 0x7f;

}  // namespace

struct TelnetEvents {
  static void handle(telnet_t *, telnet_event_t *event, void *user) {
    auto &codec = *static_cast<TelnetCodec *>(user);
    switch (event->type) {
      case TELNET_EV_DATA:
        return codec.on_data({event->data.buffer, event->data.size});
      case TELNET_EV_SEND:
        codec.wire_->append(event->data.buffer, event->data.size);
        return;
      case TELNET_EV_IAC:
        codec.speaks_telnet_ = true;
        return codec.on_command(event->iac.cmd);
      case TELNET_EV_WILL:
      case TELNET_EV_WONT:
        codec.speaks_telnet_ = true;
        if (event->neg.telopt == TELNET_TELOPT_BINARY)
          codec.sends_binary_ = event->type == TELNET_EV_WILL;
        return;
      case TELNET_EV_DO:
      case TELNET_EV_DONT:
        codec.speaks_telnet_ = true;
        if (event->neg.telopt == TELNET_TELOPT_BINARY)
          codec.takes_binary_ = event->type == TELNET_EV_DO;
        return;
      case TELNET_EV_SUBNEGOTIATION:
        if (event->sub.telopt == TELNET_TELOPT_NAWS)
          codec.on_window({event->sub.buffer, event->sub.size});
        return;
      case TELNET_EV_COMPRESS:
        // Nobody offered it (MCCP2), yet the library goes along with a client that begins: a few
        // bytes could become very many.
      case TELNET_EV_ERROR:
        codec.failed_ = true;
        return;
      default:
        return;  // warnings, and what options say that were refused
    }
  }
};

TelnetCodec::~TelnetCodec() {
  if (telnet_) telnet_free(telnet_);
}

void TelnetCodec::start(std::string &wire) {
  if (telnet_) telnet_free(telnet_);
  speaks_telnet_ = sends_binary_ = takes_binary_ = false;
  after_cr_in_ = after_cr_out_ = failed_ = false;
  window_changed_ = window_.has_value();  // the next client's is not known yet
  window_.reset();
  telnet_ = telnet_init(kOptions, &TelnetEvents::handle, 0, this);
  if (!telnet_) throw std::bad_alloc();
  wire_ = &wire;
  telnet_negotiate(telnet_, TELNET_WILL, TELNET_TELOPT_ECHO);
  telnet_negotiate(telnet_, TELNET_WILL, TELNET_TELOPT_SGA);
  telnet_negotiate(telnet_, TELNET_DO, TELNET_TELOPT_SGA);
  telnet_negotiate(telnet_, TELNET_DO, TELNET_TELOPT_NAWS);
  telnet_negotiate(telnet_, TELNET_WILL, TELNET_TELOPT_BINARY);
  telnet_negotiate(telnet_, TELNET_DO, TELNET_TELOPT_BINARY);
}

bool TelnetCodec::decode(std::span<const std::byte> received, Received &plain, std::string &wire) {
  plain_ = &plain;
  wire_ = &wire;
  telnet_recv(telnet_, reinterpret_cast<const char *>(received.data()), received.size());
  return !failed_;
}

// A line ends with CR LF or CR NUL (RFC 854), which is what the Enter key means: CR.
void TelnetCodec::on_data(std::span<const char> data) {
  if (failed_) return;
  if (sends_binary_) {
    after_cr_in_ = false;
    plain_->bytes.append(data.data(), data.size());
    return;
  }
  for (const char c : data) {
    const bool completes = after_cr_in_ && (c == '\n' || c == '\0');
    after_cr_in_ = c == '\r';
    if (!completes) plain_->bytes.push_back(c);
  }
}

// Commands become the keys that do the same on a terminal with the usual modes, and a break is one.
void TelnetCodec::on_command(unsigned char command) {
  switch (command) {
    case TELNET_BREAK:
      return plain_->breaks.push_back(plain_->bytes.size());
    case TELNET_IP:
      return plain_->bytes.push_back(kInterrupt);
    case TELNET_EOF:
      return plain_->bytes.push_back(kEndOfFile);
    case TELNET_SUSP:
      return plain_->bytes.push_back(kSuspend);
    case TELNET_ABORT:
      return plain_->bytes.push_back(kQuit);
    case TELNET_EC:
      return plain_->bytes.push_back(kErase);
    case TELNET_EL:
      return plain_->bytes.push_back(kKillLine);
    case TELNET_AYT:
      wire_->append("\r\n[here]\r\n");
      return;
    default:
      return;
  }
}

void TelnetCodec::on_window(std::span<const char> data) {
  if (data.size() != 4) return;
  const auto number = [&](std::size_t at) {
    return static_cast<std::uint16_t>(static_cast<unsigned char>(data[at]) << 8 |
                                      static_cast<unsigned char>(data[at + 1]));
  };
  window_ = cowbird_window{number(2), number(0), 0, 0};
  window_changed_ = true;
}

// Outside binary mode a CR that no LF follows is sent as CR NUL. To a client that has sent no
// command yet, and may know no telnet, it goes as it is.
void TelnetCodec::encode(std::span<const std::byte> plain, std::string &wire) {
  constexpr char kIac = static_cast<char>(TELNET_IAC);
  const bool pads = speaks_telnet_ && !takes_binary_;
  for (const std::byte b : plain) {
    const char c = static_cast<char>(b);
    if (after_cr_out_ && pads && c != '\n') wire.push_back('\0');
    after_cr_out_ = c == '\r';
    wire.push_back(c);
    if (c == kIac) wire.push_back(kIac);
  }
}

bool TelnetCodec::encode_break(std::string &wire) {
  if (!speaks_telnet_) return false;
  wire.push_back(static_cast<char>(TELNET_IAC));
  wire.push_back(static_cast<char>(TELNET_BREAK));
  return true;
}

}  // namespace channels
