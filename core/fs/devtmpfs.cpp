#include "fs/devtmpfs.hpp"

#include "base/log.hpp"
#include "block/block_device.hpp"
#include "fs/block_file.hpp"
#include "fs/tmpfs.hpp"
#include "irq/irq.hpp"
#include "tty/tty.hpp"
#include "vfs/mount.hpp"
#include "vfs/path.hpp"

namespace cowbird {
namespace {

// The instance, and an internal mount of it through which nodes are made, so that the dentry cache
// stays true to them.
struct DevFs {
  Ref<SuperBlock> sb;
  Ref<FsContext> fs;
};
DevFs &devfs() {
  static DevFs instance;
  return instance;
}

WalkContext walk() {
  DevFs &dev = devfs();
  KASSERT(dev.fs);
  return WalkContext{*dev.fs, Credentials::kernel(), dev.fs->root};
}

void follow_block_device(BlockDevice &device, bool added) {
  const std::string &name = device.name();
  const std::uint32_t mode = static_cast<std::uint32_t>(FileType::BlockDevice) | 0660;
  const DeviceNumber number{device.major(), device.minor()};
  const Result<void> done =
      added ? devtmpfs_add(name, mode, number) : devtmpfs_remove(name, mode, number);
  // The guest may have removed it by itself.
  if (!done && (added || !done.is(Errno::NoEnt))) {
    log_err("devtmpfs: cannot {} /dev/{}: {}", added ? "add" : "remove", name,
            errno_text(done.error()));
  }
}

}  // namespace

Result<void> init_devtmpfs() {
  TmpfsOptions options;
  options.mode = 0755;
  DevFs &dev = devfs();
  dev.sb = make_tmpfs("devtmpfs", options);
  Ref<Mount> mount = make_internal_mount(dev.sb);
  dev.fs = make_ref<FsContext>();
  dev.fs->umask = 0;
  dev.fs->root = Path(mount, mount->root);
  dev.fs->cwd = dev.fs->root;
  register_filesystem({"devtmpfs", true, true,
                       [](const MountRequest &) -> Result<Ref<SuperBlock>> { return devfs().sb; }});
  return {};
}

Ref<SuperBlock> devtmpfs_superblock() { return devfs().sb; }

Result<void> devtmpfs_add(std::string_view name, std::uint32_t mode, DeviceNumber number) {
  return make_node(walk(), name, mode, number);
}

Result<void> devtmpfs_remove(std::string_view name, std::uint32_t mode, DeviceNumber number) {
  return remove_device_node(walk(), name, mode, number);
}

Result<void> devtmpfs_symlink(std::string_view name, std::string_view target) {
  return make_symlink(walk(), target, name);
}

Result<void> add_terminal_nodes() {
  const auto chr = static_cast<std::uint32_t>(FileType::CharDevice);
  TRY(devtmpfs_add("tty", chr | 0666, {5, 0}));
  TRY(devtmpfs_add("console", chr | 0600, {5, 1}));
  TRY(devtmpfs_add("ptmx", chr | 0666, {5, 2}));
  TRY(make_directory(walk(), "pts", 0755));
  TRY(make_directory(walk(), "shm", 01777));
  TRY(devtmpfs_symlink("fd", "/proc/self/fd"));
  TRY(devtmpfs_symlink("stdin", "/proc/self/fd/0"));
  TRY(devtmpfs_symlink("stdout", "/proc/self/fd/1"));
  return devtmpfs_symlink("stderr", "/proc/self/fd/2");
}

Result<void> register_block_nodes() {
  TRY(register_block_device_number("ubd", kUbdMajor, 0, kUbdMinorStep * kMaxUbdDevices,
                                   [](Inode &, DeviceNumber number, std::uint32_t flags) {
                                     return open_block_device(number, flags);
                                   }));
  block::set_block_device_listener(follow_block_device);
  return {};
}

}  // namespace cowbird
