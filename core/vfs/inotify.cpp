// inotify(7): instances, watches on inodes, and the events.
#include "abi/inotify.hpp"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <string>

#include "abi/fcntl.hpp"
#include "abi/ioctl.hpp"
#include "abi/poll.hpp"
#include "mm/user_access.hpp"
#include "vfs/caller.hpp"
#include "vfs/dentry.hpp"
#include "vfs/file.hpp"
#include "vfs/notify.hpp"

namespace cowbird {

namespace notify_detail {
std::uint64_t watch_count = 0;
}

namespace {

inline constexpr std::size_t kMaxQueuedEvents = 16384;  // fs.inotify.max_queued_events
inline constexpr std::size_t kMaxInstances = 512;       // of the whole guest
inline constexpr std::size_t kMaxWatches = 65536;

class InotifyFile;

struct Watch {
  InotifyFile *owner;
  int wd;
  std::uint32_t mask;
  Ref<SuperBlock> sb;  // outlives the inode, even when it is not mounted any more
  Ref<Inode> inode;    // a watch keeps its inode
};

// Inode::watches. Watches are the instances'.
struct InodeWatches {
  std::vector<Watch *> list;
};

std::size_t instances = 0;

class InotifyFile final : public File {
 public:
  explicit InotifyFile(std::uint32_t flags) : File(abi::kO_RDONLY | flags) { ++instances; }
  ~InotifyFile() override {
    while (!watches_.empty()) remove(watches_.begin()->first);
    --instances;
  }
  Result<std::uint64_t> read(IovIter &to, std::uint64_t &) override;
  std::uint32_t poll(PollTable *table) override {
    if (table) table->wait(queue_);
    return events_.empty() ? 0 : abi::kPOLLIN | abi::kPOLLRDNORM;
  }
  Result<std::int64_t> ioctl(Task &, std::uint32_t command, std::uint64_t argument) override {
    if (command != abi::kFIONREAD) return Err(Errno::NotTty);
    std::int32_t bytes = 0;
    for (const Event &event : events_) bytes += static_cast<std::int32_t>(event.bytes());
    TRY(UserPtr<std::int32_t>(argument).write(bytes));
    return 0;
  }
  Result<std::uint64_t> seek(std::int64_t, Whence) override { return position; }
  std::string describe() const override { return "anon_inode:inotify"; }

  Result<int> add(Inode &node, std::uint32_t mask);
  bool has(int wd) const { return watches_.contains(wd); }
  void remove(int wd);
  void deliver(Watch &watch, std::uint32_t mask, std::string_view name, std::uint32_t cookie);

 private:
  struct Event {
    abi::InotifyEvent head;
    std::string name;
    std::size_t bytes() const { return sizeof(head) + head.len; }
  };
  void push(Event event);
  std::map<int, std::unique_ptr<Watch>> watches_;
  std::deque<Event> events_;
  WaitQueue queue_;
  int next_wd_ = 1;
};

Result<std::uint64_t> InotifyFile::read(IovIter &to, std::uint64_t &) {
  while (events_.empty()) {
    if (nonblocking()) return Err(Errno::Again);
    TRY(wait_event(
        queue_, [this] { return !events_.empty(); }, SleepMode::Interruptible, "inotify_read"));
  }
  if (to.remaining() < events_.front().bytes()) return Err(Errno::Inval);
  std::uint64_t total = 0;
  while (!events_.empty() && to.remaining() >= events_.front().bytes()) {
    const Event event = std::move(events_.front());
    events_.pop_front();
    std::string name = event.name;
    name.resize(event.head.len, '\0');
    TRY(to.copy_to(std::as_bytes(std::span(&event.head, 1))));
    if (!name.empty()) TRY(to.copy_to(std::as_bytes(std::span(name))));
    total += event.bytes();
  }
  return total;
}

void InotifyFile::push(Event event) {
  if (events_.size() >= kMaxQueuedEvents) {
    if (events_.back().head.mask == abi::kIN_Q_OVERFLOW) return;
    event = Event{{-1, abi::kIN_Q_OVERFLOW, 0, 0}, {}};
  }
  // The same event twice in a row is told once.
  if (!events_.empty()) {
    const Event &last = events_.back();
    if (last.head.wd == event.head.wd && last.head.mask == event.head.mask &&
        last.head.cookie == event.head.cookie && last.name == event.name) {
      return;
    }
  }
  events_.push_back(std::move(event));
  queue_.wake_all(abi::kPOLLIN | abi::kPOLLRDNORM);
}

void InotifyFile::deliver(Watch &watch, std::uint32_t mask, std::string_view name,
                          std::uint32_t cookie) {
  const std::uint32_t padded =
      name.empty() ? 0 : static_cast<std::uint32_t>((name.size() + 1 + 15) / 16 * 16);
  push(Event{{watch.wd, mask, cookie, padded}, std::string(name)});
  if (watch.mask & abi::kIN_ONESHOT) remove(watch.wd);
}

Result<int> InotifyFile::add(Inode &node, std::uint32_t mask) {
  const std::uint32_t wanted =
      mask & (abi::kIN_ALL_EVENTS | abi::kIN_ONESHOT | abi::kIN_EXCL_UNLINK);
  for (auto &[wd, watch] : watches_) {
    if (watch->inode.get() != &node) continue;
    if (mask & abi::kIN_MASK_CREATE) return Err(Errno::Exist);
    watch->mask = (mask & abi::kIN_MASK_ADD) ? watch->mask | wanted : wanted;
    return wd;
  }
  if (notify_detail::watch_count >= kMaxWatches) return Err(Errno::NoSpc);
  const int wd = next_wd_++;
  auto watch = std::make_unique<Watch>(
      Watch{this, wd, wanted, Ref<SuperBlock>(&node.sb()), Ref<Inode>(&node)});
  if (!node.watches) node.watches = std::make_shared<InodeWatches>();
  std::static_pointer_cast<InodeWatches>(node.watches)->list.push_back(watch.get());
  watches_.emplace(wd, std::move(watch));
  ++notify_detail::watch_count;
  return wd;
}

void InotifyFile::remove(int wd) {
  auto found = watches_.find(wd);
  if (found == watches_.end()) return;
  const std::unique_ptr<Watch> watch = std::move(found->second);
  watches_.erase(found);
  auto list = std::static_pointer_cast<InodeWatches>(watch->inode->watches);
  std::erase(list->list, watch.get());
  if (list->list.empty()) watch->inode->watches.reset();
  --notify_detail::watch_count;
  push(Event{{wd, abi::kIN_IGNORED, 0, 0}, {}});
}

void tell(Inode &inode, std::uint32_t mask, std::string_view name, std::uint32_t cookie,
          std::uint32_t extra) {
  if (!inode.watches) return;
  // A copy: one-shot watches go while we deliver.
  const auto watches = std::static_pointer_cast<InodeWatches>(inode.watches);
  const std::vector<Watch *> list = watches->list;
  for (Watch *watch : list) {
    if (watch->mask & mask) watch->owner->deliver(*watch, mask | extra, name, cookie);
  }
}

// Events of an object are told to its own watches and, with its name, to its directory's.
void tell_with_parent(const Dentry *dentry, Inode &inode, std::uint32_t mask) {
  const std::uint32_t extra = inode.is_directory() ? abi::kIN_ISDIR : 0u;
  tell(inode, mask, {}, 0, extra);
  if (dentry && dentry->parent() && !dentry->unlinked() && dentry->parent()->inode())
    tell(*dentry->parent()->inode(), mask, dentry->name(), 0, extra);
}

}  // namespace

namespace notify_detail {

void name_event(Inode &directory, std::uint32_t mask, std::string_view name, bool is_directory,
                std::uint32_t cookie) {
  tell(directory, mask, name, cookie, is_directory ? abi::kIN_ISDIR : 0u);
}

void inode_event(Inode &inode, std::uint32_t mask) {
  const Ref<Inode> held(&inode);
  tell(inode, mask, {}, 0, 0);
  if (!(mask & abi::kIN_DELETE_SELF) || !inode.watches) return;
  // The object is gone: its watches end.
  const auto watches = std::static_pointer_cast<InodeWatches>(inode.watches);
  const std::vector<Watch *> list = watches->list;
  for (Watch *watch : list) watch->owner->remove(watch->wd);
}

void file_event(File &file, std::uint32_t mask) {
  if (file.inode) tell_with_parent(file.path.dentry.get(), *file.inode, mask);
}

}  // namespace notify_detail

void notify_open(File &file) { notify_file(file, abi::kIN_OPEN); }
void notify_close(File &file) {
  notify_file(file, file.writable() ? abi::kIN_CLOSE_WRITE : abi::kIN_CLOSE_NOWRITE);
}
void notify_path(const Path &path, std::uint32_t mask) {
  if (notify_detail::watch_count) tell_with_parent(path.dentry.get(), path.inode(), mask);
}

std::uint32_t next_notify_cookie() {
  static std::uint32_t cookie = 0;
  return ++cookie;
}

Result<Ref<File>> make_inotify(std::uint32_t flags) {
  if (instances >= kMaxInstances) return Err(Errno::MFile);
  return Ref<File>(make_ref<InotifyFile>(flags));
}

Result<int> inotify_add_watch(File &inotify, const Path &path, std::uint32_t mask) {
  auto *self = dynamic_cast<InotifyFile *>(&inotify);
  if (!self || !(mask & abi::kIN_ALL_EVENTS)) return Err(Errno::Inval);
  if ((mask & abi::kIN_MASK_ADD) && (mask & abi::kIN_MASK_CREATE)) return Err(Errno::Inval);
  if ((mask & abi::kIN_ONLYDIR) && !path.inode().is_directory()) return Err(Errno::NotDir);
  TRY(check_permission(path.inode(), 4, caller::credentials()));
  return self->add(path.inode(), mask);
}

Result<void> inotify_remove_watch(File &inotify, int watch) {
  auto *self = dynamic_cast<InotifyFile *>(&inotify);
  if (!self || !self->has(watch)) return Err(Errno::Inval);
  self->remove(watch);
  return {};
}

}  // namespace cowbird
