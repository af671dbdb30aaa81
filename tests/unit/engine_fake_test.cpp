// The fake platform that tests of other parts stand on.
#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include "engine/fake_platform.hpp"

using namespace cowbird;

namespace {

struct Fake {
  std::vector<std::byte> memory = std::vector<std::byte>(16 * kPageSize);
  FakePlatform platform{memory};
  std::unique_ptr<AddressSpace> owner = *platform.new_address_space();
  FakeAddressSpace &space = static_cast<FakeAddressSpace &>(*owner);
};

std::span<const std::byte> bytes(const char *text) {
  return {reinterpret_cast<const std::byte *>(text), std::strlen(text)};
}

}  // namespace

TEST_CASE("fake: guest accesses go through the mappings", "[engine]") {
  Fake fake;
  fake.space.map(0x10000, 3, 2, Prot::Read | Prot::Write, false);
  CHECK(!fake.space.store(0x10ffe, bytes("abcd")));
  CHECK(std::memcmp(&fake.platform.frame(3)[0xffe], "ab", 2) == 0);
  CHECK(std::memcmp(&fake.platform.frame(4)[0], "cd", 2) == 0);
  fake.space.protect(0x11000, 1, Prot::Read);
  const auto fault = fake.space.store(0x10fff, bytes("xy"));
  REQUIRE(fault);
  CHECK(fault->kind == TrapKind::PageFault);
  CHECK(fault->address == 0x11000);
  CHECK(fault->access == FaultAccess::Write);
  std::byte out[2];
  CHECK(!fake.space.load(0x10fff, out));
  CHECK(fake.space.fetch(0x10000));
  fake.space.unmap(0x10000, 1);
  CHECK(fake.space.load(0x10fff, out));
  CHECK(!fake.space.page(0x10000));
  CHECK(fake.space.page(0x11000)->pfn == 4);
}

TEST_CASE("fake: points are reached when somebody waits", "[engine]") {
  Fake fake;
  fake.space.map(0x10000, 3, 1, Prot::Read, false);
  const SyncPoint point = fake.space.sync_point();
  CHECK(!fake.space.reached(point));
  CHECK(fake.space.synchronize(point));
  CHECK(fake.space.reached(point));
  fake.space.die();
  fake.space.unmap(0x10000, 1);
  CHECK(!fake.space.synchronize(fake.space.sync_point()));
  CHECK(fake.space.reached(fake.space.sync_point()));
}

TEST_CASE("fake: contexts run scripts", "[engine]") {
  Fake fake;
  fake.platform.set_default_script(
      [](abi::UserRegs &regs) { return FakeContext::system_call(regs, 39, {}); });
  auto owner = *fake.platform.new_context(fake.space);
  auto &context = static_cast<FakeContext &>(*owner);
  context.queue_step([](abi::UserRegs &regs) {
    return FakeContext::system_call(regs, 1, {1, 2, 3});
  });
  CHECK(context.run().kind == TrapKind::SystemCall);
  CHECK(context.regs().orig_rax == 1);
  CHECK(context.regs().rdx == 3);
  CHECK(context.run().kind == TrapKind::SystemCall);
  CHECK(context.regs().orig_rax == 39);
  context.interrupt();
  CHECK(context.run().kind == TrapKind::Interrupted);
  std::vector<std::byte> state(fake.platform.xstate_size());
  CHECK(context.get_xstate(state) == state.size());
  CHECK(context.set_xstate(state).ok());
  owner.reset();
  fake.owner.reset();
  CHECK(fake.platform.live_spaces() == 0);
}
