#include "image.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cowbird/plugin.hpp>
#include <cstring>

using cowbird::sdk::Error;

Image::Image(std::string path, const ImageOptions &options)
    : path_(std::move(path)), read_only_(options.read_only), sync_(options.sync) {
  open_file();
  try {
    struct stat status;
    if (fstat(fd_, &status) != 0) cowbird::sdk::throw_errno("The image " + path_);
    if (S_ISBLK(status.st_mode)) {
      device_ = true;
      examine_device();
    } else if (S_ISREG(status.st_mode)) {
      size_ = static_cast<std::uint64_t>(status.st_size);
      preferred_io_ = static_cast<std::uint32_t>(status.st_blksize);
      examine_file();
    } else {
      throw Error(
          S_ISDIR(status.st_mode) ? EISDIR : EINVAL,
          "The image " + path_ + " is " +
              (S_ISDIR(status.st_mode) ? "a directory" : "neither a file nor a block device") +
              ". Give an image file or a host block device.");
    }
    if (options.lock) lock();
    if (!read_only_) {
      can_punch_ = options.discard && probe(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
      can_zero_ = probe(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
    }
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

Image::~Image() {
  // Closing alone is not enough: a process that the program starts at this moment has a copy of the
  // descriptor until its execve, and whoever wants the image next would find it locked.
  if (locked_) {
    struct flock none {};
    none.l_type = F_UNLCK;
    none.l_whence = SEEK_SET;
    fcntl(fd_, F_OFD_SETLK, &none);
  }
  ::close(fd_);
}

void Image::open_file() {
  // O_NONBLOCK: a pipe in this place must not hang the program.
  const int access = (read_only_ ? O_RDONLY : O_RDWR) | (sync_ ? O_SYNC : 0);
  fd_ = ::open(path_.c_str(), access | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd_ >= 0) return;
  const int error = errno;
  const std::string reason = std::string(": ") + strerror(error) + ".";
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      throw Error(error,
                  "The image " + path_ +
                      " does not exist. Correct \"path\", or make the image (truncate -s 1G " +
                      path_ + ").");
    case EISDIR:
      throw Error(error, "The image " + path_ +
                             " is a directory. Give an image file or a host block device.");
    case EACCES:
    case EPERM:
    case EROFS:
      if (!read_only_ && access_for_reading()) {
        throw Error(error, "The image " + path_ + " cannot be opened for writing" + reason +
                               " Set readonly = true, or change its permissions.");
      }
      throw Error(error,
                  "The image " + path_ + " cannot be read" + reason + " Change its permissions.");
    default:
      throw Error(error, "The image " + path_ + " cannot be opened" + reason);
  }
}

bool Image::access_for_reading() const {
  const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd >= 0) ::close(fd);
  return fd >= 0;
}

void Image::examine_file() {
  if (size_ == 0) {
    throw Error(EINVAL,
                "The image " + path_ + " is empty. Give it a size (truncate -s 1G " + path_ + ").");
  }
  if (size_ % block_size_ != 0) {
    throw Error(EINVAL,
                "The image " + path_ + " has " + std::to_string(size_) +
                    " bytes, which is not a multiple of 512. It is not a raw image, or was cut; "
                    "truncate -s %512 " +
                    path_ + " fills the last block with zeroes.");
  }
}

void Image::examine_device() {
  int sector = 0;
  if (ioctl(fd_, BLKGETSIZE64, &size_) != 0 || ioctl(fd_, BLKSSZGET, &sector) != 0) {
    cowbird::sdk::throw_errno("The size of the host block device " + path_ + " cannot be read");
  }
  block_size_ = static_cast<std::uint32_t>(sector);
}

void Image::lock() {
  // Of the open file description: unlike the process's own locks these end with our descriptor
  // only.
  struct flock wanted {};
  wanted.l_type = read_only_ ? F_RDLCK : F_WRLCK;
  wanted.l_whence = SEEK_SET;
  if (fcntl(fd_, F_OFD_SETLK, &wanted) == 0) {
    locked_ = true;
    return;
  }
  if (errno == EAGAIN || errno == EACCES) {
    throw Error(EBUSY,
                "The image " + path_ +
                    " is in use by another guest or program, which has locked it. End that one, or "
                    "give each guest its own image; several may share one with readonly = true.");
  }
}

bool Image::probe(int mode) const {
  // Behind the end, where with KEEP_SIZE there is nothing to change.
  const off_t end = static_cast<off_t>(size_);
  return !device_ ? fallocate(fd_, mode, end, 4096) == 0 : true;
}
