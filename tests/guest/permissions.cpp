// Who may do what: credentials(7), chmod(2), chown(2), umask(2), access(2), sticky and set-id bits.
// As root the tests act as another user in a child; without root those parts are skipped.
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

#include "tap.hpp"

namespace {

constexpr uid_t kAlice = 1234;
constexpr uid_t kBob = 4321;
constexpr gid_t kStaff = 2000;
constexpr gid_t kGuests = 2001;

// Becomes `user` for good: no group but `group`, no way back.
void become(uid_t user, gid_t group) {
  SYS(setgroups(0, nullptr));
  SYS(setresgid(group, group, group));
  SYS(setresuid(user, user, user));
}

mode_t mode_of(const char *path) {
  struct stat status {};
  SYS(stat(path, &status));
  return status.st_mode & 07777;
}

TEST(io_signals_reach_only_those_whom_the_owner_may_signal) {
  need_root();
  sigset_t blocked, pending;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  SYS(sigprocmask(SIG_BLOCK, &blocked, nullptr));
  const pid_t target = getpid();
  for (const bool as_root : {false, true}) {
    IN_CHILD([=] {
      if (!as_root) become(kAlice, kStaff);
      int ends[2];
      SYS(pipe(ends));
      SYS(fcntl(ends[0], F_SETOWN, target));
      SYS(fcntl(ends[0], F_SETSIG, SIGUSR1));
      SYS(fcntl(ends[0], F_SETFL, O_ASYNC));
      CHECK_EQ(write(ends[1], "x", 1), 1);
    });
    SYS(sigpending(&pending));
    CHECK_EQ(sigismember(&pending, SIGUSR1), as_root);
  }
}

TEST(chmod_sets_all_bits) {
  put_file("file");
  for (mode_t mode : {0u, 0777u, 0123u, 01644u, 0600u}) {
    SYS(chmod("file", mode));
    CHECK_EQ(mode_of("file"), mode);
  }
  const int fd = SYS(open("file", O_RDONLY));
  SYS(fchmod(fd, 0400));
  CHECK_EQ(mode_of("file"), 0400);
  CHECK_ERRNO(chmod("missing", 0600), ENOENT);
}

TEST(umask_is_returned_and_inherited) {
  SYS(umask(0137));
  CHECK_EQ(umask(0077), 0137);
  IN_CHILD([] {
    CHECK_EQ(umask(0), 0077);
    SYS(mkdir("dir", 0777));
    CHECK_EQ(mode_of("dir"), 0777);
  });
  CHECK_EQ(umask(022), 0077);
}

TEST(owner_group_and_others_are_told_apart) {
  need_root();
  put_file("file", "x");
  SYS(chown("file", kAlice, kStaff));
  SYS(chmod("file", 0640));
  IN_CHILD([] {
    become(kAlice, kGuests);
    close(SYS(open("file", O_RDWR)));
  });
  IN_CHILD([] {
    become(kBob, kStaff);
    close(SYS(open("file", O_RDONLY)));
    CHECK_ERRNO(open("file", O_RDWR), EACCES);
  });
  IN_CHILD([] {
    become(kBob, kGuests);
    CHECK_ERRNO(open("file", O_RDONLY), EACCES);
  });
  SYS(chmod("file", 0066));  // the owner's bits count for the owner, though others may
  IN_CHILD([] {
    become(kAlice, kStaff);
    CHECK_ERRNO(open("file", O_RDONLY), EACCES);
  });
}

TEST(supplementary_groups_count) {
  need_root();
  put_file("file", "x");
  SYS(chown("file", 0, kStaff));
  SYS(chmod("file", 0640));
  IN_CHILD([] {
    const gid_t groups[] = {5, kStaff, 7};
    SYS(setgroups(3, groups));
    SYS(setresgid(kGuests, kGuests, kGuests));
    SYS(setresuid(kBob, kBob, kBob));
    close(SYS(open("file", O_RDONLY)));
    gid_t got[8] = {};
    CHECK_EQ(getgroups(8, got), 3);
    CHECK_EQ(got[1] == kStaff || got[0] == kStaff || got[2] == kStaff, 1);
    CHECK_EQ(getgroups(0, nullptr), 3);
    CHECK_ERRNO(getgroups(1, got), EINVAL);
    CHECK_ERRNO(setgroups(0, nullptr), EPERM);
  });
}

TEST(directories_need_search_and_write) {
  need_root();
  SYS(mkdir("dir", 0755));
  put_file("dir/file", "x");
  SYS(chown("dir", kAlice, kStaff));
  const auto as_bob = [](auto body) {
    return run_child([&] {
      become(kBob, kGuests);
      body();
    });
  };
  SYS(chmod("dir", 0754));  // r--: names may be listed, nothing may be reached
  CHECK_EQ(as_bob([] {
             CHECK_ERRNO(open("dir/file", O_RDONLY), EACCES);
             close(SYS(open("dir", O_RDONLY)));
           }),
           0);
  SYS(chmod("dir", 0751));  // --x: what is known may be reached
  CHECK_EQ(as_bob([] {
             close(SYS(open("dir/file", O_RDONLY)));
             CHECK_ERRNO(open("dir", O_RDONLY), EACCES);
             CHECK_ERRNO(open("dir/new", O_CREAT | O_RDWR, 0600), EACCES);
             CHECK_ERRNO(unlink("dir/file"), EACCES);
             CHECK_ERRNO(rename("dir/file", "dir/other"), EACCES);
             CHECK_ERRNO(mkdir("dir/sub", 0700), EACCES);
             SYS(chdir("dir"));
           }),
           0);
  SYS(chmod("dir", 0757));
  CHECK_EQ(as_bob([] {
             close(SYS(open("dir/new", O_CREAT | O_RDWR, 0600)));
             SYS(unlink("dir/file"));
           }),
           0);
}

TEST(sticky_directories_protect_others_files) {
  need_root();
  SYS(mkdir("dir", 0755));
  SYS(chmod("dir", 01777));
  IN_CHILD([] {
    become(kAlice, kStaff);
    put_file("dir/alice", "x");
  });
  IN_CHILD([] {
    become(kBob, kGuests);
    put_file("dir/bob", "x");
    CHECK_ERRNO(unlink("dir/alice"), EPERM);
    CHECK_ERRNO(rename("dir/alice", "dir/mine"), EPERM);
    CHECK_ERRNO(rename("dir/bob", "dir/alice"), EPERM);
    SYS(unlink("dir/bob"));
  });
  IN_CHILD([] {
    become(kAlice, kStaff);
    SYS(unlink("dir/alice"));
  });
}

TEST(only_the_owner_may_chmod_and_utime) {
  need_root();
  put_file("file", "x");
  SYS(chown("file", kAlice, kStaff));
  SYS(chmod("file", 0666));
  IN_CHILD([] {
    become(kBob, kStaff);
    CHECK_ERRNO(chmod("file", 0600), EPERM);
    CHECK_ERRNO(chown("file", kBob, -1), EPERM);
    const timespec times[2] = {{1, 0}, {1, 0}};
    CHECK_ERRNO(utimensat(AT_FDCWD, "file", times, 0), EPERM);
    SYS(utimensat(AT_FDCWD, "file", nullptr, 0));  // "now" needs only write permission
  });
  IN_CHILD([] {
    become(kAlice, kStaff);
    SYS(chmod("file", 0600));
    CHECK_ERRNO(chown("file", kBob, -1), EPERM);
    CHECK_ERRNO(chown("file", -1, kGuests), EPERM);
    SYS(chown("file", -1, kStaff));
  });
}

TEST(chown_by_owner_to_an_own_group) {
  need_root();
  put_file("file");
  SYS(chown("file", kAlice, kGuests));
  IN_CHILD([] {
    const gid_t groups[] = {kStaff};
    SYS(setgroups(1, groups));
    SYS(setresgid(kGuests, kGuests, kGuests));
    SYS(setresuid(kAlice, kAlice, kAlice));
    SYS(chown("file", -1, kStaff));
    struct stat status {};
    SYS(stat("file", &status));
    CHECK_EQ(status.st_gid, kStaff);
  });
}

TEST(chown_clears_set_id_bits) {
  need_root();
  put_file("file");
  SYS(chmod("file", 06755));
  SYS(chown("file", kAlice, kStaff));
  CHECK_EQ(mode_of("file"), 0755);
}

TEST(write_by_another_user_clears_set_id_bits) {
  need_root();
  put_file("file", "x");
  SYS(chown("file", kAlice, kStaff));
  SYS(chmod("file", 06777));
  IN_CHILD([] {
    become(kBob, kGuests);
    const int fd = SYS(open("file", O_WRONLY));
    CHECK_EQ(write(fd, "y", 1), 1);
  });
  CHECK_EQ(mode_of("file"), 0777);
}

TEST(set_group_id_directory_hands_its_group_down) {
  need_root();
  SYS(mkdir("dir", 0777));
  SYS(chown("dir", 0, kStaff));
  SYS(chmod("dir", 02777));
  IN_CHILD([] {
    become(kAlice, kGuests);
    put_file("dir/file");
    SYS(mkdir("dir/sub", 0755));
    struct stat status {};
    SYS(stat("dir/file", &status));
    CHECK_EQ(status.st_gid, kStaff);
    SYS(stat("dir/sub", &status));
    CHECK_EQ(status.st_gid, kStaff);
    CHECK_EQ(status.st_mode & S_ISGID, S_ISGID);
  });
}

TEST(access_uses_the_real_user) {
  need_root();
  put_file("file", "x");
  SYS(chown("file", kAlice, kStaff));
  SYS(chmod("file", 0600));
  IN_CHILD([] {
    SYS(setgroups(0, nullptr));
    SYS(setresgid(kGuests, kGuests, kGuests));
    SYS(setresuid(kBob, kAlice, kBob));  // real Bob, effective Alice
    CHECK_ERRNO(access("file", R_OK), EACCES);
    close(SYS(open("file", O_RDWR)));
    if (syscall(SYS_faccessat2, AT_FDCWD, "file", R_OK, AT_EACCESS) != 0) CHECK_EQ(errno, ENOSYS);
  });
}

TEST(access_of_root) {
  need_root();
  put_file("file", "x", 0000);
  CHECK_EQ(access("file", R_OK | W_OK), 0);
  CHECK_ERRNO(access("file", X_OK), EACCES);
  SYS(chmod("file", 0001));
  CHECK_EQ(access("file", X_OK), 0);
  CHECK_ERRNO(access("file", 0100), EINVAL);
  close(SYS(open("file", O_RDWR)));
}

TEST(execution_needs_an_x_bit) {
  put_file("file", "#!/bin/sh\n", 0644);
  char *arguments[] = {const_cast<char *>("file"), nullptr};
  CHECK_ERRNO(execv("./file", arguments), EACCES);
  SYS(mkdir("dir", 0755));
  CHECK_ERRNO(execv("./dir", arguments), EACCES);
}

TEST(user_ids_change_by_the_rules) {
  need_root();
  IN_CHILD([] {
    SYS(setresuid(kAlice, kBob, kAlice));
    uid_t real, effective, saved;
    SYS(getresuid(&real, &effective, &saved));
    CHECK_EQ(real, kAlice);
    CHECK_EQ(effective, kBob);
    CHECK_EQ(saved, kAlice);
    CHECK_EQ(getuid(), kAlice);
    CHECK_EQ(geteuid(), kBob);
    CHECK_ERRNO(setuid(0), EPERM);
    SYS(seteuid(kAlice));
    SYS(setreuid(-1, kAlice));
    CHECK_ERRNO(setresuid(0, -1, -1), EPERM);
    CHECK_ERRNO(setreuid(0, -1), EPERM);
  });
  IN_CHILD([] {
    SYS(seteuid(kAlice));  // saved id 0: the way back
    CHECK_EQ(geteuid(), kAlice);
    CHECK_ERRNO(chown("/", kAlice, -1), EPERM);
    SYS(seteuid(0));
    SYS(setuid(kAlice));  // from root this is for good
    CHECK_ERRNO(seteuid(0), EPERM);
  });
}

TEST(group_ids_change_by_the_rules) {
  need_root();
  IN_CHILD([] {
    SYS(setresgid(kStaff, kGuests, kStaff));
    gid_t real, effective, saved;
    SYS(getresgid(&real, &effective, &saved));
    CHECK_EQ(real, kStaff);
    CHECK_EQ(effective, kGuests);
    CHECK_EQ(saved, kStaff);
    SYS(setuid(kAlice));
    CHECK_ERRNO(setgid(0), EPERM);
    SYS(setgid(kStaff));
    CHECK_EQ(getegid(), kStaff);
  });
}

TEST(fsuid_follows_the_effective_user) {
  need_root();
  put_file("file", "x", 0600);
  IN_CHILD([] {
    CHECK_EQ(setfsuid(kAlice), 0);
    CHECK_EQ(setfsuid(kAlice), kAlice);
    CHECK_ERRNO(open("file", O_RDONLY), EACCES);
    SYS(seteuid(kBob));
    CHECK_EQ(setfsuid(-1), kBob);
  });
}

TEST(files_are_owned_by_their_maker) {
  need_root();
  SYS(chmod(".", 0777));
  IN_CHILD([] {
    become(kAlice, kStaff);
    put_file("file");
    SYS(mkdir("dir", 0700));
    SYS(symlink("x", "soft"));
    for (const char *name : {"file", "dir", "soft"}) {
      struct stat status {};
      SYS(lstat(name, &status));
      CHECK_EQ(status.st_uid, kAlice);
      CHECK_EQ(status.st_gid, kStaff);
    }
  });
}

TEST(an_open_descriptor_keeps_its_rights) {
  need_root();
  const int fd = make_file("file", "secret", 0600);
  IN_CHILD([&] {
    become(kAlice, kStaff);
    char buffer[8] = {};
    CHECK_EQ(pread(fd, buffer, 7, 0), 6);
    CHECK_ERRNO(open("file", O_RDONLY), EACCES);
  });
}

TEST(kill_needs_the_same_user) {
  need_root();
  const pid_t victim = start_child([] {
    become(kAlice, kStaff);
    pause();
  });
  sleep_ms(30);
  IN_CHILD([&] {
    become(kBob, kStaff);
    CHECK_ERRNO(kill(victim, SIGTERM), EPERM);
    CHECK_ERRNO(kill(victim, 0), EPERM);
    CHECK_ERRNO(kill(1, SIGTERM), EPERM);
  });
  IN_CHILD([&] {
    become(kAlice, kGuests);
    SYS(kill(victim, 0));
    SYS(kill(victim, SIGTERM));
  });
  const int status = wait_for(victim);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

TEST(set_user_id_program_runs_as_its_owner) {
  need_root();
  char self[4096] = {};
  SYS(readlink("/proc/self/exe", self, sizeof self - 1));
  const int from = SYS(open(self, O_RDONLY));
  const int to = SYS(open("program", O_CREAT | O_WRONLY, 0755));
  static char block[65536];
  for (ssize_t got; (got = read(from, block, sizeof block)) > 0;)
    REQUIRE(write(to, block, got) == got);
  close(to);
  close(from);
  SYS(chown("program", kAlice, kStaff));
  SYS(chmod("program", 06755));
  const auto exit_status = [](bool no_new_privileges) {
    return run_child([=] {
      become(kBob, kGuests);
      if (no_new_privileges) SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
      char *arguments[] = {const_cast<char *>("program"), const_cast<char *>("--show-ids"),
                           nullptr};
      execv("./program", arguments);
      _exit(9);
    });
  };
  const int status = exit_status(false);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 4) SKIP("mounted nosuid");
  CHECK_EQ(WEXITSTATUS(status), 3);
  CHECK_EQ(WEXITSTATUS(exit_status(true)), 4);
}

// What set_user_id_program_runs_as_its_owner starts: the answer is the exit status.
int show_ids() {
  if (getuid() != kBob || getgid() != kGuests) return 5;
  if (geteuid() == kAlice && getegid() == kStaff) return 3;
  return geteuid() == kBob && getegid() == kGuests ? 4 : 6;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "--show-ids") == 0) return show_ids();
  return tap::run(argc, argv);
}
