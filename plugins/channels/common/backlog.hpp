// What the guest wrote while nobody was there: the last bytes of it, so that the guest is not held
// up and who comes later sees where things stand (a login prompt, the end of a boot). For the
// channel plugins.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace channels {

class Backlog {
 public:
  static constexpr std::size_t kSize = 16ul * 1024;  // about eight screens of text

  void add(std::span<const std::byte> data);
  // The bytes in their order. When older ones were lost it starts behind a line's end, where there
  // is one.
  std::string take();
  void clear() { *this = {}; }

 private:
  std::string bytes_;
  bool lost_ = false;
};

}  // namespace channels
