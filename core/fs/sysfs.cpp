#include "fs/sysfs.hpp"

#include <fmt/format.h>

#include "block/block_device.hpp"
#include "fs/pseudo_fs.hpp"
#include "sched/scheduler.hpp"
#include "tty/tty.hpp"

namespace cowbird {
namespace {

constexpr std::uint64_t kSysfsMagic = 0x62656572;

// A directory whose names are the devices that are there now; `entries_of` builds the fixed entries
// of one.
class DeviceDirectory final : public PseudoInode {
 public:
  using Names = std::vector<std::string> (*)();
  using Entries = PseudoEntries (*)(const std::string &name);
  DeviceDirectory(SuperBlock &sb, std::uint64_t number, Names names, Entries entries)
      : PseudoInode(sb, number, FileType::Directory, 0555), names_(names), entries_(entries) {}

  Result<Ref<Inode>> lookup(std::string_view name) override {
    const std::vector<std::string> names = names_();
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (names[i] == name) {
        return Ref<Inode>(
            make_ref<PseudoDirectory>(sb(), (number() << 8) + i + 1, entries_(names[i])));
      }
    }
    return Err(Errno::NoEnt);
  }

  Result<void> readdir(std::uint64_t offset, const DirEmitter &emit) override {
    const std::vector<std::string> names = names_();
    for (std::size_t i = offset > 2 ? static_cast<std::size_t>(offset - 2) : 0; i < names.size();
         ++i) {
      if (!emit(names[i], (number() << 8) + i + 1, FileType::Directory, i + 3)) break;
    }
    return {};
  }

 private:
  Names names_;
  Entries entries_;
};

PseudoEntry device_directory(std::string name, DeviceDirectory::Names names,
                             DeviceDirectory::Entries entries) {
  return {std::move(name), FileType::Directory,
          [names, entries](SuperBlock &sb, std::uint64_t number) -> Ref<Inode> {
            return make_ref<DeviceDirectory>(sb, number, names, entries);
          }};
}

PseudoEntry value(std::string name, std::string text) {
  return text_entry(std::move(name), 0444,
                    [text = std::move(text)]() -> Result<std::string> { return text + '\n'; });
}

std::vector<std::string> block_names() {
  std::vector<std::string> names;
  block::for_each_block_device([&](BlockDevice &device) { names.push_back(device.name()); });
  return names;
}

PseudoEntries block_entries(const std::string &name) {
  PseudoEntries list;
  const Ref<BlockDevice> device = block::find_block_device(name);
  if (!device) return list;
  const std::string number = fmt::format("{}:{}", device->major(), device->minor());
  list.push_back(value("dev", number));
  list.push_back(value("size", std::to_string(device->size() / 512)));
  list.push_back(value("ro", device->read_only() ? "1" : "0"));
  list.push_back(value("removable", "0"));
  list.push_back(text_entry("uevent", 0444, [device]() -> Result<std::string> {
    return fmt::format("MAJOR={}\nMINOR={}\nDEVNAME={}\nDEVTYPE=disk\n", device->major(),
                       device->minor(), device->name());
  }));
  list.push_back(directory_entry(
      "queue", {value("logical_block_size", std::to_string(device->block_size())),
                value("physical_block_size", std::to_string(device->block_size()))}));
  return list;
}

std::vector<std::string> tty_names() {
  std::vector<std::string> names;
  for_each_tty([&](const std::string &name, DeviceNumber) { names.push_back(name); });
  return names;
}

PseudoEntries tty_entries(const std::string &name) {
  PseudoEntries list;
  for_each_tty([&](const std::string &other, DeviceNumber number) {
    if (other != name) return;
    list.push_back(value("dev", fmt::format("{}:{}", number.major, number.minor)));
    list.push_back(value(
        "uevent", fmt::format("MAJOR={}\nMINOR={}\nDEVNAME={}", number.major, number.minor, name)));
  });
  return list;
}

std::vector<std::string> cpu_names() {
  std::vector<std::string> names;
  for (unsigned i = 0; i < scheduler::vcpu_count(); ++i) names.push_back(fmt::format("cpu{}", i));
  return names;
}

PseudoEntries cpu_entries(const std::string &name) {
  // "cpu3": the number is the core's too; each vCPU is one of its own.
  return {directory_entry("topology",
                          {value("core_id", name.substr(3)), value("physical_package_id", "0")})};
}

// The vCPUs are the same for the life of the guest, but sysfs is registered before they are
// counted: the directory is put together when it is looked at.
PseudoEntry cpu_directory() {
  return {"cpu", FileType::Directory, [](SuperBlock &sb, std::uint64_t number) -> Ref<Inode> {
            const unsigned last = scheduler::vcpu_count() - 1;
            const std::string range = last == 0 ? "0" : fmt::format("0-{}", last);
            PseudoEntries list{value("online", range), value("possible", range),
                               value("present", range)};
            for (const std::string &cpu : cpu_names()) {
              list.push_back(directory_entry(cpu, cpu_entries(cpu)));
            }
            return make_ref<PseudoDirectory>(sb, number, list);
          }};
}

PseudoEntries root_entries() {
  PseudoEntries list;
  list.push_back(device_directory("block", block_names, block_entries));
  list.push_back(directory_entry("class", {device_directory("block", block_names, block_entries),
                                           device_directory("tty", tty_names, tty_entries)}));
  list.push_back(directory_entry("devices", {directory_entry("system", {cpu_directory()})}));
  list.push_back(directory_entry("fs", {}));
  list.push_back(directory_entry("kernel", {}));
  return list;
}

class SysSuperBlock final : public PseudoSuperBlock {
 public:
  SysSuperBlock() : PseudoSuperBlock("sysfs", kSysfsMagic) {
    root_ = make_ref<PseudoDirectory>(*this, std::uint64_t{1}, root_entries());
  }
  Ref<Inode> root() override { return root_; }

 private:
  Ref<Inode> root_;
};

Ref<SuperBlock> &sysfs_instance() {
  static Ref<SuperBlock> sb;
  return sb;
}

}  // namespace

void register_sysfs() {
  sysfs_instance() = make_ref<SysSuperBlock>();
  register_filesystem({"sysfs", true, true, [](const MountRequest &) -> Result<Ref<SuperBlock>> {
                         return sysfs_instance();
                       }});
}

Ref<SuperBlock> sysfs_superblock() { return sysfs_instance(); }

}  // namespace cowbird
