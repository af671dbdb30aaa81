// Threads, registers and memory; session.hpp.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "debug/rsp/hex.hpp"
#include "debug/server/session.hpp"
#include "debug/server/session_commands.hpp"

namespace cowbird::debug {

namespace {

std::span<std::byte> writable(std::string &data) {
  return std::as_writable_bytes(std::span(data.data(), data.size()));
}

}  // namespace

// The thread that gdb means by `id`: "any" and "all" are the current one where it fits.
std::optional<ThreadId> Session::resolve(ThreadId id) {
  if (current_.pid == 0) current_ = target_.current_thread();
  const bool any_process = id.pid == 0 || id.pid == kAll;
  const bool any_thread = id.tid == 0 || id.tid == kAll;
  if (!any_process && !any_thread) return id;
  if (any_thread && (any_process || current_.pid == id.pid)) return current_;
  for (const auto &thread : threads())
    if ((any_process || thread.id.pid == id.pid) && (any_thread || thread.id.tid == id.tid))
      return thread.id;
  return std::nullopt;
}

std::int64_t Session::general_pid() {
  const auto thread = general_thread();
  return thread ? thread->pid : current_.pid;
}

const std::vector<ThreadInfo> &Session::threads() {
  if (threads_) return *threads_;
  threads_ = target_.threads();
  if (kernel_hidden_)
    std::erase_if(*threads_, [](const ThreadInfo &thread) { return thread.id.pid == kKernelPid; });
  return *threads_;
}

Result<Registers *> Session::registers(ThreadId id) {
  const auto found = registers_.find(id);
  if (found != registers_.end() && !non_stop_) return &found->second;
  auto read = TRY(target_.read_registers(id));
  return &registers_.insert_or_assign(id, std::move(read)).first->second;
}

// Hg and Hc.
void Session::set_thread(const Arguments &arguments) {
  const auto id = arguments.thread(0);
  if (command_->name == "Hc") {
    continue_ = id;
    return reply_ok();
  }
  const auto thread = resolve(id);
  if (!thread || !target_.is_alive(*thread)) return reply_error(Errno::Srch);
  general_ = id.tid == 0 || id.tid == kAll ? id : *thread;
  reply_ok();
}

void Session::thread_alive(const Arguments &arguments) {
  const auto thread = resolve(arguments.thread(0));
  if (thread && target_.is_alive(*thread))
    reply_ok();
  else
    reply_error(Errno::Srch);
}

void Session::q_current(const Arguments &) {
  const auto thread = general_thread();
  reply("QC" + thread_id_text(thread.value_or(current_), style_.multiprocess));
}

void Session::first_threads(const Arguments &) {
  if (non_stop_) changed();
  listed_ = 0;
  q_thread_list();
}

void Session::more_threads(const Arguments &) { q_thread_list(); }

void Session::q_thread_list() {
  const auto &list = threads();
  if (listed_ >= list.size()) return reply("l");
  std::string out;
  for (; listed_ < list.size() && out.size() < kMaxData; ++listed_) {
    out += out.empty() ? 'm' : ',';
    out += thread_id_text(list[listed_].id, style_.multiprocess);
  }
  reply(out);
}

void Session::thread_extra(const Arguments &arguments) {
  const auto thread = resolve(arguments.thread(0));
  for (const auto &info : threads()) {
    if (!thread || info.id != *thread) continue;
    const bool both = !info.name.empty() && !info.detail.empty();
    return reply(text_to_hex(info.name + (both ? ", " : "") + info.detail));
  }
  reply_error(Errno::Srch);
}

void Session::read_all(const Arguments &) {
  const auto thread = general_thread();
  if (!thread) return reply_error(Errno::Srch);
  const auto values = registers(*thread);
  if (!values) return reply_error(values.error());
  reply(layout_->pack(**values));
}

void Session::read_one(const Arguments &arguments) {
  const auto thread = general_thread();
  if (!thread) return reply_error(Errno::Srch);
  const auto values = registers(*thread);
  if (!values) return reply_error(values.error());
  std::string out;
  const auto number =
      static_cast<unsigned>(std::min<std::uint64_t>(arguments.number(0), UINT32_MAX));
  const auto done = layout_->append(out, number, **values);
  if (done)
    reply(out);
  else
    reply_error(done.error());
}

// gdb sends all registers back when one was set: only what differs is written, because a sleeping
// kernel thread has places for few.
void Session::write_all(const Arguments &arguments) {
  const auto thread = general_thread();
  if (!thread) return reply_error(Errno::Srch);
  const auto now = registers(*thread);
  if (!now) return reply_error(now.error());
  Registers change;
  change.xstate = (*now)->xstate;
  const auto parsed = layout_->unpack(change, arguments.text(0));
  if (!parsed) return reply_error(parsed.error());
  for (unsigned i = 0; i < kRegCount; ++i) {
    const auto reg = static_cast<Reg>(i);
    if (!(*now)->has(reg) || (*now)->get(reg) == change.get(reg)) change.known &= ~(1u << i);
  }
  if (change.xstate == (*now)->xstate) change.xstate.clear();
  const auto done = target_.write_registers(*thread, change);
  registers_.erase(*thread);
  reply_written(done);
}

void Session::write_one(const Arguments &arguments) {
  const auto thread = general_thread();
  if (!thread || arguments.number(0) >= layout_->count()) return reply_error(Errno::Srch);
  const auto number = static_cast<unsigned>(arguments.number(0));
  Registers change;
  auto parsed = layout_->set(change, number, arguments.text(1));
  if (parsed.is(Errno::OpNotSupp)) {  // it lies in the extended state, which is written whole
    const auto now = registers(*thread);
    if (!now) return reply_error(now.error());
    change.xstate = (*now)->xstate;
    parsed = layout_->set(change, number, arguments.text(1));
  }
  if (!parsed && keeps_value(*thread, number, arguments.text(1))) return reply_ok();
  if (parsed.is(Errno::OpNotSupp)) return reply("E.This register cannot be set here.");
  if (!parsed) return reply_error(parsed.error());
  const auto done = target_.write_registers(*thread, change);
  registers_.erase(*thread);
  reply_written(done);
}

// Whether the register has this value already: gdb sets all of them back after it has called a
// function, those that cannot be set too.
bool Session::keeps_value(ThreadId thread, unsigned number, std::string_view hex) {
  const auto now = registers(thread);
  std::string value;
  return now && layout_->append(value, number, **now) && value == hex;
}

// Up to `most` bytes; fewer where the memory ends.
Result<std::string> Session::memory(const Arguments &arguments, std::size_t most) {
  std::string data(std::min<std::uint64_t>(arguments.number(1), most), '\0');
  if (data.empty()) return data;
  const auto done = TRY(target_.read_memory(general_pid(), arguments.number(0), writable(data)));
  data.resize(std::min(done, data.size()));
  return data;
}

void Session::read_memory(const Arguments &arguments) {
  const auto data = memory(arguments, kMaxData);
  if (data)
    reply(text_to_hex(*data));
  else
    reply_error(data.error());
}

void Session::read_memory_binary(const Arguments &arguments) {
  const auto data = memory(arguments, kMaxData);
  if (data)
    reply("b" + *data);
  else
    reply_error(data.error());
}

void Session::store(std::uint64_t address, std::uint64_t length, std::string_view data) {
  if (data.size() != length) return reply_error(Errno::Inval);
  if (data.empty()) return reply_ok();  // gdb tries whether X works
  const auto done = target_.write_memory(general_pid(), address, bytes_of(data));
  changed();  // what threads say of themselves may lie there
  if (!done) return reply_error(done.error());
  if (*done < data.size()) return reply_error(Errno::Fault);
  reply_ok();
}

void Session::write_memory(const Arguments &arguments) {
  store(arguments.number(0), arguments.number(1), arguments.text(2));
}

void Session::write_memory_binary(const Arguments &arguments) {
  store(arguments.number(0), arguments.number(1), arguments.text(2));
}

// qSearch:memory:address;length;pattern. Chunks overlap by the pattern.
void Session::search(const Arguments &arguments) {
  constexpr std::size_t kChunk = 1 << 20;
  const auto &pattern = arguments.text(2);
  if (pattern.empty()) return reply_error(Errno::Inval);
  auto address = arguments.number(0);
  auto left = std::min(arguments.number(1), ~address);
  std::string chunk;
  while (left >= pattern.size()) {
    chunk.resize(std::min<std::uint64_t>(left, kChunk + pattern.size() - 1));
    const auto done = target_.read_memory(general_pid(), address, writable(chunk));
    if (!done) return reply_error(done.error());
    const bool cut = *done < chunk.size();
    chunk.resize(*done);
    const auto at = chunk.find(pattern);
    if (at != std::string::npos) return reply(fmt::format("1,{:x}", address + at));
    if (cut) return reply_error(Errno::Fault);
    if (left <= kChunk) break;
    address += kChunk;
    left -= kChunk;
  }
  reply("0");
}

// qCRC:address,length, for compare-sections: the CRC-32 of gdb, most significant bit first.
void Session::crc(const Arguments &arguments) {
  constexpr std::uint32_t kPolynomial = 0x04c11db7;
  constexpr std::size_t kChunk = 1 << 20;
  std::uint32_t sum = 0xffffffff;
  auto address = arguments.number(0);
  auto left = arguments.number(1);
  std::string chunk;
  while (left > 0) {
    chunk.resize(std::min<std::uint64_t>(left, kChunk));
    const auto done = target_.read_memory(general_pid(), address, writable(chunk));
    if (!done) return reply_error(done.error());
    if (*done < chunk.size()) return reply_error(Errno::Fault);
    for (const char c : chunk) {
      sum ^= static_cast<std::uint32_t>(static_cast<unsigned char>(c)) << 24;
      for (int bit = 0; bit < 8; ++bit) sum = sum >> 31 ? (sum << 1) ^ kPolynomial : sum << 1;
    }
    address += chunk.size();
    left -= chunk.size();
  }
  reply(fmt::format("C{:x}", sum));
}

void Session::tls_address(const Arguments &arguments) {
  const auto thread = resolve(arguments.thread(0));
  if (!thread) return reply_error(Errno::Srch);
  const auto address = target_.tls_address(*thread, arguments.number(1), arguments.number(2));
  if (address)
    reply(fmt::format("{:x}", *address));
  else
    reply_error(address.error());
}

}  // namespace cowbird::debug
