#include "debug/host/step_places.hpp"

#include <algorithm>
#include <cstring>

#include "debug/host/out_of_line.hpp"

namespace cowbird::debug {
namespace {

// jmp *0(%rip), before the address.
constexpr std::array<std::byte, 6> kJump{std::byte{0xff}, std::byte{0x25}, std::byte{0},
                                         std::byte{0},    std::byte{0},    std::byte{0}};

}  // namespace

StepPlaces StepPlaces::in_room(std::uint64_t address) {
  StepPlaces places;
  places.scratch_ = places.room_ = address;
  places.taken_ = 1;
  return places;
}

StepPlaces StepPlaces::over_code(Tracee &tracee, std::uint64_t address) {
  StepPlaces places;
  std::array<std::byte, 16> bytes;
  const auto got = tracee.read(address, bytes);
  if (!got || *got != bytes.size()) return places;
  places.covered_ = bytes;
  places.scratch_ = address;
  return places;
}

std::uint64_t StepPlaces::continuation(Tracee &tracee, std::uint64_t address,
                                       const CodePatches &patches) {
  if (room_ == 0) return 0;
  std::array<std::byte, 15> bytes{};
  const std::size_t got = patches.read(tracee, address, bytes);
  // A plugin may have gone, and another have come to its place.
  const auto known = by_origin_.find(address);
  if (known != by_origin_.end() && known->second.bytes == bytes) return known->second.address;
  Place place = make(tracee, address, std::span(bytes).first(got));
  place.bytes = bytes;
  by_origin_[address] = place;
  if (place.address != 0) by_place_[place.address] = place;
  return place.address;
}

StepPlaces::Place StepPlaces::make(Tracee &tracee, std::uint64_t from,
                                   std::span<const std::byte> bytes) {
  Place place;
  place.from = from;
  const auto plan = OutOfLine::decode(bytes);
  if (!plan || plan->branch || plan->system_call || plan->base_register >= 0 ||
      (taken_ + 1) * kPlace > kRoom) {
    return place;
  }
  std::array<std::byte, kPlace> code{};
  const std::uint64_t behind = from + plan->length;
  std::copy_n(plan->code.begin(), plan->length, code.begin());
  std::copy(kJump.begin(), kJump.end(), code.begin() + plan->length);
  std::memcpy(code.data() + plan->length + kJump.size(), &behind, sizeof behind);
  const std::uint64_t address = room_ + taken_ * kPlace;
  if (!tracee.write(address, code)) return place;
  ++taken_;
  place.address = address;
  place.length = plan->length;
  return place;
}

std::optional<std::uint64_t> StepPlaces::original(std::uint64_t rip) const {
  if (room_ == 0 || rip < room_ || rip >= room_ + kRoom) return std::nullopt;
  const auto found = by_place_.find(room_ + (rip - room_) / kPlace * kPlace);
  if (found == by_place_.end()) return std::nullopt;
  const Place &place = found->second;
  if (rip == place.address) return place.from;
  if (rip == place.address + place.length) return place.from + place.length;
  return std::nullopt;
}

void StepPlaces::hide(std::uint64_t address, std::span<std::byte> bytes) const {
  for (std::size_t i = 0; covered_ && i < covered_->size(); ++i) {
    if (scratch_ + i - address < bytes.size()) bytes[scratch_ + i - address] = (*covered_)[i];
  }
}

void StepPlaces::leave(Tracee &tracee) {
  if (covered_) {
    [[maybe_unused]] const auto restored = tracee.write(scratch_, *covered_);
  }
  *this = {};
}

}  // namespace cowbird::debug
