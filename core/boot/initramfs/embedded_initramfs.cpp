// The bytes themselves come in by .incbin; COWBIRD_INITRAMFS is the archive's path.
#include "boot/embedded_initramfs.hpp"

asm(R"(
    .pushsection .rodata.cowbird_initramfs, "a", @progbits
    .balign 4096
cowbird_initramfs_begin:
    .incbin ")" COWBIRD_INITRAMFS R"("
cowbird_initramfs_end:
    .byte 0
    .popsection
)");

extern "C" {
extern const std::byte cowbird_initramfs_begin[] __attribute__((visibility("hidden")));
extern const std::byte cowbird_initramfs_end[] __attribute__((visibility("hidden")));
}

namespace cowbird {

std::span<const std::byte> embedded_initramfs() {
  return {cowbird_initramfs_begin, cowbird_initramfs_end};
}

}  // namespace cowbird
