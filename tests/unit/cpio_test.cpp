// cpio archives: what they create, and what hostile ones are told.
#include <fmt/format.h>
#include <zlib.h>

#include <catch2/catch.hpp>

#include "fs/initramfs.hpp"
#include "unit/vfs_support.hpp"

using namespace cowbird;
using namespace cowbird::vfs_test;

namespace {

struct Fields {
  std::uint32_t inode = 1, mode = 0100644, uid = 0, gid = 0, nlink = 1, mtime = 1000, major = 0,
                minor = 0;
};

std::string entry(const std::string &name, const std::string &data, Fields fields = {}) {
  std::string out = fmt::format(
      "070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
      fields.inode, fields.mode, fields.uid, fields.gid, fields.nlink, fields.mtime, data.size(), 0,
      0, fields.major, fields.minor, name.size() + 1, 0);
  out += name;
  out += '\0';
  out.resize((out.size() + 3) / 4 * 4);
  out += data;
  out.resize((out.size() + 3) / 4 * 4);
  return out;
}
const std::string kTrailer = entry("TRAILER!!!", "", {.mode = 0});

std::string gzip(const std::string &plain) {
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(plain.size() + 1000, '\0');
  stream.next_in = reinterpret_cast<Bytef *>(const_cast<char *>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef *>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string unpack(Tree &tree, const std::string &archive) {
  std::string why;
  const auto done = unpack_initramfs(*tree.fs, std::as_bytes(std::span(archive)), why);
  CHECK(done.ok() == why.empty());
  return why;
}

std::string parse(const std::string &archive, std::uint64_t limit = 1 << 20) {
  return parse_cpio(std::as_bytes(std::span(archive)), limit,
                    [](const CpioEntry &) { return Result<void>{}; });
}

}  // namespace

VFS_TEST("an archive becomes a tree") {
  Tree tree;
  const std::string archive = entry(".", "", {.mode = 040755}) +
                              entry("dir", "", {.mode = 040750, .uid = 7}) +
                              entry("dir/file", "contents", {.mode = 0100640, .uid = 7, .gid = 8}) +
                              entry("./link", "dir/file", {.mode = 0120777}) +
                              entry("/dev/null", "", {.mode = 020666, .major = 1, .minor = 3}) +
                              entry("hard1", "", {.inode = 9, .nlink = 2}) +
                              entry("hard2", "shared", {.inode = 9, .nlink = 2}) +
                              entry("pipe", "", {.mode = 010600}) + kTrailer;
  REQUIRE(unpack(tree, archive).empty());
  CHECK(tree.read("/link") == "contents");
  const FileStat stat = *tree.find("/dir/file")->inode().getattr();
  CHECK(stat.mode == 0100640);
  CHECK(stat.uid == 7);
  CHECK(stat.gid == 8);
  CHECK(stat.mtime.sec == 1000);
  CHECK(tree.find("/dev/null")->inode().rdev == DeviceNumber{1, 3});
  CHECK(tree.read("/hard1") == "shared");
  CHECK(tree.find("/hard2")->inode().nlink == 2);
  CHECK(tree.find("/pipe")->inode().type() == FileType::Fifo);
  CHECK(tree.fs->umask == 022);
}

VFS_TEST("archives follow each other, plain and compressed, and later entries win") {
  Tree tree;
  const std::string first = entry("a", "1") + entry("b", "old") + kTrailer;
  const std::string second = entry("b", "new") + kTrailer;
  const std::string third = entry("c", "3") + kTrailer;
  REQUIRE(unpack(tree, first + std::string(512, '\0') + gzip(second) + gzip(third)).empty());
  CHECK(tree.read("/a") == "1");
  CHECK(tree.read("/b") == "new");
  CHECK(tree.read("/c") == "3");
}

TEST_CASE("hostile archives are refused with the place", "[cpio]") {
  CHECK(parse("") == "The initial root file system is empty: it has no cpio archive.");
  CHECK_THAT(parse("garbage"), Catch::Contains("neither a cpio archive"));
  const std::string good = entry("a", "data") + kTrailer;
  CHECK(parse(good).empty());
  for (std::size_t cut = 1; cut < good.size() - 3; ++cut)
    CHECK_FALSE(parse(good.substr(0, cut)).empty());
  CHECK_THAT(parse(entry("../etc/passwd", "x") + kTrailer), Catch::Contains("leads out"));
  CHECK_THAT(parse(entry("a/../../b", "x") + kTrailer), Catch::Contains("leads out"));
  std::string bad = good;
  bad.replace(54, 8, "ffffffff");  // the size of the file
  CHECK_THAT(parse(bad), Catch::Contains("longer than what is left"));
  bad = good;
  bad.replace(94, 8, "ffffffff");  // the size of the name
  CHECK_THAT(parse(bad), Catch::Contains("gives a name of"));
  bad = good;
  bad.replace(94, 8, "00000001");
  CHECK_FALSE(parse(bad).empty());
  bad = good;
  bad[20] = 'x';
  CHECK_THAT(parse(bad), Catch::Contains("no hexadecimal number"));
  CHECK_THAT(parse(entry("l", "", {.mode = 0120777}) + kTrailer), Catch::Contains("target"));
  const std::string bomb = gzip(std::string(1 << 20, '\0') + good);
  CHECK_THAT(parse(bomb, 1000), Catch::Contains("more than 1000 bytes"));
  CHECK_THAT(parse(gzip(good).substr(0, 40)), Catch::Contains("ends too early"));
  CHECK_THAT(parse(gzip("no archive")), Catch::Contains("no cpio archive"));
}

VFS_TEST("entries cannot be created where something else is in the way") {
  Tree tree;
  CHECK_THAT(unpack(tree, entry("f", "x") + entry("f/under", "y") + kTrailer),
             Catch::Contains("Not a directory"));
  CHECK_THAT(unpack(tree, entry("odd", "x", {.mode = 0170000}) + kTrailer),
             Catch::Contains("Invalid argument"));
}
