#include "debug/target/host_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/errno.hpp"

namespace cowbird::debug {

Result<std::unique_ptr<TargetFile>> HostFile::open(const std::string &path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return Err(errno_from_host(errno));
  return std::unique_ptr<TargetFile>(std::make_unique<HostFile>(std::move(fd)));
}

Result<std::size_t> HostFile::read_at(std::uint64_t offset, std::span<std::byte> out) {
  const ssize_t got = ::pread(fd_.get(), out.data(), out.size(), static_cast<off_t>(offset));
  if (got < 0) return Err(errno_from_host(errno));
  return static_cast<std::size_t>(got);
}

Result<FileStat> HostFile::stat() {
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) return Err(errno_from_host(errno));
  FileStat out;
  out.device = status.st_dev;
  out.inode = status.st_ino;
  out.size = static_cast<std::uint64_t>(status.st_size);
  out.block_size = static_cast<std::uint64_t>(status.st_blksize);
  out.blocks = static_cast<std::uint64_t>(status.st_blocks);
  out.mode = status.st_mode;
  out.links = static_cast<std::uint32_t>(status.st_nlink);
  out.uid = status.st_uid;
  out.gid = status.st_gid;
  out.atime = status.st_atime;
  out.mtime = status.st_mtime;
  out.ctime = status.st_ctime;
  return out;
}

}  // namespace cowbird::debug
