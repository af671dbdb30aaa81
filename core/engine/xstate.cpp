#include "engine/xstate.hpp"

#include <cpuid.h>

#include <algorithm>
#include <cstring>

namespace cowbird {

namespace {

constexpr std::size_t kMxcsr = 24, kMxcsrMask = 28, kSoftware = 464, kSoftwareBytes = 48;
constexpr std::size_t kHeader = 512, kHeaderBytes = 64, kLegacyBytes = 512;
constexpr std::uint64_t kTileData = 1u << 18;  // only for threads that asked the host for it
constexpr std::uint32_t kMagic1 = 0x46505853, kMagic2 = 0x46505845;

// The host's struct _fpx_sw_bytes.
struct SoftwareBytes {
  std::uint32_t magic1, extended_size;
  std::uint64_t features;
  std::uint32_t state_size, padding[7];
};
static_assert(sizeof(SoftwareBytes) == kSoftwareBytes);

std::uint64_t read_xcr0() {
  std::uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

std::uint32_t read_mxcsr_mask() {
  alignas(16) std::array<std::byte, 512> area{};
  asm volatile("fxsave %0" : "=m"(area));
  std::uint32_t mask = 0;
  std::memcpy(&mask, &area[kMxcsrMask], 4);
  return mask != 0 ? mask : 0xffbf;
}

template <typename T>
T load(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, &bytes[offset], sizeof value);
  return value;
}
template <typename T>
void store(std::span<std::byte> bytes, std::size_t offset, T value) {
  std::memcpy(&bytes[offset], &value, sizeof value);
}

}  // namespace

XstateLayout::XstateLayout() {
  mxcsr_mask_ = read_mxcsr_mask();
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_OSXSAVE) == 0) return;
  features_ = read_xcr0() & ~kTileData;
  for (unsigned i = 2; i < components_.size(); ++i) {
    if ((features_ >> i & 1) == 0) continue;
    __cpuid_count(0xd, i, a, b, c, d);
    components_[i] = {b, a};
    size_ = std::max<std::size_t>(size_, std::size_t{a} + b);
  }
}

const XstateLayout &XstateLayout::host() {
  static const XstateLayout layout;
  return layout;
}

void XstateLayout::write_initial(std::span<std::byte> out) const {
  std::memset(out.data(), 0, out.size());
  store<std::uint16_t>(out, 0, 0x37f);
  store<std::uint32_t>(out, kMxcsr, 0x1f80);
  store<std::uint32_t>(out, kMxcsrMask, mxcsr_mask_);
}

Result<void> XstateLayout::check(std::span<const std::byte> in) const {
  if (in.size() != size_) return Err(Errno::Inval);
  if ((load<std::uint32_t>(in, kMxcsr) & ~mxcsr_mask_) != 0) return Err(Errno::Inval);
  if ((load<std::uint64_t>(in, kHeader) & ~features_) != 0) return Err(Errno::Inval);
  for (std::size_t i = kHeader + 8; i < kHeader + kHeaderBytes; ++i) {
    if (in[i] != std::byte{0}) return Err(Errno::Inval);
  }
  return {};
}

void XstateLayout::sanitise(std::span<std::byte> state) const {
  const std::uint64_t present = load<std::uint64_t>(state, kHeader) & features_;
  std::memset(&state[kHeader], 0, kHeaderBytes);
  store(state, kHeader, present);
  std::memset(&state[kSoftware], 0, kSoftwareBytes);
  store<std::uint32_t>(state, kMxcsr, load<std::uint32_t>(state, kMxcsr) & mxcsr_mask_);
  store<std::uint32_t>(state, kMxcsrMask, mxcsr_mask_);
  if ((present & 1) == 0) {
    std::memset(&state[0], 0, 24);
    std::memset(&state[32], 0, 128);
    store<std::uint16_t>(state, 0, 0x37f);
  }
  if ((present & 2) == 0) std::memset(&state[160], 0, 256);
  for (unsigned i = 2; i < components_.size(); ++i) {
    const Component &part = components_[i];
    if (part.size != 0 && (present >> i & 1) == 0) std::memset(&state[part.offset], 0, part.size);
  }
}

void XstateLayout::write_frame(std::span<std::byte> area, std::span<const std::byte> state) const {
  std::memcpy(area.data(), state.data(), size_);
  const SoftwareBytes software{.magic1 = kMagic1,
                               .extended_size = static_cast<std::uint32_t>(frame_bytes()),
                               .features = features_,
                               .state_size = static_cast<std::uint32_t>(size_),
                               .padding = {}};
  std::memcpy(&area[kSoftware], &software, sizeof software);
  store(area, size_, kMagic2);
  static_assert(kLegacyBytes == kHeader);
}

}  // namespace cowbird
