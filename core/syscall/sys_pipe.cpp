// System calls that make pipes, and those that move bytes between descriptors.
#include <algorithm>

#include "syscall/file_args.hpp"
#include "vfs/pipe.hpp"

namespace cowbird {

namespace {

SysResult make_pipe_fds(Task &task, UserPtr<std::int32_t> out, std::uint32_t flags) {
  if (flags & ~(abi::kO_CLOEXEC | abi::kO_NONBLOCK | abi::kO_DIRECT)) return Err(Errno::Inval);
  PipeEnds ends = TRY(make_pipe(flags, task.credentials));
  const bool close_on_exec = flags & abi::kO_CLOEXEC;
  const int reader = TRY(install_file(task, std::move(ends.reader), close_on_exec));
  auto writer = install_file(task, std::move(ends.writer), close_on_exec);
  Result<void> written;
  if (writer) {
    const std::int32_t pair[2] = {reader, *writer};
    written = out.write_array(pair);
    if (written) return 0;
    (void)task.files->close(*writer, task);
  }
  (void)task.files->close(reader, task);
  return Err(writer ? written.error() : writer.error());
}

constexpr std::uint32_t kSpliceFlags =
    abi::kSPLICE_F_MOVE | abi::kSPLICE_F_NONBLOCK | abi::kSPLICE_F_MORE | abi::kSPLICE_F_GIFT;

// The offset argument of splice, sendfile and copy_file_range: a guest's variable, or the file's
// own position.
class OffsetArgument {
 public:
  static Result<OffsetArgument> create(File &file, UserPtr<std::int64_t> pointer) {
    OffsetArgument argument(file, pointer);
    if (!pointer) return argument;
    if (!file.seekable()) return Err(Errno::SPipe);
    const std::int64_t value = TRY(pointer.read());
    if (value < 0) return Err(Errno::Inval);
    argument.value_ = static_cast<std::uint64_t>(value);
    return argument;
  }
  std::uint64_t &value() { return pointer_ ? value_ : file_->position; }
  Result<void> store() {
    if (!pointer_) return {};
    return pointer_.write(static_cast<std::int64_t>(value_));
  }

 private:
  OffsetArgument(File &file, UserPtr<std::int64_t> pointer) : file_(&file), pointer_(pointer) {}
  File *file_;
  UserPtr<std::int64_t> pointer_;
  std::uint64_t value_ = 0;
};

// The pages of guest memory that vmsplice gives to a pipe are copied.
class UserMemoryFile final : public File {
 public:
  explicit UserMemoryFile(IovIter memory) : File(0), memory_(std::move(memory)) {}
  Result<std::uint64_t> read(IovIter &to, std::uint64_t &) override {
    std::byte buffer[512];
    std::uint64_t total = 0;
    while (to.remaining() > 0 && memory_.remaining() > 0) {
      const std::size_t wanted = std::min<std::uint64_t>(sizeof buffer, to.remaining());
      auto got = memory_.copy_from(std::span(buffer, wanted));
      if (!got) {
        if (total > 0) break;
        return Err(got.error());
      }
      if (*got == 0) break;
      TRY(to.copy_to(std::span<const std::byte>(buffer, *got)));
      total += *got;
    }
    return total;
  }

 private:
  IovIter memory_;
};

}  // namespace

SysResult sys_pipe(Task &task, const SysArgs &args) {
  return make_pipe_fds(task, args.ptr<std::int32_t>(0), 0);
}
SysResult sys_pipe2(Task &task, const SysArgs &args) {
  return make_pipe_fds(task, args.ptr<std::int32_t>(0), args.u32(1));
}

SysResult sys_sendfile(Task &task, const SysArgs &args) {
  const Ref<File> to = TRY(writable_file(task, args.fd(0)));
  const Ref<File> from = TRY(readable_file(task, args.fd(1)));
  if (to->append()) return Err(Errno::Inval);
  if (!from->seekable() && !(from->inode && from->inode->is_regular())) return Err(Errno::Inval);
  OffsetArgument offset = TRY(OffsetArgument::create(*from, args.ptr<std::int64_t>(2)));
  const std::uint64_t bytes = std::min(args.u64(3), abi::kMaxTransfer);
  const std::uint64_t done = TRY(copy_between(*from, offset.value(), *to, to->position, bytes));
  TRY(offset.store());
  return static_cast<std::int64_t>(done);
}

SysResult sys_copy_file_range(Task &task, const SysArgs &args) {
  if (args.u32(5) != 0) return Err(Errno::Inval);
  const Ref<File> from = TRY(readable_file(task, args.fd(0)));
  const Ref<File> to = TRY(writable_file(task, args.fd(2)));
  if (!from->inode || !to->inode) return Err(Errno::Inval);
  if (from->inode->is_directory() || to->inode->is_directory()) return Err(Errno::IsDir);
  if (!from->inode->is_regular() || !to->inode->is_regular()) return Err(Errno::Inval);
  if (to->append()) return Err(Errno::BadF);
  OffsetArgument in = TRY(OffsetArgument::create(*from, args.ptr<std::int64_t>(1)));
  OffsetArgument out = TRY(OffsetArgument::create(*to, args.ptr<std::int64_t>(3)));
  const std::uint64_t bytes = std::min(args.u64(4), abi::kMaxTransfer);
  if (in.value() + bytes < in.value() || out.value() + bytes < out.value())
    return Err(Errno::Overflow);
  const bool overlaps = from->inode == to->inode && in.value() < out.value() + bytes &&
                        out.value() < in.value() + bytes;
  if (overlaps) return Err(Errno::Inval);
  const std::uint64_t done = TRY(copy_between(*from, in.value(), *to, out.value(), bytes));
  TRY(in.store());
  TRY(out.store());
  return static_cast<std::int64_t>(done);
}

SysResult sys_splice(Task &task, const SysArgs &args) {
  const std::uint32_t flags = args.u32(5);
  if (flags & ~kSpliceFlags) return Err(Errno::Inval);
  const Ref<File> from = TRY(readable_file(task, args.fd(0)));
  const Ref<File> to = TRY(writable_file(task, args.fd(2)));
  Pipe *in = pipe_of(*from);
  Pipe *out = pipe_of(*to);
  const std::uint64_t bytes = std::min(args.u64(4), abi::kMaxTransfer);
  if (bytes == 0) return 0;
  if ((in && args.u64(1) != 0) || (out && args.u64(3) != 0)) return Err(Errno::SPipe);
  const bool nonblocking = (flags & abi::kSPLICE_F_NONBLOCK) || (in && from->nonblocking()) ||
                           (out && to->nonblocking());
  if (in && out)
    return static_cast<std::int64_t>(
        TRY(splice_pipe_to_pipe(*in, *out, bytes, nonblocking, false)));
  std::uint64_t done = 0;
  if (out) {
    OffsetArgument offset = TRY(OffsetArgument::create(*from, args.ptr<std::int64_t>(1)));
    done = TRY(splice_to_pipe(*from, offset.value(), *out, bytes, nonblocking));
    TRY(offset.store());
  } else if (in) {
    if (to->append()) return Err(Errno::Inval);
    OffsetArgument offset = TRY(OffsetArgument::create(*to, args.ptr<std::int64_t>(3)));
    done = TRY(splice_from_pipe(*in, *to, offset.value(), bytes, nonblocking));
    TRY(offset.store());
  } else {
    return Err(Errno::Inval);
  }
  return static_cast<std::int64_t>(done);
}

SysResult sys_tee(Task &task, const SysArgs &args) {
  if (args.u32(3) & ~kSpliceFlags) return Err(Errno::Inval);
  if (args.u64(2) == 0) return 0;
  const Ref<File> from = TRY(readable_file(task, args.fd(0)));
  const Ref<File> to = TRY(writable_file(task, args.fd(1)));
  Pipe *in = pipe_of(*from);
  Pipe *out = pipe_of(*to);
  if (!in || !out) return Err(Errno::Inval);
  const bool nonblocking =
      (args.u32(3) & abi::kSPLICE_F_NONBLOCK) || from->nonblocking() || to->nonblocking();
  return static_cast<std::int64_t>(TRY(
      splice_pipe_to_pipe(*in, *out, std::min(args.u64(2), abi::kMaxTransfer), nonblocking, true)));
}

SysResult sys_vmsplice(Task &task, const SysArgs &args) {
  if (args.u32(3) & ~kSpliceFlags) return Err(Errno::Inval);
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  Pipe *pipe = pipe_of(*file);
  if (!pipe) return Err(Errno::BadF);
  IovIter memory = TRY(read_iovec(args.u64(1), args.u64(2)));
  const bool nonblocking = (args.u32(3) & abi::kSPLICE_F_NONBLOCK) || file->nonblocking();
  const std::uint32_t flags =
      (file->flags() & ~abi::kO_NONBLOCK) | (nonblocking ? abi::kO_NONBLOCK : 0u);
  if (!file->writable()) return static_cast<std::int64_t>(TRY(pipe->read(memory, flags)));
  const std::uint64_t bytes = memory.remaining();
  const Ref<File> source = make_ref<UserMemoryFile>(std::move(memory));
  std::uint64_t unused = 0;
  return static_cast<std::int64_t>(TRY(splice_to_pipe(*source, unused, *pipe, bytes, nonblocking)));
}

}  // namespace cowbird
