// The parser of cpio archives on any bytes.
#include <cstddef>
#include <cstdint>

#include "fs/initramfs.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  constexpr std::uint64_t kMaxUnpacked = 1 << 20;
  std::size_t touched = 0;
  (void)cowbird::parse_cpio(std::as_bytes(std::span(data, size)), kMaxUnpacked,
                            [&](const cowbird::CpioEntry &entry) {
                              if (entry.name.empty()) __builtin_trap();
                              for (const std::byte b : entry.data)
                                touched += std::to_integer<std::size_t>(b);
                              return cowbird::Result<void>{};
                            });
  return touched == ~std::size_t{0} ? 1 : 0;
}
