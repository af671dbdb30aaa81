// FakePlatform: the Platform of unit tests. No host process: an address space is a table of pages
// that tests can read and through which they can load and store as guest code would; a context's
// run() is a script of the test. For tests of mm, proc and the system calls only.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/platform.hpp"

namespace cowbird {

class FakePlatform;

class FakeAddressSpace final : public AddressSpace {
 public:
  struct Page {
    Pfn pfn = 0;
    Prot prot = Prot::None;
  };

  explicit FakeAddressSpace(FakePlatform &platform);
  ~FakeAddressSpace() override;

  void map(VirtAddr address, Pfn first, std::uint64_t pages, Prot prot, bool populate) override;
  void unmap(VirtAddr address, std::uint64_t pages) override;
  void protect(VirtAddr address, std::uint64_t pages, Prot prot) override;
  SyncPoint sync_point() override { return queued_; }
  // Changes apply at once, but are proven only by synchronize() or finish_orders(), so that tests
  // see who re-uses a page too early.
  bool reached(SyncPoint point) override { return dead_ || point <= proven_; }
  bool synchronize(SyncPoint point) override;
  bool dead() const override { return dead_; }

  // For tests.
  const std::map<VirtAddr, Page> &pages() const { return pages_; }
  std::optional<Page> page(VirtAddr address) const;
  void finish_orders() { proven_ = queued_; }
  void die() { dead_ = true; }
  // The host dropped its mappings, as the cache that they are.
  void forget_mappings() { pages_.clear(); }
  std::uint64_t synchronized() const { return synchronized_; }

  // What a guest instruction would do: copies and returns nothing, or returns the fault. Bytes
  // before the fault have been copied.
  std::optional<Trap> load(VirtAddr address, std::span<std::byte> out) const;
  std::optional<Trap> store(VirtAddr address, std::span<const std::byte> in);
  // Whether an instruction can be fetched.
  std::optional<Trap> fetch(VirtAddr address) const;

 private:
  std::optional<Trap> check(VirtAddr address, FaultAccess access, Page &page) const;

  FakePlatform &platform_;
  std::map<VirtAddr, Page> pages_;
  SyncPoint queued_ = 0, proven_ = 0;
  std::uint64_t synchronized_ = 0;
  bool dead_ = false;
};

class FakeContext final : public Context {
 public:
  // What guest code does until its next trap. It may use the address space's load and store.
  using Script = std::function<Trap(abi::UserRegs &)>;

  explicit FakeContext(FakeAddressSpace &space);

  // Runs the next queued step or, when there is none, the default script; Dead without either.
  Trap run() override;
  void interrupt() override { interrupted_ = true; }
  void park() override { ++parks_; }
  std::size_t get_xstate(std::span<std::byte> out) override;
  Result<void> set_xstate(std::span<const std::byte> in) override;
  void reset_xstate() override;

  // For tests.
  void set_script(Script script) { script_ = std::move(script); }
  void queue_step(Script step) { steps_.push_back(std::move(step)); }
  FakeAddressSpace &space() { return space_; }
  std::uint64_t runs() const { return runs_; }
  std::uint64_t parks() const { return parks_; }

  // Makes a system call trap as the stub does.
  static Trap system_call(abi::UserRegs &regs, std::uint64_t number,
                          std::initializer_list<std::uint64_t> args);

 private:
  FakeAddressSpace &space_;
  Script script_;
  std::deque<Script> steps_;
  std::vector<std::byte> xstate_;
  bool interrupted_ = false;
  std::uint64_t runs_ = 0, parks_ = 0;
};

class FakePlatform final : public Platform {
 public:
  // `memory` is the guest's physical memory; it must outlive the platform.
  explicit FakePlatform(std::span<std::byte> memory) : memory_(memory) {}

  Result<std::unique_ptr<AddressSpace>> new_address_space() override;
  Result<std::unique_ptr<Context>> new_context(AddressSpace &space) override;
  std::size_t xstate_size() const override;
  PlatformStats stats() const override { return stats_; }
  void shutdown() override {}

  // For tests.
  std::span<std::byte> memory() { return memory_; }
  std::span<std::byte> frame(Pfn pfn) { return memory_.subspan(pfn << kPageShift, kPageSize); }
  std::uint64_t live_spaces() const { return live_spaces_; }
  // The script of contexts made from now on.
  void set_default_script(FakeContext::Script script) { default_script_ = std::move(script); }
  // new_address_space fails from now on.
  void set_out_of_stubs(bool out) { out_of_stubs_ = out; }

 private:
  friend class FakeAddressSpace;
  std::span<std::byte> memory_;
  FakeContext::Script default_script_;
  PlatformStats stats_;
  std::uint64_t live_spaces_ = 0;
  bool out_of_stubs_ = false;
};

}  // namespace cowbird
