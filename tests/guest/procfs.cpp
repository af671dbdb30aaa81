// proc(5): the files that ps, top, free, mount, uptime and shells read.
#include <sys/prctl.h>
#include <sys/sysinfo.h>

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

}  // namespace

TAP_MAIN()
