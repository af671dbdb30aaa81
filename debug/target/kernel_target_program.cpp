// KernelTarget: the program that the kernel's process runs, its libraries and plugins, and the
// files that gdb wants to read about them.
#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "debug/target/host_file.hpp"
#include "debug/target/kernel_target.hpp"

namespace cowbird::debug {
namespace {

constexpr unsigned kMaxLoaded = 1024;
constexpr unsigned kMaxProgramHeaders = 64;
constexpr unsigned kMaxDynamicEntries = 256;
constexpr std::size_t kMaxPath = 4096;

std::string host_link_target(const std::string &path) {
  std::array<char, PATH_MAX> buffer;
  const ssize_t length = ::readlink(path.c_str(), buffer.data(), buffer.size());
  return {buffer.data(), length > 0 ? static_cast<std::size_t>(length) : 0};
}

bool same_file(const std::string &a, const std::string &b) {
  struct stat one {
  }, other{};
  return ::stat(a.c_str(), &one) == 0 && ::stat(b.c_str(), &other) == 0 &&
         one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

}  // namespace

// Path, entry, load address.
void KernelTarget::find_program() {
  const std::string running = fmt::format("/proc/{}/exe", pid_);
  program_ = host_link_target(running);
  // The file of that name is another one now, or gone: whoever builds anew while a guest runs. The
  // host keeps the one that runs.
  if (!same_file(program_, running)) program_ = running;
  entry_ = auxv_value(AT_ENTRY);
  const std::uint64_t headers = auxv_value(AT_PHDR);
  base_ = 0;
  const std::uint64_t count = std::min<std::uint64_t>(auxv_value(AT_PHNUM), kMaxProgramHeaders);
  for (std::uint64_t i = 0; i < count; ++i) {
    Elf64_Phdr header{};
    if (!read(headers + i * sizeof header, std::as_writable_bytes(std::span(&header, 1)))) break;
    if (header.p_type == PT_PHDR) base_ = headers - header.p_vaddr;
  }
}

// The kernel has room for it. In another program _init has run when a debugger comes, and runs
// once. (gdb itself borrows _start.)
void KernelTarget::find_places() {
  const std::uint64_t room = view_ ? view_->symbol("cowbird_debug_room") : 0;
  if (room != 0) {
    places_ = StepPlaces::in_room(room);
    return;
  }
  std::uint64_t where = dynamic_value(DT_INIT);
  if (where != 0 && where < base_) where += base_;
  if (where == 0) where = entry_ + 20;  // behind what gdb borrows for one thread
  places_ = StepPlaces::over_code(*tracee_, where);
}

std::uint64_t KernelTarget::auxv_value(std::uint64_t type) {
  auto result = auxv(kKernelPid);
  if (!result) return 0;
  const std::vector<std::byte> &bytes = *result;
  Elf64_auxv_t entry{};
  for (std::size_t at = 0; at + sizeof entry <= bytes.size(); at += sizeof entry) {
    std::memcpy(&entry, bytes.data() + at, sizeof entry);
    if (entry.a_type == type) return entry.a_un.a_val;
  }
  return 0;
}

// A value of the program's dynamic section; 0: it has none.
std::uint64_t KernelTarget::dynamic_value(std::int64_t tag) {
  const std::uint64_t headers = auxv_value(AT_PHDR);
  const std::uint64_t count = std::min<std::uint64_t>(auxv_value(AT_PHNUM), kMaxProgramHeaders);
  for (std::uint64_t i = 0; i < count; ++i) {
    Elf64_Phdr header{};
    if (!read(headers + i * sizeof header, std::as_writable_bytes(std::span(&header, 1)))) break;
    if (header.p_type != PT_DYNAMIC) continue;
    for (unsigned k = 0; k < kMaxDynamicEntries; ++k) {
      Elf64_Dyn dynamic{};
      const std::uint64_t where = base_ + header.p_vaddr + k * sizeof dynamic;
      if (!read(where, std::as_writable_bytes(std::span(&dynamic, 1)))) return 0;
      if (dynamic.d_tag == DT_NULL) return 0;
      if (dynamic.d_tag == tag) return dynamic.d_un.d_val;
    }
  }
  return 0;
}

// Where the dynamic linker stops for debuggers when libraries come and go.
void KernelTarget::find_linker() {
  linker_ = 0;
  const std::uint64_t where = dynamic_value(DT_DEBUG);
  if (where == 0) return;
  linker_ = word(where + offsetof(r_debug, r_brk)).value_or(0);
}

// The list of libraries is whole, not about to be changed.
bool KernelTarget::libraries_settled() {
  const std::uint64_t where = dynamic_value(DT_DEBUG);
  int state = r_debug::RT_CONSISTENT;
  return where != 0 &&
         read(where + offsetof(r_debug, r_state), std::as_writable_bytes(std::span(&state, 1))) &&
         state == r_debug::RT_CONSISTENT;
}

Result<std::string> KernelTarget::executable(std::int64_t pid) {
  if (!attached() || pid != kKernelPid) return Err(Errno::Srch);
  if (program_.empty()) return Err(Errno::NoEnt);
  return program_;
}

Result<std::vector<std::byte>> KernelTarget::auxv(std::int64_t pid) {
  if (pid != kKernelPid) return Err(Errno::Srch);
  const UniqueFd fd(::open(fmt::format("/proc/{}/auxv", pid_).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Err(errno_from_host(errno));
  std::vector<std::byte> bytes(4096);
  const ssize_t got = ::read(fd.get(), bytes.data(), bytes.size());
  if (got < 0) return Err(errno_from_host(errno));
  bytes.resize(static_cast<std::size_t>(got));
  return bytes;
}

Result<std::vector<Library>> KernelTarget::libraries(std::int64_t pid) {
  if (!attached() || pid != kKernelPid) return Err(Errno::Srch);
  std::vector<Library> list;
  const std::uint64_t debug = dynamic_value(DT_DEBUG);
  if (debug == 0) return list;  // linked statically, or not started yet
  std::uint64_t at = word(debug + offsetof(r_debug, r_map)).value_or(0);
  for (unsigned i = 0; at != 0 && i < kMaxLoaded; ++i) {
    link_map entry{};
    if (!read(at, std::as_writable_bytes(std::span(&entry, 1)))) break;
    std::string name(kMaxPath, '\0');
    const auto got = read_memory(kKernelPid, reinterpret_cast<std::uint64_t>(entry.l_name),
                                 std::as_writable_bytes(std::span(name)));
    name.resize(got.ok() ? ::strnlen(name.c_str(), name.size()) : 0);
    // The first is the program itself, which has no name; so has the host's vDSO.
    list.push_back({name, at, entry.l_addr, reinterpret_cast<std::uint64_t>(entry.l_ld)});
    at = reinterpret_cast<std::uint64_t>(entry.l_next);
  }
  return list;
}

Result<std::vector<std::byte>> KernelTarget::siginfo(ThreadId id) {
  const auto place = attached() ? place_of(id.tid) : std::nullopt;
  if (!place || place->host == 0) return Err(Errno::Srch);
  const siginfo_t info = TRY(tracee_->signal_info(place->host));
  const auto bytes = std::as_bytes(std::span(&info, 1));
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

Result<void> KernelTarget::set_siginfo(ThreadId id, std::span<const std::byte> data) {
  const auto place = attached() ? place_of(id.tid) : std::nullopt;
  if (!place || place->host == 0) return Err(Errno::Srch);
  siginfo_t info{};
  if (data.size() > sizeof info) return Err(Errno::Inval);
  std::memcpy(&info, data.data(), data.size());
  return tracee_->set_signal_info(place->host, info);
}

// Variables of the program itself lie below the thread pointer (ELF TLS, variant II). Those of
// libraries need the dynamic linker's private tables.
Result<std::uint64_t> KernelTarget::tls_address(ThreadId id, std::uint64_t offset,
                                                std::uint64_t link_map_address) {
  const Registers registers = TRY(read_registers(id));
  if (!registers.has(Reg::FsBase)) {
    words_ =
        "A kernel thread that is not on a vCPU has no thread-local variables: they are the host "
        "thread's.";
    return Err(Errno::NoData);
  }
  auto loaded = libraries(kKernelPid);
  if (!loaded || loaded->empty() || loaded->front().link_map != link_map_address) {
    words_ =
        "Thread-local variables can be found for the kernel's program only, not for libraries.";
    return Err(Errno::OpNotSupp);
  }
  const std::uint64_t headers = auxv_value(AT_PHDR);
  const std::uint64_t count = std::min<std::uint64_t>(auxv_value(AT_PHNUM), kMaxProgramHeaders);
  for (std::uint64_t i = 0; i < count; ++i) {
    Elf64_Phdr header{};
    if (!read(headers + i * sizeof header, std::as_writable_bytes(std::span(&header, 1)))) break;
    if (header.p_type != PT_TLS) continue;
    const std::uint64_t align = std::max<std::uint64_t>(header.p_align, 1);
    const std::uint64_t size = (header.p_memsz + align - 1) / align * align;
    return registers.get(Reg::FsBase) - size + offset;
  }
  return Err(Errno::NoEnt);
}

// gdb looks into /proc with the numbers that it was given: `info proc`, and the maps for the vDSO's
// symbols. There the host's stand. A kernel thread has no folder of its own, the kernel's main
// thread stands for it.
static std::string host_path(const std::string &path, pid_t pid) {
  const auto process = fmt::format("/proc/{}/", kKernelPid);
  if (!path.starts_with(process)) return path;
  auto rest = path.substr(process.size());
  constexpr std::string_view kTask = "task/";
  if (rest.starts_with(kTask)) {
    const auto end = rest.find('/', kTask.size());
    const auto tid = std::strtoll(rest.c_str() + kTask.size(), nullptr, 10);
    const auto tail = end == std::string::npos ? std::string() : rest.substr(end);
    rest = fmt::format("task/{}{}", tid > kHostTidBase ? tid - kHostTidBase : pid, tail);
  }
  return fmt::format("/proc/{}/{}", pid, rest);
}

Result<std::unique_ptr<TargetFile>> KernelTarget::open_file(std::int64_t pid,
                                                            const std::string &name) {
  if (pid != 0 && pid != kKernelPid) return Err(Errno::NoEnt);
  return HostFile::open(host_path(name, pid_));
}

Result<std::string> KernelTarget::read_link(std::int64_t pid, const std::string &path) {
  if (pid != 0 && pid != kKernelPid) return Err(Errno::NoEnt);
  std::string target = host_link_target(host_path(path, pid_));
  if (target.empty()) return Err(errno_from_host(errno));
  return target;
}

}  // namespace cowbird::debug
