// The gdb server of a running guest for tests: `guest-gdbserver PID ADDRESS [trace]`. Serves one
// gdb.
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "debug/live/live_guest.hpp"
#include "debug/server/server.hpp"

using namespace cowbird::debug;

namespace {

void show(char direction, std::string_view payload) {
  const int size = static_cast<int>(std::min<std::size_t>(payload.size(), 300));
  std::fprintf(stderr, "%c %.*s\n", direction, size, payload.data());
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 3) {
    std::fprintf(stderr, "Usage: guest-gdbserver PID ADDRESS [trace]\n");
    return 2;
  }
  ::signal(SIGPIPE, SIG_IGN);
  std::string why;
  const auto target = make_live_guest(std::atoi(argv[1]));
  const auto address = ListenAddress::parse(argv[2], why);
  Server::Options options;
  options.once = true;
  if (argc > 3) options.trace = show;
  const auto server =
      address ? Server::create(*address, *target, std::move(options), why) : nullptr;
  if (!server) {
    std::fprintf(stderr, "guest-gdbserver: %s\n", why.c_str());
    return 1;
  }
  std::fprintf(stderr, "listening\n");
  return server->run() == Server::End::Failed ? 1 : 0;
}
