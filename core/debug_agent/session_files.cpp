// Files as a guest process sees them, for the debugger: programs, libraries and /proc.
#include <fmt/format.h>

#include "abi/fcntl.hpp"
#include "debug_agent/session.hpp"
#include "proc/exec_image.hpp"
#include "vfs/path.hpp"

namespace cowbird::debug_agent {
namespace {

// While it lives the agent's thread looks at files in this task's name.
class InNameOf {
 public:
  InNameOf(AgentThread &thread, Ref<Task> task) : thread_(thread) {
    thread_.subject = std::move(task);
  }
  ~InNameOf() { thread_.subject.reset(); }
  InNameOf(const InNameOf &) = delete;
  InNameOf &operator=(const InNameOf &) = delete;

 private:
  AgentThread &thread_;
};

Result<Ref<Task>> viewer(const Process &process) {
  Task *task = process.representative();
  if (!task || !task->fs) return Err(Errno::Srch);
  return Ref<Task>(task);
}

}  // namespace

// Only regular files: to open anything else may have effects, or wait.
Session::Reply Session::open_file(const Request &request) {
  if (files_.size() >= kMaxOpenFiles) return Err(Errno::MFile);
  const Ref<Process> found = TRY(process(request.fields.pid));
  const Ref<Task> task = TRY(viewer(*found));
  const InNameOf name(thread_, task);
  const WalkContext walk{*task->fs, Credentials::kernel(), task->fs->cwd};
  const Path path = TRY(lookup(walk, request.text(), LookupFlag::Follow));
  if (!path.inode().is_regular()) {
    return Err(refuse(Errno::Inval, fmt::format("{} is no regular file.", request.text())));
  }
  Ref<File> file = TRY(open_resolved(path, abi::kO_RDONLY, Credentials::kernel()));
  const std::uint64_t handle = next_file_++;
  files_[handle] = std::move(file);
  readers_[handle] = task;
  Bytes out(sizeof(handle));
  std::memcpy(out.data(), &handle, sizeof(handle));
  return out;
}

Session::Reply Session::read_file(const Request &request) {
  const auto found = files_.find(request.fields.address);
  if (found == files_.end()) return Err(Errno::BadF);
  const Ref<File> file = found->second;
  const InNameOf name(thread_, readers_[request.fields.address]);
  Bytes out(request.fields.length);
  out.resize(TRY(read_file_at(*file, request.numbers[0], out)));
  return out;
}

Session::Reply Session::stat_file(const Request &request) {
  const auto found = files_.find(request.fields.address);
  if (found == files_.end()) return Err(Errno::BadF);
  const Ref<File> file = found->second;
  const InNameOf name(thread_, readers_[request.fields.address]);
  const FileStat stat = TRY(file->inode->getattr());
  FileRecord record;
  record.device = stat.device;
  record.inode = stat.inode;
  record.size = stat.size;
  record.block_size = stat.block_size;
  record.blocks = stat.blocks;
  record.mode = stat.mode;
  record.links = stat.nlink;
  record.uid = stat.uid;
  record.gid = stat.gid;
  record.atime = stat.atime.sec;
  record.mtime = stat.mtime.sec;
  record.ctime = stat.ctime.sec;
  Bytes out(sizeof(record));
  std::memcpy(out.data(), &record, sizeof(record));
  return out;
}

Session::Reply Session::close_file(const Request &request) {
  if (files_.erase(request.fields.address) == 0) return Err(Errno::BadF);
  readers_.erase(request.fields.address);
  return Bytes{};
}

Session::Reply Session::read_link(const Request &request) {
  const Ref<Process> found = TRY(process(request.fields.pid));
  const Ref<Task> task = TRY(viewer(*found));
  const InNameOf name(thread_, task);
  const WalkContext walk{*task->fs, Credentials::kernel(), task->fs->cwd};
  const Path path = TRY(lookup(walk, request.text(), LookupFlag::None));
  if (!path.inode().is_symlink()) return Err(Errno::Inval);
  const std::string target = TRY(path.inode().readlink());
  const auto *begin = reinterpret_cast<const std::byte *>(target.data());
  return Bytes(begin, begin + target.size());
}

}  // namespace cowbird::debug_agent
