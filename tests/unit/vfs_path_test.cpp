// The walk from names to files, permissions, names that come and go, mounts.
#include <catch2/catch.hpp>

#include "unit/vfs_support.hpp"
#include "vfs/attributes.hpp"

using namespace cowbird;
using namespace cowbird::vfs_test;

VFS_TEST("a path is walked through directories, dots and slashes") {
  Tree tree;
  tree.mkdir("/a");
  tree.mkdir("/a/b");
  tree.write("/a/b/f", "hello");
  CHECK(tree.read("/a/b/f") == "hello");
  CHECK(tree.read("a//b/./../b///f") == "hello");
  CHECK(tree.read("/../../a/b/f") == "hello");
  CHECK_ERROR(tree.find(""), NoEnt);
  CHECK_ERROR(tree.find("/a/x/f"), NoEnt);
  CHECK_ERROR(tree.find("/a/b/f/g"), NotDir);
  CHECK_ERROR(tree.find("/a/b/f/"), NotDir);
  CHECK_ERROR(tree.find("/a/b/f/."), NotDir);
  CHECK_ERROR(tree.find("/" + std::string(256, 'n')), NameTooLong);
  CHECK_ERROR(tree.find(std::string(4096, '/')), NameTooLong);
  CHECK(tree.find("/" + std::string(255, 'n')).is(Errno::NoEnt));
  CHECK(path_name(*tree.find("/a/b"), tree.fs->root) == "/a/b");
  CHECK(path_name(tree.fs->root, tree.fs->root) == "/");
}

VFS_TEST("symbolic links are followed where the rules say so") {
  Tree tree;
  tree.mkdir("/d");
  tree.write("/d/f", "x");
  REQUIRE(make_symlink(tree.walk(), "d", "/rel"));
  REQUIRE(make_symlink(tree.walk(), "/d/f", "/abs"));
  REQUIRE(make_symlink(tree.walk(), "loop", "/loop"));
  REQUIRE(make_symlink(tree.walk(), "rel/", "/slash"));
  CHECK(tree.read("/rel/f") == "x");
  CHECK(tree.read("/abs") == "x");
  CHECK(tree.read("/slash/f") == "x");
  CHECK_ERROR(tree.find("/loop"), Loop);
  CHECK(tree.find("/loop", LookupFlag::None));
  CHECK(tree.find("/abs", LookupFlag::None)->inode().is_symlink());
  CHECK(tree.find("/rel/", LookupFlag::None)->inode().is_directory());
  CHECK_ERROR(tree.open("/abs", abi::kO_NOFOLLOW), Loop);
  CHECK_ERROR(tree.open("/abs", abi::kO_CREAT | abi::kO_EXCL | abi::kO_WRONLY), Exist);
  CHECK_ERROR(tree.find("/rel/f", LookupFlag::NoSymlinks), Loop);
  // 40 links are allowed, one more is not.
  REQUIRE(make_symlink(tree.walk(), "/d/f", "/l0"));
  for (int i = 1; i <= 40; ++i) {
    REQUIRE(make_symlink(tree.walk(), "/l" + std::to_string(i - 1), "/l" + std::to_string(i)));
  }
  CHECK(tree.read("/l39") == "x");
  CHECK_ERROR(tree.find("/l40"), Loop);
  // Creating through a dangling link makes its target.
  REQUIRE(make_symlink(tree.walk(), "d/new", "/dangling"));
  tree.write("/dangling", "made");
  CHECK(tree.read("/d/new") == "made");
}

VFS_TEST("openat2 keeps a walk beneath its start or on one mount") {
  Tree tree;
  tree.mkdir("/box");
  tree.mkdir("/box/in");
  tree.write("/secret", "s");
  REQUIRE(make_symlink(tree.walk(), "/secret", "/box/out"));
  REQUIRE(make_symlink(tree.walk(), "../secret", "/box/up"));
  WalkContext walk = tree.walk();
  walk.start = *tree.find("/box");
  CHECK(lookup(walk, "in/..", LookupFlag::Beneath));
  CHECK_ERROR(lookup(walk, "..", LookupFlag::Beneath), XDev);
  CHECK_ERROR(lookup(walk, "in/../..", LookupFlag::Beneath), XDev);
  CHECK_ERROR(lookup(walk, "/box", LookupFlag::Beneath), XDev);
  CHECK_ERROR(lookup(walk, "out", LookupFlag::Beneath | LookupFlag::Follow), XDev);
  CHECK_ERROR(lookup(walk, "up", LookupFlag::Beneath | LookupFlag::Follow), XDev);
  CHECK_ERROR(lookup(walk, "out", LookupFlag::InRoot | LookupFlag::Follow), NoEnt);
  CHECK_ERROR(lookup(walk, "up", LookupFlag::InRoot | LookupFlag::Follow), NoEnt);
  CHECK(lookup(walk, "/in/../../..", LookupFlag::InRoot)->dentry == walk.start.dentry);
  REQUIRE(mount_at(*tree.find("/box/in"), make_tmpfs("tmpfs", {}), "t", 0));
  CHECK_ERROR(lookup(walk, "in", LookupFlag::NoXDev), XDev);
  CHECK(lookup(walk, "in", LookupFlag::Beneath));
}

VFS_TEST("permissions follow owner, group, others and capabilities") {
  Tree tree;
  tree.mkdir("/private", 0700);
  tree.write("/private/f", "x");
  tree.write("/f", "x");
  const Path file = *tree.find("/f");
  SetAttr change;
  change.mode = 0640;
  change.uid = 10;
  change.gid = 20;
  REQUIRE(set_attributes(file, change, Credentials::kernel()));
  Inode &inode = file.inode();
  CHECK(check_permission(inode, 6, user(10)));
  CHECK_ERROR(check_permission(inode, 1, user(10)), Access);
  Credentials member = user(11);
  member.groups = {20};
  CHECK(check_permission(inode, 4, member));
  CHECK_ERROR(check_permission(inode, 2, member), Access);
  CHECK_ERROR(check_permission(inode, 4, user(12)), Access);
  // The owner's bits count for the owner even when the group would have more.
  change = {};
  change.mode = 0070;
  REQUIRE(set_attributes(file, change, Credentials::kernel()));
  CHECK_ERROR(check_permission(inode, 4, user(10)), Access);
  Credentials root;
  CHECK(check_permission(inode, 7, root));
  change.mode = 0600;
  REQUIRE(set_attributes(file, change, Credentials::kernel()));
  CHECK_ERROR(check_permission(inode, 1, root), Access);
  Credentials searcher = user(12);
  searcher.cap_effective = 1u << static_cast<unsigned>(Capability::DacReadSearch);
  CHECK(check_permission(inode, 4, searcher));
  CHECK_ERROR(check_permission(inode, 2, searcher), Access);
  CHECK(check_permission(tree.find("/private")->inode(), 5, searcher));

  caller().credentials = user(12);
  CHECK_ERROR(tree.find("/private/f"), Access);
  CHECK_ERROR(tree.open("/private/new", abi::kO_CREAT | abi::kO_WRONLY), Access);
}

VFS_TEST("chmod and chown keep to their rules and drop set-id bits") {
  Tree tree;
  tree.write("/f", "x");
  const Path file = *tree.find("/f");
  SetAttr change;
  change.uid = 10;
  change.gid = 10;
  REQUIRE(set_attributes(file, change, Credentials::kernel()));
  change = {};
  change.mode = 06755;
  CHECK_ERROR(set_attributes(file, change, user(11)), Perm);
  REQUIRE(set_attributes(file, change, user(10)));
  CHECK((file.inode().mode & 07777) == 06755);
  change = {};
  change.gid = 11;
  CHECK_ERROR(set_attributes(file, change, user(10)), Perm);
  Credentials member = user(10);
  member.groups = {11};
  REQUIRE(set_attributes(file, change, member));
  CHECK((file.inode().mode & 07777) == 0755);
  // Not in the file's group: set-gid cannot be set.
  change = {};
  change.mode = 02755;
  REQUIRE(set_attributes(file, change, user(10)));
  CHECK((file.inode().mode & 07777) == 0755);
  // A write by somebody else takes the bits away.
  change.mode = 04777;
  REQUIRE(set_attributes(file, change, Credentials::kernel()));
  caller().credentials = user(12);
  auto open = tree.open("/f", abi::kO_WRONLY);
  REQUIRE(open);
  REQUIRE(write_some(**open, "y"));
  CHECK((file.inode().mode & 07777) == 0777);
}

VFS_TEST("a sticky directory protects other people's files") {
  Tree tree;
  tree.mkdir("/tmp");
  SetAttr change;
  change.mode = 01777;
  REQUIRE(set_attributes(*tree.find("/tmp"), change, Credentials::kernel()));
  caller().credentials = user(10);
  tree.write("/tmp/mine", "x");
  caller().credentials = user(11);
  CHECK_ERROR(remove_name(tree.walk(), "/tmp/mine"), Perm);
  CHECK_ERROR(rename_path(tree.walk(), "/tmp/mine", tree.walk(), "/tmp/yours", 0), Perm);
  caller().credentials = user(10);
  CHECK(remove_name(tree.walk(), "/tmp/mine"));
}

VFS_TEST("names are made and removed, and open files outlive them") {
  Tree tree;
  tree.write("/f", "keep");
  CHECK_ERROR(make_directory(tree.walk(), "/f", 0755), Exist);
  CHECK_ERROR(make_node(tree.walk(), "/g/", 0100644, {}), NoEnt);
  CHECK_ERROR(make_directory(tree.walk(), "/.", 0755), Exist);
  auto file = tree.open("/f");
  REQUIRE(file);
  REQUIRE(make_link(tree.walk(), *tree.find("/f"), tree.walk(), "/g"));
  CHECK((*file)->inode->nlink == 2);
  CHECK(remove_name(tree.walk(), "/f"));
  CHECK(remove_name(tree.walk(), "/g"));
  CHECK((*file)->inode->nlink == 0);
  CHECK(read_some(**file) == "keep");
  CHECK(path_name((*file)->path, tree.fs->root) == "/f (deleted)");
  CHECK_ERROR(tree.find("/f"), NoEnt);
  CHECK_ERROR(make_link(tree.walk(), (*file)->path, tree.walk(), "/back"), NoEnt);
  CHECK_ERROR(remove_name(tree.walk(), "/f"), NoEnt);

  tree.mkdir("/d");
  tree.write("/d/x", "");
  CHECK_ERROR(remove_name(tree.walk(), "/d"), IsDir);
  CHECK_ERROR(remove_directory(tree.walk(), "/d"), NotEmpty);
  CHECK_ERROR(remove_directory(tree.walk(), "/d/x"), NotDir);
  CHECK_ERROR(remove_directory(tree.walk(), "/d/."), Inval);
  CHECK_ERROR(make_link(tree.walk(), *tree.find("/d"), tree.walk(), "/dd"), Perm);
  CHECK(remove_name(tree.walk(), "/d/x"));
  const Path directory = *tree.find("/d");
  tree.fs->cwd = directory;
  CHECK(remove_directory(tree.walk(), "/d"));
  CHECK_ERROR(tree.open("new", abi::kO_CREAT | abi::kO_WRONLY), NoEnt);
  CHECK_ERROR(make_directory(tree.walk(), "new", 0755), NoEnt);
}

VFS_TEST("rename keeps to rename(2)") {
  Tree tree;
  tree.mkdir("/a");
  tree.mkdir("/a/b");
  tree.mkdir("/c");
  tree.write("/f", "f");
  tree.write("/g", "g");
  auto rename = [&](std::string_view from, std::string_view to, std::uint32_t flags = 0) {
    return rename_path(tree.walk(), from, tree.walk(), to, flags);
  };
  CHECK_ERROR(rename("/a", "/a/b/x"), Inval);
  CHECK_ERROR(rename("/a/b", "/a"), NotEmpty);
  CHECK_ERROR(rename("/f", "/c"), IsDir);
  CHECK_ERROR(rename("/c", "/f"), NotDir);
  CHECK_ERROR(rename("/none", "/x"), NoEnt);
  CHECK_ERROR(rename("/f", "/x/"), NotDir);
  CHECK_ERROR(rename("/a/.", "/x"), Busy);
  CHECK_ERROR(rename("/c", "/a"), NotEmpty);
  CHECK_ERROR(rename("/f", "/g", abi::kRENAME_NOREPLACE), Exist);
  CHECK_ERROR(rename("/f", "/x", abi::kRENAME_EXCHANGE), NoEnt);
  CHECK_ERROR(rename("/f", "/g", abi::kRENAME_WHITEOUT), Inval);
  CHECK(rename("/f", "/g", abi::kRENAME_EXCHANGE));
  CHECK(tree.read("/f") == "g");
  CHECK(tree.read("/g") == "f");
  CHECK(rename("/f", "/g"));
  CHECK(tree.read("/g") == "g");
  CHECK_ERROR(tree.find("/f"), NoEnt);
  CHECK(tree.find("/")->inode().nlink == 4);
  CHECK(rename("/a/b", "/c/b"));
  CHECK(tree.find("/a")->inode().nlink == 2);
  CHECK(tree.find("/c")->inode().nlink == 3);
  CHECK(path_name(*tree.find("/c/b/../b"), tree.fs->root) == "/c/b");
  CHECK(rename("/a", "/c/b"));  // an empty directory is replaced
  CHECK(tree.list("/c") == std::vector<std::string>{".", "..", "b"});
  // Two names of one file: nothing happens.
  REQUIRE(make_link(tree.walk(), *tree.find("/g"), tree.walk(), "/h"));
  CHECK(rename("/g", "/h"));
  CHECK(tree.find("/g"));
}

VFS_TEST("mounts cover directories, bind, move and go") {
  Tree tree;
  tree.mkdir("/m");
  tree.mkdir("/n");
  tree.write("/m/under", "u");
  REQUIRE(mount_at(*tree.find("/m"), make_tmpfs("tmpfs", {}), "one", kMountNoDev));
  CHECK_ERROR(tree.find("/m/under"), NoEnt);
  tree.write("/m/over", "o");
  CHECK(path_name(*tree.find("/m/over"), tree.fs->root) == "/m/over");
  CHECK(tree.find("/m/..")->dentry == tree.fs->root.dentry);
  CHECK_ERROR(rename_path(tree.walk(), "/m/over", tree.walk(), "/over", 0), XDev);
  CHECK_ERROR(remove_directory(tree.walk(), "/m"), Busy);
  REQUIRE(bind_mount(*tree.find("/n"), *tree.find("/m"), false));
  CHECK(tree.read("/n/over") == "o");
  {
    auto held = tree.open("/n/over");
    CHECK_ERROR(unmount(*tree.find("/n"), false), Busy);
  }
  CHECK(unmount(*tree.find("/n"), false));
  CHECK_ERROR(tree.find("/n/over"), NoEnt);
  REQUIRE(move_mount(*tree.find("/m"), *tree.find("/n")));
  CHECK(tree.read("/n/over") == "o");
  CHECK(tree.read("/m/under") == "u");
  const auto mounts = list_mounts(tree.fs->root);
  REQUIRE(mounts.size() == 2);
  CHECK(mounts[1].mount_point == "/n");
  CHECK(mounts[1].flags == kMountNoDev);
  // Read-only: of this mount alone.
  REQUIRE(remount(*tree.find("/n"), "", kMountReadOnly, true));
  CHECK_ERROR(tree.open("/n/over", abi::kO_WRONLY), RoFs);
  CHECK_ERROR(tree.open("/n/new", abi::kO_CREAT | abi::kO_WRONLY), RoFs);
  auto held = tree.open("/n/over");
  CHECK(unmount(*tree.find("/n"), true));
  CHECK(read_some(**held) == "o");
  CHECK_ERROR(unmount(tree.fs->root, false), Busy);
}

VFS_TEST("pivot_root turns the tree over") {
  Tree tree;
  tree.mkdir("/new");
  REQUIRE(mount_at(*tree.find("/new"), make_tmpfs("tmpfs", {}), "new", 0));
  tree.mkdir("/new/old");
  tree.write("/top", "old root");
  const Path new_root = *tree.find("/new");
  CHECK_ERROR(pivot_root(new_root, *tree.find("/"), *tree.fs), Busy);
  REQUIRE(pivot_root(new_root, *tree.find("/new/old"), *tree.fs));
  tree.fs->root = tree.fs->cwd = new_root;
  CHECK(tree.read("/old/top") == "old root");
  CHECK(tree.find("/..")->dentry == new_root.dentry);
}

VFS_TEST("the dentry cache is bounded and forgets what nobody uses") {
  Tree tree;
  tree.mkdir("/d");
  const std::size_t before = dcache::size();
  for (int i = 0; i < 40000; ++i) CHECK_ERROR(tree.find("/d/no" + std::to_string(i)), NoEnt);
  CHECK(dcache::size() <= dcache::kMaxEntries);
  tree.write("/d/kept", "k");
  auto held = tree.open("/d/kept");
  dcache::shrink(dcache::kMaxEntries);
  CHECK(dcache::size() <= before + 16);
  CHECK(read_some(**held) == "k");
  CHECK(tree.read("/d/kept") == "k");
}

VFS_TEST("a deep tree comes and goes without using up the stack") {
  Tree tree;
  const Path top = tree.fs->cwd;
  for (int i = 0; i < 8000; ++i) {
    tree.mkdir("d");
    tree.fs->cwd = *tree.find("d");
  }
  CHECK_ERROR(tree.find("/d/x"), NoEnt);
  for (int i = 0; i < 4000; ++i) {
    REQUIRE(remove_directory(tree.walk(), "../d"));
    Path up = tree.fs->cwd;
    up.dentry = Ref<Dentry>(up.dentry->parent());
    if (i < 3999) tree.fs->cwd = up;
  }
  tree.fs->cwd = top;
  dcache::shrink(dcache::kMaxEntries);
}

VFS_TEST("pivot_root makes no ring of mounts") {
  Tree tree;
  tree.mkdir("/a");
  REQUIRE(mount_at(*tree.find("/a"), make_tmpfs("tmpfs", {}), "a", 0));
  tree.mkdir("/a/b");
  tree.mkdir("/a/c");
  REQUIRE(mount_at(*tree.find("/a/b"), make_tmpfs("tmpfs", {}), "b", 0));
  REQUIRE(mount_at(*tree.find("/a/c"), make_tmpfs("tmpfs", {}), "c", 0));
  const Path above = *tree.find("/a"), beside = *tree.find("/a/c");
  const Ref<FsContext> inside = tree.fs->clone();
  inside->root = *tree.find("/a/b");
  CHECK_ERROR(pivot_root(above, beside, *inside), Inval);
  CHECK(path_name(beside, tree.fs->root) == "/a/c");
}

VFS_TEST("the name of a place deeper than any path is not told whole") {
  Tree tree;
  const std::string name(255, 'n');
  for (int depth = 0; depth < 40; ++depth) {
    tree.mkdir(name);
    tree.fs->cwd = *tree.find(name);
  }
  const std::string told = path_name(tree.fs->cwd, tree.fs->root);
  CHECK(told.size() > abi::kPATH_MAX);
  CHECK(told.size() < 2 * abi::kPATH_MAX);
}
