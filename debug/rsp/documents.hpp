// The XML documents of qXfer and the text of stop replies: pure functions from what a target says
// to what gdb reads.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "debug/target/target.hpp"

namespace cowbird::debug {

// With the characters that XML reserves as entities; control characters, which it cannot carry, as
// '?'.
std::string xml_escape(std::string_view text);

std::string threads_document(const std::vector<ThreadInfo> &threads, bool multiprocess);
std::string libraries_document(const std::vector<Library> &libraries);
std::string os_table_document(const OsTable &table);
// The answer to plain `info os`.
std::string os_tables_document(const std::vector<std::pair<std::string, std::string>> &tables);

// How a stop is worded: what gdb and session have agreed on.
struct StopStyle {
  bool multiprocess = true;
  bool swbreak = true, hwbreak = true;  // gdb knows these reasons
  bool fork = true, vfork = true, exec = true, no_resumed = true;
};
// "T05swbreak:;thread:p1.2;06:...;", "W00;process:1", "N". `registers` are the expedited ones, as
// "06:<hex>;" each.
std::string stop_reply(const StopEvent &event, std::string_view registers, const StopStyle &style);

}  // namespace cowbird::debug
