// The word that was probably meant. Used by core/plugins, machine and cli; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cowbird::plugins {

// The nearest of `words` to `word`, when it is near enough to be worth a suggestion; else empty.
std::string near_match(std::string_view word, const std::vector<std::string> &words);
// " Did you mean \"fd\"?", or nothing.
std::string did_you_mean(std::string_view word, const std::vector<std::string> &words);

}  // namespace cowbird::plugins
