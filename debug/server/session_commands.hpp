// The table of packets. Only the session's own files include this.
#pragma once

#include "debug/server/session.hpp"

namespace cowbird::debug {

struct Session::Command {
  enum Flags : unsigned {
    kNone = 0,
    kStopReply = 1,  // a stop may be the answer; to no other packet is a stop ever sent
    kRunning = 2,    // may come while gdb waits for a stop
    kNoTarget = 4,   // means something without an attached target
  };
  std::string_view name;
  bool exact;               // or what follows the name are arguments
  std::string_view schema;  // Arguments::parse
  unsigned flags;
  void (Session::*handler)(const Arguments &);

  // Null: unknown. `text` loses the name.
  static const Command *find(std::string_view &text);
};

}  // namespace cowbird::debug
