// What the debugger's server and the debug agent in the kernel say to each other over the stream
// socket `debug` of the run-time directory. Both include this header; it includes nothing of the
// kernel.
//
// A message is a header and `size` bytes of body. The server sends requests, one at a time or
// several; each gets one reply with its id, in their order. Stops come unasked, with id 0. Numbers
// are those of the machine (little-endian); structures are as they stand here, whose sizes are
// asserted. Errors are Linux's errno values; an error's reply has a sentence as its body, or none.
//
// Every request has the same form: fixed fields, then `count` numbers, then bytes. What a request
// uses of it is said at its name. The agent believes nothing: sizes and counts are bounded here and
// checked by parse_request(), everything else where it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "abi/registers.hpp"
#include "base/result.hpp"

namespace cowbird::debug_agent {

inline constexpr std::uint32_t kMagic = 0x47424443;  // "CDBG"
inline constexpr std::uint32_t kVersion = 2;
inline constexpr std::size_t kMaxBody = 1 << 20;
// Of one ReadMemory, WriteMemory or ReadFile.
inline constexpr std::size_t kMaxTransfer = 256ul * 1024;
inline constexpr std::size_t kMaxNumbers = 1024;
inline constexpr std::size_t kMaxActions = 4096;
inline constexpr std::size_t kMaxPath = 4096;
inline constexpr std::size_t kMaxOpenFiles = 64;

enum class Command : std::uint16_t {
  Hello = 1,         // number: kVersion -> HelloReply. The first request.
  Processes,         // -> ProcessRecord...
  Threads,           // pid, 0: of all traced processes -> ThreadRecord...
  Attach,            // pid. The guest should be frozen.
  Detach,            // pid. Its breakpoints go, its stopped threads go on.
  Kill,              // pid: SIGKILL, and detach
  GetRegisters,      // tid -> abi::UserRegs, then the XSAVE area
  SetRegisters,      // tid, bytes: abi::UserRegs, then the XSAVE area or nothing
  ReadMemory,        // pid, address, length -> bytes, fewer before a hole
  WriteMemory,       // pid, address, bytes -> u64: how many
  InsertBreakpoint,  // pid, address
  RemoveBreakpoint,  // pid, address
  Auxv,              // pid -> bytes
  Executable,        // pid -> path
  SetOptions,        // pid (0: for processes attached later too), flags: Option
  CatchSyscalls,     // pid, flags: 1 on; numbers, none: all
  PassSignals,       // address: the set, bit n-1 is signal n. For all processes, now and later.
  Freeze,            // the guest stands still; returns when it does (ETIMEDOUT: it does not)
  Thaw,
  SetNonStop,   // flags: 1 on: a stop does not freeze the guest
  RequestStop,  // tid: stops with StopKind::Requested (non-stop mode)
  // bytes: ResumeRecord...; threads that no record matches are held (in non-stop mode: left as they
  // are). address: the sequence of the newest stop that the server has seen. A thread whose stop is
  // newer stays stopped, for the server could not mean it; in all-stop mode nothing runs then.
  // Thaws otherwise.
  Resume,
  GetSignalInfo,    // tid -> siginfo_t
  SetSignalInfo,    // tid, bytes: siginfo_t
  OpenFile,         // pid: in whose view; bytes: path -> u64: handle
  ReadFile,         // address: handle; length: bytes; numbers[0]: offset -> bytes
  StatFile,         // address: handle -> FileRecord
  CloseFile,        // address: handle
  ReadLink,         // pid, bytes: path -> target
  Stopped = 0x100,  // unasked: StopRecord
};

enum Option : std::uint32_t {
  kForkEvents = 1,
  kExecEvents = 2,
  kThreadEvents = 4,
};

struct Header {
  std::uint32_t magic = kMagic;
  std::uint32_t size = 0;  // of the body
  std::uint16_t command = 0;
  std::uint16_t error = 0;  // of a reply
  std::uint32_t id = 0;
};
static_assert(sizeof(Header) == 16);

struct RequestFields {
  std::int32_t pid = 0;
  std::int32_t tid = 0;
  std::uint64_t address = 0;
  std::uint64_t length = 0;
  std::uint32_t flags = 0;
  std::uint32_t count = 0;  // of numbers
};
static_assert(sizeof(RequestFields) == 32);

struct HelloReply {
  std::uint32_t version = kVersion;
  std::uint32_t xstate_size = 0;
  std::int32_t host_pid = 0;
  std::uint32_t vcpus = 0;
};
static_assert(sizeof(HelloReply) == 16);

struct ProcessRecord {
  std::int32_t pid = 0, parent = 0;
  std::uint32_t threads = 0;
  std::uint8_t traced = 0, zombie = 0;
  std::uint16_t unused = 0;
  char name[16] = {};
};
static_assert(sizeof(ProcessRecord) == 32);

enum ThreadFlag : std::uint8_t { kThreadStopped = 1, kThreadHeld = 2, kThreadInSyscall = 4 };

struct ThreadRecord {
  std::int32_t pid = 0, tid = 0;
  char state = '?';  // as ps(1)
  std::uint8_t flags = 0;
  std::int16_t vcpu = -1;
  std::uint32_t unused = 0;
  std::uint64_t syscall = ~0ull;
  char name[16] = {};
  char wait_channel[24] = {};
};
static_assert(sizeof(ThreadRecord) == 64);

enum class StopKind : std::uint8_t {
  Signal,      // `signal`
  Breakpoint,  // `address`
  Step,
  SyscallEntry,   // `number`
  SyscallReturn,  // `number`
  Fork,           // `child`, which is traced and held
  Vfork,
  VforkDone,
  Exec,
  ThreadCreated,
  ThreadExited,   // kThreadEvents
  ProcessExited,  // `number`: wait(2)'s status
  Requested,
};
struct StopRecord {
  std::int32_t pid = 0, tid = 0;
  StopKind kind = StopKind::Requested;
  std::uint8_t frozen = 0;  // the guest stands still, all of it
  std::int16_t vcpu = -1;
  std::int32_t signal = 0;
  std::uint64_t address = 0;
  std::uint64_t number = 0;
  std::int32_t child = 0;
  std::int32_t unused = 0;
  std::uint64_t sequence = 0;  // 1, 2, ... of this connection
};
static_assert(sizeof(StopRecord) == 48);

enum class Action : std::uint8_t { Continue, Step, Hold };
struct ResumeRecord {
  std::int32_t pid = 0, tid = 0;  // -1: all
  Action action = Action::Continue;
  std::uint8_t step_over = 0;  // past a breakpoint at its address first, alone
  std::uint16_t unused = 0;
  std::int32_t signal = 0;
  // Step: on and on while the address is in [low, high).
  std::uint64_t range_low = 0, range_high = 0;
};
static_assert(sizeof(ResumeRecord) == 32);

struct FileRecord {
  std::uint64_t device = 0, inode = 0, size = 0, block_size = 0, blocks = 0;
  std::uint32_t mode = 0, links = 0, uid = 0, gid = 0;
  std::int64_t atime = 0, mtime = 0, ctime = 0;
};
static_assert(sizeof(FileRecord) == 80);

// A request, taken apart; `bytes` points into the body.
struct Request {
  Command command{};
  std::uint32_t id = 0;
  RequestFields fields;
  std::vector<std::uint64_t> numbers;
  std::span<const std::byte> bytes;
  std::string_view text() const {
    return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
  }
};

// The header of a message at the beginning of `input`; Again while there are too few bytes, Proto
// when it is none (wrong magic, too large).
Result<Header> parse_header(std::span<const std::byte> input);
// Inval when the body is no request, or one whose parts have sizes that the command does not allow.
Result<Request> parse_request(const Header &header, std::span<const std::byte> body);
// The whole message.
std::vector<std::byte> encode_request(Command command, std::uint32_t id, RequestFields fields,
                                      std::span<const std::uint64_t> numbers = {},
                                      std::span<const std::byte> bytes = {});

// Structures one after another in a body; what is left over is dropped.
template <typename T>
std::vector<T> records(std::span<const std::byte> bytes) {
  std::vector<T> out(bytes.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
  return out;
}

}  // namespace cowbird::debug_agent
