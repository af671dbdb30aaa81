// Host signals as descriptors: SIGWINCH and SIGCONT reach devices through eventfds that the signal
// handlers write to. Used by core/plugins only, under the big kernel lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace cowbird::plugins {

// An eventfd that counts the arrivals of one signal while this lives. The process-wide handler is
// installed by the first one and stays.
class SignalDescriptor {
 public:
  // Inval: no signal that plugins may ask for. NFile: too many.
  static Result<std::unique_ptr<SignalDescriptor>> create(std::uint32_t cowbird_signal);
  ~SignalDescriptor();
  SignalDescriptor(const SignalDescriptor &) = delete;
  SignalDescriptor &operator=(const SignalDescriptor &) = delete;

  int fd() const { return fd_.get(); }
  // Takes the arrivals so far; false when there are none.
  bool consume();

 private:
  SignalDescriptor(UniqueFd fd, std::size_t slot) : fd_(std::move(fd)), slot_(slot) {}
  UniqueFd fd_;
  std::size_t slot_;
};

}  // namespace cowbird::plugins
