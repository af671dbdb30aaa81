#include "debug/host/code_patches.hpp"

#include <algorithm>
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
  note(tracee, address, patch);
  if (const auto written = tracee.write(address, {&kInt3, 1}); !written) {
    strike(tracee, patch);
    return Err(written.error());
  }
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
  strike(tracee, found->second);
  patches_.erase(found);
}

// --- the journal: a count, then entries

namespace {

constexpr std::uint64_t kMaxJournal = 4096;
struct JournalEntry {
  std::uint64_t address = 0;  // 0: free
  std::uint64_t original = 0;
};

}  // namespace

void CodePatches::keep_journal(Tracee &tracee, std::uint64_t address) {
  journal_ = 0;
  std::uint64_t count = 0;
  if (address == 0 || !tracee.read(address, std::as_writable_bytes(std::span(&count, 1)))) return;
  std::vector<JournalEntry> entries(std::min(count, kMaxJournal));
  const auto got = tracee.read(address + sizeof count, std::as_writable_bytes(std::span(entries)));
  if (!got || *got != entries.size() * sizeof(JournalEntry)) return;
  journal_ = address + sizeof count;
  used_.assign(entries.size(), false);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].address == 0) continue;
    Patch left;
    left.original = static_cast<std::byte>(entries[i].original);
    left.entry = i;
    left.users = 1;
    patches_[entries[i].address] = left;
    remove(tracee, entries[i].address);
  }
}

// Before the int3 is written.
void CodePatches::note(Tracee &tracee, std::uint64_t address, Patch &patch) {
  const auto place = std::find(used_.begin(), used_.end(), false);
  if (journal_ == 0 || place == used_.end()) return;
  const auto index = static_cast<std::size_t>(place - used_.begin());
  const JournalEntry entry{address, static_cast<std::uint64_t>(patch.original)};
  if (!tracee.write(journal_ + index * sizeof entry, std::as_bytes(std::span(&entry, 1)))) return;
  *place = true;
  patch.entry = index;
}

void CodePatches::strike(Tracee &tracee, const Patch &patch) {
  if (!patch.entry || journal_ == 0) return;
  const JournalEntry none;
  [[maybe_unused]] const auto written =
      tracee.write(journal_ + *patch.entry * sizeof none, std::as_bytes(std::span(&none, 1)));
  used_[*patch.entry] = false;
}

void CodePatches::note_step(Tracee &tracee, const Step &step) const {
  if (journal_ == 0) return;
  const std::uint64_t place = journal_ + used_.size() * sizeof(JournalEntry);
  [[maybe_unused]] const auto written = tracee.write(place, std::as_bytes(std::span(&step, 1)));
}

void CodePatches::forget_all() {
  patches_.clear();
  journal_ = 0;
}

std::size_t CodePatches::read(const Tracee &tracee, std::uint64_t address,
                              std::span<std::byte> out) const {
  const std::size_t got = tracee.read(address, out).value_or(0);
  hide(address, out.first(got));
  return got;
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
    strike(tracee, it->second);
    it->second.entry.reset();
    note(tracee, it->first, it->second);
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
