#include "debug/host/code_patches.hpp"

#include <vector>

namespace cowbird::debug {

Result<void> CodePatches::insert(Tracee &tracee, std::uint64_t address) {
  const auto found = patches_.find(address);
  if (found != patches_.end()) {
    ++found->second.users;
    return {};
  }
  Patch patch;
  TRY(tracee.read(address, {&patch.original, 1}));
  TRY(tracee.write(address, {&kInt3, 1}));
  patch.users = 1;
  patches_[address] = patch;
  return {};
}

void CodePatches::remove(Tracee &tracee, std::uint64_t address) {
  const auto found = patches_.find(address);
  if (found == patches_.end() || --found->second.users > 0) return;
  // What is unmapped by now, as a plugin that was unloaded, needs no repair. Another library may
  // have come to its place: only our own byte is replaced.
  std::byte now{};
  const auto read = tracee.read(address, {&now, 1});
  if (read && now == kInt3) {
    [[maybe_unused]] const auto written = tracee.write(address, {&found->second.original, 1});
  }
  patches_.erase(found);
}

void CodePatches::hide(std::uint64_t address, std::span<std::byte> bytes) const {
  for (auto it = patches_.lower_bound(address); it != patches_.end(); ++it) {
    const std::uint64_t offset = it->first - address;
    if (offset >= bytes.size()) return;
    if (bytes[offset] == kInt3) bytes[offset] = it->second.original;
  }
}

Result<std::size_t> CodePatches::write(Tracee &tracee, std::uint64_t address,
                                       std::span<const std::byte> data) {
  const auto first = patches_.lower_bound(address);
  if (first == patches_.end() || first->first - address >= data.size()) {
    return tracee.write(address, data);
  }
  std::vector<std::byte> bytes(data.begin(), data.end());
  for (auto it = first; it != patches_.end() && it->first - address < data.size(); ++it) {
    bytes[it->first - address] = kInt3;
  }
  const std::size_t done = TRY(tracee.write(address, bytes));
  for (auto it = first; it != patches_.end() && it->first - address < done; ++it) {
    it->second.original = data[it->first - address];
  }
  return done;
}

void CodePatches::lift(Tracee &tracee, std::uint64_t address) {
  const auto found = patches_.find(address);
  if (found == patches_.end()) return;
  [[maybe_unused]] const auto written = tracee.write(address, {&found->second.original, 1});
}

void CodePatches::put_back(Tracee &tracee, std::uint64_t address) {
  if (!at(address)) return;
  [[maybe_unused]] const auto written = tracee.write(address, {&kInt3, 1});
}

void CodePatches::remove_all(Tracee &tracee) {
  while (!patches_.empty()) {
    patches_.begin()->second.users = 1;
    remove(tracee, patches_.begin()->first);
  }
}

}  // namespace cowbird::debug
