// execve(2): finding the program, building its memory, and the point of no return.
#include <array>

#include "abi/prctl.hpp"
#include "abi/signal.hpp"
#include "base/log.hpp"
#include "proc/exec_image.hpp"
#include "proc/itimer.hpp"
#include "proc/proc_internal.hpp"
#include "proc/signal_internal.hpp"
#include "proc/trace.hpp"
#include "vfs/file.hpp"
#include "vfs/inode.hpp"

namespace cowbird {
namespace {

constexpr std::size_t kFirstBytes = 256;  // what is looked at for "#!"
constexpr int kMaxScripts = 5;
constexpr std::uint32_t kSetUid = 04000, kSetGid = 02000, kGroupExec = 010;
constexpr std::uint64_t kEflagsIf = 0x202;

bool is_blank(char c) { return c == ' ' || c == '\t'; }

// What "#!interpreter argument" says; NoExec when the name does not fit or is empty.
struct ScriptLine {
  std::string interpreter, argument;
};
Result<ScriptLine> parse_script(std::string_view text) {
  text.remove_prefix(2);
  const std::size_t newline = text.find('\n');
  const bool truncated = newline == text.npos && text.size() == kFirstBytes - 2;
  if (newline != text.npos) text = text.substr(0, newline);
  text = text.substr(0, text.find('\0'));
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  std::size_t end = 0;
  while (end < text.size() && !is_blank(text[end])) ++end;
  if (end == 0) return Err(Errno::NoExec);
  // A name that goes on beyond what was read would be cut.
  if (truncated && end == text.size()) return Err(Errno::NoExec);
  ScriptLine line;
  line.interpreter = std::string(text.substr(0, end));
  text.remove_prefix(end);
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  line.argument = std::string(text);
  return line;
}

Result<Ref<File>> open_program(const Task &task, const Path &path) {
  const Inode &inode = path.inode();
  if (inode.is_symlink()) return Err(Errno::Loop);
  if (!inode.is_regular()) return Err(Errno::Access);
  if ((mount_flags(path) & kMountNoExec) != 0) return Err(Errno::Access);
  TRY(check_permission(inode, 1, task.credentials));
  // The right to run is enough; the program may be unreadable for its user.
  return open_resolved(path, 0, Credentials::kernel());
}

Result<Ref<File>> open_by_name(Task &task, const Path &start, const std::string &name,
                               LookupFlag flags) {
  const WalkContext walk{*task.fs, task.credentials, start};
  const Path path = TRY(lookup(walk, name, flags));
  return open_program(task, path);
}

// The program that runs in the end, after all "#!" lines; argv is rewritten on the way.
struct Found {
  Ref<File> file;
  std::string name;  // AT_EXECFN: the last script's interpreter, or the program itself
};

Result<Found> find_program(Task &task, ExecRequest &request) {
  LookupFlag flags = request.no_follow ? LookupFlag::None : LookupFlag::Follow;
  if (request.empty_path) flags = flags | LookupFlag::EmptyPath;
  const Path start = request.directory ? request.directory : task.fs->cwd;
  Found found;
  found.name = request.name;
  found.file = TRY(open_by_name(task, start, request.name, flags));
  if (found.name.empty()) found.name = path_name(found.file->path, task.fs->root);
  for (int depth = 0;; ++depth) {
    std::array<std::byte, kFirstBytes> bytes;
    const std::size_t got = TRY(read_file_at(*found.file, 0, bytes));
    const std::string_view text(reinterpret_cast<const char *>(bytes.data()), got);
    if (!text.starts_with("#!")) return found;
    if (depth >= kMaxScripts) return Err(Errno::Loop);
    ScriptLine line = TRY(parse_script(text));
    std::vector<std::string> argv = {line.interpreter};
    if (!line.argument.empty()) argv.push_back(line.argument);
    argv.push_back(found.name);
    for (std::size_t i = 1; i < request.argv.size(); ++i) {
      argv.push_back(std::move(request.argv[i]));
    }
    request.argv = std::move(argv);
    found.file = TRY(open_by_name(task, task.fs->cwd, line.interpreter, LookupFlag::Follow));
    found.name = std::move(line.interpreter);
  }
}

bool shares_fs_outside(const Task &task) {
  bool shared = false;
  for_each_task([&](Task &other) {
    if (other.fs == task.fs && other.process != task.process) shared = true;
  });
  return shared;
}

// Credentials of the program: set-id bits and the capability rules of capabilities(7) for programs
// without file capabilities.
Credentials new_credentials(const Task &task, const File &file, bool &secure) {
  Credentials who = task.credentials;
  const std::uint32_t mode = file.inode->mode;
  const std::uint32_t old_euid = who.euid, old_egid = who.egid;
  const bool wants =
      (mode & kSetUid) != 0 || (mode & (kSetGid | kGroupExec)) == (kSetGid | kGroupExec);
  if (wants && !who.no_new_privs && (mount_flags(file.path) & kMountNoSuid) == 0 &&
      !shares_fs_outside(task)) {
    if ((mode & kSetUid) != 0) who.euid = file.inode->uid;
    if ((mode & (kSetGid | kGroupExec)) == (kSetGid | kGroupExec)) who.egid = file.inode->gid;
  }
  who.suid = who.fsuid = who.euid;
  who.sgid = who.fsgid = who.egid;
  const bool set_id = who.euid != old_euid || who.egid != old_egid;
  if (set_id) who.cap_ambient = 0;
  const bool root_rules = (who.securebits & abi::kSECBIT_NOROOT) == 0;
  if (root_rules && (who.euid == 0 || who.uid == 0)) {
    who.cap_permitted = who.cap_inheritable | who.cap_bounding;
    who.cap_effective = who.euid == 0 ? who.cap_permitted : 0;
  } else {
    who.cap_permitted = who.cap_effective = who.cap_ambient;
  }
  who.securebits &= ~abi::kSECBIT_KEEP_CAPS;
  secure = who.uid != who.euid || who.gid != who.egid;
  return who;
}

// All other threads of the process end; this one gets the process's number.
Result<void> become_only_thread(Task &task) {
  Process &process = *task.process;
  if (process.exec_task != nullptr || task.killed) return Err(Errno::RestartNoIntr);
  process.exec_task = &task;
  for (Task *other : process.tasks) {
    if (other == &task) continue;
    other->killed = true;
    wake_task_hard(*other);
  }
  const auto waited = wait_event(
      process.exec_wait, [&] { return process.tasks.size() == 1; }, SleepMode::Killable,
      "de_thread");
  process.exec_task = nullptr;
  if (!waited || task.killed) return Err(Errno::RestartNoIntr);
  if (task.tid != process.pid) rename_task(task, process.pid);
  return {};
}

void leave_old_memory(Task &task) {
  exit_robust_list(task);
  task.clear_child_tid = 0;
  task.context.reset();
  release_mm(task);
  end_vfork(*task.process);
}

std::string_view base_name(std::string_view name) {
  const std::size_t slash = name.rfind('/');
  return slash == name.npos ? name : name.substr(slash + 1);
}

void enter_program(Task &task, Image &image) {
  attach_mm(task, std::move(image.mm));
  task.context = std::move(image.context);
  abi::UserRegs &regs = task.regs();
  regs = abi::UserRegs{};
  regs.orig_rax = ~0ull;
  regs.rip = image.entry;
  regs.rsp = image.stack;
  regs.cs = abi::kUserCs;
  regs.ss = abi::kUserSs;
  regs.eflags = kEflagsIf;
}

// What execve(2) resets besides memory and credentials.
void reset_attributes(Task &task, bool set_id) {
  Process &process = *task.process;
  if (process.handlers->ref_count() > 1) process.handlers = process.handlers->clone();
  process.handlers->reset_for_exec();
  if (task.files->ref_count() > 1) task.files = task.files->clone();
  task.files->close_for_exec(task);
  task.alt_stack = Task::AltStack{};
  task.restart = nullptr;
  task.saved_mask.reset();
  task.fault_address = task.fault_vector = task.fault_error_code = 0;
  drop_posix_timers(process);
  process.has_execed = true;
  process.membarrier_registered = false;
  process.exit_signal = kSigChld;
  if (set_id) {
    task.parent_death_signal = 0;
    task.personality &= ~abi::kPER_CLEAR_ON_SETID;
  }
}

}  // namespace

Result<void> exec_task(Task &task, ExecRequest request) {
  if (request.argv.empty()) request.argv.emplace_back();
  const std::string comm(base_name(request.name));
  Found found = TRY(find_program(task, request));
  ImageRequest image_request;
  image_request.credentials = new_credentials(task, *found.file, image_request.secure);
  const std::string interpreter = TRY(interpreter_of(*found.file));
  if (!interpreter.empty()) {
    image_request.interpreter =
        TRY(open_by_name(task, task.fs->cwd, interpreter, LookupFlag::Follow));
  }
  image_request.file = found.file;
  image_request.argv = std::move(request.argv);
  image_request.envp = std::move(request.envp);
  image_request.name = found.name;
  image_request.randomise =
      layout_randomisation() &&
      ((task.personality & abi::kADDR_NO_RANDOMIZE) == 0 || image_request.secure);
  image_request.stack_limit = task.process->limit(Limit::Stack);
  TRY(deny_write(*found.file));
  auto image = load_image(image_request);
  Result<void> alone = image ? become_only_thread(task) : Result<void>(Err(image.error()));
  if (!alone) {
    if (image) {
      image->context.reset();
      image->mm->tear_down();
    }
    allow_write(*found.file);
    return alone;
  }
  // From here on nothing can fail.
  image->mm->exe = found.file;
  image->mm->limits.address_space = task.process->limit(Limit::AddressSpace);
  image->mm->limits.data = task.process->limit(Limit::Data);
  image->mm->limits.locked = task.process->limit(Limit::MemLock);
  const Credentials old = task.credentials;
  leave_old_memory(task);
  enter_program(task, *image);
  const bool set_id =
      old.euid != image_request.credentials.euid || old.egid != image_request.credentials.egid;
  task.credentials = image_request.credentials;
  task.process->dumpable = !image_request.secure;
  reset_attributes(task, set_id);
  task.set_comm(comm.empty() ? base_name(found.name) : std::string_view(comm));
  if (task.trace) trace::executed(task);
  return {};
}

}  // namespace cowbird
