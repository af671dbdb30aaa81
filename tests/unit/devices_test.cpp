// Devices at run time: the registry, consoles and serial lines, block devices, memory; and a storm
// of changes that must leave nothing behind.
#include <fcntl.h>
#include <malloc.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <random>

#include "abi/fcntl.hpp"
#include "devices/block_driver.hpp"
#include "devices/device_registry.hpp"
#include "devices/line_driver.hpp"
#include "devices/memory_driver.hpp"
#include "fs/devtmpfs.hpp"
#include "mm/balloon.hpp"
#include "mm/phys_memory.hpp"
#include "plugins/irq_host_events.hpp"
#include "sched/clock.hpp"
#include "unit/sched_support.hpp"
#include "vfs/mount.hpp"
#include "vfs/path.hpp"

using namespace cowbird;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

// What a guest without programs has: memory, /dev as its root, and the drivers.
struct Guest {
  Guest() {
    static const std::unique_ptr<PhysMemory> memory = [] {
      std::string why;
      auto made = PhysMemory::create(64 * kMiB, why);
      KASSERT(made.ok());
      return *std::move(made);
    }();
    set_phys(memory.get());
    static const bool once = [] { return init_devtmpfs().ok() && register_block_nodes().ok(); }();
    KASSERT(once);
    context = make_ref<FsContext>();
    auto root = mount_root(devtmpfs_superblock(), "devtmpfs", 0);
    KASSERT(root.ok());
    context->root = context->cwd = *root;
    char name[] = "/tmp/cowbird-devices-XXXXXX";
    directory = ::mkdtemp(name);
    const DeviceHost host{plugins, events, directory};
    consoles = add<LineDriver>(LineDriver::kConsoles, host);
    serials = add<LineDriver>(LineDriver::kSerials, host);
    add<BlockDriver>(host);
    add<MemoryDriver>();
    REQUIRE(consoles->register_devices());
    REQUIRE(serials->register_devices());
  }
  ~Guest() {
    // The nodes go with the devices, as the next test begins with none.
    for (const DeviceStatus &device : registry.list()) registry.remove(device.name);
    fs::remove_all(directory);
  }

  template <typename Driver, typename... Args>
  Driver *add(Args &&...args) {
    auto driver = std::make_unique<Driver>(std::forward<Args>(args)...);
    Driver *const raw = driver.get();
    REQUIRE(registry.add(std::move(driver)));
    return raw;
  }
  std::string ask(std::string_view request) {
    const auto reply = registry.config(request);
    return (reply.ok ? "OK " : "ERR ") + reply.text;
  }
  std::string remove(std::string_view name) {
    const auto reply = registry.remove(name);
    return (reply.ok ? "OK " : "ERR ") + reply.text;
  }
  WalkContext walk() { return {*context, Credentials::kernel(), context->cwd}; }
  bool has_node(std::string_view name) { return lookup(walk(), name, LookupFlag::Follow).ok(); }
  Result<Ref<File>> open(std::string_view name) {
    return open_path(walk(), name, abi::kO_RDWR | abi::kO_NOCTTY | abi::kO_NONBLOCK, 0);
  }
  std::string image(const char *name, std::uint64_t size = kMiB) {
    const fs::path file = directory / name;
    std::ofstream(file).flush();
    fs::resize_file(file, size);
    return file.string();
  }

  PluginRegistry plugins{{OWN_PLUGIN_DIR, TEST_PLUGIN_DIR}};
  IrqHostEvents events;
  DeviceRegistry registry;
  Ref<FsContext> context;
  fs::path directory;
  LineDriver *consoles = nullptr;
  LineDriver *serials = nullptr;
};

// Runs a test's body on a kernel thread.
void on_kernel_thread(const std::function<void()> &body) {
  std::exception_ptr failure;
  {
    test::Machine machine(1);
    machine.run([&] {
      try {
        body();
      } catch (...) {
        failure = std::current_exception();  // a failed REQUIRE
      }
    });
  }
  if (failure) std::rethrow_exception(failure);
}
void with_guest(const std::function<void(Guest &)> &body) {
  on_kernel_thread([&] {
    Guest guest;
    body(guest);
  });
}

// Sleeps until the irq thread has done what makes `condition` true.
bool eventually(const std::function<bool()> &condition) {
  WaitQueue never;
  for (int i = 0; i < 2000 && !condition(); ++i) {
    static_cast<void>(wait_event(
        never, [] { return false; }, SleepMode::Uninterruptible, "test",
        clock::monotonic_ns() + 5'000'000));
  }
  return condition();
}

Result<std::uint64_t> write_text(File &file, std::string_view text) {
  IovIter from = IovIter::kernel(std::as_bytes(std::span(text)));
  return file.write(from, file.position);
}

// "pts:/dev/pts/9" -> a descriptor of that terminal, raw.
UniqueFd open_pts(const std::string &setting) {
  REQUIRE_THAT(setting, Contains("pts:/dev/pts/"));
  UniqueFd fd(::open(setting.substr(setting.find('/')).c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK));
  REQUIRE(fd.valid());
  termios modes{};
  REQUIRE(tcgetattr(fd.get(), &modes) == 0);
  cfmakeraw(&modes);
  REQUIRE(tcsetattr(fd.get(), TCSANOW, &modes) == 0);
  return fd;
}
std::string read_host(int fd, std::size_t size) {
  std::string text;
  eventually([&] {
    char buffer[4096];
    const auto got = ::read(fd, buffer, std::min(sizeof buffer, size - text.size()));
    if (got > 0) text.append(buffer, static_cast<std::size_t>(got));
    return text.size() == size;
  });
  return text;
}

std::uint64_t host_blocks() {
  struct stat status {};
  REQUIRE(fstat(phys().fd(), &status) == 0);
  return static_cast<std::uint64_t>(status.st_blocks);
}

std::size_t open_descriptors() {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
}

class FakeDriver final : public DeviceDriver {
 public:
  FakeDriver(std::string_view prefix, bool operators) : prefix_(prefix), operators_(operators) {}
  std::string_view prefix() const override { return prefix_; }
  std::string_view syntax() const override { return "fake<n>=<x>"; }
  bool has_operators() const override { return operators_; }
  DeviceReply configure(std::string_view unit, std::string_view setting) override {
    return DeviceReply::done(std::string(unit) + "|" + std::string(setting));
  }
  DeviceReply query(std::string_view unit) override { return DeviceReply::done(std::string(unit)); }
  DeviceReply remove(std::string_view unit) override {
    return DeviceReply::done("gone " + std::string(unit));
  }
  void for_each(const std::function<void(const DeviceStatus &)> &function) override {
    function({std::string(prefix_) + "1", "x", true});
  }

 private:
  std::string_view prefix_;
  bool operators_;
};

}  // namespace

TEST_CASE("the registry finds the driver and takes the request apart") {
  DeviceRegistry registry;
  REQUIRE(registry.add(std::make_unique<FakeDriver>("fake", false)));
  REQUIRE(registry.add(std::make_unique<FakeDriver>("pool", true)));
  CHECK(registry.add(std::make_unique<FakeDriver>("fa", false)).is(Errno::Exist));
  CHECK(registry.add(std::make_unique<FakeDriver>("faker", false)).is(Errno::Exist));
  CHECK(registry.config("fake3=a=b").text == "3|a=b");
  CHECK(registry.config("fake={ a = \"+=\" }").text == "|{ a = \"+=\" }");
  CHECK(registry.config("fake3").text == "3");
  CHECK(registry.config("pool+=4").text == "|+4");
  CHECK(registry.config("pool-=4").text == "|-4");
  CHECK(registry.remove("fake2").text == "gone 2");
  for (const char *bad : {"", "=", "eth0", "eth0=tap", "fak"}) {
    const auto reply = registry.config(bad);
    CHECK_FALSE(reply.ok);
    CHECK_THAT(reply.text, Contains("begin with fake, pool"));
  }
  CHECK_THAT(registry.config("fake1+=2").text, Contains("neither += nor -="));
  CHECK_THAT(registry.config("fake1=").text, Contains("the form is fake<n>=<x>"));
  CHECK_THAT(registry.remove("eth0").text, Contains("There is no device \"eth0\""));
  REQUIRE(registry.list().size() == 2);
  CHECK(registry.list()[1].name == "pool1");
  CHECK(registry.syntaxes().size() == 2);
}

TEST_CASE("a line takes from the host what it needs while it is open") {
  with_guest([](Guest &guest) {
    CHECK(guest.ask("con3") == "OK none");
    CHECK_FALSE(guest.has_node("/tty3"));
    REQUIRE(guest.ask("con3=pts") == "OK ");
    CHECK(guest.has_node("/tty3"));
    CHECK(guest.ask("con3") == "OK pts");
    {
      const auto file = guest.open("/tty3");
      REQUIRE(file);
      const std::string now = guest.ask("con3");
      CHECK(guest.ask("con3=null") == "ERR Device is currently open");
      CHECK(guest.remove("con3") == "ERR Device is currently open");
      REQUIRE(guest.registry.list().size() == 2);  // mem too
      CHECK(guest.registry.list()[0].busy);
      const UniqueFd peer = open_pts(now);
      CHECK(*write_text(**file, "to the host\n") == 12);
      CHECK(read_host(peer.get(), 13) == "to the host\r\n");
      // Echoed by the guest's terminal.
      REQUIRE(::write(peer.get(), "x", 1) == 1);
      CHECK(read_host(peer.get(), 1) == "x");
    }
    CHECK(eventually([&] { return guest.ask("con3") == "OK pts"; }));
    CHECK(guest.ask("con3={ plugin = \"null\" }") == "OK ");
    CHECK(guest.ask("con3") == "OK null");
    CHECK(guest.remove("con3") == "OK ");
    CHECK_FALSE(guest.has_node("/tty3"));
    CHECK(guest.remove("con3") == "ERR There is no con3.");
  });
}

TEST_CASE("what is refused changes nothing") {
  with_guest([](Guest &guest) {
    REQUIRE(guest.ask("ssl1=null") == "OK ");
    CHECK_THAT(guest.ask("ssl1=ptx"), Contains("no channel plugin \"ptx\""));
    CHECK_THAT(guest.ask("ssl1=fd:77777"), Contains("77777"));
    CHECK(guest.ask("ssl1") == "OK null");
    CHECK_THAT(guest.ask("ssl01=null"), Contains("no number of a serial line"));
    CHECK_THAT(guest.ask("sslx"), Contains("no number of a serial line"));
    CHECK_THAT(guest.remove("ssl"), Contains("no number of a serial line"));
    CHECK(guest.open("/ttyS1"));
  });
}

TEST_CASE("none, and the setting of all that have none") {
  with_guest([](Guest &guest) {
    REQUIRE(guest.ask("ssl2=none") == "OK ");
    CHECK(guest.open("/ttyS2").is(Errno::NoDev));
    CHECK(guest.open("/ttyS9").is(Errno::NoEnt));
    REQUIRE(guest.ask("ssl=null") == "OK ");
    CHECK(guest.ask("ssl") == "OK null");
    CHECK(guest.ask("ssl9") == "OK null");
    CHECK(guest.ask("ssl2") == "OK none");
    CHECK(guest.open("/ttyS9"));
    CHECK(guest.open("/ttyS63"));
    CHECK(guest.open("/ttyS2").is(Errno::NoDev));
    CHECK(guest.remove("ssl9") == "OK ");
    CHECK(guest.open("/ttyS9").is(Errno::NoDev));
    CHECK(guest.ask("ssl9") == "OK none");
    REQUIRE(guest.ask("ssl70=null") == "OK ");
    CHECK(guest.has_node("/ttyS70"));
    REQUIRE(guest.ask("con300=null") == "OK ");
    CHECK(guest.open("/tty300"));
  });
}

TEST_CASE("input and output may be two channels") {
  with_guest([](Guest &guest) {
    REQUIRE(guest.ask("ssl2=pts,pts") == "OK ");
    CHECK(guest.ask("ssl2") == "OK pts,pts");
    const auto file = guest.open("/ttyS2");
    REQUIRE(file);
    const std::string now = guest.ask("ssl2");
    const auto comma = now.find(',');
    REQUIRE(comma != std::string::npos);
    const UniqueFd in = open_pts(now.substr(3, comma - 3));
    const UniqueFd out = open_pts(now.substr(comma + 1));
    REQUIRE(::write(in.get(), "typed", 5) == 5);
    CHECK(read_host(out.get(), 5) == "typed");  // the echo
    char byte = 0;
    CHECK(::read(in.get(), &byte, 1) < 0);
    REQUIRE(guest.ask("ssl3=null,none") == "OK ");
    CHECK(guest.ask("ssl3") == "OK null,none");
    CHECK(guest.open("/ttyS3"));
  });
}

TEST_CASE("a hang-up by the host ends what is open, not the line") {
  with_guest([](Guest &guest) {
    REQUIRE(guest.ask("ssl0=pts") == "OK ");
    auto file = guest.open("/ttyS0");
    REQUIRE(file);
    UniqueFd peer = open_pts(guest.ask("ssl0"));
    // The plugin must have seen it come before it can see it go.
    REQUIRE(::write(peer.get(), "x", 1) == 1);
    REQUIRE(read_host(peer.get(), 1) == "x");
    peer.reset();
    CHECK(eventually([&] { return write_text(**file, "x").is(Errno::Io); }));
    const auto again = guest.open("/ttyS0");
    REQUIRE(again);
    peer = open_pts(guest.ask("ssl0"));
    CHECK(*write_text(**again, "back") == 4);
    CHECK(read_host(peer.get(), 4) == "back");
  });
}

TEST_CASE("disks come, change and go while nobody uses them") {
  with_guest([](Guest &guest) {
    const std::string one = guest.image("one.img"), two = guest.image("two.img", 2 * kMiB);
    REQUIRE(guest.ask("ubdb=one.img") == "OK ");
    CHECK(guest.ask("ubdb") == "OK " + one);
    CHECK(guest.ask("ubd1") == "OK " + one);
    {
      const auto file = guest.open("/ubdb");
      REQUIRE(file);
      CHECK(*write_text(**file, std::string(512, 'x')) == 512);
      CHECK(guest.remove("ubdb") == "ERR Device is currently open");
      CHECK(guest.ask("ubdb=" + two) == "ERR Device is currently open");
    }
    CHECK_THAT(guest.ask("ubdb=missing.img"), Contains("does not exist"));
    CHECK(guest.ask("ubdb") == "OK " + one);
    // The same file with other flags, which is locked by the old device.
    REQUIRE(guest.ask("ubdbr=" + one) == "OK ");
    CHECK(guest.open("/ubdb").is(Errno::RoFs));
    REQUIRE(guest.ask("ubd1={ plugin = \"file\", path = \"" + two + "\" }") == "OK ");
    CHECK(block::find_block_device("ubdb")->size() == 2 * kMiB);
    CHECK(guest.remove("ubd1") == "OK ");
    CHECK_FALSE(guest.has_node("/ubdb"));
    CHECK(guest.remove("ubdb") == "ERR There is no ubdb.");
    CHECK(guest.ask("ubdb") == "ERR There is no ubdb.");
    CHECK_THAT(guest.ask("ubdB=x"), Contains("no letter or number"));
    CHECK_THAT(guest.ask("ubd"), Contains("no letter or number"));
    REQUIRE(guest.ask("ubd512=" + one) == "OK ");
    CHECK(guest.has_node("/ubd512"));
  });
}

TEST_CASE("what the guest has put in the place of a node stays") {
  with_guest([](Guest &guest) {
    const std::string image = guest.image("disk");
    for (const auto &[setting, device, node] :
         {std::tuple{"ssl3=null", "ssl3", "ttyS3"}, {"ubdd=", "ubdd", "ubdd"}}) {
      CAPTURE(device);
      const std::string request = std::string(setting) + (setting[0] == 'u' ? image : "");
      REQUIRE(guest.ask(request) == "OK ");
      // A symbolic link, then another device's node, then nothing.
      REQUIRE(remove_name(guest.walk(), node));
      REQUIRE(make_symlink(guest.walk(), "tty0", node));
      const auto log = log_next_sequence();
      CHECK(guest.remove(device) == "OK ");
      CHECK(lookup(guest.walk(), node, LookupFlag::None).ok());
      REQUIRE(remove_name(guest.walk(), node));
      REQUIRE(guest.ask(request) == "OK ");
      REQUIRE(remove_name(guest.walk(), node));
      REQUIRE(make_node(guest.walk(), node, 0020666, {1, 3}));
      CHECK(guest.remove(device) == "OK ");
      CHECK(lookup(guest.walk(), node, LookupFlag::None).ok());
      REQUIRE(remove_name(guest.walk(), node));
      REQUIRE(guest.ask(request) == "OK ");
      REQUIRE(remove_name(guest.walk(), node));
      CHECK(guest.remove(device) == "OK ");
      for (auto at = log; at < log_next_sequence(); ++at) {
        CHECK(log_read(at)->level > LogLevel::Err);
      }
    }
  });
}

TEST_CASE("memory goes back to the host and comes again as zeroes") {
  with_guest([](Guest &guest) {
    CHECK(guest.ask("mem") == "OK 64M");
    // All of it has been used once.
    std::vector<Pfn> frames;
    while (const auto pfn = phys().alloc(Zero::No, true)) {
      std::memset(phys().data(*pfn), 0x5a, kPageSize);
      frames.push_back(*pfn);
    }
    for (const Pfn pfn : frames) phys().put(pfn);
    const auto blocks = host_blocks();
    const auto free = phys().free_pages();
    REQUIRE(guest.ask("mem-=16M") == "OK ");
    CHECK(guest.ask("mem") == "OK 48M");
    CHECK(host_blocks() == blocks - 16 * kMiB / 512);
    CHECK(phys().free_pages() == free - (16 * kMiB >> kPageShift));
    CHECK(phys().total_pages() == 64 * kMiB >> kPageShift);
    REQUIRE(guest.ask("mem=40M") == "OK ");
    CHECK(host_blocks() == blocks - 24 * kMiB / 512);
    CHECK_THAT(guest.ask("mem+=32M"), Contains("started with 64M"));
    REQUIRE(guest.ask("mem+=24M") == "OK ");
    CHECK(guest.ask("mem") == "OK 64M");
    CHECK(phys().free_pages() == free);
    frames.clear();
    std::size_t zero = 0;
    while (const auto pfn = phys().alloc(Zero::Yes)) {
      const auto bytes = phys().bytes(*pfn);
      if (std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; })) ++zero;
      frames.push_back(*pfn);
    }
    CHECK(zero == frames.size());
    // Nothing is free: what cannot be taken is refused, and it is said how much was.
    CHECK_THAT(guest.ask("mem-=8M"), Contains("0 of 8M could be taken"));
    for (const Pfn pfn : frames) phys().put(pfn);
    CHECK_THAT(guest.ask("mem-=64M"), Contains("cannot be taken"));
    CHECK_THAT(guest.ask("mem-=63M"), Contains("of 63M could be taken"));
    CHECK(phys().free_pages() > phys().reserve_pages());
    REQUIRE(guest.ask("mem=64M") == "OK ");
    CHECK(phys().free_pages() == free);
    for (const char *bad : {"mem=x", "mem=-1", "mem=100", "mem=0", "mem=65M", "mem1=64M", "memx"}) {
      CHECK_FALSE(guest.registry.config(bad).ok);
    }
    CHECK_FALSE(guest.registry.remove("mem").ok);
    CHECK(guest.ask("mem") == "OK 64M");
  });
}

namespace {

// One random change or use of a device; everything it opens is closed again by a later one.
class Storm {
 public:
  explicit Storm(Guest &guest) : guest_(guest) {
    for (const char *name : {"a.img", "b.img", "c.img"}) guest_.image(name);
  }
  void step() {
    const unsigned unit = pick(4);
    const std::string line = (pick(2) ? "con" : "ssl") + std::to_string(unit);
    const std::string node = (line[0] == 'c' ? "/tty" : "/ttyS") + std::to_string(unit);
    const std::string disk = std::string("ubd") + static_cast<char>('a' + unit);
    switch (pick(9)) {
      case 0:
      case 1: {
        static constexpr const char *kSettings[] = {"pts",     "null",     "none",
                                                    "pts,pts", "null,pts", "ptx"};
        guest_.ask(line + "=" + kSettings[pick(std::size(kSettings))]);
        break;
      }
      case 2:
        guest_.remove(line);
        break;
      case 3:
        keep(guest_.open(node));
        break;
      case 4: {
        static constexpr const char *kFiles[] = {"a.img", "b.img", "c.img", "missing.img"};
        guest_.ask(disk + (pick(2) ? "r=" : "=") + kFiles[pick(std::size(kFiles))]);
        break;
      }
      case 5:
        guest_.remove(disk);
        break;
      case 6:
        keep(guest_.open("/" + disk));
        break;
      case 7:
        if (!files_.empty())
          files_.erase(files_.begin() + pick(static_cast<unsigned>(files_.size())));
        break;
      default:
        for (const auto &file : files_) static_cast<void>(write_text(*file, std::string(512, 'w')));
        for (const auto &device : guest_.registry.list()) guest_.ask(device.name);
    }
  }
  void end() {
    files_.clear();
    for (const auto &device : guest_.registry.list()) guest_.remove(device.name);
  }

 private:
  unsigned pick(unsigned below) { return static_cast<unsigned>(random_() % below); }
  void keep(Result<Ref<File>> file) {
    if (!file) return;
    if (files_.size() >= 8) files_.erase(files_.begin());
    files_.push_back(*std::move(file));
  }

  Guest &guest_;
  std::mt19937 random_{20060401};
  std::vector<Ref<File>> files_;
};

std::size_t heap_in_use() { return ::mallinfo2().uordblks; }

}  // namespace

TEST_CASE("a thousand changes leave nothing behind") {
  with_guest([](Guest &guest) {
    Storm storm(guest);
    const auto settle = [&] {
      storm.end();
      // What the irq thread has still to do.
      for (int i = 0; i < 20; ++i) eventually([] { return true; });
    };
    // The first round loads plugins and fills caches.
    for (int i = 0; i < 200; ++i) storm.step();
    settle();
    const auto descriptors = open_descriptors();
    const auto heap = heap_in_use();
    const auto frames = phys().free_pages();
    for (int i = 0; i < 1000; ++i) storm.step();
    settle();
    CHECK(eventually([&] { return open_descriptors() == descriptors; }));
    CHECK(phys().free_pages() == frames);
    // The log's ring and the dentry cache may have grown a little; a leak of a line or a disk at
    // each of hundreds of changes would be megabytes.
    CHECK(heap_in_use() < heap + 256 * kKiB);
    CHECK(guest.registry.list().size() == 1);  // mem
  });
}
