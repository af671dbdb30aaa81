// Block devices over plugins: the backend `file` with io_uring and with a thread, a backend with
// tight limits, and the registry.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "block/block_device.hpp"
#include "plugins/plugin_registry.hpp"
#include "unit/poll_host_events.hpp"
#include "unit/sleep_by_polling.hpp"

using namespace cowbird;
namespace fs = std::filesystem;
using Catch::Matchers::Contains;

namespace {

struct Fixture {
  test::PollHostEvents events;
  PluginRegistry registry{{TEST_PLUGIN_DIR, OWN_PLUGIN_DIR}};
  PluginError error;
  fs::path directory;

  Fixture() {
    char name[] = "/tmp/cowbird-block-XXXXXX";
    directory = mkdtemp(name);
    test::sleep_by_polling = [this] { events.run_once(1000); };
  }
  ~Fixture() { fs::remove_all(directory); }

  fs::path image(std::uint64_t size) {
    const fs::path file = directory / "disk.img";
    std::ofstream(file).flush();
    fs::resize_file(file, size);
    return file;
  }
  std::unique_ptr<BlockBackend> make(const std::string &plugin, const ConfigTable &table = {}) {
    const PluginInfo *info = registry.find(PluginKind::Block, plugin, error);
    if (!info) return nullptr;
    const auto config = validate_config(*info, table, {},
                                        [&](auto, std::string_view text) { error.message = text; });
    return config ? registry.create_block(*info, "ubda", *config, events, error) : nullptr;
  }
  Ref<BlockDevice> device(const std::string &plugin, const ConfigTable &table = {}) {
    auto backend = make(plugin, table);
    INFO(error.message);
    REQUIRE(backend);
    return *BlockDevice::create("ubda", kUbdMajor, 0, std::move(backend));
  }
};

std::vector<std::byte> pattern(std::size_t size, unsigned seed) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 256 + seed);
  return bytes;
}

std::vector<std::byte> read_all(BlockDevice &device, std::uint64_t offset, std::size_t size) {
  std::vector<std::byte> bytes(size);
  const auto n = device.read(offset, bytes);
  REQUIRE(n);
  bytes.resize(*n);
  return bytes;
}

bool all_zero(const std::vector<std::byte> &bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

TEST_CASE_METHOD(Fixture, "file: bytes go in and out at any offset") {
  const char *io = GENERATE("io_uring", "threads");
  const fs::path path = image(5 << 20);
  ConfigTable table{{"path", path.string()}, {"io", io}};
  auto probe = make("file", table);
  if (!probe) {
    WARN("skipped: " + error.message);
    return;
  }
  probe.reset();
  const auto disk = device("file", table);
  CHECK(disk->size() == 5 << 20);
  CHECK(disk->block_size() == 512);
  CHECK_THAT(disk->describe(), Contains(path.string()));

  const auto big = pattern((4 << 20) + 100, 1);
  CHECK(*disk->write(777, big) == big.size());
  CHECK(read_all(*disk, 777, big.size()) == big);
  const auto small = pattern(10, 9);
  CHECK(*disk->write(1020, small) == 10);  // over the border of two blocks
  CHECK(read_all(*disk, 1020, 10) == small);
  CHECK(read_all(*disk, 1030, 5)[0] == big[1030 - 777]);
  CHECK(disk->flush());
  std::ifstream host(path, std::ios::binary);
  host.seekg(777);
  CHECK(static_cast<std::byte>(host.get()) == big[0]);

  SECTION("the ends") {
    std::vector<std::byte> two(2);
    CHECK(*disk->read(disk->size(), two) == 0);
    CHECK(*disk->read(disk->size() + 5, two) == 0);
    CHECK(*disk->read(disk->size() - 1, two) == 1);
    CHECK(disk->write(disk->size(), two).is(Errno::NoSpc));
    CHECK(*disk->write(disk->size() - 1, two) == 1);
    CHECK(*disk->read(UINT64_MAX, two) == 0);
    CHECK(*disk->read(0, {}) == 0);
    CHECK(fs::file_size(path) == disk->size());
  }
  SECTION("zeroes and discards") {
    CHECK(disk->write_zeroes(4096, 8192));
    CHECK(all_zero(read_all(*disk, 4096, 8192)));
    CHECK(read_all(*disk, 4095, 1)[0] == big[4095 - 777]);
    CHECK(disk->write_zeroes(1, 512).is(Errno::Inval));
    CHECK(disk->write_zeroes(disk->size() - 512, 1024).is(Errno::Inval));
    const auto discarded = disk->discard(1 << 20, 1 << 20);
    if (discarded) {
      CHECK(all_zero(read_all(*disk, 1 << 20, 1 << 20)));
    } else {
      CHECK(discarded.is(Errno::OpNotSupp));
    }
    CHECK(fs::file_size(path) == disk->size());
  }
  SECTION("an image that is cut under way gives EIO, not old data") {
    fs::resize_file(path, 1 << 20);
    std::vector<std::byte> block(4096);
    CHECK(disk->read(2 << 20, block).is(Errno::Io));
    CHECK(*disk->read((1 << 20) - 512, std::span(block).first(512)) == 512);
    CHECK(disk->stats().errors > 0);
  }
  CHECK(disk->stats().in_flight == 0);
  CHECK(disk->stats().reads > 0);
}

TEST_CASE_METHOD(Fixture, "file: durable writes and kept space") {
  const char *io = GENERATE("auto", "threads");
  auto backend = make("file", {{"path", image(1 << 20).string()}, {"io", io}});
  REQUIRE(backend);
  const auto run = [&](BlockRequest &request) {
    std::optional<bool> good;
    request.done = [&](Result<void> result) { good = result.ok(); };
    BlockRequest *const list[] = {&request};
    backend->submit(list);
    CHECK_FALSE(good);  // never from inside submit
    REQUIRE(events.run_until([&] { return good.has_value(); }));
    return *good;
  };
  auto bytes = pattern(8192, 3);
  iovec buffers[] = {{bytes.data(), 512}, {bytes.data() + 512, 7680}};
  BlockRequest write{.operation = BlockOperation::Write,
                     .force_unit_access = true,
                     .offset = 512,
                     .length = 8192,
                     .buffers = buffers,
                     .done = {}};
  CHECK(run(write));
  BlockRequest zero{.operation = BlockOperation::WriteZeroes,
                    .force_unit_access = true,
                    .no_unmap = true,
                    .offset = 1024,
                    .length = 512,
                    .buffers = {},
                    .done = {}};
  if (backend->info().can_write_zeroes == BlockSupport::Native) {
    CHECK(run(zero));
    std::vector<std::byte> back(512);
    iovec buffer{back.data(), back.size()};
    BlockRequest read{.operation = BlockOperation::Read,
                      .offset = 1024,
                      .length = 512,
                      .buffers = {&buffer, 1},
                      .done = {}};
    CHECK(run(read));
    CHECK(all_zero(back));
  }
  BlockRequest outside{.operation = BlockOperation::Write,
                       .offset = 1 << 20,
                       .length = 8192,
                       .buffers = buffers,
                       .done = {}};
  CHECK_FALSE(run(outside));
  BlockRequest lying{.operation = BlockOperation::Read,
                     .offset = 0,
                     .length = 4096,
                     .buffers = buffers,
                     .done = {}};
  CHECK_FALSE(run(lying));
  CHECK(backend->in_flight() == 0);
}

TEST_CASE_METHOD(Fixture, "file: read-only is read-only") {
  const fs::path path = image(8192);
  fs::permissions(path, fs::perms::owner_read);
  const auto disk = device("file", {{"path", path.string()}, {"readonly", true}});
  CHECK(disk->read_only());
  const auto bytes = pattern(512, 1);
  CHECK(disk->write(0, bytes).is(Errno::RoFs));
  CHECK(disk->write_zeroes(0, 512).is(Errno::RoFs));
  CHECK(disk->discard(0, 512).is(Errno::RoFs));
  CHECK(disk->flush());
  CHECK(read_all(*disk, 0, 8192).size() == 8192);
}

TEST_CASE_METHOD(Fixture, "file: an image that is of no use is refused with the reason") {
  const auto refusal = [&](const fs::path &path) {
    CHECK_FALSE(make("file", {{"path", path.string()}}));
    CHECK(error.fault == PluginFault::CreateFailed);
    CHECK_THAT(error.message, Contains(path.string()));
    return error.message;
  };
  CHECK_THAT(refusal(directory / "absent.img"), Contains("does not exist"));
  CHECK_THAT(refusal(directory), Contains("is a directory"));
  CHECK_THAT(refusal(image(1000)), Contains("1000 bytes, which is not a multiple of 512"));
  CHECK_THAT(refusal(image(0)), Contains("is empty"));
  CHECK_THAT(refusal("/dev/null"), Contains("neither a file nor a block device"));
  const fs::path fifo = directory / "fifo";
  mkfifo(fifo.c_str(), 0600);
  CHECK_THAT(refusal(fifo), Contains("neither a file nor a block device"));
  if (getuid() != 0) {
    const fs::path locked = image(512);
    fs::permissions(locked, fs::perms::owner_read);
    CHECK_THAT(refusal(locked), Contains("cannot be opened for writing"));
    CHECK_THAT(refusal(locked), Contains("readonly = true"));
    fs::permissions(locked, fs::perms::none);
    CHECK_THAT(refusal(locked), Contains("cannot be read"));
  }
  CHECK_FALSE(make("file"));
  CHECK_THAT(error.message, Contains("needs the key \"path\""));
}

TEST_CASE_METHOD(Fixture, "file: one writer, or several readers") {
  const std::string path = image(4096).string();
  auto writer = make("file", {{"path", path}});
  REQUIRE(writer);
  CHECK_FALSE(make("file", {{"path", path}}));
  CHECK_THAT(error.message, Contains("is in use by another guest"));
  CHECK_FALSE(make("file", {{"path", path}, {"readonly", true}}));
  writer.reset();
  const auto one = make("file", {{"path", path}, {"readonly", true}});
  CHECK(make("file", {{"path", path}, {"readonly", true}}));
  CHECK_FALSE(make("file", {{"path", path}}));
}

TEST_CASE_METHOD(Fixture, "file: an image is free at once, whatever the program is just starting") {
  const fs::path file = image(4096);
  auto backend = make("file", {{"path", file.string()}});
  REQUIRE(backend);
  // Between its start and its execve a process has copies of all descriptors.
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  backend.reset();
  backend = make("file", {{"path", file.string()}});
  ::kill(child, SIGKILL);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  INFO(error.message);
  CHECK(backend);
}

TEST_CASE_METHOD(Fixture, "a device splits by its backend's limits and survives errors") {
  const auto disk = device("threaded_block");
  CHECK(disk->block_size() == 1024);
  const auto bytes = pattern(60000, 5);
  CHECK(*disk->write(100, bytes) == bytes.size());
  CHECK(read_all(*disk, 100, bytes.size()) == bytes);
  // The block at 64 KiB fails: what lies before it is transferred.
  std::vector<std::byte> over(32768);
  CHECK(*disk->read(49152, over) == 16384);
  CHECK(disk->read(65536, over).is(Errno::Io));
  CHECK(disk->read(65540, std::span(over).first(10)).is(Errno::Io));
  CHECK(read_all(*disk, 131072, 4096).size() == 4096);
  CHECK(disk->flush());
  CHECK(disk->discard(0, 1024).is(Errno::OpNotSupp));
  CHECK(disk->write_zeroes(2048, 10240));
  CHECK(all_zero(read_all(*disk, 2048, 10240)));
  CHECK(disk->stats().in_flight == 0);
}

TEST_CASE_METHOD(Fixture, "devices are known by name and number") {
  CHECK(*block::ubd_index("ubd0") == 0);
  CHECK(*block::ubd_index("ubdc") == 2);
  CHECK(*block::ubd_index("ubd25") == 25);
  CHECK(*block::ubd_index("ubd512") == 512);
  CHECK(block::ubd_name(25) == "ubdz");
  CHECK(block::ubd_name(26) == "ubd26");
  for (const char *name : {"ubd", "ubd65536", "ubd01", "ubdA", "ubdaa", "sda", "ubd-1"}) {
    CHECK(block::ubd_index(name).is(Errno::Inval));
  }
  std::vector<std::string> told;
  block::set_block_device_listener(
      [&](BlockDevice &d, bool added) { told.push_back((added ? "+" : "-") + d.name()); });
  const auto disk = block::add_ubd("ubd1", make("file", {{"path", image(512).string()}}));
  REQUIRE(disk);
  CHECK((*disk)->name() == "ubdb");
  CHECK((*disk)->minor() == 16);
  CHECK(block::find_block_device("ubdb") == *disk);
  CHECK(block::find_block_device(98, 16) == *disk);
  CHECK_FALSE(block::find_block_device(98, 0));
  CHECK(block::add_ubd("ubdb", make("threaded_block")).is(Errno::Exist));
  CHECK(block::unregister_block_device("ubdb"));
  CHECK(block::unregister_block_device("ubdb").is(Errno::NoEnt));
  CHECK(told == std::vector<std::string>{"+ubdb", "-ubdb"});
  block::set_block_device_listener(nullptr);
}
