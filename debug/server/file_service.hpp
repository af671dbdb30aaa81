// FileService: the files that gdb reads through vFile packets (GDB manual, "Host I/O Packets"), in
// the view of the process that vFile:setfs named. Nothing can be written. Used by the session.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "debug/target/target.hpp"

namespace cowbird::debug {

class FileService {
 public:
  FileService(Target &target, std::size_t max_data) : target_(target), max_data_(max_data) {}

  // Answers one request, named by what follows "vFile:" ("open:2f,0,0"). Empty: an unknown one.
  std::string handle(std::string_view request);

 private:
  static constexpr std::size_t kMaxOpen = 64;
  // gdb asks for 256 KiB ahead wherever it looks, also for the 12 bytes that say whether a section
  // is compressed. So it gets little at first, and more while it reads on.
  static constexpr std::size_t kFirstWindow = 4096, kWindowGrowth = 8;
  struct OpenFile {
    std::unique_ptr<TargetFile> file;
    std::uint64_t next = 0;  // where the last read ended
    std::size_t window = kFirstWindow;
  };
  std::string open(std::string_view arguments);
  std::string close(std::string_view arguments);
  std::string pread(std::string_view arguments);
  Result<std::string> read_window(OpenFile &open, std::uint64_t offset, std::uint64_t wanted);
  std::string fstat(std::string_view arguments);
  std::string stat(std::string_view arguments);
  std::string readlink(std::string_view arguments);
  std::string setfs(std::string_view arguments);

  Target &target_;
  std::size_t max_data_;
  std::int64_t pid_ = 0;  // 0: the host's files
  std::map<std::uint64_t, OpenFile> files_;
  std::uint64_t next_ = 3;
};

}  // namespace cowbird::debug
