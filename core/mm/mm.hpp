// Mm: one guest address space, as the kernel knows it: its areas (Vma), its page tables, and the
// engine's host side, which is a cache of them. Shared by the threads of a process; one Mm lives
// from execve (or fork) until the last thread that uses it leaves.
//
// Needs the big kernel lock everywhere. Functions that fault pages in or wait for the engine may
// sleep; they say so. `lock()` serialises changes of the area list across those sleeps.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/ref.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "engine/platform.hpp"
#include "mm/page_cache.hpp"
#include "sched/wait.hpp"

namespace cowbird {

class File;  // vfs/file.hpp

// What happened at a fault. The whole contract of page faults, for guest code and for kernel copies
// alike.
enum class FaultOutcome : std::uint8_t {
  Resolved,     // the access can be tried again
  NoMapping,    // SIGSEGV, SEGV_MAPERR
  NoAccess,     // SIGSEGV, SEGV_ACCERR
  BeyondEnd,    // SIGBUS, BUS_ADRERR: past the end of the mapped file
  IoError,      // SIGBUS, BUS_ADRERR: the page could not be read
  OutOfMemory,  // no frame; the caller starts the OOM killer
  Interrupted,  // a fatal signal came while the page was read
};

enum class Sharing : std::uint8_t { Private, Shared };

enum class VmaKind : std::uint8_t { Normal, Heap, Stack };

// One mapped area [start, end): the same protection and backing throughout.
class Vma {
 public:
  VirtAddr start = 0;
  VirtAddr end = 0;
  Prot prot = Prot::None;
  Prot max_prot =
      Prot::Read | Prot::Write | Prot::Exec;  // what mprotect may grant (read-only files)
  Sharing sharing = Sharing::Private;
  VmaKind kind = VmaKind::Normal;
  bool grows_down = false;
  bool no_reserve = false;
  bool dont_fork = false;  // MADV_DONTFORK
  bool wipe_on_fork = false;
  bool locked = false;       // mlock
  Ref<PageCache> cache;      // file or shared memory; none for private anonymous memory
  std::uint64_t offset = 0;  // byte offset of `start` in the cache
  Ref<File> file;            // for /proc/PID/maps and to keep the file open
  Mm *mm = nullptr;

  std::uint64_t pages() const { return (end - start) >> kPageShift; }
  std::uint64_t index_of(VirtAddr address) const {
    return (offset + (address - start)) >> kPageShift;
  }
  ~Vma();
};

struct MmapRequest {
  VirtAddr hint = 0;
  std::uint64_t length = 0;
  Prot prot = Prot::None;
  Sharing sharing = Sharing::Private;
  bool fixed = false;            // MAP_FIXED: replaces what is there
  bool fixed_noreplace = false;  // Exist when something is there
  bool grows_down = false;
  bool no_reserve = false;
  bool populate = false;
  bool locked = false;
  bool below_4g = false;  // MAP_32BIT: below 2 GiB
  VmaKind kind = VmaKind::Normal;
  Prot max_prot = Prot::Read | Prot::Write | Prot::Exec;
  Ref<PageCache> cache;
  std::uint64_t offset = 0;
  Ref<File> file;
};

// Address-space figures of /proc/PID/stat, statm and status, in pages.
struct MmUsage {
  std::uint64_t virtual_pages, resident_anon, resident_file, resident_shared, stack_pages,
      data_pages, exec_pages, locked_pages, page_table_pages, peak_virtual, peak_resident;
};

// Limits that the process layer sets, in bytes (RLIMIT_*).
struct MmLimits {
  std::uint64_t address_space = ~0ull;
  std::uint64_t stack = 8 * kMiB;
  std::uint64_t data = ~0ull;
  std::uint64_t locked = ~0ull;
};

class Mm : public RefCounted<Mm> {
 public:
  static Result<Ref<Mm>> create(Platform &platform);
  ~Mm();

  // A copy-on-write copy for fork; waits until the parent's pages are write-protected.
  Result<Ref<Mm>> fork();

  AddressSpace &host() { return *host_; }
  SleepMutex &lock() { return lock_; }
  MmLimits limits;

  // --- system calls; errors as in the manual pages. They take lock() themselves. May sleep.
  Result<VirtAddr> mmap(MmapRequest request);
  Result<void> munmap(VirtAddr address, std::uint64_t length);
  Result<void> mprotect(VirtAddr address, std::uint64_t length, Prot prot);
  Result<VirtAddr> mremap(VirtAddr old_address, std::uint64_t old_length, std::uint64_t new_length,
                          std::uint32_t flags, VirtAddr new_address);
  // The new break; the old one when it cannot be moved.
  VirtAddr brk(VirtAddr new_break);
  Result<void> madvise(VirtAddr address, std::uint64_t length, int advice);
  Result<void> msync(VirtAddr address, std::uint64_t length, int flags);
  Result<void> mlock(VirtAddr address, std::uint64_t length, bool lock);
  Result<void> mincore(VirtAddr address, std::uint64_t length, std::vector<std::uint8_t> &out);

  // --- faults. May sleep (a page comes from a file): takes lock(), and drops it around I/O.
  FaultOutcome handle_fault(VirtAddr address, FaultAccess access);
  // For kernel copies: the frame behind an address, faulted in for `access`, with a reference that
  // the caller drops with phys().put().
  Result<Pfn> pin_page(VirtAddr address, FaultAccess access);
  // The frame if it is present with that access, without a fault and without a reference.
  bool lookup_page(VirtAddr address, FaultAccess access, Pfn &out) const;

  // --- program layout, set by execve.
  VirtAddr brk_start = 0, brk_end = 0;
  VirtAddr stack_top = 0;  // highest address of the initial stack
  VirtAddr code_start = 0, code_end = 0, data_start = 0, data_end = 0;
  VirtAddr arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
  std::vector<std::uint64_t> auxv;  // as on the stack, for /proc/PID/auxv
  Ref<File> exe;

  const Vma *find_vma(VirtAddr address) const;  // the area that contains the address, or nullptr
  void for_each_vma(const std::function<void(const Vma &)> &function) const;
  MmUsage usage() const;
  std::uint64_t minor_faults = 0, major_faults = 0;

  // Frames of this Mm that fork or unmapping retired but that the engine has not proved unreachable
  // yet are released here when it has; called on the way through the kernel. Cheap when there are
  // none.
  void reap_retired();
  // The number of tasks that run in this Mm (set by proc/).
  unsigned users = 0;
  // All areas go: the last task left. Frames are released as soon as the engine allows.
  void tear_down();

 private:
  friend class PageCache;
  struct Private;
  Mm();
  std::unique_ptr<AddressSpace> host_;
  SleepMutex lock_{"mmap_lock"};
  std::unique_ptr<Private> private_;
};

// Shared anonymous memory (MAP_SHARED|MAP_ANONYMOUS, /dev/zero shared): a page cache without a
// file.
Ref<PageCache> make_shared_memory(std::uint64_t bytes);

}  // namespace cowbird
