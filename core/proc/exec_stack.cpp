// The first stack of a program.
#include <cstring>

#include "abi/auxv.hpp"
#include "proc/exec_image.hpp"

namespace cowbird {
namespace {

constexpr std::string_view kPlatform = "x86_64";

// Strings grow upwards from an offset that is known only when all are counted, so they are gathered
// first.
class StringArea {
 public:
  std::size_t add(std::string_view text) {
    const std::size_t at = bytes_.size();
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    bytes_.push_back('\0');
    return at;
  }
  std::size_t size() const { return bytes_.size(); }
  const char *data() const { return bytes_.data(); }

 private:
  std::vector<char> bytes_;
};

}  // namespace

StackImage build_stack(const StackInput &input) {
  StringArea strings;
  std::vector<std::size_t> args, envs;
  const std::size_t random_at = 0;
  strings.add(std::string_view(reinterpret_cast<const char *>(input.random.data()), 15));
  const std::size_t platform_at = strings.add(kPlatform);
  const std::size_t arg_start = strings.size();
  for (const std::string &arg : input.argv) args.push_back(strings.add(arg));
  const std::size_t arg_end = strings.size();
  for (const std::string &env : input.envp) envs.push_back(strings.add(env));
  const std::size_t env_end = strings.size();
  const std::size_t name_at = strings.add(input.name);

  // Eight zero bytes end the stack, as on Linux.
  const VirtAddr base = (input.top - 8 - strings.size()) & ~15ull;
  std::vector<std::uint64_t> words;
  words.push_back(args.size());
  for (const std::size_t at : args) words.push_back(base + at);
  words.push_back(0);
  for (const std::size_t at : envs) words.push_back(base + at);
  words.push_back(0);
  StackImage image;
  image.auxv.assign(input.auxv.begin(), input.auxv.end());
  const std::uint64_t tail[] = {
      abi::kAT_RANDOM,   base + random_at,   abi::kAT_EXECFN, base + name_at,
      abi::kAT_PLATFORM, base + platform_at, abi::kAT_NULL,   0};
  image.auxv.insert(image.auxv.end(), std::begin(tail), std::end(tail));
  words.insert(words.end(), image.auxv.begin(), image.auxv.end());

  image.pointer = (base - words.size() * sizeof(std::uint64_t)) & ~15ull;
  image.bytes.resize(input.top - image.pointer);
  std::memcpy(image.bytes.data(), words.data(), words.size() * sizeof(std::uint64_t));
  std::memcpy(image.bytes.data() + (base - image.pointer), strings.data(), strings.size());
  // The sixteenth random byte took the place of the string's zero.
  image.bytes[base - image.pointer + 15] = input.random[15];
  image.arg_start = base + arg_start;
  image.arg_end = image.env_start = base + arg_end;
  image.env_end = base + env_end;
  return image;
}

}  // namespace cowbird
