// Error numbers used inside the kernel. They are a scoped enum so that no integer becomes an error
// by accident; the numeric value is the Linux x86-64 errno, which the system call border returns
// negated. Anyone may include this header.
#pragma once

#include <cstdint>
#include <string_view>

namespace cowbird {

// X(enumerator, Linux name, number, text of strerror(3))
#define COWBIRD_ERRNO_LIST(X)                                                      \
  X(Perm, "EPERM", 1, "Operation not permitted")                                   \
  X(NoEnt, "ENOENT", 2, "No such file or directory")                               \
  X(Srch, "ESRCH", 3, "No such process")                                           \
  X(Intr, "EINTR", 4, "Interrupted system call")                                   \
  X(Io, "EIO", 5, "Input/output error")                                            \
  X(NxIo, "ENXIO", 6, "No such device or address")                                 \
  X(TooBig, "E2BIG", 7, "Argument list too long")                                  \
  X(NoExec, "ENOEXEC", 8, "Exec format error")                                     \
  X(BadF, "EBADF", 9, "Bad file descriptor")                                       \
  X(Child, "ECHILD", 10, "No child processes")                                     \
  X(Again, "EAGAIN", 11, "Resource temporarily unavailable")                       \
  X(NoMem, "ENOMEM", 12, "Cannot allocate memory")                                 \
  X(Access, "EACCES", 13, "Permission denied")                                     \
  X(Fault, "EFAULT", 14, "Bad address")                                            \
  X(NotBlk, "ENOTBLK", 15, "Block device required")                                \
  X(Busy, "EBUSY", 16, "Device or resource busy")                                  \
  X(Exist, "EEXIST", 17, "File exists")                                            \
  X(XDev, "EXDEV", 18, "Invalid cross-device link")                                \
  X(NoDev, "ENODEV", 19, "No such device")                                         \
  X(NotDir, "ENOTDIR", 20, "Not a directory")                                      \
  X(IsDir, "EISDIR", 21, "Is a directory")                                         \
  X(Inval, "EINVAL", 22, "Invalid argument")                                       \
  X(NFile, "ENFILE", 23, "Too many open files in system")                          \
  X(MFile, "EMFILE", 24, "Too many open files")                                    \
  X(NotTty, "ENOTTY", 25, "Inappropriate ioctl for device")                        \
  X(TxtBsy, "ETXTBSY", 26, "Text file busy")                                       \
  X(FBig, "EFBIG", 27, "File too large")                                           \
  X(NoSpc, "ENOSPC", 28, "No space left on device")                                \
  X(SPipe, "ESPIPE", 29, "Illegal seek")                                           \
  X(RoFs, "EROFS", 30, "Read-only file system")                                    \
  X(MLink, "EMLINK", 31, "Too many links")                                         \
  X(Pipe, "EPIPE", 32, "Broken pipe")                                              \
  X(Dom, "EDOM", 33, "Numerical argument out of domain")                           \
  X(Range, "ERANGE", 34, "Numerical result out of range")                          \
  X(Deadlk, "EDEADLK", 35, "Resource deadlock avoided")                            \
  X(NameTooLong, "ENAMETOOLONG", 36, "File name too long")                         \
  X(NoLck, "ENOLCK", 37, "No locks available")                                     \
  X(NoSys, "ENOSYS", 38, "Function not implemented")                               \
  X(NotEmpty, "ENOTEMPTY", 39, "Directory not empty")                              \
  X(Loop, "ELOOP", 40, "Too many levels of symbolic links")                        \
  X(NoMsg, "ENOMSG", 42, "No message of desired type")                             \
  X(NoData, "ENODATA", 61, "No data available")                                    \
  X(Time, "ETIME", 62, "Timer expired")                                            \
  X(Proto, "EPROTO", 71, "Protocol error")                                         \
  X(BadMsg, "EBADMSG", 74, "Bad message")                                          \
  X(Overflow, "EOVERFLOW", 75, "Value too large for defined data type")            \
  X(LibBad, "ELIBBAD", 80, "Accessing a corrupted shared library")                 \
  X(Users, "EUSERS", 87, "Too many users")                                         \
  X(NotSock, "ENOTSOCK", 88, "Socket operation on non-socket")                     \
  X(DestAddrReq, "EDESTADDRREQ", 89, "Destination address required")               \
  X(MsgSize, "EMSGSIZE", 90, "Message too long")                                   \
  X(Prototype, "EPROTOTYPE", 91, "Protocol wrong type for socket")                 \
  X(NoProtoOpt, "ENOPROTOOPT", 92, "Protocol not available")                       \
  X(ProtoNoSupport, "EPROTONOSUPPORT", 93, "Protocol not supported")               \
  X(SockTNoSupport, "ESOCKTNOSUPPORT", 94, "Socket type not supported")            \
  X(OpNotSupp, "EOPNOTSUPP", 95, "Operation not supported")                        \
  X(AfNoSupport, "EAFNOSUPPORT", 97, "Address family not supported by protocol")   \
  X(AddrInUse, "EADDRINUSE", 98, "Address already in use")                         \
  X(AddrNotAvail, "EADDRNOTAVAIL", 99, "Cannot assign requested address")          \
  X(NetDown, "ENETDOWN", 100, "Network is down")                                   \
  X(NetUnreach, "ENETUNREACH", 101, "Network is unreachable")                      \
  X(ConnAborted, "ECONNABORTED", 103, "Software caused connection abort")          \
  X(ConnReset, "ECONNRESET", 104, "Connection reset by peer")                      \
  X(NoBufs, "ENOBUFS", 105, "No buffer space available")                           \
  X(IsConn, "EISCONN", 106, "Transport endpoint is already connected")             \
  X(NotConn, "ENOTCONN", 107, "Transport endpoint is not connected")               \
  X(Shutdown, "ESHUTDOWN", 108, "Cannot send after transport endpoint shutdown")   \
  X(TimedOut, "ETIMEDOUT", 110, "Connection timed out")                            \
  X(ConnRefused, "ECONNREFUSED", 111, "Connection refused")                        \
  X(HostDown, "EHOSTDOWN", 112, "Host is down")                                    \
  X(HostUnreach, "EHOSTUNREACH", 113, "No route to host")                          \
  X(Already, "EALREADY", 114, "Operation already in progress")                     \
  X(InProgress, "EINPROGRESS", 115, "Operation now in progress")                   \
  X(Stale, "ESTALE", 116, "Stale file handle")                                     \
  X(DQuot, "EDQUOT", 122, "Disk quota exceeded")                                   \
  X(NoMedium, "ENOMEDIUM", 123, "No medium found")                                 \
  X(Canceled, "ECANCELED", 125, "Operation canceled")                              \
  X(OwnerDead, "EOWNERDEAD", 130, "Owner died")                                    \
  X(NotRecoverable, "ENOTRECOVERABLE", 131, "State not recoverable")               \
  /* Never seen by a guest program: how an interrupted call is to be restarted. */ \
  X(RestartSys, "ERESTARTSYS", 512, "Restart if the handler has SA_RESTART")       \
  X(RestartNoIntr, "ERESTARTNOINTR", 513, "Restart always")                        \
  X(RestartNoHand, "ERESTARTNOHAND", 514, "Restart if no handler ran")             \
  X(RestartBlock, "ERESTART_RESTARTBLOCK", 516, "Restart through restart_syscall")

enum class Errno : std::uint16_t {
#define X(id, name, number, text) id = number,
  COWBIRD_ERRNO_LIST(X)
#undef X
};

// "ENOENT"; "E?" for a number that has no name.
std::string_view errno_name(Errno error);
// The text of strerror(3), without the host's locale.
std::string_view errno_text(Errno error);
// Translates the host's errno after a failed host call. Numbers that the list does not have become
// Io.
Errno errno_from_host(int host_errno);

}  // namespace cowbird
