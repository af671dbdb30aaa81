#include "engine/fake_platform.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>

#include "base/log.hpp"
#include "engine/xstate.hpp"

namespace cowbird {

FakeAddressSpace::FakeAddressSpace(FakePlatform &platform) : platform_(platform) {
  ++platform_.live_spaces_;
}

FakeAddressSpace::~FakeAddressSpace() { --platform_.live_spaces_; }

void FakeAddressSpace::map(VirtAddr address, Pfn first, std::uint64_t pages, Prot prot, bool) {
  KASSERT(page_aligned(address) && address >= kUserMin && address < kUserMax &&
          pages <= (kUserMax - address) >> kPageShift);
  KASSERT(first + pages <= platform_.memory_.size() >> kPageShift);
  ++queued_;
  ++platform_.stats_.orders;
  for (std::uint64_t i = 0; i < pages; ++i)
    pages_[address + (i << kPageShift)] = Page{first + i, prot};
}

void FakeAddressSpace::unmap(VirtAddr address, std::uint64_t pages) {
  KASSERT(page_aligned(address));
  ++queued_;
  ++platform_.stats_.orders;
  pages_.erase(pages_.lower_bound(address), pages_.lower_bound(address + (pages << kPageShift)));
}

void FakeAddressSpace::protect(VirtAddr address, std::uint64_t pages, Prot prot) {
  KASSERT(page_aligned(address));
  ++queued_;
  ++platform_.stats_.orders;
  const auto end = pages_.lower_bound(address + (pages << kPageShift));
  for (auto it = pages_.lower_bound(address); it != end; ++it) it->second.prot = prot;
}

bool FakeAddressSpace::synchronize(SyncPoint point) {
  KASSERT(point <= queued_);
  ++synchronized_;
  proven_ = std::max(proven_, point);
  return !dead_;
}

std::optional<FakeAddressSpace::Page> FakeAddressSpace::page(VirtAddr address) const {
  const auto it = pages_.find(page_down(address));
  if (it == pages_.end()) return std::nullopt;
  return it->second;
}

std::optional<Trap> FakeAddressSpace::check(VirtAddr address, FaultAccess access,
                                            Page &page) const {
  const auto found = this->page(address);
  // As on x86-64: what may be written or executed may be read.
  const Prot needed = access == FaultAccess::Write  ? Prot::Write
                      : access == FaultAccess::Exec ? Prot::Exec
                                                    : Prot::None;
  if (found && found->prot != Prot::None && has(found->prot, needed)) {
    page = *found;
    return std::nullopt;
  }
  return Trap{.kind = TrapKind::PageFault,
              .address = address,
              .access = access,
              .vector = 14,
              .signal = SIGSEGV,
              .signal_code = found ? SEGV_ACCERR : SEGV_MAPERR};
}

std::optional<Trap> FakeAddressSpace::load(VirtAddr address, std::span<std::byte> out) const {
  while (!out.empty()) {
    Page page;
    if (auto fault = check(address, FaultAccess::Read, page)) return fault;
    const std::uint64_t offset = address & kPageMask;
    const std::size_t part = std::min<std::size_t>(out.size(), kPageSize - offset);
    std::memcpy(out.data(), &platform_.frame(page.pfn)[offset], part);
    out = out.subspan(part);
    address += part;
  }
  return std::nullopt;
}

std::optional<Trap> FakeAddressSpace::store(VirtAddr address, std::span<const std::byte> in) {
  while (!in.empty()) {
    Page page;
    if (auto fault = check(address, FaultAccess::Write, page)) return fault;
    const std::uint64_t offset = address & kPageMask;
    const std::size_t part = std::min<std::size_t>(in.size(), kPageSize - offset);
    std::memcpy(&platform_.frame(page.pfn)[offset], in.data(), part);
    in = in.subspan(part);
    address += part;
  }
  return std::nullopt;
}

std::optional<Trap> FakeAddressSpace::fetch(VirtAddr address) const {
  Page page;
  return check(address, FaultAccess::Exec, page);
}

FakeContext::FakeContext(FakeAddressSpace &space)
    : space_(space), xstate_(XstateLayout::host().size()) {
  reset_xstate();
}

Trap FakeContext::run() {
  ++runs_;
  if (space_.dead()) return {};
  if (interrupted_) {
    interrupted_ = false;
    return {.kind = TrapKind::Interrupted};
  }
  if (!steps_.empty()) {
    const Script step = std::move(steps_.front());
    steps_.pop_front();
    return step(regs_);
  }
  return script_ ? script_(regs_) : Trap{};
}

std::size_t FakeContext::get_xstate(std::span<std::byte> out) {
  if (out.size() >= xstate_.size()) std::memcpy(out.data(), xstate_.data(), xstate_.size());
  return xstate_.size();
}

Result<void> FakeContext::set_xstate(std::span<const std::byte> in) {
  TRY(XstateLayout::host().check(in));
  xstate_.assign(in.begin(), in.end());
  return {};
}

void FakeContext::reset_xstate() { XstateLayout::host().write_initial(xstate_); }

Trap FakeContext::system_call(abi::UserRegs &regs, std::uint64_t number,
                              std::initializer_list<std::uint64_t> args) {
  std::uint64_t *const order[] = {&regs.rdi, &regs.rsi, &regs.rdx, &regs.r10, &regs.r8, &regs.r9};
  KASSERT(args.size() <= std::size(order));
  std::size_t i = 0;
  for (const std::uint64_t arg : args) *order[i++] = arg;
  regs.orig_rax = number;
  regs.rax = static_cast<std::uint64_t>(-38);
  return {.kind = TrapKind::SystemCall};
}

Result<std::unique_ptr<AddressSpace>> FakePlatform::new_address_space() {
  if (out_of_stubs_) return Err(Errno::Again);
  return std::unique_ptr<AddressSpace>(new FakeAddressSpace(*this));
}

Result<std::unique_ptr<Context>> FakePlatform::new_context(AddressSpace &space) {
  auto context = std::make_unique<FakeContext>(static_cast<FakeAddressSpace &>(space));
  context->set_script(default_script_);
  return std::unique_ptr<Context>(std::move(context));
}

std::size_t FakePlatform::xstate_size() const { return XstateLayout::host().size(); }

}  // namespace cowbird
