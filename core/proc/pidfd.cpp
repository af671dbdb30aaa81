// pidfds: descriptors of processes (pidfd_open(2)).
#include "proc/proc_internal.hpp"
#include "vfs/file.hpp"

namespace cowbird {
namespace {

constexpr std::uint32_t kPollIn = 1;

class PidFile final : public File {
 public:
  PidFile(Ref<Process> process, std::uint32_t flags) : File(flags), process_(std::move(process)) {}

  const Ref<Process> &process() const { return process_; }
  std::uint32_t poll(PollTable *table) override {
    if (table != nullptr) table->wait(process_->exit_wait);
    return process_->zombie ? kPollIn : 0;
  }
  bool can_read() const override { return false; }
  bool can_write() const override { return false; }
  std::string describe() const override { return "anon_inode:[pidfd]"; }

 private:
  Ref<Process> process_;
};

}  // namespace

Ref<File> make_pidfd(Ref<Process> process, std::uint32_t flags) {
  return make_ref<PidFile>(std::move(process), flags);
}

Ref<Process> process_of_pidfd(File &file) {
  auto *pid_file = dynamic_cast<PidFile *>(&file);
  return pid_file != nullptr ? pid_file->process() : Ref<Process>();
}

Ref<Process> process_of_pidfd_or_directory(File &file) {
  if (Ref<Process> process = process_of_pidfd(file)) return process;
  auto *directory = dynamic_cast<ProcessInode *>(file.inode.get());
  return directory != nullptr ? directory->process_of_inode() : Ref<Process>();
}

}  // namespace cowbird
