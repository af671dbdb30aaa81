// The stub engine's Platform: puts pool, spaces and contexts together, and asks the host what it
// can do.
#include <fmt/format.h>
#include <sys/auxv.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <ctime>

#include "base/log.hpp"
#include "engine/platform.hpp"
#include "engine/stub_context.hpp"
#include "engine/stub_machine.hpp"
#include "engine/stub_pool.hpp"
#include "engine/stub_space.hpp"
#include "engine/xstate.hpp"

namespace cowbird {

namespace {

constexpr unsigned long kHwcap2Fsgsbase = 2;
constexpr std::size_t kMaxRuns = 20'000;

std::int64_t host_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return now.tv_sec * kNsPerSec + now.tv_nsec;
}

// Ticks of the time stamp counter in a microsecond, from a short measurement.
std::uint64_t measure_ticks_per_us() {
  constexpr std::int64_t kMeasureNs = 500'000;
  const std::int64_t start = host_ns();
  const std::uint64_t ticks = __builtin_ia32_rdtsc();
  std::int64_t now = start;
  while (now - start < kMeasureNs) now = host_ns();
  const std::uint64_t passed = __builtin_ia32_rdtsc() - ticks;
  return std::max<std::uint64_t>(1, passed * 1000 / static_cast<std::uint64_t>(now - start));
}

// How many runs of pages a stub may have mapped; each takes a host mapping, and a change may split
// one.
std::size_t host_max_runs() {
  constexpr long kDefaultLimit = 65530;
  long limit = kDefaultLimit;
  if (std::FILE *file = std::fopen("/proc/sys/vm/max_map_count", "re")) {
    if (std::fscanf(file, "%ld", &limit) != 1) limit = kDefaultLimit;
    std::fclose(file);
  } else {
    log_notice("engine: the host shows no /proc/sys/vm/max_map_count; {} is taken for it", limit);
  }
  return std::clamp<std::size_t>(static_cast<std::size_t>(std::max(limit, 0L)) / 2, 64, kMaxRuns);
}

// Each stub takes four descriptors of ours.
void raise_descriptor_limit() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == files.rlim_max) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

class StubPlatform final : public Platform {
 public:
  StubPlatform(const StubPlatformOptions &options, StubEnvironment environment)
      : machine_(options), pool_(std::move(environment), options.warm_stubs) {}

  Result<void> start(std::string &why) { return pool_.start(why); }

  Result<std::unique_ptr<AddressSpace>> new_address_space() override {
    StubProcess *process = TRY(pool_.take());
    return std::unique_ptr<AddressSpace>(new StubSpace(machine_, pool_, *process));
  }

  Result<std::unique_ptr<Context>> new_context(AddressSpace &space) override {
    return std::unique_ptr<Context>(TRY(StubContext::create(static_cast<StubSpace &>(space))));
  }

  std::size_t xstate_size() const override { return XstateLayout::host().size(); }

  PlatformStats stats() const override {
    PlatformStats stats;
    stats.traps = machine_.traps.load(std::memory_order_relaxed);
    stats.spins_won = machine_.spins_won.load(std::memory_order_relaxed);
    stats.parks = machine_.parks.load(std::memory_order_relaxed);
    stats.orders = machine_.orders.load(std::memory_order_relaxed);
    pool_.add_stats(stats);
    return stats;
  }

  void shutdown() override { pool_.shutdown(); }

 private:
  EngineMachine machine_;
  mutable StubPool pool_;
};

}  // namespace

EngineMachine::EngineMachine(const StubPlatformOptions &options)
    : max_runs_(host_max_runs()),
      ticks_per_us_(measure_ticks_per_us()),
      before_block_(options.before_block),
      after_block_(options.after_block) {
  CPU_ZERO(&allowed_);
  if (::sched_getaffinity(0, sizeof allowed_, &allowed_) == 0)
    cpus_ = static_cast<unsigned>(std::max(1, CPU_COUNT(&allowed_)));
}

Result<std::unique_ptr<Platform>> make_stub_platform(const StubPlatformOptions &options,
                                                     std::string &why) {
  if (XstateLayout::host().frame_bytes() > stub::kMailboxXstateBytes) {
    why = fmt::format("This processor's register state of {} bytes does not fit the engine's {}.",
                      XstateLayout::host().frame_bytes(), stub::kMailboxXstateBytes);
    return Err(Errno::OpNotSupp);
  }
  raise_descriptor_limit();
  if (::access("/proc/self/status", R_OK) != 0) {
    log_notice(
        "engine: the host shows no /proc; a guest program that blocks the kernel's signal is not "
        "looked for");
  }
  StubEnvironment environment;
  environment.memory_fd = options.memory_fd;
  environment.image = TRY(make_stub_image(why));
  environment.fsgsbase =
      (::getauxval(AT_HWCAP2) & kHwcap2Fsgsbase) != 0 && !options.without_fsgsbase;
  auto platform = std::make_unique<StubPlatform>(options, std::move(environment));
  TRY(platform->start(why));
  return std::unique_ptr<Platform>(std::move(platform));
}

}  // namespace cowbird
