// Documents (qXfer), files and monitor commands; session.hpp.
#include <fmt/format.h>

#include <algorithm>

#include "debug/rsp/hex.hpp"
#include "debug/server/session.hpp"

namespace cowbird::debug {

namespace {

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

}  // namespace

// qXfer:OBJECT:read:ANNEX:OFFSET,LENGTH or qXfer:siginfo:write::OFFSET:DATA
void Session::transfer(const Arguments &arguments) {
  const auto &object = arguments.text(0);
  const auto &annex = arguments.text(2);
  if (arguments.text(1) == "write") {
    if (object == "siginfo" && annex.empty()) return write_siginfo(arguments.text(3));
    return reply("");
  }
  const auto range = Arguments::parse("n,n", arguments.text(3));
  if (arguments.text(1) != "read" || !range) return reply_error(Errno::Inval);
  const auto offset = range->number(0);
  const auto thread = general_thread().value_or(current_);
  const auto key = fmt::format("{}:{}:{}", object, annex, thread_id_text(thread, true));
  if (offset == 0 || key != document_key_) {
    auto made = document(object, annex);
    if (!made) {
      document_key_.clear();
      return made.is(Errno::NoSys) ? reply("") : reply_error(made.error());
    }
    document_ = std::move(*made);
    document_key_ = key;
  }
  if (offset >= document_.size()) return reply("l");
  const auto length = std::min<std::uint64_t>(range->number(1), kMaxData);
  const auto part = std::string_view(document_).substr(offset, length);
  const bool last = offset + part.size() == document_.size();
  reply((last ? "l" : "m") + std::string(part));
}

// NoSys: no such object.
Result<std::string> Session::document(const std::string &object, const std::string &annex) {
  if (object == "features") {
    if (annex != "target.xml") return Err(Errno::NoEnt);
    return layout_->target_xml();
  }
  if (object == "threads") {
    if (non_stop_) changed();
    return threads_document(threads(), style_.multiprocess);
  }
  if (object == "osdata") {
    if (annex.empty()) return os_tables_document(target_.os_tables());
    return os_table_document(TRY(target_.os_table(annex)));
  }
  if (object == "exec-file") {
    if (annex.empty()) return target_.executable(general_pid());
    const auto pid = hex_number(annex);
    if (!pid || *pid > INT32_MAX) return Err(Errno::Inval);
    return target_.executable(static_cast<std::int64_t>(*pid));
  }
  if (object == "libraries-svr4") return libraries_document(TRY(target_.libraries(general_pid())));
  if (object == "auxv") return text_of(TRY(target_.auxv(general_pid())));
  if (object == "siginfo") {
    const auto thread = general_thread();
    if (!thread) return Err(Errno::Srch);
    return text_of(TRY(target_.siginfo(*thread)));
  }
  return Err(Errno::NoSys);
}

// OFFSET:DATA. gdb writes the whole structure, in parts where it must.
void Session::write_siginfo(std::string_view rest) {
  const auto arguments = Arguments::parse("n:b", rest);
  const auto thread = general_thread();
  if (!arguments || !thread) return reply_error(Errno::Inval);
  auto now = target_.siginfo(*thread);
  if (!now) return reply_error(now.error());
  const auto data = bytes_of(arguments->text(1));
  const auto offset = arguments->number(0);
  if (offset > now->size() || data.size() > now->size() - offset) return reply_error(Errno::Inval);
  std::copy(data.begin(), data.end(), now->begin() + static_cast<std::ptrdiff_t>(offset));
  const auto done = target_.set_siginfo(*thread, *now);
  document_key_.clear();
  if (done)
    reply(fmt::format("{:x}", data.size()));
  else
    reply_error(done.error());
}

void Session::files(const Arguments &arguments) { reply(files_.handle(arguments.text(0))); }

// qRcmd: what the command prints goes out as it comes.
void Session::monitor(const Arguments &arguments) {
  const auto &command = arguments.text(0);
  const bool known = target_.monitor(command, general_thread().value_or(current_),
                                     [this](std::string_view text) { return console(text); });
  if (!known)
    console(
        fmt::format("There is no monitor command \"{}\"; \"monitor help\" lists them.\n", command));
  changed();  // it may have changed what threads say
  reply_ok();
}

// gdb offers to look up symbols, for stubs that cannot. This one reads the program's own tables.
void Session::symbols(const Arguments &) { reply_ok(); }

}  // namespace cowbird::debug
