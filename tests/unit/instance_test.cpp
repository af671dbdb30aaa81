#include "instance/instance.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>

using namespace cowbird;
namespace fs = std::filesystem;

namespace {

struct Scratch {
  Scratch() {
    char name[] = "/tmp/cowbird-instance-XXXXXX";
    root = ::mkdtemp(name);
  }
  ~Scratch() { fs::remove_all(root); }
  fs::path root;
};

std::unique_ptr<InstanceDirectory> claim(const fs::path &root, const std::string &name,
                                         std::string *said = nullptr) {
  std::string error;
  auto made = InstanceDirectory::claim(root, name, {{"file", "/x/y.toml"}}, error);
  if (said) *said = error;
  return made;
}

std::string text_of(const fs::path &path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

void make_file(const fs::path &path, const std::string &text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

// The id of a process that is dead and buried.
pid_t dead_process() {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(0);
  ::waitpid(pid, nullptr, 0);
  return pid;
}

unsigned mode_of(const fs::path &path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 07777;
}

}  // namespace

TEST_CASE("a claimed directory is private, says who owns it, and goes with its owner") {
  const Scratch scratch;
  const mode_t mask = ::umask(077);
  auto made = claim(scratch.root / "new" / "root", "demo");
  ::umask(mask);
  REQUIRE(made);
  CHECK(made->name() == "demo");
  CHECK(made->path() == scratch.root / "new/root/demo");
  CHECK(mode_of(made->path()) == 0700);
  CHECK(mode_of(made->file("pid")) == 0644);
  CHECK(text_of(made->file("pid")) == fmt::format("{}\n", ::getpid()));
  std::string error;
  REQUIRE(made->write("gdb", "tcp:127.0.0.1:1234\n", error));
  CHECK(text_of(made->file("gdb")) == "tcp:127.0.0.1:1234\n");
  CHECK(mode_of(made->file("gdb")) == 0644);
  make_file(made->file("mconsole"), "");

  const auto all = running_instances(scratch.root / "new/root");
  REQUIRE(all.size() == 1);
  CHECK(all[0].name == "demo");
  CHECK(all[0].pid == ::getpid());
  CHECK(all[0].program == fs::read_symlink("/proc/self/exe"));
  CHECK(all[0].info.at("file") == "/x/y.toml");
  const auto age = std::chrono::system_clock::now() - all[0].started;
  CHECK(age < std::chrono::hours(1));
  CHECK(age > -std::chrono::seconds(2));

  const fs::path path = made->path();
  made.reset();
  CHECK(!fs::exists(path));
  CHECK(running_instances(scratch.root / "new/root").empty());
}

TEST_CASE("the directory of a guest that runs is refused, also to the same process") {
  const Scratch scratch;
  auto made = claim(scratch.root, "demo");
  REQUIRE(made);
  for (int i = 0; i < 2; ++i) {
    std::string said;
    CHECK(!claim(scratch.root, "demo", &said));
    CHECK(said ==
          fmt::format("A guest named \"demo\" is running already: process {}, directory {}. "
                      "Stop it (cowbird mconsole demo halt), or give this one another name "
                      "(--set machine.name=OTHER, or umid=OTHER among UML's words).",
                      ::getpid(), made->path().string()));
  }
  const pid_t other = ::fork();
  if (other == 0) ::_exit(claim(scratch.root, "demo") ? 1 : 0);
  int status = -1;
  ::waitpid(other, &status, 0);
  CHECK(status == 0);
  CHECK(text_of(made->file("pid")) == fmt::format("{}\n", ::getpid()));
}

TEST_CASE("what a dead guest has left is used again") {
  const Scratch scratch;
  const fs::path path = scratch.root / "demo";
  // One of ours whose number is another process' now, one of UML, one that died before it had a pid
  // file.
  SECTION("the number is somebody else's") {
    make_file(path / "pid", "1\n");
    make_file(path / "info", "program=/x\n");
  }
  SECTION("no such process") { make_file(path / "pid", fmt::format("{}\n", dead_process())); }
  SECTION("an empty directory") { fs::create_directory(path); }
  SECTION("a broken pid file") { make_file(path / "pid", "12monkeys"); }
  make_file(path / "mconsole", "");
  ::chmod(path.c_str(), 0755);
  CHECK(running_instances(scratch.root).empty());
  auto made = claim(scratch.root, "demo");
  REQUIRE(made);
  CHECK(mode_of(path) == 0700);
  CHECK(!fs::exists(path / "mconsole"));
  CHECK(text_of(path / "pid") == fmt::format("{}\n", ::getpid()));
}

TEST_CASE("what killed guests with random names have left is taken away") {
  const Scratch scratch;
  const auto dead = fmt::format("{}\n", dead_process());
  const auto leave = [&](const char *name, const std::string &pid) {
    make_file(scratch.root / name / "pid", pid);
    make_file(scratch.root / name / "info", "");
    make_file(scratch.root / name / "mconsole", "");
  };
  leave("cowbird-00ab9f", dead);
  leave("cowbird-00ab9e", fmt::format("{}\n", ::getpid()));  // lives
  leave("cowbird-00ab9g", dead);                             // not random
  leave("demo", dead);
  leave("cowbird-123456", dead);
  make_file(scratch.root / "cowbird-123456" / "notes", "mine");
  fs::create_directory(scratch.root / "cowbird-222222");  // being made, for all we know
  REQUIRE(claim(scratch.root, "new"));
  CHECK(!fs::exists(scratch.root / "cowbird-00ab9f"));
  for (const char *name : {"cowbird-00ab9e", "cowbird-00ab9g", "demo", "cowbird-222222"}) {
    CHECK(fs::exists(scratch.root / name));
  }
  CHECK(text_of(scratch.root / "cowbird-123456" / "pid") == dead);
}

TEST_CASE("a UML that runs is known by its process") {
  const Scratch scratch;
  make_file(scratch.root / "uml" / "pid", fmt::format("{}\n", ::getppid()));
  std::string said;
  CHECK(!claim(scratch.root, "uml", &said));
  CHECK(said.find("running already") != std::string::npos);
  REQUIRE(running_instances(scratch.root).size() == 1);
}

TEST_CASE("a directory that is something else is left alone") {
  const Scratch scratch;
  make_file(scratch.root / "photos" / "cat.jpg", "meow");
  std::string said;
  CHECK(!claim(scratch.root, "photos", &said));
  CHECK(said.find("holds \"cat.jpg\", which is no file of a guest") != std::string::npos);
  CHECK(text_of(scratch.root / "photos" / "cat.jpg") == "meow");

  make_file(scratch.root / "file", "");
  CHECK(!claim(scratch.root, "file", &said));
  CHECK(said.find("cannot be opened: Not a directory") != std::string::npos);
  fs::create_directory_symlink(scratch.root / "photos", scratch.root / "link");
  CHECK(!claim(scratch.root, "link", &said));

  CHECK(!claim("/proc/cowbird", "demo", &said));
  CHECK(said.find("cannot be made") != std::string::npos);
  const std::string deep(80, 'd');
  CHECK(!claim(scratch.root / deep, "demo", &said));
  CHECK(said.find("longer than the 107 characters") != std::string::npos);
  CHECK(!fs::exists(scratch.root / deep));
}

TEST_CASE("after an emergency nothing is left") {
  const Scratch scratch;
  auto made = claim(scratch.root, "demo");
  REQUIRE(made);
  make_file(made->file("mconsole"), "");
  InstanceDirectory::emergency_remove(made.get());
  CHECK(fs::is_empty(scratch.root));
  // Neither does a child that was forked off take its parent's directory along.
  auto second = claim(scratch.root, "second");
  REQUIRE(second);
  const pid_t child = ::fork();
  if (child == 0) {
    second.reset();
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  CHECK(fs::exists(second->file("pid")));
}

TEST_CASE("guests are found by name, path and process") {
  const Scratch scratch;
  std::string error;
  CHECK(!find_instance(scratch.root, "demo", error));
  CHECK(error == fmt::format("There is no running guest \"demo\", and none at all in {}.",
                             scratch.root.string()));
  const auto made = claim(scratch.root, "demo");
  REQUIRE(made);
  for (const std::string &what :
       {std::string("demo"), made->path().string(), made->path().string() + "/",
        made->file("mconsole").string(), std::to_string(::getpid())}) {
    CAPTURE(what);
    const auto found = find_instance(scratch.root, what, error);
    REQUIRE(found);
    CHECK(found->name == "demo");
    CHECK(found->directory == made->path());
  }
  CHECK(!find_instance(scratch.root, "other", error));
  CHECK(error == fmt::format("There is no running guest \"other\" in {}. Running: demo.",
                             scratch.root.string()));
  CHECK(!find_instance(scratch.root, "..", error));
  CHECK(!find_instance(scratch.root, "/nowhere/at/all", error));
}

TEST_CASE("the root is what was asked for, else of the environment, else of the home directory") {
  std::string error;
  ::setenv("HOME", "/home/someone", 1);
  ::unsetenv("COWBIRD_DIR");
  CHECK(instance_root("", error) == fs::path("/home/someone/.uml"));
  ::setenv("COWBIRD_DIR", "/run/guests", 1);
  CHECK(instance_root("", error) == fs::path("/run/guests"));
  CHECK(instance_root("/x/../y", error) == fs::path("/y"));
  ::unsetenv("COWBIRD_DIR");
  ::unsetenv("HOME");
  CHECK(!instance_root("", error));
  CHECK(error.find("HOME is not set") != std::string::npos);
}
