#include "mm/user_access.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "mm/memory_waiter.hpp"
#include "mm/mm.hpp"
#include "mm/phys_memory.hpp"
#include "sched/thread.hpp"

namespace cowbird {

namespace {

Mm *active_mm() {
  Thread *thread = current_thread();
  return thread ? thread->active_mm : nullptr;
}

// A fault that loses the page again and again (a file that is truncated all the time) ends here.
constexpr int kFaultTries = 64;

bool (*memory_waiter)() = nullptr;  // big kernel lock

bool frame_of(Mm &mm, VirtAddr address, FaultAccess access, Pfn &pfn) {
  for (int i = 0; i < kFaultTries;) {
    if (mm.lookup_page(address, access, pfn)) return true;
    const FaultOutcome outcome = mm.handle_fault(address, access);
    if (outcome == FaultOutcome::Resolved) {
      ++i;
    } else if (outcome != FaultOutcome::OutOfMemory || !memory_waiter || !memory_waiter()) {
      return false;
    }
  }
  return false;
}

// Calls piece(kernel pointer, bytes done, bytes) -> go on? for each page of the range. Returns how
// many bytes were passed over before a fault. The pointer is good until the piece returns.
template <typename Piece>
std::size_t each_page(Mm *mm, VirtAddr address, std::size_t bytes, FaultAccess access,
                      Piece &&piece) {
  if (!mm || address < kUserMin || address >= kUserMax) return 0;
  bytes = std::min<std::size_t>(bytes, kUserMax - address);
  std::size_t done = 0;
  while (done < bytes) {
    const VirtAddr at = address + done;
    const std::size_t in_page = at & kPageMask;
    const std::size_t count = std::min<std::size_t>(kPageSize - in_page, bytes - done);
    Pfn pfn = 0;
    if (!frame_of(*mm, at, access, pfn)) break;
    const bool go_on = piece(phys().data(pfn) + in_page, done, count);
    done += count;
    if (!go_on) break;
  }
  return done;
}

std::size_t copy_in_from(Mm *mm, void *to, VirtAddr from, std::size_t bytes) {
  return each_page(mm, from, bytes, FaultAccess::Read,
                   [to](const std::byte *data, std::size_t done, std::size_t count) {
                     std::memcpy(static_cast<std::byte *>(to) + done, data, count);
                     return true;
                   });
}

std::size_t copy_out_to(Mm *mm, VirtAddr to, const void *from, std::size_t bytes) {
  return each_page(mm, to, bytes, FaultAccess::Write,
                   [from](std::byte *data, std::size_t done, std::size_t count) {
                     std::memcpy(data, static_cast<const std::byte *>(from) + done, count);
                     return true;
                   });
}

Result<void> whole(std::size_t done, std::size_t wanted) {
  if (done != wanted) return Err(Errno::Fault);
  return {};
}

// The kernel's pointer to an aligned word of guest memory.
std::uint32_t *word_at(VirtAddr address, FaultAccess access) {
  Mm *mm = active_mm();
  if (!mm || address < kUserMin || address >= kUserMax) return nullptr;
  Pfn pfn = 0;
  if (!frame_of(*mm, address, access, pfn)) return nullptr;
  return reinterpret_cast<std::uint32_t *>(phys().data(pfn) + (address & kPageMask));
}

}  // namespace

void set_memory_waiter(bool (*waiter)()) { memory_waiter = waiter; }

std::size_t copy_in_partial(void *to, VirtAddr from, std::size_t bytes) {
  return copy_in_from(active_mm(), to, from, bytes);
}

std::size_t copy_out_partial(VirtAddr to, const void *from, std::size_t bytes) {
  return copy_out_to(active_mm(), to, from, bytes);
}

Result<void> copy_in(void *to, VirtAddr from, std::size_t bytes) {
  return whole(copy_in_partial(to, from, bytes), bytes);
}

Result<void> copy_out(VirtAddr to, const void *from, std::size_t bytes) {
  return whole(copy_out_partial(to, from, bytes), bytes);
}

Result<void> copy_in_mm(Mm &mm, void *to, VirtAddr from, std::size_t bytes) {
  return whole(copy_in_from(&mm, to, from, bytes), bytes);
}

Result<void> copy_out_mm(Mm &mm, VirtAddr to, const void *from, std::size_t bytes) {
  return whole(copy_out_to(&mm, to, from, bytes), bytes);
}

Result<void> poke_mm(Mm &mm, VirtAddr to, const void *from, std::size_t bytes) {
  if (to < kUserMin || to >= kUserMax || bytes > kUserMax - to) return Err(Errno::Fault);
  std::size_t done = 0;
  while (done < bytes) {
    const VirtAddr at = to + done;
    const std::size_t count = std::min<std::size_t>(kPageSize - (at & kPageMask), bytes - done);
    const Pfn pfn = TRY(mm.pin_page_forced(at));
    std::memcpy(phys().data(pfn) + (at & kPageMask), static_cast<const std::byte *>(from) + done,
                count);
    phys().put(pfn);
    done += count;
  }
  return {};
}

Result<void> peek_mm(Mm &mm, void *to, VirtAddr from, std::size_t bytes) {
  if (from < kUserMin || from >= kUserMax || bytes > kUserMax - from) return Err(Errno::Fault);
  std::size_t done = 0;
  while (done < bytes) {
    const VirtAddr at = from + done;
    const std::size_t count = std::min<std::size_t>(kPageSize - (at & kPageMask), bytes - done);
    const Pfn pfn = TRY(mm.pin_page_to_peek(at));
    std::memcpy(static_cast<std::byte *>(to) + done, phys().data(pfn) + (at & kPageMask), count);
    phys().put(pfn);
    done += count;
  }
  return {};
}

std::size_t clear_user_partial(VirtAddr to, std::size_t bytes) {
  return each_page(active_mm(), to, bytes, FaultAccess::Write,
                   [](std::byte *data, std::size_t, std::size_t count) {
                     std::memset(data, 0, count);
                     return true;
                   });
}

Result<void> clear_user(VirtAddr to, std::size_t bytes) {
  return whole(clear_user_partial(to, bytes), bytes);
}

Result<std::string> copy_in_string(VirtAddr from, std::size_t max) {
  std::string text;
  bool ended = false;
  const std::size_t seen =
      each_page(active_mm(), from, max + 1, FaultAccess::Read,
                [&](const std::byte *data, std::size_t, std::size_t count) {
                  const auto *chars = reinterpret_cast<const char *>(data);
                  const auto *zero = static_cast<const char *>(std::memchr(chars, 0, count));
                  ended = zero != nullptr;
                  text.append(chars, ended ? static_cast<std::size_t>(zero - chars) : count);
                  return !ended;
                });
  if (ended) return text;
  if (seen == max + 1) return Err(Errno::NameTooLong);
  return Err(Errno::Fault);
}

Result<std::uint32_t> load_user_u32(VirtAddr address) {
  if (address % 4 != 0) return Err(Errno::Inval);
  std::uint32_t *word = word_at(address, FaultAccess::Read);
  if (!word) return Err(Errno::Fault);
  return std::atomic_ref(*word).load();
}

Result<std::uint32_t> cmpxchg_user_u32(VirtAddr address, std::uint32_t expected,
                                       std::uint32_t desired) {
  if (address % 4 != 0) return Err(Errno::Inval);
  std::uint32_t *word = word_at(address, FaultAccess::Write);
  if (!word) return Err(Errno::Fault);
  std::atomic_ref(*word).compare_exchange_strong(expected, desired);
  return expected;
}

}  // namespace cowbird
