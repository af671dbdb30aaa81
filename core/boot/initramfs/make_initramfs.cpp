// make_initramfs OUTPUT BUSYBOX SKELETON: writes the embedded root file system, a newc cpio
// (Linux: Documentation/driver-api/early-userspace/buffer-format.rst), as the build needs it:
// busybox with a link for each applet, the files under SKELETON, the usual empty directories and
// the two device nodes that a first program needs. A host tool of the build; nothing else calls it.
//
// The same inputs give the same bytes: times are 0, inode numbers count up, names are sorted.
#include <sys/stat.h>
#include <sys/types.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string &message) {
  std::fprintf(stderr, "make_initramfs: %s\n", message.c_str());
  std::exit(1);
}

struct Entry {
  mode_t mode = 0;
  std::string data = {};  // of a file; of a link its target
  unsigned major = 0;
  unsigned minor = 0;
};

using Tree = std::map<std::string, Entry>;  // by path without a leading slash; parents sort first

std::string read_file(const fs::path &path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

void add_directories(Tree &tree) {
  for (const char *name : {"bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sbin", "sys",
                           "usr", "usr/bin", "usr/sbin", "var", "var/log"}) {
    tree[name] = {.mode = S_IFDIR | 0755};
  }
  tree["root"].mode = S_IFDIR | 0700;
  tree["tmp"] = {.mode = S_IFDIR | 01777};
}

void add_devices(Tree &tree) {
  tree["dev/console"] = {.mode = S_IFCHR | 0600, .major = 5, .minor = 1};
  tree["dev/null"] = {.mode = S_IFCHR | 0666, .major = 1, .minor = 3};
}

// The applets are asked of the program itself, so that links and program always fit.
std::vector<std::string> applets_of(const std::string &busybox) {
  std::FILE *pipe = ::popen(("'" + busybox + "' --list-full").c_str(), "r");
  if (!pipe) fail("cannot run " + busybox);
  std::string text;
  char buffer[4096];
  for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
  if (::pclose(pipe) != 0) fail(busybox + " --list-full failed");
  std::vector<std::string> names;
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    names.push_back(text.substr(begin, end - begin));
  }
  return names;
}

void add_busybox(Tree &tree, const std::string &busybox) {
  tree["bin/busybox"] = {.mode = S_IFREG | 0755, .data = read_file(busybox)};
  for (const auto &name : applets_of(busybox)) {
    if (name == "bin/busybox") continue;
    const auto parent = fs::path(name).parent_path().string();
    if (!parent.empty() && !tree.contains(parent)) tree[parent] = {.mode = S_IFDIR | 0755};
    tree[name] = {.mode = S_IFLNK | 0777, .data = "/bin/busybox"};
  }
}

void add_skeleton(Tree &tree, const fs::path &skeleton) {
  for (const auto &item : fs::recursive_directory_iterator(skeleton)) {
    const auto name = item.path().lexically_relative(skeleton).string();
    if (item.is_directory()) {
      tree[name] = {.mode = S_IFDIR | 0755};
    } else {
      const bool script = name.starts_with("etc/init.d/");
      tree[name] = {.mode = S_IFREG | (script ? 0755u : 0644u), .data = read_file(item.path())};
    }
  }
}

void pad(std::string &out) { out.resize((out.size() + 3) / 4 * 4, '\0'); }

void write_entry(std::string &out, const std::string &name, const Entry &entry, unsigned inode) {
  const unsigned links = S_ISDIR(entry.mode) ? 2 : 1;
  char header[111];
  std::snprintf(header, sizeof header, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
                inode, static_cast<unsigned>(entry.mode), 0u, 0u, links, 0u,
                static_cast<unsigned>(entry.data.size()), 0u, 0u, entry.major, entry.minor,
                static_cast<unsigned>(name.size() + 1), 0u);
  out += header;
  out.append(name.c_str(), name.size() + 1);
  pad(out);
  out += entry.data;
  pad(out);
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 4) fail("usage: make_initramfs OUTPUT BUSYBOX SKELETON");
  Tree tree;
  add_directories(tree);
  add_devices(tree);
  add_busybox(tree, argv[2]);
  add_skeleton(tree, argv[3]);

  std::string out;
  unsigned inode = 1;
  for (const auto &[name, entry] : tree) write_entry(out, name, entry, inode++);
  write_entry(out, "TRAILER!!!", {}, 0);

  std::ofstream file(argv[1], std::ios::binary | std::ios::trunc);
  file.write(out.data(), static_cast<std::streamsize>(out.size()));
  file.close();
  if (!file) fail(std::string("cannot write ") + argv[1]);
}
