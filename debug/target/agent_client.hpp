// AgentClient: the server's end of the debug agent's socket (core/debug_agent/protocol.hpp). A call
// waits for its reply; the kernel's host threads may be traced by this very process meanwhile, so
// the waiting gives whoever drives them his turns. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "debug_agent/protocol.hpp"

namespace cowbird::debug {

class AgentClient {
 public:
  using Bytes = std::vector<std::byte>;
  // While a call waits: `fd` (-1: none) is watched too, and `turn` is called when it is readable
  // and now and then. False: the agent cannot answer now, for the kernel stands still; the call
  // fails with Again. The agent obeys it later all the same, before what it is told next, and the
  // reply is dropped when it comes.
  struct Waiting {
    // Before each call: sees to it that the agent can answer, or fails with a sentence.
    std::function<Result<void>(std::string &why)> ready;
    int fd = -1;
    std::function<bool()> turn;
  };

  // Connects and greets. Fails with a sentence in `why`.
  static Result<std::unique_ptr<AgentClient>> connect(const std::string &socket, Waiting waiting,
                                                      std::string &why);

  Result<Bytes> call(debug_agent::Command command, debug_agent::RequestFields fields = {},
                     std::span<const std::uint64_t> numbers = {},
                     std::span<const std::byte> bytes = {});
  // Without waiting for the reply, which is dropped.
  void post(debug_agent::Command command);
  // A stop that has come; reads what there is, does not wait.
  std::optional<debug_agent::StopRecord> next_stop();
  bool has_stops() const { return !stops_.empty(); }
  int fd() const { return fd_.get(); }
  // The kernel has closed the connection: it has ended.
  bool gone() const { return gone_; }
  // Of the last call that failed; may be empty.
  const std::string &words() const { return words_; }
  const debug_agent::HelloReply &hello() const { return hello_; }

 private:
  AgentClient(UniqueFd fd, Waiting waiting) : fd_(std::move(fd)), waiting_(std::move(waiting)) {}
  struct Reply {
    std::uint32_t id = 0;
    Errno error{};
    Bytes body;
  };

  Result<void> send();  // output_
  Result<void> wait(short events, std::int64_t deadline_ms);
  void receive();
  bool take_message();
  Result<Bytes> reply_to(std::uint32_t id);

  UniqueFd fd_;
  Waiting waiting_;
  debug_agent::HelloReply hello_;
  Bytes input_;
  Bytes output_;  // what the socket has not taken yet
  std::deque<debug_agent::StopRecord> stops_;
  std::deque<Reply> replies_;
  std::uint32_t last_id_ = 0;
  bool gone_ = false;
  std::string words_;
};

}  // namespace cowbird::debug
