// The image file or host block device behind a `file` backend: opening it with errors that say what
// to do, and what it can do.
#pragma once

#include <cstdint>
#include <string>

struct ImageOptions {
  bool read_only = false;
  bool sync = false;    // every write is durable when it is done (O_SYNC)
  bool lock = true;     // for writing: exclusive; for reading: shared
  bool discard = true;  // holes may be punched
};

class Image {
 public:
  // Throws cowbird::sdk::Error. The lock sees to it that two guests do not write to one image.
  Image(std::string path, const ImageOptions &options);
  ~Image();
  Image(const Image &) = delete;
  Image &operator=(const Image &) = delete;

  int fd() const { return fd_; }
  const std::string &path() const { return path_; }
  bool read_only() const { return read_only_; }
  bool is_device() const { return device_; }
  std::uint64_t size() const { return size_; }
  std::uint32_t block_size() const { return block_size_; }
  std::uint32_t preferred_io() const { return preferred_io_; }
  // Holes can be punched, which then read as zeroes.
  bool can_punch() const { return can_punch_; }
  // Ranges can be zeroed and stay allocated.
  bool can_zero() const { return can_zero_; }
  // False where the host's file system has no locks, or none was wanted.
  bool locked() const { return locked_; }

 private:
  void open_file();
  bool access_for_reading() const;
  void examine_file();
  void examine_device();
  void lock();
  bool probe(int mode) const;

  std::string path_;
  bool read_only_;
  bool sync_;
  int fd_ = -1;
  bool device_ = false;
  std::uint64_t size_ = 0;
  std::uint32_t block_size_ = 512;
  std::uint32_t preferred_io_ = 4096;
  bool can_punch_ = false;
  bool can_zero_ = false;
  bool locked_ = false;
};
