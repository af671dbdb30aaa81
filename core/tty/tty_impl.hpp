// The Tty object and its open file: private to tty/.
#pragma once

#include "proc/task.hpp"
#include "tty/console_tap.hpp"
#include "tty/line_discipline.hpp"
#include "tty/tty.hpp"
#include "tty/tty_log.hpp"

namespace cowbird {

class TtyFile;

class Tty final : public RefCounted<Tty>, public LineDiscipline::Sink {
 public:
  Tty(std::string name, DeviceNumber number, TtyPort &port);
  virtual ~Tty();

  // LineDiscipline::Sink
  void signal_foreground(int signal) override;
  void input_ready() override;
  void output_ready() override;

  // Sends queued output to the port, as much as it takes.
  void flush_to_port();
  // The other side has nothing more to say. The first session that reads behind the last byte finds
  // the end of file, as often as it reads; others wait, as on a silent line.
  void end_input();
  void continue_input();
  bool at_end() const;  // for the calling task
  // Wakes pollers and readers; tells the port to go on when there is room again.
  void after_read();
  // All open files are dead but those that last. By the guest: vhangup(2). With the session: its
  // leader has ended.
  enum class Hangup { ByPort, ByGuest, WithSession };
  void hangup(Hangup by);
  // The last file has been closed.
  void released();
  void set_window(const abi::Winsize &size);
  Result<void> activate();

  // Ports that are counted live as long as their terminal.
  template <typename T>
  void keep_alive(Ref<T> object) {
    kept_ = std::make_shared<Ref<T>>(std::move(object));
  }

  const std::string name;
  const DeviceNumber number;
  TtyPort &port;
  LineDiscipline ldisc;
  abi::Winsize window{24, 80, 0, 0};

  int session = 0;  // 0: no session has it as its controlling terminal
  int foreground = 0;
  bool exclusive = false;
  bool active = false;
  bool throttled = false;
  bool input_ended = false;
  int end_reader = -1;  // the session that has found the end; -1: none yet
  bool flushing = false;
  bool kernel_console = false;        // held by the kernel: its session outlives its last file
  unsigned opens = 0;                 // files that are not dead
  unsigned dead_files = 0;            // files of before a hang-up that are not closed yet
  unsigned lasting = 0;               // those of them that outlive a hang-up
  std::uint64_t generation = 0;       // counts hang-ups: files of an older one are dead
  std::unique_ptr<ConsoleTap> tap;    // of consoles and serial lines: add_console_tap()
  std::unique_ptr<TtyRecord> record;  // while it is open, when terminals are logged

  WaitQueue read_wait;
  WaitQueue write_wait;
  // Serialise readers and writers, so that a line or a write stays together.
  SleepMutex read_lock{"tty_read"};
  SleepMutex write_lock{"tty_write"};

 private:
  std::shared_ptr<void> kept_;
};

class TtyFile final : public File {
 public:
  // What was opened as /dev/console has no job control for reading and writing, and a hang-up does
  // not end it, as on Linux. The latter holds for the first program's descriptors too.
  enum class OpenedAs { Itself, Console, Stdio };
  TtyFile(Ref<Tty> tty, std::uint32_t flags, OpenedAs opened_as = OpenedAs::Itself);
  ~TtyFile() override;

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &offset) override;
  Result<std::uint64_t> write(IovIter &from, std::uint64_t &offset) override;
  Result<std::int64_t> ioctl(Task &task, std::uint32_t command, std::uint64_t argument) override;
  std::uint32_t poll(PollTable *table) override;
  std::string describe() const override { return "/dev/" + tty_->name; }

 private:
  bool lasts() const { return opened_as_ != OpenedAs::Itself; }
  // What a reader of at least `minimum` bytes waits for.
  bool readable(std::size_t minimum) const;
  bool dead() const { return !lasts() && generation_ != tty_->generation; }
  // Takes the lock of readers or writers; Again, RestartSys.
  Result<void> take_turn(SleepMutex &lock) const;
  Result<std::uint64_t> read_canonical(IovIter &to);
  Result<std::uint64_t> read_raw(IovIter &to);
  Result<void> wait_readable(std::size_t minimum, std::int64_t deadline_ns);
  Result<std::uint64_t> take(IovIter &to, bool &eof);
  // The end of the input was found by this session.
  std::uint64_t take_end();
  std::size_t poll_minimum() const;

  Ref<Tty> tty_;
  std::uint64_t generation_;
  const OpenedAs opened_as_;
};

// SIGTTIN and SIGTTOU: may a process of this group read from, write to or change the terminal now?
// RestartSys after the signal was sent, Io when it cannot be.
Result<void> check_background(Tty &tty, Task &task, int signal);
// The answer of an ioctl that writes an int.
Result<std::int64_t> put_int(std::uint64_t argument, std::int64_t value);
// The ioctls of tty_ioctl(4); NotTty when unknown.
Result<std::int64_t> tty_ioctl(Tty &tty, Task &task, std::uint32_t command, std::uint64_t argument);

}  // namespace cowbird
