// Structures of epoll_ctl(2), eventfd(2), timerfd_create(2) and signalfd(2). Anyone may include
// this header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cowbird::abi {

inline constexpr std::uint32_t kEPOLLEXCLUSIVE = 1u << 28;
inline constexpr std::uint32_t kEPOLLWAKEUP = 1u << 29;
inline constexpr std::uint32_t kEPOLLONESHOT = 1u << 30;
inline constexpr std::uint32_t kEPOLLET = 1u << 31;
inline constexpr int kEPOLL_CTL_ADD = 1;
inline constexpr int kEPOLL_CTL_DEL = 2;
inline constexpr int kEPOLL_CTL_MOD = 3;
inline constexpr std::uint32_t kEPOLL_CLOEXEC = 02000000;

struct [[gnu::packed]] EpollEvent {
  std::uint32_t events;
  std::uint64_t data;
};
static_assert(sizeof(EpollEvent) == 12);

inline constexpr std::uint32_t kEFD_SEMAPHORE = 1;
inline constexpr std::uint32_t kTFD_TIMER_ABSTIME = 1;
inline constexpr std::uint32_t kTFD_TIMER_CANCEL_ON_SET = 2;

struct SignalFdInfo {
  std::uint32_t ssi_signo;
  std::int32_t ssi_errno;
  std::int32_t ssi_code;
  std::uint32_t ssi_pid;
  std::uint32_t ssi_uid;
  std::int32_t ssi_fd;
  std::uint32_t ssi_tid;
  std::uint32_t ssi_band;
  std::uint32_t ssi_overrun;
  std::uint32_t ssi_trapno;
  std::int32_t ssi_status;
  std::int32_t ssi_int;
  std::uint64_t ssi_ptr;
  std::uint64_t ssi_utime;
  std::uint64_t ssi_stime;
  std::uint64_t ssi_addr;
  std::uint16_t ssi_addr_lsb;
  std::uint16_t pad2;
  std::int32_t ssi_syscall;
  std::uint64_t ssi_call_addr;
  std::uint32_t ssi_arch;
  std::uint8_t pad[28];
};
static_assert(sizeof(SignalFdInfo) == 128 && offsetof(SignalFdInfo, ssi_ptr) == 48 &&
              offsetof(SignalFdInfo, ssi_arch) == 96);

}  // namespace cowbird::abi
