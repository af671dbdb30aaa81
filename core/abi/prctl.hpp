// prctl(2), arch_prctl(2), personality(2) and securebits. Plain data.
#pragma once

#include <cstdint>

namespace cowbird::abi {

inline constexpr int kPR_SET_PDEATHSIG = 1;
inline constexpr int kPR_GET_PDEATHSIG = 2;
inline constexpr int kPR_GET_DUMPABLE = 3;
inline constexpr int kPR_SET_DUMPABLE = 4;
inline constexpr int kPR_GET_KEEPCAPS = 7;
inline constexpr int kPR_SET_KEEPCAPS = 8;
inline constexpr int kPR_GET_TIMING = 13;
inline constexpr int kPR_SET_TIMING = 14;
inline constexpr int kPR_SET_NAME = 15;
inline constexpr int kPR_GET_NAME = 16;
inline constexpr int kPR_GET_SECCOMP = 21;
inline constexpr int kPR_CAPBSET_READ = 23;
inline constexpr int kPR_CAPBSET_DROP = 24;
inline constexpr int kPR_GET_SECUREBITS = 27;
inline constexpr int kPR_SET_SECUREBITS = 28;
inline constexpr int kPR_SET_TIMERSLACK = 29;
inline constexpr int kPR_GET_TIMERSLACK = 30;
inline constexpr int kPR_SET_CHILD_SUBREAPER = 36;
inline constexpr int kPR_GET_CHILD_SUBREAPER = 37;
inline constexpr int kPR_SET_NO_NEW_PRIVS = 38;
inline constexpr int kPR_GET_NO_NEW_PRIVS = 39;
inline constexpr int kPR_GET_TID_ADDRESS = 40;
inline constexpr int kPR_CAP_AMBIENT = 47;
inline constexpr int kPR_CAP_AMBIENT_IS_SET = 1;
inline constexpr int kPR_CAP_AMBIENT_RAISE = 2;
inline constexpr int kPR_CAP_AMBIENT_LOWER = 3;
inline constexpr int kPR_CAP_AMBIENT_CLEAR_ALL = 4;

inline constexpr int kARCH_SET_GS = 0x1001;
inline constexpr int kARCH_SET_FS = 0x1002;
inline constexpr int kARCH_GET_FS = 0x1003;
inline constexpr int kARCH_GET_GS = 0x1004;

inline constexpr std::uint32_t kADDR_NO_RANDOMIZE = 0x0040000;
inline constexpr std::uint32_t kPER_CLEAR_ON_SETID = 0x0040000 | 0x0100000 | 0x0200000 | 0x0800000;

inline constexpr std::uint32_t kSECBIT_NOROOT = 1;
inline constexpr std::uint32_t kSECBIT_NO_SETUID_FIXUP = 4;
inline constexpr std::uint32_t kSECBIT_KEEP_CAPS = 16;
inline constexpr std::uint32_t kSECBIT_NO_CAP_AMBIENT_RAISE = 64;
inline constexpr std::uint32_t kSECURE_ALL_BITS = 0x55;
inline constexpr std::uint32_t kSECURE_ALL_LOCKS = 0xaa;

}  // namespace cowbird::abi
