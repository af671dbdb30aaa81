// Building a program's memory.
#include "proc/exec_image.hpp"

#include <cpuid.h>
#include <sys/auxv.h>

#include <array>

#include "abi/auxv.hpp"
#include "abi/resource.hpp"
#include "mm/user_access.hpp"
#include "proc/elf.hpp"
#include "proc/proc_internal.hpp"
#include "proc/signal_frame.hpp"
#include "vfs/file.hpp"

namespace cowbird {
namespace {

constexpr VirtAddr kPieBase = 0x5555'5555'4000;
constexpr std::uint64_t kPieRandomPages = 1ull << 22;
constexpr std::uint64_t kStackRandomPages = 1ull << 18;
constexpr std::uint64_t kBreakRandomPages = 1ull << 13;
// The stack is this much larger at first than what is on it.
constexpr std::uint64_t kStackReserve = 128 * kKiB;

std::uint64_t random_pages(bool randomise, std::uint64_t bound) {
  if (!randomise) return 0;
  std::uint64_t value;
  fill_random(std::as_writable_bytes(std::span(&value, 1)));
  return (value % bound) << kPageShift;
}

Prot protection(const elf::Segment &segment) {
  Prot prot = Prot::None;
  if (segment.read) prot = prot | Prot::Read;
  if (segment.write) prot = prot | Prot::Write;
  if (segment.execute) prot = prot | Prot::Exec;
  return prot;
}

Result<void> read_exactly(File &file, std::uint64_t offset, std::span<std::byte> bytes) {
  if (TRY(read_file_at(file, offset, bytes)) != bytes.size()) return Err(Errno::NoExec);
  return {};
}

Result<elf::Program> read_program(File &file) {
  std::array<std::byte, elf::kHeaderBytes> head;
  TRY(read_exactly(file, 0, head));
  const elf::Header header = TRY(elf::parse_header(head));
  std::vector<std::byte> table(header.table_bytes());
  TRY(read_exactly(file, header.table_offset, table));
  return elf::parse_program(header, table);
}

Result<void> map_anonymous(Mm &mm, VirtAddr start, VirtAddr end, Prot prot) {
  if (start >= end) return {};
  MmapRequest request;
  request.hint = start;
  request.length = end - start;
  request.prot = prot;
  request.fixed = true;
  TRY(mm.mmap(std::move(request)));
  return {};
}

Result<void> map_segment(Mm &mm, File &file, const elf::Segment &segment, std::uint64_t bias) {
  const VirtAddr start = segment.address + bias;
  const VirtAddr file_end = start + segment.file_size;
  const VirtAddr end = start + segment.memory_size;
  const Prot prot = protection(segment);
  if (segment.file_size == 0) return map_anonymous(mm, page_down(start), page_up(end), prot);
  MmapRequest request;
  request.hint = page_down(start);
  request.length = page_up(file_end) - page_down(start);
  request.prot = prot;
  request.fixed = true;
  request.offset = page_down(segment.file_offset);
  request.file = Ref<File>(&file);
  TRY(file.mmap(request));
  TRY(mm.mmap(std::move(request)));
  // The rest of the last file page is zero, to its end and not only to that of the segment: the
  // dynamic linker allocates its first memory there.
  const std::uint64_t rest = page_up(file_end) - file_end;
  if (segment.write && end > file_end && rest > 0) {
    const std::vector<std::byte> zeroes(rest);
    TRY(copy_out_mm(mm, file_end, zeroes.data(), zeroes.size()));
  }
  return map_anonymous(mm, page_up(file_end), page_up(end), prot);
}

Result<void> map_program(Mm &mm, File &file, const elf::Program &program, std::uint64_t bias) {
  for (const elf::Segment &segment : program.segments) {
    TRY(map_segment(mm, file, segment, bias));
  }
  return {};
}

// Where a position-independent program goes that has no place of its own: where mmap would put it.
Result<std::uint64_t> find_bias(Mm &mm, const elf::Program &program) {
  MmapRequest request;
  request.length = program.high - program.low + (program.alignment - kPageSize);
  const VirtAddr found = TRY(mm.mmap(request));
  TRY(mm.munmap(found, request.length));
  const VirtAddr start = (found + program.alignment - 1) & ~(program.alignment - 1);
  return start - program.low;
}

std::uint64_t choose_bias(const elf::Program &program, bool randomise) {
  if (!program.header.position_independent) return 0;
  const VirtAddr base = kPieBase + random_pages(randomise, kPieRandomPages);
  return (base & ~(program.alignment - 1)) - program.low;
}

void note_layout(Mm &mm, const elf::Program &program, std::uint64_t bias, bool randomise) {
  for (const elf::Segment &segment : program.segments) {
    const VirtAddr start = segment.address + bias;
    if (segment.execute) {
      if (mm.code_start == 0) mm.code_start = start;
      mm.code_end = start + segment.file_size;
    }
    if (segment.write) {
      if (mm.data_start == 0) mm.data_start = start;
      mm.data_end = start + segment.file_size;
    }
  }
  mm.brk_start = mm.brk_end = program.high + bias + random_pages(randomise, kBreakRandomPages);
}

Result<void> map_stack(Mm &mm, const StackImage &image, VirtAddr top, bool executable) {
  const std::uint64_t used = page_up(top - page_down(image.pointer));
  const std::uint64_t size = used + kStackReserve;
  MmapRequest request;
  request.hint = top - size;
  request.length = size;
  request.prot = Prot::Read | Prot::Write | (executable ? Prot::Exec : Prot::None);
  request.fixed = true;
  request.grows_down = true;
  request.kind = VmaKind::Stack;
  TRY(mm.mmap(std::move(request)));
  return copy_out_mm(mm, image.pointer, image.bytes.data(), image.bytes.size());
}

struct Loaded {
  elf::Program program;
  std::uint64_t bias = 0;
  std::uint64_t interpreter_base = 0;
  VirtAddr entry = 0;
};

std::vector<std::uint64_t> make_auxv(const ImageRequest &request, const Loaded &loaded) {
  const elf::Program &program = loaded.program;
  const Credentials &who = request.credentials;
  unsigned eax, ebx, ecx, features = 0;
  __get_cpuid(1, &eax, &ebx, &ecx, &features);
  const std::uint64_t table = program.table_address == 0 ? 0 : program.table_address + loaded.bias;
  return {abi::kAT_MINSIGSTKSZ, minimal_signal_stack(guest_platform().xstate_size()),
          abi::kAT_HWCAP,       features,
          abi::kAT_PAGESZ,      kPageSize,
          abi::kAT_CLKTCK,      abi::kUSER_HZ,
          abi::kAT_PHDR,        table,
          abi::kAT_PHENT,       56,
          abi::kAT_PHNUM,       program.header.count,
          abi::kAT_BASE,        loaded.interpreter_base,
          abi::kAT_FLAGS,       0,
          abi::kAT_ENTRY,       program.header.entry + loaded.bias,
          abi::kAT_UID,         who.uid,
          abi::kAT_EUID,        who.euid,
          abi::kAT_GID,         who.gid,
          abi::kAT_EGID,        who.egid,
          abi::kAT_SECURE,      request.secure ? 1u : 0u,
          abi::kAT_HWCAP2,      getauxval(AT_HWCAP2)};
}

Result<Loaded> load_programs(Mm &mm, const ImageRequest &request) {
  Loaded loaded;
  loaded.program = TRY(read_program(*request.file));
  const bool alone = !request.interpreter && loaded.program.header.position_independent;
  // A dynamic linker that is started by itself goes where mmap puts it, and leaves the usual place
  // of programs to the one that it will load.
  loaded.bias =
      alone ? TRY(find_bias(mm, loaded.program)) : choose_bias(loaded.program, request.randomise);
  TRY(map_program(mm, *request.file, loaded.program, loaded.bias));
  note_layout(mm, loaded.program, loaded.bias, request.randomise);
  if (alone) {
    mm.brk_start = mm.brk_end = kPieBase + random_pages(request.randomise, kPieRandomPages);
  }
  loaded.entry = loaded.program.header.entry + loaded.bias;
  if (!request.interpreter) return loaded;
  const elf::Program interpreter = TRY(read_program(*request.interpreter));
  std::uint64_t bias = 0;
  if (interpreter.header.position_independent) bias = TRY(find_bias(mm, interpreter));
  TRY(map_program(mm, *request.interpreter, interpreter, bias));
  loaded.interpreter_base = bias;
  loaded.entry = interpreter.header.entry + bias;
  return loaded;
}

Result<void> fill_image(const ImageRequest &request, Image &image) {
  Mm &mm = *image.mm;
  mm.limits.stack = request.stack_limit;
  const VirtAddr top = kUserMax - kPageSize - random_pages(request.randomise, kStackRandomPages);
  mm.stack_top = top;
  const Loaded loaded = TRY(load_programs(mm, request));
  image.entry = loaded.entry;
  std::array<std::byte, 16> random;
  fill_random(random);
  const std::vector<std::uint64_t> auxv = make_auxv(request, loaded);
  StackImage stack = build_stack({request.argv, request.envp, request.name, auxv, random, top});
  TRY(map_stack(mm, stack, top, loaded.program.executable_stack));
  image.stack = stack.pointer;
  mm.arg_start = stack.arg_start;
  mm.arg_end = stack.arg_end;
  mm.env_start = stack.env_start;
  mm.env_end = stack.env_end;
  mm.auxv = std::move(stack.auxv);
  image.context = TRY(guest_platform().new_context(mm.host()));
  return {};
}

}  // namespace

Result<std::size_t> read_file_at(File &file, std::uint64_t offset, std::span<std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    IovIter to = IovIter::kernel(bytes.subspan(done));
    std::uint64_t at = offset + done;
    const std::uint64_t got = TRY(file.read(to, at));
    if (got == 0) break;
    done += got;
  }
  return done;
}

Result<std::string> interpreter_of(File &file) {
  const elf::Program program = TRY(read_program(file));
  if (program.interpreter_size == 0) return std::string();
  std::vector<std::byte> bytes(program.interpreter_size);
  TRY(read_exactly(file, program.interpreter_offset, bytes));
  return std::string(TRY(elf::parse_interpreter(bytes)));
}

Result<Image> load_image(const ImageRequest &request) {
  Image image;
  image.mm = TRY(Mm::create(guest_platform()));
  if (auto filled = fill_image(request, image); !filled) {
    image.context.reset();
    image.mm->tear_down();
    return Err(filled.error());
  }
  return image;
}

}  // namespace cowbird
