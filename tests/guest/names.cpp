// Names and directories: rename(2), link(2), symlink(2), unlink(2), mkdir(2), getdents(2),
// readlink(2), chdir(2), getcwd(2), the *at calls, path_resolution(7), mknod(2).
#include <limits.h>
#include <linux/fs.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tap.hpp"

namespace {

bool exists(const char *path) {
  struct stat status {};
  return lstat(path, &status) == 0;
}

ino_t inode_of(const char *path) {
  struct stat status {};
  SYS(lstat(path, &status));
  return status.st_ino;
}

nlink_t links_of(const char *path) {
  struct stat status {};
  SYS(lstat(path, &status));
  return status.st_nlink;
}

std::vector<std::string> names_in(const char *path) {
  std::vector<std::string> names;
  DIR *directory = opendir(path);
  if (!CHECK(directory != nullptr)) return names;
  while (const dirent *entry = readdir(directory)) names.emplace_back(entry->d_name);
  closedir(directory);
  std::sort(names.begin(), names.end());
  return names;
}

TEST(rename_replaces_a_file) {
  put_file("from", "new");
  put_file("to", "old");
  const ino_t inode = inode_of("from");
  const int old = SYS(open("to", O_RDONLY));
  SYS(rename("from", "to"));
  CHECK(!exists("from"));
  CHECK_EQ(inode_of("to"), inode);
  char buffer[8] = {};
  CHECK_EQ(read(old, buffer, 7), 3);
  CHECK_STR(buffer, "old");
  CHECK_ERRNO(rename("missing", "to"), ENOENT);
}

TEST(rename_of_directories) {
  SYS(mkdir("dir", 0755));
  SYS(mkdir("dir/sub", 0755));
  put_file("dir/sub/file", "x");
  put_file("file");
  SYS(mkdir("empty", 0755));
  SYS(mkdir("full", 0755));
  put_file("full/file");
  CHECK_ERRNO(rename("dir", "dir/sub/below"), EINVAL);
  CHECK_ERRNO(rename("dir", "file"), ENOTDIR);
  CHECK_ERRNO(rename("file", "dir"), EISDIR);
  const int error = rename("dir", "full") == -1 ? errno : 0;
  CHECK(error == ENOTEMPTY || error == EEXIST);
  SYS(rename("dir", "empty"));
  CHECK(exists("empty/sub/file"));
  CHECK(!exists("dir"));
  CHECK_EQ(inode_of("empty/sub/.."), inode_of("empty"));
  CHECK_ERRNO(rename("empty/.", "other"), EBUSY);
}

TEST(rename_between_names_of_one_file_does_nothing) {
  put_file("a", "x");
  SYS(link("a", "b"));
  SYS(rename("a", "b"));
  CHECK(exists("a"));
  CHECK(exists("b"));
  SYS(rename("a", "a"));
  CHECK(exists("a"));
}

TEST(renameat2_noreplace_and_exchange) {
  put_file("a", "1");
  put_file("b", "22");
  OPTIONAL(syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "c", 0));
  CHECK_ERRNO(syscall(SYS_renameat2, AT_FDCWD, "c", AT_FDCWD, "b", RENAME_NOREPLACE), EEXIST);
  SYS(syscall(SYS_renameat2, AT_FDCWD, "c", AT_FDCWD, "a", RENAME_NOREPLACE));
  const ino_t one = inode_of("a"), two = inode_of("b");
  SYS(syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE));
  CHECK_EQ(inode_of("a"), two);
  CHECK_EQ(inode_of("b"), one);
  CHECK_ERRNO(syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "zz", RENAME_EXCHANGE), ENOENT);
  CHECK_ERRNO(
      syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE | RENAME_NOREPLACE),
      EINVAL);
}

TEST(hard_links_count) {
  put_file("a", "text");
  SYS(link("a", "b"));
  CHECK_EQ(links_of("a"), 2);
  CHECK_EQ(inode_of("a"), inode_of("b"));
  SYS(unlink("a"));
  CHECK_EQ(links_of("b"), 1);
  char text[8];
  read_text("b", text);
  CHECK_STR(text, "text");
  SYS(mkdir("dir", 0755));
  CHECK_ERRNO(link("dir", "other"), EPERM);
  CHECK_ERRNO(link("missing", "other"), ENOENT);
  put_file("c");
  CHECK_ERRNO(link("b", "c"), EEXIST);
}

TEST(link_of_symlink_is_the_symlink) {
  put_file("file");
  SYS(symlink("file", "soft"));
  SYS(linkat(AT_FDCWD, "soft", AT_FDCWD, "hard", 0));
  CHECK_EQ(inode_of("hard"), inode_of("soft"));
  SYS(linkat(AT_FDCWD, "soft", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
  CHECK_EQ(inode_of("followed"), inode_of("file"));
}

TEST(unlink_errors) {
  SYS(mkdir("dir", 0755));
  put_file("file");
  CHECK_ERRNO(unlink("missing"), ENOENT);
  CHECK_ERRNO(unlink("dir"), EISDIR);
  CHECK_ERRNO(unlink("file/below"), ENOTDIR);
  CHECK_ERRNO(unlink("file/"), ENOTDIR);
  CHECK_ERRNO(unlinkat(AT_FDCWD, "file", AT_REMOVEDIR), ENOTDIR);
  CHECK_ERRNO(unlinkat(AT_FDCWD, "file", 12345), EINVAL);
  SYS(unlinkat(AT_FDCWD, "dir", AT_REMOVEDIR));
  SYS(unlink("file"));
}

TEST(symlinks_are_followed_and_read) {
  SYS(mkdir("dir", 0755));
  put_file("dir/file", "through");
  SYS(symlink("dir", "link"));
  char text[16];
  read_text("link/file", text);
  CHECK_STR(text, "through");
  char target[64] = {};
  CHECK_EQ(readlink("link", target, sizeof target), 3);
  CHECK_STR(target, "dir");
  CHECK_EQ(readlink("link", target, 2), 2);
  CHECK_ERRNO(readlink("dir", target, sizeof target), EINVAL);
  CHECK_ERRNO(readlink("missing", target, sizeof target), ENOENT);
  CHECK_ERRNO(readlink("link", target, 0), EINVAL);
  struct stat status {};
  SYS(lstat("link", &status));
  CHECK(S_ISLNK(status.st_mode));
  CHECK_EQ(status.st_size, 3);
  SYS(lstat("link/", &status));
  CHECK(S_ISDIR(status.st_mode));
  CHECK_ERRNO(symlink("x", "link"), EEXIST);
  CHECK_ERRNO(symlink("", "empty"), ENOENT);
}

TEST(symlink_loops_are_eloop) {
  SYS(symlink("b", "a"));
  SYS(symlink("a", "b"));
  CHECK_ERRNO(open("a", O_RDONLY), ELOOP);
  CHECK_ERRNO(open("a/below", O_RDONLY), ELOOP);
  put_file("file");
  char from[32] = "file", to[32];
  for (int i = 0; i < 45; i++) {
    snprintf(to, sizeof to, "chain%d", i);
    SYS(symlink(from, to));
    strcpy(from, to);
  }
  close(SYS(open("chain38", O_RDONLY)));
  CHECK_ERRNO(open("chain44", O_RDONLY), ELOOP);
}

TEST(absolute_symlink_starts_at_the_root) {
  char here[PATH_MAX], target[PATH_MAX + 16];
  REQUIRE(getcwd(here, sizeof here) != nullptr);
  put_file("file", "absolute");
  snprintf(target, sizeof target, "%s/file", here);
  SYS(symlink(target, "link"));
  char text[16];
  read_text("link", text);
  CHECK_STR(text, "absolute");
}

TEST(removed_directory_has_no_entries) {
  SYS(mkdir("dir", 0755));
  const int fd = static_cast<int>(SYS(open("dir", O_RDONLY | O_DIRECTORY)));
  SYS(rmdir("dir"));
  char buffer[256];
  CHECK_ERRNO(syscall(SYS_getdents64, fd, buffer, sizeof buffer), ENOENT);
}

TEST(mkdir_and_rmdir) {
  umask(022);
  SYS(mkdir("dir", 0777));
  struct stat status {};
  SYS(stat("dir", &status));
  CHECK_EQ(status.st_mode, S_IFDIR | 0755);
  CHECK_ERRNO(mkdir("dir", 0755), EEXIST);
  CHECK_ERRNO(mkdir("missing/dir", 0755), ENOENT);
  SYS(mkdir("dir/sub/", 0755));
  CHECK_ERRNO(rmdir("dir"), ENOTEMPTY);
  CHECK_ERRNO(rmdir("dir/."), EINVAL);
  CHECK_ERRNO(rmdir("dir/sub/.."), ENOTEMPTY);
  SYS(rmdir("dir/sub"));
  put_file("file");
  CHECK_ERRNO(rmdir("file"), ENOTDIR);
  SYS(rmdir("dir"));
  CHECK_ERRNO(rmdir("dir"), ENOENT);
  const int error = rmdir("/") == -1 ? errno : 0;
  CHECK(error == EBUSY || error == EACCES || error == EPERM);
}

TEST(getdents_lists_everything_once) {
  SYS(mkdir("dir", 0755));
  char name[64];
  for (int i = 0; i < 300; i++) {
    snprintf(name, sizeof name, "dir/a-rather-long-name-to-fill-the-buffer-%d", i);
    put_file(name);
  }
  SYS(mkdir("dir/sub", 0755));
  SYS(symlink("x", "dir/soft"));
  const auto names = names_in("dir");
  CHECK_EQ(names.size(), 304);
  CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
  CHECK(std::binary_search(names.begin(), names.end(), "."));
  CHECK(std::binary_search(names.begin(), names.end(), ".."));
}

TEST(getdents_types_and_small_buffers) {
  SYS(mkdir("dir", 0755));
  SYS(mkdir("dir/sub", 0755));
  put_file("dir/file");
  SYS(symlink("x", "dir/soft"));
  DIR *directory = opendir("dir");
  REQUIRE(directory != nullptr);
  while (const dirent *entry = readdir(directory)) {
    const char *name = entry->d_name;
    const int wanted = name[0] == 's' && name[1] == 'o' ? DT_LNK : name[0] == 'f' ? DT_REG : DT_DIR;
    CHECK(entry->d_type == wanted || entry->d_type == DT_UNKNOWN);
    if (name[0] != '.') CHECK_EQ(entry->d_ino, inode_of((std::string("dir/") + name).c_str()));
  }
  closedir(directory);
  const int fd = SYS(open("dir", O_RDONLY));
  char tiny[8];
  CHECK_ERRNO(syscall(SYS_getdents64, fd, tiny, sizeof tiny), EINVAL);
  const int file = SYS(open("dir/file", O_RDONLY));
  char buffer[512];
  CHECK_ERRNO(syscall(SYS_getdents64, file, buffer, sizeof buffer), ENOTDIR);
}

TEST(rewound_directory_shows_changes) {
  SYS(mkdir("dir", 0755));
  put_file("dir/one");
  DIR *directory = opendir("dir");
  REQUIRE(directory != nullptr);
  int count = 0;
  while (readdir(directory)) count++;
  CHECK_EQ(count, 3);
  put_file("dir/two");
  rewinddir(directory);
  for (count = 0; readdir(directory); count++) {
  }
  CHECK_EQ(count, 4);
  closedir(directory);
}

TEST(removing_while_listing_finds_all) {
  SYS(mkdir("dir", 0755));
  char name[64];
  for (int i = 0; i < 500; i++) {
    snprintf(name, sizeof name, "dir/file%d", i);
    put_file(name);
  }
  DIR *directory = opendir("dir");
  REQUIRE(directory != nullptr);
  while (const dirent *entry = readdir(directory))
    if (entry->d_name[0] != '.') SYS(unlinkat(dirfd(directory), entry->d_name, 0));
  closedir(directory);
  SYS(rmdir("dir"));
}

TEST(directory_link_counts) {
  SYS(mkdir("dir", 0755));
  const nlink_t before = links_of("dir");
  SYS(mkdir("dir/sub", 0755));
  const nlink_t after = links_of("dir");
  CHECK(after == before + 1 || (before == 1 && after == 1));  // some file systems do not count
  SYS(rmdir("dir/sub"));
  CHECK_EQ(links_of("dir"), before);
}

TEST(getcwd_chdir_and_fchdir) {
  char start[PATH_MAX], here[PATH_MAX];
  REQUIRE(getcwd(start, sizeof start) != nullptr);
  SYS(mkdir("dir", 0755));
  SYS(mkdir("dir/sub", 0755));
  SYS(symlink("dir/sub", "link"));
  const int back = SYS(open(".", O_RDONLY | O_DIRECTORY));
  SYS(chdir("link"));
  REQUIRE(getcwd(here, sizeof here) != nullptr);
  CHECK_STR(here, (std::string(start) + "/dir/sub").c_str());
  SYS(chdir(".."));
  REQUIRE(getcwd(here, sizeof here) != nullptr);
  CHECK_STR(here, (std::string(start) + "/dir").c_str());
  SYS(fchdir(back));
  REQUIRE(getcwd(here, sizeof here) != nullptr);
  CHECK_STR(here, start);
  CHECK_ERRNO(syscall(SYS_getcwd, here, 2), ERANGE);
  CHECK_ERRNO(chdir("missing"), ENOENT);
  put_file("file");
  CHECK_ERRNO(chdir("file"), ENOTDIR);
  SYS(chdir("/"));
  REQUIRE(getcwd(here, sizeof here) != nullptr);
  CHECK_STR(here, "/");
  SYS(chdir("../../.."));
  REQUIRE(getcwd(here, sizeof here) != nullptr);
  CHECK_STR(here, "/");
}

TEST(getcwd_follows_a_rename) {
  char start[PATH_MAX], here[PATH_MAX];
  REQUIRE(getcwd(start, sizeof start) != nullptr);
  SYS(mkdir("old", 0755));
  SYS(chdir("old"));
  SYS(rename("../old", "../new"));
  REQUIRE(getcwd(here, sizeof here) != nullptr);
  CHECK_STR(here, (std::string(start) + "/new").c_str());
}

TEST(removed_current_directory) {
  SYS(mkdir("dir", 0755));
  SYS(chdir("dir"));
  SYS(rmdir("../dir"));
  char here[PATH_MAX];
  CHECK_ERRNO(syscall(SYS_getcwd, here, sizeof here), ENOENT);
  CHECK_ERRNO(open("file", O_CREAT | O_RDWR, 0600), ENOENT);
  CHECK_ERRNO(mkdir("sub", 0755), ENOENT);
  close(SYS(open(".", O_RDONLY)));
}

TEST(at_calls_work_from_a_directory) {
  SYS(mkdir("dir", 0755));
  const int dir = SYS(open("dir", O_RDONLY | O_DIRECTORY));
  SYS(mkdirat(dir, "sub", 0700));
  close(SYS(openat(dir, "sub/file", O_CREAT | O_RDWR, 0600)));
  CHECK(exists("dir/sub/file"));
  SYS(symlinkat("sub/file", dir, "soft"));
  char target[32] = {};
  CHECK_EQ(readlinkat(dir, "soft", target, sizeof target), 8);
  struct stat status {};
  SYS(fstatat(dir, "soft", &status, 0));
  CHECK(S_ISREG(status.st_mode));
  SYS(fstatat(dir, "soft", &status, AT_SYMLINK_NOFOLLOW));
  CHECK(S_ISLNK(status.st_mode));
  SYS(fstatat(dir, "", &status, AT_EMPTY_PATH));
  CHECK(S_ISDIR(status.st_mode));
  SYS(renameat(dir, "sub/file", AT_FDCWD, "moved"));
  CHECK(exists("moved"));
  SYS(linkat(AT_FDCWD, "moved", dir, "linked", 0));
  SYS(fchmodat(dir, "linked", 0640, 0));
  SYS(faccessat(dir, "linked", R_OK, 0));
  SYS(unlinkat(dir, "linked", 0));
  const int file = SYS(open("moved", O_RDONLY));
  CHECK_ERRNO(openat(file, "x", O_RDONLY), ENOTDIR);
  CHECK_ERRNO(openat(999, "x", O_RDONLY), EBADF);
  char absolute[PATH_MAX];
  REQUIRE(realpath("moved", absolute) != nullptr);
  close(SYS(openat(999, absolute, O_RDONLY)));
}

TEST(open_path_gives_a_handle_only) {
  SYS(mkdir("dir", 0755));
  put_file("dir/file", "x");
  const int dir = SYS(open("dir", O_PATH | O_DIRECTORY));
  const int file = SYS(openat(dir, "file", O_PATH));
  char byte;
  CHECK_ERRNO(read(file, &byte, 1), EBADF);
  CHECK_ERRNO(write(file, "x", 1), EBADF);
  CHECK_ERRNO(fchmod(file, 0600), EBADF);
  struct stat status {};
  SYS(fstat(file, &status));
  CHECK_EQ(status.st_size, 1);
  SYS(symlink("file", "dir/soft"));
  const int soft = SYS(openat(dir, "soft", O_PATH | O_NOFOLLOW));
  SYS(fstat(soft, &status));
  CHECK(S_ISLNK(status.st_mode));
  char target[16] = {};
  CHECK_EQ(readlinkat(soft, "", target, sizeof target), 4);
  SYS(fchdir(dir));
}

TEST(long_names_are_refused) {
  std::string name(255, 'n');
  put_file(name.c_str());
  CHECK(exists(name.c_str()));
  name += 'n';
  CHECK_ERRNO(open(name.c_str(), O_CREAT | O_RDWR, 0600), ENAMETOOLONG);
  CHECK_ERRNO(mkdir(name.c_str(), 0755), ENAMETOOLONG);
  std::string path;
  while (path.size() < 5000) path += "./";
  CHECK_ERRNO(open(path.c_str(), O_RDONLY), ENAMETOOLONG);
  path.resize(4094);
  close(SYS(open(path.c_str(), O_RDONLY | O_DIRECTORY)));
}

TEST(slashes_and_dots) {
  SYS(mkdir("dir", 0755));
  put_file("dir/file");
  SYS(symlink("dir/file", "soft"));
  CHECK(exists("./dir//.//file"));
  CHECK(exists("dir/../dir/file"));
  CHECK(exists("dir/"));
  CHECK_ERRNO(access("dir/file/", F_OK), ENOTDIR);
  CHECK_ERRNO(access("dir/file/..", F_OK), ENOTDIR);
  CHECK_ERRNO(access("soft/", F_OK), ENOTDIR);
  CHECK_ERRNO(unlink("dir/."), EISDIR);
  CHECK_ERRNO(mkdir(".", 0755), EEXIST);
  CHECK_ERRNO(mkdir("/", 0755), EEXIST);
}

TEST(special_names_keep_their_bytes) {
  for (const char *name : {" ", "new\nline", "\xff\xfe", "-rf", "...", "a:b*?"}) {
    put_file(name, "x");
    CHECK(exists(name));
  }
  CHECK_EQ(names_in(".").size(), 8);
}

TEST(mknod_makes_files_and_fifos) {
  SYS(mknod("plain", S_IFREG | 0600, 0));
  struct stat status {};
  SYS(stat("plain", &status));
  CHECK(S_ISREG(status.st_mode));
  SYS(mkfifo("fifo", 0640));
  SYS(stat("fifo", &status));
  CHECK_EQ(status.st_mode, S_IFIFO | 0640);
  CHECK_ERRNO(mknod("plain", S_IFREG | 0600, 0), EEXIST);
  CHECK_ERRNO(mknod("dir", S_IFDIR | 0700, 0), EPERM);
}

TEST(mknod_of_a_device_works_for_root) {
  need_root();
  if (mknod("null", S_IFCHR | 0666, makedev(1, 3)) != 0 && errno == EPERM)
    SKIP("the file system or the host refuses device nodes");
  struct stat status {};
  SYS(stat("null", &status));
  CHECK(S_ISCHR(status.st_mode));
  CHECK_EQ(status.st_rdev, makedev(1, 3));
  SYS(mknod("nodevice", S_IFCHR | 0600, makedev(250, 77)));
  CHECK_ERRNO(open("nodevice", O_RDONLY), ENXIO);
}

TEST(deep_directories) {
  constexpr int kDepth = 200;
  for (int i = 0; i < kDepth; i++) {
    SYS(mkdir("directory", 0755));
    SYS(chdir("directory"));
  }
  put_file("bottom", "x");
  char here[PATH_MAX];
  REQUIRE(getcwd(here, sizeof here) != nullptr);
  CHECK(strlen(here) > kDepth * 10);
  SYS(unlink("bottom"));
  for (int i = 0; i < kDepth; i++) {
    SYS(chdir(".."));
    SYS(rmdir("directory"));
  }
}

TEST(two_processes_create_a_name_once) {
  struct Wins {
    volatile int of[2];
  };
  auto *won = share<Wins>();
  for (int round = 0; round < 20; round++) {
    char name[16];
    snprintf(name, sizeof name, "name%d", round);
    pid_t children[2];
    for (int who = 0; who < 2; who++)
      children[who] = start_child([&, who] {
        const int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);
        if (fd >= 0) won->of[who] = won->of[who] + 1;
        if (fd < 0) CHECK_EQ(errno, EEXIST);
      });
    CHECK_EQ(wait_for(children[0]), 0);
    CHECK_EQ(wait_for(children[1]), 0);
  }
  CHECK_EQ(won->of[0] + won->of[1], 20);
}

}  // namespace

TAP_MAIN()
