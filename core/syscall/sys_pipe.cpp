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
  // Fault.
  static Result<OffsetArgument> fetch(UserPtr<std::int64_t> pointer) {
    OffsetArgument argument(pointer);
    if (pointer) argument.value_ = static_cast<std::uint64_t>(TRY(pointer.read()));
    return argument;
  }
  // For this file: `unseekable` when a variable is given for what has no offsets, Inval for a
  // transfer of `bytes` that would not end at an offset.
  Result<void> use(File &file, std::uint64_t bytes, Errno unseekable) {
    file_ = &file;
    if (pointer_ && !file.seekable()) return Err(unseekable);
    if (!file.seekable()) return {};
    return check_range(value(), bytes);
  }
  void belongs_to(File &file) { file_ = &file; }
  std::uint64_t &value() { return pointer_ ? value_ : file_->position; }
  Result<void> store() {
    if (!pointer_) return {};
    return pointer_.write(static_cast<std::int64_t>(value_));
  }

 private:
  explicit OffsetArgument(UserPtr<std::int64_t> pointer) : pointer_(pointer) {}
  File *file_ = nullptr;
  UserPtr<std::int64_t> pointer_;
  std::uint64_t value_ = 0;
};

// For /proc/PID/io.
SysResult counted_copy(Task &task, std::uint64_t bytes) {
  ++task.io.read_calls;
  ++task.io.write_calls;
  task.io.read_bytes += bytes;
  task.io.written_bytes += bytes;
  return static_cast<std::int64_t>(bytes);
}

FileType type_of(const File &file) { return file.inode ? file.inode->type() : FileType{}; }

// What has no file of its own kind (eventfd and the like) cannot be spliced, nor a directory.
bool can_splice_from(const File &file) {
  return file.can_read() && type_of(file) != FileType{} && type_of(file) != FileType::Directory;
}
bool can_splice_to(const File &file) { return file.can_write() && type_of(file) != FileType{}; }

Result<void> regular_files(const File &from, const File &to) {
  if (type_of(from) == FileType::Directory || type_of(to) == FileType::Directory)
    return Err(Errno::IsDir);
  if (type_of(from) != FileType::Regular || type_of(to) != FileType::Regular)
    return Err(Errno::Inval);
  return {};
}

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
  OffsetArgument offset = TRY(OffsetArgument::fetch(args.ptr<std::int64_t>(2)));
  const Ref<File> from = TRY(readable_file(task, args.fd(1)));
  TRY(offset.use(*from, args.u64(3), Errno::SPipe));
  if (args.s64(3) < 0) return Err(Errno::Inval);
  const Ref<File> to = TRY(writable_file(task, args.fd(0)));
  const std::uint64_t bytes = std::min(args.u64(3), abi::kMaxTransfer);
  if (to->seekable()) TRY(check_range(to->position, bytes));
  if (to->append()) return Err(Errno::Inval);
  // Streams, terminals among them, are for splice(2), but that Linux lets them into pipes. Programs
  // try sendfile first and read and write when it is refused.
  Pipe *pipe = pipe_of(*to);
  const bool has_offsets = from->seekable() || type_of(*from) == FileType::Regular;
  if (type_of(*from) == FileType::Fifo || (!has_offsets && !pipe)) return Err(Errno::Inval);
  if (bytes == 0) return 0;
  if (!can_splice_from(*from) || !can_splice_to(*to)) return Err(Errno::Inval);
  const std::uint64_t done =
      TRY(pipe ? splice_to_pipe(*from, offset.value(), *pipe, bytes, to->nonblocking())
               : copy_between(*from, offset.value(), *to, to->position, bytes));
  TRY(offset.store());
  return counted_copy(task, done);
}

// What copy_file_range(2) says of places and amounts; `bytes` ends with the source.
Result<void> check_copy(File &from, std::uint64_t in, File &to, std::uint64_t out,
                        std::uint64_t &bytes) {
  if (in + bytes < in || out + bytes < out) return Err(Errno::Overflow);
  const std::uint64_t size = TRY(from.inode->getattr()).size;
  bytes = in >= size ? 0 : std::min(bytes, size - in);
  constexpr auto kEnd = static_cast<std::uint64_t>(INT64_MAX);
  if (out == kEnd) return Err(Errno::FBig);
  bytes = std::min(bytes, kEnd - std::min(out, kEnd));
  const bool overlaps = from.inode == to.inode && in < out + bytes && out < in + bytes;
  if (overlaps || in > kEnd || out > kEnd) return Err(Errno::Inval);
  return {};
}

SysResult sys_copy_file_range(Task &task, const SysArgs &args) {
  const Ref<File> from = TRY(task.files->get(args.fd(0)));
  const Ref<File> to = TRY(task.files->get(args.fd(2)));
  OffsetArgument in = TRY(OffsetArgument::fetch(args.ptr<std::int64_t>(1)));
  OffsetArgument out = TRY(OffsetArgument::fetch(args.ptr<std::int64_t>(3)));
  if (args.u32(5) != 0) return Err(Errno::Inval);
  TRY(regular_files(*from, *to));
  if (!from->readable() || !to->writable() || to->append()) return Err(Errno::BadF);
  // Since Linux 5.19: programs copy by themselves then.
  if (&from->inode->sb() != &to->inode->sb()) return Err(Errno::XDev);
  in.belongs_to(*from);
  out.belongs_to(*to);
  std::uint64_t bytes = std::min(args.u64(4), abi::kMaxTransfer);
  TRY(check_copy(*from, in.value(), *to, out.value(), bytes));
  const std::uint64_t done = TRY(copy_between(*from, in.value(), *to, out.value(), bytes));
  TRY(in.store());
  TRY(out.store());
  return counted_copy(task, done);
}

SysResult sys_splice(Task &task, const SysArgs &args) {
  const std::uint64_t bytes = std::min(args.u64(4), abi::kMaxTransfer);
  const std::uint32_t flags = args.u32(5);
  if (bytes == 0) return 0;
  if (flags & ~kSpliceFlags) return Err(Errno::Inval);
  const Ref<File> from = TRY(task.files->get(args.fd(0)));
  const Ref<File> to = TRY(task.files->get(args.fd(2)));
  Pipe *in = pipe_of(*from);
  Pipe *out = pipe_of(*to);
  if ((in && args.u64(1) != 0) || (out && args.u64(3) != 0)) return Err(Errno::SPipe);
  OffsetArgument to_offset = TRY(OffsetArgument::fetch(args.ptr<std::int64_t>(3)));
  OffsetArgument from_offset = TRY(OffsetArgument::fetch(args.ptr<std::int64_t>(1)));
  if (!from->readable() || !to->writable()) return Err(Errno::BadF);
  const bool nonblocking = (flags & abi::kSPLICE_F_NONBLOCK) || (in && from->nonblocking()) ||
                           (out && to->nonblocking());
  if (in && out)
    return static_cast<std::int64_t>(
        TRY(splice_pipe_to_pipe(*in, *out, bytes, nonblocking, false)));
  std::uint64_t done = 0;
  if (out) {
    TRY(from_offset.use(*from, bytes, Errno::Inval));
    if (!can_splice_from(*from)) return Err(Errno::Inval);
    done = TRY(splice_to_pipe(*from, from_offset.value(), *out, bytes, nonblocking));
    TRY(from_offset.store());
  } else if (in) {
    if (args.u64(3) != 0 && !to->seekable()) return Err(Errno::Inval);
    if (to->append()) return Err(Errno::Inval);
    TRY(to_offset.use(*to, bytes, Errno::Inval));
    if (!can_splice_to(*to)) return Err(Errno::Inval);
    done = TRY(splice_from_pipe(*in, *to, to_offset.value(), bytes, nonblocking));
    TRY(to_offset.store());
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
