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
#include <type_traits>
#include <utility>
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

// A counted reference to an open file. mm/ lies below vfs/ and knows File by name only, so the
// functions that count are taken along from where the reference is made. Converts from and to
// Ref<File>.
class FileRef {
 public:
  FileRef() = default;
  FileRef(std::nullptr_t) {}  // NOLINT: implicit on purpose
  template <typename T>
  requires std::is_same_v<T, File> FileRef(Ref<T> file)  // NOLINT: implicit on purpose
      : file_(file.release()), counting_(&kCounting<T>) {}
  FileRef(const FileRef &other) : file_(other.file_), counting_(other.counting_) {
    if (file_) counting_->ref(file_);
  }
  FileRef(FileRef &&other) noexcept
      : file_(std::exchange(other.file_, nullptr)), counting_(other.counting_) {}
  FileRef &operator=(FileRef other) noexcept {
    std::swap(file_, other.file_);
    std::swap(counting_, other.counting_);
    return *this;
  }
  ~FileRef() {
    if (file_) counting_->unref(file_);
  }

  File *get() const { return file_; }
  File *operator->() const { return file_; }
  File &operator*() const { return *file_; }
  explicit operator bool() const { return file_ != nullptr; }
  void reset() { *this = FileRef(); }
  template <typename T>
  requires std::is_same_v<T, File>
  operator Ref<T>() const { return Ref<T>(file_); }
  friend bool operator==(const FileRef &a, const FileRef &b) { return a.file_ == b.file_; }

 private:
  struct Counting {
    void (*ref)(File *);
    void (*unref)(File *);
  };
  template <typename T>
  static constexpr Counting kCounting{[](T *file) { file->ref(); }, [](T *file) { file->unref(); }};
  File *file_ = nullptr;
  const Counting *counting_ = nullptr;
};

// What is the same for the whole of an area.
struct VmaFields {
  VirtAddr start = 0;
  VirtAddr end = 0;
  Prot prot = Prot::None;
  Prot max_prot =
      Prot::Read | Prot::Write | Prot::Exec;  // what mprotect may grant (read-only files)
  Sharing sharing = Sharing::Private;
  VmaKind kind = VmaKind::Normal;
  bool grows_down = false;
  bool no_reserve = false;
  bool dont_fork = false;      // MADV_DONTFORK
  bool wipe_on_fork = false;   // MADV_WIPEONFORK
  bool dont_dump = false;      // MADV_DONTDUMP
  bool random_access = false;  // MADV_RANDOM: no fault-around
  bool locked = false;         // mlock
  Ref<PageCache> cache;        // file or shared memory; none for private anonymous memory
  std::uint64_t offset = 0;    // byte offset of `start` in the cache
  FileRef file;                // for /proc/PID/maps and to keep the file open
  Mm *mm = nullptr;
};

// One mapped area [start, end): the same protection and backing throughout.
class Vma : public VmaFields, public CacheMapping {
 public:
  Vma() = default;
  explicit Vma(const VmaFields &fields) : VmaFields(fields) {}

  std::uint64_t pages() const { return (end - start) >> kPageShift; }
  std::uint64_t index_of(VirtAddr address) const {
    return (offset + (address - start)) >> kPageShift;
  }
  // Private memory that may be written: what RLIMIT_DATA counts.
  bool is_data() const {
    return sharing == Sharing::Private && has(prot, Prot::Write) && !grows_down;
  }
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
  Ref<PageCache> cache;  // Shared without one: new shared memory, all zeroes
  std::uint64_t offset = 0;
  FileRef file;
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

// One present page as /proc/PID/smaps and pagemap tell of it.
struct MappedPage {
  Pfn pfn = 0;
  std::uint64_t mappings = 1;   // page tables that have it, this one among them
  bool anonymous = false;       // a private copy
  bool in_memory_only = false;  // of shared memory or a tmpfs
  bool dirty = false;
};

class Mm : public RefCounted<Mm> {
 public:
  static Result<Ref<Mm>> create(Platform &platform);
  ~Mm();

  // A copy-on-write copy for fork; waits until the parent's pages are write-protected.
  Result<Ref<Mm>> fork();

  // Of no other Mm, ever: for who wants to know an address space again without keeping it.
  std::uint64_t id = 0;
  AddressSpace &host() { return *host_; }
  SleepMutex &lock() { return lock_; }
  MmLimits limits;

  // --- system calls; errors as in the manual pages. They take lock() themselves. May sleep.
  Result<VirtAddr> mmap(MmapRequest request);
  Result<void> munmap(VirtAddr address, std::uint64_t length);
  Result<void> mprotect(VirtAddr address, std::uint64_t length, Prot prot);
  Result<VirtAddr> mremap(VirtAddr old_address, std::uint64_t old_length, std::uint64_t new_length,
                          std::uint32_t flags, VirtAddr new_address);
  // The whole address space: what is mapped now, and what will be.
  // `on_fault`: pages are locked as they come, and not read in now.
  Result<void> mlock_all(bool current, bool future, bool on_fault = false);
  void munlock_all();
  // The new break; the old one when it cannot be moved.
  VirtAddr brk(VirtAddr new_break);
  Result<void> madvise(VirtAddr address, std::uint64_t length, int advice);
  Result<void> msync(VirtAddr address, std::uint64_t length, int flags);
  Result<void> mlock(VirtAddr address, std::uint64_t length, bool lock, bool on_fault = false);
  Result<void> mincore(VirtAddr address, std::uint64_t length, std::vector<std::uint8_t> &out);

  // --- faults. May sleep (a page comes from a file): takes lock(), and drops it around I/O.
  FaultOutcome handle_fault(VirtAddr address, FaultAccess access);
  // For kernel copies: the frame behind an address, faulted in for `access`, with a reference that
  // the caller drops with phys().put().
  Result<Pfn> pin_page(VirtAddr address, FaultAccess access);
  // The frame if it is present with that access, without a fault and without a reference.
  bool lookup_page(VirtAddr address, FaultAccess access, Pfn &out) const;
  // As pin_page for writing, also where the program itself may not write (a debugger's breakpoint):
  // a private area gets a copy of its own. Fault for shared read-only memory.
  Result<Pfn> pin_page_forced(VirtAddr address);
  // As pin_page for reading, also where the program itself may not read.
  Result<Pfn> pin_page_to_peek(VirtAddr address);

  // --- program layout, set by execve.
  VirtAddr brk_start = 0, brk_end = 0;
  VirtAddr stack_top = 0;  // highest address of the initial stack
  VirtAddr code_start = 0, code_end = 0, data_start = 0, data_end = 0;
  VirtAddr arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
  std::vector<std::uint64_t> auxv;  // as on the stack, for /proc/PID/auxv
  FileRef exe;

  const Vma *find_vma(VirtAddr address) const;  // the area that contains the address, or nullptr
  // The present pages of one area in [start, end), ascending.
  void for_each_page(const Vma &vma, VirtAddr start, VirtAddr end,
                     const std::function<void(VirtAddr, const MappedPage &)> &function) const;
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
  // Contexts of the address space must be gone before the last reference to the Mm is.
  void tear_down();
  // For the OOM killer, when no task that uses this Mm will run guest code again but the last one
  // takes its time: private memory goes now, and later faults are Interrupted. False, and nothing
  // happens, while somebody holds lock(). Never sleeps.
  bool take_from_killed();
  bool taken_from_killed() const;

 private:
  friend class PageCache;
  friend struct DebugLayout;
  struct Private;
  Mm();
  // For PageCache: the area's part of [first, end) pages of its cache leaves the page tables; true
  // when guest code may still see it until the engine has caught up.
  bool unmap_cache_pages(const Vma &vma, std::uint64_t first, std::uint64_t end,
                         bool private_copies);
  // The same for write access to one page.
  bool write_protect_cache_page(const Vma &vma, std::uint64_t index);
  FaultOutcome resolve_fault(VirtAddr address, FaultAccess access, bool forced);
  void populate(VirtAddr start, VirtAddr end);

  std::unique_ptr<AddressSpace> host_;
  SleepMutex lock_{"mmap_lock"};
  std::unique_ptr<Private> private_;
};

// Where randomness for the placement of mappings comes from: 64 random bits a call. The host's
// getrandom until boot/ (or a test that wants the same layout each time) sets something else.
void set_mm_random(std::uint64_t (*source)());
std::uint64_t mm_random();

// The limit on areas of one address space (vm.max_map_count).
inline constexpr std::size_t kMaxAreas = 65530;

// Shared anonymous memory (MAP_SHARED|MAP_ANONYMOUS, /dev/zero shared): a page cache without a
// file.
// Its size is fixed.
Ref<PageCache> make_shared_memory(std::uint64_t bytes);

}  // namespace cowbird
