// How the `file` backend does its I/O: with io_uring, or with a worker thread where the host
// refuses io_uring (containers' seccomp filters often do).
#pragma once

#include <sys/uio.h>

#include <cowbird/blockdev.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "image.hpp"

// One request on its way. Reads and writes can be cut short by the host and are then continued.
struct Operation {
  explicit Operation(cowbird_block_request *r)
      : request(r), buffers(r->iov, r->iov + r->iov_count), offset(r->offset), left(r->length) {}

  bool is_transfer() const {
    return request->operation == COWBIRD_BLOCK_READ || request->operation == COWBIRD_BLOCK_WRITE;
  }
  // fallocate(2) mode for DISCARD and WRITE_ZEROES.
  int fallocate_mode(const Image &image) const;
  // Whether an fdatasync has to follow: what io_uring and pwritev2 have no flag for.
  bool needs_sync() const {
    return request->operation == COWBIRD_BLOCK_WRITE_ZEROES && (request->flags & COWBIRD_BLOCK_FUA);
  }
  // Takes `count` transferred bytes off the front of the buffers.
  void advance(std::uint64_t count);

  cowbird_block_request *request;
  std::vector<iovec> buffers;
  std::size_t first = 0;  // buffers before it are done
  std::uint64_t offset;
  std::uint64_t left;
  bool syncing = false;
};

class Engine {
 public:
  // Called once for each request, from the thread that the engine likes.
  using Done = std::function<void(cowbird_block_request *, int status)>;

  virtual ~Engine() = default;
  virtual void submit(std::span<cowbird_block_request *const> requests) = 0;
  virtual const char *name() const = 0;
};

// nullptr when the host refuses io_uring; `why` is the errno.
std::unique_ptr<Engine> make_uring_engine(const cowbird::sdk::Host &host, const Image &image,
                                          Engine::Done done, int &why);
// Throws cowbird::sdk::Error when no thread can be had.
std::unique_ptr<Engine> make_thread_engine(const Image &image, Engine::Done done);
