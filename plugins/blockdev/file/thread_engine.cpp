// One worker thread that does the requests in turn, with calls that may block.
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "engine.hpp"

int Operation::fallocate_mode(const Image &image) const {
  const bool keep = request->operation == COWBIRD_BLOCK_WRITE_ZEROES &&
                    ((request->flags & COWBIRD_BLOCK_NO_UNMAP) || !image.can_punch());
  return FALLOC_FL_KEEP_SIZE | (keep ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE);
}

void Operation::advance(std::uint64_t count) {
  offset += count;
  left -= count;
  while (count > 0) {
    iovec &buffer = buffers[first];
    if (count < buffer.iov_len) {
      buffer.iov_base = static_cast<char *>(buffer.iov_base) + count;
      buffer.iov_len -= count;
      return;
    }
    count -= buffer.iov_len;
    ++first;
  }
}

namespace {

class ThreadEngine final : public Engine {
 public:
  ThreadEngine(const Image &image, Done done) : image_(image), done_(std::move(done)) {
    // Signals are the host's: the thread is born with all of them blocked.
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    try {
      thread_ = std::thread([this] { run(); });
    } catch (const std::system_error &failure) {
      pthread_sigmask(SIG_SETMASK, &old, nullptr);
      throw cowbird::sdk::Error(EAGAIN, "A worker thread cannot be started on the host.");
    }
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
  }

  ~ThreadEngine() override {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  void submit(std::span<cowbird_block_request *const> requests) override {
    {
      const std::lock_guard lock(mutex_);
      queue_.insert(queue_.end(), requests.begin(), requests.end());
    }
    wake_.notify_one();
  }

  const char *name() const override { return "worker thread"; }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return ending_ || !queue_.empty(); });
      if (queue_.empty()) return;
      cowbird_block_request *request = queue_.front();
      queue_.pop_front();
      lock.unlock();
      done_(request, perform(request));
      lock.lock();
    }
  }

  int perform(cowbird_block_request *request) {
    Operation operation(request);
    if (request->operation == COWBIRD_BLOCK_FLUSH) return sync();
    if (operation.is_transfer()) return transfer(operation);
    int status;
    do {
      status = fallocate(image_.fd(), operation.fallocate_mode(image_),
                         static_cast<off_t>(operation.offset), static_cast<off_t>(operation.left));
    } while (status != 0 && errno == EINTR);
    if (status != 0) return -errno;
    return operation.needs_sync() ? sync() : 0;
  }

  int transfer(Operation &operation) {
    const bool write = operation.request->operation == COWBIRD_BLOCK_WRITE;
    const int flags = operation.request->flags & COWBIRD_BLOCK_FUA ? RWF_DSYNC : 0;
    while (operation.left > 0) {
      const iovec *buffers = operation.buffers.data() + operation.first;
      const int count = static_cast<int>(operation.buffers.size() - operation.first);
      const auto offset = static_cast<off_t>(operation.offset);
      const ssize_t n = write ? pwritev2(image_.fd(), buffers, count, offset, flags)
                              : preadv2(image_.fd(), buffers, count, offset, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return -errno;
      if (n == 0) return -EIO;  // somebody cut the image
      operation.advance(static_cast<std::uint64_t>(n));
    }
    return 0;
  }

  int sync() { return fdatasync(image_.fd()) == 0 ? 0 : -errno; }

  const Image &image_;
  const Done done_;
  std::mutex mutex_;  // protects what follows
  std::condition_variable wake_;
  std::deque<cowbird_block_request *> queue_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Engine> make_thread_engine(const Image &image, Engine::Done done) {
  return std::make_unique<ThreadEngine>(image, std::move(done));
}
