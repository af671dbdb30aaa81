// The devices of the machine that can be added, changed, asked about and removed while the guest
// runs: consoles (con), serial lines (ssl), block devices (ubd), memory (mem), the gdb server
// (gdb); network interfaces join in the same way. One DeviceDriver for each prefix of names
// registers here; boot/ makes the devices of the machine file through it, the management console
// everything later.
//
// Big kernel lock; configure() and remove() are called on kernel threads and may sleep, the others
// must not. Nothing here blocks a host thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace cowbird {

// What a driver says to a person: an answer, or why not. The words are those of the management
// console's protocol, without "OK " and "ERR ".
struct DeviceReply {
  bool ok = true;
  std::string text;

  static DeviceReply done(std::string answer = {}) { return {true, std::move(answer)}; }
  static DeviceReply refused(std::string reason) { return {false, std::move(reason)}; }
};

// One device, for listings (`cowbird ls`, `info os`).
struct DeviceStatus {
  std::string name;     // "con0", "ubda", "mem"
  std::string setting;  // as query() answers: "pts:/dev/pts/9"
  bool busy = false;    // remove() would refuse: the guest has it open
};

class DeviceDriver {
 public:
  virtual ~DeviceDriver() = default;

  // "con". No prefix is the beginning of another one's.
  virtual std::string_view prefix() const = 0;
  // One line for help: "con<n>=<channel>[,<channel>]".
  virtual std::string_view syntax() const = 0;

  // `unit` is what follows the prefix in the name: "0", "a", "0r" (ubd with flags), "" (mem, gdb).
  // `setting` is what follows '=', in UML's syntax, or a TOML inline table when it begins with '{'
  // (the keys of the device's table in the machine file). A device that is there is changed;
  // nothing is lost when the change is refused. Never empty.
  virtual DeviceReply configure(std::string_view unit, std::string_view setting) = 0;
  // `mem+=64M` and `mem-=64M`: configure() gets the operator as the first character of `setting`
  // ("+64M"). Other drivers never see one.
  virtual bool has_operators() const { return false; }
  // The configuration as it is now, in UML's syntax: "pts" before the guest opened the line,
  // "pts:/dev/pts/9" after.
  virtual DeviceReply query(std::string_view unit) = 0;
  // Distinct refusals: no such name, bad number, not there, busy ("Device is currently open").
  virtual DeviceReply remove(std::string_view unit) = 0;
  virtual void for_each(const std::function<void(const DeviceStatus &)> &function) = 0;
};

class DeviceRegistry {
 public:
  // The guest's. Tests make their own.
  static DeviceRegistry &instance();

  // The driver lives as long as the guest. Exist when the prefix is taken.
  Result<void> add(std::unique_ptr<DeviceDriver> driver);

  // "con1=pts", "mem-=64M", "ubdb={path=\"x.img\"}", "eth0" (which asks). An unknown name is
  // answered with the known prefixes.
  DeviceReply config(std::string_view request);
  DeviceReply remove(std::string_view name);
  // In the order of registration.
  std::vector<DeviceStatus> list();
  std::vector<std::string> syntaxes() const;

 private:
  std::string unknown(std::string_view name) const;
  std::string known() const;
  DeviceDriver *find(std::string_view name, std::string_view &unit);
  std::vector<std::unique_ptr<DeviceDriver>> drivers_;
};

}  // namespace cowbird
