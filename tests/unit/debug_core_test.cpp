// Core files: what the writer leaves of another process, the reader finds again; and files that are
// damaged.
#include <elf.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/log.hpp"
#include "debug/core/core_file.hpp"
#include "debug/core/core_target.hpp"
#include "debug/core/core_writer.hpp"

using namespace cowbird;
using namespace cowbird::debug;

namespace {

// A child process that waits, with a word of its own in its memory.
volatile std::uint64_t marker = 0;

class Child {
 public:
  Child() {
    void *map = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    KASSERT(map != MAP_FAILED && ::madvise(map, 4096, MADV_DONTDUMP) == 0);
    left_out = static_cast<std::uint64_t *>(map);
    *left_out = 1;
    marker = 0x1122334455667788;
    int ready[2];
    KASSERT(::pipe(ready) == 0);
    pid = ::fork();
    if (pid == 0) {
      marker = 0x0123456789abcdef;
      ::close(ready[0]);
      ::close(ready[1]);
      for (;;) ::pause();
    }
    ::close(ready[1]);
    char end = 0;
    KASSERT(::read(ready[0], &end, 1) == 0);  // the child has closed its end, too
    ::close(ready[0]);
  }
  ~Child() {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    ::munmap(left_out, 4096);
  }
  std::uint64_t *left_out = nullptr;  // MADV_DONTDUMP
  pid_t pid = 0;
};

class Scratch {
 public:
  Scratch() {
    char name[] = "/tmp/cowbird-core-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  std::string file(const std::string &name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string contents(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

Result<std::unique_ptr<CoreFile>> parse(const std::string &text, std::string &why) {
  return CoreFile::parse(std::as_bytes(std::span(text)), why);
}

}  // namespace

TEST_CASE("a core file has threads, registers, memory and our note") {
  const Child child;
  const Scratch scratch;
  const std::string path = scratch.file("core");
  std::string why;
  std::uint64_t written = 0;
  const bool done =
      write_core_file(child.pid, path, {"it broke\nhere", child.pid, false}, written, why);
  INFO(why);
  REQUIRE(done);
  CHECK(written > 4096);
  CHECK_FALSE(std::filesystem::exists(path + ".part"));
  CHECK((std::filesystem::status(path).permissions() & std::filesystem::perms::all) ==
        (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));

  auto core = CoreFile::open(path, why);
  REQUIRE(core);
  CHECK_FALSE((*core)->truncated());
  REQUIRE((*core)->threads().size() == 1);
  const CoreThread &thread = (*core)->threads()[0];
  CHECK(thread.tid == child.pid);
  CHECK(thread.signal == SIGABRT);
  CHECK(thread.registers.rip != 0);
  CHECK(thread.xstate.size() >= 512);
  CHECK((*core)->property("panic") == "it broke here");
  CHECK((*core)->property("pid") == std::to_string(child.pid));
  CHECK((*core)->auxv_value(AT_PAGESZ) == 4096);
  CHECK((*core)->property("nothing").empty());

  std::uint64_t word = 0;
  const auto out = std::as_writable_bytes(std::span(&word, 1));
  REQUIRE((*core)->read(reinterpret_cast<std::uint64_t>(&marker), out));
  CHECK(word == 0x0123456789abcdef);
  CHECK((*core)->read(0, out).is(Errno::Fault));
  CHECK((*core)->read(~0ull - 4, out).is(Errno::Fault));
  CHECK((*core)->read(reinterpret_cast<std::uint64_t>(child.left_out), out).is(Errno::Fault));
  // Code, which lies in the file too.
  std::array<std::byte, 16> code;
  REQUIRE((*core)->read(reinterpret_cast<std::uint64_t>(&write_core_file), code));
  CHECK(std::memcmp(code.data(), reinterpret_cast<const void *>(&write_core_file), 16) == 0);
}

// A panic starts the writer by vfork(2) and waits for it.
TEST_CASE("the core file shows its thread where it waits, not on its way there") {
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (::vfork() == 0) {
      ::usleep(100'000);
      ::_exit(0);
    }
    for (;;) ::pause();
  }
  const Scratch scratch;
  std::string why;
  std::uint64_t written = 0;
  const bool done =
      write_core_file(pid, scratch.file("core"), {"it broke", pid, false}, written, why);
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  INFO(why);
  REQUIRE(done);
  auto core = CoreFile::open(scratch.file("core"), why);
  REQUIRE(core);
  REQUIRE((*core)->threads().size() == 1);
  CHECK((*core)->threads()[0].registers.orig_rax == SYS_pause);
}

TEST_CASE("what cannot be written is said") {
  const Child child;
  std::string why;
  std::uint64_t written = 0;
  CHECK_FALSE(write_core_file(child.pid, "/nowhere/core", {}, written, why));
  CHECK_THAT(why, Catch::Matchers::Contains("/nowhere/core"));
  why.clear();
  CHECK_FALSE(write_core_file(0x3fffffff, "/tmp/core", {}, written, why));
  CHECK_FALSE(why.empty());
}

TEST_CASE("files that are no core files, or cut ones") {
  std::string why;
  CHECK_FALSE(CoreFile::open("/nowhere", why).ok());
  CHECK_THAT(why, Catch::Matchers::Contains("/nowhere"));
  CHECK_FALSE(CoreFile::open("/dev/null", why).ok());
  CHECK_FALSE(parse("", why).ok());
  CHECK_FALSE(parse("\x7f"
                    "ELF",
                    why)
                  .ok());
  CHECK_FALSE(parse(contents("/bin/true"), why).ok());
  CHECK_THAT(why, Catch::Matchers::Contains("no core file"));

  const Child child;
  const Scratch scratch;
  std::uint64_t written = 0;
  REQUIRE(write_core_file(child.pid, scratch.file("core"), {}, written, why));
  // Cut again and again: first half of it is lost, then ever more.
  const std::string path = scratch.file("core");
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  {
    const auto cut = CoreFile::open(path, why);
    REQUIRE(cut);
    CHECK((*cut)->truncated());
    CHECK((*cut)->threads().size() == 1);
  }
  for (const std::size_t size : {4000, 300, 64}) {
    std::filesystem::resize_file(path, size);
    CHECK_FALSE(CoreFile::open(path, why).ok());
  }
}

TEST_CASE("a core of another program shows host threads and says what is missing") {
  const Child child;
  const Scratch scratch;
  std::string why;
  std::uint64_t written = 0;
  REQUIRE(write_core_file(child.pid, scratch.file("core"), {}, written, why));
  const auto target = CoreTarget::open(scratch.file("core"), "/bin/true", why);
  REQUIRE(target);
  CHECK_THAT(target->summary(), Catch::Matchers::Contains("Only host threads are shown"));
  REQUIRE(target->threads().size() == 1);
  const ThreadId id = target->threads()[0].id;
  CHECK(id.tid == kHostTidBase + child.pid);
  CHECK(target->current_thread() == id);
  CHECK(target->is_alive(id));
  CHECK_FALSE(target->is_alive({kKernelPid, 1}));
  CHECK(target->read_registers(id).ok());
  CHECK(target->resume({}).is(Errno::OpNotSupp));
  CHECK_THAT(target->last_words(), Catch::Matchers::Contains("core file"));
  std::string text;
  const auto sink = [&](std::string_view piece) {
    text += piece;
    return true;
  };
  CHECK(target->monitor("ps", id, sink));
  CHECK_THAT(text, Catch::Matchers::Contains("cannot be read here"));
  CHECK_FALSE(target->monitor("nonsense", id, sink));
  CHECK(target->os_table("tasks").is(Errno::NoDev));
}

TEST_CASE("a core of a program with the table has the kernel's view") {
  const Child child;
  const Scratch scratch;
  std::string why;
  std::uint64_t written = 0;
  REQUIRE(write_core_file(child.pid, scratch.file("core"), {}, written, why));
  const auto target = CoreTarget::open(scratch.file("core"), "", why);
  REQUIRE(target);
  CHECK_THAT(target->summary(), !Catch::Matchers::Contains("Only host threads"));
  std::string text;
  const auto sink = [&](std::string_view piece) {
    text += piece;
    return true;
  };
  CHECK(target->monitor("locks", {}, sink));
  CHECK_THAT(text, Catch::Matchers::Contains("big kernel lock: free"));
  text.clear();
  const auto id = target->current_thread();
  CHECK(target->monitor("bt", id, sink));
  CHECK_THAT(text, Catch::Matchers::Contains("main"));
  CHECK(target->os_table("mounts").ok());
  CHECK(target->os_table("nonsense").is(Errno::NoEnt));
}
