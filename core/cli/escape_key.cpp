#include "cli/escape_key.hpp"

#include <fmt/format.h>

namespace cowbird::cli {

namespace {

constexpr unsigned kControl = 0x40;  // the bit between a control character and its letter

std::optional<std::byte> control(char c) {
  if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  if (c < '@' || c > '_') return std::nullopt;
  return static_cast<std::byte>(static_cast<unsigned>(c) ^ kControl);
}

}  // namespace

std::optional<EscapeKey> EscapeKey::parse(std::string_view text) {
  if (text == "none") return EscapeKey{};
  for (const std::string_view prefix : {"ctrl-", "Ctrl-", "C-", "^"}) {
    if (!text.starts_with(prefix) || text.size() != prefix.size() + 1) continue;
    const auto key = control(text.back());
    if (!key) return std::nullopt;
    return EscapeKey{key};
  }
  if (text.size() != 1 || text[0] <= ' ' || text[0] >= 0x7f) return std::nullopt;
  return EscapeKey{static_cast<std::byte>(text[0])};
}

std::string EscapeKey::name() const {
  if (!key) return "none";
  const auto code = std::to_integer<unsigned>(*key);
  if (code >= ' ') return std::string(1, static_cast<char>(code));
  auto letter = static_cast<char>(code ^ kControl);
  if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  return fmt::format("ctrl-{}", letter);
}

EscapeAction EscapeFilter::filter(std::span<const std::byte> &bytes, std::vector<std::byte> &out) {
  while (!bytes.empty()) {
    const std::byte byte = bytes.front();
    bytes = bytes.subspan(1);
    if (!pending_) {
      if (key_.key && byte == *key_.key) {
        pending_ = true;
      } else {
        out.push_back(byte);
      }
      continue;
    }
    pending_ = false;
    if (byte == *key_.key) {
      out.push_back(byte);
    } else if (byte == std::byte{'d'} || byte == std::byte{'.'}) {
      return EscapeAction::Detach;
    } else if (byte == std::byte{'?'}) {
      return EscapeAction::Help;
    } else {
      out.push_back(*key_.key);
      out.push_back(byte);
    }
  }
  return EscapeAction::None;
}

}  // namespace cowbird::cli
