// HostFile: a file of the host behind vFile packets. Used by the targets whose files are the
// host's: the kernel's, a core's, and the fake one of the tests.
#pragma once

#include <memory>
#include <string>

#include "base/unique_fd.hpp"
#include "debug/target/target.hpp"

namespace cowbird::debug {

class HostFile final : public TargetFile {
 public:
  // Opens for reading; a FIFO or device does not block the open. Errors: those of open(2).
  static Result<std::unique_ptr<TargetFile>> open(const std::string &path);

  explicit HostFile(UniqueFd fd) : fd_(std::move(fd)) {}
  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) override;
  Result<FileStat> stat() override;

 private:
  UniqueFd fd_;
};

}  // namespace cowbird::debug
