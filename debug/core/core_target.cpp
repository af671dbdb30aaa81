#include "debug/core/core_target.hpp"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "debug/target/host_file.hpp"

namespace cowbird::debug {
namespace {

constexpr unsigned kMaxHeaders = 64;
constexpr unsigned kMaxDynamic = 256;
constexpr unsigned kMaxLibraries = 1024;
constexpr std::size_t kMaxName = 4096;

Registers from_host(const CoreThread &thread) {
  const user_regs_struct &r = thread.registers;
  const std::pair<Reg, std::uint64_t> values[] = {
      {Reg::Rax, r.rax},        {Reg::Rbx, r.rbx},        {Reg::Rcx, r.rcx},
      {Reg::Rdx, r.rdx},        {Reg::Rsi, r.rsi},        {Reg::Rdi, r.rdi},
      {Reg::Rbp, r.rbp},        {Reg::Rsp, r.rsp},        {Reg::R8, r.r8},
      {Reg::R9, r.r9},          {Reg::R10, r.r10},        {Reg::R11, r.r11},
      {Reg::R12, r.r12},        {Reg::R13, r.r13},        {Reg::R14, r.r14},
      {Reg::R15, r.r15},        {Reg::Rip, r.rip},        {Reg::Eflags, r.eflags},
      {Reg::Cs, r.cs},          {Reg::Ss, r.ss},          {Reg::Ds, r.ds},
      {Reg::Es, r.es},          {Reg::Fs, r.fs},          {Reg::Gs, r.gs},
      {Reg::FsBase, r.fs_base}, {Reg::GsBase, r.gs_base}, {Reg::OrigRax, r.orig_rax}};
  Registers out;
  for (const auto &[reg, value] : values) out.set(reg, value);
  out.xstate = thread.xstate;
  return out;
}

}  // namespace

std::unique_ptr<CoreTarget> CoreTarget::open(const std::string &path, const std::string &program,
                                             std::string &why) {
  auto core = CoreFile::open(path, why);
  if (!core) return nullptr;
  std::unique_ptr<CoreTarget> target(new CoreTarget);
  target->path_ = path;
  target->core_ = std::move(*core);
  target->event_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  target->find_program(program);
  target->open_view();
  target->place_threads();
  return target;
}

Result<void> CoreTarget::refuse() {
  words_ = "This is a core file: it can be looked at, and nothing in it runs or changes.";
  return Err(Errno::OpNotSupp);
}

std::string CoreTarget::summary() const {
  std::string text = fmt::format("core file of guest kernel process {}", core_->property("pid"));
  if (const std::string panic = core_->property("panic"); !panic.empty()) {
    text += fmt::format("\nguest kernel panic: {}", panic);
  }
  if (core_->truncated()) text += "\nThe file is cut: not all memory is in it.";
  if (!view_) text += "\n" + words_;
  return text;
}

void CoreTarget::find_program(const std::string &program) {
  program_ = program.empty() ? core_->property("program") : program;
  const std::uint64_t headers = core_->auxv_value(AT_PHDR);
  const std::uint64_t count = std::min<std::uint64_t>(core_->auxv_value(AT_PHNUM), kMaxHeaders);
  std::uint64_t dynamic = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    Elf64_Phdr header{};
    const auto out = std::as_writable_bytes(std::span(&header, 1));
    if (!core_->read(headers + i * sizeof header, out)) break;
    if (header.p_type == PT_PHDR) base_ = headers - header.p_vaddr;
    if (header.p_type == PT_DYNAMIC) dynamic = header.p_vaddr;
  }
  if (dynamic != 0) dynamic_ = base_ + dynamic;
  if (!program_.empty()) return;
  for (const CoreMapping &mapping : core_->mappings()) {
    if (headers >= mapping.start && headers < mapping.end) program_ = mapping.path;
  }
}

void CoreTarget::open_view() {
  std::string why;
  auto opened = KernelView::open(*core_, program_, base_, why);
  if (opened && (*opened)->refresh()) {
    view_ = std::move(*opened);
  } else {
    words_ = why.empty() ? "The kernel's structures are not in the core file." : why;
    words_ += " Only host threads are shown.";
  }
}

// By the stack, since a vCPU's `current` changes shortly before its stack does. The handler of a
// fault runs on another stack; then `current` is right.
void CoreTarget::place_threads() {
  if (!view_) return;
  for (const CoreThread &host : core_->threads()) {
    const KernelThread *thread = view_->find_by_stack(host.registers.rsp);
    for (const VcpuState &vcpu : view_->vcpus()) {
      if (thread || vcpu.pthread != host.registers.fs_base || vcpu.current == 0) continue;
      const auto &all = view_->threads();
      const auto named = std::find_if(
          all.begin(), all.end(), [&](const KernelThread &t) { return t.address == vcpu.current; });
      // While it idles or changes threads it is on its own stack, next to where that was saved.
      constexpr std::uint64_t kReach = 64ul * 1024;
      const std::uint64_t rsp = host.registers.rsp;
      const bool on_own_stack = rsp + kReach > vcpu.idle_rsp && rsp < vcpu.idle_rsp + kReach;
      if (named != all.end() && !on_own_stack) thread = &*named;
    }
    if (!thread || carrier_.contains(thread->tid)) continue;
    carrier_[thread->tid] = &host;
    carried_[host.tid] = thread->tid;
  }
}

const CoreThread *CoreTarget::host_thread(std::int64_t tid) const {
  const auto &all = core_->threads();
  const auto found = std::find_if(all.begin(), all.end(), [tid](const CoreThread &thread) {
    return kHostTidBase + thread.tid == tid;
  });
  return found == all.end() ? nullptr : &*found;
}

std::string CoreTarget::host_name(const CoreThread &thread) const {
  const std::string name = core_->property(fmt::format("name.{}", thread.tid));
  return (name.empty() ? "host thread" : name) + " (host)";
}

std::vector<ThreadInfo> CoreTarget::threads() {
  std::vector<ThreadInfo> list;
  if (view_) {
    for (const KernelThread &thread : view_->threads()) {
      ThreadInfo info{{kKernelPid, thread.tid}, thread.name, describe_state(thread), thread.vcpu};
      if (thread.pid > 0) info.name = fmt::format("{}/{}", thread.name, thread.guest_tid);
      if (thread.syscall && !thread.in_user) {
        info.detail += ", system call " + view_->system_call_name(*thread.syscall);
      }
      list.push_back(std::move(info));
    }
  }
  for (const CoreThread &thread : core_->threads()) {
    ThreadInfo info{{kKernelPid, kHostTidBase + thread.tid}, host_name(thread), "host thread", -1};
    const auto carried = carried_.find(thread.tid);
    const KernelThread *const on_it =
        carried == carried_.end() ? nullptr : view_->find(carried->second);
    if (on_it) info.detail += ", carries " + on_it->name;
    list.push_back(std::move(info));
  }
  return list;
}

bool CoreTarget::is_alive(ThreadId id) {
  if (id.pid != kKernelPid) return false;
  return host_thread(id.tid) != nullptr || (view_ && view_->find(id.tid) != nullptr);
}

ThreadId CoreTarget::current_thread() {
  const CoreThread &first = core_->threads().front();
  const auto carried = carried_.find(first.tid);
  return {kKernelPid, carried == carried_.end() ? kHostTidBase + first.tid : carried->second};
}

Result<Registers> CoreTarget::read_registers(ThreadId id) {
  if (id.pid != kKernelPid) return Err(Errno::Srch);
  if (const CoreThread *host = host_thread(id.tid)) {
    if (!carried_.contains(host->tid)) return from_host(*host);
    for (const VcpuState &vcpu : view_->vcpus()) {
      if (vcpu.pthread == host->registers.fs_base) return view_->idle_registers(vcpu);
    }
    return from_host(*host);
  }
  const auto carrier = carrier_.find(id.tid);
  if (carrier != carrier_.end()) return from_host(*carrier->second);
  const KernelThread *thread = view_ ? view_->find(id.tid) : nullptr;
  if (!thread) return Err(Errno::Srch);
  KernelThread saved = *thread;
  // One that was about to leave or enter its vCPU is called Running, but lies saved.
  if (saved.state == KernelThreadState::Running) saved.state = KernelThreadState::Ready;
  return view_->saved_registers(saved);
}

Result<std::size_t> CoreTarget::read_memory(std::int64_t pid, std::uint64_t address,
                                            std::span<std::byte> out) {
  if (pid != kKernelPid) return Err(Errno::Srch);
  return core_->read_some(address, out);
}

Result<std::size_t> CoreTarget::write_memory(std::int64_t, std::uint64_t,
                                             std::span<const std::byte>) {
  return Err(refuse().error());
}

Result<void> CoreTarget::attach_process(std::int64_t pid) {
  if (pid == kKernelPid) return {};
  words_ = "Guest processes cannot be attached in a core file; `monitor ps` lists them.";
  return Err(Errno::OpNotSupp);
}

Result<void> CoreTarget::detach_process(std::int64_t pid) {
  if (pid != kKernelPid) return Err(Errno::Srch);
  return {};
}

Result<std::string> CoreTarget::executable(std::int64_t pid) {
  if (pid != kKernelPid || program_.empty()) return Err(Errno::NoEnt);
  return program_;
}

Result<std::vector<std::byte>> CoreTarget::auxv(std::int64_t pid) {
  if (pid != kKernelPid) return Err(Errno::Srch);
  const auto bytes = core_->auxv();
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

Result<std::vector<Library>> CoreTarget::libraries(std::int64_t pid) {
  if (pid != kKernelPid) return Err(Errno::Srch);
  std::vector<Library> list;
  const auto load = [this]<typename T>(std::uint64_t address, T &out) {
    return core_->read(address, std::as_writable_bytes(std::span(&out, 1))).ok();
  };
  std::uint64_t debug = 0;
  for (unsigned i = 0; dynamic_ != 0 && i < kMaxDynamic; ++i) {
    Elf64_Dyn entry{};
    if (!load(dynamic_ + i * sizeof entry, entry) || entry.d_tag == DT_NULL) break;
    if (entry.d_tag == DT_DEBUG) debug = entry.d_un.d_ptr;
  }
  std::uint64_t place = 0;
  if (debug == 0 || !load(debug + offsetof(r_debug, r_map), place)) return list;
  for (unsigned i = 0; place != 0 && i < kMaxLibraries; ++i) {
    link_map entry{};
    if (!load(place, entry)) break;
    std::string name(kMaxName, '\0');
    const auto got = core_->read_some(reinterpret_cast<std::uint64_t>(entry.l_name),
                                      std::as_writable_bytes(std::span(name)));
    name.resize(got ? ::strnlen(name.c_str(), *got) : 0);
    list.push_back(
        {std::move(name), place, entry.l_addr, reinterpret_cast<std::uint64_t>(entry.l_ld)});
    place = reinterpret_cast<std::uint64_t>(entry.l_next);
  }
  return list;
}

Result<std::uint64_t> CoreTarget::tls_address(ThreadId, std::uint64_t, std::uint64_t) {
  words_ = "Thread-local variables are not found in core files.";
  return Err(Errno::OpNotSupp);
}

Result<std::unique_ptr<TargetFile>> CoreTarget::open_file(std::int64_t pid,
                                                          const std::string &path) {
  if (pid != 0 && pid != kKernelPid) return Err(Errno::NoEnt);
  return HostFile::open(path);
}

Result<std::string> CoreTarget::read_link(std::int64_t pid, const std::string &path) {
  if (pid != 0 && pid != kKernelPid) return Err(Errno::NoEnt);
  std::array<char, kMaxName> buffer;
  const ssize_t length = ::readlink(path.c_str(), buffer.data(), buffer.size());
  if (length < 0) return Err(errno_from_host(errno));
  return std::string(buffer.data(), static_cast<std::size_t>(length));
}

}  // namespace cowbird::debug
