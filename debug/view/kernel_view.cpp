#include "debug/view/kernel_view.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "abi/registers.hpp"
#include "debug/view/elf_symbols.hpp"
#include "debug/view/structure_reader.hpp"
#include "syscall/names.hpp"

namespace cowbird::debug {
namespace {

using debug_view::Table;
using debug_view::ThreadStateValue;

constexpr std::size_t kMaxThreads = 100'000;
constexpr std::size_t kMaxVcpus = 1024;
constexpr std::uint32_t kMaxObject = 1 << 20;

// sched/context.hpp: what lies at a saved rsp.
struct SavedFrame {
  std::uint32_t mxcsr;
  std::uint16_t x87_control, unused;
  std::uint64_t r15, r14, r13, r12, rbx, rbp, rip;
};
static_assert(sizeof(SavedFrame) == 64);

KernelThreadState state_of(ThreadStateValue value) {
  switch (value) {
    case ThreadStateValue::Runnable:
      return KernelThreadState::Ready;
    case ThreadStateValue::Running:
      return KernelThreadState::Running;
    case ThreadStateValue::Interruptible:
      return KernelThreadState::Sleeping;
    case ThreadStateValue::Uninterruptible:
      return KernelThreadState::Uninterruptible;
    case ThreadStateValue::Stopped:
      return KernelThreadState::Stopped;
    case ThreadStateValue::Traced:
      return KernelThreadState::Traced;
    case ThreadStateValue::Dead:
      return KernelThreadState::Dead;
    case ThreadStateValue::New:
      return KernelThreadState::New;
  }
  return KernelThreadState::Dead;
}

bool asleep(KernelThreadState state) {
  return state == KernelThreadState::Sleeping || state == KernelThreadState::Uninterruptible ||
         state == KernelThreadState::Stopped || state == KernelThreadState::Traced;
}

class View final : public KernelView {
 public:
  View(MemoryReader &memory, std::unique_ptr<ElfSymbols> symbols, std::uint64_t base)
      : reader_(memory), symbols_(std::move(symbols)), base_(base) {}

  Result<void> load_table(std::string &why);

  MemoryReader &memory() override { return reader_.memory(); }
  const Table &table() const override { return table_; }
  Result<void> refresh() override;
  const std::vector<KernelThread> &threads() const override { return threads_; }
  const std::vector<VcpuState> &vcpus() const override { return vcpus_; }
  const KernelThread *find(std::int64_t tid) const override;
  const KernelThread *find_by_stack(std::uint64_t rsp) const override;
  unsigned damage() const override { return reader_.damage(); }
  Result<Registers> saved_registers(const KernelThread &thread) override;
  Result<Registers> idle_registers(const VcpuState &vcpu) override;
  Result<Registers> user_registers(const KernelThread &thread) override;
  std::uint64_t symbol(const std::string &name) const override;
  std::string system_call_name(std::uint64_t number) override {
    return std::string(syscall_name(number));
  }
  std::optional<std::int64_t> big_kernel_lock_owner() override;
  Result<std::vector<ClockPatch>> clock_patch(std::int64_t since_ns,
                                              std::int64_t until_ns) override;

 private:
  // What was read of one thread.
  struct Read {
    Blob thread, sched;
    std::uint64_t sched_address = 0;
    bool is_task = false;
  };

  void read_vcpus(std::uint64_t core);
  void prefetch();
  void read_thread(std::uint64_t address);
  void walk_threads(std::uint64_t core);
  void read_scheds();
  void read_pids();
  KernelThread decode(const Read &read);
  std::string name_of(const Read &read, std::uint64_t id);
  Result<Registers> from_frame(std::uint64_t rsp);
  std::uint64_t address_of(const void *root) const { return reinterpret_cast<std::uint64_t>(root); }

  StructureReader reader_;
  std::unique_ptr<ElfSymbols> symbols_;
  std::uint64_t base_;
  Table table_{};
  std::uint64_t switched_address_ = 0;
  std::vector<KernelThread> threads_;
  std::vector<VcpuState> vcpus_;
  bool frozen_ = false;
  std::unordered_map<std::uint64_t, std::size_t> vcpu_index_;  // address -> place in vcpus_
  std::unordered_map<std::int64_t, std::size_t> by_tid_;
  std::unordered_map<std::uint64_t, Read> reads_;  // by the thread's address; of this refresh
  std::vector<std::uint64_t> order_;
  std::unordered_map<std::uint64_t, int> pids_;  // of Process addresses; of this refresh
  struct LongName {
    std::uint64_t text, length;
    std::string name;
  };
  std::unordered_map<std::uint64_t, LongName> long_names_;  // by the thread's id
  std::unordered_map<std::uint64_t, std::string> wait_channels_;
};

Result<void> View::load_table(std::string &why) {
  const std::uint64_t at = symbol("cowbird_debug_view");
  if (at == 0) {
    why = "The program has no symbol cowbird_debug_view: it is no Cowbird, or was stripped of it.";
    return Err(Errno::NoEnt);
  }
  struct {
    char magic[8];
    std::uint32_t version, size;
  } head{};
  if (!reader_.bytes(at, std::as_writable_bytes(std::span(&head, 1)))) {
    why = fmt::format("The kernel's table for debuggers at {:#x} cannot be read.", at);
    return Err(Errno::Fault);
  }
  if (std::memcmp(head.magic, debug_view::kMagic, sizeof head.magic) != 0) {
    why = fmt::format(
        "There is no table for debuggers at {:#x}: the program file is not the one "
        "that the process runs.",
        at);
    return Err(Errno::NoEnt);
  }
  if (head.version != debug_view::kVersion || head.size < sizeof(Table)) {
    why = fmt::format(
        "The kernel's table for debuggers has version {} and {} bytes, this debugger "
        "knows version {} of {} bytes: use the debugger of the guest's own program.",
        head.version, head.size, debug_view::kVersion, sizeof(Table));
    return Err(Errno::OpNotSupp);
  }
  if (!reader_.bytes(at, std::as_writable_bytes(std::span(&table_, 1)))) return Err(Errno::Fault);
  for (const std::uint32_t size : {table_.thread.size, table_.sched.size, table_.vcpu.size,
                                   table_.task.size, table_.process.size}) {
    if (size > kMaxObject) {
      why = "The kernel's table for debuggers is damaged: it names an object of more than 1 MiB.";
      return Err(Errno::Inval);
    }
  }
  switched_address_ = reader_.pointer(address_of(table_.switched_address));
  return {};
}

Result<void> View::refresh() {
  reader_.forget_damage();
  threads_.clear();
  vcpus_.clear();
  vcpu_index_.clear();
  by_tid_.clear();
  const std::uint64_t core = reader_.pointer(address_of(table_.sched_core));
  if (core == 0) {  // not started yet, or not readable
    if (reader_.damage() != 0) return Err(Errno::Fault);
    return {};
  }
  frozen_ = reader_.value<std::uint8_t>(core + table_.core.frozen) != 0;
  read_vcpus(core);
  prefetch();
  walk_threads(core);
  read_scheds();
  read_pids();
  threads_.reserve(order_.size());
  for (const std::uint64_t address : order_) {
    KernelThread thread = decode(reads_.at(address));
    if (!by_tid_.emplace(thread.tid, threads_.size()).second) {
      reader_.note_damage();
      continue;
    }
    threads_.push_back(std::move(thread));
  }
  return {};
}

void View::read_vcpus(std::uint64_t core) {
  const auto &layout = table_.vcpu;
  std::vector<std::uint64_t> addresses = reader_.pointer_vector(core + table_.core.vcpus);
  if (addresses.size() > kMaxVcpus) {
    reader_.note_damage();
    addresses.resize(kMaxVcpus);
  }
  for (const std::uint64_t address : addresses) {
    Blob blob(address, layout.size);
    if (!reader_.bytes(address, blob.bytes())) continue;
    VcpuState vcpu;
    vcpu.index = blob.get<unsigned>(layout.index);
    vcpu.current = blob.get<std::uint64_t>(layout.current);
    const auto context = blob.get<std::uint64_t>(layout.user_context);
    vcpu.in_user = context != 0;
    if (vcpu.in_user) vcpu.guest_code = reader_.value<int>(context + table_.context.host_tid);
    vcpu.idling = blob.get<bool>(layout.idling);
    vcpu.idle_rsp = blob.get<std::uint64_t>(layout.idle_rsp);
    vcpu.pthread = blob.get<std::uint64_t>(layout.pthread);
    vcpu_index_[address] = vcpus_.size();
    vcpus_.push_back(vcpu);
  }
}

// Reads again, in one go, what the last refresh found. Threads that have gone are read too, which
// costs little: the walk decides what counts.
void View::prefetch() {
  std::vector<MemoryReader::Piece> pieces;
  pieces.reserve(2 * order_.size());
  for (const std::uint64_t address : order_) {
    Read &read = reads_.at(address);
    pieces.push_back({address, read.thread.bytes()});
    pieces.push_back({read.sched_address, read.sched.bytes()});
  }
  reader_.memory().read_pieces(pieces);
  for (std::size_t i = 0; i + 1 < pieces.size(); i += 2) {
    const std::uint64_t address = pieces[i].address;
    Read &read = reads_.at(address);
    const bool same =
        pieces[i].good && pieces[i + 1].good &&
        read.thread.get<std::uint64_t>(table_.thread.sched) == read.sched_address &&
        (read.thread.get<std::uint64_t>(0) == address_of(table_.task_vtable)) == read.is_task;
    if (!same) reads_.erase(address);
  }
  order_.clear();
}

void View::read_thread(std::uint64_t address) {
  Read read;
  const std::uint32_t whole = std::max(table_.thread.size, table_.task.size);
  read.thread = Blob(address, whole);
  // A plain Thread is smaller than a Task and may lie at the end of what is readable.
  if (!reader_.memory().read(address, read.thread.bytes())) {
    read.thread = Blob(address, table_.thread.size);
    if (!reader_.bytes(address, read.thread.bytes())) return;
  }
  read.is_task = read.thread.get<std::uint64_t>(0) == address_of(table_.task_vtable);
  if (read.is_task && read.thread.size() < whole) {
    reader_.note_damage();
    return;
  }
  if (!read.is_task) {
    Blob smaller(address, table_.thread.size);
    std::memcpy(smaller.bytes().data(), read.thread.bytes().data(), smaller.size());
    read.thread = std::move(smaller);
  }
  read.sched_address = read.thread.get<std::uint64_t>(table_.thread.sched);
  reads_[address] = std::move(read);
}

void View::walk_threads(std::uint64_t core) {
  const std::uint64_t head = core + table_.core.threads;
  const std::uint32_t next_link = table_.thread.all_link + table_.list.next;
  std::unordered_set<std::uint64_t> seen;
  std::uint64_t node = reader_.pointer(head + table_.list.next);
  while (node != head) {
    const std::uint64_t address = node - table_.thread.all_link;
    if (node == 0 || order_.size() >= kMaxThreads || !seen.insert(node).second) {
      reader_.note_damage();
      break;
    }
    if (!reads_.contains(address)) read_thread(address);
    const auto read = reads_.find(address);
    if (read == reads_.end()) break;
    order_.push_back(address);
    node = read->second.thread.get<std::uint64_t>(next_link);
  }
  std::erase_if(reads_, [&](const auto &entry) {
    return !seen.contains(entry.first + table_.thread.all_link);
  });
}

void View::read_scheds() {
  std::vector<MemoryReader::Piece> pieces;
  std::vector<std::uint64_t> owners;
  for (const std::uint64_t address : order_) {
    Read &read = reads_.at(address);
    if (read.sched.size() != 0) continue;  // prefetched
    read.sched = Blob(read.sched_address, table_.sched.size);
    pieces.push_back({read.sched_address, read.sched.bytes()});
    owners.push_back(address);
  }
  reader_.memory().read_pieces(pieces);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].good) continue;
    reader_.note_damage();
    reads_.erase(owners[i]);
    std::erase(order_, owners[i]);
  }
}

void View::read_pids() {
  pids_.clear();
  for (const std::uint64_t address : order_) {
    const Read &read = reads_.at(address);
    if (!read.is_task) continue;
    const auto process = read.thread.get<std::uint64_t>(table_.task.process);
    if (process != 0) pids_.emplace(process, 0);
  }
  std::vector<MemoryReader::Piece> pieces;
  pieces.reserve(pids_.size());
  for (auto &[process, pid] : pids_) {
    pieces.push_back({process + table_.process.pid, std::as_writable_bytes(std::span(&pid, 1))});
  }
  reader_.memory().read_pieces(pieces);
  for (const auto &piece : pieces) {
    if (!piece.good) reader_.note_damage();
  }
}

std::string View::name_of(const Read &read, std::uint64_t id) {
  const auto at = table_.thread.name;
  if (auto name = read.thread.inline_string(at)) return *name;
  const auto text = read.thread.get<std::uint64_t>(at);
  const auto length = read.thread.get<std::uint64_t>(at + 8);
  LongName &known = long_names_[id];
  if (known.text != text || known.length != length) {
    known = {text, length, reader_.string(read.thread.address() + at)};
  }
  return known.name;
}

KernelThread View::decode(const Read &read) {
  const auto &layout = table_.thread;
  const Blob &blob = read.thread;
  const Blob &sched = read.sched;
  KernelThread thread;
  thread.address = blob.address();
  const auto id = blob.get<std::uint64_t>(layout.id);
  thread.tid = static_cast<std::int64_t>(id) + 1;
  thread.name = name_of(read, id);
  const auto state = blob.get<std::uint8_t>(layout.state);
  if (state > static_cast<std::uint8_t>(ThreadStateValue::New)) reader_.note_damage();
  thread.state = state_of(static_cast<ThreadStateValue>(state));
  thread.user_ns = blob.get<std::int64_t>(layout.user_ns);
  thread.system_ns = blob.get<std::int64_t>(layout.system_ns);
  thread.nice = blob.get<int>(layout.nice);
  thread.blocked_on = blob.get<std::uint64_t>(layout.blocked_on);
  thread.frozen = frozen_ && !blob.get<bool>(layout.runs_while_frozen);
  thread.saved_rsp = sched.get<std::uint64_t>(table_.sched.saved_rsp);
  thread.stack_low = sched.get<std::uint64_t>(table_.sched.stack_low);
  thread.stack_high = sched.get<std::uint64_t>(table_.sched.stack_high);
  const auto vcpu = vcpu_index_.find(sched.get<std::uint64_t>(table_.sched.vcpu));
  if (vcpu != vcpu_index_.end()) {
    const VcpuState &on = vcpus_[vcpu->second];
    thread.vcpu = static_cast<int>(on.index);
    thread.state = KernelThreadState::Running;
    thread.in_user = on.in_user && on.current == thread.address;
  } else if (thread.state == KernelThreadState::Running) {
    // Between two stacks: it has given its vCPU up, or was stopped with the scheduler.
    thread.state = KernelThreadState::Ready;
  }
  if (asleep(thread.state)) {
    const auto channel = blob.get<std::uint64_t>(layout.wait_channel);
    auto known = wait_channels_.find(channel);
    if (known == wait_channels_.end() && channel != 0) {
      known = wait_channels_.emplace(channel, reader_.c_string(channel, 64)).first;
    }
    if (channel != 0) thread.wait_channel = known->second;
  }
  if (read.is_task) {
    const auto &task = table_.task;
    thread.guest_tid = blob.get<int>(task.tid);
    thread.process = blob.get<std::uint64_t>(task.process);
    thread.context = blob.get<std::uint64_t>(task.context);
    thread.mm = blob.get<std::uint64_t>(task.mm);
    const auto pid = pids_.find(thread.process);
    thread.pid = pid == pids_.end() ? 0 : pid->second;
    const auto number = blob.get<std::uint64_t>(task.syscall_number);
    if (number != ~0ull) thread.syscall = number;
  }
  return thread;
}

const KernelThread *View::find(std::int64_t tid) const {
  const auto found = by_tid_.find(tid);
  return found == by_tid_.end() ? nullptr : &threads_[found->second];
}

const KernelThread *View::find_by_stack(std::uint64_t rsp) const {
  const auto found = std::find_if(threads_.begin(), threads_.end(), [rsp](const auto &thread) {
    return rsp >= thread.stack_low && rsp < thread.stack_high;
  });
  return found == threads_.end() ? nullptr : &*found;
}

Result<Registers> View::from_frame(std::uint64_t rsp) {
  SavedFrame frame{};
  if (rsp % 8 != 0) return Err(Errno::Fault);
  TRY(reader_.memory().read(rsp, std::as_writable_bytes(std::span(&frame, 1))));
  Registers registers;
  registers.set(Reg::Rip, switched_address_);
  registers.set(Reg::Rsp, rsp);
  registers.set(Reg::Rbp, frame.rbp);
  registers.set(Reg::Rbx, frame.rbx);
  registers.set(Reg::R12, frame.r12);
  registers.set(Reg::R13, frame.r13);
  registers.set(Reg::R14, frame.r14);
  registers.set(Reg::R15, frame.r15);
  return registers;
}

Result<Registers> View::saved_registers(const KernelThread &thread) {
  if (thread.state == KernelThreadState::Running) return Err(Errno::Inval);
  if (thread.saved_rsp < thread.stack_low ||
      thread.saved_rsp + sizeof(SavedFrame) > thread.stack_high) {
    return Err(Errno::Fault);
  }
  return from_frame(thread.saved_rsp);
}

Result<Registers> View::idle_registers(const VcpuState &vcpu) {
  if (vcpu.current == 0) return Err(Errno::Inval);
  return from_frame(vcpu.idle_rsp);
}

Result<Registers> View::user_registers(const KernelThread &thread) {
  if (thread.context == 0) return Err(Errno::Inval);
  abi::UserRegs regs{};
  TRY(reader_.memory().read(thread.context + table_.context.regs,
                            std::as_writable_bytes(std::span(&regs, 1))));
  Registers out;
  const std::pair<Reg, std::uint64_t> values[] = {
      {Reg::Rax, regs.rax},        {Reg::Rbx, regs.rbx},        {Reg::Rcx, regs.rcx},
      {Reg::Rdx, regs.rdx},        {Reg::Rsi, regs.rsi},        {Reg::Rdi, regs.rdi},
      {Reg::Rbp, regs.rbp},        {Reg::Rsp, regs.rsp},        {Reg::R8, regs.r8},
      {Reg::R9, regs.r9},          {Reg::R10, regs.r10},        {Reg::R11, regs.r11},
      {Reg::R12, regs.r12},        {Reg::R13, regs.r13},        {Reg::R14, regs.r14},
      {Reg::R15, regs.r15},        {Reg::Rip, regs.rip},        {Reg::Eflags, regs.eflags},
      {Reg::Cs, regs.cs},          {Reg::Ss, regs.ss},          {Reg::Ds, regs.ds},
      {Reg::Es, regs.es},          {Reg::Fs, regs.fs},          {Reg::Gs, regs.gs},
      {Reg::FsBase, regs.fs_base}, {Reg::GsBase, regs.gs_base}, {Reg::OrigRax, regs.orig_rax}};
  for (const auto &[reg, value] : values) out.set(reg, value);
  return out;
}

std::uint64_t View::symbol(const std::string &name) const {
  const std::uint64_t address = symbols_->find(name);
  return address == 0 ? 0 : base_ + address;
}

std::optional<std::int64_t> View::big_kernel_lock_owner() {
  const std::uint64_t lock = address_of(table_.big_kernel_lock);
  std::uint32_t state = 0;
  int owner = 0;
  if (!reader_.bytes(lock + table_.mutex.state, std::as_writable_bytes(std::span(&state, 1))) ||
      !reader_.bytes(lock + table_.mutex.owner, std::as_writable_bytes(std::span(&owner, 1)))) {
    return std::nullopt;
  }
  if (state == 0) return 0;
  if (owner == 0) return std::nullopt;  // it is being taken or given back just now
  return owner;
}

Result<std::vector<KernelView::ClockPatch>> View::clock_patch(std::int64_t since_ns,
                                                              std::int64_t until_ns) {
  const std::uint64_t at = address_of(table_.clock);
  const auto &layout = table_.clock_state;
  const auto load = [&]<typename T>(std::uint32_t offset, T &out) {
    return reader_.memory().read(at + offset, std::as_writable_bytes(std::span(&out, 1)));
  };
  std::uint32_t sequence = 0, halts = 0;
  std::int64_t base = 0;
  std::uint8_t stopped = 0;
  TRY(load(layout.sequence, sequence));
  TRY(load(layout.halts, halts));
  TRY(load(layout.base, base));
  TRY(load(layout.stopped, stopped));
  if (sequence % 2 != 0) return Err(Errno::Again);
  std::vector<ClockPatch> patches;
  const auto put = [&]<typename T>(std::uint32_t offset, T value) {
    const auto raw = std::as_bytes(std::span(&value, 1));
    patches.push_back({at + offset, {raw.begin(), raw.end()}});
  };
  // A clock that stands still of itself goes on from where it stood. Else guest time 0 moves by
  // what the guest shall not see. Whoever reads the clock just now sees by the sequence that what
  // it has read is worth nothing, and takes the time of the halt; whoever measures a span sees
  // that a halt was in it.
  if (stopped == 0) {
    put(layout.frozen, since_ns - base);
    put(layout.base, base + (until_ns - since_ns));
  }
  put(layout.sequence, sequence + 2);
  put(layout.halts, halts + 1);
  return patches;
}

}  // namespace

std::string describe_state(const KernelThread &thread) {
  std::string text;
  switch (thread.state) {
    case KernelThreadState::Ready:
      text = "ready";
      break;
    case KernelThreadState::Running:
      text = fmt::format("running {}on vcpu {}", thread.in_user ? "guest code " : "", thread.vcpu);
      break;
    case KernelThreadState::Sleeping:
      text = "sleeping";
      break;
    case KernelThreadState::Uninterruptible:
      text = "sleeping uninterruptibly";
      break;
    case KernelThreadState::Stopped:
      text = "stopped";
      break;
    case KernelThreadState::Traced:
      text = "traced";
      break;
    case KernelThreadState::Dead:
      return "dead";
    case KernelThreadState::New:
      return "new";
  }
  if (!thread.wait_channel.empty()) text += " in " + thread.wait_channel;
  if (thread.frozen) text += ", frozen";
  return text;
}

Result<std::unique_ptr<KernelView>> KernelView::open(MemoryReader &memory,
                                                     const std::string &program, std::uint64_t base,
                                                     std::string &why) {
  auto symbols = ElfSymbols::open(program);
  if (!symbols) {
    why =
        fmt::format("The symbols of {} cannot be read: {}.", program, errno_text(symbols.error()));
    return Err(symbols.error());
  }
  auto view = std::make_unique<View>(memory, std::move(*symbols), base);
  TRY(view->load_table(why));
  return std::unique_ptr<KernelView>(std::move(view));
}

}  // namespace cowbird::debug
