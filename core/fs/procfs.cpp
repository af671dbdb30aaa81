#include "fs/procfs.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include "fs/procfs_internal.hpp"
#include "vfs/dentry.hpp"
#include "vfs/mount.hpp"

namespace cowbird {
namespace {

using namespace procfs;

constexpr std::uint64_t kProcMagic = 0x9fa0;
constexpr std::uint64_t kRootNumber = 1;

std::optional<int> parse_pid(std::string_view name) {
  int pid = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
  if (error != std::errc() || end != name.data() + name.size() || pid <= 0 || name[0] == '0') {
    return std::nullopt;
  }
  return pid;
}

class RootDirectory final : public PseudoDirectory {
 public:
  RootDirectory(SuperBlock &sb, PseudoEntries entries)
      : PseudoDirectory(sb, kRootNumber, std::move(entries)) {}

  Result<Ref<Inode>> lookup(std::string_view name) override {
    if (const auto pid = parse_pid(name)) {
      if (Ref<Process> process = find_process(*pid)) {
        return make_process_directory(sb(), process, nullptr);
      }
      // A thread's own number works too, though it is not listed (proc(5)).
      if (Ref<Task> task = find_task(*pid)) {
        return make_process_directory(sb(), task->process, nullptr);
      }
      return Err(Errno::NoEnt);
    }
    return PseudoDirectory::lookup(name);
  }

  Result<void> readdir(std::uint64_t offset, const DirEmitter &emit) override {
    if (!emit_fixed(offset, emit)) return {};
    const std::uint64_t base = first_free_offset();
    std::vector<int> pids;
    for_each_process([&](Process &process) { pids.push_back(process.pid); });
    std::sort(pids.begin(), pids.end());
    for (const int pid : pids) {
      const std::uint64_t position = base + static_cast<std::uint64_t>(pid);
      if (position < offset) continue;
      if (!emit(std::to_string(pid), process_number(pid), FileType::Directory, position + 1)) {
        break;
      }
    }
    return {};
  }
};

class ProcSuperBlock final : public PseudoSuperBlock {
 public:
  explicit ProcSuperBlock(PseudoEntries entries)
      : PseudoSuperBlock("proc", kProcMagic),
        root_(make_ref<RootDirectory>(*this, std::move(entries))) {}
  Ref<Inode> root() override { return root_; }

 private:
  Ref<Inode> root_;
};

Ref<SuperBlock> &procfs_instance() {
  static Ref<SuperBlock> sb;
  return sb;
}

// A cached name would keep a task that nobody will ask for again, all of it, until the cache is
// full.
void forget_names(int pid, int tid) {
  const std::string number = std::to_string(tid);
  const Ref<Dentry> root = root_dentry_of(*procfs_instance());
  if (pid != tid) {
    Dentry *directory = dcache::find(*root, std::to_string(pid));
    if (directory) directory = dcache::find(*directory, "task");
    if (Dentry *const name = directory ? dcache::find(*directory, number) : nullptr) {
      dcache::drop(*name);
    }
  }
  if (Dentry *const name = dcache::find(*root, number)) dcache::drop(*name);
}

}  // namespace

void register_procfs(const std::string &command_line, PseudoEntries more) {
  PseudoEntries entries = system_entries(command_line);
  std::ranges::move(more, std::back_inserter(entries));
  procfs_instance() = make_ref<ProcSuperBlock>(std::move(entries));
  on_number_gone(forget_names);
  register_filesystem({"proc", true, true, [](const MountRequest &) -> Result<Ref<SuperBlock>> {
                         return procfs_instance();
                       }});
}

Ref<SuperBlock> procfs_superblock() { return procfs_instance(); }

}  // namespace cowbird
