// The key by which a person at an attached console talks to the client instead of the guest, and
// what follows it. Pure logic, for cli/console_client.hpp and tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cowbird::cli {

// "^]", "ctrl-]", "C-a", a single character; "none": 0 bytes. nullopt: not a key.
struct EscapeKey {
  std::optional<std::byte> key;  // absent: "none"

  static std::optional<EscapeKey> parse(std::string_view text);
  std::string name() const;  // "ctrl-]"
};

enum class EscapeAction : std::uint8_t { None, Detach, Help };

// Follows what is typed. The key and then: d or . detaches, ? asks for help, the key again is the
// key itself for the guest; anything else goes to the guest with the key.
class EscapeFilter {
 public:
  explicit EscapeFilter(EscapeKey key) : key_(key) {}
  // Appends what is the guest's to `out`. Stops at an action; `bytes` is then what follows it.
  EscapeAction filter(std::span<const std::byte> &bytes, std::vector<std::byte> &out);

 private:
  EscapeKey key_;
  bool pending_ = false;
};

}  // namespace cowbird::cli
