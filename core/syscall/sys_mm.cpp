// System calls about the address space: mmap(2) and its family, brk(2), madvise(2), msync(2), the
// mlock family, mincore(2).
#include <algorithm>

#include "abi/mman.hpp"
#include "mm/mm.hpp"
#include "proc/task.hpp"
#include "syscall/syscall.hpp"

namespace cowbird {
namespace {

// Flags that MAP_SHARED_VALIDATE accepts.
constexpr std::uint32_t kKnownMapFlags =
    abi::kMAP_TYPE | abi::kMAP_FIXED | abi::kMAP_ANONYMOUS | abi::kMAP_32BIT | abi::kMAP_GROWSDOWN |
    abi::kMAP_DENYWRITE | abi::kMAP_EXECUTABLE | abi::kMAP_LOCKED | abi::kMAP_NORESERVE |
    abi::kMAP_POPULATE | abi::kMAP_NONBLOCK | abi::kMAP_STACK | abi::kMAP_FIXED_NOREPLACE |
    abi::kMAP_UNINITIALIZED;

// Pages that one step of mincore answers.
constexpr std::uint64_t kMincoreStep = 4096;

Prot to_prot(const Task &task, std::uint64_t bits) {
  if ((bits & abi::kPROT_READ) && (task.personality & abi::kPER_READ_IMPLIES_EXEC))
    bits |= abi::kPROT_EXEC;
  return static_cast<Prot>(bits & (abi::kPROT_READ | abi::kPROT_WRITE | abi::kPROT_EXEC));
}

// setrlimit and capset may have changed them.
Mm &mm_with_limits(Task &task) {
  MmLimits &limits = task.mm->limits;
  limits.address_space = task.process->limit(Limit::AddressSpace);
  limits.stack = task.process->limit(Limit::Stack);
  limits.data = task.process->limit(Limit::Data);
  limits.locked = task.credentials.capable(Capability::IpcLock)
                      ? kNoLimit
                      : task.process->limit(Limit::MemLock);
  return *task.mm;
}

Result<void> decode_map_type(std::uint32_t flags, MmapRequest &request) {
  switch (flags & abi::kMAP_TYPE) {
    case abi::kMAP_SHARED:
      request.sharing = Sharing::Shared;
      return {};
    case abi::kMAP_PRIVATE:
      request.sharing = Sharing::Private;
      return {};
    case abi::kMAP_SHARED_VALIDATE:
      if (flags & abi::kMAP_ANONYMOUS) return Err(Errno::Inval);
      if (flags & ~kKnownMapFlags) return Err(Errno::OpNotSupp);
      request.sharing = Sharing::Shared;
      return {};
    default:
      return Err(Errno::Inval);
  }
}

// Whether there can be such a place at all, before anybody looks at what shall go there.
Result<void> check_map_range(const MmapRequest &request) {
  if (request.length == 0) return Err(Errno::Inval);
  if (request.length > kUserMax) return Err(Errno::NoMem);
  if (!request.fixed && !request.fixed_noreplace) return {};
  if (request.hint > kUserMax - request.length) return Err(Errno::NoMem);
  return page_aligned(request.hint) ? Result<void>() : Result<void>(Err(Errno::Inval));
}

// Files of names end where an offset of lseek(2) does; devices where an address would.
bool offset_fits(const File &file, std::uint64_t offset, std::uint64_t length) {
  const bool regular = file.inode && file.inode->is_regular();
  const std::uint64_t end = regular ? static_cast<std::uint64_t>(INT64_MAX) : ~0ull;
  const std::uint64_t bytes = page_up(length);
  return bytes <= end && (offset >> kPageShift) <= (end - bytes) >> kPageShift;
}

}  // namespace

SysResult sys_mmap(Task &task, const SysArgs &args) {
  const auto flags = static_cast<std::uint32_t>(args.u64(3));
  const std::uint64_t offset = args.u64(5);
  if (!page_aligned(offset)) return Err(Errno::Inval);
  MmapRequest request;
  request.hint = args.u64(0);
  request.length = args.u64(1);
  request.prot = to_prot(task, args.u64(2));
  request.fixed_noreplace = flags & abi::kMAP_FIXED_NOREPLACE;
  request.fixed = (flags & abi::kMAP_FIXED) && !request.fixed_noreplace;
  request.grows_down = flags & abi::kMAP_GROWSDOWN;
  request.no_reserve = flags & abi::kMAP_NORESERVE;
  request.populate = (flags & (abi::kMAP_POPULATE | abi::kMAP_NONBLOCK)) == abi::kMAP_POPULATE;
  request.locked = flags & abi::kMAP_LOCKED;
  request.below_4g = flags & abi::kMAP_32BIT;
  Ref<File> file;
  if (!(flags & abi::kMAP_ANONYMOUS)) {
    file = TRY(task.files->get(args.fd(4)));
    if (flags & abi::kMAP_HUGETLB) return Err(Errno::Inval);
  }
  TRY(check_map_range(request));
  Mm &mm = mm_with_limits(task);
  if (request.locked && mm.limits.locked == 0) return Err(Errno::Perm);
  if (file && !offset_fits(*file, offset, request.length)) return Err(Errno::Overflow);
  TRY(decode_map_type(flags, request));
  if (flags & abi::kMAP_HUGETLB) return Err(Errno::NoMem);  // as with no huge page reserved
  if (file) {
    TRY(check_mmap_access(*file, request));
    request.offset = offset;
    TRY(file->mmap(request));
  }
  if (request.grows_down && (file || request.sharing == Sharing::Shared)) return Err(Errno::Inval);
  return static_cast<std::int64_t>(TRY(mm.mmap(std::move(request))));
}

SysResult sys_munmap(Task &task, const SysArgs &args) {
  // Linux's own address space reaches a little higher: nothing can be mapped there, so that part of
  // a range is unmapped already.
  constexpr VirtAddr kLinuxTaskSize = 0x7fff'ffff'f000;
  std::uint64_t length = args.u64(1);
  const VirtAddr address = args.u64(0);
  if (address < kUserMax && length <= kLinuxTaskSize - address) {
    length = std::min(length, kUserMax - address);
  }
  TRY(task.mm->munmap(address, length));
  return 0;
}

SysResult sys_mprotect(Task &task, const SysArgs &args) {
  VirtAddr address = args.u64(0);
  std::uint64_t length = args.u64(1);
  const std::uint64_t bits = args.u64(2);
  const std::uint64_t grows = bits & (abi::kPROT_GROWSDOWN | abi::kPROT_GROWSUP);
  constexpr std::uint64_t kKnown = abi::kPROT_READ | abi::kPROT_WRITE | abi::kPROT_EXEC |
                                   abi::kPROT_SEM | abi::kPROT_GROWSDOWN | abi::kPROT_GROWSUP;
  // No area of this machine grows upwards.
  if ((bits & ~kKnown) || (grows & abi::kPROT_GROWSUP)) return Err(Errno::Inval);
  if (grows && page_aligned(address) && length != 0) {
    const Vma *area = task.mm->find_vma(address);
    if (!area) return Err(Errno::NoMem);
    if (!area->grows_down) return Err(Errno::Inval);
    length += address - area->start;
    address = area->start;
  }
  TRY(mm_with_limits(task).mprotect(address, length, to_prot(task, bits)));
  return 0;
}

SysResult sys_mremap(Task &task, const SysArgs &args) {
  const std::uint64_t flags = args.u64(3);
  if (flags > ~0u) return Err(Errno::Inval);
  return static_cast<std::int64_t>(TRY(mm_with_limits(task).mremap(
      args.u64(0), args.u64(1), args.u64(2), static_cast<std::uint32_t>(flags), args.u64(4))));
}

SysResult sys_brk(Task &task, const SysArgs &args) {
  return static_cast<std::int64_t>(mm_with_limits(task).brk(args.u64(0)));
}

SysResult sys_madvise(Task &task, const SysArgs &args) {
  TRY(task.mm->madvise(args.u64(0), args.u64(1), args.s32(2)));
  return 0;
}

SysResult sys_msync(Task &task, const SysArgs &args) {
  TRY(task.mm->msync(args.u64(0), args.u64(1), args.s32(2)));
  return 0;
}

SysResult sys_mlock(Task &task, const SysArgs &args) {
  TRY(mm_with_limits(task).mlock(args.u64(0), args.u64(1), true));
  return 0;
}

SysResult sys_mlock2(Task &task, const SysArgs &args) {
  const std::uint32_t flags = args.u32(2);
  if (flags & ~abi::kMLOCK_ONFAULT) return Err(Errno::Inval);
  TRY(mm_with_limits(task).mlock(args.u64(0), args.u64(1), true, flags & abi::kMLOCK_ONFAULT));
  return 0;
}

SysResult sys_munlock(Task &task, const SysArgs &args) {
  TRY(task.mm->mlock(args.u64(0), args.u64(1), false));
  return 0;
}

SysResult sys_mlockall(Task &task, const SysArgs &args) {
  const std::uint32_t flags = args.u32(0);
  constexpr std::uint32_t kKnown = abi::kMCL_CURRENT | abi::kMCL_FUTURE | abi::kMCL_ONFAULT;
  if (flags == 0 || (flags & ~kKnown) || flags == abi::kMCL_ONFAULT) return Err(Errno::Inval);
  TRY(mm_with_limits(task).mlock_all(flags & abi::kMCL_CURRENT, flags & abi::kMCL_FUTURE,
                                     flags & abi::kMCL_ONFAULT));
  return 0;
}

SysResult sys_munlockall(Task &task, const SysArgs &) {
  task.mm->munlock_all();
  return 0;
}

SysResult sys_mincore(Task &task, const SysArgs &args) {
  const VirtAddr start = args.u64(0);
  const std::uint64_t length = args.u64(1);
  const UserPtr<std::uint8_t> out = args.ptr<std::uint8_t>(2);
  if (!page_aligned(start)) return Err(Errno::Inval);
  if (start > kUserMax || length > kUserMax - start) return Err(Errno::NoMem);
  const std::uint64_t pages = pages_of(length);
  std::vector<std::uint8_t> resident;
  for (std::uint64_t done = 0; done < pages; done += kMincoreStep) {
    const std::uint64_t step = std::min(kMincoreStep, pages - done);
    TRY(task.mm->mincore(start + (done << kPageShift), step << kPageShift, resident));
    TRY(out.at(done).write_array(resident));
  }
  return 0;
}

}  // namespace cowbird
