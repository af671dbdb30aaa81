// The extended state of a guest thread (x87, SSE, AVX, ...) in XSAVE's standard form, as the host
// puts it into signal frames. Intel SDM volume 1, chapter 13; struct _xstate of the host's
// <asm/sigcontext.h>. Pure functions; used by StubContext and by the fake platform.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.hpp"

namespace cowbird {

class XstateLayout {
 public:
  // What this processor and host use for a thread that has asked for nothing special (no AMX
  // tiles).
  static const XstateLayout &host();

  std::size_t size() const { return size_; }
  // Bytes of an area in a signal frame: the state and the word that ends it.
  std::size_t frame_bytes() const { return size_ + 4; }
  std::uint64_t features() const { return features_; }

  // The state after execve. `out` has size() bytes.
  void write_initial(std::span<std::byte> out) const;
  // Whether XRSTOR accepts `in`: its size, reserved bits and bytes.
  Result<void> check(std::span<const std::byte> in) const;
  // Zeroes components that the header says are in their initial state (the area may hold stale
  // bytes there), and removes features and header bytes that check() would refuse.
  void sanitise(std::span<std::byte> state) const;
  // Makes an area in a signal frame, `frame_bytes()` long, of a checked state.
  void write_frame(std::span<std::byte> area, std::span<const std::byte> state) const;

 private:
  XstateLayout();
  struct Component {
    std::uint32_t offset = 0, size = 0;
  };
  std::uint64_t features_ = 3;
  std::size_t size_ = 576;
  std::uint32_t mxcsr_mask_ = 0xffbf;
  std::array<Component, 63> components_{};
};

}  // namespace cowbird
