// The kernel's tables as a KernelView sees them: processes, the log, mounts, block devices,
// sockets, interrupt sources, sleeping locks, the clock, and the memory of guest programs through
// their page tables. For `monitor` and `info os`, which so work on a kernel that hangs or is dead.
// Call KernelView::refresh() first; one thread. What cannot be read is left out and counted in
// damage().
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "debug/view/kernel_view.hpp"
#include "debug/view/structure_reader.hpp"

namespace cowbird::debug {

struct ProcessRow {
  int pid = 0, parent = 0, group = 0, session = 0;
  std::string name;
  bool zombie = false;
  int exit_status = 0;                        // of a zombie, as wait(2) gives it
  std::vector<const KernelThread *> threads;  // good until the next refresh
};

struct LogRow {
  std::uint64_t sequence = 0;
  std::int64_t time_ns = 0;
  unsigned level = 0;
  std::string text;
};

struct MountRow {
  int id = 0, parent = 0;
  std::string source, where, type;
  bool read_only = false;
};

struct BlockRow {
  std::string name;
  std::uint32_t major = 0, minor = 0;
  std::uint64_t reads = 0, read_bytes = 0, writes = 0, written_bytes = 0, in_flight = 0, errors = 0;
};

struct SocketRow {
  std::uint64_t address = 0;
  std::uint64_t inode = 0;
  std::string family, type, where;
  bool listening = false;
};

struct IrqRow {
  std::string name;
  std::uint64_t count = 0;
};

// A sleeping lock that somebody waits for.
struct LockRow {
  std::uint64_t address = 0;
  std::string name;
  const KernelThread *owner = nullptr;
  std::vector<const KernelThread *> waiters;
};

struct ClockRow {
  std::int64_t realtime_offset_ns = 0;
  std::int64_t base_ns = 0;    // the host's CLOCK_MONOTONIC at guest time 0
  std::int64_t frozen_ns = 0;  // the guest's time while it stands still
  bool stopped = false;
  std::uint32_t halts = 0;
  std::int64_t next_timer_ns = 0;  // guest time; INT64_MAX: none is armed
};

class KernelTables {
 public:
  explicit KernelTables(KernelView &view) : view_(view), reader_(view.memory()) {}

  std::vector<ProcessRow> processes();
  // The last `count` records, oldest first; none while somebody writes the first one.
  std::vector<LogRow> log(std::size_t count);
  std::vector<MountRow> mounts();
  std::vector<BlockRow> block_devices();
  std::vector<SocketRow> sockets();
  std::vector<IrqRow> interrupts();
  std::vector<LockRow> sleeping_locks();
  ClockRow clock();

  // Memory of a guest program (`mm` is KernelThread::mm): bytes done from the front, Fault when not
  // even the first is present. Pages that the guest has not touched yet, or that lie in a file
  // only, are not present.
  Result<std::size_t> read_guest(std::uint64_t mm, std::uint64_t address, std::span<std::byte> out);
  // Where the page of an address lies in the kernel's memory, and its entry's flags.
  struct GuestPage {
    std::uint64_t kernel_address = 0;
    bool readable = false, writable = false, executable = false;
  };
  Result<GuestPage> guest_page(std::uint64_t mm, std::uint64_t address);

  unsigned damage() const { return reader_.damage(); }

 private:
  // The object behind a root of the table; 0: there is none yet.
  std::uint64_t root(const void *at) {
    return reader_.pointer(reinterpret_cast<std::uint64_t>(at));
  }
  std::string dentry_path(std::uint64_t dentry, std::uint64_t top);
  std::string mount_path(std::uint64_t mount);
  const KernelThread *thread_at(std::uint64_t address) const;

  KernelView &view_;
  StructureReader reader_;
};

// "[    0.012345] text".
std::string format_log_row(const LogRow &row);

}  // namespace cowbird::debug
