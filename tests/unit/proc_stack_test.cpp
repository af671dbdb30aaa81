// The first stack of a program, as the psABI wants it.
#include <array>
#include <catch2/catch.hpp>
#include <cstring>

#include "abi/auxv.hpp"
#include "proc/exec_image.hpp"

using namespace cowbird;

namespace {

struct Reader {
  const StackImage &image;
  VirtAddr top;
  std::uint64_t word(VirtAddr at) const {
    std::uint64_t value;
    std::memcpy(&value, image.bytes.data() + (at - image.pointer), sizeof(value));
    return value;
  }
  std::string text(VirtAddr at) const {
    return reinterpret_cast<const char *>(image.bytes.data() + (at - image.pointer));
  }
};

}  // namespace

TEST_CASE("argc, argv, envp and auxv are where a program looks for them") {
  constexpr VirtAddr kTop = 0x7ffe'ffff'f000;
  const std::vector<std::string> argv = {"prog", "", "two words"}, envp = {"A=1", "PATH=/bin"};
  const std::vector<std::uint64_t> auxv = {abi::kAT_PAGESZ, 4096};
  std::array<std::byte, 16> random;
  for (int i = 0; i < 16; ++i) random[i] = std::byte(i + 1);
  const StackImage image = build_stack({argv, envp, "/bin/prog", auxv, random, kTop});
  const Reader r{image, kTop};
  REQUIRE(image.pointer % 16 == 0);
  REQUIRE(image.pointer + image.bytes.size() == kTop);
  VirtAddr at = image.pointer;
  CHECK(r.word(at) == 3);
  CHECK(r.text(r.word(at + 8)) == "prog");
  CHECK(r.text(r.word(at + 16)) == "");
  CHECK(r.text(r.word(at + 24)) == "two words");
  CHECK(r.word(at + 32) == 0);
  CHECK(r.text(r.word(at + 40)) == "A=1");
  CHECK(r.text(r.word(at + 48)) == "PATH=/bin");
  CHECK(r.word(at + 56) == 0);
  CHECK(r.word(at + 64) == abi::kAT_PAGESZ);
  bool random_seen = false, name_seen = false;
  for (at += 64; r.word(at) != abi::kAT_NULL; at += 16) {
    if (r.word(at) == abi::kAT_RANDOM) {
      random_seen = true;
      const auto *bytes = image.bytes.data() + (r.word(at + 8) - image.pointer);
      CHECK(std::memcmp(bytes, random.data(), 16) == 0);
    }
    if (r.word(at) == abi::kAT_EXECFN) name_seen = r.text(r.word(at + 8)) == "/bin/prog";
    if (r.word(at) == abi::kAT_PLATFORM) CHECK(r.text(r.word(at + 8)) == "x86_64");
  }
  CHECK(random_seen);
  CHECK(name_seen);
  CHECK(r.text(image.arg_start) == "prog");
  CHECK(r.text(image.env_start) == "A=1");
  CHECK(image.arg_end == image.env_start);
  CHECK(image.env_end - image.env_start == 4 + 10);
}

TEST_CASE("The stack is aligned for every number of strings") {
  std::array<std::byte, 16> random{};
  for (int count = 0; count < 40; ++count) {
    const std::vector<std::string> argv(count, std::string(count, 'x'));
    const StackImage image = build_stack({argv, {}, "n", {}, random, 0x7ffe'0000'0000});
    CHECK(image.pointer % 16 == 0);
  }
}
