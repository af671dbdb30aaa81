// Random sequences of mmap, munmap, mprotect, mremap, madvise, fork, exit, truncation and accesses
// by guest and kernel code, compared with a model that has nothing but bytes.
#include <array>
#include <catch2/catch.hpp>
#include <optional>
#include <random>

#include "unit/mm_support.hpp"

using namespace cowbird;
using namespace cowbird::mm_test;

namespace {

constexpr VirtAddr kArena = 0x4000'0000;
constexpr std::uint64_t kPages = 96;
constexpr std::uint64_t kFilePages = 24;

struct Cell {
  int value = 0;
};

// One page of one process. Only its first byte matters.
struct ModelPage {
  bool mapped = false;
  Prot prot = Prot::None;
  bool shared = false;
  std::shared_ptr<Cell> base;  // of a file or shared memory
  std::int64_t file_index = -1;
  std::optional<int> own;  // private: what was written

  int value() const { return own ? *own : base ? base->value : 0; }
};

struct ModelProcess {
  Ref<Mm> mm;
  std::array<ModelPage, kPages> pages;
};

class World {
 public:
  explicit World(unsigned seed) : random_(seed), file_(make_ref<TestFile>(kFilePages * kPageSize)) {
    for (auto &cell : file_cells_) cell = std::make_shared<Cell>();
    file_->batch = 4;
    processes_.push_back({machine_.new_mm(), {}});
  }
  ~World() {
    set_active_mm(nullptr);
    processes_.clear();
    file_.reset();
  }

  void step() {
    ModelProcess &process = processes_[pick(processes_.size())];
    switch (pick(24)) {
      case 0:
      case 1:
        map(process);
        break;
      case 2:
        unmap(process);
        break;
      case 3:
      case 4:
        protect(process);
        break;
      case 5:
        fork(process);
        break;
      case 6:
        leave(process);
        break;
      case 7:
        dont_need(process);
        break;
      case 8:
        move(process);
        break;
      case 9:
        if (pick(4) == 0) truncate();
        break;
      case 10:
        host_events(process);
        break;
      default:
        access(process);
    }
  }

  void check_all() {
    for (ModelProcess &process : processes_) check_host(process);
    for (ModelProcess &process : processes_)
      for (std::uint64_t i = 0; i < kPages; ++i) check_load(process, i);
  }

  // The engine may have fewer mappings than our tables, never more or other ones.
  void check_host(ModelProcess &process) {
    for (const auto &[address, page] : host(*process.mm).pages()) {
      Pfn pfn = 0;
      if (page.prot == Prot::None) continue;
      REQUIRE(process.mm->lookup_page(address, FaultAccess::Read, pfn));
      REQUIRE(pfn == page.pfn);
      REQUIRE(phys().refs(pfn) > 0);
      if (has(page.prot, Prot::Write))
        REQUIRE(process.mm->lookup_page(address, FaultAccess::Write, pfn));
      if (has(page.prot, Prot::Exec))
        REQUIRE(process.mm->lookup_page(address, FaultAccess::Exec, pfn));
    }
  }

  // Nothing but the file's pages is left when everybody has gone.
  void check_empty() {
    processes_.clear();
    Machine::RetireAll();
    CHECK(phys().free_pages() + file_->cached_pages() == phys().total_pages());
    CHECK(machine_.platform->live_spaces() == 0);
  }

 private:
  std::size_t pick(std::size_t below) { return random_() % below; }
  static VirtAddr address(std::uint64_t page) { return kArena + (page << kPageShift); }
  bool beyond_end(const ModelPage &page) const {
    return page.file_index >= 0 &&
           static_cast<std::uint64_t>(page.file_index) >= pages_of(file_->size());
  }
  std::pair<std::uint64_t, std::uint64_t> range() {
    const std::uint64_t first = pick(kPages);
    return {first, 1 + pick(std::min<std::uint64_t>(kPages - first, 20))};
  }
  Prot any_prot() {
    constexpr Prot kChoices[] = {Prot::None, Prot::Read, kReadWrite, kReadWrite,
                                 Prot::Read | Prot::Exec};
    return kChoices[pick(5)];
  }

  void map(ModelProcess &process) {
    auto [first, count] = range();
    const bool shared = pick(3) == 0;
    const bool from_file = pick(2) == 0;
    const std::uint64_t index = pick(kFilePages);
    MmapRequest request;
    request.hint = address(first);
    request.fixed = true;
    request.length = count << kPageShift;
    request.prot = any_prot();
    request.sharing = shared ? Sharing::Shared : Sharing::Private;
    if (from_file) {
      request.cache = file_;
      request.offset = index << kPageShift;
    }
    const Prot prot = request.prot;
    REQUIRE(process.mm->mmap(std::move(request)).value() == address(first));
    for (std::uint64_t i = 0; i < count; ++i) {
      ModelPage &page = process.pages[first + i];
      page = ModelPage{true, prot, shared, nullptr, -1, std::nullopt};
      if (from_file) {
        page.file_index = static_cast<std::int64_t>(index + i);
        if (index + i < kFilePages) page.base = file_cells_[index + i];
      } else if (shared) {
        page.base = std::make_shared<Cell>();
      }
    }
  }

  void unmap(ModelProcess &process) {
    auto [first, count] = range();
    REQUIRE(process.mm->munmap(address(first), count << kPageShift));
    for (std::uint64_t i = 0; i < count; ++i) process.pages[first + i] = ModelPage();
  }

  void protect(ModelProcess &process) {
    auto [first, count] = range();
    for (std::uint64_t i = 0; i < count; ++i)
      if (!process.pages[first + i].mapped) return;
    const Prot prot = any_prot();
    REQUIRE(process.mm->mprotect(address(first), count << kPageShift, prot));
    for (std::uint64_t i = 0; i < count; ++i) process.pages[first + i].prot = prot;
  }

  void fork(ModelProcess &process) {
    if (processes_.size() == 4) return;
    ModelProcess child{process.mm->fork().value(), process.pages};
    processes_.push_back(std::move(child));
  }

  void leave(ModelProcess &process) {
    if (processes_.size() == 1) return;
    if (&process != &processes_.back()) std::swap(process, processes_.back());
    processes_.pop_back();
  }

  void dont_need(ModelProcess &process) {
    auto [first, count] = range();
    (void)process.mm->madvise(address(first), count << kPageShift, 4);
    for (std::uint64_t i = 0; i < count; ++i) process.pages[first + i].own.reset();
  }

  void move(ModelProcess &process) {
    auto [first, count] = range();
    const std::uint64_t target = pick(kPages - count + 1);
    if (target < first + count && first < target + count) return;
    const Vma *area = process.mm->find_vma(address(first));
    if (!area || area->end < address(first + count)) return;
    REQUIRE(
        process.mm
            ->mremap(address(first), count << kPageShift, count << kPageShift, 3, address(target))
            .value() == address(target));
    for (std::uint64_t i = 0; i < count; ++i) {
      process.pages[target + i] = process.pages[first + i];
      process.pages[first + i] = ModelPage();
    }
  }

  void truncate() {
    const std::uint64_t size = pick(kFilePages + 1);
    file_->truncate(size << kPageShift);
    for (std::uint64_t i = size; i < kFilePages; ++i) file_cells_[i]->value = 0;
    for (ModelProcess &process : processes_)
      for (ModelPage &page : process.pages)
        if (beyond_end(page)) page.own.reset();
    if (pick(2) == 0) file_->truncate(kFilePages << kPageShift);
  }

  void host_events(ModelProcess &process) {
    switch (pick(4)) {
      case 0:
        host(*process.mm).forget_mappings();
        break;
      case 1:
        host(*process.mm).finish_orders();
        process.mm->reap_retired();
        break;
      case 2:
        REQUIRE(file_->write_back(0, ~0ull));
        break;
      default:
        file_->drop_clean(5);
    }
  }

  FaultOutcome expected(const ModelPage &page, bool write) const {
    if (!page.mapped) return FaultOutcome::NoMapping;
    if (page.prot == Prot::None || (write && !has(page.prot, Prot::Write)))
      return FaultOutcome::NoAccess;
    if (!page.own && beyond_end(page)) return FaultOutcome::BeyondEnd;
    return FaultOutcome::Resolved;
  }

  void check_load(ModelProcess &process, std::uint64_t index) {
    const ModelPage &page = process.pages[index];
    const FaultOutcome outcome = expected(page, false);
    const int want =
        outcome == FaultOutcome::Resolved ? page.value() : -1 - static_cast<int>(outcome);
    REQUIRE(load8(*process.mm, address(index)) == want);
  }

  void access(ModelProcess &process) {
    const std::uint64_t index = pick(kPages);
    ModelPage &page = process.pages[index];
    if (pick(2) == 0) {
      check_load(process, index);
      return;
    }
    const int value = static_cast<int>(pick(256));
    const FaultOutcome outcome = expected(page, true);
    if (pick(3) == 0) {
      set_active_mm(process.mm.get());
      const auto byte = static_cast<unsigned char>(value);
      REQUIRE(copy_out(address(index), &byte, 1).ok() == (outcome == FaultOutcome::Resolved));
    } else {
      REQUIRE(store8(*process.mm, address(index), static_cast<unsigned>(value)) == outcome);
    }
    if (outcome != FaultOutcome::Resolved) return;
    if (page.shared) {
      page.base->value = value;
    } else {
      page.own = value;
    }
  }

  Machine machine_{2048};
  std::mt19937 random_;
  Ref<TestFile> file_;
  std::array<std::shared_ptr<Cell>, kFilePages> file_cells_;
  std::vector<ModelProcess> processes_;
};

}  // namespace

MM_TEST("random programs see the bytes that the model has") {
  for (unsigned seed = 1; seed <= 40; ++seed) {
    INFO("seed " << seed);
    World world(seed);
    for (int step = 0; step < 1500; ++step) {
      world.step();
      if (step % 50 == 49) world.check_all();
    }
    world.check_empty();
  }
}
