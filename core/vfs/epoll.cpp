#include "vfs/epoll.hpp"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>

#include "abi/fcntl.hpp"
#include "abi/poll.hpp"
#include "vfs/caller.hpp"

namespace cowbird {

class EpollFile;

// One watch: in its epoll's map, in the list of its file, on the file's wait queues, and, when
// something happened, in the epoll's ready list.
struct EpollItem final : public PollTable {
  EpollFile *owner = nullptr;
  File *file = nullptr;  // not counted: the file takes its watches with it
  int fd = -1;
  std::uint32_t events = 0;
  std::uint64_t data = 0;
  bool disarmed = false;  // EPOLLONESHOT has fired
  bool nested = false;    // the file is an epoll itself
  std::deque<WaitEntry> entries;
  EpollItem *next_of_file = nullptr;
  ListNode ready_link;

  void wait(WaitQueue &queue) override;
  static bool on_wake(WaitEntry &entry, std::uint32_t events);
  std::uint32_t ready_events() {
    if (disarmed) return 0;
    return file->poll(nullptr) & (events | abi::kPOLLERR | abi::kPOLLHUP) & 0xffffu;
  }
};

namespace {
std::uint64_t total_watches = 0;  // protected by the big kernel lock
// Those of an epoll by another. A wake-up goes all the ways up through them, of which there may be
// as many as the fifth power of what is in one layer: few are needed, so few there may be.
std::uint64_t nested_watches = 0;
inline constexpr std::uint64_t kMaxNestedWatches = 1024;

std::uint64_t max_watches() {
  // 4 % of memory at about 256 bytes a watch, as fs.epoll.max_user_watches.
  return std::max<std::uint64_t>(1024, phys().total_pages() * (kPageSize / 256) / 25);
}
}  // namespace

class EpollFile final : public File {
 public:
  EpollFile() : File(abi::kO_RDWR) {}
  ~EpollFile() override {
    while (!items_.empty()) remove(items_.begin()->second.get());
  }
  std::uint32_t poll(PollTable *table) override;
  bool can_read() const override { return false; }
  bool can_write() const override { return false; }
  Result<std::uint64_t> seek(std::int64_t, Whence) override { return position; }
  Result<std::int64_t> ioctl(Task &, std::uint32_t, std::uint64_t) override {
    return Err(Errno::Inval);
  }
  std::string describe() const override { return "anon_inode:[eventpoll]"; }

  Result<void> add(int fd, const Ref<File> &target, abi::EpollEvent event);
  Result<void> modify(EpollItem &item, abi::EpollEvent event);
  EpollItem *find(int fd, const File *file) {
    auto found = items_.find({fd, file});
    return found == items_.end() ? nullptr : found->second.get();
  }
  void remove(EpollItem *item);
  void mark_ready(EpollItem &item) {
    if (!item.ready_link.linked()) ready_.push_back(item);
  }
  bool has_ready() { return !ready_.empty(); }
  void collect(std::vector<abi::EpollEvent> &out, std::size_t max);
  // The longest chain of epolls below this one; more than kMaxNesting when `forbidden` is reached.
  int depth_below(const File *forbidden);

  static constexpr int kMaxNesting = 5;
  WaitQueue wait_queue;

 private:
  std::map<std::pair<int, const File *>, std::unique_ptr<EpollItem>> items_;
  List<EpollItem, &EpollItem::ready_link> ready_;
};

void EpollItem::wait(WaitQueue &queue) {
  entries.emplace_back(&EpollItem::on_wake, this);
  if (events & abi::kEPOLLEXCLUSIVE) {
    queue.add_exclusive(entries.back());
  } else {
    queue.add(entries.back());
  }
}

bool EpollItem::on_wake(WaitEntry &entry, std::uint32_t happened) {
  auto *item = static_cast<EpollItem *>(entry.data());
  if (item->disarmed) return false;
  const std::uint32_t interest = item->events | abi::kPOLLERR | abi::kPOLLHUP;
  if (happened != 0 && !(happened & interest)) return false;
  item->owner->mark_ready(*item);
  const bool somebody = !item->owner->wait_queue.empty();
  item->owner->wait_queue.wake_one(abi::kPOLLIN | abi::kPOLLRDNORM);
  return somebody;
}

std::uint32_t EpollFile::poll(PollTable *table) {
  if (table) table->wait(wait_queue);
  for (auto it = ready_.begin(); it != ready_.end();) {
    EpollItem &item = *it;
    ++it;
    if (item.ready_events()) return abi::kPOLLIN | abi::kPOLLRDNORM;
    ready_.remove(item);
  }
  return 0;
}

Result<void> EpollFile::add(int fd, const Ref<File> &target, abi::EpollEvent event) {
  if (find(fd, target.get())) return Err(Errno::Exist);
  if (total_watches >= max_watches()) return Err(Errno::NoSpc);
  const bool nested = dynamic_cast<EpollFile *>(target.get()) != nullptr;
  if (nested && nested_watches >= kMaxNestedWatches) return Err(Errno::NoSpc);
  auto item = std::make_unique<EpollItem>();
  item->owner = this;
  item->file = target.get();
  item->fd = fd;
  item->events = event.events;
  item->data = event.data;
  item->nested = nested;
  if (nested) ++nested_watches;
  item->next_of_file = target->epoll_items;
  target->epoll_items = item.get();
  EpollItem &watch = *item;
  items_.emplace(std::make_pair(fd, static_cast<const File *>(target.get())), std::move(item));
  ++total_watches;
  if (target->poll(&watch) & (watch.events | abi::kPOLLERR | abi::kPOLLHUP)) {
    mark_ready(watch);
    wait_queue.wake_one(abi::kPOLLIN | abi::kPOLLRDNORM);
  }
  return {};
}

Result<void> EpollFile::modify(EpollItem &item, abi::EpollEvent event) {
  if ((item.events | event.events) & abi::kEPOLLEXCLUSIVE) return Err(Errno::Inval);
  item.events = event.events;
  item.data = event.data;
  item.disarmed = false;
  if (item.ready_events()) {
    mark_ready(item);
    wait_queue.wake_one(abi::kPOLLIN | abi::kPOLLRDNORM);
  }
  return {};
}

void EpollFile::remove(EpollItem *item) {
  for (EpollItem **link = &item->file->epoll_items; *link; link = &(*link)->next_of_file) {
    if (*link == item) {
      *link = item->next_of_file;
      break;
    }
  }
  --total_watches;
  if (item->nested) --nested_watches;
  items_.erase({item->fd, static_cast<const File *>(item->file)});
}

void EpollFile::collect(std::vector<abi::EpollEvent> &out, std::size_t max) {
  // Each item that is in the list now is looked at once; level-triggered ones that are ready go to
  // its end, behind those that this call has no room for.
  std::size_t left = ready_.size();
  while (left-- > 0 && out.size() < max) {
    EpollItem &item = *ready_.pop_front();
    const std::uint32_t events = item.ready_events();
    if (events == 0) continue;
    abi::EpollEvent event{};
    event.events = events;
    event.data = item.data;
    out.push_back(event);
    if (item.events & abi::kEPOLLONESHOT) {
      item.disarmed = true;
    } else if (!(item.events & abi::kEPOLLET)) {
      ready_.push_back(item);
    }
  }
}

int EpollFile::depth_below(const File *forbidden) {
  if (this == forbidden) return kMaxNesting + 1;
  int deepest = 0;
  for (const auto &[key, item] : items_) {
    auto *nested = dynamic_cast<EpollFile *>(item->file);
    if (!nested) continue;
    deepest = std::max(deepest, 1 + nested->depth_below(forbidden));
    if (deepest > kMaxNesting) break;
  }
  return deepest;
}

namespace {

// How many epolls watch this one, one above the other.
int depth_above(const File &file, int bound) {
  int highest = 0;
  if (bound == 0) return EpollFile::kMaxNesting + 1;
  for (EpollItem *item = file.epoll_items; item; item = item->next_of_file) {
    highest = std::max(highest, 1 + depth_above(*item->owner, bound - 1));
  }
  return highest;
}

}  // namespace

Ref<File> make_epoll() {
  Ref<File> file = make_ref<EpollFile>();
  file->credentials = caller::credentials();
  return file;
}

Result<void> epoll_control(File &epoll, int operation, int fd, const Ref<File> &target,
                           abi::EpollEvent event) {
  auto *self = dynamic_cast<EpollFile *>(&epoll);
  if (!self || target.get() == &epoll) return Err(Errno::Inval);
  if (!target->can_poll()) return Err(Errno::Perm);
  EpollItem *item = self->find(fd, target.get());
  switch (operation) {
    case abi::kEPOLL_CTL_ADD:
      if (item) return Err(Errno::Exist);
      if (auto *nested = dynamic_cast<EpollFile *>(target.get())) {
        if (event.events & abi::kEPOLLEXCLUSIVE) return Err(Errno::Inval);
        const int chain = nested->depth_below(self) + depth_above(epoll, EpollFile::kMaxNesting);
        if (chain + 1 > EpollFile::kMaxNesting) return Err(Errno::Loop);
      }
      return self->add(fd, target, event);
    case abi::kEPOLL_CTL_DEL:
      if (!item) return Err(Errno::NoEnt);
      self->remove(item);
      return {};
    case abi::kEPOLL_CTL_MOD:
      if (!item) return Err(Errno::NoEnt);
      return self->modify(*item, event);
    default:
      return Err(Errno::Inval);
  }
}

Result<std::vector<abi::EpollEvent>> epoll_wait(File &epoll, std::size_t max,
                                                std::int64_t deadline_ns) {
  auto *self = dynamic_cast<EpollFile *>(&epoll);
  if (!self) return Err(Errno::Inval);
  std::vector<abi::EpollEvent> events;
  for (;;) {
    self->collect(events, max);
    if (!events.empty() || deadline_ns <= 0) break;
    auto slept = wait_event(
        self->wait_queue, [&] { return self->has_ready(); }, SleepMode::Interruptible, "ep_poll",
        deadline_ns, true);
    if (slept) continue;
    if (slept.error() != Errno::TimedOut) return Err(slept.error());
    self->collect(events, max);
    break;
  }
  // What is left is for another waiter.
  if (self->has_ready()) self->wait_queue.wake_one(abi::kPOLLIN | abi::kPOLLRDNORM);
  return events;
}

void epoll_forget(File &file) {
  while (file.epoll_items) file.epoll_items->owner->remove(file.epoll_items);
}

}  // namespace cowbird
