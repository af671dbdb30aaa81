#include "devices/memory_driver.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"
#include "machine/size.hpp"
#include "mm/balloon.hpp"
#include "mm/phys_memory.hpp"

namespace cowbird {

namespace {

std::uint64_t boot_pages() { return phys().total_pages(); }
std::uint64_t present_pages() { return boot_pages() - balloon::pages(); }
std::string size_text(std::uint64_t pages) { return format_size(pages << kPageShift); }

DeviceReply no_unit(std::string_view unit) {
  return DeviceReply::refused(
      fmt::format("There is no device \"mem{}\"; the memory is \"mem\".", unit));
}

}  // namespace

DeviceReply MemoryDriver::query(std::string_view unit) {
  if (!unit.empty()) return no_unit(unit);
  return DeviceReply::done(size_text(present_pages()));
}

DeviceReply MemoryDriver::configure(std::string_view unit, std::string_view setting) {
  const SleepLock lock(changing_);
  if (!unit.empty()) return no_unit(unit);
  const char sign = setting.front() == '+' || setting.front() == '-' ? setting.front() : '=';
  const std::string_view text = sign == '=' ? setting : setting.substr(1);
  const auto bytes = parse_size(text);
  if (!bytes) {
    return DeviceReply::refused(fmt::format("\"{}\" is no size. Write one such as \"64M\".", text));
  }
  if (*bytes == 0) return DeviceReply::refused("The size is 0. Write one such as \"64M\".");
  if (!page_aligned(*bytes)) {
    return DeviceReply::refused(
        fmt::format("{} bytes are no whole number of pages of {}.", *bytes, kPageSize));
  }
  const std::uint64_t pages = *bytes >> kPageShift;
  const std::uint64_t present = present_pages();
  if (sign == '-') return shrink_guest(pages);
  if (sign == '+') return grow_guest(pages);
  return pages < present ? shrink_guest(present - pages) : grow_guest(pages - present);
}

DeviceReply MemoryDriver::shrink_guest(std::uint64_t pages) {
  const std::uint64_t present = present_pages();
  if (pages >= present) {
    return DeviceReply::refused(fmt::format("The guest has {}; {} cannot be taken from it.",
                                            size_text(present), size_text(pages)));
  }
  std::string error;
  const std::uint64_t taken = balloon::grow(pages, error);
  log_info("mem: {} given back to the host, {} left", size_text(taken), size_text(present_pages()));
  if (taken == pages) return DeviceReply::done();
  if (error.empty()) error = "The rest is in use.";
  return DeviceReply::refused(fmt::format("{} of {} could be taken; the guest has {} now. {}",
                                          size_text(taken), size_text(pages),
                                          size_text(present_pages()), error));
}

DeviceReply MemoryDriver::grow_guest(std::uint64_t pages) {
  const std::uint64_t out = balloon::pages();
  if (pages > out) {
    return DeviceReply::refused(
        fmt::format("The guest was started with {} and cannot have more; it has {} now.",
                    size_text(boot_pages()), size_text(present_pages())));
  }
  balloon::shrink(pages);
  if (pages > 0) log_info("mem: {} from the host again", size_text(pages));
  return DeviceReply::done();
}

DeviceReply MemoryDriver::remove(std::string_view unit) {
  if (!unit.empty()) return no_unit(unit);
  return DeviceReply::refused("Memory cannot be removed, only made smaller: config mem-=64M");
}

void MemoryDriver::for_each(const std::function<void(const DeviceStatus &)> &function) {
  function({"mem", size_text(present_pages()), true});
}

}  // namespace cowbird
