#include "debug/monitor/unwinder.hpp"

#include <cxxabi.h>
#include <elfutils/libdwfl.h>
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>

namespace cowbird::debug {
namespace {

// The one thread that libdw knows; which one it is is told by the registers that it gets.
constexpr pid_t kThread = 1;

// Only what is in the file itself: looking elsewhere may ask servers on the network.
int find_no_debuginfo(Dwfl_Module *, void **, const char *, Dwarf_Addr, const char *, const char *,
                      GElf_Word, char **) {
  return -1;
}
int find_no_elf(Dwfl_Module *, void **, const char *, Dwarf_Addr, char **, Elf **) { return -1; }

const Dwfl_Callbacks kFileCallbacks = {find_no_elf, find_no_debuginfo, dwfl_offline_section_address,
                                       nullptr};

// The numbers of the x86-64 ABI for DWARF (System V ABI, figure 3.36).
constexpr Reg kDwarfRegisters[] = {Reg::Rax, Reg::Rdx, Reg::Rcx, Reg::Rbx, Reg::Rsi, Reg::Rdi,
                                   Reg::Rbp, Reg::Rsp, Reg::R8,  Reg::R9,  Reg::R10, Reg::R11,
                                   Reg::R12, Reg::R13, Reg::R14, Reg::R15, Reg::Rip};

std::string last_component(const char *path) {
  const char *slash = std::strrchr(path, '/');
  return slash ? slash + 1 : path;
}

}  // namespace

struct Unwinder::Impl {
  MemoryReader &memory;
  Dwfl *dwfl = nullptr;
  bool attached = false;
  const Registers *registers = nullptr;
  Unwinder *owner = nullptr;
  std::vector<StackFrame> frames;

  explicit Impl(MemoryReader &m) : memory(m) {}
  ~Impl() {
    if (dwfl) ::dwfl_end(dwfl);
  }

  static pid_t next_thread(Dwfl *, void *argument, void **place) {
    if (*place) return 0;
    *place = argument;
    return kThread;
  }
  static bool get_thread(Dwfl *, pid_t, void *argument, void **place) {
    *place = argument;
    return true;
  }
  static bool read_word(Dwfl *, Dwarf_Addr address, Dwarf_Word *result, void *argument) {
    std::uint64_t word = 0;
    const auto out = std::as_writable_bytes(std::span(&word, 1));
    if (!static_cast<Impl *>(argument)->memory.read(address, out)) return false;
    *result = word;
    return true;
  }
  static bool first_registers(Dwfl_Thread *thread, void *argument) {
    const Registers &known = *static_cast<Impl *>(argument)->registers;
    for (int number = 0; number < static_cast<int>(std::size(kDwarfRegisters)); ++number) {
      const Reg reg = kDwarfRegisters[number];
      if (!known.has(reg)) continue;
      const Dwarf_Word value = known.get(reg);
      if (!::dwfl_thread_state_registers(thread, number, 1, &value)) return false;
    }
    ::dwfl_thread_state_register_pc(thread, known.get(Reg::Rip));
    return true;
  }
  static int on_frame(Dwfl_Frame *frame, void *argument) {
    Impl &self = *static_cast<Impl *>(argument);
    Dwarf_Addr pc = 0;
    bool activation = false;
    if (!::dwfl_frame_pc(frame, &pc, &activation) || pc == 0) return DWARF_CB_ABORT;
    if (self.frames.size() == kMaxFrames) return DWARF_CB_ABORT;
    self.frames.push_back(self.owner->symbolise(pc, !activation && !self.frames.empty()));
    return DWARF_CB_OK;
  }
};

Unwinder::Unwinder(MemoryReader &memory, const std::vector<Module> &modules)
    : impl_(std::make_unique<Impl>(memory)) {
  static const Dwfl_Thread_Callbacks callbacks = {Impl::next_thread, Impl::get_thread,
                                                  Impl::read_word,   Impl::first_registers,
                                                  nullptr,           nullptr};
  Impl &impl = *impl_;
  impl.owner = this;
  impl.dwfl = ::dwfl_begin(&kFileCallbacks);
  if (!impl.dwfl) return;
  ::dwfl_report_begin(impl.dwfl);
  for (const Module &module : modules) {
    ::dwfl_report_elf(impl.dwfl, module.path.c_str(), module.path.c_str(), -1, module.base, false);
  }
  ::dwfl_report_end(impl.dwfl, nullptr, nullptr);
  impl.attached = ::dwfl_attach_state(impl.dwfl, nullptr, kThread, &callbacks, &impl);
}

Unwinder::~Unwinder() = default;

std::vector<StackFrame> Unwinder::unwind(const Registers &registers, bool &complete) {
  Impl &impl = *impl_;
  complete = false;
  impl.frames.clear();
  impl.registers = &registers;
  if (impl.attached) {
    complete = ::dwfl_getthread_frames(impl.dwfl, kThread, Impl::on_frame, &impl) == 0;
  }
  if (impl.frames.empty()) impl.frames.push_back(symbolise(registers.get(Reg::Rip), false));
  return std::move(impl.frames);
}

StackFrame Unwinder::symbolise(std::uint64_t pc, bool is_return) {
  StackFrame frame;
  frame.pc = pc;
  const std::uint64_t lookup = is_return && pc != 0 ? pc - 1 : pc;
  Dwfl_Module *const module = impl_->dwfl ? ::dwfl_addrmodule(impl_->dwfl, lookup) : nullptr;
  if (!module) return frame;
  if (const char *path = ::dwfl_module_info(module, nullptr, nullptr, nullptr, nullptr, nullptr,
                                            nullptr, nullptr)) {
    frame.object = last_component(path);
  }
  GElf_Off offset = 0;
  GElf_Sym symbol;
  if (const char *name =
          ::dwfl_module_addrinfo(module, lookup, &offset, &symbol, nullptr, nullptr, nullptr)) {
    int status = 0;
    const std::unique_ptr<char, decltype(&std::free)> readable(
        abi::__cxa_demangle(name, nullptr, nullptr, &status), &std::free);
    frame.function = readable ? readable.get() : name;
    frame.offset = offset + (pc - lookup);
  }
  if (Dwfl_Line *line = ::dwfl_module_getsrc(module, lookup)) {
    int number = 0;
    if (const char *file = ::dwfl_lineinfo(line, nullptr, &number, nullptr, nullptr, nullptr)) {
      frame.file = file;
      frame.line = number;
    }
  }
  return frame;
}

std::string format_frame(std::size_t index, const StackFrame &frame) {
  std::string text = fmt::format("#{:<2} {:#018x} ", index, frame.pc);
  if (frame.function.empty()) {
    text += "??";
  } else {
    text += frame.function;
    if (frame.file.empty()) text += fmt::format("+{:#x}", frame.offset);
  }
  if (!frame.file.empty()) {
    text += fmt::format(" at {}:{}", frame.file, frame.line);
  } else if (!frame.object.empty()) {
    text += fmt::format(" from {}", frame.object);
  }
  return text;
}

}  // namespace cowbird::debug
