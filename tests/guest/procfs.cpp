// proc(5): the files that ps, top, free, mount, uptime and shells read.
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/un.h>

#include <string>

#include "tap.hpp"

namespace {

std::string text_of(const std::string &path) {
  std::string text;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (!tap::check(fd >= 0, __FILE__, __LINE__, path.c_str())) return text;
  char buffer[3000];  // small, so that a file is read in several pieces
  for (ssize_t got; (got = read(fd, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(got));
  close(fd);
  return text;
}

std::string of(pid_t process, const char *name) {
  return "/proc/" + std::to_string(process) + "/" + name;
}

std::string link_of(const std::string &path) {
  char target[4096] = {};
  const ssize_t length = readlink(path.c_str(), target, sizeof target - 1);
  return tap::check(length >= 0, __FILE__, __LINE__, path.c_str()) ? target : "";
}

bool contains(const std::string &text, const std::string &part) {
  return text.find(part) != std::string::npos;
}

// The number after "Key:" in files like meminfo and status; -1 when the key is missing.
long value_of(const std::string &text, const std::string &key) {
  const size_t at = ("\n" + text).find("\n" + key + ":");
  return at == std::string::npos ? -1 : atol(text.c_str() + at + key.size() + 1);
}

struct Stat {
  int pid = 0, parent = 0, group = 0, session = 0, threads = 0;
  char state = '?';
  unsigned long user_ticks = 0, system_ticks = 0, start = 0, virtual_bytes = 0;
  std::string name;
};

// /proc/PID/stat: the name in brackets may hold anything, hence the search for the last bracket.
Stat stat_of(pid_t process) {
  Stat stat;
  const std::string text = text_of(of(process, "stat"));
  const size_t open = text.find('('), close = text.rfind(')');
  if (!CHECK(open != std::string::npos && close != std::string::npos)) return stat;
  stat.pid = atoi(text.c_str());
  stat.name = text.substr(open + 1, close - open - 1);
  const int got =
      sscanf(text.c_str() + close + 1,
             " %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %d %*d %lu %lu",
             &stat.state, &stat.parent, &stat.group, &stat.session, &stat.user_ticks,
             &stat.system_ticks, &stat.threads, &stat.start, &stat.virtual_bytes);
  CHECK_EQ(got, 9);
  int fields = 0;
  for (size_t i = close; i < text.size(); i++) fields += text[i] == ' ';
  CHECK(fields + 2 >= 44);
  CHECK(text.back() == '\n');
  return stat;
}

TEST(self_is_the_reader) {
  CHECK_STR(link_of("/proc/self").c_str(), std::to_string(getpid()).c_str());
  IN_CHILD([] { CHECK_STR(link_of("/proc/self").c_str(), std::to_string(getpid()).c_str()); });
}

TEST(stat_has_the_facts) {
  prctl(PR_SET_NAME, "a) (b");
  const Stat stat = stat_of(getpid());
  CHECK_EQ(stat.pid, getpid());
  CHECK_STR(stat.name.c_str(), "a) (b");
  CHECK_EQ(stat.state, 'R');
  CHECK_EQ(stat.parent, getppid());
  CHECK_EQ(stat.group, getpgrp());
  CHECK_EQ(stat.session, getsid(0));
  CHECK_EQ(stat.threads, 1);
  CHECK(stat.virtual_bytes > 4096 && stat.virtual_bytes < 1ul << 40);
}

TEST(states_of_other_processes) {
  const pid_t child = start_child([] { pause(); });
  CHECK(eventually([&] { return stat_of(child).state == 'S'; }));
  kill(child, SIGSTOP);
  CHECK(eventually([&] { return stat_of(child).state == 'T'; }));
  kill(child, SIGKILL);
  CHECK(eventually([&] { return stat_of(child).state == 'Z'; }));
  CHECK_STR(text_of(of(child, "cmdline")).c_str(), "");
  wait_for(child);
  CHECK_ERRNO(open(of(child, "stat").c_str(), O_RDONLY), ENOENT);
}

TEST(status_has_its_keys) {
  const std::string text = text_of("/proc/self/status");
  CHECK_EQ(value_of(text, "Pid"), getpid());
  CHECK_EQ(value_of(text, "PPid"), getppid());
  CHECK_EQ(value_of(text, "Tgid"), getpid());
  CHECK_EQ(value_of(text, "Uid"), getuid());
  CHECK_EQ(value_of(text, "Gid"), getgid());
  CHECK_EQ(value_of(text, "Threads"), 1);
  CHECK(value_of(text, "VmSize") > 0);
  CHECK(value_of(text, "VmRSS") > 0);
  for (const char *key : {"Name:\t", "State:\t", "SigBlk:\t", "SigIgn:\t", "SigCgt:\t"})
    CHECK(contains(text, key));
}

TEST(cmdline_and_environ) {
  const std::string command = text_of("/proc/self/cmdline");
  CHECK(command.size() > 1 && command.back() == '\0');
  CHECK(contains(command, "procfs"));
  const std::string environment = text_of("/proc/self/environ");
  CHECK(environment.empty() || environment.back() == '\0');
}

TEST(comm_can_be_read_and_written) {
  const int fd = SYS(open("/proc/self/comm", O_RDWR));
  CHECK_EQ(write(fd, "renamed", 7), 7);
  CHECK_STR(text_of("/proc/self/comm").c_str(), "renamed\n");
  CHECK_STR(stat_of(getpid()).name.c_str(), "renamed");
}

TEST(links_lead_to_the_things) {
  char here[4096];
  REQUIRE(getcwd(here, sizeof here) != nullptr);
  CHECK_STR(link_of("/proc/self/cwd").c_str(), here);
  CHECK_STR(link_of("/proc/self/root").c_str(), "/");
  CHECK(contains(link_of("/proc/self/exe"), "procfs"));
  put_file("file", "via proc");
  CHECK_STR(text_of("/proc/self/cwd/file").c_str(), "via proc");
  CHECK(text_of("/proc/self/exe").substr(0, 4) == "\177ELF");
}

TEST(descriptors_are_listed) {
  const int file = make_file("file", "content");
  int ends[2];
  SYS(pipe(ends));
  const std::string base = "/proc/self/fd/";
  CHECK(contains(link_of(base + std::to_string(file)), "/file"));
  CHECK(link_of(base + std::to_string(ends[0])).substr(0, 6) == "pipe:[");
  CHECK_STR(text_of(base + std::to_string(file)).c_str(), "content");
  DIR *directory = opendir("/proc/self/fd");
  REQUIRE(directory != nullptr);
  bool found = false;
  while (const dirent *entry = readdir(directory))
    found |= atoi(entry->d_name) == file && entry->d_name[0] != '.';
  CHECK(found);
  closedir(directory);
  close(file);
  struct stat status {};
  CHECK_ERRNO(lstat((base + std::to_string(file)).c_str(), &status), ENOENT);
  SYS(stat("/dev/fd/0", &status));
}

TEST(maps_and_statm) {
  const std::string maps = text_of("/proc/self/maps");
  CHECK(contains(maps, "procfs"));
  CHECK(contains(maps, "[stack]"));
  unsigned long size = 0, resident = 0;
  CHECK_EQ(sscanf(text_of("/proc/self/statm").c_str(), "%lu %lu", &size, &resident), 2);
  CHECK(size >= resident && resident > 0);
}

TEST(every_process_is_listed) {
  const pid_t child = start_child([] { pause(); });
  bool self = false, other = false, bad = false;
  DIR *directory = opendir("/proc");
  REQUIRE(directory != nullptr);
  while (const dirent *entry = readdir(directory)) {
    const int number = atoi(entry->d_name);
    self |= number == getpid();
    other |= number == child;
    if (number > 0) bad |= entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN;
  }
  closedir(directory);
  CHECK(self && other && !bad);
  kill(child, SIGKILL);
  wait_for(child);
  CHECK_ERRNO(open("/proc/999999/stat", O_RDONLY), ENOENT);
  CHECK_ERRNO(open("/proc/newfile", O_CREAT | O_RDWR, 0600), ENOENT);
}

TEST(threads_are_listed) {
  const std::string task = "/proc/self/task/" + std::to_string(getpid()) + "/stat";
  CHECK_EQ(atoi(text_of(task).c_str()), getpid());
}

TEST(meminfo_adds_up) {
  const std::string text = text_of("/proc/meminfo");
  const long total = value_of(text, "MemTotal"), free = value_of(text, "MemFree");
  CHECK(total > 1000 && free > 0 && free <= total);
  for (const char *key :
       {"MemAvailable", "Buffers", "Cached", "SwapTotal", "SwapFree", "Shmem", "SReclaimable"})
    CHECK(value_of(text, key) >= 0);
  struct sysinfo info {};
  SYS(sysinfo(&info));
  CHECK(labs(static_cast<long>(info.totalram * info.mem_unit / 1024) - total) < 1024);
}

TEST(stat_of_the_machine) {
  const std::string text = text_of("/proc/stat");
  unsigned long user, nice, system, idle;
  CHECK_EQ(sscanf(text.c_str(), "cpu %lu %lu %lu %lu", &user, &nice, &system, &idle), 4);
  CHECK(contains(text, "\ncpu0 "));
  CHECK(contains(text, "\nctxt "));
  CHECK(contains(text, "\nprocesses "));
  long boot = 0;
  const size_t at = text.find("\nbtime ");
  REQUIRE(at != std::string::npos);
  boot = atol(text.c_str() + at + 7);
  CHECK(boot > 1'600'000'000 && boot <= time(nullptr) + 1);
}

TEST(uptime_and_load) {
  double up = -1, idle = -1;
  CHECK_EQ(sscanf(text_of("/proc/uptime").c_str(), "%lf %lf", &up, &idle), 2);
  CHECK(up >= 0 && idle >= 0);
  const double start = up;
  sleep_ms(60);
  CHECK_EQ(sscanf(text_of("/proc/uptime").c_str(), "%lf", &up), 1);
  CHECK(up - start >= 0.04);
  double one, five, fifteen;
  int running, all, last;
  CHECK_EQ(sscanf(text_of("/proc/loadavg").c_str(), "%lf %lf %lf %d/%d %d", &one, &five, &fifteen,
                  &running, &all, &last),
           6);
  CHECK(running >= 1 && all >= running);
}

TEST(mounts_are_listed) {
  for (const char *path : {"/proc/mounts", "/proc/self/mounts"}) {
    const std::string text = text_of(path);
    // In a chroot environment "/" is no mount point.
    struct statx root {};
    CHECK_EQ(statx(AT_FDCWD, "/", 0, 0, &root), 0);
    CHECK_EQ(contains(text, " / "), (root.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0);
    CHECK(contains(text, " /proc proc "));
  }
  const std::string information = text_of("/proc/self/mountinfo");
  CHECK(contains(information, " - proc "));
}

TEST(machine_descriptions) {
  const std::string cpu = text_of("/proc/cpuinfo");
  CHECK(contains(cpu, "processor\t: 0"));
  CHECK(contains(cpu, "flags\t\t:"));
  CHECK(text_of("/proc/version").substr(0, 14) == "Linux version ");
  CHECK(contains(text_of("/proc/filesystems"), "\tproc\n"));
  CHECK(contains(text_of("/proc/filesystems"), "\ttmpfs\n"));
}

TEST(sysctl_files) {
  CHECK_EQ(atoi(text_of("/proc/sys/kernel/pid_max").c_str()) > 300, 1);
  CHECK_STR(text_of("/proc/sys/kernel/ostype").c_str(), "Linux\n");
  CHECK(text_of("/proc/sys/kernel/hostname").size() > 1);
}

TEST(reading_in_single_bytes_gives_the_same) {
  const std::string whole = text_of("/proc/version");
  std::string pieces;
  const int fd = SYS(open("/proc/version", O_RDONLY));
  char byte;
  while (read(fd, &byte, 1) == 1) pieces += byte;
  CHECK_STR(pieces.c_str(), whole.c_str());
  char buffer[8] = {};
  CHECK_EQ(pread(fd, buffer, 5, 6), 5);
  CHECK_STR(buffer, "versi");
}

TEST(other_users_secrets_are_closed) {
  need_root();
  const pid_t victim = start_child([] { pause(); });
  IN_CHILD([&] {
    SYS(setresgid(2000, 2000, 2000));
    SYS(setresuid(1234, 1234, 1234));
    CHECK_ERRNO(open(of(victim, "environ").c_str(), O_RDONLY), EACCES);
    char target[64];
    CHECK_ERRNO(readlink(of(victim, "cwd").c_str(), target, sizeof target), EACCES);
    CHECK_EQ(stat_of(victim).pid, victim);
  });
  kill(victim, SIGKILL);
  wait_for(victim);
}

// --- memory: smaps, pagemap, mem

// The part of smaps about the area that begins at `start`.
std::string area_of(const std::string &smaps, const void *start) {
  char head[32];
  snprintf(head, sizeof head, "%08lx-", reinterpret_cast<unsigned long>(start));
  const size_t at = ("\n" + smaps).find("\n" + std::string(head));
  if (at == std::string::npos) return "";
  const size_t end = smaps.find("VmFlags", at);
  return smaps.substr(at, smaps.find('\n', end) - at + 1);
}

TEST(smaps_tells_what_areas_have_in_memory) {
  constexpr size_t kPages = 20;
  char *memory =
      MAP(mmap(nullptr, kPages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  // Alone between areas that are no neighbours of its kind.
  SYS(mprotect(memory, 4096, PROT_NONE));
  SYS(mprotect(memory + (kPages - 1) * 4096, 4096, PROT_NONE));
  char *area = memory + 4096;
  for (size_t i = 0; i < 18; i++) area[i * 4096] = 1;
  std::string text = area_of(text_of("/proc/self/smaps"), area);
  CHECK_EQ(value_of(text, "Size"), 72);
  CHECK_EQ(value_of(text, "KernelPageSize"), 4);
  CHECK_EQ(value_of(text, "Rss"), 72);
  CHECK_EQ(value_of(text, "Pss"), 72);
  CHECK_EQ(value_of(text, "Private_Dirty"), 72);
  CHECK_EQ(value_of(text, "Shared_Dirty"), 0);
  CHECK_EQ(value_of(text, "Anonymous"), 72);
  CHECK_EQ(value_of(text, "Swap"), 0);
  CHECK_EQ(value_of(text, "Locked"), 0);
  CHECK(contains(text, "VmFlags: rd wr mr mw me "));
  // A child shares the pages until it writes.
  int ends[2];
  SYS(pipe(ends));
  const pid_t child = start_child([&] {
    char byte;
    close(ends[1]);
    CHECK_EQ(read(ends[0], &byte, 1), 0);
  });
  text = area_of(text_of("/proc/self/smaps"), area);
  CHECK_EQ(value_of(text, "Rss"), 72);
  CHECK_EQ(value_of(text, "Pss"), 36);
  CHECK_EQ(value_of(text, "Shared_Dirty"), 72);
  CHECK_EQ(value_of(text, "Private_Dirty"), 0);
  close(ends[1]);
  CHECK_EQ(wait_for(child), 0);
  SYS(madvise(area, 18ul * 4096, MADV_DONTNEED));
  text = area_of(text_of("/proc/self/smaps"), area);
  CHECK_EQ(value_of(text, "Rss"), 0);
}

TEST(smaps_of_files_and_flags) {
  const int fd = make_file("mapped");
  SYS(ftruncate(fd, 8192));
  char *shared = MAP(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  shared[0] = 'x';
  const std::string text = area_of(text_of("/proc/self/smaps"), shared);
  CHECK(contains(text, "/mapped\n"));
  CHECK_EQ(value_of(text, "Size"), 8);
  CHECK(value_of(text, "Rss") >= 4);
  CHECK_EQ(value_of(text, "Anonymous"), 0);
  CHECK(contains(text, "VmFlags: rd wr sh mr mw me ms "));
  char *other = MAP(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, fd, 0));
  SYS(madvise(other, 4096, MADV_DONTFORK));
  SYS(madvise(other, 4096, MADV_DONTDUMP));
  const std::string flags = area_of(text_of("/proc/self/smaps"), other);
  CHECK(contains(flags, " dc "));
  CHECK(contains(flags, " dd "));
}

TEST(smaps_rollup_is_the_sum) {
  const std::string smaps = text_of("/proc/self/smaps"), sum = text_of("/proc/self/smaps_rollup");
  CHECK(contains(sum, "[rollup]\n"));
  long anonymous = 0;
  for (size_t at = 0; (at = smaps.find("\nAnonymous:", at)) != std::string::npos; at++)
    anonymous += atol(smaps.c_str() + at + 11);
  // Reading may have touched a page or two between.
  CHECK(std::abs(value_of(sum, "Anonymous") - anonymous) <= 64);
  for (const char *key :
       {"Rss", "Pss", "Pss_Anon", "Pss_File", "Pss_Shmem", "Shared_Clean", "Locked"})
    CHECK(value_of(sum, key) >= 0);
}

TEST(pagemap_has_an_entry_for_each_page) {
  constexpr uint64_t kPresent = 1ull << 63, kFileOrShared = 1ull << 61, kExclusive = 1ull << 56;
  char *memory =
      MAP(mmap(nullptr, 3ul * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  SYS(madvise(memory, 3ul * 4096, MADV_NOHUGEPAGE) == 0 || errno == EINVAL ? 0 : -1);
  char *shared =
      MAP(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  memory[0] = memory[4096] = memory[8192] = shared[0] = 1;
  SYS(madvise(memory + 4096, 4096, MADV_DONTNEED));
  const int fd = static_cast<int>(SYS(open("/proc/self/pagemap", O_RDONLY)));
  const auto entry_at = [](const char *address) {
    return static_cast<off_t>(reinterpret_cast<uintptr_t>(address) / 4096 * 8);
  };
  uint64_t entries[3] = {};
  CHECK_EQ(pread(fd, entries, sizeof entries, entry_at(memory)), sizeof entries);
  CHECK_EQ(entries[0] & (kPresent | kFileOrShared), kPresent);
  CHECK(entries[0] & kExclusive);
  CHECK_EQ(entries[1] & kPresent, 0);
  CHECK(entries[2] & kPresent);
  CHECK_EQ(pread(fd, entries, 8, entry_at(shared)), 8);
  CHECK_EQ(entries[0] & (kPresent | kFileOrShared), kPresent | kFileOrShared);
  CHECK_ERRNO(pread(fd, entries, 8, 4), EINVAL);
  CHECK_ERRNO(pread(fd, entries, 7, 8), EINVAL);
  CHECK_EQ(pread(fd, entries, 0, 8), 0);
  CHECK_EQ(pread(fd, entries, 8, static_cast<off_t>(1ull << 47) / 4096 * 8), 0);
}

TEST(mem_reads_and_writes_the_memory_of_a_process) {
  char *memory =
      MAP(mmap(nullptr, 3ul * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  strcpy(memory + 4090, "over a border");
  SYS(munmap(memory + 8192, 4096));
  int ends[2], back[2];
  SYS(pipe(ends));
  SYS(pipe(back));
  const pid_t child = start_child([&] {
    char byte;
    CHECK_EQ(read(ends[0], &byte, 1), 1);
    CHECK_STR(memory + 4090, "OVER a border");
    CHECK_EQ(write(back[1], "x", 1), 1);
    CHECK_EQ(read(ends[0], &byte, 1), 1);
  });
  const int fd = static_cast<int>(SYS(open(of(child, "mem").c_str(), O_RDWR)));
  const off_t at = reinterpret_cast<off_t>(memory);
  char buffer[8192] = {};
  CHECK_EQ(pread(fd, buffer, 14, at + 4090), 14);
  CHECK_STR(buffer, "over a border");
  CHECK_EQ(pwrite(fd, "OVER", 4, at + 4090), 4);
  CHECK_STR(memory + 4090, "over a border");           // that is the parent's
  CHECK_EQ(pread(fd, buffer, 8192, at + 4096), 4096);  // up to the hole
  CHECK_ERRNO(pread(fd, buffer, 1, at + 8192), EIO);
  CHECK_ERRNO(pread(fd, buffer, 1, 0), EIO);
  CHECK_EQ(lseek(fd, at, SEEK_SET), at);
  CHECK_EQ(read(fd, buffer, 1), 1);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), at + 1);
  CHECK_ERRNO(lseek(fd, 0, SEEK_END), EINVAL);
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(read(back[0], buffer, 1), 1);
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(wait_for(child), 0);
  CHECK_EQ(pread(fd, buffer, 1, at), 0);  // the memory has gone with its process
}

TEST(mem_passes_protection_by) {
  char *memory =
      MAP(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  strcpy(memory, "hidden");
  const int fd = static_cast<int>(SYS(open("/proc/self/mem", O_RDWR)));
  const off_t at = reinterpret_cast<off_t>(memory);
  SYS(mprotect(memory, 4096, PROT_READ));
  if (pwrite(fd, "H", 1, at) == -1 && errno == EIO)
    SKIP("the kernel forbids it (proc_mem.force_override)");
  CHECK_STR(memory, "Hidden");
  SYS(mprotect(memory, 4096, PROT_NONE));
  char buffer[8] = {};
  CHECK_EQ(pread(fd, buffer, 7, at), 7);
  CHECK_STR(buffer, "Hidden");
}

// --- io, locks, sockets

TEST(io_counts_calls_and_bytes) {
  IN_CHILD([] {
    const int fd = make_file("io");
    const std::string before = text_of("/proc/self/io");
    char buffer[1000] = {};
    for (int i = 0; i < 5; i++) CHECK_EQ(write(fd, buffer, 1000), 1000);
    for (int i = 0; i < 7; i++) CHECK_EQ(pread(fd, buffer, 100, 0), 100);
    CHECK_ERRNO(pread(fd, nullptr, 100, 0), EFAULT);
    const std::string after = text_of("/proc/self/io");
    CHECK_EQ(value_of(after, "wchar") - value_of(before, "wchar"), 5000);
    CHECK_EQ(value_of(after, "syscw") - value_of(before, "syscw"), 5);
    // The first look at this file counts, too.
    CHECK_EQ(value_of(after, "rchar") - value_of(before, "rchar"), 700 + before.size());
    CHECK(value_of(after, "syscr") - value_of(before, "syscr") >= 8);
    for (const char *key : {"read_bytes", "write_bytes", "cancelled_write_bytes"})
      CHECK(value_of(after, key) >= 0);
  });
}

TEST(io_of_threads_adds_up) {
  const std::string own = text_of("/proc/thread-self/io");
  CHECK(value_of(own, "syscr") >= 0);
  CHECK(value_of(text_of("/proc/self/io"), "syscr") >= value_of(own, "syscr"));
}

// The lines of /proc/locks about a file, without their numbers.
std::string locks_of(const char *name) {
  struct stat status {};
  SYS(stat(name, &status));
  const std::string text = text_of("/proc/locks"), key = ":" + std::to_string(status.st_ino) + " ";
  std::string found;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    const std::string line = text.substr(at, end - at);
    const size_t id = line.find(key);
    const size_t colon = line.find(": ");
    if (id != std::string::npos) {
      const size_t device = line.rfind(' ', id);
      found += line.substr(colon + 2, device - colon - 1) + line.substr(id + key.size()) + "\n";
    }
    at = end + 1;
  }
  return found;
}

TEST(locks_are_listed) {
  const int fd = make_file("locked");
  const std::string me = std::to_string(getpid());
  CHECK_STR(locks_of("locked").c_str(), "");
  struct flock lock {};
  lock.l_type = F_WRLCK, lock.l_start = 10, lock.l_len = 20;
  SYS(fcntl(fd, F_SETLK, &lock));
  CHECK_STR(locks_of("locked").c_str(), ("POSIX  ADVISORY  WRITE " + me + " 10 29\n").c_str());
  lock.l_len = 0;
  lock.l_type = F_RDLCK;
  SYS(fcntl(fd, F_SETLK, &lock));
  CHECK_STR(locks_of("locked").c_str(), ("POSIX  ADVISORY  READ " + me + " 10 EOF\n").c_str());
  lock.l_type = F_UNLCK;
  SYS(fcntl(fd, F_SETLK, &lock));
  lock.l_type = F_WRLCK;
  SYS(fcntl(fd, F_OFD_SETLK, &lock));
  CHECK_STR(locks_of("locked").c_str(), "OFDLCK ADVISORY  WRITE -1 10 EOF\n");
  lock.l_type = F_UNLCK;
  SYS(fcntl(fd, F_OFD_SETLK, &lock));
  SYS(flock(fd, LOCK_EX));
  CHECK_STR(locks_of("locked").c_str(), ("FLOCK  ADVISORY  WRITE " + me + " 0 EOF\n").c_str());
  // Who waits stands behind who holds.
  const pid_t child = start_child([] {
    const int own = static_cast<int>(SYS(open("locked", O_RDWR)));
    SYS(flock(own, LOCK_SH));
  });
  const std::string both = "FLOCK  ADVISORY  WRITE " + me + " 0 EOF\n-> FLOCK  ADVISORY  READ " +
                           std::to_string(child) + " 0 EOF\n";
  while (locks_of("locked") != both && waitpid(child, nullptr, WNOHANG) == 0) sleep_ms(5);
  CHECK_STR(locks_of("locked").c_str(), both.c_str());
  SYS(flock(fd, LOCK_UN));
  CHECK_EQ(wait_for(child), 0);
  CHECK_STR(locks_of("locked").c_str(), "");
}

// The line of /proc/net/unix about a socket, from its flags on; the inode's number is left out.
std::string socket_line(int fd) {
  struct stat status {};
  SYS(fstat(fd, &status));
  const std::string text = text_of("/proc/net/unix");
  const std::string key = " " + std::to_string(status.st_ino);
  for (size_t at = 0; (at = text.find(key, at)) != std::string::npos; at++) {
    const char next = text[at + key.size()];
    if (next != ' ' && next != '\n') continue;
    const size_t start = text.rfind('\n', at) + 1, end = text.find('\n', at);
    const size_t flags = text.find(": ", start) + 2 + 9 + 9;
    std::string type = text.substr(flags, 16);
    return type + text.substr(at + key.size(), end - at - key.size());
  }
  return "";
}

TEST(local_sockets_are_listed) {
  const std::string text = text_of("/proc/net/unix");
  CHECK_EQ(text.find("Num       RefCount Protocol Flags    Type St Inode Path\n"), 0);
  const int listener = static_cast<int>(SYS(socket(AF_UNIX, SOCK_STREAM, 0)));
  CHECK_STR(socket_line(listener).c_str(), "00000000 0001 01");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strcpy(address.sun_path, "listed");
  const auto generic = reinterpret_cast<sockaddr *>(&address);
  SYS(bind(listener, generic, sizeof address));
  CHECK_STR(socket_line(listener).c_str(), "00000000 0001 01 listed");
  SYS(listen(listener, 1));
  CHECK_STR(socket_line(listener).c_str(), "00010000 0001 01 listed");
  const int client = static_cast<int>(SYS(socket(AF_UNIX, SOCK_STREAM, 0)));
  SYS(connect(client, generic, sizeof address));
  CHECK_STR(socket_line(client).c_str(), "00000000 0001 03");
  const int server = static_cast<int>(SYS(accept(listener, nullptr, nullptr)));
  CHECK_STR(socket_line(server).c_str(), "00000000 0001 03 listed");
  const int datagram = static_cast<int>(SYS(socket(AF_UNIX, SOCK_DGRAM, 0)));
  memcpy(address.sun_path, "\0with\0zero", 10);
  SYS(bind(datagram, generic, sizeof(sa_family_t) + 10));
  CHECK_STR(socket_line(datagram).c_str(), "00000000 0002 01 @with@zero");
  CHECK_STR(link_of("/proc/net").c_str(), "self/net");
}

}  // namespace

TAP_MAIN()
