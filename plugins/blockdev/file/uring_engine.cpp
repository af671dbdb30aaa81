// io_uring: requests are started in batches, and the host's event thread is told by the ring's
// descriptor.
#include <fcntl.h>
#include <liburing.h>
#include <sched.h>

#include <cerrno>
#include <deque>
#include <unordered_map>

#include "engine.hpp"

namespace {

constexpr unsigned kEntries = 128;

class UringEngine final : public Engine {
 public:
  UringEngine(const cowbird::sdk::Host &host, const Image &image, Done done)
      : host_(host), image_(image), done_(std::move(done)) {}
  ~UringEngine() override {
    watch_.reset();
    if (ready_) io_uring_queue_exit(&ring_);
  }

  // 0 or a negative errno.
  int start() {
    if (const int status = io_uring_queue_init(kEntries, &ring_, IORING_SETUP_CLAMP); status < 0) {
      return status;
    }
    ready_ = true;
    if (io_uring_ring_dontfork(&ring_) < 0) return -ENOMEM;
    return host_.watch_fd(watch_, ring_.ring_fd, COWBIRD_WATCH_READABLE,
                          [this](std::uint32_t) { reap(); });
  }

  void submit(std::span<cowbird_block_request *const> requests) override {
    for (cowbird_block_request *request : requests) {
      waiting_.push_back(std::make_unique<Operation>(request));
    }
    start_waiting();
  }

  const char *name() const override { return "io_uring"; }

 private:
  // No more are under way than fit the completion queue, so that none of it ever overflows.
  void start_waiting() {
    unsigned queued = 0;
    while (!waiting_.empty() && under_way_.size() < kEntries) {
      io_uring_sqe *entry = io_uring_get_sqe(&ring_);
      if (!entry) break;
      std::unique_ptr<Operation> operation = std::move(waiting_.front());
      waiting_.pop_front();
      prepare(*entry, *operation);
      io_uring_sqe_set_data(entry, operation.get());
      under_way_.emplace(operation.get(), std::move(operation));
      ++queued;
    }
    if (queued > 0) enter();
  }

  // Entries that the kernel has no memory for yet stay in the queue and are offered again.
  void enter() {
    while (io_uring_sq_ready(&ring_) > 0) {
      const int status = io_uring_submit(&ring_);
      if (status >= 0) continue;
      if (status != -EINTR && status != -EAGAIN && status != -EBUSY) {
        host_.log(COWBIRD_LOG_ERROR,
                  "io_uring does not take requests: " + std::string(std::strerror(-status)));
        return;
      }
      sched_yield();
    }
  }

  void prepare(io_uring_sqe &entry, Operation &operation) {
    const auto count = static_cast<unsigned>(operation.buffers.size() - operation.first);
    const iovec *buffers = operation.buffers.data() + operation.first;
    if (operation.syncing || operation.request->operation == COWBIRD_BLOCK_FLUSH) {
      io_uring_prep_fsync(&entry, image_.fd(), IORING_FSYNC_DATASYNC);
    } else if (operation.request->operation == COWBIRD_BLOCK_READ) {
      io_uring_prep_readv(&entry, image_.fd(), buffers, count, operation.offset);
    } else if (operation.request->operation == COWBIRD_BLOCK_WRITE) {
      const int flags = operation.request->flags & COWBIRD_BLOCK_FUA ? RWF_DSYNC : 0;
      io_uring_prep_writev2(&entry, image_.fd(), buffers, count, operation.offset, flags);
    } else {
      io_uring_prep_fallocate(&entry, image_.fd(), operation.fallocate_mode(image_),
                              static_cast<off_t>(operation.offset),
                              static_cast<off_t>(operation.left));
    }
  }

  void reap() {
    io_uring_cqe *completion;
    while (io_uring_peek_cqe(&ring_, &completion) == 0) {
      auto *operation = static_cast<Operation *>(io_uring_cqe_get_data(completion));
      const int result = completion->res;
      io_uring_cqe_seen(&ring_, completion);
      auto node = under_way_.extract(operation);
      step(std::move(node.mapped()), result);
    }
    start_waiting();
  }

  // What a result means: finished, or to be continued.
  void step(std::unique_ptr<Operation> operation, int result) {
    cowbird_block_request *request = operation->request;
    if (result == -EINTR || result == -EAGAIN) {
      waiting_.push_front(std::move(operation));
    } else if (result < 0) {
      done_(request, result);
    } else if (operation->is_transfer()) {
      operation->advance(static_cast<std::uint64_t>(result));
      if (operation->left == 0) {
        done_(request, 0);
      } else if (result == 0) {
        done_(request, -EIO);  // somebody cut the image
      } else {
        waiting_.push_front(std::move(operation));
      }
    } else if (operation->needs_sync() && !operation->syncing) {
      operation->syncing = true;
      waiting_.push_front(std::move(operation));
    } else {
      done_(request, 0);
    }
  }

  const cowbird::sdk::Host &host_;
  const Image &image_;
  const Done done_;
  io_uring ring_{};
  bool ready_ = false;
  cowbird::sdk::Watch watch_;
  std::deque<std::unique_ptr<Operation>> waiting_;
  std::unordered_map<Operation *, std::unique_ptr<Operation>> under_way_;
};

}  // namespace

std::unique_ptr<Engine> make_uring_engine(const cowbird::sdk::Host &host, const Image &image,
                                          Engine::Done done, int &why) {
  auto engine = std::make_unique<UringEngine>(host, image, std::move(done));
  why = -engine->start();
  if (why != 0) return nullptr;
  return engine;
}
