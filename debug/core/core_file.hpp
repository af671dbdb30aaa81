// CoreFile: the core file of a Cowbird kernel, as `cowbird gdbserver --write-core` leaves it: an
// ordinary ELF core of the host's process (gdb alone reads it too) with a note of our own. Every
// number in it is checked: a core file may be cut, or be something else. One thread at a time; the
// file is mapped and must not be truncated meanwhile.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "debug/view/kernel_view.hpp"

namespace cowbird::debug {

// Our note: name "Cowbird", this type; lines of key=value: guest, program, panic, thread (the host
// thread that panicked), name.TID (of each host thread).
inline constexpr char kCoreNoteName[] = "Cowbird";
inline constexpr std::uint32_t kCoreNoteType = 1;

struct CoreThread {
  pid_t tid = 0;
  int signal = 0;
  user_regs_struct registers{};
  std::vector<std::byte> xstate;  // empty: not in the file
};

// A file that was mapped, from NT_FILE.
struct CoreMapping {
  std::uint64_t start = 0, end = 0, offset = 0;
  std::string path;
};

class CoreFile final : public MemoryReader {
 public:
  // NoEnt, or NoExec with a sentence in `why`.
  static Result<std::unique_ptr<CoreFile>> open(const std::string &path, std::string &why);
  // The same for bytes that outlive the object, without the files that were mapped; for tests and
  // the fuzz target.
  static Result<std::unique_ptr<CoreFile>> parse(std::span<const std::byte> bytes,
                                                 std::string &why);
  ~CoreFile() override;
  CoreFile(const CoreFile &) = delete;
  CoreFile &operator=(const CoreFile &) = delete;

  // Threads in the order of the file; the first is the one that the core is about.
  const std::vector<CoreThread> &threads() const { return threads_; }
  const std::vector<CoreMapping> &mappings() const { return mappings_; }
  std::span<const std::byte> auxv() const { return auxv_; }
  std::uint64_t auxv_value(std::uint64_t type) const;
  // Of our note; empty when it does not say.
  std::string property(const std::string &key) const;
  // The core ends before its last segment does: what is missing is not readable.
  bool truncated() const { return truncated_; }

  // MemoryReader; what lies in a mapped file and not in the core is read from that file.
  Result<void> read(std::uint64_t address, std::span<std::byte> out) override;
  // Bytes from the front; Fault when there is none.
  Result<std::size_t> read_some(std::uint64_t address, std::span<std::byte> out);

 private:
  CoreFile() = default;
  bool load(std::string &why);
  bool load_notes(std::uint64_t offset, std::uint64_t size);
  void take_note(const std::string &name, std::uint32_t type, std::span<const std::byte> data);
  void take_files(std::span<const std::byte> data);
  void take_own(std::span<const std::byte> data);

  struct Segment {
    std::uint64_t end = 0;      // of the address range
    std::uint64_t offset = 0;   // in the file
    std::uint64_t in_file = 0;  // bytes that the file has of it
  };
  std::span<const std::byte> bytes_;
  void *mapped_ = nullptr;
  std::map<std::uint64_t, Segment> segments_;  // by their first address
  std::vector<CoreThread> threads_;
  std::vector<CoreMapping> mappings_;
  std::vector<std::byte> auxv_;
  std::map<std::string, std::string> properties_;
  std::map<std::string, int> opened_;  // mapped files, -1: cannot be read
  bool truncated_ = false;
  bool reads_files_ = false;
};

}  // namespace cowbird::debug
