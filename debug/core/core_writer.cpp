#include "debug/core/core_writer.hpp"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <vector>

#include "base/unique_fd.hpp"
#include "debug/core/core_file.hpp"
#include "debug/host/tracee.hpp"

namespace cowbird::debug {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::size_t kChunk = 1 << 20;
constexpr std::size_t kHole = 1 << 16;  // zeroes of this length are left out of the file
constexpr std::string_view kGuestMemory = "/memfd:cowbird-memory";

struct Area {
  std::uint64_t start = 0, end = 0, file_offset = 0;
  unsigned flags = 0;  // PF_R ...
  bool shared = false;
  std::string path;  // of a file; or a name in brackets
  bool dumped = true;
  std::uint64_t at = 0;  // in the core
};

// The first line of a mapping in /proc/PID/smaps; false for one of the lines about it.
bool parse_area(const std::string &line, bool guest_memory, Area &area) {
  char access[8] = "";
  unsigned long long start = 0, end = 0, offset = 0, inode = 0;
  int name_at = 0;
  if (std::sscanf(line.c_str(), "%llx-%llx %7s %llx %*s %llu %n", &start, &end, access, &offset,
                  &inode, &name_at) < 5) {
    return false;
  }
  area.start = start;
  area.end = end;
  area.file_offset = offset;
  if (access[0] == 'r') area.flags |= PF_R;
  if (access[1] == 'w') area.flags |= PF_W;
  if (access[2] == 'x') area.flags |= PF_X;
  area.shared = access[3] == 's';
  if (name_at > 0) area.path = line.substr(static_cast<std::size_t>(name_at));
  const bool is_guest_memory = area.path.starts_with(kGuestMemory);
  area.dumped = (area.flags & PF_R) != 0 && (guest_memory || !is_guest_memory) &&
                area.path != "[vvar]" && area.path != "[vsyscall]" &&
                !area.path.starts_with("/dev/");
  return true;
}

std::vector<Area> read_areas(pid_t pid, bool guest_memory) {
  std::vector<Area> areas;
  std::ifstream maps(fmt::format("/proc/{}/smaps", pid));
  for (std::string line; std::getline(maps, line);) {
    Area area;
    if (parse_area(line, guest_memory, area)) {
      areas.push_back(std::move(area));
    } else if (!areas.empty() && line.starts_with("VmFlags:") &&
               line.find(" dd") != std::string::npos) {
      areas.back().dumped = false;  // MADV_DONTDUMP, as a sanitizer's terabytes of shadow
    }
  }
  return areas;
}

class Notes {
 public:
  void add(const char *name, std::uint32_t type, std::span<const std::byte> data) {
    Elf64_Nhdr header{static_cast<Elf64_Word>(std::strlen(name) + 1),
                      static_cast<Elf64_Word>(data.size()), type};
    append(std::as_bytes(std::span(&header, 1)));
    append(std::as_bytes(std::span(name, header.n_namesz)));
    append(data);
  }
  template <typename T>
  void add_object(const char *name, std::uint32_t type, const T &object) {
    add(name, type, std::as_bytes(std::span(&object, 1)));
  }
  const std::vector<std::byte> &bytes() const { return bytes_; }

 private:
  void append(std::span<const std::byte> data) {
    bytes_.insert(bytes_.end(), data.begin(), data.end());
    bytes_.resize((bytes_.size() + 3) & ~std::size_t{3});
  }
  std::vector<std::byte> bytes_;
};

std::vector<std::byte> small_file(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::string link_target(const std::string &path) {
  std::array<char, 4096> buffer;
  const ssize_t length = ::readlink(path.c_str(), buffer.data(), buffer.size());
  return {buffer.data(), length > 0 ? static_cast<std::size_t>(length) : 0};
}

void add_thread(Notes &notes, Tracee &tracee, pid_t tid, int signal) {
  const user_regs_struct *registers = tracee.registers(tid);
  if (!registers) return;
  elf_prstatus status{};
  status.pr_pid = tid;
  status.pr_cursig = static_cast<short>(signal);
  std::memcpy(&status.pr_reg, registers, sizeof *registers);
  notes.add_object("CORE", NT_PRSTATUS, status);
  const auto xstate = tracee.xstate(tid);
  constexpr std::size_t kLegacy = sizeof(user_fpregs_struct);
  if (!xstate || xstate->size() < kLegacy) return;
  notes.add("CORE", NT_FPREGSET, std::span(*xstate).first(kLegacy));
  notes.add("LINUX", NT_X86_XSTATE, *xstate);
}

std::vector<std::byte> file_note(const std::vector<Area> &areas) {
  std::vector<std::uint64_t> numbers = {0, kPage};
  std::string names;
  for (const Area &area : areas) {
    if (area.path.empty() || area.path[0] != '/') continue;
    ++numbers[0];
    numbers.insert(numbers.end(), {area.start, area.end, area.file_offset / kPage});
    names += area.path;
    names += '\0';
  }
  const auto head = std::as_bytes(std::span(numbers));
  const auto tail = std::as_bytes(std::span(names));
  std::vector<std::byte> bytes(head.begin(), head.end());
  bytes.insert(bytes.end(), tail.begin(), tail.end());
  return bytes;
}

std::string own_note(pid_t pid, const Tracee &tracee, const CoreOptions &options) {
  std::string panic = options.panic;
  std::replace(panic.begin(), panic.end(), '\n', ' ');
  std::string text =
      fmt::format("format=1\npid={}\nprogram={}\npanic={}\nthread={}\n", pid,
                  link_target(fmt::format("/proc/{}/exe", pid)), panic, options.thread);
  for (const auto &[tid, thread] : tracee.threads()) {
    text += fmt::format("name.{}={}\n", tid, thread.name);
  }
  return text;
}

Notes make_notes(pid_t pid, Tracee &tracee, const std::vector<Area> &areas,
                 const CoreOptions &options) {
  Notes notes;
  const bool known = tracee.find(options.thread) != nullptr;
  const int signal = options.panic.empty() ? 0 : SIGABRT;
  if (known) add_thread(notes, tracee, options.thread, signal);
  elf_prpsinfo info{};
  info.pr_pid = pid;
  std::strncpy(info.pr_fname, "cowbird", sizeof info.pr_fname - 1);
  std::strncpy(info.pr_psargs, "cowbird", sizeof info.pr_psargs - 1);
  for (const auto &[tid, thread] : tracee.threads()) {
    if (tid != options.thread && !thread.stray) add_thread(notes, tracee, tid, 0);
  }
  notes.add_object("CORE", NT_PRPSINFO, info);
  notes.add("CORE", NT_AUXV, small_file(fmt::format("/proc/{}/auxv", pid)));
  notes.add("CORE", NT_FILE, file_note(areas));
  const std::string own = own_note(pid, tracee, options);
  notes.add(kCoreNoteName, kCoreNoteType, std::as_bytes(std::span(own)));
  return notes;
}

// The output, at any place of the file.
class Output {
 public:
  explicit Output(int fd) : fd_(fd) {}
  bool write(std::uint64_t offset, std::span<const std::byte> data) {
    while (!data.empty()) {
      const ssize_t n = ::pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      written += static_cast<std::uint64_t>(n);
      offset += static_cast<std::uint64_t>(n);
      data = data.subspan(static_cast<std::size_t>(n));
    }
    return true;
  }
  std::uint64_t written = 0;

 private:
  int fd_;
};

bool all_zero(std::span<const std::byte> data) {
  return std::all_of(data.begin(), data.end(), [](std::byte b) { return b == std::byte{0}; });
}

bool write_area(Output &output, const Tracee &tracee, const Area &area,
                std::vector<std::byte> &buffer) {
  for (std::uint64_t place = area.start; place < area.end;) {
    const std::size_t length = std::min<std::uint64_t>(kChunk, area.end - place);
    const auto part = std::span(buffer).first(length);
    const auto got = tracee.read(place, part);
    // What cannot be read (behind a file's end) is a hole of one page.
    const std::size_t good = got ? *got : 0;
    for (std::size_t i = 0; i < good; i += kHole) {
      const auto piece = part.subspan(i, std::min(kHole, good - i));
      if (!all_zero(piece) && !output.write(area.at + (place - area.start) + i, piece))
        return false;
    }
    place += good == 0 ? kPage : good;
  }
  return true;
}

Elf64_Ehdr core_header(std::size_t parts) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_CORE;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_phoff = sizeof header;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = static_cast<Elf64_Half>(parts);
  return header;
}

bool write_all(Output &output, int fd, const Tracee &tracee, std::vector<Area> &areas,
               const Notes &notes) {
  std::vector<Elf64_Phdr> parts;
  std::uint64_t place = sizeof(Elf64_Ehdr) + (areas.size() + 1) * sizeof(Elf64_Phdr);
  Elf64_Phdr note{};
  note.p_type = PT_NOTE;
  note.p_offset = place;
  note.p_filesz = notes.bytes().size();
  note.p_align = 4;
  parts.push_back(note);
  place = (place + note.p_filesz + kPage - 1) / kPage * kPage;
  for (Area &area : areas) {
    Elf64_Phdr part{};
    part.p_type = PT_LOAD;
    part.p_flags = area.flags;
    part.p_offset = place;
    part.p_vaddr = area.start;
    part.p_memsz = area.end - area.start;
    part.p_filesz = area.dumped ? part.p_memsz : 0;
    part.p_align = kPage;
    area.at = place;
    place += part.p_filesz;
    parts.push_back(part);
  }
  const Elf64_Ehdr header = core_header(parts.size());
  if (!output.write(0, std::as_bytes(std::span(&header, 1))) ||
      !output.write(sizeof header, std::as_bytes(std::span(parts))) ||
      !output.write(note.p_offset, notes.bytes())) {
    return false;
  }
  std::vector<std::byte> buffer(kChunk);
  for (const Area &area : areas) {
    if (area.dumped && !write_area(output, tracee, area, buffer)) return false;
  }
  return ::ftruncate(fd, static_cast<off_t>(place)) == 0;
}

// proc(5), "stat": 'S' for one that sleeps; 0 when there is none.
char thread_state(pid_t pid, pid_t tid) {
  std::ifstream file(fmt::format("/proc/{}/task/{}/stat", pid, tid));
  std::string line;
  std::getline(file, line);
  const std::size_t name_end = line.rfind(") ");
  return name_end == std::string::npos ? '\0' : line[name_end + 2];
}

// The thread that has made this process is, at first, still behind its vfork(2). Its backtrace
// shall end where it waits for us; one that never comes to sleep is taken as it is.
void await_sleep(pid_t pid, pid_t tid) {
  constexpr int kTries = 1000;
  constexpr unsigned kPauseUs = 1000;
  for (int i = 0; i < kTries && thread_state(pid, tid) != 'S'; ++i) ::usleep(kPauseUs);
}

}  // namespace

bool write_core_file(pid_t pid, const std::string &path, const CoreOptions &options,
                     std::uint64_t &written, std::string &why) {
  if (options.thread != 0) await_sleep(pid, options.thread);
  auto attached = Tracee::attach(pid, why);
  if (!attached) return false;
  Tracee &tracee = **attached;
  tracee.refresh_names();
  std::vector<Area> areas = read_areas(pid, options.guest_memory);
  if (areas.size() >= PN_XNUM - 1) {
    why = fmt::format("The process has {} mappings, more than a core file can have.", areas.size());
    return false;
  }
  const Notes notes = make_notes(pid, tracee, areas, options);
  // Complete or not there: it is made under another name.
  const std::string part = path + ".part";
  const UniqueFd fd(
      ::open(part.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  Output output(fd.get());
  if (!fd.valid() || !write_all(output, fd.get(), tracee, areas, notes) ||
      ::rename(part.c_str(), path.c_str()) != 0) {
    why = fmt::format("The core file {} cannot be written: {}.", path, std::strerror(errno));
    if (fd.valid()) ::unlink(part.c_str());
    return false;
  }
  written = output.written;
  return true;
}

}  // namespace cowbird::debug
