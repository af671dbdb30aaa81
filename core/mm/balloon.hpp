// The balloon: page frames that the guest gives back to the host while it runs. They are taken from
// the free ones (after reclaim), their part of the memory file becomes a hole, and nobody gets them
// until the balloon shrinks. To the guest they are used memory: the sizes stay as they were at
// boot.
//
// A free frame is one that the engine has proved unreachable for guest code (mm/retire.hpp), so a
// frame in the balloon is mapped by no stub; the hole takes away the kernel's own page too. A frame
// that comes back reads as zero. Needs the big kernel lock; grow() sleeps.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace cowbird::balloon {

// Frames in the balloon.
std::uint64_t pages();
// Takes up to `wanted` frames from the guest; fewer when there are no more that are free or can be
// made so: clean and, once stored, dirty pages of files. Enough for the guest to go on is left
// alone. `error` (a sentence) when the host refuses to take them. Returns how many were taken.
std::uint64_t grow(std::uint64_t wanted, std::string &error);
// Gives frames back to the guest, at most those that there are; returns how many.
std::uint64_t shrink(std::uint64_t wanted);

}  // namespace cowbird::balloon
