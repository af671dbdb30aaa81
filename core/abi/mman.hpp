// Constants of mmap(2), mprotect(2), mremap(2), madvise(2), msync(2), mlock2(2) and mlockall(2), as
// a guest on Linux x86-64 sees them. Anyone may include this header.
#pragma once

#include <cstdint>

namespace cowbird::abi {

inline constexpr std::uint32_t kPROT_READ = 1;
inline constexpr std::uint32_t kPROT_WRITE = 2;
inline constexpr std::uint32_t kPROT_EXEC = 4;
inline constexpr std::uint32_t kPROT_SEM = 8;
inline constexpr std::uint32_t kPROT_GROWSDOWN = 0x01000000;
inline constexpr std::uint32_t kPROT_GROWSUP = 0x02000000;

inline constexpr std::uint32_t kMAP_SHARED = 0x01;
inline constexpr std::uint32_t kMAP_PRIVATE = 0x02;
inline constexpr std::uint32_t kMAP_SHARED_VALIDATE = 0x03;
inline constexpr std::uint32_t kMAP_TYPE = 0x0f;
inline constexpr std::uint32_t kMAP_FIXED = 0x10;
inline constexpr std::uint32_t kMAP_ANONYMOUS = 0x20;
inline constexpr std::uint32_t kMAP_32BIT = 0x40;
inline constexpr std::uint32_t kMAP_GROWSDOWN = 0x0100;
inline constexpr std::uint32_t kMAP_DENYWRITE = 0x0800;
inline constexpr std::uint32_t kMAP_EXECUTABLE = 0x1000;
inline constexpr std::uint32_t kMAP_LOCKED = 0x2000;
inline constexpr std::uint32_t kMAP_NORESERVE = 0x4000;
inline constexpr std::uint32_t kMAP_POPULATE = 0x8000;
inline constexpr std::uint32_t kMAP_NONBLOCK = 0x10000;
inline constexpr std::uint32_t kMAP_STACK = 0x20000;
inline constexpr std::uint32_t kMAP_HUGETLB = 0x40000;
inline constexpr std::uint32_t kMAP_SYNC = 0x80000;
inline constexpr std::uint32_t kMAP_FIXED_NOREPLACE = 0x100000;
inline constexpr std::uint32_t kMAP_UNINITIALIZED = 0x4000000;

inline constexpr std::uint32_t kMREMAP_MAYMOVE = 1;
inline constexpr std::uint32_t kMREMAP_FIXED = 2;
inline constexpr std::uint32_t kMREMAP_DONTUNMAP = 4;

inline constexpr int kMADV_NORMAL = 0;
inline constexpr int kMADV_RANDOM = 1;
inline constexpr int kMADV_SEQUENTIAL = 2;
inline constexpr int kMADV_WILLNEED = 3;
inline constexpr int kMADV_DONTNEED = 4;
inline constexpr int kMADV_FREE = 8;
inline constexpr int kMADV_REMOVE = 9;
inline constexpr int kMADV_DONTFORK = 10;
inline constexpr int kMADV_DOFORK = 11;
inline constexpr int kMADV_DONTDUMP = 16;
inline constexpr int kMADV_DODUMP = 17;
inline constexpr int kMADV_WIPEONFORK = 18;
inline constexpr int kMADV_KEEPONFORK = 19;
inline constexpr int kMADV_COLD = 20;
inline constexpr int kMADV_PAGEOUT = 21;
inline constexpr int kMADV_POPULATE_READ = 22;
inline constexpr int kMADV_POPULATE_WRITE = 23;

inline constexpr int kMS_ASYNC = 1;
inline constexpr int kMS_INVALIDATE = 2;
inline constexpr int kMS_SYNC = 4;

inline constexpr std::uint32_t kMLOCK_ONFAULT = 1;
inline constexpr std::uint32_t kMCL_CURRENT = 1;
inline constexpr std::uint32_t kMCL_FUTURE = 2;
inline constexpr std::uint32_t kMCL_ONFAULT = 4;

inline constexpr std::uint32_t kPER_READ_IMPLIES_EXEC = 0x0400000;

}  // namespace cowbird::abi
