// The root file system inside the program: a newc cpio that the build makes from Debian's
// busybox-static (core/boot/initramfs/). boot/ unpacks it when a machine has no other root.
#pragma once

#include <cstddef>
#include <span>

namespace cowbird {

// The whole archive, uncompressed; lives as long as the program.
std::span<const std::byte> embedded_initramfs();

}  // namespace cowbird
