// Reading and writing, tmpfs, descriptors' limits, locks, pipes, epoll.
#include <catch2/catch.hpp>
#include <cstring>

#include "abi/epoll.hpp"
#include "abi/inotify.hpp"
#include "proc/signal.hpp"
#include "sched/clock.hpp"
#include "unit/vfs_support.hpp"
#include "vfs/attributes.hpp"
#include "vfs/epoll.hpp"
#include "vfs/eventfd.hpp"
#include "vfs/fd_table.hpp"
#include "vfs/file_lock.hpp"
#include "vfs/notify.hpp"
#include "vfs/pipe.hpp"
#include "vfs/poll.hpp"

using namespace cowbird;
using namespace cowbird::vfs_test;

VFS_TEST("files are sparse, grow, shrink and append") {
  Tree tree;
  auto file = *tree.open("/f", abi::kO_CREAT | abi::kO_RDWR);
  file->position = 3 * kPageSize + 10;
  REQUIRE(write_some(*file, "end"));
  CHECK(file->inode->size() == 3 * kPageSize + 13);
  CHECK(file->inode->getattr()->blocks == 8);
  CHECK(file->seek(0, Whence::Data).value() == 3 * kPageSize);
  CHECK(file->seek(0, Whence::Hole).value() == 0);
  CHECK(file->seek(3 * kPageSize + 1, Whence::Hole).value() == 3 * kPageSize + 13);
  CHECK_ERROR(file->seek(3 * kPageSize + 13, Whence::Data), NxIo);
  CHECK_ERROR(file->seek(-1, Whence::Set), Inval);
  CHECK(file->seek(-3, Whence::End).value() == 3 * kPageSize + 10);
  CHECK(read_some(*file) == "end");
  file->position = 0;
  CHECK(read_some(*file, 16) == std::string(16, '\0'));
  REQUIRE(file->truncate(3 * kPageSize + 11));
  REQUIRE(file->truncate(3 * kPageSize + 13));
  file->position = 3 * kPageSize + 10;
  CHECK(read_some(*file) == std::string("e\0\0", 3));
  auto log = *tree.open("/log", abi::kO_CREAT | abi::kO_WRONLY | abi::kO_APPEND);
  REQUIRE(write_some(*log, "one"));
  log->position = 0;
  REQUIRE(write_some(*log, "two"));
  CHECK(tree.read("/log") == "onetwo");
}

VFS_TEST("fallocate takes, punches and zeroes") {
  Tree tree;
  auto file = *tree.open("/f", abi::kO_CREAT | abi::kO_RDWR);
  REQUIRE(file->fallocate(0, 0, 4 * kPageSize));
  CHECK(file->inode->size() == 4 * kPageSize);
  CHECK(file->inode->getattr()->blocks == 32);
  REQUIRE(file->fallocate(abi::kFALLOC_FL_KEEP_SIZE, 4 * kPageSize, kPageSize));
  CHECK(file->inode->size() == 4 * kPageSize);
  REQUIRE(write_some(*file, std::string(4 * kPageSize, 'x')));
  REQUIRE(
      file->fallocate(abi::kFALLOC_FL_PUNCH_HOLE | abi::kFALLOC_FL_KEEP_SIZE, 100, 2 * kPageSize));
  file->position = 98;
  CHECK(read_some(*file, 4) == std::string("xx\0\0", 4));
  CHECK(file->seek(kPageSize, Whence::Data).value() == 2 * kPageSize);
  CHECK_ERROR(file->fallocate(abi::kFALLOC_FL_PUNCH_HOLE, 0, 1), OpNotSupp);
  CHECK_ERROR(file->fallocate(abi::kFALLOC_FL_COLLAPSE_RANGE, 0, kPageSize), OpNotSupp);
}

VFS_TEST("tmpfs keeps to its limits and options") {
  const auto options = parse_tmpfs_options("size=64k,nr_inodes=4,mode=755");
  REQUIRE(options);
  CHECK(options->max_pages == 16);
  CHECK_ERROR(parse_tmpfs_options("size=abc"), Inval);
  CHECK_ERROR(parse_tmpfs_options("what=1"), Inval);
  CHECK(parse_tmpfs_options("size=50%")->max_pages == 8192);
  Tree tree(*options);
  auto file = *tree.open("/f", abi::kO_CREAT | abi::kO_RDWR);
  CHECK(write_some(*file, std::string(100 * 1024, 'x')).value() == 64 * kKiB);
  CHECK_ERROR(write_some(*file, "x"), NoSpc);
  CHECK(tree.fs->root.inode().sb().statfs()->blocks_free == 0);
  REQUIRE(file->truncate(0));
  CHECK(tree.fs->root.inode().sb().statfs()->blocks_free == 16);
  tree.write("/g", "");
  tree.write("/h", "");
  CHECK_ERROR(tree.open("/i", abi::kO_CREAT | abi::kO_WRONLY), NoSpc);
  REQUIRE(remove_name(tree.walk(), "/h"));
  CHECK(tree.open("/i", abi::kO_CREAT | abi::kO_WRONLY));
  CHECK(tree.fs->root.inode().sb().show_options() == ",size=64k,nr_inodes=4,mode=755");
  // The pages of a file that is gone are free again.
  auto last = tree.open("/g", abi::kO_WRONLY);
  REQUIRE(write_some(**last, std::string(8192, 'y')));
  REQUIRE(remove_name(tree.walk(), "/g"));
  CHECK(tree.fs->root.inode().sb().statfs()->blocks_free == 14);
  last->reset();
  CHECK(tree.fs->root.inode().sb().statfs()->blocks_free == 16);
}

VFS_TEST("a listing goes on where it was while names come and go") {
  Tree tree;
  for (char c = 'a'; c <= 'e'; ++c) tree.write(std::string("/") + c, "");
  auto directory = *tree.open("/", abi::kO_DIRECTORY);
  std::string seen;
  auto take = [&](std::size_t count) {
    REQUIRE(directory->readdir([&](std::string_view name, std::uint64_t, FileType, std::uint64_t) {
      if (count == 0) return false;
      --count;
      seen += name;
      seen += ' ';
      return true;
    }));
  };
  take(4);
  CHECK(seen == ". .. a b ");
  REQUIRE(remove_name(tree.walk(), "/c"));
  tree.write("/z", "");
  take(100);
  CHECK(seen == ". .. a b d e z ");
}

VFS_TEST("RLIMIT_FSIZE cuts writes and signals") {
  Tree tree;
  auto file = *tree.open("/f", abi::kO_CREAT | abi::kO_RDWR);
  caller().file_size_limit = 10;
  CHECK(write_some(*file, "0123456789abc").value() == 10);
  CHECK_ERROR(write_some(*file, "x"), FBig);
  CHECK(caller().signals == std::vector<int>{kSigXfsz});
  CHECK_ERROR(file->truncate(11), FBig);
  CHECK(file->truncate(10));
}

VFS_TEST("a program that runs cannot be written, nor a file written be run") {
  Tree tree;
  tree.write("/p", "x");
  const Path path = *tree.find("/p");
  {
    auto writer = tree.open("/p", abi::kO_WRONLY);
    CHECK(path.inode().write_count == 1);
  }
  CHECK(path.inode().write_count == 0);
  path.inode().write_count = -1;
  CHECK_ERROR(tree.open("/p", abi::kO_WRONLY), TxtBsy);
  CHECK_ERROR(truncate_path(path, 0, Credentials::kernel()), TxtBsy);
  CHECK(tree.open("/p"));
  path.inode().write_count = 0;
}

VFS_TEST("O_TMPFILE has no name until it is linked; O_PATH is no access") {
  Tree tree;
  auto file = *tree.open("/", abi::kO_TMPFILE | abi::kO_RDWR, 0600);
  REQUIRE(write_some(*file, "t"));
  CHECK(file->inode->nlink == 0);
  CHECK(tree.list("/").size() == 2);
  REQUIRE(make_link(tree.walk(), file->path, tree.walk(), "/named"));
  CHECK(tree.read("/named") == "t");
  CHECK_ERROR(tree.open("/", abi::kO_TMPFILE), Inval);
  auto place = *tree.open("/named", abi::kO_PATH);
  CHECK_FALSE(place->readable());
  CHECK_FALSE(place->writable());
}

VFS_TEST("seals of memory files hold") {
  auto inode = make_memfd_inode(0777, Credentials::kernel());
  REQUIRE(inode);
  (*inode)->seals = 0;
  Ref<File> file = *(*inode)->open(abi::kO_RDWR);
  REQUIRE(write_some(*file, "abc"));
  (*inode)->seals = abi::kF_SEAL_GROW;
  CHECK_ERROR(write_some(*file, "d"), Perm);
  CHECK_ERROR(file->truncate(10), Perm);
  CHECK(file->truncate(2));
  (*inode)->seals |= abi::kF_SEAL_SHRINK | abi::kF_SEAL_WRITE;
  CHECK_ERROR(file->truncate(1), Perm);
  file->position = 0;
  CHECK_ERROR(write_some(*file, "x"), Perm);
  MmapRequest request;
  request.sharing = Sharing::Shared;
  request.prot = Prot::Read | Prot::Write;
  CHECK_ERROR(file->mmap(request), Perm);
}

VFS_TEST("extended attributes are kept and bounded") {
  Tree tree;
  tree.write("/f", "");
  Inode &inode = tree.find("/f")->inode();
  CHECK_ERROR(inode.get_xattr("user.a"), NoData);
  REQUIRE(inode.set_xattr("user.a", "1", abi::kXATTR_CREATE));
  CHECK_ERROR(inode.set_xattr("user.a", "2", abi::kXATTR_CREATE), Exist);
  CHECK_ERROR(inode.set_xattr("user.b", "2", abi::kXATTR_REPLACE), NoData);
  CHECK(*inode.get_xattr("user.a") == "1");
  CHECK_ERROR(inode.set_xattr("system.x", "1", 0), OpNotSupp);
  CHECK_ERROR(inode.set_xattr("user.big", std::string(70000, 'x'), 0), NoSpc);
  REQUIRE(inode.remove_xattr("user.a"));
  CHECK(inode.list_xattr()->empty());
}

VFS_TEST("descriptors take the lowest free number up to the limit") {
  Tree tree;
  auto table = make_ref<FdTable>();
  tree.write("/f", "");
  auto open = [&] { return *tree.open("/f"); };
  CHECK(table->install(open(), false, 3).value() == 0);
  CHECK(table->install(open(), true, 3).value() == 1);
  CHECK(table->install(open(), false, 3).value() == 2);
  CHECK_ERROR(table->install(open(), false, 3), MFile);
  CHECK(table->install(open(), false, 100, 10).value() == 10);
  CHECK(table->install(open(), false, 100).value() == 3);
  CHECK(*table->close_on_exec(1));
  CHECK_ERROR(table->get(4), BadF);
  CHECK_ERROR(table->get(-1), BadF);
  CHECK(table->list() == std::vector<int>{0, 1, 2, 3, 10});
  auto copy = table->clone();
  CHECK(copy->get(10).value() == table->get(10).value());
}

VFS_TEST("record locks split, join, conflict and go with their owner") {
  Tree tree;
  auto a = *tree.open("/f", abi::kO_CREAT | abi::kO_RDWR);
  auto b = *tree.open("/f", abi::kO_RDWR);
  auto owner_a = make_ref<FdTable>();
  auto owner_b = make_ref<FdTable>();
  REQUIRE(set_record_lock(*a, owner_a.get(), {LockKind::Write, 0, 99}, false));
  CHECK_ERROR(set_record_lock(*b, owner_b.get(), {LockKind::Read, 50, 60}, false), Again);
  REQUIRE(set_record_lock(*a, owner_a.get(), {LockKind::Unlock, 40, 59}, false));
  CHECK(set_record_lock(*b, owner_b.get(), {LockKind::Read, 50, 59}, false));
  const RecordLock found = test_record_lock(*b, owner_b.get(), {LockKind::Write, 0, ~0ull});
  CHECK(found.kind == LockKind::Write);
  CHECK(found.end == 39);
  CHECK(found.pid == 42);
  CHECK_ERROR(set_record_lock(*b, nullptr, {LockKind::Write, 0, 0}, false), Again);
  release_posix_locks(*a, owner_a.get());
  release_posix_locks(*b, owner_b.get());
  REQUIRE(set_record_lock(*b, nullptr, {LockKind::Write, 0, 0}, false));
  CHECK_ERROR(set_record_lock(*a, nullptr, {LockKind::Read, 0, 0}, false), Again);
  REQUIRE(flock_file(*a, LockKind::Write, false));
  CHECK_ERROR(flock_file(*b, LockKind::Read, false), Again);
  a.reset();
  CHECK(flock_file(*b, LockKind::Read, false));
}

VFS_TEST("pipes carry bytes, fill up, end and break") {
  PipeEnds ends = *make_pipe(abi::kO_NONBLOCK, Credentials::kernel());
  CHECK(read_some(*ends.reader) == "error EAGAIN");
  CHECK(write_some(*ends.writer, "hello ").value() == 6);
  CHECK(write_some(*ends.writer, "world").value() == 5);
  CHECK(ends.reader->poll(nullptr) & abi::kPOLLIN);
  CHECK(read_some(*ends.reader, 3) == "hel");
  CHECK(read_some(*ends.reader) == "lo world");
  // Up to PIPE_BUF all or nothing, more as much as fits.
  CHECK(write_some(*ends.writer, std::string(65536 - 100, 'x')).value() == 65536 - 100);
  CHECK_ERROR(write_some(*ends.writer, std::string(101, 'y')), Again);
  CHECK_FALSE(ends.writer->poll(nullptr) & abi::kPOLLOUT);
  CHECK(read_some(*ends.reader, 65536).size() == 65536 - 100);
  CHECK(pipe_of(*ends.reader)->resize(kPageSize, Credentials::kernel()).value() == kPageSize);
  CHECK_ERROR(pipe_of(*ends.reader)->resize(8 * kMiB, user(1)), Perm);
  CHECK(pipe_of(*ends.reader)->resize(kMiB, user(1)));
  REQUIRE(write_some(*ends.writer, "last"));
  ends.writer.reset();
  CHECK(ends.reader->poll(nullptr) == (abi::kPOLLIN | abi::kPOLLRDNORM | abi::kPOLLHUP));
  CHECK(read_some(*ends.reader) == "last");
  CHECK(read_some(*ends.reader).empty());

  PipeEnds broken = *make_pipe(0, Credentials::kernel());
  broken.reader.reset();
  CHECK_ERROR(write_some(*broken.writer, "x"), Pipe);
  CHECK(caller().signals == std::vector<int>{kSigPipe});

  PipeEnds packets = *make_pipe(abi::kO_DIRECT | abi::kO_NONBLOCK, Credentials::kernel());
  REQUIRE(write_some(*packets.writer, "one"));
  REQUIRE(write_some(*packets.writer, "two"));
  CHECK(read_some(*packets.reader, 2) == "on");
  CHECK(read_some(*packets.reader) == "two");
}

TEST_CASE("a reader and a writer of a pipe wait for each other", "[vfs]") {
  PipeEnds ends;
  run([&] { ends = *make_pipe(0, Credentials::kernel()); });
  std::string received;
  run_together({[&] {
                  for (int i = 0; i < 50; ++i) {
                    const std::string piece(10000, static_cast<char>('a' + i % 26));
                    REQUIRE(write_some(*ends.writer, piece).value() == piece.size());
                  }
                  ends.writer.reset();
                },
                [&] {
                  for (;;) {
                    const std::string piece = read_some(*ends.reader, 7777);
                    if (piece.empty()) break;
                    received += piece;
                  }
                  ends.reader.reset();
                }});
  REQUIRE(received.size() == 500000);
  for (std::size_t i = 0; i < received.size(); ++i) {
    if (received[i] != static_cast<char>('a' + (i / 10000) % 26)) {
      FAIL("byte " << i << " came in the wrong place");
    }
  }
}

VFS_TEST("splice and tee move pages between pipes and files") {
  Tree tree;
  tree.write("/in", std::string(10000, 'i'));
  auto in = *tree.open("/in");
  auto out = *tree.open("/out", abi::kO_CREAT | abi::kO_RDWR);
  PipeEnds a = *make_pipe(abi::kO_NONBLOCK, Credentials::kernel());
  PipeEnds b = *make_pipe(abi::kO_NONBLOCK, Credentials::kernel());
  Pipe &pipe = *pipe_of(*a.reader);
  CHECK(splice_to_pipe(*in, in->position, pipe, 20000, true).value() == 10000);
  CHECK(splice_pipe_to_pipe(pipe, *pipe_of(*b.writer), 5000, true, true).value() == 5000);
  CHECK(pipe.bytes() == 10000);
  CHECK(splice_from_pipe(pipe, *out, out->position, 10000, true).value() == 10000);
  CHECK(tree.read("/out") == std::string(10000, 'i'));
  // The shared pages are not written into.
  REQUIRE(write_some(*b.writer, "tail"));
  CHECK(read_some(*b.reader) == std::string(5000, 'i') + "tail");
  std::uint64_t from = 0, to = 3;
  CHECK(copy_between(*in, from, *out, to, 4).value() == 4);
  CHECK(to == 7);
}

VFS_TEST("epolls that watch epolls are few") {
  std::vector<Ref<File>> watched;
  Ref<File> above = make_epoll();
  Result<void> added;
  for (int fd = 0; fd < 5000 && added; ++fd) {
    watched.push_back(make_epoll());
    added = epoll_control(*above, abi::kEPOLL_CTL_ADD, fd, watched.back(), {abi::kPOLLIN, 0});
  }
  CHECK_ERROR(added, NoSpc);
  // Those that have gone make room.
  watched.clear();
  watched.push_back(make_epoll());
  CHECK(epoll_control(*above, abi::kEPOLL_CTL_ADD, 1, watched.back(), {abi::kPOLLIN, 0}));
}

VFS_TEST("epoll reports levels, edges and one shots, and refuses circles") {
  Ref<File> epoll = make_epoll();
  Ref<File> event = make_eventfd(0, false, abi::kO_NONBLOCK);
  auto signal = [&] {
    const std::uint64_t one = 1;
    REQUIRE(write_some(*event, {reinterpret_cast<const char *>(&one), 8}));
  };
  auto wait = [&] { return epoll_wait(*epoll, 10, 0).value().size(); };
  REQUIRE(epoll_control(*epoll, abi::kEPOLL_CTL_ADD, 5, event, {abi::kPOLLIN, 77}));
  CHECK_ERROR(epoll_control(*epoll, abi::kEPOLL_CTL_ADD, 5, event, {abi::kPOLLIN, 77}), Exist);
  CHECK(wait() == 0);
  signal();
  const auto events = epoll_wait(*epoll, 10, 0).value();
  REQUIRE(events.size() == 1);
  CHECK(events[0].data == 77);
  CHECK(wait() == 1);  // level-triggered
  REQUIRE(epoll_control(*epoll, abi::kEPOLL_CTL_MOD, 5, event, {abi::kPOLLIN | abi::kEPOLLET, 77}));
  CHECK(wait() == 1);
  CHECK(wait() == 0);
  signal();
  CHECK(wait() == 1);
  REQUIRE(epoll_control(*epoll, abi::kEPOLL_CTL_MOD, 5, event,
                        {abi::kPOLLIN | abi::kEPOLLONESHOT, 77}));
  CHECK(wait() == 1);
  signal();
  CHECK(wait() == 0);
  Ref<File> outer = make_epoll();
  REQUIRE(epoll_control(*outer, abi::kEPOLL_CTL_ADD, 6, epoll, {abi::kPOLLIN, 1}));
  CHECK_ERROR(epoll_control(*epoll, abi::kEPOLL_CTL_ADD, 7, outer, {abi::kPOLLIN, 1}), Loop);
  CHECK_ERROR(epoll_control(*epoll, abi::kEPOLL_CTL_ADD, 7, epoll, {abi::kPOLLIN, 1}), Inval);
  REQUIRE(epoll_control(*epoll, abi::kEPOLL_CTL_MOD, 5, event, {abi::kPOLLIN, 77}));
  CHECK(epoll_wait(*outer, 10, 0).value().size() == 1);
  event.reset();  // the last descriptor: the watch is gone
  CHECK(wait() == 0);
  CHECK(epoll_wait(*outer, 10, 0).value().empty());
}

TEST_CASE("poll and epoll_wait sleep until something happens", "[vfs]") {
  PipeEnds ends;
  Ref<File> epoll;
  run([&] {
    ends = *make_pipe(0, Credentials::kernel());
    epoll = make_epoll();
    REQUIRE(epoll_control(*epoll, abi::kEPOLL_CTL_ADD, 3, ends.reader, {abi::kPOLLIN, 3}));
  });
  run_together({[&] {
                  PollItem item{ends.reader, abi::kPOLLIN, 0};
                  CHECK(poll_files({&item, 1}, kNoDeadline).value() == 1);
                },
                [&] { CHECK(epoll_wait(*epoll, 4, kNoDeadline).value().size() == 1); },
                [&] {
                  yield();
                  REQUIRE(write_some(*ends.writer, "x"));
                }});
  run([&] {
    CHECK(read_some(*ends.reader) == "x");
    PollItem item{ends.reader, abi::kPOLLIN, 0};
    CHECK(poll_files({&item, 1}, clock::monotonic_ns() + kNsPerMs).value() == 0);
    CHECK(epoll_wait(*epoll, 4, clock::monotonic_ns() + kNsPerMs).value().empty());
    ends = {};
    epoll.reset();
  });
}

TEST_CASE("opening a fifo waits for the other side", "[vfs]") {
  Ref<FsContext> fs;
  std::string got;
  run([&] {
    Tree tree;
    fs = tree.fs;
    REQUIRE(make_node(tree.walk(), "/fifo", abi::kS_IFIFO | 0644, {}));
    CHECK_ERROR(tree.open("/fifo", abi::kO_WRONLY | abi::kO_NONBLOCK), NxIo);
  });
  auto walk = [&] { return WalkContext{*fs, Credentials::kernel(), fs->cwd}; };
  run_together({[&] {
                  auto reader = open_path(walk(), "/fifo", abi::kO_RDONLY, 0);
                  REQUIRE(reader);
                  got = read_some(**reader);
                },
                [&] {
                  auto writer = open_path(walk(), "/fifo", abi::kO_WRONLY, 0);
                  REQUIRE(writer);
                  REQUIRE(write_some(**writer, "through"));
                }});
  CHECK(got == "through");
  run([&] { fs.reset(); });
}

VFS_TEST("inotify tells what happens to names and contents") {
  Tree tree;
  tree.mkdir("/d");
  auto inotify = *make_inotify(abi::kO_NONBLOCK);
  const int wd = inotify_add_watch(*inotify, *tree.find("/d"), abi::kIN_ALL_EVENTS).value();
  tree.write("/d/f", "x");
  REQUIRE(remove_name(tree.walk(), "/d/f"));
  std::vector<std::uint32_t> masks;
  const std::string raw = read_some(*inotify);
  for (std::size_t at = 0; at + sizeof(abi::InotifyEvent) <= raw.size();) {
    abi::InotifyEvent event;
    std::memcpy(&event, raw.data() + at, sizeof event);
    CHECK(event.wd == wd);
    CHECK(std::string(raw.data() + at + sizeof event) == "f");
    masks.push_back(event.mask);
    at += sizeof event + event.len;
  }
  CHECK(masks == std::vector<std::uint32_t>{abi::kIN_CREATE, abi::kIN_OPEN, abi::kIN_MODIFY,
                                            abi::kIN_CLOSE_WRITE, abi::kIN_DELETE});
  REQUIRE(inotify_remove_watch(*inotify, wd));
  CHECK_ERROR(inotify_remove_watch(*inotify, wd), Inval);
}
