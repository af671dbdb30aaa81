#include "vfs/device.hpp"

#include <map>

namespace cowbird {

namespace {

struct Range {
  std::string name;
  std::uint32_t last_minor;
  DeviceOpener opener;
};
// By major and first minor. Protected by the big kernel lock.
using Ranges = std::map<DeviceNumber, Range>;

Ranges &ranges(bool block) {
  static Ranges *character_devices = new Ranges;
  static Ranges *block_devices = new Ranges;
  return block ? *block_devices : *character_devices;
}

Ranges::const_iterator find_range(const Ranges &all, DeviceNumber number) {
  auto it = all.upper_bound(number);
  if (it == all.begin()) return all.end();
  --it;
  if (it->first.major != number.major || it->second.last_minor < number.minor) return all.end();
  return it;
}

Result<void> add_range(bool block, std::string name, std::uint32_t major, std::uint32_t first,
                       std::uint32_t count, DeviceOpener opener) {
  Ranges &all = ranges(block);
  if (count == 0 || first + count - 1 < first) return Err(Errno::Inval);
  const std::uint32_t last = first + count - 1;
  auto next = all.lower_bound({major, first});
  if (next != all.end() && next->first.major == major && next->first.minor <= last)
    return Err(Errno::Exist);
  if (find_range(all, {major, first}) != all.end()) return Err(Errno::Exist);
  all.emplace(DeviceNumber{major, first}, Range{std::move(name), last, std::move(opener)});
  return {};
}

}  // namespace

Result<void> register_char_device(std::string name, std::uint32_t major, std::uint32_t first_minor,
                                  std::uint32_t count, DeviceOpener opener) {
  return add_range(false, std::move(name), major, first_minor, count, std::move(opener));
}
Result<void> register_block_device_number(std::string name, std::uint32_t major,
                                          std::uint32_t first_minor, std::uint32_t count,
                                          DeviceOpener opener) {
  return add_range(true, std::move(name), major, first_minor, count, std::move(opener));
}
void unregister_char_device(std::uint32_t major, std::uint32_t first_minor) {
  ranges(false).erase({major, first_minor});
}
void unregister_block_device_number(std::uint32_t major, std::uint32_t first_minor) {
  ranges(true).erase({major, first_minor});
}

Result<Ref<File>> open_device(Inode &inode, std::uint32_t flags) {
  const Ranges &all = ranges(inode.type() == FileType::BlockDevice);
  auto range = find_range(all, inode.rdev);
  if (range == all.end()) return Err(Errno::NxIo);
  // A copy: the driver may sleep in there and its registration may go.
  const DeviceOpener opener = range->second.opener;
  return opener(inode, inode.rdev, flags);
}

void for_each_device_range(
    bool block, const std::function<void(const std::string &name, std::uint32_t major)> &function) {
  for (const auto &[number, range] : ranges(block)) function(range.name, number.major);
}

}  // namespace cowbird
