#include "debug/target/user_target.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>

#include "debug/rsp/register_layout.hpp"

namespace cowbird::debug {
namespace {

using debug_agent::Action;
using debug_agent::records;
using debug_agent::RequestFields;
using debug_agent::ResumeRecord;
using debug_agent::StopKind;
using debug_agent::StopRecord;

// How often registers are asked for again of a thread that is on its way to its stop.
constexpr int kTries = 200;
constexpr unsigned kPauseUs = 1000;
constexpr std::size_t kMaxLibraries = 4096;
constexpr std::size_t kMaxName = 4096;

constexpr std::uint64_t abi::UserRegs::*kGuestRegisters[kRegCount] = {
    &abi::UserRegs::rax,     &abi::UserRegs::rbx,     &abi::UserRegs::rcx,      &abi::UserRegs::rdx,
    &abi::UserRegs::rsi,     &abi::UserRegs::rdi,     &abi::UserRegs::rbp,      &abi::UserRegs::rsp,
    &abi::UserRegs::r8,      &abi::UserRegs::r9,      &abi::UserRegs::r10,      &abi::UserRegs::r11,
    &abi::UserRegs::r12,     &abi::UserRegs::r13,     &abi::UserRegs::r14,      &abi::UserRegs::r15,
    &abi::UserRegs::rip,     &abi::UserRegs::eflags,  &abi::UserRegs::cs,       &abi::UserRegs::ss,
    &abi::UserRegs::ds,      &abi::UserRegs::es,      &abi::UserRegs::fs,       &abi::UserRegs::gs,
    &abi::UserRegs::fs_base, &abi::UserRegs::gs_base, &abi::UserRegs::orig_rax,
};

RequestFields of_process(std::int64_t pid) {
  RequestFields fields;
  fields.pid = static_cast<std::int32_t>(pid);
  return fields;
}

RequestFields of_thread(std::int64_t tid) {
  RequestFields fields;
  fields.tid = static_cast<std::int32_t>(tid);
  return fields;
}

RequestFields at(std::int64_t pid, std::uint64_t address, std::uint64_t length = 0) {
  RequestFields fields = of_process(pid);
  fields.address = address;
  fields.length = length;
  return fields;
}

template <std::size_t size>
std::string text_of(const char (&from)[size]) {
  return {from, ::strnlen(from, size)};
}

std::string describe(const debug_agent::ThreadRecord &thread) {
  if ((thread.flags & debug_agent::kThreadInSyscall) != 0) {
    const std::string channel = text_of(thread.wait_channel);
    const std::string where = channel.empty() ? "" : ", sleeping in " + channel;
    return fmt::format("in system call {}{}", thread.syscall, where);
  }
  if ((thread.flags & debug_agent::kThreadStopped) != 0) return "stopped";
  return thread.vcpu >= 0 ? fmt::format("running on vcpu {}", thread.vcpu) : "in guest code";
}

// A file as a guest process sees it.
class GuestFile final : public TargetFile {
 public:
  GuestFile(std::shared_ptr<AgentClient> agent, std::uint64_t handle)
      : agent_(std::move(agent)), handle_(handle) {}
  ~GuestFile() override {
    RequestFields fields;
    fields.address = handle_;
    [[maybe_unused]] const auto closed = agent_->call(debug_agent::Command::CloseFile, fields);
  }
  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) override {
    RequestFields fields;
    fields.address = handle_;
    fields.length = std::min(out.size(), debug_agent::kMaxTransfer);
    const auto bytes =
        TRY(agent_->call(debug_agent::Command::ReadFile, fields, std::span(&offset, 1)));
    const std::size_t count = std::min(bytes.size(), out.size());
    std::copy_n(bytes.begin(), count, out.begin());
    return count;
  }
  Result<FileStat> stat() override {
    RequestFields fields;
    fields.address = handle_;
    const auto bytes = TRY(agent_->call(debug_agent::Command::StatFile, fields));
    const auto found = records<debug_agent::FileRecord>(bytes);
    if (found.empty()) return Err(Errno::Proto);
    const debug_agent::FileRecord &from = found.front();
    FileStat to;
    to.device = from.device, to.inode = from.inode, to.size = from.size;
    to.block_size = from.block_size, to.blocks = from.blocks;
    to.mode = from.mode, to.links = from.links, to.uid = from.uid, to.gid = from.gid;
    to.atime = from.atime, to.mtime = from.mtime, to.ctime = from.ctime;
    return to;
  }

 private:
  std::shared_ptr<AgentClient> agent_;
  std::uint64_t handle_;
};

}  // namespace

// --- processes

Result<void> UserTarget::attach(std::int64_t pid) {
  TRY(agent_->call(Command::Attach, of_process(pid)));
  processes_.insert(pid);
  changed(still_);
  return {};
}

void UserTarget::changed(bool still) {
  still_ = still;
  threads_.clear();
}

void UserTarget::forget(std::int64_t pid) {
  changed(still_);
  processes_.erase(pid);
  std::erase_if(conditions_, [pid](const auto &entry) { return entry.first.first == pid; });
}

Result<void> UserTarget::detach(std::int64_t pid) {
  TRY(agent_->call(Command::Detach, of_process(pid)));
  forget(pid);
  return {};
}

Result<void> UserTarget::kill(std::int64_t pid) {
  TRY(agent_->call(Command::Kill, of_process(pid)));
  forget(pid);
  return {};
}

const std::vector<ThreadInfo> &UserTarget::threads() {
  if (still_ && !threads_.empty()) return threads_;
  std::vector<ThreadInfo> &list = threads_;
  list.clear();
  const auto bytes = agent_->call(Command::Threads);
  if (!bytes) return list;
  for (const auto &thread : records<debug_agent::ThreadRecord>(*bytes)) {
    if (!processes_.contains(thread.pid)) continue;
    list.push_back({{thread.pid, thread.tid}, text_of(thread.name), describe(thread), thread.vcpu});
  }
  return list;
}

bool UserTarget::is_alive(ThreadId id) {
  const auto &list = threads();
  return std::any_of(list.begin(), list.end(),
                     [&](const ThreadInfo &each) { return each.id == id; });
}

Result<void> UserTarget::freeze() {
  TRY(agent_->call(Command::Freeze));
  changed(true);
  return {};
}

void UserTarget::thaw_when_frozen() {
  changed(false);
  agent_->post(Command::Thaw);
}

Result<void> UserTarget::set_non_stop(bool on) {
  RequestFields fields;
  fields.flags = on ? 1 : 0;
  changed(false);
  TRY(agent_->call(Command::SetNonStop, fields));
  non_stop_ = on;
  return {};
}

Result<void> UserTarget::request_stop(ThreadId which) {
  for (const ThreadInfo &thread : threads()) {
    if (which.pid != kAll && which.pid != thread.id.pid) continue;
    if (which.tid != kAll && which.tid != thread.id.tid) continue;
    TRY(agent_->call(Command::RequestStop, of_thread(thread.id.tid)));
  }
  return {};
}

void UserTarget::plan(std::span<const ResumeAction> actions, bool everything) {
  std::vector<ResumeRecord> list;
  for (const ResumeAction &action : actions) {
    if (action.thread.pid == kKernelPid) continue;
    ResumeRecord record;
    record.pid = static_cast<std::int32_t>(action.thread.pid);
    record.tid = static_cast<std::int32_t>(action.thread.tid);
    record.signal = action.signal;
    switch (action.kind) {
      case ResumeKind::Continue:
        record.action = Action::Continue;
        break;
      case ResumeKind::StepRange:
        record.range_low = action.range_low;
        record.range_high = action.range_high;
        [[fallthrough]];
      case ResumeKind::Step:
        record.action = Action::Step;
        break;
      case ResumeKind::Stop:
        record.action = Action::Hold;
        break;
    }
    list.push_back(record);
  }
  if (everything) {
    ResumeRecord all;
    all.pid = all.tid = -1;
    list.push_back(all);
  }
  last_resume_ = list;
}

Result<void> UserTarget::resume(std::span<const ResumeAction> actions, bool everything) {
  plan(actions, everything);
  return resume_as(last_resume_);
}

Result<void> UserTarget::resume_as(std::span<const ResumeRecord> records) {
  changed(false);
  RequestFields fields;
  fields.address = seen_;
  TRY(agent_->call(Command::Resume, fields, {}, std::as_bytes(records)));
  return {};
}

// --- stops

bool UserTarget::wanted(const StopRecord &stop) {
  const auto found = conditions_.find({stop.pid, stop.address});
  if (stop.kind != StopKind::Breakpoint || found == conditions_.end()) return true;
  const auto registers = read_registers(stop.tid);
  if (!registers) return true;
  AgentContext context;
  context.read_register = [&](unsigned number) -> Result<std::uint64_t> {
    const Reg reg = TRY(general_register(number));
    return registers->get(reg);
  };
  context.read_memory = [&](std::uint64_t address, std::span<std::byte> out) -> Result<void> {
    if (TRY(read_memory(stop.pid, address, out)) != out.size()) return Err(Errno::Fault);
    return {};
  };
  return std::any_of(found->second.begin(), found->second.end(), [&](const AgentExpression &each) {
    const auto value = each.evaluate(context);
    return !value || *value != 0;
  });
}

std::optional<StopEvent> UserTarget::next_event(bool &went_on) {
  went_on = false;
  const auto stop = agent_->next_stop();
  if (!stop) return std::nullopt;
  seen_ = stop->sequence;
  changed(stop->frozen != 0);
  if (!processes_.contains(stop->pid)) {  // detached while it was on its way
    went_on = true;
    return std::nullopt;
  }
  if (wanted(*stop)) return event_of(*stop);
  // As it was resumed, but for this thread's way over its breakpoint.
  const auto matches = [](int wanted_id, int id) { return wanted_id == -1 || wanted_id == id; };
  ResumeRecord over;
  for (const ResumeRecord &record : last_resume_) {
    if (!matches(record.pid, stop->pid) || !matches(record.tid, stop->tid)) continue;
    over = record;
    break;
  }
  over.pid = stop->pid;
  over.tid = stop->tid;
  over.step_over = 1;
  std::vector<ResumeRecord> list{over};
  // In non-stop mode the others run, or stand because gdb was told so.
  if (!non_stop_) list.insert(list.end(), last_resume_.begin(), last_resume_.end());
  for (ResumeRecord &record : list) record.signal = 0;  // delivered already
  went_on = true;
  if (!resume_as(list)) return event_of(*stop);
  return std::nullopt;
}

StopEvent UserTarget::event_of(const StopRecord &stop) {
  StopEvent event;
  event.thread = {stop.pid, stop.tid};
  event.core = stop.vcpu;
  event.signal = SIGTRAP;
  switch (stop.kind) {
    case StopKind::Signal:
      event.reason = StopReason::Signal;
      event.signal = stop.signal;
      break;
    case StopKind::Breakpoint:
      event.reason = StopReason::SoftBreakpoint;
      event.address = stop.address;
      break;
    case StopKind::Step:
      event.reason = StopReason::StepDone;
      break;
    case StopKind::SyscallEntry:
    case StopKind::SyscallReturn:
      event.reason = stop.kind == StopKind::SyscallEntry ? StopReason::SyscallEntry
                                                         : StopReason::SyscallReturn;
      event.number = static_cast<std::int64_t>(stop.number);
      break;
    case StopKind::Fork:
    case StopKind::Vfork:
      event.reason = stop.kind == StopKind::Fork ? StopReason::Fork : StopReason::Vfork;
      event.child = {stop.child, stop.child};
      processes_.insert(stop.child);
      for (const auto &[key, conditions] : std::map(conditions_)) {
        if (key.first == stop.pid) conditions_[{stop.child, key.second}] = conditions;
      }
      break;
    case StopKind::VforkDone:
      event.reason = StopReason::VforkDone;
      break;
    case StopKind::Exec:
      event.reason = StopReason::Exec;
      event.path = executable(stop.pid).value_or("");
      std::erase_if(conditions_, [&](const auto &entry) { return entry.first.first == stop.pid; });
      break;
    case StopKind::ThreadCreated:
      event.reason = StopReason::ThreadCreated;
      break;
    case StopKind::ThreadExited:
      event.reason = StopReason::ThreadExited;
      break;
    case StopKind::ProcessExited: {
      const auto status = static_cast<int>(stop.number);
      const int signal = status & 0x7f;
      event.reason = signal == 0 ? StopReason::ProcessExited : StopReason::ProcessKilled;
      event.number = (status >> 8) & 0xff;
      event.signal = signal;
      forget(stop.pid);
      break;
    }
    case StopKind::Requested:
      event.reason = StopReason::Interrupted;
      event.signal = 0;
      break;
  }
  return event;
}

// --- registers and memory

Result<Registers> UserTarget::read_registers(std::int64_t tid) {
  Result<AgentClient::Bytes> bytes = agent_->call(Command::GetRegisters, of_thread(tid));
  for (int i = 0; i < kTries && bytes.is(Errno::Busy); ++i) {
    ::usleep(kPauseUs);
    bytes = agent_->call(Command::GetRegisters, of_thread(tid));
  }
  if (!bytes) return Err(bytes.error());
  abi::UserRegs regs;
  if (bytes->size() < sizeof(regs)) return Err(Errno::Proto);
  std::memcpy(&regs, bytes->data(), sizeof(regs));
  Registers out;
  for (std::size_t i = 0; i < kRegCount; ++i) {
    out.set(static_cast<Reg>(i), regs.*kGuestRegisters[i]);
  }
  out.xstate.assign(bytes->begin() + sizeof(regs), bytes->end());
  return out;
}

Result<void> UserTarget::write_registers(std::int64_t tid, const Registers &registers) {
  const Registers now = TRY(read_registers(tid));
  abi::UserRegs regs{};
  for (std::size_t i = 0; i < kRegCount; ++i) {
    const Reg reg = static_cast<Reg>(i);
    regs.*kGuestRegisters[i] = registers.has(reg) ? registers.get(reg) : now.get(reg);
  }
  std::vector<std::byte> bytes(sizeof(regs));
  std::memcpy(bytes.data(), &regs, sizeof(regs));
  bytes.insert(bytes.end(), registers.xstate.begin(), registers.xstate.end());
  changed(still_);  // it may have come out of a system call
  TRY(agent_->call(Command::SetRegisters, of_thread(tid), {}, bytes));
  return {};
}

Result<std::size_t> UserTarget::read_memory(std::int64_t pid, std::uint64_t address,
                                            std::span<std::byte> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const std::size_t count = std::min(out.size() - done, debug_agent::kMaxTransfer);
    const auto bytes = agent_->call(Command::ReadMemory, at(pid, address + done, count));
    if (!bytes && done == 0) return Err(bytes.error());
    if (!bytes || bytes->size() > count) break;
    std::copy(bytes->begin(), bytes->end(), out.begin() + static_cast<std::ptrdiff_t>(done));
    done += bytes->size();
    if (bytes->size() < count) break;
  }
  return done;
}

Result<std::size_t> UserTarget::write_memory(std::int64_t pid, std::uint64_t address,
                                             std::span<const std::byte> data) {
  std::size_t done = 0;
  while (done < data.size()) {
    const auto piece = data.subspan(done, std::min(data.size() - done, debug_agent::kMaxTransfer));
    const auto bytes = agent_->call(Command::WriteMemory, at(pid, address + done), {}, piece);
    if (!bytes && done == 0) return Err(bytes.error());
    const auto count = bytes ? records<std::uint64_t>(*bytes) : std::vector<std::uint64_t>{};
    if (count.empty() || count.front() == 0) break;
    done += std::min<std::size_t>(count.front(), piece.size());
    if (count.front() < piece.size()) break;
  }
  return done;
}

Result<void> UserTarget::insert_breakpoint(const Breakpoint &breakpoint) {
  const auto done = agent_->call(Command::InsertBreakpoint, at(breakpoint.pid, breakpoint.address));
  // After a fork the child has its parent's.
  if (!done && !done.is(Errno::Exist)) return Err(done.error());
  if (breakpoint.conditions.empty()) {
    conditions_.erase({breakpoint.pid, breakpoint.address});
  } else {
    conditions_[{breakpoint.pid, breakpoint.address}] = breakpoint.conditions;
  }
  return {};
}

Result<void> UserTarget::remove_breakpoint(const Breakpoint &breakpoint) {
  conditions_.erase({breakpoint.pid, breakpoint.address});
  TRY(agent_->call(Command::RemoveBreakpoint, at(breakpoint.pid, breakpoint.address)));
  return {};
}

Result<void> UserTarget::catch_syscalls(std::int64_t pid, bool on,
                                        std::span<const std::int64_t> numbers) {
  RequestFields fields = of_process(pid);
  fields.flags = on ? 1 : 0;
  const std::vector<std::uint64_t> list(numbers.begin(), numbers.end());
  TRY(agent_->call(Command::CatchSyscalls, fields, list));
  return {};
}

Result<void> UserTarget::pass_signals(std::span<const int> signals) {
  RequestFields fields;
  for (const int signal : signals) {
    if (signal >= 1 && signal <= 64) fields.address |= std::uint64_t{1} << (signal - 1);
  }
  TRY(agent_->call(Command::PassSignals, fields));
  return {};
}

Result<void> UserTarget::report(bool threads, bool forks, bool execs) {
  RequestFields fields;
  fields.flags = (threads ? std::uint32_t{debug_agent::kThreadEvents} : 0u) |
                 (forks ? std::uint32_t{debug_agent::kForkEvents} : 0u) |
                 (execs ? std::uint32_t{debug_agent::kExecEvents} : 0u);
  TRY(agent_->call(Command::SetOptions, fields));
  return {};
}

// --- what gdb reads to find symbols

Result<std::string> UserTarget::executable(std::int64_t pid) {
  const auto bytes = TRY(agent_->call(Command::Executable, of_process(pid)));
  return std::string(reinterpret_cast<const char *>(bytes.data()), bytes.size());
}

Result<std::vector<std::byte>> UserTarget::auxv(std::int64_t pid) {
  return agent_->call(Command::Auxv, of_process(pid));
}

Result<std::uint64_t> UserTarget::word(std::int64_t pid, std::uint64_t address) {
  std::uint64_t value = 0;
  const auto out = std::as_writable_bytes(std::span(&value, 1));
  if (TRY(read_memory(pid, address, out)) != out.size()) return Err(Errno::Fault);
  return value;
}

Result<std::string> UserTarget::string_at(std::int64_t pid, std::uint64_t address) {
  std::array<std::byte, kMaxName> bytes;
  const std::size_t got = TRY(read_memory(pid, address, bytes));
  const auto *text = reinterpret_cast<const char *>(bytes.data());
  return std::string(text, ::strnlen(text, got));
}

// The value of an entry of the program's dynamic section, found by the program headers that the
// auxiliary vector points to (ELF gABI; elf(5)). NoEnt: it has none.
Result<std::uint64_t> UserTarget::dynamic_entry(std::int64_t pid, std::int64_t tag) {
  constexpr std::uint64_t kAtPhdr = 3, kAtPhnum = 5, kPtDynamic = 2, kPtPhdr = 6;
  constexpr std::uint64_t kHeaderSize = 56, kMostHeaders = 64, kMostEntries = 512;
  std::uint64_t table = 0, count = 0;
  const auto words = records<std::array<std::uint64_t, 2>>(TRY(auxv(pid)));
  for (const auto &[type, value] : words) {
    if (type == kAtPhdr) table = value;
    if (type == kAtPhnum) count = std::min(value, kMostHeaders);
  }
  std::uint64_t bias = 0, dynamic = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t header = table + i * kHeaderSize;
    const std::uint64_t type = TRY(word(pid, header)) & 0xffffffff;
    const std::uint64_t address = TRY(word(pid, header + 16));
    if (type == kPtPhdr) bias = table - address;
    if (type == kPtDynamic) dynamic = address;
  }
  if (dynamic == 0) return Err(Errno::NoEnt);
  for (std::uint64_t i = 0; i < kMostEntries; ++i) {
    const std::uint64_t entry = bias + dynamic + i * 16;
    const auto found = static_cast<std::int64_t>(TRY(word(pid, entry)));
    if (found == tag) return word(pid, entry + 8);
    if (found == 0) break;
  }
  return Err(Errno::NoEnt);
}

// The dynamic linker's list (struct r_debug and struct link_map of <link.h>). The first entry, the
// program itself, has an empty name.
Result<std::vector<Library>> UserTarget::libraries(std::int64_t pid) {
  constexpr std::int64_t kDtDebug = 21;
  const auto debug = dynamic_entry(pid, kDtDebug);
  std::vector<Library> list;
  if (!debug || *debug == 0) return list;  // static, or the linker has not begun
  auto map = word(pid, *debug + 8);
  while (map && *map != 0 && list.size() < kMaxLibraries) {
    std::array<std::uint64_t, 4> entry{};  // l_addr, l_name, l_ld, l_next
    const auto out = std::as_writable_bytes(std::span(entry));
    const auto got = read_memory(pid, *map, out);
    if (!got || *got != out.size()) break;
    Library library;
    library.link_map = *map;
    library.base = entry[0];
    library.dynamic = entry[2];
    library.name = entry[1] != 0 ? string_at(pid, entry[1]).value_or("") : "";
    list.push_back(std::move(library));
    map = entry[3];
  }
  return list;
}

Result<std::vector<std::byte>> UserTarget::siginfo(std::int64_t tid) {
  return agent_->call(Command::GetSignalInfo, of_thread(tid));
}

Result<void> UserTarget::set_siginfo(std::int64_t tid, std::span<const std::byte> data) {
  TRY(agent_->call(Command::SetSignalInfo, of_thread(tid), {}, data));
  return {};
}

Result<std::unique_ptr<TargetFile>> UserTarget::open_file(std::int64_t pid,
                                                          const std::string &path) {
  const auto bytes = TRY(agent_->call(Command::OpenFile, of_process(pid), {},
                                      std::as_bytes(std::span(path.data(), path.size()))));
  const auto handle = records<std::uint64_t>(bytes);
  if (handle.empty()) return Err(Errno::Proto);
  return std::unique_ptr<TargetFile>(std::make_unique<GuestFile>(agent_, handle.front()));
}

Result<std::string> UserTarget::read_link(std::int64_t pid, const std::string &path) {
  const auto bytes = TRY(agent_->call(Command::ReadLink, of_process(pid), {},
                                      std::as_bytes(std::span(path.data(), path.size()))));
  return std::string(reinterpret_cast<const char *>(bytes.data()), bytes.size());
}

}  // namespace cowbird::debug
