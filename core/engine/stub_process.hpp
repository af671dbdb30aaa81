// StubProcess: one host process that runs guest code, seen from the kernel: its shared memory, its
// order ring, its life. It knows nothing of address spaces; StubPool starts and recycles it,
// StubSpace orders.
//
// Which function may be called by whom is said with each group. "Owner" is the StubSpace that has
// the process, under its lock, or the pool's thread while no space has it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "engine/order_queue.hpp"
#include "engine/stub_protocol.hpp"

namespace cowbird {

// What all stubs of a platform share.
struct StubEnvironment {
  int memory_fd = -1;
  UniqueFd image;  // the sealed executable, not writable
  bool fsgsbase = true;
};

// A host thread of a stub for guest code.
struct StubThread {
  int tid = 0;          // 0: not made yet
  bool in_use = false;  // a context has it
  // Where the last context left the hand-over (see StubContext).
  std::uint32_t to_guest = 0, to_kernel = 0;
  std::uint64_t frame_offset = stub::kMailboxInitialFrame;
};

class StubProcess {
 public:
  // Makes memory and files; no process yet.
  static Result<std::unique_ptr<StubProcess>> create(const StubEnvironment &environment);
  ~StubProcess();
  StubProcess(const StubProcess &) = delete;
  StubProcess &operator=(const StubProcess &) = delete;

  // Life; the pool's thread only. `start` returns when execve was done or has failed. The host
  // kills the stub when the calling host thread ends.
  Result<void> start(const StubEnvironment &environment);
  // Tells M to execute the stub's image anew, which ends all other threads of the process and drops
  // its address space. Afterwards `await_point()` tells when.
  bool order_restart();
  // Removes everything that guest code may have left in the control memory and orders the first
  // thread. Only while no guest thread exists.
  void prepare_first_thread();
  SyncPoint await_point() const { return await_point_; }
  // The process has ended: everybody who waits for it learns so, and its exit status is collected.
  void reap();
  // Half a sentence, after kill() or once dead(): why it is gone. Any host thread.
  std::string end_reason() const;

  // Orders; the owner.
  // False when the ring is full.
  bool push(const Order &order);
  // Lets M see what was pushed. M learns of it from a guest thread or by wake().
  void publish();
  // The last point that M has proven to have reached. Points start anew in no process.
  SyncPoint proven();
  SyncPoint published_point() const { return published_point_; }
  // True once after M had to drop all mappings.
  bool take_flushed();
  std::vector<StubThread> &threads() { return threads_; }
  // Collects the id of the thread that was made last; Again when the host refused it.
  Result<int> take_thread_id();

  // Any host thread.
  void wake();
  bool dead() const { return dead_.load(std::memory_order_acquire); }
  int pid() const { return pid_; }
  bool fsgsbase() const { return (flags_ & STUB_FLAG_NO_FSGSBASE) == 0; }
  int pid_fd() const { return pid_fd_.get(); }
  int event_fd() const { return event_fd_.get(); }
  // Makes the proof of later points readable at event_fd(), by want(true).
  void want_event(bool want);
  void drain_event();
  void raise_event();
  // `why`: for end_reason(); lives as long as the program.
  void kill(const char *why);
  // Sends a signal to a thread of this process; does nothing when the process is gone.
  void signal_thread(int tid, int signal);
  void set_affinity(int tid, const void *mask, std::size_t bytes);
  stub::Mailbox *mailbox(unsigned slot);
  std::byte *mailbox_bytes(unsigned slot);
  // Wakes whoever waits for this mailbox's to_kernel (used when the process has died).
  void wake_kernel_side(unsigned slot);

  // Builds the frame from which a new guest thread starts: everything zero.
  void prepare_mailbox(unsigned slot);

  // Identity for the pool's lists.
  enum class State : std::uint8_t { Starting, Restarting, Preparing, Idle, Used, Dropped };
  State state = State::Starting;

 private:
  StubProcess() = default;
  Result<void> map_memory();
  // Keeps the pid from being given to somebody else while it is used. False: it is gone.
  bool pin() const;
  void unpin() const;

  UniqueFd orders_fd_, control_fd_, event_fd_, pid_fd_;
  stub::OrderPages *orders_ = nullptr;
  std::byte *control_ = nullptr;
  int pid_ = 0;
  std::uint32_t flags_ = 0;

  std::uint32_t head_ = 0;  // entries pushed
  std::uint32_t done_ = 0;  // entries proven to be done
  SyncPoint pushed_point_ = 0, published_point_ = 0, proven_ = 0, await_point_ = 0;
  std::uint32_t flushes_ = 0;
  bool flushed_ = false;
  std::vector<StubThread> threads_;
  std::atomic<unsigned> used_slots_{0};  // mailboxes that guest code may have touched

  std::atomic<bool> dead_{false};
  std::atomic<bool> reaped_{false};  // end_reason_ is there
  std::atomic<const char *> killed_because_{nullptr};
  mutable std::atomic<std::uint32_t> pins_{0};
  std::string end_reason_;
};

// The kernel's own futex calls on shared words. `timeout_ns` < 0: none.
void futex_wait_shared(std::uint32_t *word, std::uint32_t value, std::int64_t timeout_ns);
void futex_wake_shared(std::uint32_t *word, int count);

// Writes the embedded stub into a sealed memfd that can be executed.
Result<UniqueFd> make_stub_image(std::string &why);

}  // namespace cowbird
