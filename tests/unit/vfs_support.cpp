#include "unit/vfs_support.hpp"

#include <exception>

#include "mm/phys_memory.hpp"
#include "unit/sched_support.hpp"
#include "vfs/caller.hpp"

namespace cowbird::caller {

std::uint64_t file_size_limit() { return vfs_test::caller().file_size_limit; }
void raise_signal(int signal) { vfs_test::caller().signals.push_back(signal); }
int process_id() { return 42; }
const Credentials &credentials() { return vfs_test::caller().credentials; }
void send_io_signal(const IoSignal &request) {
  vfs_test::caller().signals.push_back(request.signal);
}

}  // namespace cowbird::caller

namespace cowbird::vfs_test {

Caller &caller() {
  static Caller instance;
  return instance;
}

namespace {
// File systems of earlier tests stay mounted, so the memory stays too.
void provide_memory() {
  static const std::unique_ptr<PhysMemory> memory = [] {
    std::string why;
    auto made = PhysMemory::create(64 * kMiB, why);
    KASSERT(made.ok());
    return *std::move(made);
  }();
  set_phys(memory.get());
}
}  // namespace

void run_together(std::vector<std::function<void()>> bodies) {
  provide_memory();
  caller() = Caller{};
  std::exception_ptr failure;
  {
    test::Machine machine(1);
    for (auto &body : bodies) {
      body = [inner = std::move(body), &failure] {
        try {
          inner();
        } catch (...) {
          failure = std::current_exception();  // a failed REQUIRE
        }
      };
    }
    machine.run(std::move(bodies));
  }
  if (failure) std::rethrow_exception(failure);
}

void run(const std::function<void()> &body) { run_together({body}); }

Tree::Tree(TmpfsOptions options) : fs(make_ref<FsContext>()) {
  auto root = mount_root(make_tmpfs("tmpfs", options), "test", 0);
  KASSERT(root.ok());
  fs->root = fs->cwd = *root;
}

void Tree::mkdir(std::string_view name, std::uint32_t mode) {
  KASSERT(make_directory(walk(), name, mode).ok());
}

Result<std::uint64_t> write_some(File &file, std::string_view bytes) {
  IovIter from = IovIter::kernel(std::as_bytes(std::span(bytes)));
  return file.write(from, file.position);
}

std::string read_some(File &file, std::size_t bytes) {
  std::string text(bytes, '\0');
  IovIter to = IovIter::kernel(std::as_writable_bytes(std::span(text)));
  auto done = file.read(to, file.position);
  if (!done) return std::string("error ") + std::string(errno_name(done.error()));
  text.resize(*done);
  return text;
}

void Tree::write(std::string_view name, std::string_view contents) {
  auto file = open(name, abi::kO_CREAT | abi::kO_WRONLY | abi::kO_TRUNC);
  KASSERT(file.ok());
  KASSERT(write_some(**file, contents).ok());
}

std::string Tree::read(std::string_view name) {
  auto file = open(name);
  if (!file) return std::string("error ") + std::string(errno_name(file.error()));
  return read_some(**file);
}

std::vector<std::string> Tree::list(std::string_view name) {
  std::vector<std::string> names;
  auto directory = open(name, abi::kO_DIRECTORY);
  KASSERT(directory.ok());
  KASSERT((*directory)
              ->readdir([&](std::string_view entry, std::uint64_t, FileType, std::uint64_t) {
                names.emplace_back(entry);
                return true;
              })
              .ok());
  return names;
}

Credentials user(std::uint32_t id) {
  Credentials credentials;
  credentials.uid = credentials.euid = credentials.suid = credentials.fsuid = id;
  credentials.gid = credentials.egid = credentials.sgid = credentials.fsgid = id;
  credentials.cap_permitted = credentials.cap_effective = 0;
  return credentials;
}

}  // namespace cowbird::vfs_test
