// A gdb server on a FakeTarget: debug-fake-server ADDRESS PROGRAM [SLEEPING-THREADS] [TRACE-FILE].
// Prints the address it listens on, and how it ended.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "debug/server/server.hpp"
#include "debug/target/fake_target.hpp"

using namespace cowbird::debug;

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  std::string why;
  auto address = ListenAddress::parse(argv[1], why);
  FakeTarget::Options machine;
  machine.program = argv[2];
  if (argc > 3) machine.sleeping = static_cast<unsigned>(std::atoi(argv[3]));
  FakeTarget target(machine);
  Server::Options options;
  FILE *trace = argc > 4 ? std::fopen(argv[4], "w") : nullptr;
  options.say = [](std::string_view words) {
    std::fprintf(stderr, "%.*s\n", static_cast<int>(words.size()), words.data());
  };
  if (trace)
    options.trace = [trace](char direction, std::string_view payload) {
      std::fprintf(trace, "%c %.*s\n", direction,
                   static_cast<int>(std::min<std::size_t>(payload.size(), 300)), payload.data());
      std::fflush(trace);
    };
  auto server = address ? Server::create(*address, target, std::move(options), why) : nullptr;
  if (!server) {
    std::fprintf(stderr, "%s\n", why.c_str());
    return 1;
  }
  std::fprintf(stderr, "listening on %s\n", server->address().text().c_str());
  const auto end = server->run();
  std::fprintf(stderr, "ended: %d, attached %u, detached %u\n", static_cast<int>(end),
               target.counts().attached, target.counts().detached);
  return 0;
}
