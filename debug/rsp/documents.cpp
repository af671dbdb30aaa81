#include "debug/rsp/documents.hpp"

#include <fmt/format.h>

#include <csignal>

#include "debug/rsp/hex.hpp"
#include "debug/rsp/requests.hpp"
#include "debug/rsp/signals.hpp"

namespace cowbird::debug {

namespace {

constexpr std::string_view kXmlHead = "<?xml version=\"1.0\"?>\n";

std::string os_item(const std::vector<std::pair<std::string, std::string>> &columns) {
  std::string out = "<item>";
  for (const auto &[name, value] : columns)
    out += fmt::format("<column name=\"{}\">{}</column>", xml_escape(name), xml_escape(value));
  return out + "</item>\n";
}

std::string os_document(std::string_view type, const std::string &items) {
  return fmt::format(
      "{}<!DOCTYPE target SYSTEM \"osdata.dtd\">\n<osdata type=\"{}\">\n{}</osdata>\n", kXmlHead,
      xml_escape(type), items);
}

// What stands before the thread: why it stopped.
std::string reason_text(const StopEvent &event, const StopStyle &style) {
  switch (event.reason) {
    case StopReason::SoftBreakpoint:
      return style.swbreak ? "swbreak:;" : "";
    case StopReason::HardBreakpoint:
      return style.hwbreak ? "hwbreak:;" : "";
    case StopReason::Watch:
      return fmt::format("watch:{:x};", event.address);
    case StopReason::ReadWatch:
      return fmt::format("rwatch:{:x};", event.address);
    case StopReason::AccessWatch:
      return fmt::format("awatch:{:x};", event.address);
    case StopReason::SyscallEntry:
      return fmt::format("syscall_entry:{:x};", event.number);
    case StopReason::SyscallReturn:
      return fmt::format("syscall_return:{:x};", event.number);
    case StopReason::Fork:
      return style.fork ? fmt::format("fork:{};", thread_id_text(event.child, style.multiprocess))
                        : "";
    case StopReason::Vfork:
      return style.vfork ? fmt::format("vfork:{};", thread_id_text(event.child, style.multiprocess))
                         : "";
    case StopReason::VforkDone:
      return style.vfork ? "vforkdone:;" : "";
    case StopReason::Exec:
      return style.exec ? fmt::format("exec:{};", text_to_hex(event.path)) : "";
    case StopReason::ThreadCreated:
      return "create:;";
    case StopReason::LibrariesChanged:
      return "library:;";
    default:
      return "";
  }
}

int signal_of(const StopEvent &event) {
  switch (event.reason) {
    case StopReason::Signal:
    case StopReason::Interrupted:
      return event.signal;
    default:
      return SIGTRAP;
  }
}

}  // namespace

std::string xml_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&apos;";
        break;
      default:
        out += static_cast<unsigned char>(c) >= ' ' || c == '\n' || c == '\t' ? c : '?';
    }
  }
  return out;
}

std::string threads_document(const std::vector<ThreadInfo> &threads, bool multiprocess) {
  std::string out(kXmlHead);
  out += "<threads>\n";
  for (const auto &thread : threads) {
    out += fmt::format("<thread id=\"{}\"", thread_id_text(thread.id, multiprocess));
    if (thread.core >= 0) out += fmt::format(" core=\"{}\"", thread.core);
    if (!thread.name.empty()) out += fmt::format(" name=\"{}\"", xml_escape(thread.name));
    if (thread.detail.empty())
      out += "/>\n";
    else
      out += fmt::format(">{}</thread>\n", xml_escape(thread.detail));
  }
  return out + "</threads>\n";
}

std::string libraries_document(const std::vector<Library> &libraries) {
  std::string main_map;
  std::string items;
  for (const auto &library : libraries) {
    if (library.name.empty()) {
      main_map = fmt::format(" main-lm=\"0x{:x}\"", library.link_map);
      continue;
    }
    items += fmt::format(
        "<library name=\"{}\" lm=\"0x{:x}\" l_addr=\"0x{:x}\" l_ld=\"0x{:x}\" lmid=\"0x0\"/>\n",
        xml_escape(library.name), library.link_map, library.base, library.dynamic);
  }
  return fmt::format("<library-list-svr4 version=\"1.0\"{}>\n{}</library-list-svr4>\n", main_map,
                     items);
}

std::string os_table_document(const OsTable &table) {
  std::string items;
  for (const auto &row : table.rows) {
    std::vector<std::pair<std::string, std::string>> columns;
    for (std::size_t i = 0; i < table.columns.size() && i < row.size(); ++i)
      columns.emplace_back(table.columns[i], row[i]);
    items += os_item(columns);
  }
  return os_document(table.name, items);
}

std::string os_tables_document(const std::vector<std::pair<std::string, std::string>> &tables) {
  std::string items;
  for (const auto &[name, description] : tables)
    items += os_item({{"Type", name}, {"Description", description}, {"Title", name}});
  return os_document("types", items);
}

std::string stop_reply(const StopEvent &event, std::string_view registers, const StopStyle &style) {
  const auto thread = thread_id_text(event.thread, style.multiprocess);
  const auto process =
      style.multiprocess ? fmt::format(";process:{:x}", event.thread.pid) : std::string();
  switch (event.reason) {
    case StopReason::ProcessExited:
      return fmt::format("W{:02x}{}", static_cast<unsigned>(event.number) & 0xff, process);
    case StopReason::ProcessKilled:
      return fmt::format("X{:02x}{}", signal_to_gdb(event.signal), process);
    case StopReason::ThreadExited:
      return fmt::format("w{:x};{}", static_cast<unsigned>(event.number) & 0xff, thread);
    case StopReason::NoneLeft:
      if (style.no_resumed) return "N";
      break;
    default:
      break;
  }
  auto out = fmt::format("T{:02x}{}thread:{};", signal_to_gdb(signal_of(event)),
                         reason_text(event, style), thread);
  if (event.core >= 0) out += fmt::format("core:{:x};", event.core);
  out += registers;
  return out;
}

}  // namespace cowbird::debug
