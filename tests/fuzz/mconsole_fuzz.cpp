// Packets of the management console, as a server and as a client read them: what is accepted keeps
// within its bounds, and what we make of it is read back as the same.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "mconsole/client.hpp"
#include "mconsole/protocol.hpp"

using namespace cowbird::mconsole;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_answer(const Answer &answer, std::string_view first) {
  std::string text;
  bool err = false;
  const auto packets = encode_answer(answer, first);
  require(!packets.empty());
  for (std::size_t i = 0; i < packets.size(); ++i) {
    require(packets[i].size() <= sizeof(ReplyPacket));
    const Reply reply = parse_reply(std::as_bytes(std::span(packets[i])));
    require(reply.good && reply.more == (i + 1 < packets.size()));
    require(i == 0 || !reply.err);
    err = err || reply.err;
    text += reply.text;
  }
  require(err == !answer.ok);
  // One NUL at the end of a piece is taken for the packet's own only once.
  require(text == std::string(first) + answer.text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const Request request = parse_request(bytes);
  if (request.good) {
    require(request.text.size() < kMaxData && request.text.find('\0') == std::string::npos);
    const std::string again = encode_request(request.text);
    require(parse_request(std::as_bytes(std::span(again))).text == request.text);
  } else {
    require(!request.why.empty());
  }
  (void)parse_reply(bytes);

  const std::string text(reinterpret_cast<const char *>(data), size);
  const CommandLine line = parse_command(request.good ? request.text : text);
  require(line.argument.size() <= size);
  const std::string absolute = with_absolute_names(text, "/srv/guests");
  (void)with_absolute_names("config ubd0=" + text, "/srv/guests");
  (void)with_absolute_names("config ubd0={" + text, "/srv/guests");
  (void)with_absolute_names("config con0=" + text, "/srv/guests");
  for (const std::string &piece : log_requests(text)) require(!encode_request(piece).empty());
  check_answer(Answer::done(text), "");
  check_answer(Answer::error(text), "\n");
  return 0;
}
