// Sockets in the Linux x86-64 ABI: structures and constants. Anyone in the kernel may include this
// header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cowbird::abi {

inline constexpr int kAF_UNSPEC = 0, kAF_UNIX = 1, kAF_INET = 2, kAF_INET6 = 10, kAF_NETLINK = 16,
                     kAF_PACKET = 17;
inline constexpr int kSOCK_STREAM = 1, kSOCK_DGRAM = 2, kSOCK_RAW = 3, kSOCK_SEQPACKET = 5,
                     kSOCK_TYPE_MASK = 0xf;
inline constexpr int kSOCK_CLOEXEC = 02000000, kSOCK_NONBLOCK = 04000;

inline constexpr int kSHUT_RD = 0, kSHUT_WR = 1, kSHUT_RDWR = 2;

inline constexpr int kSOL_SOCKET = 1;
inline constexpr int kSO_DEBUG = 1, kSO_REUSEADDR = 2, kSO_TYPE = 3, kSO_ERROR = 4,
                     kSO_DONTROUTE = 5, kSO_BROADCAST = 6, kSO_SNDBUF = 7, kSO_RCVBUF = 8,
                     kSO_KEEPALIVE = 9, kSO_OOBINLINE = 10, kSO_PRIORITY = 12, kSO_LINGER = 13,
                     kSO_REUSEPORT = 15, kSO_PASSCRED = 16, kSO_PEERCRED = 17, kSO_RCVLOWAT = 18,
                     kSO_RCVTIMEO = 20, kSO_SNDTIMEO = 21, kSO_ACCEPTCONN = 30,
                     kSO_SNDBUFFORCE = 32, kSO_RCVBUFFORCE = 33, kSO_PROTOCOL = 38, kSO_DOMAIN = 39,
                     kSO_TIMESTAMP = 29, kSO_TIMESTAMPNS = 35, kSO_PEEK_OFF = 42,
                     kSO_PEERGROUPS = 59, kSO_PEERPIDFD = 77;

inline constexpr std::uint32_t kMSG_OOB = 1, kMSG_PEEK = 2, kMSG_CTRUNC = 8, kMSG_TRUNC = 0x20,
                               kMSG_DONTWAIT = 0x40, kMSG_EOR = 0x80, kMSG_WAITALL = 0x100,
                               kMSG_NOSIGNAL = 0x4000, kMSG_WAITFORONE = 0x10000,
                               kMSG_CMSG_CLOEXEC = 0x40000000;

inline constexpr int kSCM_RIGHTS = 1, kSCM_CREDENTIALS = 2, kSCM_TIMESTAMP = kSO_TIMESTAMP,
                     kSCM_TIMESTAMPNS = kSO_TIMESTAMPNS;

struct SockaddrUn {
  std::uint16_t family;
  char path[108];
};
static_assert(sizeof(SockaddrUn) == 110);
inline constexpr std::size_t kSockaddrMax = 128;  // sizeof(struct sockaddr_storage)

struct Msghdr {
  std::uint64_t name;
  std::uint32_t name_length;
  std::uint32_t pad1;
  std::uint64_t iov;
  std::uint64_t iov_count;
  std::uint64_t control;
  std::uint64_t control_length;
  std::uint32_t flags;
  std::uint32_t pad2;
};
static_assert(sizeof(Msghdr) == 56 && offsetof(Msghdr, control) == 32 &&
              offsetof(Msghdr, flags) == 48);

struct Mmsghdr {
  Msghdr header;
  std::uint32_t length;
  std::uint32_t pad;
};
static_assert(sizeof(Mmsghdr) == 64);

struct Cmsghdr {
  std::uint64_t length;  // with this header
  std::int32_t level;
  std::int32_t type;
};
static_assert(sizeof(Cmsghdr) == 16);

struct Ucred {
  std::int32_t pid;
  std::uint32_t uid, gid;
};
static_assert(sizeof(Ucred) == 12);

struct Linger {
  std::int32_t on, seconds;
};
static_assert(sizeof(Linger) == 8);

}  // namespace cowbird::abi
