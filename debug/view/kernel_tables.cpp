#include "debug/view/kernel_tables.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace cowbird::debug {
namespace {

constexpr unsigned kMaxDepth = 256;  // of directories and of mounts below each other
constexpr std::uint64_t kPageSize = 4096;
constexpr std::uint64_t kUserEnd = 0x8000'0000'0000;  // of the lower half of the address space
constexpr unsigned kFlagReadOnly = 1;                 // MS_RDONLY

// Kinds of sockets by the numbers of socket(2).
std::string family_name(int family) {
  switch (family) {
    case 1:
      return "unix";
    case 2:
      return "inet";
    case 10:
      return "inet6";
    case 16:
      return "netlink";
    case 17:
      return "packet";
  }
  return std::to_string(family);
}

std::string type_name(int type) {
  switch (type) {
    case 1:
      return "stream";
    case 2:
      return "dgram";
    case 3:
      return "raw";
    case 5:
      return "seqpacket";
  }
  return std::to_string(type);
}

// Text for a terminal: no control characters from the guest.
std::string printable(std::string text) {
  for (char &c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
  }
  return text;
}

}  // namespace

std::string format_log_row(const LogRow &row) {
  return fmt::format("[{:5}.{:06}] {}", row.time_ns / 1'000'000'000, row.time_ns / 1000 % 1'000'000,
                     row.text);
}

const KernelThread *KernelTables::thread_at(std::uint64_t address) const {
  const auto &threads = view_.threads();
  const auto found = std::find_if(threads.begin(), threads.end(),
                                  [&](const auto &t) { return t.address == address; });
  return found == threads.end() ? nullptr : &*found;
}

std::vector<ProcessRow> KernelTables::processes() {
  const auto &layout = view_.table().process;
  const std::uint64_t table = root(view_.table().pid_table);
  std::vector<ProcessRow> rows;
  if (table == 0) return rows;
  std::map<std::uint64_t, std::vector<const KernelThread *>> threads;
  for (const KernelThread &thread : view_.threads()) {
    if (thread.process != 0) threads[thread.process].push_back(&thread);
  }
  for (const std::uint64_t entry : reader_.map(table + view_.table().pids.processes)) {
    const std::uint64_t address = reader_.pointer(entry + 8);
    Blob blob(address, layout.size);
    if (!reader_.bytes(address, blob.bytes())) continue;
    ProcessRow row;
    row.pid = blob.get<int>(layout.pid);
    row.group = blob.get<int>(layout.pgid);
    row.session = blob.get<int>(layout.sid);
    row.zombie = blob.get<bool>(layout.zombie);
    row.exit_status = blob.get<int>(layout.exit_status);
    const auto parent = blob.get<std::uint64_t>(layout.parent);
    if (parent != 0) row.parent = reader_.value<int>(parent + layout.pid);
    row.threads = threads[address];
    std::sort(row.threads.begin(), row.threads.end(),
              [](const auto *a, const auto *b) { return a->guest_tid < b->guest_tid; });
    row.name = row.threads.empty() ? reader_.string(address + layout.exit_comm)
                                   : row.threads.front()->name;
    row.name = printable(std::move(row.name));
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<LogRow> KernelTables::log(std::size_t count) {
  const auto &layout = view_.table().log_ring;
  const std::uint64_t ring = root(view_.table().log);
  std::vector<LogRow> rows;
  if (ring == 0 || layout.count == 0) return rows;
  const auto next = reader_.value<std::uint64_t>(ring + layout.next);
  const std::uint64_t kept = std::min<std::uint64_t>({next, layout.count, count});
  for (std::uint64_t number = next - kept; number < next; ++number) {
    const std::uint64_t at = ring + layout.records + (number % layout.count) * layout.record_size;
    LogRow row;
    row.sequence = reader_.value<std::uint64_t>(at + layout.record_sequence);
    if (row.sequence != number) {  // being written just now
      reader_.note_damage();
      continue;
    }
    row.time_ns = reader_.value<std::int64_t>(at + layout.record_time);
    row.level = reader_.value<std::uint8_t>(at + layout.record_level);
    row.text = printable(reader_.string(at + layout.record_text));
    rows.push_back(std::move(row));
  }
  return rows;
}

// From a dentry up to `top`, the root of its mount.
std::string KernelTables::dentry_path(std::uint64_t dentry, std::uint64_t top) {
  const auto &layout = view_.table().mount;
  std::string path;
  for (unsigned depth = 0; dentry != 0 && dentry != top; ++depth) {
    if (depth == kMaxDepth) {
      reader_.note_damage();
      return "..." + path;
    }
    const std::uint64_t parent = reader_.pointer(dentry + layout.dentry_parent);
    if (parent == 0) break;  // the root of a file system of which only a part is mounted
    path.insert(0, "/" + reader_.string(dentry + layout.dentry_name));
    dentry = parent;
  }
  return path;
}

std::string KernelTables::mount_path(std::uint64_t mount) {
  const auto &layout = view_.table().mount;
  std::string path;
  for (unsigned depth = 0; mount != 0; ++depth) {
    if (depth == kMaxDepth) {
      reader_.note_damage();
      return "..." + path;
    }
    const std::uint64_t parent = reader_.pointer(mount + layout.parent);
    if (parent == 0) break;
    const std::uint64_t top = reader_.pointer(parent + layout.root);
    path.insert(0, dentry_path(reader_.pointer(mount + layout.mountpoint), top));
    mount = parent;
  }
  return path.empty() ? "/" : path;
}

std::vector<MountRow> KernelTables::mounts() {
  const auto &layout = view_.table().mount;
  const std::uint64_t table = root(view_.table().mounts);
  std::vector<MountRow> rows;
  if (table == 0) return rows;
  for (const std::uint64_t mount : reader_.pointer_vector(table + layout.all)) {
    MountRow row;
    row.id = reader_.value<int>(mount + layout.id);
    row.read_only = (reader_.value<std::uint32_t>(mount + layout.flags) & kFlagReadOnly) != 0;
    row.source = printable(reader_.string(mount + layout.source));
    row.type = printable(reader_.string(mount + layout.type));
    row.where = printable(mount_path(mount));
    const std::uint64_t parent = reader_.pointer(mount + layout.parent);
    row.parent = parent == 0 ? row.id : reader_.value<int>(parent + layout.id);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<BlockRow> KernelTables::block_devices() {
  const auto &layout = view_.table().block;
  const std::uint64_t registry = root(view_.table().blocks);
  std::vector<BlockRow> rows;
  if (registry == 0) return rows;
  for (const std::uint64_t device : reader_.pointer_vector(registry + layout.devices)) {
    BlockRow row;
    row.name = printable(reader_.string(device + layout.name));
    row.major = reader_.value<std::uint32_t>(device + layout.major);
    row.minor = reader_.value<std::uint32_t>(device + layout.minor);
    const auto stats = reader_.value<std::array<std::uint64_t, 8>>(device + layout.stats);
    row.reads = stats[0];
    row.read_bytes = stats[1];
    row.writes = stats[2];
    row.written_bytes = stats[3];
    row.in_flight = stats[6];
    row.errors = stats[7];
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<SocketRow> KernelTables::sockets() {
  const auto &layout = view_.table().socket;
  const std::uint64_t list = root(view_.table().sockets);
  std::vector<SocketRow> rows;
  if (list == 0) return rows;
  for (const std::uint64_t socket : reader_.list(list, layout.all_link, view_.table().list.next)) {
    SocketRow row;
    row.address = socket;
    row.family = family_name(reader_.value<int>(socket + layout.domain));
    row.type = type_name(reader_.value<int>(socket + layout.type));
    row.listening = reader_.value<std::uint8_t>(socket + layout.listening) != 0;
    row.where = printable(reader_.string(socket + layout.address));
    const std::uint64_t inode = reader_.pointer(socket + layout.inode);
    if (inode != 0) row.inode = reader_.value<std::uint64_t>(inode + layout.inode_number);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<IrqRow> KernelTables::interrupts() {
  const auto &layout = view_.table().irq_state;
  const std::uint64_t irq = root(view_.table().irq);
  std::vector<IrqRow> rows;
  if (irq == 0) return rows;
  rows.push_back({"timer", reader_.value<std::uint64_t>(irq + layout.timer_count)});
  rows.push_back({"completions", reader_.value<std::uint64_t>(irq + layout.post_count)});
  for (const std::uint64_t entry : reader_.map(irq + layout.watches)) {
    const std::uint64_t watched = entry + 8;  // behind the key
    rows.push_back({printable(reader_.string(watched + layout.source_name)),
                    reader_.value<std::uint64_t>(watched + layout.source_count)});
  }
  return rows;
}

std::vector<LockRow> KernelTables::sleeping_locks() {
  const auto &layout = view_.table().sleep_mutex;
  std::map<std::uint64_t, LockRow> found;
  for (const KernelThread &thread : view_.threads()) {
    if (thread.blocked_on == 0) continue;
    LockRow &row = found[thread.blocked_on];
    if (row.waiters.empty()) {
      row.address = thread.blocked_on;
      row.name = reader_.c_string(reader_.pointer(row.address + layout.wait_channel), 64);
      row.owner = thread_at(reader_.pointer(row.address + layout.owner));
    }
    row.waiters.push_back(&thread);
  }
  std::vector<LockRow> rows;
  rows.reserve(found.size());
  for (auto &[address, row] : found) rows.push_back(std::move(row));
  return rows;
}

ClockRow KernelTables::clock() {
  const auto &layout = view_.table().clock_state;
  const auto at = reinterpret_cast<std::uint64_t>(view_.table().clock);
  ClockRow row;
  row.base_ns = reader_.value<std::int64_t>(at + layout.base);
  row.frozen_ns = reader_.value<std::int64_t>(at + layout.frozen);
  row.stopped = reader_.value<std::uint8_t>(at + layout.stopped) != 0;
  row.halts = reader_.value<std::uint32_t>(at + layout.halts);
  row.realtime_offset_ns = reader_.value<std::int64_t>(at + layout.realtime_offset);
  row.next_timer_ns = INT64_MAX;
  if (const std::uint64_t irq = root(view_.table().irq)) {
    row.next_timer_ns = reader_.value<std::int64_t>(irq + view_.table().irq_state.programmed);
  }
  return row;
}

Result<KernelTables::GuestPage> KernelTables::guest_page(std::uint64_t mm, std::uint64_t address) {
  const auto &layout = view_.table().mm;
  if (mm == 0 || address >= kUserEnd) return Err(Errno::Fault);
  const std::uint64_t inside = reader_.pointer(mm + layout.private_part);
  const std::uint64_t phys = root(view_.table().phys);
  if (inside == 0 || phys == 0) return Err(Errno::Fault);
  // Three levels of nodes, then the leaf.
  std::uint64_t node = inside + layout.page_table + layout.root;
  for (unsigned level = 3; level > 0; --level) {
    const std::uint64_t slot = (address >> (12 + 9 * level)) % 512;
    node = reader_.pointer(node + slot * 8);
    if (node == 0) return Err(Errno::Fault);
  }
  const auto entry = reader_.value<std::uint64_t>(node + (address >> 12) % 512 * 8);
  const std::uint64_t frame = entry >> 12;
  if ((entry & 1) == 0) return Err(Errno::Fault);
  if (frame >= reader_.value<std::uint64_t>(phys + layout.phys_pages)) {
    reader_.note_damage();
    return Err(Errno::Fault);
  }
  GuestPage page;
  page.kernel_address = reader_.pointer(phys + layout.phys_base) + frame * kPageSize;
  page.readable = (entry & 2) != 0;
  page.writable = (entry & 4) != 0;
  page.executable = (entry & 8) != 0;
  return page;
}

Result<std::size_t> KernelTables::read_guest(std::uint64_t mm, std::uint64_t address,
                                             std::span<std::byte> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const std::uint64_t at = address + done;
    const std::size_t length = std::min<std::size_t>(out.size() - done, kPageSize - at % kPageSize);
    const auto page = guest_page(mm, at);
    if (!page) break;
    const auto part = out.subspan(done, length);
    if (!view_.memory().read(page->kernel_address + at % kPageSize, part)) break;
    done += length;
  }
  if (done == 0 && !out.empty()) return Err(Errno::Fault);
  return done;
}

}  // namespace cowbird::debug
